"""A broker that answers and stores nothing: noticed, said, given to the relay, and over when it stores again."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, federation
from support.nodes import Clock, Node, running_node
from varde.auditlog import AuditKind
from varde.subjects import BROKER_RESTARTED
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.memory.storing import STUCK_AFTER_MS, Storing
from varde_gateway.flow.ports import BrokerUnavailable
from varde_gateway.flow.store_watch import RELAY_SILENT, look

STREAMS = ("BLOBS", "INBOX", "OUTBOX")


@dataclass
class Broker:
    """Stores nothing in ``failed``; None where it does not answer at all, ``says`` None where the relay does not."""

    failed: list[str] | None = field(default_factory=list)
    says: bytes | None = b"its disk is full"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    async def wait_connected(self) -> None:
        return

    async def wait_unstored(self) -> None:
        return

    async def streams_without_store(self) -> list[str]:
        if self.failed is None:
            raise BrokerUnavailable("away")
        return self.failed

    def name_storing_trouble(self, trouble: str) -> None:
        self.named.append(trouble)

    async def ask_restart(self, streams: Sequence[str]) -> bytes:
        self.asked.append(tuple(streams))
        if self.says is None:
            raise BrokerUnavailable("nobody answers")
        return self.says


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def node(database_url: str, clock: Clock) -> AsyncIterator[Node]:
    async with running_node(database_url, federation().parties[EE], federation(), clock) as running:
        yield running


async def look_for(node: Node, broker: Broker, clock: Clock, milliseconds: int) -> None:
    """A look, and another so much later."""
    await look(node.desk, broker)
    clock.ms += milliseconds
    await look(node.desk, broker)


async def restarts(node: Node) -> list[str]:
    page, _ = await node.desk.ledger.read(
        lambda c: list_entries(c, limit=10, after_index=None, kind=AuditKind.BROKER_RESTARTED)
    )
    return [str(each["detail"]) for each in page]


@pytest.mark.asyncio
async def test_a_broker_that_was_only_slow_is_not_complained_of(node: Node, clock: Clock) -> None:
    broker = Broker(failed=["OUTBOX"])
    await look_for(node, broker, clock, STUCK_AFTER_MS - 1)
    broker.failed = []
    await look(node.desk, broker)
    broker.failed = ["OUTBOX"]
    await look_for(node, broker, clock, STUCK_AFTER_MS - 1)
    assert (broker.asked, node.desk.storing.trouble) == ([], "")


@pytest.mark.asyncio
async def test_what_the_relay_answers_is_what_people_read(node: Node, clock: Clock) -> None:
    broker = Broker(failed=["OUTBOX", "INBOX"])
    await look_for(node, broker, clock, STUCK_AFTER_MS)
    assert broker.asked == [("INBOX", "OUTBOX")]
    assert node.desk.storing.trouble == "stores nothing in INBOX, OUTBOX: its disk is full"
    assert broker.named == ["our broker stores nothing in INBOX, OUTBOX: its disk is full"]
    assert await restarts(node) == []


@pytest.mark.asyncio
async def test_a_restart_is_recorded_and_the_trouble_ends_when_everything_is_stored_again(
    node: Node, clock: Clock
) -> None:
    broker = Broker(failed=["OUTBOX"], says=BROKER_RESTARTED)
    await look_for(node, broker, clock, STUCK_AFTER_MS)
    assert node.desk.storing.trouble == "stores nothing in OUTBOX: it is being restarted"
    assert await restarts(node) == ["it stored nothing in OUTBOX"]
    broker.failed = None
    await look(node.desk, broker)
    assert node.desk.storing.trouble
    broker.failed = []
    await look(node.desk, broker)
    assert node.desk.storing == Storing()
    assert broker.named[-1] == ""


@pytest.mark.asyncio
async def test_where_the_relay_is_silent_too_a_person_is_asked_to_restart_the_broker(
    node: Node, clock: Clock
) -> None:
    broker = Broker(failed=["BLOBS"], says=None)
    await look_for(node, broker, clock, STUCK_AFTER_MS)
    assert node.desk.storing.trouble.endswith(RELAY_SILENT)


@pytest.mark.asyncio
async def test_a_broker_that_went_away_and_came_back_gets_its_whole_time_again(
    node: Node, clock: Clock
) -> None:
    broker = Broker(failed=["OUTBOX"])
    await look_for(node, broker, clock, STUCK_AFTER_MS - 1)
    broker.failed = None
    await look(node.desk, broker)
    broker.failed = ["OUTBOX"]
    await look_for(node, broker, clock, STUCK_AFTER_MS - 1)
    assert broker.asked == []


@given(st.lists(st.tuples(st.sets(st.sampled_from(STREAMS)), st.integers(0, STUCK_AFTER_MS))))
def test_a_stream_is_given_up_exactly_when_every_look_for_so_long_has_failed(
    looks: list[tuple[set[str], int]],
) -> None:
    storing, now = Storing(), 0
    history: list[tuple[int, set[str]]] = []
    for failed, later in looks:
        now += later
        history.append((now, failed))
        stuck = storing.judge(failed, now, now)
        for stream in STREAMS:
            since = now
            for at, each in reversed(history):
                if stream not in each:
                    break
                since = at
            assert (stream in stuck) == (stream in failed and now - since >= STUCK_AFTER_MS)
