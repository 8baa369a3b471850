"""Where we stand with each peer about our log and its own: memory only, made again from the first answers.

A peer that we ask with a size that it does not have stored answers with the one that it has.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from varde.checkpoint import Checkpoint
from varde.exchange import Answer
from varde.heartbeat import HEARTBEAT_SECONDS
from varde.identifiers import Nation
from varde.note import NoteKey
from varde_gateway.flow.memory.remembered import Remembered

OFFER_MS: Final = HEARTBEAT_SECONDS * 1000
HOLD_SIGNING_MS: Final = 2 * HEARTBEAT_SECONDS * 1000
"""Two heartbeats: in that time the peers say what they hold of our log, in case this database is an older copy."""

_MAX_VERIFIED: Final = 256
_MAX_SPOKEN: Final = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """A state that a log has signed, and its note with the log's own two lines alone."""

    checkpoint: Checkpoint
    note: str


@dataclass(slots=True)
class Claim:
    """A state of the peer's log, as ``by`` has seen it, that is not known yet to belong to the one history we know.

    ``asked_in`` is the sequence of our first heartbeat with the question, ``asked_at`` its time (ticks). ``missed`` counts
    the heartbeats of a log that had heard the question and gave no proof. ``kept`` says that it is in the database as
    unproven.
    """

    shown: Shown
    by: str
    asked_in: int | None = None
    asked_at: int = 0
    missed: int = 0
    kept: bool = False


@dataclass(slots=True)
class LogTalk:
    """Where we stand with one peer; ``stored_there`` is the size of our log that it has stored.

    ``said`` is our checkpoint that proofs for this peer lead to, ``asked`` the sizes that it may still answer, newest last.
    ``heard`` is the sequence of its newest heartbeat, ``asked_of_us`` what that one wants proven; ``spoken`` are the
    sequences of our last ones, of this process and no other replica. ``told`` is in which of
    our heartbeats without a break it was first told each checkpoint that we have seen of others, ``known_there`` are
    those that it has heard, ``turns`` when each log was last spoken of (ticks). ``claims`` are what it owes proofs of, by
    size.
    """

    stored_there: int = 0
    said: Checkpoint | None = None
    asked: list[int] = field(default_factory=list)
    answer: Answer | None = None
    refusal: str = ""
    heard: int = 0
    spoken: Remembered[int] = field(default_factory=lambda: Remembered(_MAX_SPOKEN))
    asked_of_us: tuple[int, ...] = ()
    told: dict[str, int] = field(default_factory=dict)
    known_there: set[str] = field(default_factory=set)
    turns: dict[str, int] = field(default_factory=dict)
    claims: dict[int, Claim] = field(default_factory=dict)

    def speak(self, sequence: int, told: Sequence[str], asked: Collection[int], now: int) -> None:
        """Our heartbeat of this ``sequence`` tells and asks this: from here on the peer can have heard it."""
        self.spoken.add(sequence)
        self.told = {note: self.told.get(note, sequence) for note in told}
        for size, claim in self.claims.items():
            if size not in asked:
                claim.asked_in = None
            elif claim.asked_in is None:
                claim.asked_in, claim.asked_at = sequence, now

    def hear(self, sequence: int) -> None:
        """The newest heartbeat of ours that the peer has taken in: with it what that told."""
        if sequence in self.spoken:
            self.known_there |= {note for note, first in self.told.items() if first <= sequence}

    def has_heard(self, claim: Claim, sequence: int) -> bool:
        """Whether a peer that has taken in our heartbeat of this ``sequence`` was asked there to prove the claim."""
        asked = claim.asked_in is not None and claim.asked_in <= sequence
        return asked and sequence in self.spoken


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
        self._offered: Shown | None = None
        self._offered_at = 0
        self._asked: set[Nation] = set()
        self._talks: dict[Nation, LogTalk] = {}
        self._verified: Remembered[tuple[str, int, bytes]] = Remembered(_MAX_VERIFIED)

    def of(self, peer: Nation) -> LogTalk:
        """The talk with one peer."""
        return self._talks.setdefault(peer, LogTalk())

    def tell_again(self, *notes: str) -> None:
        """These matter more than was known when they were told: whoever has forgotten them since hears them again."""
        for talk in self._talks.values():
            talk.known_there -= {*notes}
            talk.told = {note: first for note, first in talk.told.items() if note not in notes}

    def offer(self, newest: Shown, asked: int, now: int) -> Shown:
        """The checkpoint that peers are to cosign now: the same for all whose turn comes within a heartbeat's time (ticks).

        Of a log that grows all the time each would cosign another size, and none would have a majority. It gives way to the
        ``newest`` where somebody has ``asked`` about a size that only that one covers.
        """
        offered = self._offered
        if (
            offered is None
            or now - self._offered_at >= OFFER_MS
            or offered.checkpoint.size < asked <= newest.checkpoint.size
        ):
            self._offered, self._offered_at = newest, now
            return newest
        return offered

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
