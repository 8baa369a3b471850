"""Completeness: what is lost on the way shows in the heartbeats and comes again; who is silent is noticed."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update

from support.federation import EE, FI, LV, NO, federation
from support.nodes import Clock, Node, carry, exchange_heartbeats, running_nodes, settle
from support.sending import count_alerts, delivery, send
from varde.auditlog import AuditKind
from varde.heartbeat import MAX_REACHED, Heartbeat, Received, Sent, Void, format_heartbeat
from varde.identifiers import Lane, Nation
from varde.signing import Kind
from varde_gateway.flow.beacon import reroute
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.heartbeats import hear
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.memory.links import Links, LinkState
from varde_gateway.flow.memory.refusals import ONE_BY_ONE
from varde_gateway.flow.numbers import SENT_AGAIN_AT_ONCE
from varde_gateway.flow.roster.federation import describe_federation
from varde_gateway.store.numbering import load_arrivals
from varde_gateway.store.tables import (
    arrivals_table,
    audit_leaves_table,
    deliveries_table,
    peers_table,
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def nodes(new_database: Callable[[], str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: new_database() for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def beats(nodes: dict[Nation, Node], clock: Clock, *cut: frozenset[Nation]) -> None:
    """Two rounds of heartbeats, with the work between them that follows from the first."""
    for _ in range(2):
        clock.forward(10)
        await exchange_heartbeats([*nodes.values()], cut)
        await settle([*nodes.values()], cut)


async def state(node: Node, peer: Nation) -> dict[str, Any]:
    described: Any = await describe_federation(node.desk)
    return next(each for each in described["members"] if each["nation"] == peer)


async def audit_kinds(node: Node) -> list[str]:
    return [
        kind
        for (kind,) in await node.desk.ledger.read(
            lambda c: c.execute(select(audit_leaves_table.c.kind)).all()
        )
    ]


async def numbers(node: Node, peer: Nation) -> tuple[int, int, int]:
    """The first number sent, the next one, and through which all of the peer's have come."""
    row = await node.desk.ledger.read(
        lambda c: c.execute(select(peers_table).where(peers_table.c.nation == peer)).one()
    )
    return row.sent_from, row.next_sequence, row.received_through


async def attempts(node: Node, alert_id: str) -> int:
    """How often the alert was given to the broker."""
    wanted = select(deliveries_table.c.attempts).where(deliveries_table.c.document_id == alert_id)
    return int(await node.desk.ledger.read(lambda c: c.execute(wanted).scalar_one()))


async def lose(node: Node, peer: Nation) -> None:
    """Publish what is due for ``peer``, and let the broker forget it with the sender believing that it was fetched."""
    await node.work()
    for lane in Lane:
        node.broker.out.pop((peer, lane), None)


async def test_peers_that_beat_are_live_and_say_whom_they_hear(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    seen = await state(nodes[EE], FI)
    assert (seen["state"], seen["path"], seen["hears"]) == ("live", [], ["LV"])
    assert (await state(nodes[EE], EE))["state"] is None


async def test_a_nation_that_is_newly_heard_is_told_to_the_others_within_two_seconds(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    direct, apart = frozenset((EE, FI)), frozenset((LV, FI))
    clock.forward(10)
    await exchange_heartbeats([*nodes.values()], [direct, apart])
    clock.forward(2)
    await exchange_heartbeats([*nodes.values()], [direct])
    assert nodes[LV].desk.links.heard(clock.ms) == (EE, FI)
    assert nodes[EE].desk.links.ways(FI, clock.ms) == ()
    clock.forward(2)
    await exchange_heartbeats([*nodes.values()], [direct])
    assert nodes[EE].desk.links.ways(FI, clock.ms) == (LV,)


async def test_a_nation_that_has_begun_anew_is_told_the_ways_within_two_seconds(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    nodes[EE].desk.links = Links()
    clock.forward(1)
    await exchange_heartbeats([*nodes.values()])
    assert nodes[EE].desk.links.heard(clock.ms) == ()
    clock.forward(1)
    await exchange_heartbeats([*nodes.values()])
    assert nodes[EE].desk.links.ways(FI, clock.ms) == (LV,)


async def test_who_names_a_roster_that_nobody_else_has_is_named(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    desk = nodes[EE].desk
    ahead = replace(desk.trust.current, version=900)
    liar = replace(nodes[EE], desk=replace(desk, trust=replace(desk.trust, current=ahead)))
    before: Any = await describe_federation(nodes[FI].desk)
    assert (before["roster"]["newest_seen"], before["roster"]["newest_seen_from"]) == (1, [EE, LV])
    await hear(nodes[FI].desk, EE, heartbeat(liar, FI, clock.ms + 1))
    after: Any = await describe_federation(nodes[FI].desk)
    assert (after["roster"]["newest_seen"], after["roster"]["newest_seen_from"]) == (900, [EE])
    said = {each["nation"]: each["roster_version"] for each in after["members"]}
    assert said == {EE: 900, FI: None, LV: 1}


async def test_where_nothing_is_news_everybody_beats_once_in_ten_seconds(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    clock.forward(10)
    await exchange_heartbeats([*nodes.values()])
    for _ in range(9):
        clock.forward(1)
        for node in nodes.values():
            await node.beat()
            assert not node.broker.pulses


async def test_a_document_that_was_lost_shows_as_a_gap_within_two_heartbeats_and_comes_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    nodes[EE].desk.policy = type(nodes[EE].desk.policy)(retry_seconds=3600)
    await beats(nodes, clock)
    await send(nodes[EE], FI)
    await lose(nodes[EE], FI)
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    assert await count_alerts(nodes[FI]) == 1
    clock.forward(10)
    await exchange_heartbeats([*nodes.values()])
    await beats(nodes, clock)
    assert await count_alerts(nodes[FI]) == 2
    assert (await numbers(nodes[FI], EE))[2] == 2
    await beats(nodes, clock)
    assert (await state(nodes[FI], EE))["missing"] == 0


async def test_the_chain_of_sender_and_recipient_is_the_same_when_nothing_is_missing(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for _ in range(3):
        await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock)
    assert (await numbers(nodes[EE], FI))[:2] == (1, 4)
    assert (await numbers(nodes[FI], EE))[2] == 3
    assert AuditKind.CHAIN_BROKEN not in await audit_kinds(nodes[FI])


async def test_a_chain_that_does_not_agree_is_an_alarm_said_once(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(update(peers_table).values(sent_chain=bytes(32)))
    )
    await beats(nodes, clock)
    await beats(nodes, clock)
    assert (await audit_kinds(nodes[FI])).count(AuditKind.CHAIN_BROKEN) == 1


async def test_what_a_recipient_lost_with_an_older_copy_of_its_database_comes_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await settle([*nodes.values()])
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"

    def forget(tx: Any) -> None:
        for table in ("alert", "document"):
            tx.connection.exec_driver_sql(f"DELETE FROM {table} WHERE id = '{alert_id}'")
        tx.connection.execute(
            update(peers_table)
            .where(peers_table.c.nation == EE)
            .values(received_through=0, received_chain=None)
        )

    await nodes[FI].desk.ledger.write(forget)
    await beats(nodes, clock)
    await beats(nodes, clock)
    assert await count_alerts(nodes[FI]) == 1
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"


async def test_a_number_whose_document_has_expired_is_closed_and_holds_nothing_up(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await lose(nodes[EE], FI)
    clock.forward(nodes[EE].desk.policy.document_life_seconds + 400)
    await beats(nodes, clock)
    await beats(nodes, clock)
    assert (await numbers(nodes[FI], EE))[2] == 1
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock)
    assert (await numbers(nodes[FI], EE))[2] == 2
    assert AuditKind.CHAIN_BROKEN not in await audit_kinds(nodes[FI])


async def test_a_sender_with_an_older_copy_of_its_database_numbers_behind_what_was_seen(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for _ in range(3):
        await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(
            update(peers_table)
            .where(peers_table.c.nation == FI)
            .values(next_sequence=2, sent_chain=None)
        )
    )
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(
            deliveries_table.delete().where(deliveries_table.c.sequence > 1)
        )
    )
    await beats(nodes, clock)
    assert (await numbers(nodes[EE], FI))[:2] == (4, 4)
    assert AuditKind.NUMBERING_CHANGED in await audit_kinds(nodes[EE])
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock)
    assert (await numbers(nodes[FI], EE))[2] == 4
    assert AuditKind.NUMBERING_CHANGED in await audit_kinds(nodes[FI])
    assert AuditKind.CHAIN_BROKEN not in await audit_kinds(nodes[FI])


async def test_what_both_lost_with_older_copies_of_their_databases_comes_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """FI has forgotten the first, EE the second: the number that EE begins anew with stands behind both."""
    first = await send(nodes[EE], FI)
    second = await send(nodes[EE], FI)
    await settle([*nodes.values()])

    def forget_the_first(tx: Any) -> None:
        for table in ("alert", "document"):
            tx.connection.exec_driver_sql(f"DELETE FROM {table} WHERE id = '{first}'")
        tx.connection.execute(
            update(peers_table)
            .where(peers_table.c.nation == EE)
            .values(received_through=0, received_chain=None)
        )
        digest = tx.connection.exec_driver_sql(
            f"SELECT digest FROM document WHERE id = '{second}'"
        ).scalar()
        tx.connection.execute(
            insert(arrivals_table), {"sender": EE, "sequence": 2, "digest": digest}
        )

    def forget_the_second(tx: Any) -> None:
        for table, column in (("delivery", "document_id"), ("document", "id")):
            tx.connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = '{second}'")
        tx.connection.execute(
            update(peers_table).where(peers_table.c.nation == FI).values(next_sequence=2)
        )

    await nodes[FI].desk.ledger.write(forget_the_first)
    await nodes[EE].desk.ledger.write(forget_the_second)
    assert await count_alerts(nodes[FI]) == 1
    await beats(nodes, clock)
    await beats(nodes, clock)
    assert (await numbers(nodes[EE], FI))[0] == 3
    assert await count_alerts(nodes[FI]) == 2
    assert (await delivery(nodes[EE], first, FI))["state"] == "delivered"


async def test_all_is_sent_again_once_while_the_peer_does_not_follow_the_new_numbering(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    alert_id = await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock)
    await nodes[EE].desk.ledger.write(lambda tx: tx.begin_again(FI, 9))
    await hear(nodes[EE].desk, FI, heartbeat(nodes[FI], EE, clock.ms + 1, **SEEN))
    before = await attempts(nodes[EE], alert_id)
    await settle([*nodes.values()])
    again = await attempts(nodes[EE], alert_id)
    assert again == before + 1
    await hear(nodes[EE].desk, FI, heartbeat(nodes[FI], EE, clock.ms + 2, **SEEN))
    await settle([*nodes.values()])
    assert await attempts(nodes[EE], alert_id) == again


async def test_what_a_peer_may_have_lost_is_sent_again_a_few_at_a_time_and_goes_around_nobody(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    few = 3
    for _ in range(SENT_AGAIN_AT_ONCE + few):
        await send(nodes[EE], FI)
    await beats(nodes, clock)
    clock.forward(5 * 60)
    await beats(nodes, clock)
    desk = nodes[EE].desk
    lie: dict[str, Any] = {"received": Received(1, 0, 900, ())}
    for later in range(1, 4):
        # However often it says so, and whatever else it names as missing.
        await hear(desk, FI, heartbeat(nodes[FI], EE, clock.ms + later, **lie))
        missing: dict[str, Any] = {"received": Received(1, 0, 900, ((1, 60),))}
        await hear(desk, FI, heartbeat(nodes[FI], EE, clock.ms + 100 + later, **missing))
    await reroute(desk, nodes[EE].broker)
    assert await nodes[EE].broker.backlog(LV, Lane.URGENT) == 0
    await nodes[EE].work()
    assert await nodes[EE].broker.backlog(FI, Lane.URGENT) == SENT_AGAIN_AT_ONCE
    clock.forward(1)
    await nodes[EE].work()
    assert await nodes[EE].broker.backlog(FI, Lane.URGENT) == SENT_AGAIN_AT_ONCE + few


async def test_a_peer_that_knows_a_later_beginning_than_ours_proves_an_older_copy(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for _ in range(3):
        await send(nodes[EE], FI)
    later: dict[str, Any] = {"received": Received(2, 1, 1, ())}
    await hear(nodes[EE].desk, FI, heartbeat(nodes[FI], EE, clock.ms + 1, **later))
    assert (await numbers(nodes[EE], FI))[:2] == (4, 4)


@pytest.mark.parametrize(
    "lie",
    [
        {"received": Received(1, 0, 2**53 - 1, ())},
        {"received": Received(2**53 - 1, 2**53 - 2, 2**53 - 2, ())},
        {"sent": Sent(2**53 - 1, 2**53 - 2, bytes(32))},
        {"sent": Sent(1, 2**53 - 1, bytes(32))},
        {"void": (Void(2**53 - 1, "A" * 43),)},
    ],
)
async def test_attack_24_a_heartbeat_that_would_use_up_all_numbers_is_refused(
    nodes: dict[Nation, Node], clock: Clock, lie: dict[str, Any]
) -> None:
    await send(nodes[EE], FI)
    before = await numbers(nodes[EE], FI)
    await hear(nodes[EE].desk, FI, heartbeat(nodes[FI], EE, clock.ms + 1, **lie))
    assert await numbers(nodes[EE], FI) == before
    assert "refused" in await audit_kinds(nodes[EE])
    assert nodes[EE].desk.links.of(FI, clock.ms).heard_at is None
    await send(nodes[EE], FI)


async def test_a_number_that_the_sender_has_not_given_cannot_be_void(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    digest = "A" * 43
    void = tuple(Void(number, digest) for number in (2, 5, 9))
    lie = heartbeat(nodes[EE], FI, clock.ms + 1, sent=Sent(4, 5, bytes(32)), void=void)
    await hear(nodes[FI].desk, EE, lie)
    noted = await nodes[FI].desk.ledger.read(lambda c: load_arrivals(c, EE))
    assert (noted.through, noted.above) == (3, {5: digest})


async def test_lies_about_numbers_change_a_numbering_once_a_minute_each_way(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    async def lie(desk: Desk, lies: int) -> int:
        before = (await audit_kinds(nodes[EE])).count(AuditKind.NUMBERING_CHANGED)
        for _ in range(lies):
            clock.ms += 200
            first, following = (await numbers(nodes[EE], FI))[:2]
            came = (await numbers(nodes[EE], FI))[2]
            told: dict[str, Any] = {
                "sent": Sent(came + 100, came + 99, bytes(32)),
                "received": Received(first, following + 100, following + 100, ()),
            }
            await hear(desk, FI, heartbeat(nodes[FI], EE, clock.ms, **told))
        return (await audit_kinds(nodes[EE])).count(AuditKind.NUMBERING_CHANGED) - before

    assert await lie(nodes[EE].desk, 20) == 2
    clock.forward(30)
    assert await lie(nodes[EE].desk, 20) == 0
    clock.forward(30)
    assert await lie(nodes[EE].desk, 20) == 2


async def test_a_chain_that_is_wrong_and_right_in_turns_is_an_alarm_once_a_minute(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for _ in range(10):
        for chain in (bytes(32), b"x" * 32):
            clock.ms += 200
            lie: dict[str, Any] = {"sent": Sent(1, 0, chain)}
            await hear(nodes[EE].desk, FI, heartbeat(nodes[FI], EE, clock.ms, **lie))
    assert (await audit_kinds(nodes[EE])).count(AuditKind.CHAIN_BROKEN) == 1


async def test_a_silenced_peer_is_noticed_within_two_heartbeats_and_so_is_its_return(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    cut = [frozenset((EE, FI)), frozenset((LV, FI))]
    clock.forward(14)
    await exchange_heartbeats([*nodes.values()], cut)
    assert (await state(nodes[EE], FI))["state"] == "late"
    clock.forward(7)
    await exchange_heartbeats([*nodes.values()], cut)
    assert (await state(nodes[EE], FI))["state"] == "silent"
    assert (await audit_kinds(nodes[EE])).count(AuditKind.LINK_CHANGED) == 3
    await beats(nodes, clock)
    assert (await state(nodes[EE], FI))["state"] == "live"


async def test_a_peer_that_others_still_hear_is_cut_off_and_the_way_around_is_named(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    for _ in range(3):
        await beats(nodes, clock, frozenset((EE, FI)))
    seen = await state(nodes[EE], FI)
    assert (seen["state"], seen["path"]) == ("cut", ["LV"])
    assert (await state(nodes[LV], FI))["state"] == "live"


SEEN: dict[str, Any] = {"received": Received(1, 1, 1, ())}


def heartbeat(node: Node, to: Nation, sequence: int, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "sequence": sequence,
        "sent": Sent(1, 0, bytes(32)),
        "received": Received(1, 0, 0, ()),
        "void": (),
        "reaches": {},
    }
    return compose_now(
        node.desk,
        changes.pop("kind", Kind.HEARTBEAT),
        [to],
        format_heartbeat(Heartbeat(**(values | changes))),
        lane=Lane.URGENT,
        life_seconds=60,
    ).raw


async def test_a_heartbeat_that_is_older_than_the_last_one_says_nothing(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    old, new = (heartbeat(nodes[EE], FI, clock.ms + n, reaches={LV: n}) for n in range(2))
    await hear(nodes[FI].desk, EE, new)
    await hear(nodes[FI].desk, EE, old)
    assert nodes[FI].desk.links.of(EE, clock.ms).reaches == {LV: 1}


async def test_a_peer_whose_clock_was_ahead_is_heard_again_after_it_was_set_right(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await hear(nodes[FI].desk, EE, heartbeat(nodes[EE], FI, clock.ms + 200_000))
    clock.forward(1)
    await hear(nodes[FI].desk, EE, heartbeat(nodes[EE], FI, clock.ms, reaches={LV: 1}))
    assert nodes[FI].desk.links.of(EE, clock.ms).reaches == {LV: 1}


async def test_a_member_that_names_nations_that_do_not_exist_silences_nobody(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    strangers = {Nation(f"X{number:02d}"): 0 for number in range(MAX_REACHED)}
    for later in range(1, 4):
        for victim in (FI, LV):
            lie = heartbeat(nodes[EE], victim, clock.ms + later, reaches=strangers)
            await hear(nodes[victim].desk, EE, lie)
        clock.forward(10)
        await exchange_heartbeats([nodes[FI], nodes[LV]])
    assert (await state(nodes[FI], LV))["state"] == "live"
    assert (await state(nodes[LV], FI))["state"] == "live"
    assert (await state(nodes[FI], EE))["hears"] == []


async def test_no_heartbeat_names_more_nations_than_one_may() -> None:
    links = Links()
    peers = [Nation(f"X{number:02d}") for number in range(MAX_REACHED + 3)]
    links.take_word(peers[0], dict.fromkeys(peers[1:], 1), peers, 0)
    links.take_word(peers[-1], {}, peers, 0)
    told = links.reaches(0, without=EE)
    assert len(told) == MAX_REACHED
    assert {peers[0], peers[-1]} <= {each for each, others in told.items() if not others}


async def test_who_has_left_is_reached_by_nobody() -> None:
    links = Links()
    links.take_word(FI, {LV: 0, NO: 0}, [FI, LV, NO], 0)
    links.keep([FI, LV])
    assert links.ways(NO, 0) == ()
    assert links.reaches(0, without=EE) == {FI: 0, LV: 1}


async def test_a_heartbeat_of_a_clock_that_is_ahead_cannot_be_played_again_to_hide_a_silence(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    desk = nodes[FI].desk
    recorded = [heartbeat(nodes[EE], FI, clock.ms + 200_000 + each) for each in range(3)]
    for each in recorded:
        await hear(desk, EE, each)
    heard_at = desk.links.of(EE, clock.ms).heard_at
    for seconds in (30, 180):
        # Before our clock is where the peer's was, and after; the documents themselves can still be opened.
        clock.forward(seconds)
        for each in recorded:
            await hear(desk, EE, each)
        assert desk.links.of(EE, clock.ms).heard_at == heard_at
        assert desk.links.state(EE, clock.ms) is LinkState.SILENT


async def test_what_was_said_ahead_stays_said_when_the_clock_was_set_right(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    desk = nodes[FI].desk
    ahead = heartbeat(nodes[EE], FI, clock.ms + 200_000)
    await hear(desk, EE, ahead)
    for _ in range(4):
        clock.forward(60)
        await hear(desk, EE, heartbeat(nodes[EE], FI, clock.ms))
        heard_at = desk.links.of(EE, clock.ms).heard_at
        assert heard_at == clock.ms, "heard at once, and from then on"
        clock.forward(1)
        await hear(desk, EE, ahead)
        assert desk.links.of(EE, clock.ms).heard_at == heard_at


async def test_a_clock_of_ours_that_is_set_back_makes_no_heartbeat_new_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    desk = nodes[FI].desk
    clock.forward(100)
    first, second = (
        heartbeat(nodes[EE], FI, clock.ms + each, reaches={LV: each}) for each in range(2)
    )
    await hear(desk, EE, first)
    clock.forward(-90)
    await hear(desk, EE, second)
    await hear(desk, EE, first)
    assert desk.links.of(EE, clock.ms).reaches == {LV: 1}


@pytest.mark.parametrize("kind", [Kind.HEARTBEAT, Kind.RECEIPT])
async def test_a_pulse_at_the_wrong_link_or_of_another_kind_counts_for_nobody(
    nodes: dict[Nation, Node], clock: Clock, kind: Kind
) -> None:
    link = LV if kind is Kind.HEARTBEAT else EE
    await hear(nodes[FI].desk, link, heartbeat(nodes[EE], FI, clock.ms, kind=kind))
    for nation in (EE, LV):
        assert nodes[FI].desk.links.of(nation, clock.ms).heard_at is None


async def test_attack_24_a_flood_of_rubbish_is_recorded_one_by_one_for_a_while_and_then_counted(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    before = (await audit_kinds(nodes[FI])).count(AuditKind.REFUSED)
    for _ in range(50):
        await hear(nodes[FI].desk, EE, b"garbage")
    nodes[FI].broker.inbox.extend([(b"garbage", Lane.URGENT, EE, None)] * 50)
    await nodes[FI].take_in()
    assert (await audit_kinds(nodes[FI])).count(AuditKind.REFUSED) == before + ONE_BY_ONE
    clock.forward(61)
    await nodes[FI].beat()
    await nodes[FI].beat()
    assert (await audit_kinds(nodes[FI])).count(AuditKind.REFUSED) == before + ONE_BY_ONE + 1
    entries, _ = await nodes[FI].desk.ledger.read(
        lambda c: list_entries(c, limit=1000, after_index=None, kind="refused")
    )
    assert entries[-1]["detail"] == "70 more documents refused within a minute: 70 malformed"


async def test_nobody_beats_faster_than_the_clock_says(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    nodes[EE].broker.pulses.clear()
    for _ in range(9):
        clock.forward(1)
        await nodes[EE].beat()
    assert not nodes[EE].broker.pulses
    assert nodes[EE].desk.links.state(FI, clock.ms) is LinkState.LIVE


async def test_the_numbers_of_a_broker_that_holds_them_are_not_sent_twice(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    await send(nodes[EE], FI)
    await nodes[EE].work()
    held = len(nodes[EE].broker.out[FI, Lane.URGENT])
    for _ in range(3):
        clock.forward(10)
        await exchange_heartbeats([*nodes.values()])
        await nodes[EE].work()
    assert len(nodes[EE].broker.out[FI, Lane.URGENT]) == held
    await carry(nodes[EE], nodes[FI])


async def test_two_older_copies_at_once_show_as_a_broken_chain_and_heal(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    # EE forgets what it has sent, and sends another document under the same number; FI forgets that one.
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(
            update(peers_table)
            .where(peers_table.c.nation == FI)
            .values(next_sequence=1, sent_chain=None)
        )
    )
    await nodes[EE].desk.ledger.write(
        lambda tx: tx.connection.execute(
            deliveries_table.delete().where(deliveries_table.c.sequence > 0)
        )
    )
    second = await send(nodes[EE], FI)
    await settle([*nodes.values()])

    def forget(tx: Any) -> None:
        for table in ("alert", "document"):
            tx.connection.exec_driver_sql(f"DELETE FROM {table} WHERE id = '{second}'")

    await nodes[FI].desk.ledger.write(forget)
    for _ in range(3):
        await beats(nodes, clock)
    assert await count_alerts(nodes[FI]) == 2
    assert (await audit_kinds(nodes[FI])).count(AuditKind.CHAIN_BROKEN) == 1
    assert (await numbers(nodes[FI], EE))[2] == 1
