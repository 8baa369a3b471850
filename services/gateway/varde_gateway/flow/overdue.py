"""Nobody answered in time: said once per nation, in the event stream and the audit log.

Whether a delivery is overdue is never stored: it follows from the deadline and the missing answer.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select, update

from varde.auditlog import AuditKind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.idempotency import forget_old_answers
from varde_gateway.flow.notify import forget_old_events
from varde_gateway.flow.worker import repeat
from varde_gateway.store.sensors import forget_old_posts
from varde_gateway.store.tables import AnyRow, alerts_table, deliveries_table
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 1.0
FORGET_SECONDS: Final = 3600.0


async def run_overdue(desk: Desk) -> None:
    """Watch the deadlines for ever."""
    await repeat("overdue", lambda: notice_overdue(desk), pause_seconds=CHECK_SECONDS)


async def run_forgetting(desk: Desk) -> None:
    """Once an hour delete what is kept for a time only: old events and old answers."""
    await repeat("forgetting", lambda: desk.ledger.write(_forget), pause_seconds=FORGET_SECONDS)


async def notice_overdue(desk: Desk) -> None:
    """Announce every delivery whose deadline has passed without an answer since the last look."""
    now = desk.now_ms()
    late = await desk.ledger.read(lambda connection: _late(connection, desk.nation, now))
    if late:
        await desk.ledger.write(lambda tx: _record(tx, late))


def _late(connection: Connection, own: str, now: int) -> Sequence[AnyRow]:
    return connection.execute(
        select(deliveries_table.c.document_id, deliveries_table.c.recipient)
        .join(alerts_table, alerts_table.c.id == deliveries_table.c.document_id)
        .where(
            alerts_table.c.sender == own,
            alerts_table.c.deadline_at <= now,
            deliveries_table.c.acknowledged_at.is_(None),
            deliveries_table.c.overdue_noticed.is_(False),
        )
        .limit(500)
    ).all()


def _record(tx: Transaction, late: Sequence[AnyRow]) -> None:
    for row in late:
        changed = tx.connection.execute(
            update(deliveries_table)
            .where(
                deliveries_table.c.document_id == row.document_id,
                deliveries_table.c.recipient == row.recipient,
                deliveries_table.c.acknowledged_at.is_(None),
                deliveries_table.c.overdue_noticed.is_(False),
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
    forget_old_posts(tx)
