"""What one nation has us hand on takes a share of our time and of our OUTBOX, and never what is ours or the others'."""

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from support.federation import EE, FI, LT, LV, NO, a_document_id, federation
from support.nodes import Clock, MemoryBroker, Node, carry, exchange_heartbeats, running_nodes
from support.sending import audit_details, seen, send
from varde.encoding import encode_base64url
from varde.identifiers import Lane, Nation
from varde.transit import Transit
from varde_gateway.flow.hand_on import MAX_WAITING
from varde_gateway.flow.memory.budgets import (
    BURST_SECONDS,
    BYTES_PER_SECOND,
    DOCUMENTS_PER_SECOND,
    Budgets,
)
from varde_gateway.flow.memory.links import LATE_MS, SILENT_MS
from varde_gateway.flow.memory.refusals import MAX_WAITING as MAX_PATIENCE
from varde_gateway.flow.ports import BrokerError, BrokerFull, Held, Outbound

pytestmark = pytest.mark.asyncio
COAST = federation(EE, FI, LV, LT, NO)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in COAST.parties}
    async with running_nodes(urls, COAST, clock) as running:
        for _ in range(2):
            await exchange_heartbeats([*running.values()])
            clock.forward(2)
        await exchange_heartbeats([*running.values()])
        yield running


def junk(count: int, sender: Nation = EE, size: int = 512) -> list[bytes]:
    """Envelopes for FI that nobody but FI can find to be rubbish."""
    document = COAST.document(sender, [FI], id=a_document_id(1))
    envelope = json.loads(COAST.seal(COAST.sign(document), document, FI))
    raws = []
    for number in range(count):
        envelope["tag"] = encode_base64url(number.to_bytes(16, "big"))
        envelope["ciphertext"] = encode_base64url(bytes(size))
        raws.append(json.dumps(envelope, separators=(",", ":")).encode())
    return raws


def bring(node: Node, raws: list[bytes], link: Nation = EE) -> None:
    node.broker.inbox.extend((raw, Lane.URGENT, link, Transit(FI)) for raw in raws)


def waiting(node: Node, peer: Nation = FI) -> int:
    return len(node.broker.out.get((peer, Lane.URGENT), ()))


class FullBroker(MemoryBroker):
    """Takes nothing, as one whose OUTBOX is full."""

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        return [BrokerFull("maximum bytes exceeded") for _ in messages]


class FailingBroker(MemoryBroker):
    """Meets what nobody foresaw."""

    async def held(self) -> Held:
        raise RuntimeError("nobody foresaw it")


async def test_what_cannot_even_be_tried_does_not_stop_our_own_documents(
    nodes: dict[Nation, Node],
) -> None:
    lv = nodes[LV]
    alert_id = await send(nodes[EE], LV)
    await nodes[EE].work()
    await carry(nodes[EE], lv)
    arrived = lv.broker.inbox
    lv.broker = FailingBroker(inbox=arrived)
    bring(lv, junk(1))
    with pytest.raises(RuntimeError, match="nobody foresaw it"):
        await lv.take_in()
    assert await seen(lv, alert_id) is not None


async def test_what_cannot_be_handed_on_is_let_go_and_does_not_fill_our_inbox(
    nodes: dict[Nation, Node],
) -> None:
    lv = nodes[LV]
    lv.broker = FullBroker()
    bring(lv, junk(2 * MAX_PATIENCE))
    fates = Counter(await lv.take_in())
    assert fates == {"retried": MAX_PATIENCE, "acknowledged": MAX_PATIENCE}


async def test_no_document_of_others_is_put_where_a_thousand_wait_before_it(
    nodes: dict[Nation, Node],
) -> None:
    lv = nodes[LV]
    lv.broker.out[FI, Lane.URGENT] = deque([(b"x", None)] * (MAX_WAITING - 2))
    bring(lv, junk(5))
    assert await lv.take_in() == ["acknowledged"] * 5
    assert waiting(lv) == MAX_WAITING
    refused = await audit_details(lv, "refused")
    assert refused == ["policy: 1000 documents wait before it on out.FI.urgent"] * 3
    await send(lv, FI)
    await lv.work()
    assert waiting(lv) == MAX_WAITING + 1


async def test_half_the_outbox_is_for_our_own_documents(nodes: dict[Nation, Node]) -> None:
    lv = nodes[LV]
    raws = junk(4, size=512 * 20)
    lv.broker.room = 4 * len(raws[0]) + 100
    bring(lv, raws)
    assert await lv.take_in() == ["acknowledged"] * 4
    assert waiting(lv) == 2
    assert (
        await audit_details(lv, "refused")
        == ["policy: our OUTBOX has room for our own documents only"] * 2
    )


async def test_a_flood_that_we_shall_hand_on_uses_up_the_budget_of_its_link_alone(
    nodes: dict[Nation, Node],
) -> None:
    lv = nodes[LV]
    big = junk(1, size=512 * 1000)[0]
    fit = BYTES_PER_SECOND * BURST_SECONDS // len(big)
    bring(lv, junk(fit + 5, size=512 * 1000))
    bring(lv, junk(1, sender=LT), link=LT)
    assert await lv.take_in() == ["acknowledged"] * (fit + 6)
    assert waiting(lv) == fit + 1
    refused = await audit_details(lv, "refused")
    assert refused == ["policy: more than EE may have handed on in that time"] * 5


async def test_a_budget_is_filled_again_as_time_passes() -> None:
    budgets = Budgets()
    burst = DOCUMENTS_PER_SECOND * BURST_SECONDS
    taken = [budgets.allows(EE, 1, 0) for _ in range(burst + 1)]
    assert (taken.count(True), taken[-1]) == (burst, False)
    assert budgets.allows(FI, 1, 0)
    assert [budgets.allows(EE, 1, 5) for _ in range(2)] == [True, False]
    assert sum(budgets.allows(EE, 1, 10_000_000) for _ in range(2 * burst)) == burst
    assert not budgets.allows(FI, BYTES_PER_SECOND * BURST_SECONDS + 1, 10_000_000)


async def test_what_is_for_a_silent_nation_that_nobody_hears_does_not_wait_here(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    lv = nodes[LV]
    first, second = junk(2)
    clock.forward(LATE_MS / 1000 + 1)
    bring(lv, [first])
    assert await lv.take_in() == ["acknowledged"]
    assert waiting(lv) == 1
    clock.forward((SILENT_MS - LATE_MS) / 1000)
    bring(lv, [second])
    assert await lv.take_in() == ["acknowledged"]
    assert waiting(lv) == 1
    assert await audit_details(lv, "refused") == [
        "policy: FI is not heard, and nobody who hears it"
    ]


async def test_a_neighbour_that_claims_the_shortest_way_does_not_get_every_try(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    lv = nodes[LV]
    cut = [frozenset((FI, each)) for each in (LV, EE)]
    for _ in range(4):
        clock.forward(8)
        await exchange_heartbeats([*nodes.values()], cut)
    # LT lies and hands nothing on; the honest way through NO is longer, as far as it is told.
    lv.desk.links.of(LT, clock.ms).reaches = {FI: 0}
    lv.desk.links.of(NO, clock.ms).reaches = {FI: 1}
    assert lv.desk.links.ways(FI, clock.ms)[0] == LT
    bring(lv, junk(40))
    assert await lv.take_in() == ["acknowledged"] * 40
    assert min(waiting(lv, LT), waiting(lv, NO)) > 0
    assert waiting(lv, LT) + waiting(lv, NO) == 40
