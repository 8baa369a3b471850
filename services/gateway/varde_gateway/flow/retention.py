"""Retention: the content of an alert is erased under law, and the log stays whole.

What goes: the signed bytes of the alert and of the answers to it, the alert's text with its headline and its references to
attachments, the notes of the answers, and what the event stream and the kept answers of the API say of them. What stays: ids,
digests, times, nations, marking, severity, which alert an update refers to, and every entry of the log. An erasure is an
entry of its own, which names the digest of the alert, or of the answer that came later: it proves why their bytes are not
there. An alert that is still on its way is not erased. Other nations' copies are theirs to erase, and this node's backups are its keepers'.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, insert, select, update

from varde.auditlog import AuditKind, name_document
from varde.encoding import Json, JsonObject
from varde.signing import Kind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, NotFound
from varde_gateway.flow.notify import without_content
from varde_gateway.flow.worker import repeat
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alert_attachments_table,
    alerts_table,
    archives_table,
    attachments_table,
    deliveries_table,
    documents_table,
    erasures_table,
    events_table,
    idempotency_table,
)
from varde_gateway.store.transaction import Transaction

ERASED: Final = "erased"
CHECK_SECONDS: Final = 3600.0
BATCH: Final = 50
_DAY_MS: Final = 24 * 3600 * 1000
_EVENTS_WITH_CONTENT: Final = ("alert", "acknowledgement", "attachment")


@dataclass(frozen=True, slots=True)
class _Answer:
    nation: str
    id: str


async def erase_alert(
    desk: Desk, alert_id: str, sender: str | None, reason: str, *, actor: str
) -> JsonObject:
    """Erase the content of one alert, or note that it shall be, where this nation wants two administrators for it.

    ``NotFound`` where it is not here; ``Conflict`` where it is erased already, is still on its way, or where the same
    administrator asks again.
    """

    def act(tx: Transaction) -> JsonObject:
        alert = _find(tx.connection, alert_id, sender)
        if alert is None:
            raise NotFound(f"There is no alert {alert_id} at this node.")
        if alert.state == ERASED:
            raise Conflict(f"The content of alert {alert_id} was erased already.")
        _check_arrived(tx.connection, alert, desk.nation)
        return _ask_or_erase(tx, desk, alert, reason, actor)

    return await desk.ledger.write(act)


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
        _erase_documents(tx, [(each.nation, each.id) for each in answers])
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
            .join(documents_table, _document_of_alert())
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
            alert = _find(tx.connection, alert_id, sender)
            if alert is None or alert.state == ERASED:
                continue
            try:
                _check_arrived(tx.connection, alert, desk.nation)
            except Conflict:
                # An answer of ours is still on its way: the next round finds it again.
                continue
            _keep_erasure(tx, alert, reason, "node")
            _erase(tx, alert, reason, "node")
            erased += 1
        return erased

    return act


def _ask_or_erase(
    tx: Transaction, desk: Desk, alert: AnyRow, reason: str, actor: str
) -> JsonObject:
    table = erasures_table
    this = and_(table.c.sender == alert.sender, table.c.alert_id == alert.id)
    asked = tx.connection.execute(select(table).where(this)).one_or_none()
    if desk.policy.erase_by_two:
        if asked is None:
            row = _erasure_row(tx, alert, reason, actor)
            tx.connection.execute(insert(table), {**row, "confirmed_by": None, "erased_at": None})
            tx.audit(
                AuditKind.ERASED,
                actor,
                [("document", alert.id)],
                f"asked for, not done yet: {reason}",
            )
            return _describe(alert, "waiting", reason, asked_by=actor)
        if asked.asked_by == actor:
            raise Conflict(
                f"You have asked for this erasure at {rfc3339(asked.asked_at)}; another administrator must confirm it."
            )
        reason = asked.reason
    _keep_erasure(tx, alert, reason, actor)
    _erase(tx, alert, reason, actor)
    asked_by = actor if asked is None else asked.asked_by
    confirmed_by = None if asked_by == actor else actor
    return _describe(
        alert, ERASED, reason, asked_by=asked_by, confirmed_by=confirmed_by, erased_at=tx.now
    )


def _keep_erasure(tx: Transaction, alert: AnyRow, reason: str, actor: str) -> None:
    """Who has asked first, and why, stays; whoever erases then has confirmed it, be it the policy."""
    table = erasures_table
    this = and_(table.c.sender == alert.sender, table.c.alert_id == alert.id)
    asked_by = tx.connection.scalar(select(table.c.asked_by).where(this))
    confirmed_by = None if asked_by in {None, actor} else actor
    done = {"confirmed_by": confirmed_by, "erased_at": tx.now}
    if asked_by is None:
        row = _erasure_row(tx, alert, reason, actor)
        tx.connection.execute(insert(table), {**row, **done})
    else:
        tx.connection.execute(update(table).where(this).values(**done))


def _erasure_row(tx: Transaction, alert: AnyRow, reason: str, actor: str) -> dict[str, Any]:
    return {
        "sender": alert.sender,
        "alert_id": alert.id,
        "reason": reason,
        "asked_by": actor,
        "asked_at": tx.now,
    }


def _check_arrived(connection: Connection, alert: AnyRow, own: str) -> None:
    """``Conflict`` while anything with this content has not reached everybody it is for."""
    documents = [each.id for each in _answers(connection, alert) if each.nation == own]
    if alert.sender == own:
        documents.append(alert.id)
    waiting = connection.scalars(
        select(deliveries_table.c.recipient)
        .where(deliveries_table.c.document_id.in_(documents), deliveries_table.c.open)
        .order_by(deliveries_table.c.recipient)
    ).all()
    if waiting:
        nations = ", ".join(dict.fromkeys(waiting))
        raise Conflict(
            f"It is still on its way to {nations}. Wait for the receipt, or until it has expired, and erase it then."
        )


def _erase(tx: Transaction, alert: AnyRow, reason: str, actor: str) -> None:
    answers = _answers(tx.connection, alert)
    _erase_documents(tx, [(alert.sender, alert.id), *((each.nation, each.id) for each in answers)])
    tx.connection.execute(
        update(alerts_table)
        .where(alerts_table.c.sender == alert.sender, alerts_table.c.id == alert.id)
        .values(headline="", body="null", state=ERASED)
    )
    tx.connection.execute(
        update(acknowledgements_table)
        .where(
            acknowledgements_table.c.alert_sender == alert.sender,
            acknowledgements_table.c.alert_id == alert.id,
        )
        .values(note="")
    )
    _erase_attachments(tx, alert)
    _erase_events(tx, alert)
    _erase_kept_answers(tx, alert)
    tx.audit(
        AuditKind.ERASED,
        actor,
        [("document", alert.id), ("digest", alert.digest)],
        reason,
    )
    data: dict[str, Json] = {"id": alert.id, "from": alert.sender, "state": ERASED}
    tx.event("erased", data)


def _erase_documents(tx: Transaction, keys: Iterable[tuple[str, str]]) -> None:
    now = tx.now // 1000
    for sender, document in keys:
        tx.connection.execute(
            update(documents_table)
            .where(documents_table.c.sender == sender, documents_table.c.id == document)
            # A peer that asks for it again is told that it will never come: as for one that has expired.
            .values(
                raw=b"",
                expires_at=case(
                    (documents_table.c.expires_at > now, now), else_=documents_table.c.expires_at
                ),
            )
        )


def _erase_attachments(tx: Transaction, alert: AnyRow) -> None:
    """The key goes with the row: what is left of a file that no other alert names can be opened by nobody here."""
    naming = alert_attachments_table.c
    this = and_(naming.sender == alert.sender, naming.alert_id == alert.id)
    named = tx.connection.scalars(select(naming.attachment_id).where(this)).all()
    tx.connection.execute(delete(alert_attachments_table).where(this))
    still_named = select(naming.attachment_id)
    tx.connection.execute(
        delete(attachments_table).where(
            attachments_table.c.id.in_(named), attachments_table.c.id.not_in(still_named)
        )
    )


def _erase_events(tx: Transaction, alert: AnyRow) -> None:
    tx.flush()
    rows = tx.connection.execute(
        select(events_table.c.id, events_table.c.kind, events_table.c.data).where(
            events_table.c.id >= alert.serial,
            events_table.c.kind.in_(_EVENTS_WITH_CONTENT),
            events_table.c.data.contains(alert.id, autoescape=True),
        )
    ).all()
    for row in rows:
        data = without_content(row.kind, json.loads(row.data))
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        tx.connection.execute(
            update(events_table).where(events_table.c.id == row.id).values(data=text)
        )


def _erase_kept_answers(tx: Transaction, alert: AnyRow) -> None:
    table = idempotency_table
    rows = tx.connection.execute(
        select(table.c.owner, table.c.key, table.c.answer).where(
            table.c.owner.endswith(f" /v1/alerts/{alert.id}/acknowledgements", autoescape=True)
        )
    ).all()
    for row in rows:
        answer = json.loads(row.answer) | {"note": ""}
        text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        tx.connection.execute(
            update(table)
            .where(table.c.owner == row.owner, table.c.key == row.key)
            .values(answer=text)
        )


def _answers(connection: Connection, alert: AnyRow) -> list[_Answer]:
    rows = connection.execute(
        select(acknowledgements_table.c.nation, acknowledgements_table.c.id).where(
            acknowledgements_table.c.alert_sender == alert.sender,
            acknowledgements_table.c.alert_id == alert.id,
        )
    )
    return [_Answer(row.nation, row.id) for row in rows]


def _document_of_alert() -> ColumnElement[bool]:
    return and_(
        documents_table.c.sender == alerts_table.c.sender,
        documents_table.c.id == alerts_table.c.id,
    )


def _find(connection: Connection, alert_id: str, sender: str | None) -> AnyRow | None:
    query = (
        select(
            alerts_table.c.sender,
            alerts_table.c.id,
            alerts_table.c.serial,
            alerts_table.c.state,
            documents_table.c.digest,
        )
        .join(documents_table, _document_of_alert())
        .where(alerts_table.c.id == alert_id)
        .order_by(alerts_table.c.serial)
        .limit(1)
    )
    if sender is not None:
        query = query.where(alerts_table.c.sender == sender)
    return connection.execute(query).one_or_none()


def _describe(
    alert: AnyRow,
    state: str,
    reason: str,
    *,
    asked_by: str,
    confirmed_by: str | None = None,
    erased_at: int | None = None,
) -> JsonObject:
    return {
        "id": alert.id,
        "from": alert.sender,
        "state": state,
        "reason": reason,
        "asked_by": asked_by,
        "confirmed_by": confirmed_by,
        "erased_at": rfc3339(erased_at),
    }
