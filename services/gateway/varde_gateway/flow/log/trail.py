"""The audit log at work: checkpoints signed after their leaves are durable, proofs, and entries.

At start the stored tree is held against the last signed checkpoint; a smaller or different one stops the node, because
signing it would fork its own history. A node that runs holds it against that before every signature, and signs no more
where somebody has changed it meanwhile.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from varde.checkpoint import (
    Checkpoint,
    LogKey,
    LogProof,
    format_consistency,
    format_proof,
    open_checkpoint,
)
from varde.encoding import JsonObject, encode_base64url
from varde.errors import Untrusted, VardeError
from varde.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    root_at,
    verify_inclusion,
)
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Invalid, NotFound
from varde_gateway.flow.log.history import (
    HistoryLost,
    check_continues,
    check_shown,
    halt,
    recall_halt,
)
from varde_gateway.flow.worker import repeat
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    AnyRow,
    audit_leaves_table,
    audit_subjects_table,
    checkpoints_table,
)
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size, node_reader, read_ahead

CHECKPOINT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Signed:
    note: str
    checkpoint: Checkpoint


async def check_stored_log(desk: Desk) -> None:
    """``HistoryLost`` unless the stored tree continues the last signed checkpoint; a halt of before stays in force."""

    def check(connection: Connection) -> None:
        signed = _newest_signed(connection, desk.log_signer.key)
        if signed is not None:
            check_continues(connection, signed.checkpoint)

    await desk.ledger.read(check)
    await recall_halt(desk)


async def run_checkpoints(desk: Desk) -> None:
    """Sign a checkpoint whenever the log has grown, once a second at the most."""
    signed_at = -1

    async def one_round() -> None:
        nonlocal signed_at
        commits = desk.ledger.commits
        if commits != signed_at or desk.ledger.shared:
            # Halted, recorded and announced by then; there is nothing to sign until a person has looked.
            with suppress(HistoryLost):
                await checkpoint(desk)
            signed_at = commits

    await repeat("checkpoints", one_round, pause_seconds=CHECKPOINT_SECONDS)


async def checkpoint(desk: Desk) -> str:
    """The signed note of the log as it is now, kept before it is given out; the last one where signing is halted.

    Where nothing was signed before the halt, that of the empty log. ``HistoryLost`` where the last one is not as it was
    signed.
    """
    key = desk.log_signer.key
    try:
        last, size = await desk.ledger.read(lambda c: (_newest_signed(c, key), log_size(c)))
    except HistoryLost as error:
        await halt(desk, desk.nation, error.found)
        raise
    if last is not None and last.checkpoint.size == size:
        return last.note
    if last is not None and (desk.logs.halted or desk.logs.holds(desk.ticks())):
        # Our own history is not whole, or we do not know yet whether it is: signing on would make a second one.
        return last.note
    if size == 0 or desk.logs.halted:
        # The empty log is the beginning of every history.
        return desk.log_signer.sign_checkpoint(0, EMPTY_ROOT, desk.now())

    def keep(tx: Transaction) -> str:
        # Only what earlier commits made durable is signed: this transaction has appended nothing yet.
        durable, newest = log_size(tx.connection), _newest_signed(tx.connection, key)
        if newest is not None:
            if newest.checkpoint.size == durable:
                return newest.note
            check_continues(tx.connection, newest.checkpoint)
        check_shown(tx.connection, key)
        root = root_at(durable, node_reader(tx.connection))
        signed = desk.log_signer.sign_checkpoint(durable, root, tx.now // 1000)
        tx.connection.execute(
            insert(checkpoints_table), {"size": durable, "note": signed, "at": tx.now}
        )
        return signed

    try:
        return await desk.ledger.write(keep)
    except HistoryLost as error:
        await halt(desk, desk.nation, error.found)
        if last is None:
            raise
        return last.note


async def inclusion(desk: Desk, index: int) -> str:
    """The tlog-proof of one entry; ``NotFound`` where the log has no such entry yet, ``HistoryLost`` where it proves nothing."""
    key = desk.log_signer.key
    signed = await desk.ledger.read(lambda c: _newest_signed(c, key))
    if signed is None or index >= signed.checkpoint.size:
        note = await checkpoint(desk)
        signed = _Signed(note, open_checkpoint(note, key))
    size = signed.checkpoint.size
    if not 0 <= index < size:
        raise NotFound(f"The log has {size} entries, numbered from 0; there is no entry {index}.")
    path = await desk.ledger.read(lambda c: _proven_path(c, index, signed.checkpoint))
    return format_proof(LogProof(index, tuple(path), signed.note))


def _proven_path(connection: Connection, index: int, signed: Checkpoint) -> list[bytes]:
    try:
        leaf, path = read_ahead(
            connection, lambda read: (read((0, index)), inclusion_proof(index, signed.size, read))
        )
        verify_inclusion(leaf, index, signed.size, path, signed.root)
    except (KeyError, Untrusted) as error:
        raise HistoryLost(
            f"The stored tree does not lead from entry {index} to the signed checkpoint of {signed.size} entries."
        ) from error
    return path


async def consistency(desk: Desk, old: int) -> str:
    """The proof that the log of ``old`` entries is a prefix of today's, in the form of tlog-witness."""
    note = await checkpoint(desk)
    size = open_checkpoint(note, desk.log_signer.key).size
    if not 0 <= old <= size:
        raise Invalid(f"The log has {size} entries; 'from' is 0 to {size}.")
    path: list[bytes] = []
    if old > 0:
        path = await desk.ledger.read(
            lambda c: read_ahead(c, lambda read: consistency_proof(old, size, read))
        )
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


def _newest_signed(connection: Connection, key: LogKey) -> _Signed | None:
    size, note = newest_note(connection)
    if not note:
        return None
    try:
        signed = _Signed(note, open_checkpoint(note, key))
    except VardeError as error:
        raise HistoryLost(
            f"The last checkpoint, of {size} entries, is not as this node signed it: {error.detail}."
        ) from error
    if signed.checkpoint.size != size:
        raise HistoryLost(
            f"The last checkpoint, of {signed.checkpoint.size} entries, stands in the place of one of {size}."
        )
    return signed


def newest_note(connection: Connection) -> tuple[int, str]:
    """The last checkpoint as it is stored, and the size in whose place it stands; 0 and nothing before the first."""
    newest = select(checkpoints_table.c.size, checkpoints_table.c.note)
    row = connection.execute(newest.order_by(checkpoints_table.c.size.desc()).limit(1)).first()
    return (0, "") if row is None else (row.size, row.note)
