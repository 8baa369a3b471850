"""The gateway's adapter at its own, real broker."""

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from support.brokers import publish, running_coast, until
from support.federation import EE, FI, LV
from varde.identifiers import Lane, Nation
from varde.subjects import inbox_subject, outbox_subject
from varde_gateway.broker_link import BrokerLink
from varde_gateway.broker_streams import BrokerLimits
from varde_gateway.broker_wire import Live
from varde_gateway.flow.ports import BrokerFull, BrokerUnavailable, Held, Outbound
from varde_relay.nats_link import Connection, Inbound, StreamFull

pytestmark = [pytest.mark.processes, pytest.mark.asyncio]
URGENT_FI = outbox_subject(FI, Lane.URGENT)
SHARE = 1000


async def until_waiting(
    gateway: BrokerLink, count: int, peer: Nation = FI, lane: Lane = Lane.URGENT
) -> None:
    """The broker counts for its consumers a moment after it has acknowledged."""
    async with asyncio.timeout(5):
        while await gateway.backlog(peer, lane) != count:
            await asyncio.sleep(0.01)


async def test_the_streams_and_every_peers_two_consumers_are_made(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI, LV) as coast, coast.gateway(EE) as gateway:
        for peer in (FI, LV):
            for lane in Lane:
                await publish(gateway, outbox_subject(peer, lane), b"x", f"{peer}{lane}")
                await until_waiting(gateway, 1, peer, lane)


async def test_a_repeated_message_identifier_is_stored_once(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        assert await gateway.publish_many([Outbound(URGENT_FI, b"x", "same")] * 3) == [None] * 3
        await until_waiting(gateway, 1)


@pytest.mark.parametrize("method", ["connect", "close"])
async def test_a_cancellation_that_the_broker_library_swallows_ends_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    entered = asyncio.Event()
    real = getattr(Client, method)

    async def go_on_when_first_cancelled(client: Client, *values: Any, **options: Any) -> None:
        await real(client, *values, **options)
        if not entered.is_set():
            entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    monkeypatch.setattr(Client, method, go_on_when_first_cancelled)

    async def fail(_link: BrokerLink, _live: Live) -> None:
        raise BrokerUnavailable("so that the connection is closed")

    monkeypatch.setattr(BrokerLink, "_make_streams", fail)
    async with running_coast(tmp_path, EE, FI) as coast:
        broker = coast.brokers[EE]
        link = BrokerLink(
            nation=EE,
            url=broker.url,
            ca_file=broker.ca_file,
            nkey_file=broker.nkey_file,
            peers=list,
        )
        async with asyncio.timeout(5), link:
            await entered.wait()


async def test_a_full_outbox_is_an_error_that_the_gateway_sees(tmp_path: Path) -> None:
    limits = BrokerLimits(outbox_bytes=64 * 1024)
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE, limits) as gateway:
        messages = [Outbound(URGENT_FI, bytes(20 * 1024), str(each)) for each in range(5)]
        errors = await gateway.publish_many(messages)
        assert errors[:3] == [None] * 3
        assert all(isinstance(each, BrokerFull) for each in errors[3:])
        with pytest.raises(BrokerFull, match="maximum bytes"):
            await publish(gateway, *messages[4][:3])
        await until_waiting(gateway, 3)


async def test_what_waits_in_the_outbox_is_counted_by_subject_and_in_bytes(tmp_path: Path) -> None:
    limits = BrokerLimits(outbox_bytes=10_000_000)
    async with running_coast(tmp_path, EE, FI, LV) as coast, coast.gateway(EE, limits) as gateway:
        assert await gateway.held() == Held({}, 0, 10_000_000)
        for number in range(3):
            await publish(gateway, URGENT_FI, bytes(5000), f"{number}")
        await publish(gateway, outbox_subject(LV, Lane.ROUTINE), b"x", "LV")
        held = await gateway.held()
        assert held.messages == {URGENT_FI: 3, outbox_subject(LV, Lane.ROUTINE): 1}
        assert 15_000 < held.taken < 16_000
        await asyncio.to_thread(coast.brokers[EE].kill)
        await until(lambda: not gateway.connected(), "the gateway notices")
        with pytest.raises(BrokerUnavailable):
            await gateway.held()


async def test_a_flooder_has_its_own_share_of_the_inbox_and_the_rest_waits_at_its_broker(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI, LV) as coast, coast.gateway(EE) as gateway:
        relay = Connection(coast.endpoint(EE, EE), pytest.fail)
        await relay.open()
        flood = [
            Inbound(inbox_subject(Lane.URGENT, FI), b"x", f"FI.{each}")
            for each in range(SHARE + 10)
        ]
        answers = await relay.publish_many(flood)
        assert answers[:SHARE] == [None] * SHARE
        assert {type(each) for each in answers[SHARE:]} == {StreamFull}
        alert = Inbound(inbox_subject(Lane.URGENT, LV), b"alert", "LV.1")
        assert await relay.publish_many([alert]) == [None]
        before = 0
        while (batch := await gateway.fetch(Lane.URGENT, 256, 1))[-1].link != LV:
            before += len(batch)
            for each in batch:
                await each.acknowledge()
        assert before + len(batch) == SHARE + 1
        await relay.close()


async def test_a_peer_that_stays_away_fills_its_own_share_only(tmp_path: Path) -> None:
    limits = BrokerLimits(outbox_per_subject=2)
    async with running_coast(tmp_path, EE, FI, LV) as coast, coast.gateway(EE, limits) as gateway:
        errors = await gateway.publish_many(
            [Outbound(URGENT_FI, b"x", str(each)) for each in range(3)]
        )
        assert errors[:2] == [None, None]
        assert isinstance(errors[2], BrokerFull)
        await publish(gateway, outbox_subject(FI, Lane.ROUTINE), b"x", "routine")
        await publish(gateway, outbox_subject(LV, Lane.URGENT), b"x", "LV")


async def test_streams_whose_store_was_deleted_are_made_again_at_the_next_connect(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        await publish(gateway, URGENT_FI, b"x", "1")
        broker = coast.brokers[EE]
        await asyncio.to_thread(broker.kill)
        await until(lambda: not gateway.connected(), "the gateway notices")
        with pytest.raises(BrokerUnavailable, match="not connected"):
            await publish(gateway, URGENT_FI, b"x", "2")
        shutil.rmtree(broker.store_dir)
        await asyncio.to_thread(broker.start)
        async with asyncio.timeout(3):
            await gateway.wait_connected()
        await publish(gateway, URGENT_FI, b"x", "3")
        await until_waiting(gateway, 1)


async def test_a_stream_that_vanished_while_connected_is_made_at_the_next_publish(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as gateway,
        coast.gateway(EE) as other,
    ):
        assert other._live is not None
        await other._live.ask("STREAM.DELETE.OUTBOX", {})
        await publish(gateway, URGENT_FI, b"x", "1")
        await until_waiting(gateway, 1)


async def test_a_limit_that_was_changed_is_followed_at_the_next_connect(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        async with coast.gateway(EE, BrokerLimits(outbox_per_subject=1)) as gateway:
            await publish(gateway, URGENT_FI, b"x", "1")
            with pytest.raises(BrokerFull):
                await publish(gateway, URGENT_FI, b"x", "2")
        async with coast.gateway(EE, BrokerLimits(outbox_per_subject=2)) as gateway:
            await publish(gateway, URGENT_FI, b"x", "2")


async def store_as_relay(connection: Connection, count: int) -> None:
    errors = await connection.publish_many(
        [
            Inbound(inbox_subject(Lane.URGENT, FI), f"{each}".encode(), f"{each}")
            for each in range(count)
        ]
    )
    assert errors == [None] * count


async def test_what_is_fetched_says_who_sent_it_and_comes_again_until_acknowledged(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        relay = Connection(coast.endpoint(EE, EE), pytest.fail)
        await relay.open()
        await store_as_relay(relay, 1)
        (first,) = await gateway.fetch(Lane.URGENT, 10, 5)
        assert (first.raw, first.link, first.lane, first.redelivered) == (
            b"0",
            FI,
            Lane.URGENT,
            0,
        )
        await first.retry_later(0.05)
        (again,) = await gateway.fetch(Lane.URGENT, 10, 5)
        assert (again.raw, again.redelivered) == (b"0", 1)
        await again.acknowledge()
        assert await gateway.fetch(Lane.URGENT, 10, 0.1) == []
        assert await gateway.fetch(Lane.ROUTINE, 10, 0.1) == []
        await relay.close()


async def test_a_fetch_that_waits_ends_when_the_broker_dies(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:

        async def die() -> None:
            await asyncio.to_thread(coast.brokers[EE].kill)

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(die())
            with pytest.raises(BrokerUnavailable):
                await gateway.fetch(Lane.URGENT, 10, 60)


async def test_the_relay_is_answered_and_told_the_roster(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        relay = Connection(coast.endpoint(EE, EE), pytest.fail)
        await relay.open()
        assert await relay.request("node.roster.get", b"0") == coast.announcement()
        heard: list[bytes] = []

        async def hear(raw: bytes) -> None:
            heard.append(raw)

        await relay.subscribe("node.roster.update", hear)
        await gateway.announce_roster(b"news")
        await until(lambda: heard == [b"news"], "the relay hears it")
        await relay.close()


async def test_a_broker_that_is_not_there_is_unavailable_and_found_when_it_comes(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        broker = coast.brokers[EE]
        broker.stop()
        link = BrokerLink(
            nation=EE,
            url=broker.url,
            ca_file=broker.ca_file,
            nkey_file=broker.nkey_file,
            peers=lambda: [FI],
        )
        async with link:
            assert not link.connected()
            with pytest.raises(BrokerUnavailable):
                await link.backlog(FI, Lane.URGENT)
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(5):
                await link.wait_connected()
            await publish(link, URGENT_FI, b"x", "1")


async def test_what_waits_for_a_nation_that_was_removed_is_taken_away_with_its_consumers(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI, LV) as coast:
        broker = coast.brokers[EE]
        peers = [FI, LV]
        link = BrokerLink(
            nation=EE,
            url=broker.url,
            ca_file=broker.ca_file,
            nkey_file=broker.nkey_file,
            peers=lambda: peers,
        )
        async with link:
            await asyncio.wait_for(link.wait_connected(), 5)
            for peer in (FI, LV):
                await publish(link, outbox_subject(peer, Lane.URGENT), b"x", peer)
            peers.remove(LV)
            await link.ensure_streams()
            assert await link.backlog(FI, Lane.URGENT) == 1
            peers.append(LV)
            await link.ensure_streams()
            assert await link.backlog(LV, Lane.URGENT) == 0
