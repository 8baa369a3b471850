"""Sending from one stepped node, and what is seen of it afterwards at any of them."""

import json
from typing import Any

from sqlalchemy import func, insert, select

from support.alerts import sample_alert
from support.nodes import Node
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Lane, Nation
from varde_gateway.flow.idempotency import Claim
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.store.alerts import find_alert
from varde_gateway.store.tables import (
    alerts_table,
    audit_leaves_table,
    deliveries_table,
    documents_table,
)
from varde_gateway.store.transaction import Transaction


async def send(node: Node, *to: Nation, claim: Claim | None = None, **overrides: Any) -> str:
    order = Order(to, Tlp.AMBER, parse_alert(sample_alert(**overrides)))
    answer = await send_alert(
        node.desk, order, author="operator", document_id=node.desk.new_id(), claim=claim
    )
    return str(answer["id"])


async def pile_up(node: Node, to: Nation, count: int, lane: Lane) -> None:
    """So many more deliveries that are due, in the database alone: copies of one alert under other ids."""
    alert_id = await send(node, to)

    def write(tx: Transaction) -> None:
        copy = dict(
            tx.connection.execute(select(documents_table).where(documents_table.c.id == alert_id))
            .mappings()
            .one()
        )
        waiting = dict(
            tx.connection.execute(
                select(deliveries_table).where(deliveries_table.c.document_id == alert_id)
            )
            .mappings()
            .one()
        ) | {"lane": lane.value, "sequence": None, "next_attempt_at": tx.now, "queued_at": tx.now}
        numbers = [node.desk.new_id() for _ in range(count)]
        tx.connection.execute(
            insert(documents_table), [copy | {"id": each, "digest": each} for each in numbers]
        )
        tx.connection.execute(
            insert(deliveries_table), [waiting | {"document_id": each} for each in numbers]
        )

    await node.desk.ledger.write(write)


async def seen(node: Node, alert_id: str) -> dict[str, Any] | None:
    found: Any = await node.desk.ledger.read(
        lambda c: find_alert(c, alert_id, None, node.desk.now_ms())
    )
    return found


async def delivery(node: Node, alert_id: str, to: Nation) -> dict[str, Any]:
    alert = await seen(node, alert_id)
    assert alert is not None
    found: dict[str, Any] = next(each for each in alert["deliveries"] if each["to"] == to)
    return found


async def audited(node: Node, subject: str) -> list[str]:
    entries, _ = await node.desk.ledger.read(
        lambda c: list_entries(c, limit=100, after_index=None, subject=subject)
    )
    return [str(each["kind"]) for each in entries]


async def audit_details(node: Node, kind: str) -> list[str]:
    rows = await node.desk.ledger.read(
        lambda c: c.execute(
            select(audit_leaves_table.c.leaf)
            .where(audit_leaves_table.c.kind == kind)
            .order_by(audit_leaves_table.c.index)
        ).all()
    )
    return [json.loads(leaf)["detail"] for (leaf,) in rows]


async def count_alerts(node: Node) -> int:
    return int(
        await node.desk.ledger.read(
            lambda c: c.scalar(select(func.count()).select_from(alerts_table))
        )
    )
