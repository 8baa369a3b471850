"""The beacon chain through the real flow: around a cut link, sealed, without loops, and straight again when it heals."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from sqlalchemy import select, update

from support.alerts import sample_alert
from support.federation import EE, FI, LT, LV, federation
from support.nodes import Clock, Node, carry, exchange_heartbeats, running_nodes, settle
from support.sending import audit_details, audited, count_alerts, delivery, seen, send
from varde.acknowledgement import Response
from varde.identifiers import Lane, Nation
from varde.transit import Transit
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.beacon import FEW, MAX_REROUTED, reroute
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.memory.links import LinkState
from varde_gateway.store.tables import deliveries_table, documents_table

pytestmark = pytest.mark.asyncio
CUT = frozenset((EE, FI))
CALM = [{**each, "severity": "Minor", "urgency": "Future"} for each in sample_alert()["info"]]
STRANGER = Nation("SE")
COAST = federation(EE, FI, LV, LT)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in COAST.parties}
    async with running_nodes(urls, COAST, clock) as running:
        await exchange_heartbeats([*running.values()])
        clock.forward(2)
        await exchange_heartbeats([*running.values()])
        yield running


async def pass_time(
    nodes: dict[Nation, Node], clock: Clock, seconds: float, *cut: frozenset[Nation]
) -> None:
    clock.forward(seconds)
    await exchange_heartbeats([*nodes.values()], cut)
    for node in nodes.values():
        await reroute(node.desk, node.broker)
    await settle([*nodes.values()], cut)


async def test_an_urgent_alert_goes_through_a_third_nation_after_three_seconds(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await settle([*nodes.values()], [CUT])
    await pass_time(nodes, clock, 2, CUT)
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "sent"
    await pass_time(nodes, clock, 2, CUT)
    arrived = await delivery(nodes[EE], alert_id, FI)
    assert arrived["state"] == "delivered"
    assert arrived["via"] in {"LV", "LT"}
    assert arrived["receipt"]
    assert await count_alerts(nodes[FI]) == 1


async def test_the_trail_at_all_three_shows_the_way_and_the_third_cannot_read(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await settle([*nodes.values()], [CUT])
    await pass_time(nodes, clock, 4, CUT)
    assert (await audit_details(nodes[EE], "rerouted")) == ["FI through LT,LV"]
    way = (await delivery(nodes[EE], alert_id, FI))["via"]
    third = nodes[Nation(way)]
    assert f"EE to FI via {way}" in await audit_details(third, "forwarded")
    assert f"FI to EE via {way}" in await audit_details(third, "forwarded")
    assert (await audit_details(nodes[FI], "received")) == [f"EE to FI via {way}"]
    assert any(each.endswith(f"via {way}") for each in await audit_details(nodes[EE], "receipted"))
    assert await seen(third, alert_id) is None
    kept = await third.desk.ledger.read(
        lambda c: c.execute(select(documents_table.c.id)).scalars().all()
    )
    assert alert_id not in kept


async def test_the_next_one_goes_direct_when_the_link_is_back(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    first = await send(nodes[EE], FI)
    await settle([*nodes.values()], [CUT])
    await pass_time(nodes, clock, 4, CUT)
    await pass_time(nodes, clock, 2)
    second = await send(nodes[EE], FI)
    await pass_time(nodes, clock, 1)
    assert (await delivery(nodes[EE], second, FI))["via"] is None
    assert (await delivery(nodes[EE], second, FI))["state"] == "delivered"
    assert (await delivery(nodes[EE], first, FI))["via"] in {"LV", "LT"}
    assert await count_alerts(nodes[FI]) == 2


async def test_routine_waits_thirty_seconds_before_it_goes_around(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI, info=CALM)
    await settle([*nodes.values()], [CUT])
    for _ in range(2):
        await pass_time(nodes, clock, 9, CUT)
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "sent"
    for _ in range(2):
        await pass_time(nodes, clock, 9, CUT)
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_on_a_link_known_to_be_cut_alerts_and_all_answers_go_around_at_once(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for _ in range(4):
        await pass_time(nodes, clock, 8, CUT)
    assert nodes[EE].desk.links.state(FI, clock.ms) is LinkState.CUT
    alert_id = await send(nodes[EE], FI)
    await settle([*nodes.values()], [CUT])
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
    await note_displayed(nodes[FI].desk, EE, alert_id, "officer")
    await settle([*nodes.values()], [CUT])
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "displayed"
    await acknowledge(
        nodes[FI].desk,
        alert_id,
        EE,
        officer="officer",
        response=Response.ACTIONING,
        note="",
        claim=None,
    )
    await settle([*nodes.values()], [CUT])
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "acknowledged"


async def test_where_two_links_of_the_way_are_cut_two_nations_hand_it_on(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    cut = [CUT, frozenset((EE, LT)), frozenset((LV, FI))]
    for _ in range(5):
        await pass_time(nodes, clock, 7, *cut)
    alert_id = await send(nodes[EE], FI)
    for _ in range(6):
        await pass_time(nodes, clock, 5, *cut)
    arrived = await delivery(nodes[EE], alert_id, FI)
    assert (arrived["state"], arrived["via"]) == ("delivered", "LV,LT")
    assert await audit_details(nodes[LV], "forwarded") == ["EE to FI via LV", "FI to EE via LT,LV"]
    assert await audit_details(nodes[LT], "forwarded") == ["EE to FI via LV,LT", "FI to EE via LT"]


async def test_the_same_bytes_are_handed_on_once_and_never_in_a_circle(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await nodes[EE].work()
    clock.forward(4)
    await reroute(nodes[EE].desk, nodes[EE].broker)
    await carry(nodes[EE], nodes[LV])
    message = next(each for each in nodes[LV].broker.inbox if each[3] is not None)
    raw, lane, link, _ = message
    nodes[LV].broker.inbox.extend([message, message])
    for hops in [(LV,), (LT, LV), (LT, FI), (LT, STRANGER), (LT, LT)]:
        nodes[LV].broker.inbox.append((raw, lane, link, Transit(FI, hops)))
    await nodes[LV].take_in()
    queue = nodes[LV].broker.out[FI, Lane.URGENT]
    assert [each[1] for each in queue if each[1] is not None] == [Transit(FI, (LV,))]
    refusals = [each for each in await audit_details(nodes[LV], "refused") if "bad_route" in each]
    assert len(refusals) == 5


async def test_a_nation_on_the_way_whose_broker_is_away_tries_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await nodes[EE].work()
    clock.forward(4)
    await reroute(nodes[EE].desk, nodes[EE].broker)
    await carry(nodes[EE], nodes[LV])
    nodes[LV].broker.down = True
    assert "retried" in await nodes[LV].take_in()
    assert await audit_details(nodes[LV], "forwarded") == []


async def test_what_our_own_broker_does_not_take_is_not_recorded_as_rerouted(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    clock.forward(4)
    nodes[EE].broker.down = True
    await reroute(nodes[EE].desk, nodes[EE].broker)
    assert await audit_details(nodes[EE], "rerouted") == []
    nodes[EE].broker.down = False
    await reroute(nodes[EE].desk, nodes[EE].broker)
    assert len(await audit_details(nodes[EE], "rerouted")) == 1
    assert await audited(nodes[EE], alert_id)


async def test_nothing_goes_around_while_nobody_hears_the_recipient(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alone = [frozenset((FI, each)) for each in (EE, LV, LT)]
    for _ in range(4):
        await pass_time(nodes, clock, 8, *alone)
    alert_id = await send(nodes[EE], FI)
    for _ in range(3):
        await pass_time(nodes, clock, 8, *alone)
    assert await audit_details(nodes[EE], "rerouted") == []
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "sent"
    assert nodes[EE].desk.links.state(FI, clock.ms) is LinkState.SILENT


async def test_a_second_try_goes_through_another_nation(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI, info=CALM)
    for seconds in (9, 9, 9, 9, 6, 9):
        clock.forward(seconds)
        await exchange_heartbeats([*nodes.values()], [CUT])
        await nodes[EE].work()
        await reroute(nodes[EE].desk, nodes[EE].broker)
        for each in (LV, LT):
            nodes[EE].broker.out.pop((each, Lane.ROUTINE), None)
    assert (await audit_details(nodes[EE], "rerouted"))[:2] == ["FI through LT", "FI through LV"]
    assert await audited(nodes[EE], alert_id)


async def test_of_a_long_backlog_on_a_link_that_answers_only_the_oldest_go_around(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    waiting = []
    for _ in range(FEW + 2):
        waiting.append(await send(ee, FI))
        clock.forward(0.01)
    calm = await send(ee, FI, info=CALM)
    await ee.work()
    clock.forward(4)
    ee.desk.links.of(FI, clock.ms).answered_at = clock.ms - 1000
    await reroute(ee.desk, ee.broker)
    assert len(await audit_details(ee, "rerouted")) == FEW
    for alert_id in waiting[:FEW]:
        assert "rerouted" in await audited(ee, alert_id)
    clock.forward(3)
    await reroute(ee.desk, ee.broker)
    assert len(await audit_details(ee, "rerouted")) == FEW + 2
    await settle([*nodes.values()])
    answered_at = ee.desk.links.of(FI, clock.ms).answered_at
    assert answered_at == clock.ms
    for alert_id in (*waiting, calm):
        assert (await delivery(ee, alert_id, FI))["state"] == "delivered"


async def test_an_alert_lost_on_a_broken_connection_goes_around_though_receipts_of_others_come(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    alert_id = await send(ee, FI)
    await ee.work()
    ee.broker.out.clear()
    for _ in range(7):
        clock.forward(0.5)
        ee.desk.links.of(FI, clock.ms).answered_at = clock.ms
        await reroute(ee.desk, ee.broker)
    assert await audit_details(ee, "rerouted") == ["FI through LT,LV"]
    assert "rerouted" in await audited(ee, alert_id)


@pytest.mark.parametrize("why", ["behind others", "said to be missing"])
async def test_deliveries_that_only_wait_do_not_hide_the_one_that_is_cut_off(
    nodes: dict[Nation, Node], clock: Clock, why: str
) -> None:
    ee = nodes[EE]
    waiting = [await send(ee, LV) for _ in range(MAX_REROUTED + 1)]
    for _ in range(4):
        await pass_time(nodes, clock, 8, CUT)
    await ee.desk.ledger.write(
        lambda tx: tx.connection.execute(
            update(deliveries_table)
            .where(deliveries_table.c.document_id.in_(waiting))
            .values(
                open=True,
                queued_at=clock.ms - 10_000,
                rerouted_at=None,
                delivered_at=clock.ms if why == "said to be missing" else None,
            )
        )
    )
    alert_id = await send(ee, FI)
    await ee.work()
    clock.forward(4)
    await exchange_heartbeats([*nodes.values()], [CUT])
    ee.desk.links.of(LV, clock.ms).answered_at = clock.ms
    begun = len(await audit_details(ee, "rerouted"))
    await reroute(ee.desk, ee.broker)
    rerouted = (await audit_details(ee, "rerouted"))[begun:]
    few = 0 if why == "said to be missing" else FEW
    assert sorted(rerouted) == ["FI through LT,LV", *["LV through LT"] * few]
    assert "rerouted" in await audited(ee, alert_id)


async def test_many_that_are_cut_off_from_one_nation_leave_the_other_its_turn(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    for _ in range(MAX_REROUTED + 1):
        await send(ee, LV)
    clock.forward(1)
    await send(ee, FI, info=CALM)
    alert_id = await send(ee, FI)
    clock.forward(4)
    await reroute(ee.desk, ee.broker)
    assert "FI through LT,LV" in await audit_details(ee, "rerouted")
    assert "rerouted" in await audited(ee, alert_id)
