"""The one writer: durable together, failing apart, and never stopped by who has gone away."""

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import func, insert, select

from support.databases import PostgresCluster
from support.nodes import Clock
from varde.auditlog import AuditKind
from varde.merkle import root_at
from varde_gateway.store.database import Database, migrate, open_database
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.tables import events_table, node_facts_table, peers_table
from varde_gateway.store.transaction import Event, Transaction
from varde_gateway.store.tree import log_size, node_reader

pytestmark = pytest.mark.asyncio


@pytest.fixture
def database(database_url: str) -> Database:
    opened = open_database(database_url)
    migrate(opened)
    return opened


@pytest_asyncio.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with Ledger(
        database.writer, database.reader, now=Clock(), random=secrets.token_bytes
    ) as running:
        yield running
    database.close()


def fact(name: str, value: str = "x") -> dict[str, str]:
    return {"name": name, "value": value}


def note(tx: Transaction, name: str) -> str:
    tx.add(node_facts_table, fact(name))
    tx.audit(AuditKind.SETTINGS_CHANGED, "test", [("fact", name)])
    tx.event("fact", {"name": name})
    return name


async def count(ledger: Ledger) -> int:
    query = select(func.count()).select_from(node_facts_table)
    return int(await ledger.read(lambda c: c.execute(query).scalar_one()))


async def test_many_steps_at_once_are_all_there_in_one_gapless_log(ledger: Ledger) -> None:
    names = [f"n{number}" for number in range(300)]
    assert (
        await asyncio.gather(
            *(ledger.write(lambda tx, name=name: note(tx, name)) for name in names)
        )
        == names
    )
    assert await count(ledger) == 300
    assert await ledger.read(log_size) == 300
    ids = await ledger.read(lambda c: [row.id for row in c.execute(select(events_table.c.id))])
    assert sorted(ids) == list(range(1, 301))


async def test_a_step_that_fails_takes_nothing_of_the_others_with_it(ledger: Ledger) -> None:
    def failing(tx: Transaction) -> None:
        note(tx, "never")
        raise ValueError("no")

    def colliding(tx: Transaction) -> None:
        tx.connection.execute(insert(node_facts_table), fact("n0"))

    answers = await asyncio.gather(
        *(ledger.write(lambda tx, n=n: note(tx, f"n{n}")) for n in range(50)),
        ledger.write(failing),
        *(ledger.write(lambda tx, n=n: note(tx, f"m{n}")) for n in range(50)),
        ledger.write(colliding),
        return_exceptions=True,
    )
    failed = [each for each in answers if isinstance(each, Exception)]
    assert len(failed) == 2
    assert await count(ledger) == 100
    assert await ledger.read(log_size) == 100


async def test_the_same_row_added_by_two_steps_at_once_is_there_once(ledger: Ledger) -> None:
    answers = await asyncio.gather(
        *(ledger.write(lambda tx: note(tx, "same")) for _ in range(20)), return_exceptions=True
    )
    assert answers.count("same") == 1
    assert await count(ledger) == 1
    assert await ledger.read(log_size) == 1


async def test_a_caller_that_went_away_stops_nobody(ledger: Ledger) -> None:
    tasks = [
        asyncio.create_task(ledger.write(lambda tx, n=n: note(tx, f"n{n}"))) for n in range(40)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await ledger.write(lambda tx: note(tx, "after")) == "after"
    assert await count(ledger) >= 21


async def test_listeners_and_callbacks_run_on_the_loop_after_the_commit(ledger: Ledger) -> None:
    heard: list[Event] = []
    called: list[int] = []
    ledger.listen(heard.extend)

    def step(tx: Transaction) -> None:
        note(tx, "a")
        tx.after_commit(lambda: called.append(len(heard)))

    await ledger.write(step)
    await asyncio.sleep(0.01)
    assert [event.kind for event in heard] == ["fact"]
    assert called == [1]


async def test_numbers_per_recipient_have_no_gap_and_survive_a_failing_neighbour(
    ledger: Ledger,
) -> None:
    await ledger.write(lambda tx: tx.add(peers_table, {"nation": "FI", "next_sequence": 1}))

    def take(tx: Transaction) -> int:
        return tx.number("FI", "A" * 43)

    def take_and_fail(tx: Transaction) -> int:
        tx.number("FI", "A" * 43)
        raise ValueError("no")

    answers = await asyncio.gather(
        *(ledger.write(take_and_fail if n % 5 == 2 else take) for n in range(30)),
        return_exceptions=True,
    )
    numbers = sorted(each for each in answers if isinstance(each, int))
    assert numbers == list(range(1, len(numbers) + 1))


async def test_the_stored_tree_gives_the_root_that_the_writer_holds(ledger: Ledger) -> None:
    for number in range(70):
        await ledger.write(lambda tx, number=number: note(tx, f"n{number}"))
    root = await ledger.read(lambda c: root_at(log_size(c), node_reader(c)))
    assert root == ledger._frontier.root()


async def test_what_a_stranger_wrote_into_an_entry_cannot_stop_its_recording(
    ledger: Ledger,
) -> None:
    hostile = "\x00\ud800" + "x" * 100_000
    await ledger.write(
        lambda tx: tx.audit(AuditKind.REFUSED, hostile, [("document", hostile)], hostile)
    )
    assert await ledger.read(log_size) == 1


async def test_a_commit_of_sqlite_that_returned_is_on_the_disk(tmp_path: Path) -> None:
    opened = open_database(f"sqlite:///{tmp_path / 'varde.db'}")
    migrate(opened)
    async with Ledger(opened.writer, opened.reader, now=Clock(), random=secrets.token_bytes) as own:
        await own.write(lambda tx: note(tx, "durable"))
        other = sqlite3.connect(tmp_path / "varde.db")
        assert other.execute("SELECT count(*) FROM node_fact").fetchone() == (1,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()
        synchronous = await own.write(
            lambda tx: tx.connection.exec_driver_sql("PRAGMA synchronous").scalar()
        )
        assert synchronous == 2
    opened.close()


async def test_two_replicas_over_one_postgresql_make_one_gapless_log(
    postgres: PostgresCluster,
) -> None:
    url = postgres.new_database()
    first, second = open_database(url), open_database(url)
    migrate(first)
    options = {"now": Clock(), "random": secrets.token_bytes}
    async with (
        Ledger(first.writer, first.reader, **options) as one,
        Ledger(second.writer, second.reader, **options) as two,
    ):
        await asyncio.gather(
            *(one.write(lambda tx, n=n: note(tx, f"a{n}")) for n in range(100)),
            *(two.write(lambda tx, n=n: note(tx, f"b{n}")) for n in range(100)),
        )
        assert await one.read(log_size) == 200
        await two.write(lambda tx: note(tx, "last"))
        root = await one.read(lambda c: root_at(log_size(c), node_reader(c)))
        assert root == two._frontier.root()
    first.close()
    second.close()


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    database.close()
