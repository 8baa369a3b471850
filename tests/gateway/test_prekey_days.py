"""Prekeys from day to day: made and announced, deleted for good, and what their lack means for those who were away."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from support.alerts import sample_alert
from support.federation import DAY, EE, FI, LV, NOW, Federation, federation, successor, voted
from support.nodes import (
    Clock,
    MemoryBroker,
    Node,
    carry,
    exchange_heartbeats,
    running_node,
    running_nodes,
    settle,
)
from support.sending import audited, count_alerts, delivery, seen, send
from varde.acknowledgement import Response
from varde.encoding import decode_base64url
from varde.identifiers import Lane, Nation
from varde.prekeys import STALE_SECONDS
from varde.roster import parse_voted_roster
from varde_gateway.cli.database_checks import check_peer_prekeys
from varde_gateway.cli.finding import Finding, Level
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.desk import Policy
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.outbox import NO_LIVE_PREKEY
from varde_gateway.flow.roster.federation import describe_federation, peers_without_prekeys
from varde_gateway.flow.roster.prekeys import renew_prekeys
from varde_gateway.flow.roster.suspensions import suspend
from varde_gateway.flow.roster.voting import put_forward
from varde_gateway.store.tables import deliveries_table, own_prekeys_table

pytestmark = pytest.mark.asyncio

TODAY = NOW - NOW % DAY
HOUR = 3600
WEEK = Policy(document_life_seconds=7 * DAY)
CALM: dict[str, Any] = {"severity": "Minor", "urgency": "Future"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def urls(new_database: Callable[[], str]) -> dict[Nation, str]:
    return {nation: new_database() for nation in federation().parties}


@pytest_asyncio.fixture
async def nodes(urls: dict[Nation, str], clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    async with running_nodes(urls, federation(), clock) as running:
        yield running


async def days_pass(clock: Clock, nodes: list[Node], days: int) -> None:
    """Day after day, with what a node does by itself: prekeys renewed, everything due given out and taken in."""
    for _ in range(days):
        clock.forward(DAY)
        await live_on(nodes)


async def live_on(nodes: list[Node]) -> None:
    for node in nodes:
        await renew_prekeys(node.desk)
    await settle(nodes)


async def beats(clock: Clock, nodes: list[Node]) -> None:
    """Two rounds of heartbeats, with the work between them that follows from the first."""
    for _ in range(2):
        clock.forward(10)
        await exchange_heartbeats(nodes)
        await settle(nodes)


async def stored(node: Node) -> list[int]:
    """The first second of each private half that stands in the database."""
    rows = await node.desk.ledger.read(
        lambda c: c.execute(select(own_prekeys_table.c.not_before)).scalars().all()
    )
    return sorted(rows)


async def details(node: Node, kind: str) -> list[str]:
    entries, _ = await node.desk.ledger.read(
        lambda c: list_entries(c, limit=200, after_index=None, kind=kind)
    )
    return [str(each["detail"]) for each in entries]


def known(node: Node, peer: Nation) -> list[int]:
    """The first second of each prekey of ``peer`` that ``node`` knows."""
    return [each.not_before for each in node.desk.peer_prekeys[peer]]


def sealed_for(node: Node, to: Nation) -> list[str]:
    """The prekeys for which what the broker holds for ``to`` is sealed."""
    held = [raw for lane in Lane for raw, _ in node.broker.out.get((to, lane), ())]
    envelopes = [json.loads(raw) for raw in held if raw.startswith(b'{"protected"')]
    return [json.loads(decode_base64url(each["protected"]))["kid"] for each in envelopes]


async def state(node: Node, peer: Nation) -> dict[str, Any]:
    described: Any = await describe_federation(node.desk)
    return next(each for each in described["members"] if each["nation"] == peer)


async def send_calmly(node: Node, *to: Nation) -> str:
    info = [{**each, **CALM} for each in sample_alert()["info"][:1]]
    return await send(node, *to, info=info)


async def test_each_day_one_more_prekey_is_made_for_the_day_after_tomorrow_and_told_to_all(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    assert await stored(nodes[EE]) == [TODAY, TODAY + DAY, TODAY + 2 * DAY]
    for day in range(1, 6):
        await days_pass(clock, [*nodes.values()], 1)
        today = TODAY + day * DAY
        for peer in (FI, LV):
            assert known(nodes[peer], EE) == [today, today + DAY, today + 2 * DAY]
        assert (await details(nodes[EE], "prekeys_published"))[-1].split(", ")[1] == "1 new"
        assert (await state(nodes[FI], EE))["prekey"] == "live"
    announced = len(await details(nodes[EE], "prekeys_published"))
    clock.forward(HOUR)
    await live_on([*nodes.values()])
    assert len(await details(nodes[EE], "prekeys_published")) == announced, "once a day is enough"


async def test_each_day_is_sealed_for_the_prekey_of_that_day(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    used: list[str] = []
    for _ in range(3):
        alert_id = await send(nodes[EE], FI)
        await nodes[EE].work()
        used += sealed_for(nodes[EE], FI)
        await settle([*nodes.values()])
        assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
        await days_pass(clock, [*nodes.values()], 1)
    assert len({*used}) == 3


async def test_a_private_half_is_kept_for_48_hours_after_its_day_and_then_gone_from_everywhere(
    nodes: dict[Nation, Node], clock: Clock, urls: dict[Nation, str]
) -> None:
    """What was sealed for it can then be opened by nobody, whoever comes into the keystore and the database."""
    desk = nodes[EE].desk
    (first,) = [
        kid
        for kid, begin in await desk.ledger.read(
            lambda c: [
                (row.kid, row.not_before) for row in c.execute(select(own_prekeys_table)).all()
            ]
        )
        if begin == TODAY
    ]
    wrapped = await desk.ledger.read(
        lambda c: c.scalar(
            select(own_prekeys_table.c.wrapped_seed).where(own_prekeys_table.c.kid == first)
        )
    )
    clock.ms = (TODAY + DAY + STALE_SECONDS) * 1000
    await live_on([*nodes.values()])
    assert TODAY in await stored(nodes[EE])
    assert first in desk.own_prekeys
    clock.forward(1)
    await live_on([*nodes.values()])
    assert TODAY not in await stored(nodes[EE])
    assert first not in desk.own_prekeys
    assert await details(nodes[EE], "prekeys_deleted") == ["1 private halves deleted"]
    assert await audited(nodes[EE], first) == ["prekeys_deleted"]
    if urls[EE].startswith("sqlite"):
        # Not only out of sight: the pages that held it are overwritten.
        path = Path(urls[EE].removeprefix("sqlite:///"))
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert wrapped
        assert bytes(wrapped) not in path.read_bytes()


async def test_a_removed_member_deletes_its_private_halves_as_well(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    node, founded = nodes[LV], federation()
    payload = successor(
        founded.roster,
        [each.member for each in founded.parties.values() if each.nation != LV],
        issued_at=NOW,
        expires_at=NOW + 60 * DAY,
    )
    await adopt(node, founded, payload)
    assert not node.desk.is_member()
    await days_pass(clock, [node], 6)
    assert await stored(node) == []
    assert not node.desk.own_prekeys


async def adopt(node: Node, founded: Federation, payload: bytes) -> None:
    raw = voted(payload, [founded.parties[EE], founded.parties[FI]])
    votes = parse_voted_roster(raw).votes
    await put_forward(node.desk, payload, votes, actor="admin")


async def test_a_document_for_a_deleted_prekey_is_refused_asked_for_again_and_sealed_anew(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    nodes[EE].desk.policy = WEEK
    others = [nodes[EE], nodes[LV]]
    everybody = [*nodes.values()]
    alert_id = await send(nodes[EE], FI)
    await nodes[EE].work()
    (old,) = sealed_for(nodes[EE], FI)
    await days_pass(clock, others, 5)
    assert sealed_for(nodes[EE], FI) == [old], "its own broker still holds it"

    await renew_prekeys(nodes[FI].desk)
    assert old not in nodes[FI].desk.own_prekeys
    await carry(nodes[EE], nodes[FI])
    fates = await nodes[FI].take_in()
    assert {*fates} == {"acknowledged"}, "it will never be opened, however often it comes"
    assert any(each.startswith("no_prekey") for each in await details(nodes[FI], "refused"))
    assert await seen(nodes[FI], alert_id) is None
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "sent"

    await beats(clock, everybody)
    await beats(clock, everybody)
    assert await seen(nodes[FI], alert_id) is not None
    assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
    assert await count_alerts(nodes[FI]) == 1
    assert (await state(nodes[FI], EE))["missing"] == 0


async def test_a_node_that_was_off_for_six_days_gets_everything_that_is_still_valid(
    urls: dict[Nation, str], clock: Clock
) -> None:
    parties = federation().parties
    async with AsyncExitStack() as stack:
        stayed = [
            await stack.enter_async_context(
                running_node(urls[each], parties[each], federation(), clock)
            )
            for each in (EE, LV)
        ]
        ee, lv = stayed
        async with running_node(urls[FI], parties[FI], federation(), clock) as fi:
            await settle([ee, lv, fi])
            await beats(clock, [ee, lv, fi])
            question = await send(fi, EE)
            await settle([ee, lv, fi])
        valid: list[tuple[Node, str]] = []
        expired = await send(ee, FI)
        ee.desk.policy = lv.desk.policy = WEEK
        for _ in range(6):
            # The first days are sealed for prekeys that are gone when FI is back; the later ones wait for new ones.
            valid += [(node, await send(node, FI)) for node in stayed]
            valid += [(node, await send_calmly(node, FI)) for node in stayed]
            await settle(stayed)
            await days_pass(clock, stayed, 1)
        await answer_to(ee, question)
        await settle(stayed)
        assert (await delivery(ee, expired, FI))["state"] == "failed"
        waiting = [(await delivery(node, each, FI)) for node, each in valid]
        assert {each["state"] for each in waiting} == {"sent", "queued"}
        assert peers_without_prekeys(ee.desk) == [FI]

        async with running_node(urls[FI], parties[FI], federation(), clock) as back:
            back.broker = MemoryBroker()
            everybody = [ee, lv, back]
            await settle(everybody)
            for _ in range(3):
                await beats(clock, everybody)
            assert peers_without_prekeys(ee.desk) == []
            for node, each in valid:
                assert (await delivery(node, each, FI))["state"] == "delivered"
                received = await seen(back, each)
                assert received is not None
                assert received["from"] == node.desk.nation
            assert await count_alerts(back) == len(valid) + 1
            assert await seen(back, expired) is None
            asked: Any = await seen(back, question)
            assert [each["nation"] for each in asked["acknowledgements"]] == ["EE"]
            for nation in (EE, LV):
                assert (await state(back, nation))["missing"] == 0


async def answer_to(node: Node, alert_id: str) -> str:
    answer = await acknowledge(
        node.desk,
        alert_id,
        None,
        officer="Aino",
        response=Response.ACTIONING,
        note="",
        claim=None,
    )
    return str(answer["id"])


async def waits_for(node: Node, document: str) -> str | None:
    found = await node.desk.ledger.read(
        lambda c: c.scalar(
            select(deliveries_table.c.last_error).where(deliveries_table.c.document_id == document)
        )
    )
    return None if found is None else str(found)


async def test_an_alert_may_go_for_a_prekey_up_to_48_hours_stale_and_says_so_and_nothing_else_may(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    for node in nodes.values():
        node.desk.policy = WEEK
    question = await send(nodes[FI], EE)
    await settle([*nodes.values()])
    stayed = [nodes[EE], nodes[LV]]
    clock.ms = (TODAY + 3 * DAY + HOUR) * 1000  # FI's last prekey has expired an hour ago
    await live_on(stayed)
    assert (await state(nodes[EE], FI))["prekey"] == "stale"
    urgent, calm = await send(nodes[EE], FI), await send_calmly(nodes[EE], FI)
    answer = await answer_to(nodes[EE], question)
    await settle(stayed)
    for alert_id in (urgent, calm):
        told = await delivery(nodes[EE], alert_id, FI)
        assert (told["state"], told["stale_prekey"]) == ("sent", True)
    assert await waits_for(nodes[EE], answer) == NO_LIVE_PREKEY

    clock.ms = (TODAY + 3 * DAY + STALE_SECONDS) * 1000
    await live_on(stayed)
    assert (await state(nodes[EE], FI))["prekey"] is None
    assert peers_without_prekeys(nodes[EE].desk) == [FI]
    late = await send(nodes[EE], FI)
    await settle(stayed)
    told = await delivery(nodes[EE], late, FI)
    assert (told["state"], told["waiting_for"]) == ("queued", NO_LIVE_PREKEY)
    assert (await state(nodes[EE], FI))["undelivered"] >= 4

    await live_on([*nodes.values()])
    for alert_id in (urgent, calm, late):
        assert (await delivery(nodes[EE], alert_id, FI))["state"] == "delivered"
    assert not (await delivery(nodes[EE], late, FI))["stale_prekey"]
    assert await waits_for(nodes[EE], answer) is None
    asked: Any = await seen(nodes[FI], question)
    assert [each["nation"] for each in asked["acknowledgements"]] == ["EE"]


async def test_whose_prekeys_are_stale_or_gone_is_said_by_doctor_and_of_ourselves_too(
    nodes: dict[Nation, Node], clock: Clock, urls: dict[Nation, str]
) -> None:
    def found() -> list[Finding]:
        roster = nodes[EE].desk.trust.current
        return [*check_peer_prekeys(urls[EE], roster, EE, clock.ms // 1000)]

    def own() -> Any:
        return state(nodes[EE], EE)

    (all_well,) = found()
    assert (all_well.level, all_well.text) == (Level.OK, "live: FI, LV")
    assert (await own())["prekey"] == "live"

    clock.ms = (TODAY + 3 * DAY + HOUR) * 1000
    assert (await own())["prekey"] == "stale"
    await live_on([nodes[EE], nodes[LV]])
    stale, live = found()
    assert (stale.level, live.text) == (Level.WARN, "live: LV")
    assert stale.text == (
        "FI: expired 1 hours ago; alerts are sealed for it for 47 hours more, everything else waits"
    )
    assert "varde roster show" in stale.advice
    assert (await own())["prekey"] == "live"

    clock.forward(STALE_SECONDS)
    gone = found()[0]
    assert gone.text == "FI: expired 49 hours ago; whatever is for it waits, alerts too"
    assert (await state(nodes[EE], FI))["prekey"] is None
    await suspend(nodes[EE].desk, FI, "away", actor="admin")
    assert [each.text[:2] for each in found()] == ["li"], "nothing is sealed for it anyway"


async def test_what_one_replica_has_adopted_of_a_peer_the_other_takes_over(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await live_on([*nodes.values()])
    other = replace(nodes[EE].desk)
    before = other.peer_prekeys[FI]
    await days_pass(clock, [*nodes.values()], 1)
    adopted = nodes[EE].desk.peer_prekeys[FI]
    assert other.peer_prekeys[FI] == before != adopted
    await renew_prekeys(other)
    assert other.peer_prekeys[FI] == adopted
