"""Archive: a copy of the log up to a signed checkpoint, and of the documents recorded until then, to be taken away.

One stream: first the log as ``varde audit export`` writes it, then one line per document. That it begins is logged before
its first byte, for who breaks off may have nearly all of it. This node hashes both parts as they leave and, when the last
byte is out, records the digests in the log: what is in cold storage can be held against them. What was archived may be erased here afterwards; the leaves stay. Erased documents are not in it any more.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, tuple_

from varde.auditlog import AuditKind
from varde.checkpoint import open_checkpoint
from varde.encoding import JsonObject, encode_base64url
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import NotFound
from varde_gateway.flow.review.log_export import log_lines
from varde_gateway.flow.review.review import Viewer, record_look
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    archives_table,
    audit_leaves_table,
    checkpoints_table,
    documents_table,
)
from varde_gateway.store.transaction import Transaction

_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Archive:
    """What will be taken away: the log up to ``note``, the documents recorded until ``through`` (Unix milliseconds)."""

    note: str
    size: int
    through: int


async def begin_archive(desk: Desk, viewer: Viewer, until_ms: int) -> Archive:
    """Everything up to the newest checkpoint that was signed before ``until_ms``; ``NotFound`` where there is none.

    That it is taken is logged when this returns.
    """
    found = await desk.ledger.read(lambda connection: _newest_before(connection, until_ms))
    if found is None:
        raise NotFound(
            f"No checkpoint was signed before {rfc3339(until_ms)}: there is nothing to archive yet."
        )
    note, through = found
    archive = Archive(note, open_checkpoint(note, desk.log_signer.key).size, through)
    await record_look(desk, viewer, f"archive begun, {_in_words(archive)}", [])
    return archive


async def archive_lines(desk: Desk, viewer: Viewer, archive: Archive) -> AsyncIterator[str]:
    """The stream; its digests are logged once the caller has taken all of it."""
    log, documents = hashlib.sha256(), hashlib.sha256()
    async for text in log_lines(desk, archive.size, archive.note):
        log.update(text.encode())
        yield text
    after: tuple[int, str, str] | None = None
    while rows := await desk.ledger.read(_document_reader(archive.through, after)):
        text = "".join(_document_line(row) for row in rows)
        documents.update(text.encode())
        after = rows[-1].recorded_at, rows[-1].sender, rows[-1].id
        yield text
    digests = encode_base64url(log.digest()), encode_base64url(documents.digest())
    await desk.ledger.write(lambda tx: _record(tx, viewer, archive, digests))


def _newest_before(connection: Connection, until_ms: int) -> tuple[str, int] | None:
    newest = (
        select(func.max(checkpoints_table.c.size))
        .where(checkpoints_table.c.at < until_ms)
        .scalar_subquery()
    )
    row = connection.execute(
        select(checkpoints_table.c.note, audit_leaves_table.c.at)
        .join(audit_leaves_table, audit_leaves_table.c.index == checkpoints_table.c.size - 1)
        .where(checkpoints_table.c.size == newest)
    ).one_or_none()
    return None if row is None else (row.note, row.at)


def _document_reader(
    through: int, after: tuple[int, str, str] | None
) -> Callable[[Connection], list[Any]]:
    table = documents_table.c
    place = tuple_(table.recorded_at, table.sender, table.id)
    query = select(table.recorded_at, table.sender, table.id, table.kind, table.digest, table.raw)
    query = query.where(table.recorded_at <= through, func.length(table.raw) > 0)
    if after is not None:
        query = query.where(place > after)
    query = query.order_by(table.recorded_at, table.sender, table.id).limit(_PAGE)
    return lambda connection: [*connection.execute(query)]


def _document_line(row: Any) -> str:
    line: JsonObject = {
        "document": row.id,
        "from": row.sender,
        "kind": row.kind,
        "digest": row.digest,
        "recorded_at": rfc3339(row.recorded_at),
        "raw": row.raw.decode(),
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _record(tx: Transaction, viewer: Viewer, archive: Archive, digests: tuple[str, str]) -> None:
    table = archives_table
    log, documents = digests
    known = select(table.c.size).where(
        table.c.log_digest == log, table.c.documents_digest == documents
    )
    if tx.connection.execute(known).first() is None:
        row = {
            "log_digest": log,
            "documents_digest": documents,
            "size": archive.size,
            "through": archive.through,
            "taken_by": viewer.username,
            "at": tx.now,
        }
        tx.connection.execute(insert(table), row)
    tx.audit(
        AuditKind.ARCHIVED,
        viewer.username,
        [("log", log), ("documents", documents)],
        _in_words(archive),
    )


def _in_words(archive: Archive) -> str:
    return f"{archive.size} entries, and the documents until {rfc3339(archive.through)}"
