"""Figures of a stretch of time, for the review: how many of what, how fast, what was refused, what nobody answered.

The database counts and ranks; here only a row per kind, nation or reason comes together, and refusals are read in a
stream. Delays are of our own clock: from the recording of the alert until the receipt or the answer was recorded here.
"""

import json
import re
from collections import Counter
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, or_, select

from varde.auditlog import AuditKind
from varde.encoding import Json, JsonObject
from varde.errors import Reason
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.review.review import Viewer, record_look
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    alerts_table,
    audit_leaves_table,
    deliveries_table,
)

PERCENTILES: Final = (50, 90, 99)
OTHER: Final = "other"
_REASONS: Final = frozenset(each.value for each in Reason)
_FLOOD: Final = re.compile(r"([0-9]+) more documents refused within a minute: (.*)", re.ASCII)
_COUNTED: Final = re.compile(r"([0-9]+) ([a-z_]+)", re.ASCII)
_MAX_LINKS: Final = 256
_STREAMED: Final = 1000


async def statistics(
    desk: Desk, viewer: Viewer, from_ms: int | None, until_ms: int | None
) -> JsonObject:
    """Everything from ``from_ms`` until before ``until_ms`` (Unix milliseconds), or of all time. The look is logged."""
    now = desk.now_ms()
    until = now + 1 if until_ms is None else until_ms
    begin = 0 if from_ms is None else from_ms
    found = await desk.ledger.read(
        lambda connection: _read(connection, desk.nation, begin, until, now)
    )
    found["from"], found["until"] = rfc3339(from_ms), rfc3339(until_ms)
    said = f"statistics from {found['from'] or 'the beginning'} until {found['until'] or 'now'}"
    await record_look(desk, viewer, said, [])
    return found


def _read(connection: Connection, own: str, begin: int, until: int, now: int) -> JsonObject:
    in_time = and_(alerts_table.c.recorded_at >= begin, alerts_table.c.recorded_at < until)
    late = and_(deliveries_table.c.acknowledged_at.is_(None), alerts_table.c.deadline_at <= now)
    return {
        "entries": _entries_by_kind(connection, begin, until),
        "alerts": {
            "severity": _alerts_by(connection, alerts_table.c.severity, in_time),
            "status": _alerts_by(connection, alerts_table.c.status, in_time),
            "nation": _alerts_by(connection, alerts_table.c.sender, in_time),
        },
        "delivery_ms": _percentiles(connection, own, deliveries_table.c.delivered_at, begin, until),
        "acknowledgement_ms": _percentiles(
            connection, own, deliveries_table.c.acknowledged_at, begin, until
        ),
        "deliveries": _deliveries(connection, own, begin, until, late),
        "refusals": _refusals(connection, begin, until),
    }


def _entries_by_kind(connection: Connection, begin: int, until: int) -> JsonObject:
    leaf = audit_leaves_table.c
    rows = connection.execute(
        select(leaf.kind, func.count())
        .where(leaf.at >= begin, leaf.at < until)
        .group_by(leaf.kind)
        .order_by(leaf.kind)
    )
    return {str(kind): int(count) for kind, count in rows}


def _alerts_by(
    connection: Connection, column: ColumnElement[str], in_time: ColumnElement[bool]
) -> JsonObject:
    rows = connection.execute(
        select(column, func.count()).where(in_time).group_by(column).order_by(column)
    )
    return {str(value): int(count) for value, count in rows}


def _percentiles(
    connection: Connection, own: str, reached: ColumnElement[Any], begin: int, until: int
) -> list[Json]:
    """Per nation, by nearest rank: the database sorts, on its disk if it must, and gives three rows for each."""
    ranked = (
        select(
            deliveries_table.c.recipient.label("nation"),
            (reached - deliveries_table.c.queued_at).label("delay"),
            func.row_number()
            .over(
                partition_by=deliveries_table.c.recipient,
                order_by=reached - deliveries_table.c.queued_at,
            )
            .label("rank"),
            func.count().over(partition_by=deliveries_table.c.recipient).label("total"),
        )
        .join(alerts_table, _alert_of_delivery(own))
        .where(
            deliveries_table.c.queued_at >= begin,
            deliveries_table.c.queued_at < until,
            reached.is_not(None),
        )
        .subquery()
    )
    ranks = {each: (ranked.c.total * each + 99) // 100 for each in PERCENTILES}
    rows = connection.execute(
        select(ranked)
        .where(or_(*(ranked.c.rank == rank for rank in ranks.values())))
        .order_by(ranked.c.nation, ranked.c.rank)
    )
    nations: dict[str, dict[str, Json]] = {}
    for row in rows:
        figures = nations.setdefault(row.nation, {"nation": row.nation, "count": row.total})
        for each in PERCENTILES:
            if row.rank == (row.total * each + 99) // 100:
                figures[f"p{each}"] = row.delay
    return [*nations.values()]


def _deliveries(
    connection: Connection, own: str, begin: int, until: int, late: ColumnElement[bool]
) -> list[Json]:
    rows = connection.execute(
        select(
            deliveries_table.c.recipient,
            deliveries_table.c.state,
            func.count(),
            func.sum(cast(case((late, 1), else_=0), Integer)),
            func.sum(cast(case((deliveries_table.c.via.is_not(None), 1), else_=0), Integer)),
        )
        .join(alerts_table, _alert_of_delivery(own))
        .where(deliveries_table.c.queued_at >= begin, deliveries_table.c.queued_at < until)
        .group_by(deliveries_table.c.recipient, deliveries_table.c.state)
        .order_by(deliveries_table.c.recipient, deliveries_table.c.state)
    )
    nations: dict[str, dict[str, Any]] = {}
    for nation, state, count, overdue, through_others in rows:
        figures = nations.setdefault(
            nation, {"nation": nation, "states": {}, "overdue": 0, "through_others": 0}
        )
        figures["states"][state] = count
        figures["overdue"] += overdue
        figures["through_others"] += through_others
    return [*nations.values()]


def _alert_of_delivery(own: str) -> ColumnElement[bool]:
    return and_(alerts_table.c.id == deliveries_table.c.document_id, alerts_table.c.sender == own)


def _refusals(connection: Connection, begin: int, until: int) -> list[Json]:
    leaf = audit_leaves_table.c
    rows = connection.execution_options(yield_per=_STREAMED).execute(
        select(leaf.actor, leaf.leaf).where(
            leaf.kind == AuditKind.REFUSED.value, leaf.at >= begin, leaf.at < until
        )
    )
    counted: Counter[tuple[str, str]] = Counter()
    for actor, text in rows:
        link = actor if len(counted) < _MAX_LINKS * len(_REASONS) else OTHER
        for reason, count in reasons_in(json.loads(text)["detail"]):
            counted[link, reason] += count
    return [
        {"link": link, "reason": reason, "count": count}
        for (link, reason), count in sorted(counted.items())
    ]


def reasons_in(detail: str) -> list[tuple[str, int]]:
    """The reasons that a refusal's detail names, and how often: one, or those of a minute that were only counted."""
    flood = _FLOOD.fullmatch(detail)
    if flood is None:
        reason = detail.partition(":")[0]
        return [(reason if reason in _REASONS else OTHER, 1)]
    counted = [
        (reason, int(count)) for count, reason in _COUNTED.findall(flood[2]) if reason in _REASONS
    ]
    # Of a flood only the commonest reasons are named.
    rest = int(flood[1]) - sum(count for _, count in counted)
    return [*counted, (OTHER, rest)] if rest > 0 else counted
