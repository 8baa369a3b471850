"""Retention: what is older than the nation's policy allows is erased, and what comes to an erased alert afterwards.

How content is erased, and what stays, says ``erasure``. Nothing is erased that is still on its way.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, and_, func, select, update

from varde.auditlog import AuditKind, name_document
from varde.signing import Kind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict
from varde_gateway.flow.review.erasure import (
    ERASED,
    check_arrived,
    erase_content,
    erase_documents,
    find_alert,
    keep_erasure,
)
from varde_gateway.flow.worker import repeat
from varde_gateway.store.alerts import document_of_alert
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alerts_table,
    archives_table,
    documents_table,
)
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 3600.0
BATCH: Final = 50
_DAY_MS: Final = 24 * 3600 * 1000


async def run_retention(desk: Desk) -> None:
    """Erase for ever what is older than the nation's policy says; nothing where there is no such policy."""
    await repeat("retention", lambda: erase_expired(desk), pause_seconds=CHECK_SECONDS)


async def erase_expired(desk: Desk) -> int:
    """Erase every alert that is older than ``retention_days``, a few in each transaction; how many there were.

    Answers that have come to an alert after its erasure are erased as well, whatever the policy.
    """
    await _erase_late_answers(desk)
    days = desk.policy.retention_days
    if days is None:
        return 0
    reason = f"older than {days} days"
    total, after = 0, -1
    while True:
        limit_ms = desk.now_ms() - days * _DAY_MS
        due = await desk.ledger.read(_due_reader(desk, limit_ms, after))
        if not due:
            return total
        after = due[-1].serial
        keys = [(each.sender, each.id) for each in due]
        total += await desk.ledger.write(_eraser(desk, keys, reason))


async def _erase_late_answers(desk: Desk) -> None:
    late = (
        select(
            acknowledgements_table.c.nation,
            acknowledgements_table.c.id,
            acknowledgements_table.c.alert_id,
            documents_table.c.digest,
        )
        .join(
            documents_table,
            and_(
                documents_table.c.sender == acknowledgements_table.c.nation,
                documents_table.c.id == acknowledgements_table.c.id,
            ),
        )
        .join(
            alerts_table,
            and_(
                alerts_table.c.sender == acknowledgements_table.c.alert_sender,
                alerts_table.c.id == acknowledgements_table.c.alert_id,
            ),
        )
        .where(alerts_table.c.state == ERASED, acknowledgements_table.c.note != "")
        .limit(BATCH)
    )
    while answers := await desk.ledger.read(lambda c: [*c.execute(late)]):
        await desk.ledger.write(_answer_eraser(answers))


def _answer_eraser(answers: list[AnyRow]) -> Callable[[Transaction], None]:
    def act(tx: Transaction) -> None:
        erase_documents(tx, [(each.nation, each.id) for each in answers])
        for each in answers:
            tx.connection.execute(
                update(acknowledgements_table)
                .where(
                    acknowledgements_table.c.nation == each.nation,
                    acknowledgements_table.c.id == each.id,
                )
                .values(note="")
            )
            answer = name_document(Kind.ACKNOWLEDGEMENT, each.id, each.digest)
            subjects = [("document", each.alert_id), *answer]
            tx.audit(AuditKind.ERASED, "node", subjects, "of an erased alert")

    return act


def _due_reader(desk: Desk, limit_ms: int, after: int) -> Callable[[Connection], list[AnyRow]]:
    return lambda connection: _due(connection, desk, limit_ms, after)


def _due(connection: Connection, desk: Desk, limit_ms: int, after: int) -> list[AnyRow]:
    if desk.policy.retention_needs_archive:
        archived = connection.scalar(select(func.max(archives_table.c.through)))
        limit_ms = min(limit_ms, (archived or -1) + 1)
    return [
        *connection.execute(
            select(alerts_table.c.sender, alerts_table.c.id, alerts_table.c.serial)
            .join(documents_table, document_of_alert())
            .where(
                alerts_table.c.recorded_at < limit_ms,
                alerts_table.c.state != ERASED,
                alerts_table.c.serial > after,
                documents_table.c.expires_at * 1000 < desk.now_ms(),
            )
            .order_by(alerts_table.c.serial)
            .limit(BATCH)
        )
    ]


def _eraser(desk: Desk, keys: list[tuple[str, str]], reason: str) -> Callable[[Transaction], int]:
    def act(tx: Transaction) -> int:
        erased = 0
        for sender, alert_id in keys:
            alert = find_alert(tx.connection, alert_id, sender)
            if alert is None or alert.state == ERASED:
                continue
            try:
                check_arrived(tx.connection, alert, desk.nation)
            except Conflict:
                # An answer of ours is still on its way: the next round finds it again.
                continue
            keep_erasure(tx, alert, reason, "node")
            erase_content(tx, alert, reason, "node")
            erased += 1
        return erased

    return act
