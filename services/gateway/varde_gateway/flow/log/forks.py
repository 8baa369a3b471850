"""Finding out a log that shows two histories: compare what others have seen of it, and have it prove what differs.

Whoever hears of a state that he has not verified himself asks the log. The question stands in each of our heartbeats until
it is settled, and the log says which of them it has heard: an honest one then always gives the proof, through losses,
restarts and links that are cut one way. Protocol section 10.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from varde.checkpoint import Checkpoint, keep_own_lines, open_checkpoint, parse_checkpoint
from varde.errors import Untrusted, VardeError
from varde.exchange import MAX_PROVE, LogWord
from varde.identifiers import Nation
from varde.merkle import verify_consistency
from varde.note import parse_note
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.fork_evidence import (
    forget_unproven,
    is_convicted,
    keep_unproven,
    record_conflict,
    stored_note,
)
from varde_gateway.flow.log.history import face
from varde_gateway.flow.memory.log_talk import Claim, LogTalk, Shown
from varde_gateway.store.tables import AnyRow

PATIENCE_MS: Final = 20_000
"""Two heartbeats: how long a log that says it has not heard the question may leave the proof owing."""

MISSES_TO_CONVICT: Final = 2
MAX_CLAIMS_OF_ONE: Final = 4
"""Of one log as one other has seen it; so nobody alone can keep us from asking about what the others have seen."""

_KEPT_FREE: Final = 2
"""Of the questions, for what we have stored ourselves and for what the log has shown us and we could not place."""


@dataclass(frozen=True, slots=True)
class Considered:
    """What became of the checkpoint in a peer's heartbeat: ``shown`` where the log did sign it, ``cosigned`` or not.

    ``broken`` says that the log's own proof with it leads nowhere.
    """

    shown: Shown | None = None
    cosigned: bool = False
    broken: bool = False


def read_state(note: str) -> Checkpoint:
    """What a note that was verified before says."""
    return parse_checkpoint(parse_note(note).text)


async def compare(desk: Desk, by: Nation, note: str) -> None:
    """Hold a checkpoint that ``by`` has seen against what we know of that log; our own log has its own way."""
    opened = _open_seen(desk, note)
    if opened is None:
        return
    owner, shown = opened
    if owner == desk.nation:
        await face(desk, by, note)
    else:
        await claim_of(desk, owner, shown, by)


async def claim_of(desk: Desk, owner: Nation, shown: Shown, by: str) -> None:
    """``by`` has seen a state that the log of ``owner`` did sign: known, or another of the same size, or to be proven."""
    state = shown.checkpoint
    if desk.logs.is_verified(state):
        return
    stored, convicted = await desk.ledger.read(
        lambda c: (stored_note(c, state.origin), is_convicted(c, state.origin))
    )
    claims = desk.logs.of(owner).claims
    other = claims.get(state.size)
    for known in filter(None, (stored, None if other is None else other.shown.note)):
        seen = read_state(known)
        if seen == state:
            return
        if seen.size == state.size:
            detail = f"two checkpoints of {state.size} entries, one seen by {by}"
            await _convict(desk, owner, known, shown.note, detail)
            return
    told = sum(claim.by == by for claim in claims.values())
    if convicted or told >= MAX_CLAIMS_OF_ONE or len(claims) >= MAX_PROVE - _KEPT_FREE:
        return
    claims[state.size] = Claim(shown, by)
    desk.links.of(owner, desk.ticks()).speak_soon()


def recall_claims(desk: Desk, rows: Sequence[AnyRow]) -> None:
    """What was owed before a start, the ``rows`` that are kept of it, is owed still."""
    owners = {member.log_name: nation for nation, member in desk.trust.current.members.items()}
    for row in rows:
        owner = owners.get(row.origin)
        if owner is not None:
            shown = Shown(read_state(row.first_note), row.first_note)
            claim = Claim(shown, row.seen_by, kept=True)
            desk.logs.of(owner).claims.setdefault(row.size, claim)


async def settle(
    desk: Desk, peer: Nation, origin: str, word: LogWord, considered: Considered
) -> None:
    """Hold what the log of ``peer`` owes against what it shows and proves in this heartbeat.

    What is proven belongs to the history of the checkpoint that is shown; and that one belongs to the history that we
    know if it was cosigned or if our stored one is proven, too. (1) what we cannot place is owed from now on; (2) what
    is proven is settled; (3) two states of one size convict the log; (4) so does a proof that is not there for the
    second time, of a log that has heard the question and does not say that it is halted; (5) at the first time, and where
    it says for two heartbeats that it has not heard, both states are kept as unproven.
    """
    talk = desk.logs.of(peer)
    if not talk.claims and (considered.shown is None or considered.cosigned):
        return
    stored, convicted = await desk.ledger.read(
        lambda c: (stored_note(c, origin), is_convicted(c, origin))
    )
    if convicted:
        talk.claims.clear()
        return
    anchor = None if stored is None else Shown(read_state(stored), stored)
    newest = considered.shown or anchor
    if newest is None:
        return
    proofs = dict(word.proofs)
    connected = anchor is not None and (
        considered.cosigned or _is_proven(anchor.checkpoint, newest.checkpoint, proofs)
    )
    if anchor is not None and not connected:  # (1)
        _owe(talk, anchor, desk.nation)
        if all(claim.by != peer for claim in talk.claims.values()):
            _owe(talk, newest, peer)
    for size, claim in [*talk.claims.items()]:
        state = claim.shown.checkpoint
        ours = claim.by == desk.nation
        proven = _is_proven(state, newest.checkpoint, proofs)
        if state.origin != origin:
            # Of a log that the peer had before; what is kept of it stays.
            del talk.claims[size]
        elif (connected and (ours or proven)) or (not ours and desk.logs.is_verified(state)):  # (2)
            del talk.claims[size]
            await _settled(desk, peer, claim)
        elif not proven:
            broken = ours and considered.broken
            judged = _judge(desk, talk, claim, newest, word, broken=broken)
            await _act_on(desk, peer, claim, newest, judged)


async def _settled(desk: Desk, peer: Nation, claim: Claim) -> None:
    state = claim.shown.checkpoint
    desk.logs.verify(state)
    if claim.kept:
        await desk.ledger.write(lambda tx: forget_unproven(tx, peer, state.origin, state.size))


@dataclass(frozen=True, slots=True)
class _Judged:
    detail: str
    convicts: bool


def _judge(
    desk: Desk, talk: LogTalk, claim: Claim, newest: Shown, word: LogWord, *, broken: bool
) -> _Judged | None:
    size, shown = claim.shown.checkpoint.size, newest.checkpoint.size
    seen = f"{size} entries, as seen by {claim.by}"
    if size == shown:  # (3)
        return _Judged(f"two checkpoints of {seen}", convicts=True)
    heard = broken or talk.has_heard(claim, word.heard)
    claim.missed += heard and not word.halted
    if size > shown:
        detail = f"it has signed {seen}, and shows {shown} here"
    else:
        detail = f"no proof that {shown} entries continue {seen}"
    if word.halted:
        detail += "; it says that it has lost history"
    elif not heard:
        detail += "; it says that it does not hear us"
    if claim.missed >= MISSES_TO_CONVICT:  # (4)
        return _Judged(detail, convicts=True)
    waited = claim.asked_in is not None and desk.ticks() - claim.asked_at >= PATIENCE_MS
    return _Judged(detail, convicts=False) if heard or waited else None  # (5)


async def _act_on(
    desk: Desk, peer: Nation, claim: Claim, newest: Shown, judged: _Judged | None
) -> None:
    if judged is None:
        return
    if judged.convicts:
        await _convict(desk, peer, claim.shown.note, newest.note, judged.detail)
    elif not claim.kept:
        await desk.ledger.write(
            lambda tx: keep_unproven(tx, peer, claim, newest.note, judged.detail)
        )
        claim.kept = True
        desk.logs.tell_again(claim.shown.note, newest.note)


async def _convict(desk: Desk, nation: Nation, first: str, second: str, detail: str) -> None:
    await desk.ledger.write(lambda tx: record_conflict(tx, nation, first, second, detail))
    desk.logs.tell_again(first, second)


def _owe(talk: LogTalk, shown: Shown, by: str) -> None:
    talk.claims.setdefault(shown.checkpoint.size, Claim(shown, by))


def _is_proven(old: Checkpoint, new: Checkpoint, proofs: Mapping[int, Sequence[bytes]]) -> bool:
    if old == new:
        return True
    path = proofs.get(old.size)
    if path is None:
        return False
    try:
        verify_consistency(old.size, new.size, old.root, new.root, path)
    except Untrusted:
        return False
    return True


def _open_seen(desk: Desk, note: str) -> tuple[Nation, Shown] | None:
    try:
        origin = read_state(note).origin
        for member in desk.trust.current.members.values():
            if member.log_name == origin:
                shown = Shown(open_checkpoint(note, member.log), keep_own_lines(note, member.log))
                return member.nation, shown
    except VardeError:
        # Whoever passes on what no log has signed proves nothing by it.
        return None
    return None
