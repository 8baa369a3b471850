"""The audit log at work: checkpoints signed after their leaves are durable, proofs, entries, and the export.

At start the stored tree is held against the last signed checkpoint; a smaller or different one stops the node, because
signing it would fork its own history.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from sqlalchemy import Connection, func, insert, select

from varde.auditlog import AuditKind
from varde.checkpoint import LogProof, format_consistency, format_proof, open_checkpoint
from varde.encoding import JsonObject, encode_base64url
from varde.merkle import EMPTY_ROOT, consistency_proof, inclusion_proof, root_at
from varde.note import format_vkey
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Invalid, NotFound
from varde_gateway.flow.worker import repeat
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    AnyRow,
    audit_leaves_table,
    audit_subjects_table,
    checkpoints_table,
    cosignatures_table,
    rosters_table,
)
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size, node_reader

CHECKPOINT_SECONDS: Final = 1.0
_EXPORT_PAGE: Final = 2000


class HistoryLost(Exception):
    """The stored log is not the one that this node has signed; ``detail`` says what to do."""


async def check_stored_log(desk: Desk) -> None:
    """``HistoryLost`` unless the stored tree continues the last signed checkpoint."""
    note, size = await desk.ledger.read(lambda c: (_newest_note(c), log_size(c)))
    if note is None:
        return
    signed = open_checkpoint(note, desk.log_signer.key)
    advice = "Do not start this node on it: restore the newest database, or compare with the checkpoints that the peers hold."
    if size < signed.size:
        raise HistoryLost(
            f"The audit log has {size} entries, but a checkpoint of {signed.size} was signed. {advice}"
        )
    root = await desk.ledger.read(lambda c: root_at(signed.size, node_reader(c)))
    if root != signed.root:
        raise HistoryLost(
            f"The audit log differs from the signed checkpoint of {signed.size} entries. {advice}"
        )


async def run_checkpoints(desk: Desk) -> None:
    """Sign a checkpoint whenever the log has grown, once a second at the most."""
    signed_at = -1

    async def one_round() -> None:
        nonlocal signed_at
        commits = desk.ledger.commits
        if commits != signed_at or desk.ledger.shared:
            await checkpoint(desk)
            signed_at = commits

    await repeat("checkpoints", one_round, pause_seconds=CHECKPOINT_SECONDS)


async def checkpoint(desk: Desk) -> str:
    """The signed note of the log as it is now, kept before it is given out."""
    note, size = await desk.ledger.read(lambda c: (_newest_note(c), log_size(c)))
    if note is not None and open_checkpoint(note, desk.log_signer.key).size == size:
        return note
    if note is not None and (desk.logs.halted or desk.logs.holds(desk.ticks())):
        # Our own history is not whole, or we do not know yet whether it is: signing on would make a second one.
        return note
    if size == 0:
        return desk.log_signer.sign_checkpoint(0, EMPTY_ROOT, desk.now())

    def keep(tx: Transaction) -> str:
        # Only what earlier commits made durable is signed: this transaction has appended nothing yet.
        durable = log_size(tx.connection)
        kept = tx.connection.scalar(
            select(checkpoints_table.c.note).where(checkpoints_table.c.size == durable)
        )
        if kept is not None:
            return str(kept)
        root = root_at(durable, node_reader(tx.connection))
        signed = desk.log_signer.sign_checkpoint(durable, root, tx.now // 1000)
        tx.connection.execute(
            insert(checkpoints_table), {"size": durable, "note": signed, "at": tx.now}
        )
        return signed

    return await desk.ledger.write(keep)


async def inclusion(desk: Desk, index: int) -> str:
    """The tlog-proof of one entry; ``NotFound`` where the log has no such entry yet."""
    note = await checkpoint(desk)
    size = open_checkpoint(note, desk.log_signer.key).size
    if not 0 <= index < size:
        raise NotFound(f"The log has {size} entries, numbered from 0; there is no entry {index}.")
    path = await desk.ledger.read(lambda c: inclusion_proof(index, size, node_reader(c)))
    return format_proof(LogProof(index, tuple(path), note))


async def consistency(desk: Desk, old: int) -> str:
    """The proof that the log of ``old`` entries is a prefix of today's, in the form of tlog-witness."""
    note = await checkpoint(desk)
    size = open_checkpoint(note, desk.log_signer.key).size
    if not 0 <= old <= size:
        raise Invalid(f"The log has {size} entries; 'from' is 0 to {size}.")
    path: list[bytes] = []
    if old > 0:
        path = await desk.ledger.read(lambda c: consistency_proof(old, size, node_reader(c)))
    return format_consistency(old, path, note)


def list_entries(
    connection: Connection,
    *,
    limit: int,
    after_index: int | None,
    kind: str | None = None,
    actor: str | None = None,
    subject: str | None = None,
    from_ms: int | None = None,
    until_ms: int | None = None,
) -> tuple[list[JsonObject], int | None]:
    """Up to ``limit`` entries in order after ``after_index``, and the index to go on from, None at the end."""
    query = select(audit_leaves_table.c.index, audit_leaves_table.c.leaf, audit_leaves_table.c.hash)
    if after_index is not None:
        query = query.where(audit_leaves_table.c.index > after_index)
    if kind is not None:
        query = query.where(audit_leaves_table.c.kind == kind)
    if actor is not None:
        query = query.where(audit_leaves_table.c.actor == actor)
    if from_ms is not None:
        query = query.where(audit_leaves_table.c.at >= from_ms)
    if until_ms is not None:
        query = query.where(audit_leaves_table.c.at < until_ms)
    if subject is not None:
        about = select(audit_subjects_table.c.index).where(audit_subjects_table.c.value == subject)
        query = query.where(audit_leaves_table.c.index.in_(about))
    rows = connection.execute(query.order_by(audit_leaves_table.c.index).limit(limit + 1)).all()
    page = rows[:limit]
    following = int(page[-1][0]) if len(rows) > limit else None
    return [_describe(row) for row in page], following


async def export_lines(desk: Desk, actor: str) -> AsyncIterator[str]:
    """The whole log as JSON Lines for ``varde audit verify``, in constant memory; the export is itself recorded."""
    await desk.ledger.write(lambda tx: tx.audit(AuditKind.EXPORTED, actor, [("log", "audit")]))
    newest = await checkpoint(desk)
    size = open_checkpoint(newest, desk.log_signer.key).size
    async for text in log_lines(desk, size, newest):
        yield text


async def log_lines(desk: Desk, size: int, newest: str) -> AsyncIterator[str]:
    """The first ``size`` entries with their checkpoints, of which ``newest`` is the last; in constant memory.

    Before them the voted rosters, by which the log's key and its witnesses can be checked offline.
    """
    yield _line(
        {
            "varde": "audit-log",
            "v": 1,
            "origin": desk.log_signer.key.name,
            "vkeys": [format_vkey(each) for each in desk.log_signer.key.both],
            "nation": desk.nation,
            "federation": desk.trust.current.federation,
        }
    )
    version = await desk.ledger.read(
        lambda c: c.scalar(select(func.max(rosters_table.c.version))) or 0
    )
    for each in range(1, version + 1):
        yield _line({"roster": await desk.ledger.read(roster_reader(each))})
    begin = 0
    while begin < size:
        end = min(begin + _EXPORT_PAGE, size)
        rows, notes = await desk.ledger.read(_page_reader(begin, end))
        text = await asyncio.to_thread(_format_page, rows, notes)
        yield text
        begin = end
    yield _line({"end": {"entries": size, "checkpoint": newest}})


def roster_reader(version: int) -> Callable[[Connection], str]:
    """Reads one accepted roster as it travelled with its votes."""
    query = select(rosters_table.c.raw).where(rosters_table.c.version == version)
    return lambda connection: str(connection.execute(query).scalar_one().decode())


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
            signed[row.size] += row.line
        return rows, signed

    return read


def _format_page(rows: Sequence[AnyRow], notes: dict[int, str]) -> str:
    lines: list[str] = []
    for index, leaf, digest in rows:
        lines.append(_line({"index": index, "leaf": leaf, "hash": encode_base64url(digest)}))
        if index + 1 in notes:
            lines.append(_line({"checkpoint": notes[index + 1]}))
    return "".join(lines)


def _line(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _describe(row: AnyRow) -> JsonObject:
    index, text, digest = row
    leaf = json.loads(text)
    return {
        "index": index,
        "kind": leaf["kind"],
        "at": rfc3339(leaf["at"]),
        "actor": leaf["actor"],
        "subjects": [{"label": label, "value": value} for label, value in leaf["subjects"]],
        "detail": leaf["detail"],
        "hash": encode_base64url(digest),
    }


def _newest_note(connection: Connection) -> str | None:
    newest = select(func.max(checkpoints_table.c.size)).scalar_subquery()
    note = connection.scalar(
        select(checkpoints_table.c.note).where(checkpoints_table.c.size == newest)
    )
    return None if note is None else str(note)
