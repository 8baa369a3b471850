"""Witnesses outside the federation: they cosign our log too, and count in no majority of its members.

Our side of C2SP tlog-witness ``add-checkpoint``. What the members have witnessed is asked for first, so that their lines and
the outside ones stand under one checkpoint. A witness decides nothing here: whatever it answers, the log and the alerts
go on, and a person reads its trouble. Protocol section 10.6.
"""

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection

from varde.checkpoint import (
    Checkpoint,
    format_consistency,
    parse_checkpoint,
    take_cosignature,
)
from varde.errors import VardeError
from varde.merkle import consistency_proof
from varde.note import parse_note
from varde.witness import WitnessStatus
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.cosignatures import Cosignature, keep_cosignature, newest_cosigned
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.log.witness_report import cosigned_note, witnessed_size
from varde_gateway.flow.memory.log_talk import OutsideTalk
from varde_gateway.flow.ports import AskWitness, WitnessUnreachable
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tree import read_ahead

_log = structlog.get_logger("witnesses")

ASK_SECONDS: Final = 30.0
_OK: Final = 200
_ASKINGS: Final = 2
"""The second one with the size that the witness has said in answer to the first."""

_MEANINGS: Final = {
    WitnessStatus.MALFORMED: "does not understand our request",
    WitnessStatus.UNSIGNED: "does not know the key of our log: give it the log's vkey",
    WitnessStatus.UNKNOWN_LOG: "does not witness our log: give it the log's vkey",
    WitnessStatus.INCONSISTENT: (
        "has stored a history of our log that ours does not continue; see 'halted', and compare with the peers"
    ),
}


async def run_outside_witnesses(desk: Desk, ask: AskWitness) -> None:
    """Ask every witness for its cosignature whenever there is something newer, twice a minute at the most."""
    await repeat("outside witnesses", lambda: ask_outside(desk, ask), pause_seconds=ASK_SECONDS)


async def ask_outside(desk: Desk, ask: AskWitness) -> None:
    """One round: all at once, so that one that does not answer keeps the others from nothing."""
    async with asyncio.TaskGroup() as asking:
        for talk in desk.outside:
            asking.create_task(_ask_one(desk, talk, ask))


async def _ask_one(desk: Desk, talk: OutsideTalk, ask: AskWitness) -> None:
    cosigned = talk.cosigned
    if cosigned is None:
        cosigned = await desk.ledger.read(lambda c: newest_cosigned(c, talk.key.name))
        talk.cosigned = talk.stored_there = cosigned
    try:
        note = await _note_after(desk, cosigned)
    except HistoryLost as error:
        talk.trouble = f"is not asked: {error.found}"
        return
    if note is None:
        return
    claimed = parse_checkpoint(parse_note(note).text)
    try:
        trouble = await _have_cosigned(desk, talk, ask, note, claimed)
    except WitnessUnreachable as error:
        trouble = error.detail
    if trouble and trouble != talk.trouble:
        _log.warning("outside witness", witness=talk.key.name, trouble=trouble)
    talk.trouble = trouble


async def _note_after(desk: Desk, size: int) -> str | None:
    """What the members have witnessed if that is newer than ``size``; else our newest checkpoint if that is."""
    newest = await checkpoint(desk)

    def read(connection: Connection) -> str | None:
        witnessed = witnessed_size(connection, desk.trust.current, desk.nation) or 0
        return cosigned_note(connection, witnessed, ()) if witnessed > size else None

    note = await desk.ledger.read(read)
    if note is None and parse_checkpoint(parse_note(newest).text).size > size:
        return newest
    return note


async def _have_cosigned(
    desk: Desk, talk: OutsideTalk, ask: AskWitness, note: str, claimed: Checkpoint
) -> str:
    """What is in the way, in words; empty where it has cosigned."""
    for _ in range(_ASKINGS):
        old = talk.stored_there or 0
        if old > claimed.size:
            return f"has stored {old} entries of our log, ours has {claimed.size}: is the database an older copy?"
        request = await desk.ledger.read(lambda c, old=old: _request(c, old, claimed.size, note))  # type: ignore[misc] # the default binds the loop's size
        status, body = await ask(talk.url, request)
        if status == _OK:
            return await _take(desk, talk, note, claimed, body)
        if status != WitnessStatus.OTHER_SIZE:
            return _MEANINGS.get(status, "") or f"answers with status {status}"  # type: ignore[call-overload] # any number
        size = _size_in(body)
        if size is None:
            return "answers 409 without the size that it has stored"
        if size == old:
            return f"has stored another root for the {size} entries of our log that it knows"
        talk.stored_there = size
    return "says another size at every question"


def _request(connection: Connection, old: int, size: int, note: str) -> bytes:
    path = read_ahead(connection, lambda read: consistency_proof(old, size, read)) if old else []
    return format_consistency(old, path, note).encode()


async def _take(desk: Desk, talk: OutsideTalk, note: str, claimed: Checkpoint, body: bytes) -> str:
    try:
        line, at = take_cosignature(note, body.decode(), talk.key, desk.now())
    except (UnicodeDecodeError, VardeError) as error:
        detail = error.detail if isinstance(error, VardeError) else "it is not text"
        return f"its cosignature is refused: {detail}"
    await keep_cosignature(desk, Cosignature(claimed.size, talk.key.name, line, at * 1000))
    talk.stored_there = talk.cosigned = claimed.size
    return ""


def _size_in(body: bytes) -> int | None:
    digits = body.removesuffix(b"\n")
    return int(digits) if digits.isdigit() and len(digits) <= len(str(2**63)) else None
