"""Sending from one stepped node, and what is seen of it afterwards at any of them."""

from typing import Any

from sqlalchemy import func, select

from support.alerts import sample_alert
from support.nodes import Node
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Nation
from varde_gateway.flow.idempotency import Claim
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.flow.trail import list_entries
from varde_gateway.store.alerts import find_alert
from varde_gateway.store.tables import alerts_table


async def send(node: Node, *to: Nation, claim: Claim | None = None, **overrides: Any) -> str:
    order = Order(to, Tlp.AMBER, parse_alert(sample_alert(**overrides)))
    answer = await send_alert(
        node.desk, order, author="operator", document_id=node.desk.new_id(), claim=claim
    )
    return str(answer["id"])


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


async def count_alerts(node: Node) -> int:
    return int(
        await node.desk.ledger.read(
            lambda c: c.scalar(select(func.count()).select_from(alerts_table))
        )
    )
