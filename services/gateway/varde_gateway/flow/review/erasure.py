"""Erasure: the content of an alert is erased under law, and the log stays whole.

What goes: the signed bytes of the alert and of the answers to it, the alert's text with its headline and its references to
attachments, the notes of the answers, and what the event stream and the kept answers of the API say of them. What stays: ids,
digests, times, nations, marking, severity, which alert an update refers to, and every entry of the log. An erasure is an
entry of its own, which names the digest of the alert, or of the answer that came later: it proves why their bytes are not
there. An alert that is still on its way is not erased. Other nations' copies are theirs to erase, and this node's backups are its keepers'.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, case, delete, insert, select, update

from varde.auditlog import AuditKind
from varde.encoding import Json, JsonObject
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, NotFound
from varde_gateway.flow.notify import without_content
from varde_gateway.store.alerts import document_of_alert, rfc3339
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alert_attachments_table,
    alerts_table,
    attachments_table,
    deliveries_table,
    documents_table,
    erasures_table,
    events_table,
    idempotency_table,
)
from varde_gateway.store.transaction import Transaction

ERASED: Final = "erased"
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
        alert = find_alert(tx.connection, alert_id, sender)
        if alert is None:
            raise NotFound(f"There is no alert {alert_id} at this node.")
        if alert.state == ERASED:
            raise Conflict(f"The content of alert {alert_id} was erased already.")
        check_arrived(tx.connection, alert, desk.nation)
        return _ask_or_erase(tx, desk, alert, reason, actor)

    return await desk.ledger.write(act)


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
    keep_erasure(tx, alert, reason, actor)
    erase_content(tx, alert, reason, actor)
    asked_by = actor if asked is None else asked.asked_by
    confirmed_by = None if asked_by == actor else actor
    return _describe(
        alert, ERASED, reason, asked_by=asked_by, confirmed_by=confirmed_by, erased_at=tx.now
    )


def keep_erasure(tx: Transaction, alert: AnyRow, reason: str, actor: str) -> None:
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


def check_arrived(connection: Connection, alert: AnyRow, own: str) -> None:
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


def erase_content(tx: Transaction, alert: AnyRow, reason: str, actor: str) -> None:
    """Overwrite everything that says what the alert said, log that, and announce it."""
    answers = _answers(tx.connection, alert)
    erase_documents(tx, [(alert.sender, alert.id), *((each.nation, each.id) for each in answers)])
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


def erase_documents(tx: Transaction, keys: Iterable[tuple[str, str]]) -> None:
    """The signed bytes of these documents, by sender and id."""
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


def find_alert(connection: Connection, alert_id: str, sender: str | None) -> AnyRow | None:
    """What an erasure needs of an alert; the first of this id where no sender is said."""
    query = (
        select(
            alerts_table.c.sender,
            alerts_table.c.id,
            alerts_table.c.serial,
            alerts_table.c.state,
            documents_table.c.digest,
        )
        .join(documents_table, document_of_alert())
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
