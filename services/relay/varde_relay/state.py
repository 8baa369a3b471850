"""What the relay knows of itself while it runs: per link, per reason, and whether its own broker is there.

Counters and facts only; ``health`` shows them.
"""

from collections import Counter
from dataclasses import dataclass, field

from varde.errors import Reason
from varde.identifiers import Lane, Nation


@dataclass(slots=True)
class LinkState:
    """One peer's link; times are Unix seconds, ``lag`` counts what the peer still holds for us by lane."""

    connected: bool = False
    connected_at: float | None = None
    heard_at: float | None = None
    last_error: str = ""
    disconnections: int = 0
    denied: int = 0
    fetched: Counter[Lane] = field(default_factory=Counter)
    admitted: Counter[Lane] = field(default_factory=Counter)
    refused: Counter[Reason] = field(default_factory=Counter)
    delayed: Counter[Reason] = field(default_factory=Counter)
    not_stored: int = 0
    lag: dict[Lane, int] = field(default_factory=dict)
    age_seconds: dict[Lane, float] = field(default_factory=dict)


@dataclass(slots=True)
class RelayState:
    """The whole relay.

    ``unstored_since`` is since when our broker has stored nothing that we gave it, ``told_stuck_at`` when the gateway last
    said the same of ``stuck_streams``; both in seconds of a clock that never steps. ``broker_trouble`` is for a person.
    """

    home_connected: bool = False
    home_error: str = ""
    unstored_since: float | None = None
    told_stuck_at: float | None = None
    stuck_streams: tuple[str, ...] = ()
    broker_trouble: str = ""
    roster_version: int = 0
    roster_expires_at: int = 0
    links: dict[Nation, LinkState] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether documents can flow: our broker answers and stores, and a roster is verified."""
        return self.home_connected and not self.broker_trouble and self.roster_version > 0

    def forget_stuck(self) -> None:
        """What was known of a broker that is gone, or was restarted."""
        self.unstored_since = self.told_stuck_at = None
        self.stuck_streams, self.broker_trouble = (), ""
