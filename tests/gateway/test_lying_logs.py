"""A log with two histories is found out whatever it says; an honest one is never accused, whatever happens to it."""

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select, update

from support.federation import EE, FI, LV, federation
from support.lying_log import LyingLog, Manner, Street, convictions, cosigned, debts
from support.nodes import (
    Clock,
    Node,
    grow_log,
    running_node,
    running_nodes,
    settle,
)
from varde.auditlog import AuditKind
from varde.identifiers import Nation
from varde.note import parse_note
from varde_gateway.cli.finding import Level
from varde_gateway.cli.log_checks import check_logs
from varde_gateway.flow.log.history import halt
from varde_gateway.flow.log.trail import check_stored_log, checkpoint
from varde_gateway.flow.log.witness_report import describe_witnesses
from varde_gateway.flow.memory.log_talk import Logs
from varde_gateway.store.database import open_database
from varde_gateway.store.tables import audit_leaves_table, witnessed_table
from varde_gateway.store.tree import log_size

pytestmark = pytest.mark.asyncio
PARTIES = federation().parties
TWO_HEARTBEATS = 20
UNDER_WAY = 3
"""Seconds: each heartbeat arrives in the second after it was said."""


@pytest_asyncio.fixture
async def street(new_database: Callable[[], str]) -> AsyncIterator[Street]:
    """FI and LV have known EE's log for a while. Of EE there are two histories, and nothing of both is shown yet."""
    clock = Clock()
    urls = [new_database() for _ in range(4)]
    async with (
        running_node(urls[0], PARTIES[FI], federation(), clock) as fi,
        running_node(urls[1], PARTIES[LV], federation(), clock) as lv,
        running_node(urls[2], PARTIES[EE], federation(), clock) as one,
        running_node(urls[3], PARTIES[EE], federation(), clock) as other,
    ):
        await settle([fi, lv, one])
        yield Street((fi, lv), LyingLog(EE, {FI: one, LV: other}, clock), clock)


async def grow_to(node: Node, size: int) -> None:
    await grow_log(node, size - await node.desk.ledger.read(log_size))


async def show(street: Street, one: int, other: int) -> None:
    """The two histories have these sizes, and are shown now."""
    await grow_to(street.liar.faces[FI], one)
    await grow_to(street.liar.faces[LV], other)
    street.liar.beat_at = 0
    await street.live(1)


def texts(street: Street) -> set[str]:
    """What each peer was shown first."""
    return {parse_note(notes[0]).text for notes in street.liar.shown.values()}


async def rows(node: Node, table: Any) -> list[Any]:
    return [*await node.desk.ledger.read(lambda c: c.execute(select(table)).all())]


async def kinds(node: Node) -> list[str]:
    query = select(audit_leaves_table.c.kind)
    return [*await node.desk.ledger.read(lambda c: c.scalars(query).all())]


async def test_attack_41_two_histories_of_one_size_are_proven_within_a_heartbeat(
    street: Street,
) -> None:
    await show(street, 500, 500)
    await street.live(TWO_HEARTBEATS // 2 + UNDER_WAY)
    for node in street.honest:
        assert await convictions(node) == [frozenset(texts(street))]
        assert await debts(node) == []
        assert AuditKind.LOG_FORKED in await kinds(node)


@pytest.mark.parametrize(
    ("manner", "convicted"),
    [
        (Manner(), True),
        (Manner(refused=True), True),
        (Manner(silent=True), True),
        (Manner(silent=True, halted=True), False),
        (Manner(halted=True), False),
    ],
    ids=["answers", "refused", "silent", "silent and halted", "halted"],
)
async def test_attack_41_two_histories_of_two_sizes_are_exposed_within_two_heartbeats(
    street: Street, manner: Manner, convicted: bool
) -> None:
    await show(street, 500, 600)
    street.liar.manner = manner
    await street.live(TWO_HEARTBEATS + UNDER_WAY)
    for node in street.honest:
        assert texts(street) in (await debts(node)) + (await convictions(node))
        assert AuditKind.LOG_UNPROVEN in await kinds(node)
        answer = node.desk.logs.of(EE).answer
        assert answer is None or answer.status == 403
    await street.live(TWO_HEARTBEATS)
    for node in street.honest:
        assert (texts(street) in await convictions(node)) is convicted
        assert (AuditKind.LOG_FORKED in await kinds(node)) is convicted


async def test_attack_41_who_says_that_he_hears_nobody_is_exposed_and_not_convicted(
    street: Street,
) -> None:
    """An honest node that a firewall has made deaf says the same: it is not accused, and not cosigned either."""
    await show(street, 500, 600)
    street.liar.manner = Manner(silent=True, deaf=True)
    await street.live(2 * TWO_HEARTBEATS)
    for node in street.honest:
        assert await debts(node) == [frozenset(texts(street))]
    await street.live(20 * TWO_HEARTBEATS)
    for node in street.honest:
        assert await debts(node) == [frozenset(texts(street))]
        assert await convictions(node) == []
        report = await describe_witnesses(node.desk)
        (owed,) = report["unproven"]  # type: ignore[misc] # the JSON of the report
        assert "does not hear us" in owed["detail"]  # type: ignore[call-overload,index,operator] # the same


async def test_attack_41_a_fork_that_is_shown_while_the_peers_are_cut_off_is_found_out_afterwards(
    street: Street,
) -> None:
    street.cut = True
    await show(street, 500, 600)
    street.liar.manner = Manner(silent=True)
    await street.live(300)
    for node in street.honest:
        assert await debts(node) == []
    street.cut = False
    await street.live(2 * TWO_HEARTBEATS)
    for node in street.honest:
        assert texts(street) in await convictions(node)


@pytest.mark.parametrize("manner", [Manner(), Manner(refused=True)], ids=["answers", "refused"])
async def test_attack_41_a_forked_log_that_grows_is_found_out_and_cosigned_no_further(
    street: Street, manner: Manner
) -> None:
    await show(street, 500, 600)
    street.liar.manner = manner
    for _ in range(4):
        for face in street.liar.faces.values():
            await grow_log(face, 30)
        await street.live(TWO_HEARTBEATS // 2)
    for node in street.honest:
        (stored,) = [
            each.size for each in await rows(node, witnessed_table) if "/ee" in each.origin
        ]
        assert len(await convictions(node)) >= 1
        await grow_log(street.liar.faces[node.desk.nation], 30)
        await street.live(TWO_HEARTBEATS)
        assert stored == max(
            each.size for each in await rows(node, witnessed_table) if "/ee" in each.origin
        )


@pytest.mark.parametrize("size", [400, 500, 700])
async def test_attack_41_another_history_in_requests_that_are_refused_is_found_out_by_one_peer_alone(
    street: Street, size: int
) -> None:
    """It asks from size 0 each time, so that no proof of it is ever looked at."""
    other = street.liar.faces.pop(LV)
    await grow_to(street.liar.faces[FI], 500)
    await grow_to(other, size)
    street.liar.beat_at = 0
    await street.live(TWO_HEARTBEATS)
    first = street.liar.shown[FI][-1]
    street.liar.faces[FI] = other
    street.liar.manner = Manner(refused=True)
    await street.live(3 * TWO_HEARTBEATS)
    pair = {parse_note(each).text for each in (first, street.liar.shown[FI][-1])}
    assert pair in await convictions(street.honest[0])


async def test_doctor_names_what_is_held_against_a_log_and_that_ours_is_halted(
    street: Street, tmp_path: Path
) -> None:
    await show(street, 500, 600)
    street.liar.manner = Manner(halted=True)
    node = street.honest[0]
    await street.live(2 * TWO_HEARTBEATS)

    async def findings() -> list[tuple[str, str]]:
        url = node.desk.ledger._writer.url.render_as_string(hide_password=False)
        database = open_database(url, readers=1)
        try:
            return [(each.level, each.text) for each in check_logs(database)]
        finally:
            database.close()

    ((level, owed),) = await findings()
    assert level == Level.WARN
    assert "owes 1 proofs" in owed
    street.liar.manner = Manner()
    await street.live(2 * TWO_HEARTBEATS)
    await halt(node.desk, LV, "LV holds a checkpoint.", await checkpoint(node.desk))
    (_, halted), (_, forked) = await findings()
    assert "signed no more" in halted
    assert "two histories" in forked


async def test_attack_41_what_a_log_owes_survives_a_restart(street: Street) -> None:
    await show(street, 500, 600)
    street.liar.manner = Manner(silent=True, deaf=True)
    await street.live(2 * TWO_HEARTBEATS)
    for node in street.honest:
        node.desk.logs = Logs()
    street.liar.manner = Manner()
    await street.live(2 * TWO_HEARTBEATS)
    for node in street.honest:
        assert texts(street) in await convictions(node)


@pytest_asyncio.fixture
async def nodes(tmp_path: Path, clock: Clock) -> AsyncIterator[dict[Nation, Node]]:
    urls = {nation: f"sqlite:///{tmp_path / nation}.db" for nation in PARTIES}
    async with running_nodes(urls, federation(), clock) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


Lost = Callable[[Nation, Nation], bool]


async def beats(nodes: dict[Nation, Node], clock: Clock, rounds: int, lost: Lost) -> None:
    """Everybody's log grows a little and everybody beats; what is said from one to another may be lost."""
    for _ in range(rounds):
        for node in nodes.values():
            await grow_log(node, 1)
        for _ in range(4):
            clock.forward(2.5)
            for node in nodes.values():
                await node.beat()
            for node in nodes.values():
                while node.broker.pulses:
                    peer, raw = node.broker.pulses.popleft()
                    if not lost(node.desk.nation, peer):
                        nodes[peer].broker.heard.append((node.desk.nation, raw))


def nothing_lost(sender: Nation, recipient: Nation) -> bool:
    return False


async def nobody_is_accused(nodes: dict[Nation, Node]) -> None:
    for node in nodes.values():
        assert await convictions(node) == []
        assert AuditKind.LOG_FORKED not in await kinds(node)
        assert node.desk.logs.halted == ""


async def nothing_is_owed(nodes: dict[Nation, Node]) -> None:
    for node in nodes.values():
        assert await debts(node) == []
        for peer in nodes:
            assert not any(each.kept for each in node.desk.logs.of(peer).claims.values())
    for node in nodes.values():
        entries = await node.desk.ledger.read(log_size)
        for other in nodes.values():
            if other is not node:
                assert await cosigned(node, other) > entries - 10


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_lost_and_whoever_begins_anew_an_honest_log_is_not_accused(
    nodes: dict[Nation, Node], clock: Clock, seed: int
) -> None:
    lot = random.Random(seed)

    def lost(sender: Nation, recipient: Nation) -> bool:
        return lot.random() < 0.5

    for _ in range(25):
        await beats(nodes, clock, 2, lost)
        nodes[lot.choice([*nodes])].desk.logs = Logs()
    await nobody_is_accused(nodes)
    await beats(nodes, clock, 8, nothing_lost)
    await nobody_is_accused(nodes)
    await nothing_is_owed(nodes)


@pytest.mark.parametrize("deaf", [EE, FI])
async def test_an_honest_log_whose_node_hears_one_peer_no_more_is_not_accused(
    nodes: dict[Nation, Node], clock: Clock, deaf: Nation
) -> None:
    """A firewall on one side: what EE says reaches FI and not the other way, or the reverse."""

    def lost(sender: Nation, recipient: Nation) -> bool:
        return recipient == deaf and {sender, recipient} == {EE, FI}

    await beats(nodes, clock, 4, nothing_lost)
    await beats(nodes, clock, 30, lost)
    await nobody_is_accused(nodes)
    await beats(nodes, clock, 8, nothing_lost)
    await nobody_is_accused(nodes)
    await nothing_is_owed(nodes)


async def test_a_witness_that_was_rolled_back_accuses_nobody(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """What FI has stored of the others' logs is older than they have heard from it."""
    await beats(nodes, clock, 3, nothing_lost)
    before = await rows(nodes[FI], witnessed_table)
    await beats(nodes, clock, 5, nothing_lost)

    def roll_back(tx: Any) -> None:
        for row in before:
            tx.connection.execute(
                update(witnessed_table)
                .where(witnessed_table.c.origin == row.origin)
                .values(size=row.size, note=row.note)
            )

    await nodes[FI].desk.ledger.write(roll_back)
    nodes[FI].desk.logs = Logs()
    await beats(nodes, clock, 8, nothing_lost)
    await nobody_is_accused(nodes)
    await nothing_is_owed(nodes)


async def test_attack_42_a_node_on_an_older_copy_is_halted_and_not_accused_and_goes_on_where_it_was_restored(
    tmp_path: Path, clock: Clock
) -> None:
    urls = {nation: f"sqlite:///{tmp_path / nation}.db" for nation in PARTIES}
    older, newest = tmp_path / "older.db", tmp_path / "newest.db"
    async with running_nodes(
        {each: urls[each] for each in (FI, LV, EE)}, federation(), clock
    ) as nodes:
        others = {each: nodes[each] for each in (FI, LV)}
        await beats(nodes, clock, 3, nothing_lost)
        back_up(tmp_path / "EE.db", older)
        await beats(nodes, clock, 6, nothing_lost)
        back_up(tmp_path / "EE.db", newest)

        async def go_on(database: Path, rounds: int) -> Node:
            shutil.copy(database, tmp_path / "now.db")
            url = f"sqlite:///{tmp_path / 'now.db'}"
            async with running_node(url, PARTIES[EE], federation(), clock) as node:
                await check_stored_log(node.desk)
                node.desk.logs.hold(clock.ms)
                await beats(others | {EE: node}, clock, rounds, nothing_lost)
                return node

        halted = await go_on(older, 12)
        assert "holds a checkpoint that we have signed" in halted.desk.logs.halted
        for node in others.values():
            assert await convictions(node) == []
            assert len(await debts(node)) >= 1
        restored = await go_on(newest, 12)
        assert restored.desk.logs.halted == ""
        for node in others.values():
            assert await convictions(node) == []
            assert await debts(node) == []
            assert AuditKind.LOG_PROVEN in await kinds(node)


async def test_attack_42_a_node_on_an_older_copy_learns_it_from_a_peer_that_has_only_heard_of_the_newer(
    tmp_path: Path, clock: Clock
) -> None:
    """FI has nothing newer of EE's log itself; what LV has told it, it shows EE beside its question."""
    urls = {nation: f"sqlite:///{tmp_path / nation}.db" for nation in PARTIES}
    async with running_nodes(urls, federation(), clock) as nodes:
        others = {each: nodes[each] for each in (FI, LV)}
        await beats(nodes, clock, 3, nothing_lost)
        back_up(tmp_path / "EE.db", tmp_path / "older.db")
        await beats(nodes, clock, 6, lambda *ends: {*ends} == {EE, FI})
        url = f"sqlite:///{tmp_path / 'older.db'}"
        async with running_node(url, PARTIES[EE], federation(), clock) as node:
            await check_stored_log(node.desk)
            node.desk.logs.hold(clock.ms)
            await beats(others | {EE: node}, clock, 4, lambda *ends: {*ends} == {EE, LV})
            assert "FI holds a checkpoint that we have signed" in node.desk.logs.halted
        for other in others.values():
            assert await convictions(other) == []


def back_up(database: Path, to: Path) -> None:
    """What an administrator's backup holds."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(to),))
