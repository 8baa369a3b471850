"""The message trail of one alert: what happened to it at every node that told us, as one timeline, with the delays.

Every time says whose clock it is from. Three kinds of word go in: entries of our own log (our clock), the signed
receipts and answers of other nations (theirs), and the signed alert itself (its sender's). Delays are differences
of one clock only, our own: two nations' clocks may be minutes apart.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, select

from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.document import parse_document
from varde.encoding import Json, JsonObject
from varde.errors import VardeError
from varde.receipt import parse_receipt
from varde.signing import parse_signed
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import NotFound
from varde_gateway.flow.review.review import Viewer, check_clearance, record_look
from varde_gateway.store.alerts import document_of_alert, rfc3339
from varde_gateway.store.review import withheld_among
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alerts_table,
    audit_leaves_table,
    audit_subjects_table,
    deliveries_table,
    documents_table,
)

MAX_ENTRIES: Final = 2000
_OF_THE_ACTOR: Final = frozenset({AuditKind.RECEIPTED, AuditKind.DISPLAYED, AuditKind.ACKNOWLEDGED})
"""Entries that record what another nation did; everything else has happened at this node."""


async def message_trail(desk: Desk, viewer: Viewer, alert_id: str) -> JsonObject:
    """The trail; ``NotFound`` where this node knows nothing of such an alert. The look is logged."""
    await check_clearance(desk, viewer, alert_id)
    now = desk.now_ms()
    found = await desk.ledger.read(
        lambda connection: _read(connection, desk.nation, viewer.clearance, alert_id, now)
    )
    if found is None:
        raise NotFound(f"This node knows nothing of an alert {alert_id}.")
    count = len(found["timeline"]) if isinstance(found["timeline"], list) else 0
    await record_look(desk, viewer, f"trail, {count} steps", [("document", alert_id)])
    return found


def _read(
    connection: Connection, own: str, clearance: Tlp, alert_id: str, now: int
) -> JsonObject | None:
    alert = connection.execute(
        select(alerts_table, documents_table.c.issued_at, documents_table.c.via)
        .join(
            documents_table,
            document_of_alert(),
        )
        .where(alerts_table.c.id == alert_id)
        .order_by(alerts_table.c.serial)
        .limit(1)
    ).one_or_none()
    entries = _entries(connection, alert_id)
    if alert is None and not entries:
        return None
    shown = entries[:MAX_ENTRIES]
    # A receipt may cover other alerts too, of a marking that this reader is not cleared for.
    withheld = withheld_among(connection, [index for index, _ in shown], clearance)
    steps = [_own_step(index, text, own, index in withheld) for index, text in shown]
    steps += _receipt_steps(connection, alert_id, shown)
    nations: list[Json] = []
    if alert is not None:
        steps += _answer_steps(connection, alert)
        steps.append(_sending_step(alert))
        nations = [*_nations(connection, alert, own, now)]
    steps.sort(key=_moment)
    timeline: list[Json] = [{**each, "at": rfc3339(_moment(each))} for each in steps]
    return {
        "id": alert_id,
        "node": own,
        "alert": None if alert is None else _facts(alert),
        "nations": nations,
        "timeline": timeline,
        "truncated": len(entries) > MAX_ENTRIES,
    }


def _entries(connection: Connection, alert_id: str) -> Sequence[AnyRow]:
    return connection.execute(
        select(audit_leaves_table.c.index, audit_leaves_table.c.leaf)
        .join(audit_subjects_table, audit_subjects_table.c.index == audit_leaves_table.c.index)
        .where(audit_subjects_table.c.value == alert_id, audit_subjects_table.c.label == "document")
        .order_by(audit_subjects_table.c.index)
        .limit(MAX_ENTRIES + 1)
    ).all()


def _own_step(index: int, text: str, own: str, withheld: bool) -> JsonObject:
    leaf = json.loads(text)
    actor, detail = str(leaf["actor"]), "" if withheld else str(leaf["detail"])
    far = leaf["kind"] in _OF_THE_ACTOR
    return {
        "at": leaf["at"],
        "clock": own,
        "nation": actor.partition("/")[0] if far else own,
        "step": leaf["kind"],
        "actor": actor,
        "detail": detail,
        "via": [*_way(detail)],
        "source": "log",
        "index": index,
        "document": None if withheld else _evidence(leaf["subjects"]),
    }


def _way(detail: str) -> Iterable[str]:
    # As ``accept.way_in_words`` writes it, at the end of the detail.
    _, found, way = detail.rpartition(" via ")
    return way.split(",") if found else ()


def _evidence(subjects: Iterable[Sequence[str]]) -> str | None:
    named: dict[str, str] = {each[0]: each[1] for each in subjects}
    return named.get("receipt") or named.get("acknowledgement")


def _receipt_steps(
    connection: Connection, alert_id: str, entries: Iterable[AnyRow]
) -> list[JsonObject]:
    wanted: set[tuple[str, str]] = set()
    for _, text in entries:
        leaf = json.loads(text)
        receipt = dict(leaf["subjects"]).get("receipt")
        if receipt is not None:
            wanted.add((leaf["actor"], receipt))
    steps: list[JsonObject] = []
    for nation, receipt in sorted(wanted):
        raw = connection.scalar(
            select(documents_table.c.raw).where(
                documents_table.c.sender == nation, documents_table.c.id == receipt
            )
        )
        if raw:
            steps += _stated(nation, receipt, raw, alert_id)
    return steps


def _stated(nation: str, receipt_id: str, raw: bytes, alert_id: str) -> Iterable[JsonObject]:
    try:
        # It was verified when it was taken in; what stands in the database now is shown only if it still reads.
        receipt = parse_receipt(parse_document(parse_signed(raw).payload).body)
    except VardeError:
        return
    for each in receipt.documents:
        if each.id == alert_id:
            yield {
                "at": each.at,
                "clock": nation,
                "nation": nation,
                "step": receipt.stage.value,
                "actor": nation,
                "detail": "",
                "via": [*each.via],
                "source": "receipt",
                "index": None,
                "document": receipt_id,
            }


def _answer_steps(connection: Connection, alert: AnyRow) -> list[JsonObject]:
    rows = connection.execute(
        select(acknowledgements_table).where(
            acknowledgements_table.c.alert_sender == alert.sender,
            acknowledgements_table.c.alert_id == alert.id,
        )
    )
    return [
        {
            "at": row.at,
            "clock": row.nation,
            "nation": row.nation,
            "step": "acknowledged",
            "actor": f"{row.nation}/{row.officer}",
            "detail": row.response,
            "via": [],
            "source": "acknowledgement",
            "index": None,
            "document": row.id,
        }
        for row in rows
    ]


def _sending_step(alert: AnyRow) -> JsonObject:
    return {
        "at": alert.issued_at * 1000,
        "clock": alert.sender,
        "nation": alert.sender,
        "step": "signed",
        "actor": alert.sender,
        "detail": f"{alert.sender} to {alert.recipients}",
        "via": [],
        "source": "alert",
        "index": None,
        "document": alert.id,
    }


def _facts(alert: AnyRow) -> JsonObject:
    return {
        "from": alert.sender,
        "to": alert.recipients.split(","),
        "direction": alert.direction,
        "tlp": alert.tlp,
        "status": alert.status,
        "severity": alert.severity,
        "state": alert.state,
        "recorded_at": rfc3339(alert.recorded_at),
        "deadline_at": rfc3339(alert.deadline_at),
    }


def _nations(connection: Connection, alert: AnyRow, own: str, now: int) -> list[JsonObject]:
    if alert.direction == "in":
        return [_our_part(connection, alert, own, now)]
    rows = connection.execute(
        select(deliveries_table)
        .where(deliveries_table.c.document_id == alert.id)
        .order_by(deliveries_table.c.recipient)
    )
    return [
        _part(
            row.recipient,
            row.state,
            own,
            {
                "queued": row.queued_at,
                "sent": row.sent_at,
                "delivered": row.delivered_at,
                "displayed": row.displayed_at,
                "acknowledged": row.acknowledged_at,
            },
            via=row.via,
            reroutings=row.reroutings,
            overdue=row.acknowledged_at is None and now >= alert.deadline_at,
        )
        for row in rows
    ]


def _our_part(connection: Connection, alert: AnyRow, own: str, now: int) -> JsonObject:
    answered = connection.scalar(
        select(acknowledgements_table.c.at)
        .where(
            acknowledgements_table.c.alert_sender == alert.sender,
            acknowledgements_table.c.alert_id == alert.id,
            acknowledgements_table.c.nation == own,
        )
        .order_by(acknowledgements_table.c.at)
        .limit(1)
    )
    state = "delivered"
    if alert.displayed_at is not None:
        state = "displayed"
    if answered is not None:
        state = "acknowledged"
    moments = {
        "queued": None,
        "sent": None,
        "delivered": alert.recorded_at,
        "displayed": alert.displayed_at,
        "acknowledged": answered,
    }
    overdue = answered is None and now >= alert.deadline_at
    return _part(own, state, own, moments, via=alert.via, reroutings=0, overdue=overdue)


def _part(
    nation: str,
    state: str,
    clock: str,
    moments: dict[str, int | None],
    *,
    via: str | None,
    reroutings: int,
    overdue: bool,
) -> JsonObject:
    delays: dict[str, Json] = {}
    before: tuple[str, int] | None = None
    for name, at in moments.items():
        if at is None:
            continue
        if before is not None:
            delays[f"{before[0]}_to_{name}_ms"] = at - before[1]
        before = name, at
    reached = [at for at in moments.values() if at is not None]
    way: list[Json] = [*via.split(",")] if via else []
    return {
        "nation": nation,
        "state": state,
        "clock": clock,
        **{f"{name}_at": rfc3339(at) for name, at in moments.items()},
        "delays": delays,
        "total_ms": max(reached) - min(reached) if reached else None,
        "via": way,
        "reroutings": reroutings,
        "overdue": overdue,
    }


def _moment(step: JsonObject) -> int:
    at = step["at"]
    assert isinstance(at, int)
    return at
