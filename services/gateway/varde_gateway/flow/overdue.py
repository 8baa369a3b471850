"""Nobody answered in time: said once per nation, in the event stream and the audit log.

Whether a delivery is overdue is never stored: it follows from the deadline and the missing answer.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy import Connection, Row, select, update

from varde.auditlog import AuditKind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.idempotency import forget_old_answers
from varde_gateway.flow.notify import forget_old_events
from varde_gateway.store.ledger import Transaction
from varde_gateway.store.tables import AlertRow, DeliveryRow

CHECK_SECONDS: Final = 1.0
_FORGET_EVERY: Final = 3600

_log = structlog.get_logger("overdue")


async def run_overdue(desk: Desk) -> None:
    """Watch the deadlines for ever, and once an hour forget what is kept for a time only."""
    rounds = 0
    while True:
        try:
            await notice_overdue(desk)
            if rounds % _FORGET_EVERY == 0:
                await desk.ledger.write(_forget)
        except Exception:
            _log.exception("overdue round failed")
        rounds += 1
        await asyncio.sleep(CHECK_SECONDS)


async def notice_overdue(desk: Desk) -> None:
    """Announce every delivery whose deadline has passed without an answer since the last look."""
    now = desk.now_ms()
    late = await desk.ledger.read(lambda connection: _late(connection, desk.nation, now))
    if late:
        await desk.ledger.write(lambda tx: _record(tx, late))


def _late(connection: Connection, own: str, now: int) -> Sequence[Row[tuple[str, str]]]:
    return connection.execute(
        select(DeliveryRow.document_id, DeliveryRow.recipient)  # type: ignore[call-overload]
        .join(AlertRow, AlertRow.id == DeliveryRow.document_id)
        .where(
            AlertRow.sender == own,
            AlertRow.deadline_at <= now,
            DeliveryRow.acknowledged_at.is_(None),
            DeliveryRow.overdue_noticed.is_(False),
        )
        .limit(500)
    ).all()


def _record(tx: Transaction, late: Sequence[Row[tuple[str, str]]]) -> None:
    for row in late:
        changed = tx.connection.execute(
            update(DeliveryRow)
            .where(
                DeliveryRow.document_id == row.document_id,  # type: ignore[arg-type]
                DeliveryRow.recipient == row.recipient,  # type: ignore[arg-type]
                DeliveryRow.acknowledged_at.is_(None),  # type: ignore[union-attr]
                DeliveryRow.overdue_noticed.is_(False),  # type: ignore[attr-defined]
            )
            .values(overdue_noticed=True)
        )
        if changed.rowcount:
            tx.audit(
                AuditKind.OVERDUE,
                "node",
                [("document", row.document_id)],
                f"{row.recipient} has not answered",
            )
            tx.event("overdue", {"id": row.document_id, "to": row.recipient})


def _forget(tx: Transaction) -> None:
    forget_old_answers(tx)
    forget_old_events(tx)
