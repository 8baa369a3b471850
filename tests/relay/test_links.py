"""The relay between real brokers: pulling, admitting, refusing, and coming back after every kind of death."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from support.brokers import Coast, document_number, publish, running_coast, until
from support.federation import EE, FI, LV, NOW
from varde.errors import Reason
from varde.identifiers import Lane, Nation
from varde.signing import Kind
from varde.subjects import message_id, outbox_subject
from varde.transit import Transit
from varde_gateway.broker_link import BrokerLink
from varde_gateway.broker_streams import BrokerLimits
from varde_gateway.flow.ports import BrokerUnavailable, Carried, Outbound
from varde_relay.nats_link import keep_connected

pytestmark = [pytest.mark.processes, pytest.mark.asyncio]
BACKLOG = 10_000
SHARE = 1000


async def send(
    coast: Coast,
    gateway: BrokerLink,
    numbers: range,
    lane: Lane = Lane.URGENT,
    sender: Nation = FI,
) -> list[bytes]:
    """Put sealed alerts for EE into the sender's OUTBOX; gives their bytes."""
    raws = [coast.envelope(sender, EE, number, lane) for number in numbers]
    errors = await gateway.publish_many(
        [
            Outbound(outbox_subject(EE, lane), raw, message_id(document_number(number), EE, 1))
            for raw, number in zip(raws, numbers, strict=True)
        ]
    )
    assert errors == [None] * len(raws)
    return raws


async def receive(gateway: BrokerLink, lane: Lane, wanted: list[bytes]) -> list[Carried]:
    """What EE's gateway gets on a lane, acknowledged, until all the wanted are there."""
    got: list[Carried] = []
    missing = set(wanted)
    async with asyncio.timeout(20):
        while missing:
            await gateway.wait_connected()
            for each in await gateway.fetch(lane, 256, 1):
                await each.acknowledge()
                got.append(each)
                missing.discard(each.raw)
    return got


async def until_fetched(gateway: BrokerLink, lane: Lane) -> None:
    """Until the peer's OUTBOX holds nothing for EE on this lane."""
    async with asyncio.timeout(20):
        while await gateway.backlog(EE, lane):
            await asyncio.sleep(0.01)


async def test_a_sealed_alert_is_carried_from_one_outbox_to_the_other_inbox(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        (raw,) = await send(coast, theirs, range(1))
        (carried,) = await receive(ours, Lane.URGENT, [raw])
        assert carried.raw == raw
        assert (carried.link, carried.lane, carried.redelivered) == (FI, Lane.URGENT, 0)
        await until_fetched(theirs, Lane.URGENT)
        assert state.links[FI].connected
        assert state.links[FI].admitted[Lane.URGENT] == 1


async def test_refused_documents_are_ended_at_the_peer_and_counted_by_reason(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        for number, raw in enumerate(
            [
                b"rubbish",
                coast.envelope(FI, LV, 1),
                coast.envelope(LV, EE, 2),
                coast.envelope(FI, EE, 3, issued_at=NOW - 7200, expires_at=NOW - 3600),
                coast.envelope(FI, EE, 4, Lane.ROUTINE),
                coast.federation.sign(coast.federation.document(FI, [EE])),
            ]
        ):
            await publish(theirs, outbox_subject(EE, Lane.URGENT), raw, f"refused-{number}")
        (good,) = await send(coast, theirs, range(10, 11))
        assert [each.raw for each in await receive(ours, Lane.URGENT, [good])] == [good]
        await until_fetched(theirs, Lane.URGENT)
        assert state.links[FI].refused == {
            Reason.MALFORMED: 1,
            Reason.NOT_FOR_US: 1,
            Reason.WRONG_LINK: 2,
            Reason.EXPIRED: 1,
            Reason.WRONG_KIND: 1,
        }


async def test_a_document_under_a_newer_roster_stays_with_the_peer(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE),
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        reference = coast.federation.roster.reference
        document = coast.federation.document(
            FI, [EE], roster=type(reference)(reference.version + 1, reference.hash)
        )
        raw = coast.federation.sign(document, Kind.RECEIPT)
        await publish(theirs, outbox_subject(EE, Lane.URGENT), raw, "newer")
        await until(
            lambda: FI in state.links and state.links[FI].delayed[Reason.NEWER_ROSTER] > 0,
            "the relay has judged it",
        )
        assert await theirs.backlog(EE, Lane.URGENT) == 1


async def test_a_receipt_travels_unsealed_after_both_its_signatures_are_verified(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        document = coast.federation.document(FI, [EE])
        good = coast.federation.sign(document, Kind.RECEIPT)
        forged = good.replace(b'"signature":"', b'"signature":"AAAA', 1)[: len(good)]
        other = coast.federation.document(FI, [EE], id=document_number(2))
        swapped = good[: good.index(b'"signatures"')]
        swapped = (
            coast.federation.sign(other, Kind.RECEIPT).split(b'"signatures"')[0]
            + good[len(swapped) :]
        )
        for number, raw in enumerate([forged, swapped, good]):
            await publish(theirs, outbox_subject(EE, Lane.URGENT), raw, f"receipt-{number}")
        assert [each.raw for each in await receive(ours, Lane.URGENT, [good])] == [good]
        await until_fetched(theirs, Lane.URGENT)
        assert state.links[FI].refused == {Reason.MALFORMED: 1, Reason.BAD_SIGNATURE: 1}


async def fill_routine(coast: Coast, gateway: BrokerLink, count: int) -> None:
    """So many routine messages for EE, all of one document."""
    raw = coast.envelope(FI, EE, 1, Lane.ROUTINE)
    subject = outbox_subject(EE, Lane.ROUTINE)
    for first in range(0, count, 500):
        numbers = range(first, min(count, first + 500))
        errors = await gateway.publish_many(
            [Outbound(subject, raw, f"routine-{number}") for number in numbers]
        )
        assert errors == [None] * len(numbers)


async def test_the_urgent_lane_is_drained_before_a_routine_backlog_of_ten_thousand(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
    ):
        await fill_routine(coast, theirs, BACKLOG)
        urgent = await send(coast, theirs, range(2, 302))
        async with coast.relay(EE, batch=64) as state:
            await until(
                lambda: FI in state.links and state.links[FI].admitted[Lane.ROUTINE] > 0,
                "the first routine one",
            )
            # Not one routine document was stored before the last urgent one.
            assert state.links[FI].admitted[Lane.URGENT] == 300
        assert len(await receive(ours, Lane.URGENT, urgent)) == 300


async def test_an_urgent_alert_overtakes_a_routine_backlog_that_is_already_being_carried(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE, batch=64) as state,
    ):
        await fill_routine(coast, theirs, BACKLOG)
        await until(lambda: state.links[FI].admitted[Lane.ROUTINE] > 0, "routine is flowing")
        (raw,) = await send(coast, theirs, range(2, 3))
        await receive(ours, Lane.URGENT, [raw])
        assert state.links[FI].admitted[Lane.ROUTINE] < BACKLOG


async def test_a_flood_of_one_nation_leaves_the_urgent_alert_of_another_its_place(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as flooder,
        coast.gateway(LV) as latvian,
        coast.relay(EE) as state,
    ):
        flood = await send(coast, flooder, range(3 * SHARE // 2))
        await until(lambda: state.links[FI].not_stored > 0, "FI has filled its share")
        (alert,) = await send(coast, latvian, range(1), sender=LV)
        before = await receive(ours, Lane.URGENT, [alert])
        assert {each.link for each in before[:-1]} <= {FI, LV}
        assert len(before) <= SHARE + 256
        # Nothing of the flood is lost: the rest has waited at FI's own broker.
        wanted = {*flood} - {each.raw for each in before}
        await receive(ours, Lane.URGENT, [*wanted])


async def test_a_link_that_is_down_keeps_the_others_going(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        await until(lambda: LV in state.links and state.links[LV].connected, "the link to LV")
        coast.brokers[LV].kill()
        await until(lambda: not state.links[LV].connected, "the relay notices")
        raws = await send(coast, theirs, range(50))
        await receive(ours, Lane.URGENT, raws)
        assert not state.links[LV].connected
        assert state.links[LV].last_error


@pytest.mark.parametrize("method", ["connect", "close"])
async def test_a_cancellation_that_the_broker_library_swallows_ends_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    entered = asyncio.Event()
    real = getattr(Client, method)

    async def go_on_when_first_cancelled(client: Client, *values: Any, **options: Any) -> None:
        await real(client, *values, **options)
        if not entered.is_set():
            entered.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    monkeypatch.setattr(Client, method, go_on_when_first_cancelled)
    async with running_coast(tmp_path, EE, FI) as coast:
        link = asyncio.create_task(
            keep_connected(
                coast.endpoint(FI, EE),
                lambda _: asyncio.sleep(0),
                pause=lambda _: 60,
                on_refusal=lambda _: None,
                on_down=lambda _: None,
            )
        )
        await asyncio.wait_for(entered.wait(), 5)
        link.cancel()
        await asyncio.wait({link}, timeout=3)
        ended = link.cancelled()
        link.cancel()
        assert ended


async def test_the_link_is_up_again_within_about_a_second_of_the_peers_return(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE),
        coast.gateway(FI),
        coast.relay(EE) as state,
    ):
        for _ in range(3):
            await until(lambda: FI in state.links and state.links[FI].connected, "the link")
            await asyncio.to_thread(coast.brokers[FI].kill)
            await until(lambda: not state.links[FI].connected, "the relay notices")
            await asyncio.to_thread(coast.brokers[FI].start)
            await until(lambda: state.links[FI].connected, "the link is back", 2.0)
        assert state.links[FI].disconnections == 3


@pytest.mark.parametrize("victim", [EE, FI])
async def test_nothing_is_lost_when_a_broker_is_killed_in_the_middle(
    tmp_path: Path, victim: Nation
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE, batch=32) as state,
    ):
        raws = await send(coast, theirs, range(400))
        await until(lambda: state.links[FI].admitted[Lane.URGENT] > 0, "it is flowing")
        await asyncio.to_thread(coast.brokers[victim].kill)
        await asyncio.to_thread(coast.brokers[victim].start)
        await receive_through_a_restart(ours, raws)
        await theirs.wait_connected()
        await until_fetched(theirs, Lane.URGENT)


async def receive_through_a_restart(gateway: BrokerLink, wanted: list[bytes]) -> None:
    missing = set(wanted)
    async with asyncio.timeout(30):
        while missing:
            await gateway.wait_connected()
            try:
                batch = await gateway.fetch(Lane.URGENT, 256, 1)
            except BrokerUnavailable:
                continue
            for each in batch:
                await each.acknowledge()
                missing.discard(each.raw)


async def test_nothing_is_lost_when_the_relay_dies_between_storing_and_acknowledging(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
    ):
        raws = await send(coast, theirs, range(600))
        for _ in range(3):
            async with coast.relay(EE, batch=16) as state:
                await until(
                    lambda state=state: FI in state.links and state.links[FI].fetched[Lane.URGENT],
                    "it is flowing",
                )
        async with coast.relay(EE):
            await receive(ours, Lane.URGENT, raws)
            await until_fetched(theirs, Lane.URGENT)


async def test_a_full_inbox_leaves_the_documents_with_the_peer(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE, BrokerLimits(inbox_per_subject=3)) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        raws = await send(coast, theirs, range(8))
        await until(lambda: FI in state.links and state.links[FI].not_stored > 0, "it is full")
        await receive(ours, Lane.URGENT, raws)
        await until_fetched(theirs, Lane.URGENT)


async def test_a_suspended_peer_is_not_pulled_any_more_and_its_connection_to_us_is_ended(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.relay(EE) as state,
        coast.gateway(FI) as finnish,
        coast.relay(FI) as theirs,
    ):
        await until(lambda: EE in theirs.links and theirs.links[EE].connected, "FI fetches")
        coast.suspended[EE] = frozenset({FI})
        await ours.announce_roster(coast.announcement([FI]))
        await until(lambda: not theirs.links[EE].connected, "FI is put out", 2.0)
        await until(lambda: FI not in state.links, "FI is not pulled")
        assert LV in state.links
        coast.suspended[EE] = frozenset()
        await ours.announce_roster(coast.announcement())
        await until(lambda: theirs.links[EE].connected, "FI is let in again", 3.0)
        await until(lambda: FI in state.links and state.links[FI].connected, "and pulled")
        raw = coast.envelope(EE, FI)
        await publish(ours, outbox_subject(FI, Lane.URGENT), raw, "after")
        await receive(finnish, Lane.URGENT, [raw])


async def test_a_peers_identifiers_cannot_suppress_another_senders_document(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as finnish,
        coast.gateway(LV) as latvian,
        coast.relay(EE),
    ):
        first, second = coast.envelope(FI, EE, 1), coast.envelope(LV, EE, 1)
        identifier = message_id(document_number(1), EE, 1)
        await publish(finnish, outbox_subject(EE, Lane.URGENT), first, identifier)
        await receive(ours, Lane.URGENT, [first])
        await publish(latvian, outbox_subject(EE, Lane.URGENT), second, identifier)
        await receive(ours, Lane.URGENT, [second])


async def test_a_heartbeat_is_heard_at_once_and_kept_nowhere(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        await until(lambda: FI in state.links and state.links[FI].connected, "the link is up")
        document = coast.federation.document(FI, [EE])
        said = coast.federation.sign(document, Kind.HEARTBEAT)
        await theirs.pulse(EE, said)
        async with asyncio.timeout(5):
            sender, raw = await ours.next_pulse()
        assert (sender, raw) == (FI, said)
        assert await theirs.backlog(EE, Lane.URGENT) == 0
        assert await ours.fetch(Lane.URGENT, 10, 0.2) == []


async def test_forged_foreign_and_flooding_heartbeats_are_not_passed_on(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.relay(EE) as state,
    ):
        await until(lambda: FI in state.links and state.links[FI].connected, "the link is up")
        federation = coast.federation
        of_another = federation.sign(federation.document(LV, [EE]), Kind.HEARTBEAT)
        for wrong in (b"rubbish", bytes(64 * 1024), of_another):
            await theirs.pulse(EE, wrong)
            await asyncio.sleep(0.25)
        # One may have what any document may: with what it says of others' logs it is long at times.
        body = {"long": "x" * 150_000}
        good = federation.sign(federation.document(FI, [EE], body=body), Kind.HEARTBEAT)
        for _ in range(50):
            await theirs.pulse(EE, good)
        async with asyncio.timeout(5):
            assert await ours.next_pulse() == (FI, good)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ours.next_pulse()
        assert state.links[FI].refused == {Reason.MALFORMED: 2, Reason.WRONG_LINK: 1}


async def test_what_goes_through_a_third_nation_keeps_its_label_on_both_brokers(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
        coast.gateway(LV) as third,
        coast.relay(EE) as state,
        coast.relay(LV),
    ):
        raw = coast.envelope(FI, EE, 1)
        subject = outbox_subject(LV, Lane.URGENT)
        assert await theirs.publish_many([Outbound(subject, raw, "1", Transit(EE))]) == [None]
        (handed,) = await receive(third, Lane.URGENT, [raw])
        assert (handed.link, handed.transit) == (FI, Transit(EE))
        onward = Outbound(outbox_subject(EE, Lane.URGENT), raw, "1", Transit(EE, (LV,)))
        assert await third.publish_many([onward]) == [None]
        (arrived,) = await receive(ours, Lane.URGENT, [raw])
        assert (arrived.link, arrived.via) == (LV, (LV,))
        again = Outbound(onward.subject, raw, "2")
        assert await third.publish_many([again]) == [None]
        await until(lambda: state.links[LV].refused[Reason.WRONG_LINK] > 0, "the label is needed")
