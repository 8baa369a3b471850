"""What searches go by is no part of the signed log: where somebody changes it by hand, the entry and the fault are named."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from support.alerts import sample_alert
from support.desks import Office
from support.federation import EE, federation
from support.nodes import Clock, Node, running_node
from support.tampering import remove_guards
from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.evidence import Verdict, verify_export
from varde_gateway.cli.database_checks import MAX_NAMED, check_index
from varde_gateway.cli.finding import Finding, Level
from varde_gateway.flow.log.index_check import MAX_TOLD
from varde_gateway.flow.log.index_check import check_index as raise_alarms
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.store.database import open_database
from varde_gateway.store.log_index import IndexFault, checks, find_strays
from varde_gateway.store.review import EntryFilter, Order, Place, find_entries
from varde_gateway.store.transaction import Event
from varde_gateway.store.tree import log_size

GROWN = 60
HERE, LATER = 7, 33
"""Which of the entries that a test has written its statement is about, and another one."""

CHANGED: dict[str, tuple[str, Sequence[IndexFault]]] = {
    "an actor": ("UPDATE audit_leaf SET actor = 'another' WHERE {here}", [IndexFault.ACTOR]),
    "a kind": ("UPDATE audit_leaf SET kind = 'received' WHERE {here}", [IndexFault.KIND]),
    "a time": ("UPDATE audit_leaf SET at = at - 1 WHERE {here}", [IndexFault.TIME]),
    "all of a row": (
        "UPDATE audit_leaf SET kind = 'received', at = 0, actor = 'me' WHERE {here}",
        [IndexFault.KIND, IndexFault.TIME, IndexFault.ACTOR],
    ),
    "subjects that are gone": (
        "DELETE FROM audit_subject WHERE {here}",
        [IndexFault.SUBJECT_MISSING],
    ),
    "a nation that is gone": (
        "DELETE FROM audit_subject WHERE label = 'nation' AND value = 'LV' AND {here}",
        [IndexFault.SUBJECT_MISSING],
    ),
    "another subject": (
        "UPDATE audit_subject SET value = 'x' WHERE label = 'document' AND {here}",
        [IndexFault.SUBJECT_MISSING, IndexFault.SUBJECT_ADDED],
    ),
    "a subject more": (
        "INSERT INTO audit_subject SELECT \"index\", 'nation', 'PL' FROM audit_leaf WHERE {here}",
        [IndexFault.SUBJECT_ADDED],
    ),
    "an entry that is gone": ("DELETE FROM audit_leaf WHERE {here}", [IndexFault.MISSING]),
    "bytes that are no entry": (
        "UPDATE audit_leaf SET leaf = '{{}}' WHERE {here}",
        [IndexFault.UNREADABLE],
    ),
    "bytes of another entry": (
        "UPDATE audit_leaf SET leaf = (SELECT leaf FROM audit_leaf WHERE {later}) WHERE {here}",
        [IndexFault.UNREADABLE],
    ),
    "bytes with another hash": (
        "UPDATE audit_leaf SET leaf = replace(leaf, 'FI,LV', 'FI,LT') WHERE {here}",
        [IndexFault.HASH, IndexFault.SUBJECT_MISSING, IndexFault.SUBJECT_ADDED],
    ),
}
ON_SQLITE = {
    "an actor that is no text": (
        "UPDATE audit_leaf SET actor = CAST(actor AS BLOB) WHERE {here}",
        [IndexFault.ACTOR],
    ),
    "bytes that are no text": (
        "UPDATE audit_leaf SET leaf = CAST(leaf AS BLOB) WHERE {here}",
        [IndexFault.UNREADABLE],
    ),
    "text that is no UTF-8": (
        "UPDATE audit_leaf SET leaf = CAST(x'ff' AS TEXT) WHERE {here}",
        [IndexFault.UNREADABLE],
    ),
}


@dataclass
class Log:
    """A node with a log of some length, and the events it has announced."""

    node: Node
    begin: int
    events: list[Event] = field(default_factory=list)

    async def change(self, statement: str) -> None:
        """Do it by hand, past the guards."""
        places = {
            name: f'"index" = {self.begin + offset}'
            for name, offset in (("here", HERE), ("later", LATER))
        }

        def by_hand(tx: Any) -> None:
            remove_guards(tx.connection)
            tx.connection.execute(text(statement.format(**places)))

        await self.node.desk.ledger.write(by_hand)

    async def alarms(self, batch: int = 200) -> int:
        return await raise_alarms(self.node.desk, batch=batch, pause_seconds=0)

    async def find(self, **wanted: Any) -> list[Any]:
        """The entries that a search finds."""

        def read(connection: Any) -> list[Any]:
            place = Place(None, log_size(connection))
            page = find_entries(
                connection,
                EntryFilter(**wanted),
                Tlp.RED,
                place,
                order=Order.OLDEST,
                limit=1000,
            )
            return page.items

        return await self.node.desk.ledger.read(read)

    async def alarmed(self) -> list[tuple[int, str]]:
        """The entry and the fault of each alarm, which the log and the events say alike."""
        entries = await self.find(kinds=(AuditKind.LOG_INDEX_CHANGED,))
        # Whoever listens is told on the loop: after one more commit everything was said.
        await self.node.desk.ledger.write(lambda tx: tx.event("last", {}))
        told = [each.data for each in self.events if each.kind == "log_index_changed"]
        assert [each["detail"] for each in entries] == [each["detail"] for each in told]
        assert [each["subjects"] for each in entries if each["subjects"]] == [
            [{"label": "entry", "value": str(each["entry"])}]
            for each in told
            if each["entry"] is not None
        ]
        return [
            (each["entry"] - self.begin, each["fault"])
            for each in told
            if isinstance(each["entry"], int)
        ]


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    party = federation().parties[EE]
    async with running_node(database_url, party, federation(), Clock()) as node:
        begin = await node.desk.ledger.read(log_size)

        def grow(tx: Any) -> None:
            for number in range(GROWN):
                subjects = [("document", f"d{number}"), ("digest", "x")]
                tx.audit(AuditKind.SENT, "op", subjects, "FI,LV")

        await node.desk.ledger.write(grow)
        made = Log(node, begin)
        node.desk.ledger.listen(made.events.extend)
        yield made


@pytest.mark.asyncio
async def test_a_log_that_nobody_has_touched_raises_no_alarm(office: Office) -> None:
    order = {"to": ["FI", "LV"], "tlp": "RED", "alert": sample_alert()}
    assert (await office.post("/v1/alerts", "operator", json=order)).status_code == 202
    await office.sign_in("operator.ee", "not the password")
    await office.get("/v1/audit/entries?text=%27", "auditor")
    await office.post("/v1/users/officer.ee/disable", "admin")
    for batch in (1, 7, 200):
        assert await raise_alarms(office.node.desk, batch=batch, pause_seconds=0) == 0
    assert await office.audit("log_index_changed") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("what", CHANGED)
async def test_what_is_changed_by_hand_is_an_alarm_that_names_the_entry_and_the_fault(
    log: Log, what: str
) -> None:
    statement, faults = CHANGED[what]
    await log.change(statement)
    assert await log.alarms(batch=10) == len(faults)
    assert await log.alarmed() == [(HERE, each) for each in faults]


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ON_SQLITE)
async def test_what_sqlite_alone_keeps_is_named_too(tmp_path: Path, what: str) -> None:
    statement, faults = ON_SQLITE[what]
    party = federation().parties[EE]
    async with running_node(
        f"sqlite:///{tmp_path / 'node.db'}", party, federation(), Clock()
    ) as node:
        await node.desk.ledger.write(
            lambda tx: [tx.audit(AuditKind.SENT, "op", []) for _ in range(GROWN)] and None
        )
        log = Log(node, 0)
        node.desk.ledger.listen(log.events.extend)
        await log.change(statement)
        assert await log.alarms() == len(faults)
        assert await log.alarmed() == [(HERE, each) for each in faults]


@pytest.mark.asyncio
async def test_subjects_that_belong_to_no_entry_are_named(log: Log) -> None:
    await log.change("INSERT INTO audit_subject VALUES (-1, 'document', 'x'), (4711, 'a', 'x')")
    found = await log.node.desk.ledger.read(find_strays)
    assert [(each.entry, each.fault) for each in found] == [
        (-1, IndexFault.SUBJECT_ADDED),
        (4711, IndexFault.SUBJECT_ADDED),
    ]
    assert await log.alarms() == 2


@pytest.mark.asyncio
async def test_an_entry_that_searches_do_not_find_any_more_is_in_an_export_that_is_intact(
    log: Log,
) -> None:
    """Why the check is there: nothing else sees it."""
    assert len(await log.find(alert=f"d{HERE}")) == 1
    await log.change(f"DELETE FROM audit_subject WHERE value = 'd{HERE}'")
    await log.change("UPDATE audit_leaf SET actor = 'nobody', kind = 'received' WHERE {here}")
    assert await log.find(alert=f"d{HERE}") == []
    assert len(await log.find(actor="op", kinds=(AuditKind.SENT,))) == GROWN - 1
    lines = "".join([each async for each in export_lines(log.node.desk, "auditor")]).splitlines()
    *_, verdict = verify_export(lines)
    assert isinstance(verdict, Verdict)
    assert verdict.intact
    assert f'"d{HERE}"' in "".join(json.loads(line).get("leaf", "") for line in lines)
    assert await log.alarms() == 3


@pytest.mark.asyncio
async def test_where_everything_was_changed_so_many_are_told_and_the_rest_is_counted(
    log: Log,
) -> None:
    await log.change("UPDATE audit_leaf SET actor = 'nobody'")
    found = await log.alarms(batch=11)
    assert found == log.begin + GROWN
    alarmed = await log.alarmed()
    assert len(alarmed) == MAX_TOLD
    entries = await log.find(kinds=(AuditKind.LOG_INDEX_CHANGED,))
    assert len(entries) == MAX_TOLD + 1
    assert entries[-1]["detail"].startswith(f"{found} faults in all")
    # The alarms are entries like all others, and right.
    assert await log.alarms() == found


@pytest.mark.asyncio
async def test_doctor_names_each_fault_of_the_database_and_what_to_do(
    log: Log, database_url: str
) -> None:
    def found() -> list[Finding]:
        database = open_database(database_url, readers=1)
        try:
            return [*check_index(database)]
        finally:
            database.close()

    size = await log.node.desk.ledger.read(log_size)
    (well,) = found()
    assert (well.level, well.text) == (Level.OK, f"searches find the {size} entries as they are")
    await log.change("UPDATE audit_leaf SET actor = 'another' WHERE {here}")
    (fault,) = found()
    assert (fault.check, fault.level) == ("log index", Level.FAIL)
    assert fault.text == (
        f"entry {log.begin + HERE}: the actor that stands beside it is another one"
    )
    assert "varde audit verify" in fault.advice
    await log.change("UPDATE audit_leaf SET actor = 'another'")
    *named, more = found()
    assert len(named) == MAX_NAMED
    assert more.text == f"{size - MAX_NAMED} more faults"


@given(st.integers(0, 5000), st.integers(1, 700))
def test_the_parts_of_a_check_hold_every_entry_once(size: int, batch: int) -> None:
    parts: list[Any] = [*checks(size, batch)]
    assert parts.pop() is find_strays
    ranges = [(each.keywords["first"], each.keywords["last"]) for each in parts]
    assert [number for first, last in ranges for number in range(first, last + 1)] == [*range(size)]
    assert all(last - first < batch for first, last in ranges)
