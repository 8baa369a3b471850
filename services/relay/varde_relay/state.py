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
    """The whole relay."""

    home_connected: bool = False
    home_error: str = ""
    roster_version: int = 0
    roster_expires_at: int = 0
    links: dict[Nation, LinkState] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether documents can flow: our broker answers and a roster is verified."""
        return self.home_connected and self.roster_version > 0
