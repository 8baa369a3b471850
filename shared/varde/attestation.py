"""Who stands behind a log's checkpoint, found offline: the chain of voted rosters gives the keys of log and witnesses.

Protocol sections 4.3, 10.5 to 10.7. Nothing here knows a server: the chain begins at the genesis fingerprint that was
told out of band, and each further roster is there by the votes of the one before. Which roster a node should have had,
no file can say; that the chain in it is the newest one is for the reader to compare.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from varde.checkpoint import (
    Checkpoint,
    LogKey,
    cosigned_at,
    open_checkpoint,
    witness_majority,
    witnesses_of,
)
from varde.errors import Reason, Untrusted, VardeError
from varde.identifiers import FederationId, Nation
from varde.note import parse_vkey
from varde.roster import GRACE_SECONDS, Roster, extend_chain


class Outcome(StrEnum):
    """What came of one step; a warning says what is not proven, and is no sign of tampering."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was checked: which check, where in the file, and in plain words what it proves or what is wrong."""

    check: str
    outcome: Outcome
    place: str
    detail: str


@dataclass(slots=True)
class Lineage:
    """The rosters that hold, in order from the genesis fingerprint on; ``fault`` says why the one after them does not."""

    genesis: FederationId
    now: int
    rosters: list[Roster] = field(default_factory=list)
    fault: str | None = None

    @property
    def newest(self) -> Roster | None:
        """The last one that holds."""
        return self.rosters[-1] if self.rosters else None

    def follow(self, text: str) -> None:
        """Take the next voted roster; after one that does not hold, none is taken any more."""
        if self.fault is not None:
            return
        try:
            added = extend_chain(
                self.rosters, [text.encode("utf-8", "replace")], self.genesis, self.now
            )
            if not added:
                raise Untrusted(Reason.BAD_ROSTER, "the same roster stands there twice")
        except VardeError as error:
            self.fault = error.detail
        else:
            self.rosters += [roster for roster, _ in added]


@dataclass(frozen=True, slots=True)
class Attested:
    """A checkpoint that its log signed: who cosigned it when (Unix seconds), and how many of the others make a majority."""

    checkpoint: Checkpoint
    witnesses: Mapping[Nation, int]
    others: int
    needed: int

    @property
    def witnessed(self) -> bool:
        """Whether a majority of the other members has cosigned it."""
        return len(self.witnesses) >= self.needed


def log_keys(rosters: Sequence[Roster], nation: Nation) -> tuple[LogKey, ...]:
    """Every pair of keys that the rosters give to the log of a nation, the newest first."""
    keys = [each.members[nation].log for each in reversed(rosters) if nation in each.members]
    return tuple(dict.fromkeys(keys))


def open_with_any(note: str, keys: Iterable[LogKey]) -> tuple[Checkpoint, LogKey]:
    """The checkpoint of a note, and which pair of the log's ``keys`` signed it; ``VardeError`` where none did."""
    refusal: VardeError = Untrusted(Reason.BAD_LOG, "no key of the log is known")
    for key in keys:
        try:
            return open_checkpoint(note, key), key
        except VardeError as error:
            refusal = error
    raise refusal


def replaced_before(rosters: Sequence[Roster], nation: Nation, key: LogKey, at: int) -> int | None:
    """Which roster, more than 7 days before ``at`` (Unix seconds), had taken ``key`` from the nation's log; None: none.

    Who stole a key that was replaced since can date what he signs with it.
    """
    given = [
        place
        for place, each in enumerate(rosters)
        if nation in each.members and each.members[nation].log == key
    ]
    for successor in rosters[given[-1] + 1 :][:1] if given else ():
        if at > successor.issued_at + GRACE_SECONDS:
            return successor.version
    return None


def attest(note: str, roster: Roster, owner: Nation, keys: Iterable[LogKey], now: int) -> Attested:
    """Who has cosigned the checkpoint that the log of ``owner`` signed with one of ``keys``.

    Only other members with a vote count, with their keys of ``roster``. ``VardeError`` where the log's signature, or a
    line under the name of a witness, is wrong.
    """
    checkpoint, _ = open_with_any(note, keys)
    witnesses = {
        nation: [parse_vkey(member.witness)]
        for nation, member in roster.members.items()
        if member.voting_keys is not None
    }
    others = len(witnesses.keys() - {owner})
    found = witnesses_of(note, witnesses, owner, now)
    return Attested(
        checkpoint=checkpoint,
        witnesses={each: cosigned_at(note, witnesses[each][0]) for each in sorted(found)},
        others=others,
        needed=witness_majority(others + 1),
    )
