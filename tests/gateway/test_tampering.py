"""Attack 47 over every table that bears the log: what is done to a row by hand is named, with the entry, by who verifies offline.

The database of EE is made once: entries that FI and LV have cosigned, and some that came after. Each case changes a copy of
it with sqlite3, takes the export from there, and verifies that with nothing but the fingerprint of the federation.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from support.federation import EE, federation
from support.nodes import Clock, Node, exchange_heartbeats, running_node, running_nodes, settle
from support.tampering import tamper
from varde.auditlog import AuditKind
from varde.evidence import Verdict, verify_export
from varde.order import Fault
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.flow.log.trail import check_stored_log, checkpoint, inclusion
from varde_gateway.flow.review.log_export import LogOwner, stored_lines

FIRST = "(SELECT min(size) FROM audit_checkpoint)"
LAST = "(SELECT max(size) FROM audit_checkpoint)"
COSIGNED, SIGNED = 16, 48
"""How many entries the first and the last checkpoint of ``make`` have; the first one is cosigned."""

NAMED: dict[str, tuple[Sequence[str], Fault, int, int]] = {
    "a leaf is changed": (
        ['UPDATE audit_leaf SET leaf = replace(leaf, \'"op"\', \'"me"\') WHERE "index" = 12'],
        Fault.CHANGED,
        12,
        12,
    ),
    "a hash is changed": (
        ['UPDATE audit_leaf SET hash = zeroblob(32) WHERE "index" = 12'],
        Fault.CHANGED,
        12,
        12,
    ),
    "a leaf and its hash are changed": (
        ["UPDATE audit_leaf SET leaf = '{}', hash = zeroblob(32) WHERE \"index\" = 12"],
        Fault.CHANGED,
        12,
        12,
    ),
    "a hash is no hash": (
        ["UPDATE audit_leaf SET hash = 'text' WHERE \"index\" = 12"],
        Fault.CHANGED,
        12,
        12,
    ),
    "a leaf is deleted": (['DELETE FROM audit_leaf WHERE "index" = 12'], Fault.DELETED, 12, 12),
    "a leaf is deleted and the others moved up": (
        [
            'DELETE FROM audit_leaf WHERE "index" = 12',
            'UPDATE audit_leaf SET "index" = -"index" WHERE "index" > 12',
            'UPDATE audit_leaf SET "index" = -"index" - 1 WHERE "index" < 0',
        ],
        Fault.DELETED,
        12,
        12,
    ),
    "a leaf is inserted": (
        [
            'UPDATE audit_leaf SET "index" = -"index" WHERE "index" > 12',
            'UPDATE audit_leaf SET "index" = -"index" + 1 WHERE "index" < 0',
            'INSERT INTO audit_leaf SELECT 13, kind, at, actor, leaf, hash FROM audit_leaf WHERE "index" = 5',
        ],
        Fault.INSERTED,
        5,
        5,
    ),
    "two leaves are swapped": (
        [
            'UPDATE audit_leaf SET "index" = -1 WHERE "index" = 12',
            'UPDATE audit_leaf SET "index" = 12 WHERE "index" = 13',
            'UPDATE audit_leaf SET "index" = 13 WHERE "index" = -1',
        ],
        Fault.SWAPPED,
        12,
        13,
    ),
    "the end is cut off": (
        ['DELETE FROM audit_leaf WHERE "index" > 20'],
        Fault.TRUNCATED,
        21,
        SIGNED - 1,
    ),
    "all leaves are deleted": (["DELETE FROM audit_leaf"], Fault.TRUNCATED, 0, SIGNED - 1),
    "a checkpoint is changed": (
        [f"UPDATE audit_checkpoint SET note = replace(note, 'e', 'f') WHERE size = {FIRST}"],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "the last checkpoint is changed": (
        [f"UPDATE audit_checkpoint SET note = replace(note, 'e', 'f') WHERE size = {LAST}"],
        Fault.BAD_CHECKPOINT,
        SIGNED,
        SIGNED,
    ),
    "a cosigned checkpoint is deleted": (
        [f"DELETE FROM audit_checkpoint WHERE size = {FIRST}"],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "all checkpoints are deleted": (
        ["DELETE FROM audit_checkpoint"],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "a checkpoint is inserted": (
        [
            f"INSERT INTO audit_checkpoint SELECT 17, note, at FROM audit_checkpoint WHERE size = {LAST}"
        ],
        Fault.BAD_CHECKPOINT,
        17,
        17,
    ),
    "a checkpoint is moved": (
        [f"UPDATE audit_checkpoint SET size = 27 WHERE size = {FIRST}"],
        Fault.BAD_CHECKPOINT,
        27,
        27,
    ),
    "two checkpoints are swapped": (
        [
            f"UPDATE audit_checkpoint SET size = -1 WHERE size = {LAST}",
            f"UPDATE audit_checkpoint SET size = {SIGNED} WHERE size = {COSIGNED}",
            f"UPDATE audit_checkpoint SET size = {COSIGNED} WHERE size = -1",
        ],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "a cosignature is changed": (
        [
            "UPDATE cosignature SET line = substr(line, 1, length(line) - 9) || 'AAAAAAA=' || char(10)"
        ],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "a cosignature is inserted twice": (
        [
            f"INSERT INTO cosignature SELECT size, 'a second', line, at FROM cosignature WHERE size = {COSIGNED} LIMIT 1"
        ],
        Fault.BAD_CHECKPOINT,
        COSIGNED,
        COSIGNED,
    ),
    "cosignatures are moved": (
        ["UPDATE cosignature SET size = size + 1"],
        Fault.BAD_CHECKPOINT,
        COSIGNED + 1,
        COSIGNED + 1,
    ),
    "a roster is changed": (
        ["UPDATE roster SET raw = replace(raw, 'e', 'f')"],
        Fault.BAD_ROSTER,
        0,
        0,
    ),
    "the rosters are deleted": (["DELETE FROM roster"], Fault.BAD_ROSTER, 0, 0),
}
REFUSED = {
    "the end is cut off": "has 21 entries, but a checkpoint of 48 was signed",
    "all leaves are deleted": "has 0 entries, but a checkpoint of 48 was signed",
    "a leaf is deleted and the others moved up": "has 47 entries, but a checkpoint of 48",
    "the last checkpoint is changed": "is not as this node signed it",
    "two checkpoints are swapped": "stands in the place of one of 48",
}
"""Where a node that is started on the database refuses that, what it says."""


async def grow(node: Node, entries: int) -> None:
    for number in range(entries):
        await node.desk.ledger.write(
            lambda tx, number=number: tx.audit(AuditKind.SENT, "op", [("document", f"d{number}")])
        )


async def make(folder: Path) -> None:
    clock = Clock()
    urls = {nation: f"sqlite:///{folder / f'{nation}.db'}" for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as nodes:
        for _ in range(3):
            await grow(nodes[EE], 10)
            await checkpoint(nodes[EE].desk)
            clock.forward(10)
            await exchange_heartbeats([*nodes.values()])
            await settle([*nodes.values()])
            await exchange_heartbeats([*nodes.values()])
        await grow(nodes[EE], 10)
        await checkpoint(nodes[EE].desk)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(make(folder))
    return folder / f"{EE}.db"


class Copy:
    """A copy of the database, without its node."""

    def __init__(self, file: Path) -> None:
        self._engine = create_engine(f"sqlite:///{file}")

    async def read(self, query: Any) -> Any:
        with self._engine.connect() as connection:
            return query(connection)

    def close(self) -> None:
        self._engine.dispose()


async def verified(file: Path) -> Verdict:
    copy = Copy(file)
    owner = LogOwner(EE, federation().id, federation().parties[EE].member.log)
    lines = [line async for text in stored_lines(owner, copy) for line in text.splitlines()]
    copy.close()
    *_, verdict = verify_export(lines, genesis=federation().id)
    assert isinstance(verdict, Verdict)
    return verdict


async def lost(file: Path, statements: Sequence[str]) -> str:
    """Why a node on this copy does not start; empty where it does."""
    party = federation().parties[EE]
    async with running_node(f"sqlite:///{file}", party, federation(), Clock()) as node:
        tamper(file, *statements)
        try:
            await check_stored_log(node.desk)
        except HistoryLost as error:
            return error.found
    return ""


def copy_of(made: Path, folder: Path) -> Path:
    for file in made.parent.glob(f"{EE}.db*"):
        shutil.copy(file, folder / file.name)
    return folder / made.name


@pytest.mark.parametrize("what", NAMED)
@pytest.mark.asyncio
async def test_attack_47_what_is_done_by_hand_to_any_table_is_named_with_its_entry(
    made: Path, tmp_path: Path, what: str
) -> None:
    file = copy_of(made, tmp_path)
    assert (await verified(file)).findings == ()
    statements, *named = NAMED[what]
    tamper(file, *statements)
    found = await verified(file)
    assert named in [[each.fault, each.first, each.last] for each in found.findings]


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.asyncio
async def test_a_node_does_not_start_on_a_log_that_does_not_continue_what_it_has_signed(
    made: Path, tmp_path: Path, what: str
) -> None:
    assert REFUSED[what] in await lost(copy_of(made, tmp_path), NAMED[what][0])


@pytest.mark.asyncio
async def test_without_its_cosignatures_a_log_is_intact_and_not_witnessed_any_more(
    made: Path, tmp_path: Path
) -> None:
    file = copy_of(made, tmp_path)
    before = await verified(file)
    assert before.attested is not None
    assert before.attested.checkpoint.size == COSIGNED
    tamper(file, "DELETE FROM cosignature")
    assert (await verified(file)).attested is None


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE audit_node SET hash = zeroblob(32) WHERE level = 3 AND "index" = 1',
        'DELETE FROM audit_node WHERE level = 3 AND "index" = 1',
    ],
    ids=["changed", "deleted"],
)
@pytest.mark.asyncio
async def test_a_stored_tree_that_was_changed_proves_nothing_and_the_entries_still_verify(
    made: Path, tmp_path: Path, statement: str
) -> None:
    file = copy_of(made, tmp_path)
    party = federation().parties[EE]
    async with running_node(f"sqlite:///{file}", party, federation(), Clock()) as node:
        tamper(file, statement)
        # The hash of entries 8 to 15 is in the proof of every other entry of the first sixteen.
        with pytest.raises(HistoryLost, match="entry 3 "):
            await inclusion(node.desk, 3)
    assert (await verified(file)).findings == ()
