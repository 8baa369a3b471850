"""One nation stops to trust another for itself: at once, on the record, told to the others, and taken back."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from support.alerts import sample_alert
from support.federation import EE, FI, LV, federation
from support.nodes import Clock, Node, carry, running_nodes, settle
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.errors import Reason
from varde.identifiers import Lane, Nation
from varde.proposal import (
    Renewal,
    Restoration,
    Suspension,
    format_proposal,
    format_suspension,
    propose_successor,
)
from varde.signing import Kind
from varde_gateway.flow.compose import compose
from varde_gateway.flow.draft import parse_recipients
from varde_gateway.flow.faults import Conflict, Invalid, InvalidAt, NotFound
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.roster.federation import describe_federation
from varde_gateway.flow.roster.suspensions import (
    own_suspensions,
    peer_suspensions,
    record_peer_suspension,
    restore,
    suspend,
)
from varde_gateway.flow.roster.trust import load_trust, rosters_for_relay
from varde_gateway.flow.send import Order, queue_deliveries, record_document, send_alert
from varde_gateway.store.alerts import find_alert
from varde_gateway.store.tables import deliveries_table, events_table

pytestmark = pytest.mark.asyncio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def send(node: Node, *to: Nation) -> str:
    order = Order(to, Tlp.AMBER, parse_alert(sample_alert()))
    desk = node.desk
    answer = await send_alert(desk, order, author="operator", document_id=desk.new_id(), claim=None)
    return str(answer["id"])


async def has(node: Node, alert_id: str) -> bool:
    desk = node.desk
    return (
        await desk.ledger.read(lambda c: find_alert(c, alert_id, None, desk.now_ms())) is not None
    )


async def audited(node: Node, kind: str) -> list[dict[str, Any]]:
    entries: Any = await node.desk.ledger.read(
        lambda c: list_entries(c, limit=100, after_index=None, kind=kind)
    )
    return list(entries[0])


async def told(node: Node, kind: str) -> list[dict[str, Any]]:
    rows = await node.desk.ledger.read(
        lambda c: c.execute(select(events_table.c.data).where(events_table.c.kind == kind)).all()
    )
    return [json.loads(row.data) for row in rows]


async def waiting_for(node: Node, alert_id: str) -> str | None:
    found: Any = await node.desk.ledger.read(
        lambda c: c.scalar(
            select(deliveries_table.c.last_error).where(deliveries_table.c.document_id == alert_id)
        )
    )
    return None if found is None else str(found)


async def test_a_suspended_peer_is_refused_at_once_and_the_others_are_told_why(
    nodes: dict[Nation, Node],
) -> None:
    made = await suspend(nodes[EE].desk, LV, "Its key was stolen.", actor="admin")
    assert (made.nation, made.reason) == (LV, "Its key was stolen.")
    assert nodes[EE].desk.trust.suspended == {LV}
    assert nodes[EE].desk.trust_changed.is_set()
    assert (await audited(nodes[EE], "suspended"))[0]["actor"] == "admin"
    assert (await told(nodes[EE], "suspension"))[0]["nation"] == "LV"
    assert json.loads(await rosters_for_relay(nodes[EE].desk.ledger))["suspended"] == ["LV"]

    refused = await send(nodes[LV], EE)
    await settle([*nodes.values()])
    assert not await has(nodes[EE], refused)
    assert {*nodes[EE].refused} == {Reason.SUSPENDED_SENDER}

    (heard,) = await nodes[FI].desk.ledger.read(peer_suspensions)
    assert (heard.suspended_by, heard.nation, heard.reason) == (EE, LV, "Its key was stolen.")
    assert (await audited(nodes[FI], "suspended"))[0]["actor"] == "EE"
    assert (await told(nodes[FI], "suspension"))[0]["by"] == "EE"
    described: Any = await describe_federation(nodes[FI].desk)
    shown = next(each for each in described["members"] if each["nation"] == "LV")
    assert not shown["suspended"]
    assert [each["nation"] for each in shown["suspended_by"]] == ["EE"]
    assert await nodes[LV].desk.ledger.read(peer_suspensions) == [], "it is not told by us"


async def test_what_is_for_a_suspended_peer_waits_and_goes_when_it_is_trusted_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    before = await send(nodes[EE], LV)
    await suspend(nodes[EE].desk, LV, "Doubt.", actor="admin")
    await settle([*nodes.values()])
    assert await waiting_for(nodes[EE], before) == "suspended by this nation"
    assert not await has(nodes[LV], before)
    clock.forward(60)
    await restore(nodes[EE].desk, LV, actor="admin")
    assert nodes[EE].desk.trust.suspended == frozenset()
    await settle([*nodes.values()])
    assert await has(nodes[LV], before)
    assert await nodes[EE].desk.ledger.read(own_suspensions) == []
    assert await nodes[FI].desk.ledger.read(peer_suspensions) == []
    assert len(await audited(nodes[FI], "restored")) == 1
    assert len(await audited(nodes[EE], "restored")) == 1


async def test_all_members_means_those_that_are_trusted_and_naming_another_says_what_to_do(
    nodes: dict[Nation, Node],
) -> None:
    desk = nodes[EE].desk
    await suspend(desk, LV, "Doubt.", actor="admin")
    assert parse_recipients(desk, "*") == (FI,)
    with pytest.raises(InvalidAt, match="suspended by this nation") as refused:
        parse_recipients(desk, ["FI", "LV"])
    assert refused.value.path == "to[1]"


async def test_a_suspension_survives_a_restart(nodes: dict[Nation, Node]) -> None:
    desk = nodes[EE].desk
    await suspend(desk, LV, "Doubt.", actor="admin")
    trust = await load_trust(desk.ledger, federation().id, [], desk.now())
    assert trust.suspended == {LV}


async def test_what_cannot_be_suspended_or_restored_is_said(nodes: dict[Nation, Node]) -> None:
    desk = nodes[EE].desk
    with pytest.raises(Invalid, match="not a peer"):
        await suspend(desk, EE, "Ourselves.", actor="admin")
    with pytest.raises(NotFound):
        await restore(desk, LV, actor="admin")
    await suspend(desk, LV, "Doubt.", actor="admin")
    with pytest.raises(Conflict):
        await suspend(desk, LV, "Again.", actor="admin")
    assert len(await audited(nodes[EE], "suspended")) == 1


async def test_with_the_only_other_peer_suspended_nobody_is_told(
    nodes: dict[Nation, Node],
) -> None:
    desk = nodes[EE].desk
    await suspend(desk, LV, "Doubt.", actor="admin")
    await suspend(desk, FI, "Doubt.", actor="admin")
    assert desk.trusted_peers() == ()
    assert len(await desk.ledger.read(own_suspensions)) == 2


async def test_an_older_word_about_a_suspension_changes_nothing(nodes: dict[Nation, Node]) -> None:
    ledger = nodes[FI].desk.ledger
    await ledger.write(lambda tx: record_peer_suspension(tx, EE, Restoration(LV, 200)))
    await ledger.write(lambda tx: record_peer_suspension(tx, EE, Suspension(LV, "Late.", 100)))
    assert await ledger.read(peer_suspensions) == []
    await ledger.write(lambda tx: record_peer_suspension(tx, EE, Suspension(LV, "New.", 300)))
    assert [each.reason for each in await ledger.read(peer_suspensions)] == ["New."]


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_suspension_that_travels_open_and_a_proposal_that_travels_sealed_are_refused(
    nodes: dict[Nation, Node], sealed: bool
) -> None:
    desk = nodes[EE].desk
    payload = propose_successor(desk.trust.current, Renewal(), desk.now())
    body = format_proposal(payload) if sealed else format_suspension(Suspension(LV, "x", 1))
    document = await compose(desk, Kind.ROSTER, [FI], body, lane=Lane.URGENT, life_seconds=60)

    def record(tx: Any) -> None:
        record_document(tx, document)
        queue_deliveries(tx, desk, document, [FI], sealed=sealed, numbered=sealed)

    await desk.ledger.write(record)
    await nodes[EE].work()
    await carry(nodes[EE], nodes[FI])
    await nodes[FI].take_in()
    (refused,) = await told(nodes[FI], "refused")
    assert refused["reason"] == Reason.BAD_BODY.value
    assert await nodes[FI].desk.ledger.read(peer_suspensions) == []
