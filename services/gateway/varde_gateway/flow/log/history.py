"""Our own log's past: what we have signed once we must still be able to continue, or we sign no more.

A restored backup is the realistic way to fork one's own log. What shows it is a checkpoint of ours that a peer holds: it is
kept, and as long as the stored log does not continue it, nothing is signed, also after a restart without any peer. Where
the right database was put back, the log goes on by itself. Protocol section 10.6.
"""

import json
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from varde.auditlog import AuditKind
from varde.checkpoint import Checkpoint, LogKey, keep_own_lines, open_checkpoint
from varde.errors import VardeError
from varde.merkle import root_at
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict
from varde_gateway.store.tables import node_facts_table
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size, read_ahead

HALTED_FACT: Final = "log_halted"
"""The node's fact of this name is ``{"by", "note"}``: who holds which checkpoint of ours that our log does not continue."""


class HistoryLost(Conflict):
    """The stored log is not the one that this node has signed; ``detail`` says what to do."""

    def __init__(self, found: str) -> None:
        """``found`` is one sentence."""
        super().__init__(
            f"{found} Do not start this node on it: restore the newest database, or compare with the checkpoints that the "
            "peers hold. 'varde audit export --home' and 'varde audit verify' name the place."
        )
        self.found = found


def check_continues(connection: Connection, signed: Checkpoint) -> None:
    """``HistoryLost`` unless the stored tree continues this checkpoint of ours."""
    size = log_size(connection)
    if size < signed.size:
        raise HistoryLost(
            f"The audit log has {size} entries, but a checkpoint of {signed.size} was signed."
        )
    try:
        root = read_ahead(connection, lambda read: root_at(signed.size, read))
    except KeyError as error:
        raise HistoryLost(
            f"Hashes are missing in the tree of the signed checkpoint of {signed.size} entries."
        ) from error
    if root != signed.root:
        raise HistoryLost(
            f"The audit log differs from the signed checkpoint of {signed.size} entries."
        )


def check_shown(connection: Connection, key: LogKey) -> None:
    """``HistoryLost`` where a peer has shown us a checkpoint of ours that the stored tree does not continue."""
    shown = _shown(connection, key)
    if shown is not None:
        _check_held(connection, *shown)


async def recall_halt(desk: Desk) -> None:
    """At start: what halted the log halts it still, unless the stored log continues it by now."""
    key = desk.log_signer.key
    shown = await desk.ledger.read(lambda c: _shown(c, key))
    if shown is None:
        return
    by, signed = shown
    try:
        await desk.ledger.read(lambda c: _check_held(c, by, signed))
    except HistoryLost as error:
        desk.logs.halted = error.found
        return
    await desk.ledger.write(lambda tx: _resume(tx, by, signed))


async def face(desk: Desk, by: str, note: str) -> None:
    """Hold our log against a checkpoint of it that ``by`` has seen; what our keys have not signed means nothing."""
    key = desk.log_signer.key
    try:
        signed = open_checkpoint(note, key)
    except VardeError:
        return
    try:
        await desk.ledger.read(lambda c: _check_held(c, by, signed))
    except HistoryLost as error:
        await halt(desk, by, error.found, keep_own_lines(note, key))


async def halt(desk: Desk, by: str, detail: str, shown: str | None = None) -> None:
    """Sign nothing more; ``by`` is who has found out why, by the checkpoint ``shown``. Recorded and announced once."""
    if desk.logs.halted:
        return
    desk.logs.halted = detail

    def record(tx: Transaction) -> None:
        if shown is not None:
            _forget(tx)
            value = json.dumps({"by": by, "note": shown}, ensure_ascii=False)
            tx.connection.execute(insert(node_facts_table), {"name": HALTED_FACT, "value": value})
        tx.audit(AuditKind.LOG_HALTED, by, [], detail)
        tx.event("log_halted", {"nation": by, "detail": detail})

    await desk.ledger.write(record)


def _shown(connection: Connection, key: LogKey) -> tuple[str, Checkpoint] | None:
    value: str | None = connection.scalar(
        select(node_facts_table.c.value).where(node_facts_table.c.name == HALTED_FACT)
    )
    if value is None:
        return None
    fact = json.loads(value)
    try:
        return fact["by"], open_checkpoint(fact["note"], key)
    except VardeError:
        # Of a log that this node had under former keys.
        return None


def _check_held(connection: Connection, by: str, signed: Checkpoint) -> None:
    try:
        check_continues(connection, signed)
    except HistoryLost as error:
        raise HistoryLost(f"{by} holds a checkpoint that we have signed. {error.found}") from error


def _resume(tx: Transaction, by: str, signed: Checkpoint) -> None:
    _forget(tx)
    detail = f"the log continues the checkpoint of {signed.size} entries that {by} has shown"
    tx.audit(AuditKind.LOG_RESUMED, "node", [], detail)
    tx.event("log_resumed", {"nation": by, "detail": detail})


def _forget(tx: Transaction) -> None:
    tx.connection.execute(delete(node_facts_table).where(node_facts_table.c.name == HALTED_FACT))
