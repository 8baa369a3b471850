"""The stored log: tampering with the database by hand is named by the offline verifier; a forked log stops the node."""

import asyncio
import threading
from pathlib import Path

import pytest

from support.federation import EE, federation
from support.nodes import Clock, Node, grow_log, running_node
from support.tampering import tamper
from varde.checkpoint import open_checkpoint, parse_proof, verify_proof
from varde.encoding import decode_base64url
from varde.evidence import Verdict, verify_export
from varde.order import Fault
from varde_gateway.flow.faults import Invalid, NotFound
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.flow.log.trail import (
    check_stored_log,
    checkpoint,
    consistency,
    inclusion,
    list_entries,
)
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.store.tree import log_size

pytestmark = pytest.mark.asyncio
PARTY = federation().parties[EE]


async def exported(node: Node) -> list[str]:
    text = "".join([chunk async for chunk in export_lines(node.desk, "auditor")])
    return text.splitlines()


def verdict(lines: list[str]) -> Verdict:
    *_, last = verify_export(lines)
    assert isinstance(last, Verdict)
    return last


def url(directory: Path) -> str:
    return f"sqlite:///{directory / 'EE.db'}"


def by_hand(directory: Path, *statements: str) -> None:
    tamper(directory / "EE.db", *statements)


async def test_an_exported_log_verifies(tmp_path: Path) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        await grow_log(node, 30)
        found = verdict(await exported(node))
        assert found.intact
        assert found.signed_entries == found.entries


@pytest.mark.parametrize(
    ("statements", "fault", "first", "last"),
    [
        (
            ['UPDATE audit_leaf SET leaf = replace(leaf, \'"op"\', \'"me"\') WHERE "index" = 12'],
            Fault.CHANGED,
            12,
            12,
        ),
        (['DELETE FROM audit_leaf WHERE "index" = 12'], Fault.DELETED, 12, 12),
        (
            [
                'UPDATE audit_leaf SET "index" = -1 WHERE "index" = 12',
                'UPDATE audit_leaf SET "index" = 12 WHERE "index" = 13',
                'UPDATE audit_leaf SET "index" = 13 WHERE "index" = -1',
            ],
            Fault.SWAPPED,
            12,
            13,
        ),
    ],
    ids=["changed", "deleted", "swapped"],
)
async def test_attack_47_a_row_changed_by_hand_is_named(
    tmp_path: Path, statements: list[str], fault: Fault, first: int, last: int
) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        await grow_log(node, 30)
        await checkpoint(node.desk)
        by_hand(tmp_path, *statements)
        found = [
            (each.fault, each.first, each.last) for each in verdict(await exported(node)).findings
        ]
        assert (fault, first, last) in found


async def test_attack_42_a_log_that_was_cut_or_rewritten_stops_the_node(tmp_path: Path) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        await grow_log(node, 30)
        await checkpoint(node.desk)
        await check_stored_log(node.desk)
        by_hand(tmp_path, "UPDATE audit_node SET hash = zeroblob(32)")
        with pytest.raises(HistoryLost, match="differs"):
            await check_stored_log(node.desk)
        by_hand(tmp_path, 'DELETE FROM audit_leaf WHERE "index" > 20')
        with pytest.raises(HistoryLost, match="restore the newest"):
            await check_stored_log(node.desk)


async def test_an_entry_is_provable_to_who_has_the_logs_key_alone(tmp_path: Path) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        await grow_log(node, 20)
        leaves, _ = await node.desk.ledger.read(
            lambda c: list_entries(c, limit=50, after_index=None)
        )
        for index in (0, 7, 19):
            proof = parse_proof(await inclusion(node.desk, index))
            digest = decode_base64url(leaves[index]["hash"])
            assert verify_proof(proof, digest, node.desk.log_signer.key).size >= 20
        with pytest.raises(NotFound):
            await inclusion(node.desk, 10_000)


async def test_a_consistency_answer_has_the_form_of_a_witness_request(tmp_path: Path) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        await grow_log(node, 20)
        body = await consistency(node.desk, 7)
        assert body.startswith("old 7\n")
        assert (await consistency(node.desk, 0)).startswith("old 0\n\n")
        with pytest.raises(Invalid):
            await consistency(node.desk, 10_000)


async def test_a_checkpoint_is_the_same_until_the_log_grows(tmp_path: Path) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        first = await checkpoint(node.desk)
        assert await checkpoint(node.desk) == first
        await grow_log(node, 1)
        second = open_checkpoint(await checkpoint(node.desk), node.desk.log_signer.key)
        assert second.size == open_checkpoint(first, node.desk.log_signer.key).size + 1


async def test_entries_are_found_by_kind_actor_subject_and_time(tmp_path: Path) -> None:
    clock = Clock()
    async with running_node(url(tmp_path), PARTY, federation(), clock) as node:
        await grow_log(node, 5)
        middle = clock.ms + 1
        clock.forward(10)
        await grow_log(node, 5)

        async def found(**wanted: object) -> int:
            entries, _ = await node.desk.ledger.read(
                lambda c: list_entries(c, limit=50, after_index=None, **wanted)  # type: ignore[arg-type]
            )
            return len(entries)

        assert await found(kind="sent") == 10
        assert await found(actor="op") == 10
        assert await found(actor="nobody") == 0
        assert await found(subject="d3") == 2
        assert await found(kind="sent", from_ms=middle) == 5
        assert await found(kind="sent", until_ms=middle) == 5
        page, following = await node.desk.ledger.read(
            lambda c: list_entries(c, limit=4, after_index=None, kind="sent")
        )
        assert len(page) == 4
        assert following == page[-1]["index"]


async def test_a_checkpoint_is_never_signed_before_its_leaves_are_durable(tmp_path: Path) -> None:
    """Entries and a checkpoint that share one commit: it covers what earlier commits have made durable."""
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        ledger, key = node.desk.ledger, node.desk.log_signer.key
        await checkpoint(node.desk)
        await grow_log(node, 2)
        durable = await ledger.read(log_size)
        busy, go_on = threading.Event(), threading.Event()

        def keep_the_writer(_: object) -> None:
            busy.set()
            assert go_on.wait(30)

        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.write(keep_the_writer))
            await asyncio.to_thread(busy.wait, 30)
            commits = ledger.commits
            group.create_task(grow_log(node, 3))
            signing = group.create_task(checkpoint(node.desk))
            async with asyncio.timeout(30):
                while ledger._steps.qsize() < 2:
                    await asyncio.sleep(0.001)
            go_on.set()
        assert ledger.commits == commits + 2
        assert await ledger.read(log_size) == durable + 3
        assert open_checkpoint(signing.result(), key).size == durable
        assert open_checkpoint(await checkpoint(node.desk), key).size == durable + 3
