"""Alerts as the API shows them: one by id with its deliveries and answers, and lists, newest first.

Read only. Whether a delivery is overdue, and whether an alert has expired, follow from the clock and are never stored.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, and_, select

from varde.encoding import Json, JsonObject
from varde_gateway.store.attachments import describe_attachments
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alerts_table,
    deliveries_table,
    documents_table,
)


def document_of_alert() -> ColumnElement[bool]:
    """Joins an alert with its signed document."""
    return and_(
        documents_table.c.sender == alerts_table.c.sender,
        documents_table.c.id == alerts_table.c.id,
    )


def find_alert(
    connection: Connection, alert_id: str, sender: str | None, now_ms: int
) -> JsonObject | None:
    """The alert of this id, of ``sender`` where two nations used one id; None where there is none."""
    query = select(alerts_table).where(alerts_table.c.id == alert_id)
    if sender is not None:
        query = query.where(alerts_table.c.sender == sender)
    row = connection.execute(query.order_by(alerts_table.c.serial).limit(1)).one_or_none()
    return None if row is None else _describe(connection, [row], now_ms)[0]


def list_alerts(
    connection: Connection,
    *,
    limit: int,
    before_serial: int | None,
    direction: str | None,
    state: str | None,
    now_ms: int,
    markings: Sequence[str] | None = None,
) -> tuple[list[JsonObject], int | None]:
    """Up to ``limit`` alerts, newest first, of these markings; and the serial to go on from, None at the end."""
    query = select(alerts_table)
    if markings is not None:
        query = query.where(alerts_table.c.tlp.in_(markings))
    if before_serial is not None:
        query = query.where(alerts_table.c.serial < before_serial)
    if direction is not None:
        query = query.where(alerts_table.c.direction == direction)
    if state is not None:
        query = query.where(alerts_table.c.state == state)
    rows = connection.execute(query.order_by(alerts_table.c.serial.desc()).limit(limit + 1)).all()
    page = rows[:limit]
    following = page[-1].serial if len(rows) > limit else None
    return _describe(connection, page, now_ms), following


def rfc3339(milliseconds: int | None) -> str | None:
    """UTC with milliseconds and ``Z``, as every time in the API."""
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _describe(connection: Connection, rows: Sequence[AnyRow], now_ms: int) -> list[JsonObject]:
    ids = [row.id for row in rows]
    deliveries: dict[str, list[AnyRow]] = {}
    for row in connection.execute(
        select(deliveries_table)
        .where(deliveries_table.c.document_id.in_(ids))
        .order_by(deliveries_table.c.recipient)
    ):
        deliveries.setdefault(row.document_id, []).append(row)
    answers: dict[tuple[str, str], list[Json]] = {}
    for row in connection.execute(
        select(acknowledgements_table)
        .where(acknowledgements_table.c.alert_id.in_(ids))
        .order_by(acknowledgements_table.c.at, acknowledgements_table.c.id)
    ):
        answers.setdefault((row.alert_sender, row.alert_id), []).append(
            {
                "nation": row.nation,
                "officer": row.officer,
                "response": row.response,
                "note": row.note,
                "at": rfc3339(row.at),
            }
        )
    files = describe_attachments(connection, [(row.sender, row.id) for row in rows])
    return [
        {
            "id": row.id,
            "direction": row.direction,
            "from": row.sender,
            "to": row.recipients.split(","),
            "tlp": row.tlp,
            "state": row.state,
            "alert": json.loads(row.body),
            "deliveries": [
                _describe_delivery(each, row.deadline_at, now_ms)
                for each in (deliveries.get(row.id, []) if row.direction == "out" else [])
            ],
            "acknowledgements": answers.get((row.sender, row.id), []),
            "attachments": files.get((row.sender, row.id), []),
            "author": row.author,
            "recorded_at": rfc3339(row.recorded_at),
            "displayed_at": rfc3339(row.displayed_at),
            "deadline_at": rfc3339(row.deadline_at),
        }
        for row in rows
    ]


def _describe_delivery(row: AnyRow, deadline_at: int, now_ms: int) -> JsonObject:
    return {
        "to": row.recipient,
        "state": row.state,
        "queued_at": rfc3339(row.queued_at),
        "sent_at": rfc3339(row.sent_at),
        "delivered_at": rfc3339(row.delivered_at),
        "displayed_at": rfc3339(row.displayed_at),
        "acknowledged_at": rfc3339(row.acknowledged_at),
        "overdue": row.acknowledged_at is None and now_ms >= deadline_at,
        "via": row.via,
        "waiting_for": row.last_error,
        "stale_prekey": row.stale_prekey,
        "receipt": row.receipt_id,
    }
