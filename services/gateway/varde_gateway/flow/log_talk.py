"""Where we stand with each peer about our log and its own: memory only, made again from the first answers.

A peer that we ask with a size that it does not have stored answers with the one that it has.
"""

from dataclasses import dataclass, field
from typing import Final

from varde.checkpoint import Checkpoint
from varde.exchange import Answer
from varde.identifiers import Nation
from varde.note import NoteKey
from varde_gateway.flow.remembered import Remembered

HOLD_SIGNING_MS: Final = 20_000
"""Two heartbeats: in that time the peers say what they hold of our log, in case this database is an older copy."""

_MAX_VERIFIED: Final = 256


@dataclass(slots=True)
class Claim:
    """A checkpoint that a log has signed, as ``by`` has seen it, which the log has not proven to us yet."""

    checkpoint: Checkpoint
    note: str
    by: Nation
    heartbeats: int = 0


@dataclass(slots=True)
class LogTalk:
    """Where we stand with one peer; ``stored_there`` is the size of our log that it has stored.

    ``said`` is our checkpoint that proofs for this peer lead to, ``asked`` the sizes that it may still answer, newest last.
    ``told`` is how often it was told each checkpoint that we have seen of others.
    ``claims`` are checkpoints of the peer's own log that others have seen and that it has not proven yet, by size.
    """

    stored_there: int = 0
    said: Checkpoint | None = None
    asked: list[int] = field(default_factory=list)
    answer: Answer | None = None
    refusal: str = ""
    asked_of_us: tuple[int, ...] = ()
    told: dict[str, int] = field(default_factory=dict)
    claims: dict[int, Claim] = field(default_factory=dict)


@dataclass(slots=True)
class OutsideTalk:
    """Where we stand with a witness outside the federation; ``key`` and ``url`` are as they were set.

    ``stored_there`` is the size of our log that it has stored, ``cosigned`` the newest of which we have its cosignature;
    None before we know.
    """

    key: NoteKey
    url: str
    stored_there: int | None = None
    cosigned: int | None = None
    trouble: str = ""


class Logs:
    """The talks with every peer, and what of their logs was verified lately."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.halted = ""
        self._hold_until = 0
        self._asked: set[Nation] = set()
        self._talks: dict[Nation, LogTalk] = {}
        self._verified: Remembered[tuple[str, int, bytes]] = Remembered(_MAX_VERIFIED)

    def of(self, peer: Nation) -> LogTalk:
        """The talk with one peer."""
        return self._talks.setdefault(peer, LogTalk())

    def hold(self, now: int) -> None:
        """Sign nothing new before the peers have said what they hold of our log, or have had their time to (ticks)."""
        self._hold_until = now + HOLD_SIGNING_MS

    def hear_answer(self, peer: Nation, needed: int) -> None:
        """A peer has answered; where enough have, there is nothing to wait for any more."""
        self._asked.add(peer)
        if len(self._asked) >= needed:
            self._hold_until = 0

    def holds(self, now: int) -> bool:
        """Whether our database may still turn out to be an older copy."""
        return now < self._hold_until

    def verify(self, known: Checkpoint) -> None:
        """Remember that this state belongs to the one history that we know of its log."""
        self._verified.add((known.origin, known.size, known.root))

    def is_verified(self, known: Checkpoint) -> bool:
        """Whether this very state was verified lately."""
        return (known.origin, known.size, known.root) in self._verified
