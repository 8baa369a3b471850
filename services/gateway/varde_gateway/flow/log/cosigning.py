"""The witness's part: judge a log's checkpoint, store it durably, and only then cosign it. Protocol section 10.6.

It is the same for a request in a peer's heartbeat and for one that comes by HTTP from anybody. Signatures and proofs are
verified before the writer is asked for anything; it stores only onto what was judged.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select, update

from varde.checkpoint import LogKey, keep_own_lines, open_checkpoint, parse_checkpoint
from varde.errors import VardeError
from varde.exchange import Answer
from varde.identifiers import Nation
from varde.note import format_signature, parse_note
from varde.witness import Cosign, RefuseCheckpoint, WitnessStatus, consider_checkpoint
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.fork_evidence import (
    is_convicted,
    owes_proofs,
    record_conflict,
    stored_note,
)
from varde_gateway.flow.log.forks import Considered, claim_of, read_state
from varde_gateway.flow.memory.log_talk import Shown
from varde_gateway.store.tables import witnessed_table
from varde_gateway.store.transaction import Transaction

_BY_HTTP: Final = "HTTP"


@dataclass(frozen=True, slots=True)
class _Standing:
    stored: str | None
    convicted: bool
    owing: bool


@dataclass(frozen=True, slots=True)
class _Judged:
    """``other`` is what the log has signed in the place of what is stored."""

    decision: Cosign | RefuseCheckpoint
    shown: Shown | None
    other: Shown | None


async def consider(
    desk: Desk, peer: Nation, key: LogKey, request: str
) -> tuple[Answer, Considered]:
    """Answer the body of ``add-checkpoint`` for the log of ``peer``; and what is known by it of that log."""
    while True:
        standing = await desk.ledger.read(lambda c: _standing(c, key.name))
        judged = await asyncio.to_thread(_judge, request, key, standing)
        if await _store(desk, peer, judged, standing):
            break
    decision = judged.decision
    if isinstance(decision, RefuseCheckpoint):
        other_size = decision.status is WitnessStatus.OTHER_SIZE
        body = f"{decision.known_size}\n" if other_size else ""
        broken = decision.status is WitnessStatus.INCONSISTENT
        answer = Answer(decision.status.value, body, standing.stored)
        return answer, Considered(judged.shown, broken=broken)
    if standing.stored is not None:
        desk.logs.verify(read_state(standing.stored))
    desk.logs.verify(decision.checkpoint)
    # What was stored is durable by now, and is never cosigned in another form after a crash.
    line = format_signature(desk.witness.cosign(decision.note, desk.now()))
    return Answer(200, line, None), Considered(judged.shown, cosigned=True)


async def add_checkpoint(desk: Desk, request: bytes) -> Answer:
    """Answer tlog-witness ``add-checkpoint`` as it came by HTTP: for the log of any member but ourselves.

    Who asks may be anybody with a genuine checkpoint in his hands. That his proof leads nowhere says nothing of the log,
    which is asked itself.
    """
    keys = {
        member.log_name: (nation, member.log)
        for nation, member in desk.trust.current.members.items()
        if nation != desk.nation
    }
    origin = _origin_in(request)
    if origin not in keys:
        status = WitnessStatus.MALFORMED if origin is None else WitnessStatus.UNKNOWN_LOG
        return Answer(status.value, "", None)
    nation, key = keys[origin]
    answer, considered = await consider(desk, nation, key, request.decode())
    if considered.shown is not None and not considered.cosigned:
        await claim_of(desk, nation, considered.shown, _BY_HTTP)
    return answer


async def witnessed_note(desk: Desk, origin_digest: str) -> str | None:
    """The newest checkpoint that we have stored for the log whose origin has this SHA-256 (hexadecimal)."""
    for origin, note in await desk.ledger.read(witnessed_notes):
        if hashlib.sha256(origin.encode()).hexdigest() == origin_digest:
            return note
    return None


def witnessed_notes(connection: Connection) -> list[tuple[str, str]]:
    """The origin and the newest stored checkpoint of each log."""
    rows = connection.execute(select(witnessed_table.c.origin, witnessed_table.c.note))
    return [(row.origin, row.note) for row in rows]


def _standing(connection: Connection, origin: str) -> _Standing:
    return _Standing(
        stored_note(connection, origin),
        is_convicted(connection, origin),
        owes_proofs(connection, origin),
    )


def _judge(request: str, key: LogKey, standing: _Standing) -> _Judged:
    shown = _shown_in(request, key)
    try:
        stored = None if standing.stored is None else open_checkpoint(standing.stored, key)
    except VardeError as error:
        detail = f"what is stored here of this log is not what it signed: {error.detail}"
        return _Judged(RefuseCheckpoint(WitnessStatus.UNSIGNED, detail), shown, None)
    other = None
    if shown is not None and stored is not None:
        state = shown.checkpoint
        other = shown if state.size == stored.size and state != stored else None
    if standing.convicted or standing.owing:
        what = "has signed two histories" if standing.convicted else "owes proofs of what it signed"
        refusal = RefuseCheckpoint(WitnessStatus.UNSIGNED, f"this log {what}, and is not cosigned")
        return _Judged(refusal, shown, other)
    known = {} if stored is None else {key.name: stored}
    decision = consider_checkpoint(request.encode(), {key.name: key}, known)
    return _Judged(decision, shown, other)


async def _store(desk: Desk, peer: Nation, judged: _Judged, standing: _Standing) -> bool:
    """False where what was judged is not what stands there any more."""
    decision, other, stored = judged.decision, judged.other, standing.stored
    if isinstance(decision, Cosign):
        if stored is not None and read_state(stored) == decision.checkpoint:
            return True
        return await desk.ledger.write(lambda tx: _replace(tx, stored, decision))
    if other is not None and stored is not None:
        detail = f"two checkpoints of {other.checkpoint.size} entries"
        await desk.ledger.write(lambda tx: record_conflict(tx, peer, stored, other.note, detail))
        desk.logs.tell_again(stored, other.note)
    return True


def _replace(tx: Transaction, stored: str | None, decision: Cosign) -> bool:
    origin = decision.checkpoint.origin
    standing = _standing(tx.connection, origin)
    if standing != _Standing(stored, convicted=False, owing=False):
        return False
    row = {"size": decision.checkpoint.size, "note": decision.note, "at": tx.now}
    if stored is None:
        tx.connection.execute(insert(witnessed_table), {"origin": origin, **row})
    else:
        tx.connection.execute(
            update(witnessed_table).where(witnessed_table.c.origin == origin).values(**row)
        )
    return True


def _shown_in(request: str, key: LogKey) -> Shown | None:
    note = _note_in(request)
    try:
        return Shown(open_checkpoint(note, key), keep_own_lines(note, key))
    except VardeError:
        return None


def _origin_in(request: bytes) -> str | None:
    try:
        return parse_checkpoint(parse_note(_note_in(request.decode())).text).origin
    except (UnicodeDecodeError, VardeError):
        return None


def _note_in(request: str) -> str:
    return request.partition("\n\n")[2]
