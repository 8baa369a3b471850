"""The export of the audit log, for a verifier that trusts no server: JSON Lines, in constant memory. Protocol section 10.5.

What is exported is what is stored, also where somebody has changed it, so that the verification names the place: from a
running node, or from the database of one that does not run, or must not.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, func, select

from varde.auditlog import AuditKind
from varde.checkpoint import LogKey, open_checkpoint
from varde.encoding import JsonObject, encode_base64url
from varde.identifiers import FederationId, Nation
from varde.note import format_vkey
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.flow.log.trail import checkpoint, newest_note
from varde_gateway.store.tables import (
    AnyRow,
    audit_leaves_table,
    checkpoints_table,
    cosignatures_table,
    rosters_table,
)
from varde_gateway.store.tree import log_size

T = TypeVar("T")
_EXPORT_PAGE: Final = 2000


class Reading(Protocol):
    """A database that is read; the ledger of a running node is one."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What ``query`` finds."""


@dataclass(frozen=True, slots=True)
class LogOwner:
    """Whose log it is, and by which keys."""

    nation: Nation
    federation: FederationId
    key: LogKey


async def export_lines(desk: Desk, actor: str) -> AsyncIterator[str]:
    """The whole log as JSON Lines for ``varde audit verify``; the export is itself recorded."""
    await desk.ledger.write(lambda tx: tx.audit(AuditKind.EXPORTED, actor, [("log", "audit")]))
    size, note = await _whole(desk)
    async for text in log_lines(desk, size, note):
        yield text


async def _whole(desk: Desk) -> tuple[int, str]:
    with suppress(HistoryLost):
        note = await checkpoint(desk)
        if not desk.logs.halted:
            return open_checkpoint(note, desk.log_signer.key).size, note
    # What is not signed any more goes out all the same, the entry that says why among it.
    return await desk.ledger.read(_last_word)


async def stored_lines(owner: LogOwner, stored: Reading) -> AsyncIterator[str]:
    """The same from a database without its node; nothing is written into it."""
    size, note = await stored.read(_last_word)
    async for text in _lines(owner, stored, size, note):
        yield text


def log_lines(desk: Desk, size: int, newest: str) -> AsyncIterator[str]:
    """The first ``size`` entries with their checkpoints, of which ``newest`` is the last.

    Before them the voted rosters, by which the log's keys and its witnesses can be checked offline.
    """
    owner = LogOwner(desk.nation, desk.trust.current.federation, desk.log_signer.key)
    return _lines(owner, desk.ledger, size, newest)


async def _lines(owner: LogOwner, stored: Reading, size: int, newest: str) -> AsyncIterator[str]:
    yield _line(
        {
            "varde": "audit-log",
            "v": 1,
            "origin": owner.key.name,
            "vkeys": [format_vkey(each) for each in owner.key.both],
            "nation": owner.nation,
            "federation": owner.federation,
        }
    )
    version = await stored.read(lambda c: c.scalar(select(func.max(rosters_table.c.version))) or 0)
    for each in range(1, version + 1):
        yield _line({"roster": await stored.read(roster_reader(each))})
    begin = 0
    while begin < size:
        end = min(begin + _EXPORT_PAGE, size)
        rows, notes = await stored.read(_page_reader(begin, end))
        text = await asyncio.to_thread(_format_page, rows, notes)
        yield text
        begin = end
    yield _line({"end": {"entries": size, "checkpoint": newest}})


def roster_reader(version: int) -> Callable[[Connection], str]:
    """Reads one accepted roster as it travelled with its votes; nothing where somebody has deleted it."""
    query = select(rosters_table.c.raw).where(rosters_table.c.version == version)
    return lambda connection: _as_text(connection.scalar(query))


def _as_text(raw: object) -> str:
    # SQLite keeps what was put there by hand as it was put there.
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw or "")


def _page_reader(
    begin: int, end: int
) -> Callable[[Connection], tuple[Sequence[AnyRow], dict[int, str]]]:
    def read(connection: Connection) -> tuple[Sequence[AnyRow], dict[int, str]]:
        rows = connection.execute(
            select(audit_leaves_table.c.index, audit_leaves_table.c.leaf, audit_leaves_table.c.hash)
            .where(audit_leaves_table.c.index >= begin, audit_leaves_table.c.index < end)
            .order_by(audit_leaves_table.c.index)
        ).all()
        notes = connection.execute(
            select(checkpoints_table.c.size, checkpoints_table.c.note).where(
                checkpoints_table.c.size > begin, checkpoints_table.c.size <= end
            )
        )
        signed = {row.size: row.note for row in notes}
        lines = connection.execute(
            select(cosignatures_table.c.size, cosignatures_table.c.line)
            .where(cosignatures_table.c.size > begin, cosignatures_table.c.size <= end)
            .order_by(cosignatures_table.c.size, cosignatures_table.c.witness)
        )
        for row in lines:
            # The witnesses' lines stand after the log's own.
            signed[row.size] = _as_text(signed.get(row.size)) + _as_text(row.line)
        return rows, signed

    return read


def _format_page(rows: Sequence[AnyRow], notes: dict[int, str]) -> str:
    lines: list[str] = []
    for index, leaf, digest in rows:
        kept = digest if isinstance(digest, bytes) else b""
        lines.append(
            _line({"index": index, "leaf": _as_text(leaf), "hash": encode_base64url(kept)})
        )
        if index + 1 in notes:
            lines.append(_line({"checkpoint": _as_text(notes[index + 1])}))
    return "".join(lines)


def _line(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _last_word(connection: Connection) -> tuple[int, str]:
    return log_size(connection), newest_note(connection)[1]
