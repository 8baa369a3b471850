"""The nations watch one another's logs: what continues is cosigned, what contradicts is kept and alarms everybody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, select, update

from support.federation import EE, FI, LV, NOW, federation, log_signer, seed
from support.nodes import Clock, Node, exchange_heartbeats, running_nodes, settle
from support.sending import send
from support.tampering import remove_guards
from varde.auditlog import AuditKind
from varde.checkpoint import (
    Checkpoint,
    cosigned_at,
    format_consistency,
    open_checkpoint,
    parse_checkpoint,
    witness_majority,
    witnesses_of,
)
from varde.exchange import Answer, LogWord
from varde.identifiers import Nation
from varde.note import NoteSignature, format_signature, parse_note, parse_vkey
from varde_gateway.flow.log_talk import Logs
from varde_gateway.flow.trail import checkpoint
from varde_gateway.flow.witnessing import TELLINGS, listen, speak
from varde_gateway.store.tables import (
    audit_leaves_table,
    audit_nodes_table,
    audit_subjects_table,
    checkpoints_table,
    cosignatures_table,
    log_conflicts_table,
    witnessed_table,
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


async def beats(nodes: dict[Nation, Node], clock: Clock, rounds: int = 2) -> None:
    for _ in range(rounds):
        clock.forward(10)
        await exchange_heartbeats([*nodes.values()])
        await settle([*nodes.values()])


async def rows(node: Node, table: Any) -> list[Any]:
    return [*await node.desk.ledger.read(lambda c: c.execute(select(table)).all())]


async def audit_kinds(node: Node) -> list[str]:
    return [row.kind for row in await rows(node, audit_leaves_table)]


def forked(node: Node, size: int, label: str) -> str:
    """Another history of the node's log, signed with its own key."""
    return node.desk.log_signer.sign_checkpoint(size, seed(label), NOW)


async def test_every_peer_cosigns_what_continues(nodes: dict[Nation, Node], clock: Clock) -> None:
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock, 3)
    lines = await rows(nodes[EE], cosignatures_table)
    assert {line.witness for line in lines} == {
        nodes[each].party.member.witness_name for each in (FI, LV)
    }
    note = {row.size: row.note for row in await rows(nodes[EE], checkpoints_table)}
    for line in lines:
        (witness,) = [
            each.party.member
            for each in nodes.values()
            if each.party.member.witness_name == line.witness
        ]
        assert cosigned_at(note[line.size] + line.line, parse_vkey(witness.witness)) > 0


async def test_a_majority_of_the_others_witnesses_a_checkpoint(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock, 3)
    newest = max(await rows(nodes[EE], cosignatures_table), key=lambda row: row.size)
    note = next(
        row.note for row in await rows(nodes[EE], checkpoints_table) if row.size == newest.size
    )
    lines = [r.line for r in await rows(nodes[EE], cosignatures_table) if r.size == newest.size]
    keys = {each: [parse_vkey(nodes[each].party.member.witness)] for each in nodes}
    found = witnesses_of(note + "".join(lines), keys, EE, clock.ms // 1000)
    assert found == {FI, LV}
    assert len(found) >= witness_majority(len(nodes))


async def test_what_a_witness_has_stored_grows_and_never_shrinks(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    sizes: list[int] = []
    for _ in range(3):
        await send(nodes[EE], FI)
        await settle([*nodes.values()])
        await beats(nodes, clock, 1)
        sizes += [
            row.size
            for row in await rows(nodes[FI], witnessed_table)
            if row.origin == nodes[EE].party.member.log_name
        ]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


async def test_attack_41_two_histories_of_one_size_are_kept_and_alarm_both_peers(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    notes = {
        peer: forked(nodes[EE], 500, label)
        for peer, label in ((FI, "one history"), (LV, "another history"))
    }
    for peer, note in notes.items():
        # What each witness has been made to believe: the attacker owns the log's key and its proofs.
        await nodes[peer].desk.ledger.write(
            lambda tx, n=note: tx.connection.execute(
                update(witnessed_table)
                .where(witnessed_table.c.origin == nodes[EE].party.member.log_name)
                .values(size=500, note=n)
            )
        )
    clock.forward(10)
    await exchange_heartbeats([nodes[FI], nodes[LV]])
    clock.forward(10)
    await exchange_heartbeats([nodes[FI], nodes[LV]])
    for peer in (FI, LV):
        (conflict,) = await rows(nodes[peer], log_conflicts_table)
        assert {conflict.first_note, conflict.second_note} == {*notes.values()}
        assert AuditKind.LOG_FORKED in await audit_kinds(nodes[peer])


async def test_attack_41_two_histories_of_different_sizes_cannot_be_proven_and_alarm(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    hidden = forked(nodes[EE], 3, "what LV was shown")
    await nodes[LV].desk.ledger.write(
        lambda tx: tx.connection.execute(
            update(witnessed_table)
            .where(witnessed_table.c.origin == nodes[EE].party.member.log_name)
            .values(size=3, note=hidden)
        )
    )
    nodes[FI].desk.logs = Logs()  # as after a start
    for _ in range(4):
        await send(nodes[EE], FI)
        await settle([*nodes.values()])
        await beats(nodes, clock, 1)
    for peer in (FI, LV):
        conflicts = await rows(nodes[peer], log_conflicts_table)
        assert any(hidden in (each.first_note, each.second_note) for each in conflicts)
        assert AuditKind.LOG_FORKED in await audit_kinds(nodes[peer])


async def test_a_fork_that_is_signed_or_carried_again_with_other_lines_is_the_same_fork(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    one, other = (forked(nodes[EE], 7, label) for label in "ab")
    junk = format_signature(NoteSignature("nobody.example", b"junk", bytes(40)))
    await listen(nodes[FI].desk, LV, LogWord(seen=(one,)))
    for note in (other, forked(nodes[EE], 7, "b"), other + junk):
        await listen(nodes[FI].desk, LV, LogWord(seen=(note,)))
    (conflict,) = await rows(nodes[FI], log_conflicts_table)
    assert {conflict.first_note, conflict.second_note} == {one, other}


async def test_attack_41_a_fork_without_the_logs_ml_dsa_44_line_accuses_nobody(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """Who has broken Ed25519 alone makes no log look forked, and halts no node."""
    await beats(nodes, clock)
    for label in "ab":
        whole = forked(nodes[EE], 7, label)
        ed25519_alone = whole[: whole.rindex("— ")]
        await listen(nodes[FI].desk, LV, LogWord(seen=(ed25519_alone,)))
        await listen(nodes[EE].desk, LV, LogWord(seen=(ed25519_alone,)))
    assert await rows(nodes[FI], log_conflicts_table) == []
    assert nodes[FI].desk.logs.of(EE).claims == {}
    assert nodes[EE].desk.logs.halted == ""


async def test_a_log_with_two_histories_is_not_cosigned_any_more(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    await listen(nodes[FI].desk, LV, LogWord(seen=(forked(nodes[EE], 7, "a"),)))
    await listen(nodes[FI].desk, LV, LogWord(seen=(forked(nodes[EE], 7, "b"),)))
    assert len(await rows(nodes[FI], log_conflicts_table)) == 1
    before = len(await rows(nodes[EE], cosignatures_table))
    await beats(nodes, clock, 3)
    after = [
        row
        for row in (await rows(nodes[EE], cosignatures_table))[before:]
        if row.witness == nodes[FI].party.member.witness_name
    ]
    assert after == []
    assert "FI" in nodes[EE].desk.logs.of(FI).refusal


async def test_both_sides_of_a_fork_and_the_newest_checkpoint_are_told_in_three_heartbeats_and_no_more(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    fork = {forked(nodes[EE], 7, label) for label in "ab"}
    for note in fork:
        await listen(nodes[FI].desk, LV, LogWord(seen=(note,)))
    newest = {
        row.note
        for row in await rows(nodes[FI], witnessed_table)
        if row.origin == nodes[EE].party.member.log_name
    }
    nodes[FI].desk.logs = Logs()  # nothing was told to anybody yet
    told: Counter[str] = Counter()
    for _ in range(TELLINGS + 2):
        told.update((await speak(nodes[FI].desk, [LV]))[LV].seen)
    assert told == dict.fromkeys(fork | newest, TELLINGS)


async def test_what_no_log_has_signed_proves_nothing(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    stranger = log_signer(nodes[EE].party.member.log_name, "stranger")
    unknown = log_signer("nobody.example", "nobody")
    seen = tuple(each.sign_checkpoint(7, seed("x"), NOW) for each in (stranger, unknown))
    await listen(nodes[FI].desk, LV, LogWord(seen=(*seen, "rubbish")))
    assert nodes[FI].desk.logs.of(EE).claims == {}
    assert await rows(nodes[FI], log_conflicts_table) == []


async def test_attack_42_a_database_that_was_rolled_back_is_not_signed_on(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock, 3)
    newest = max(row.size for row in await rows(nodes[EE], checkpoints_table))

    def roll_back(tx: Any) -> None:
        remove_guards(tx.connection)
        tx.connection.execute(
            delete(checkpoints_table).where(checkpoints_table.c.size > newest - 3)
        )
        tx.connection.execute(
            delete(audit_leaves_table).where(audit_leaves_table.c.index >= newest - 3)
        )
        tx.connection.execute(
            delete(audit_subjects_table).where(audit_subjects_table.c.index >= newest - 3)
        )
        for level in range(1, 40):
            tx.connection.execute(
                delete(audit_nodes_table).where(
                    audit_nodes_table.c.level == level,
                    audit_nodes_table.c.index >= (newest - 3) >> level,
                )
            )

    await nodes[EE].desk.ledger.write(roll_back)
    nodes[EE].desk.logs.of(FI).stored_there = 0
    await beats(nodes, clock)
    assert "holds a checkpoint that we have signed" in nodes[EE].desk.logs.halted
    assert AuditKind.LOG_HALTED in await audit_kinds(nodes[EE])
    signed = open_checkpoint(await checkpoint(nodes[EE].desk), nodes[EE].desk.log_signer.key)
    await send(nodes[EE], FI)
    again = open_checkpoint(await checkpoint(nodes[EE].desk), nodes[EE].desk.log_signer.key)
    assert again == signed


async def test_a_peer_cannot_halt_our_log_with_what_we_have_not_signed(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    stranger = log_signer(nodes[EE].party.member.log_name, "stranger")
    claim = stranger.sign_checkpoint(10_000, seed("x"), NOW)
    await listen(nodes[EE].desk, FI, LogWord(answer=Answer(409, "10000\n", claim)))
    assert nodes[EE].desk.logs.halted == ""


async def test_attack_40_of_two_requests_at_once_one_continues_and_the_other_is_told_the_size(
    nodes: dict[Nation, Node], clock: Clock
) -> None:

    words = await speak(nodes[EE].desk, [FI])
    note = words[FI].add
    assert note is not None
    fresh = LogWord(add=note)
    await asyncio.gather(listen(nodes[FI].desk, EE, fresh), listen(nodes[FI].desk, EE, fresh))
    (stored,) = [
        row
        for row in await rows(nodes[FI], witnessed_table)
        if row.origin == nodes[EE].party.member.log_name
    ]
    answer = nodes[FI].desk.logs.of(EE).answer
    assert answer is not None
    assert (answer.status, answer.body) == (409, f"{stored.size}\n")


async def test_attack_40_what_was_stored_before_a_crash_is_answered_with_its_size(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    words = await speak(nodes[EE].desk, [FI])
    await listen(nodes[FI].desk, EE, words[FI])
    stored = parse_checkpoint(parse_note((words[FI].add or "").partition("\n\n")[2]).text)
    nodes[FI].desk.logs.of(EE).answer = None
    await listen(nodes[FI].desk, EE, words[FI])
    answer = nodes[FI].desk.logs.of(EE).answer
    assert answer is not None
    assert (answer.status, answer.body) == (409, f"{stored.size}\n")
    await listen(nodes[EE].desk, FI, LogWord(answer=answer))
    assert nodes[EE].desk.logs.of(FI).stored_there == stored.size
    assert nodes[EE].desk.logs.halted == ""


async def test_attack_40_a_witness_rolled_back_by_a_few_entries_does_not_cosign_a_fork_unnoticed(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock, 3)
    old, new = 2, 5
    note = forked(nodes[EE], new, "fork")
    request = format_consistency(old, [], note)
    await listen(nodes[FI].desk, EE, LogWord(add=request))
    answer = nodes[FI].desk.logs.of(EE).answer
    assert answer is not None
    assert answer.status == 409


@pytest.mark.parametrize("at", [0, 2**63, 2**64 - 1])
async def test_attack_43_a_cosignature_of_an_impossible_time_is_not_kept(
    nodes: dict[Nation, Node], clock: Clock, at: int
) -> None:
    await speak(nodes[EE].desk, [FI])
    said = nodes[EE].desk.logs.of(FI).said
    assert said is not None
    note = await checkpoint(nodes[EE].desk)
    line = nodes[FI].desk.witness.cosign(note, 5)
    forged = format_signature(replace(line, blob=at.to_bytes(8, "big") + line.blob[8:]))
    await listen(nodes[EE].desk, FI, LogWord(answer=Answer(200, forged, None)))
    assert await rows(nodes[EE], cosignatures_table) == []
    assert "wrong" in nodes[EE].desk.logs.of(FI).refusal


async def test_attack_43_the_logs_owner_does_not_count_among_its_witnesses(
    nodes: dict[Nation, Node],
) -> None:
    note = await checkpoint(nodes[EE].desk)
    own = format_signature(nodes[EE].desk.witness.cosign(note, 5))
    keys = {each: [parse_vkey(nodes[each].party.member.witness)] for each in nodes}
    assert witnesses_of(note + own, keys, EE, 10) == frozenset()


async def test_attack_43_a_cosignature_from_the_future_does_not_count(
    nodes: dict[Nation, Node],
) -> None:
    note = await checkpoint(nodes[EE].desk)
    line = format_signature(nodes[FI].desk.witness.cosign(note, 10_000))
    keys = {each: [parse_vkey(nodes[each].party.member.witness)] for each in nodes}
    assert witnesses_of(note + line, keys, EE, 10) == frozenset()
    assert witnesses_of(note + line, keys, EE, 10_000) == {FI}


async def test_attack_44_a_cosignature_of_one_witness_is_not_taken_as_anothers(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await speak(nodes[EE].desk, [FI, LV])
    note = await checkpoint(nodes[EE].desk)
    line = nodes[FI].desk.witness.cosign(note, 5)
    lv = nodes[LV].desk.witness.key
    renamed = format_signature(replace(line, name=lv.name, key_id=lv.key_id))
    await listen(nodes[EE].desk, LV, LogWord(answer=Answer(200, renamed, None)))
    assert await rows(nodes[EE], cosignatures_table) == []


async def test_attack_45_a_cosignature_for_another_log_or_more_lines_is_not_kept(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await speak(nodes[EE].desk, [FI])
    said = nodes[EE].desk.logs.of(FI).said
    assert said is not None
    other = Checkpoint("another.example/log", said.size, said.root)
    foreign = log_signer(other.origin, "other")
    line = format_signature(
        nodes[FI].desk.witness.cosign(foreign.sign_checkpoint(said.size, said.root, NOW), 5)
    )
    for body in (line, "an extension\n" + line, line + line, ""):
        await listen(nodes[EE].desk, FI, LogWord(answer=Answer(200, body, None)))
    assert await rows(nodes[EE], cosignatures_table) == []


async def test_after_a_start_nothing_is_signed_before_the_peers_have_said_what_they_hold(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    before = await checkpoint(nodes[EE].desk)
    nodes[EE].desk.logs.hold(clock.ms)
    await send(nodes[EE], FI)
    assert await checkpoint(nodes[EE].desk) == before
    await beats(nodes, clock)
    assert await checkpoint(nodes[EE].desk) != before


async def test_a_node_that_nobody_answers_signs_after_two_heartbeats(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    before = await checkpoint(nodes[EE].desk)
    nodes[EE].desk.logs.hold(clock.ms)
    await send(nodes[EE], FI)
    clock.forward(19)
    assert await checkpoint(nodes[EE].desk) == before
    clock.forward(2)
    assert await checkpoint(nodes[EE].desk) != before
