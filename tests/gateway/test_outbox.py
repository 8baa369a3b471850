"""What the sweep finds in the database: everybody's turn, urgent first, and nothing that is lost on the way to the broker."""

from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from support.alerts import sample_alert
from support.federation import EE, FI, LV, federation
from support.nodes import Clock, MemoryBroker, Node, running_nodes
from support.sending import delivery, pile_up, send
from varde.identifiers import Lane, Nation
from varde_gateway.flow.memory.outgoing import MAX_HELD
from varde_gateway.flow.outbox import MAX_DUE, publish, sweep
from varde_gateway.flow.ports import BrokerError, Outbound

pytestmark = pytest.mark.asyncio
BACKLOG = 10_000
CALM = [{**each, "severity": "Minor", "urgency": "Future"} for each in sample_alert()["info"]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


class FailingBroker(MemoryBroker):
    """Meets what nobody foresaw."""

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        raise RuntimeError("nobody foresaw it")


async def forget(node: Node) -> None:
    """What waits is in the database alone, as after a restart."""
    node.desk.outgoing.finish(await node.desk.outgoing.take(MAX_HELD, 0))


async def test_an_urgent_delivery_overtakes_ten_thousand_routine_ones_in_the_database(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    await pile_up(ee, FI, BACKLOG, Lane.ROUTINE)
    clock.forward(1)
    await pile_up(ee, FI, 1, Lane.URGENT)
    await forget(ee)
    await sweep(ee.desk, ee.broker)
    first, *others = await ee.desk.outgoing.take(MAX_HELD, 0)
    assert first.lane is Lane.URGENT
    assert [each.lane for each in others] == [Lane.ROUTINE] * (MAX_DUE - 1)


async def test_thousands_that_wait_for_one_nation_leave_the_others_their_turn(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    ee.desk.peer_prekeys = {FI: ee.desk.peer_prekeys[FI]}
    await pile_up(ee, LV, MAX_DUE + 1, Lane.URGENT)
    clock.forward(1)
    alert_id = await send(ee, FI, info=CALM)
    await forget(ee)
    clock.forward(10)
    await sweep(ee.desk, ee.broker)
    offered = await ee.desk.outgoing.take(MAX_HELD, 0)
    assert len(offered) == MAX_DUE
    assert alert_id in {each.document for each in offered}


async def test_a_batch_that_could_not_be_published_is_tried_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    ee = nodes[EE]
    alert_id = await send(ee, FI)
    jobs = await ee.desk.outgoing.take(MAX_HELD, 0)
    with pytest.raises(RuntimeError, match="nobody foresaw it"):
        await publish(ee.desk, FailingBroker(), jobs)
    clock.forward(ee.desk.policy.retry_seconds)
    await ee.work()
    assert (await delivery(ee, alert_id, FI))["state"] == "sent"
