"""The nations watch one another's logs: what continues is cosigned, what contradicts is kept and alarms everybody."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, select

from support.federation import EE, FI, LV, NOW, federation, log_signer, seed
from support.nodes import Clock, Node, exchange_heartbeats, grow_log, running_nodes, settle
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
from varde.evidence import Verdict, verify_export
from varde.exchange import MAX_PROVE, Answer, LogWord
from varde.identifiers import Nation
from varde.note import NoteSignature, format_signature, parse_note, parse_vkey
from varde_gateway.flow.log.fork_evidence import MAX_CONFLICTS
from varde_gateway.flow.log.forks import MAX_CLAIMS_OF_ONE, claim_of
from varde_gateway.flow.log.history import halt
from varde_gateway.flow.log.trail import check_stored_log, checkpoint
from varde_gateway.flow.log.witness_report import witnessed_checkpoint
from varde_gateway.flow.log.witnessing import listen, note_spoken, speak
from varde_gateway.flow.memory.log_talk import Claim, Logs, Shown
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.store.tables import (
    audit_leaves_table,
    audit_nodes_table,
    audit_subjects_table,
    checkpoints_table,
    cosignatures_table,
    log_conflicts_table,
    witnessed_table,
)
from varde_gateway.store.tree import log_size

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


async def say(node: Node, peer: Nation, word: LogWord) -> None:
    """The peer says this to the node, in a heartbeat that comes after all of its before."""
    await listen(node.desk, peer, word, node.desk.logs.of(peer).heard + 1)


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


async def test_a_log_that_never_stands_still_is_witnessed_by_peers_whose_turns_are_apart(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock, 3)
    ee = nodes[EE].desk
    ee.links.of(LV, ee.ticks()).beat_at += 5_000
    for _ in range(8):
        before = await ee.ledger.read(log_size)
        await grow_log(nodes[EE], 3)
        clock.forward(5)
        await exchange_heartbeats([*nodes.values()])
    note = await witnessed_checkpoint(ee)
    assert note is not None
    # What was there three heartbeats ago is witnessed.
    assert parse_checkpoint(parse_note(note).text).size >= before - 18


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


async def test_a_fork_that_is_signed_or_carried_again_with_other_lines_is_the_same_fork(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    one, other = (forked(nodes[EE], 7, label) for label in "ab")
    junk = format_signature(NoteSignature("nobody.example", b"junk", bytes(40)))
    await say(nodes[FI], LV, LogWord(seen=(one,)))
    for note in (other, forked(nodes[EE], 7, "b"), other + junk):
        await say(nodes[FI], LV, LogWord(seen=(note,)))
    (conflict,) = await rows(nodes[FI], log_conflicts_table)
    assert {conflict.first_note, conflict.second_note} == {one, other}


async def test_attack_41_a_fork_without_the_logs_ml_dsa_44_line_accuses_nobody(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """Who has broken Ed25519 alone makes no log look forked, and halts no node."""
    await beats(nodes, clock, 4)
    for label in "ab":
        whole = forked(nodes[EE], 7, label)
        ed25519_alone = whole[: whole.rindex("— ")]
        await say(nodes[FI], LV, LogWord(seen=(ed25519_alone,)))
        await say(nodes[EE], LV, LogWord(seen=(ed25519_alone,)))
    assert await rows(nodes[FI], log_conflicts_table) == []
    assert nodes[FI].desk.logs.of(EE).claims == {}
    assert nodes[EE].desk.logs.halted == ""


async def test_a_log_with_two_histories_is_not_cosigned_any_more(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    await say(nodes[FI], LV, LogWord(seen=(forked(nodes[EE], 7, "a"),)))
    await say(nodes[FI], LV, LogWord(seen=(forked(nodes[EE], 7, "b"),)))
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


async def test_both_sides_of_a_fork_and_the_newest_checkpoint_are_told_until_they_are_heard(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    fork = {forked(nodes[EE], 7, label) for label in "ab"}
    for note in fork:
        await say(nodes[FI], LV, LogWord(seen=(note,)))
    newest = {
        row.note
        for row in await rows(nodes[FI], witnessed_table)
        if row.origin == nodes[EE].party.member.log_name
    }
    nodes[FI].desk.logs = Logs()  # nothing was told to anybody yet
    told: list[set[str]] = []
    for number, heard in ((1, 0), (2, 0), (3, 2), (4, 2), (5, 1)):
        await say(nodes[FI], LV, LogWord(heard=heard))
        word = (await speak(nodes[FI].desk, [LV]))[LV]
        note_spoken(nodes[FI].desk, LV, word, number)
        told.append({*word.seen})
    assert told == [fork | newest, fork | newest, set(), set(), set()]


async def test_what_was_left_out_in_between_counts_as_told_only_when_it_is_told_again(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    talk = Logs().of(LV)
    talk.speak(1, ["a", "b"], [], 0)
    talk.speak(2, ["b"], [], 0)
    talk.hear(2)
    assert talk.known_there == {"b"}
    talk.speak(3, ["a"], [], 0)
    talk.hear(2)
    talk.hear(7)  # of another replica of ours
    assert talk.known_there == {"b"}
    talk.hear(3)
    assert talk.known_there == {"a", "b"}


async def test_what_no_log_has_signed_proves_nothing(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock, 4)
    stranger = log_signer(nodes[EE].party.member.log_name, "stranger")
    unknown = log_signer("nobody.example", "nobody")
    seen = tuple(each.sign_checkpoint(7, seed("x"), NOW) for each in (stranger, unknown))
    await say(nodes[FI], LV, LogWord(seen=(*seen, "rubbish")))
    assert nodes[FI].desk.logs.of(EE).claims == {}
    assert await rows(nodes[FI], log_conflicts_table) == []


async def test_attack_42_a_database_that_was_rolled_back_is_not_signed_on(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await send(nodes[EE], FI)
    await settle([*nodes.values()])
    await beats(nodes, clock, 3)
    await roll_back(nodes[EE], 3)
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
    await say(nodes[EE], FI, LogWord(answer=Answer(409, "10000\n", claim)))
    assert nodes[EE].desk.logs.halted == ""


async def test_attack_40_of_two_requests_at_once_one_continues_and_the_other_is_told_the_size(
    nodes: dict[Nation, Node], clock: Clock
) -> None:

    words = await speak(nodes[EE].desk, [FI])
    note = words[FI].add
    assert note is not None
    fresh = LogWord(add=note)
    await asyncio.gather(say(nodes[FI], EE, fresh), say(nodes[FI], EE, fresh))
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
    await say(nodes[FI], EE, words[FI])
    stored = parse_checkpoint(parse_note((words[FI].add or "").partition("\n\n")[2]).text)
    nodes[FI].desk.logs.of(EE).answer = None
    await say(nodes[FI], EE, words[FI])
    answer = nodes[FI].desk.logs.of(EE).answer
    assert answer is not None
    assert (answer.status, answer.body) == (409, f"{stored.size}\n")
    await say(nodes[EE], FI, LogWord(answer=answer))
    assert nodes[EE].desk.logs.of(FI).stored_there == stored.size
    assert nodes[EE].desk.logs.halted == ""


async def test_attack_40_a_witness_rolled_back_by_a_few_entries_does_not_cosign_a_fork_unnoticed(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock, 3)
    old, new = 2, 5
    note = forked(nodes[EE], new, "fork")
    request = format_consistency(old, [], note)
    await say(nodes[FI], EE, LogWord(add=request))
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
    await say(nodes[EE], FI, LogWord(answer=Answer(200, forged, None)))
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
    await say(nodes[EE], LV, LogWord(answer=Answer(200, renamed, None)))
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
        await say(nodes[EE], FI, LogWord(answer=Answer(200, body, None)))
    assert await rows(nodes[EE], cosignatures_table) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 2), (0, 0), (0, 3)])
async def test_attack_45_no_line_by_anybody_else_is_kept_beside_a_good_one(
    nodes: dict[Nation, Node], clock: Clock, order: tuple[int, int]
) -> None:
    """One hostile peer could have made our log and every piece of evidence fail verification."""
    await speak(nodes[EE].desk, [FI])
    note = await checkpoint(nodes[EE].desk)
    good = nodes[FI].desk.witness.cosign(note, clock.ms // 1000)
    lv = nodes[LV].desk.witness.key
    lines = [
        format_signature(each)
        for each in (
            good,
            replace(good, name=lv.name, key_id=lv.key_id),
            NoteSignature("nobody.example", b"junk", bytes(40)),
            NoteSignature(note.partition("\n")[0], b"junk", bytes(40)),
        )
    ]
    body = "".join(lines[each] for each in order)
    await say(nodes[EE], FI, LogWord(answer=Answer(200, body, None)))
    assert await rows(nodes[EE], cosignatures_table) == []
    assert "wrong" in nodes[EE].desk.logs.of(FI).refusal
    await say(nodes[EE], FI, LogWord(answer=Answer(200, lines[0], None)))
    (kept,) = await rows(nodes[EE], cosignatures_table)
    assert kept.line == lines[0]
    exported = [
        line async for text in export_lines(nodes[EE].desk, "auditor") for line in text.splitlines()
    ]
    *_, verdict = verify_export(exported, genesis=federation().id, now=clock.ms // 1000)
    assert isinstance(verdict, Verdict)
    assert verdict.intact


async def test_attack_43_a_cosignature_from_the_future_is_not_kept(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """No verifier would count it, and we must not say that our log is witnessed by it."""
    await speak(nodes[EE].desk, [FI])
    note = await checkpoint(nodes[EE].desk)
    now = clock.ms // 1000
    for ahead in (301, 300):
        line = format_signature(nodes[FI].desk.witness.cosign(note, now + ahead))
        await say(nodes[EE], FI, LogWord(answer=Answer(200, line, None)))
        assert len(await rows(nodes[EE], cosignatures_table)) == (ahead == 300)
        assert ("ahead" in nodes[EE].desk.logs.of(FI).refusal) == (ahead == 301)


async def test_a_forker_cannot_fill_the_table_of_evidence(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await beats(nodes, clock)
    for number in range(2 * MAX_CONFLICTS):
        for label in "ab":
            note = forked(nodes[EE], 1000 + number, f"{label} {number}")
            await say(nodes[FI], LV, LogWord(seen=(note,)))
            nodes[FI].desk.logs.of(EE).claims.setdefault(1000 + number, Claim(shown(note), LV))
    assert len(await rows(nodes[FI], log_conflicts_table)) == MAX_CONFLICTS


def shown(note: str) -> Shown:
    return Shown(parse_checkpoint(parse_note(note).text), note)


async def test_one_teller_alone_cannot_keep_us_from_asking_about_what_others_have_seen(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    nodes[FI].desk.logs = Logs()
    for number in range(2 * MAX_PROVE):
        await say(nodes[FI], LV, LogWord(seen=(forked(nodes[EE], 1000 + number, "x"),)))
    claims = nodes[FI].desk.logs.of(EE).claims
    assert len(claims) == MAX_CLAIMS_OF_ONE
    await claim_of(nodes[FI].desk, EE, shown(forked(nodes[EE], 5000, "x")), "LT")
    assert len(claims) == MAX_CLAIMS_OF_ONE + 1


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


async def test_after_a_start_an_answer_to_the_process_of_before_says_nothing_of_what_is_held(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """It may have been on another copy of the database."""
    before = await checkpoint(nodes[EE].desk)
    nodes[EE].desk.logs = Logs()
    nodes[EE].desk.logs.hold(clock.ms)
    await send(nodes[EE], FI)
    for peer in (FI, LV):
        await say(nodes[EE], peer, LogWord(answer=Answer(200, "", None), heard=clock.ms - 1))
    assert await checkpoint(nodes[EE].desk) == before


async def roll_back(node: Node, entries: int) -> None:
    """The database is an older copy by so many entries."""
    newest = max(row.size for row in await rows(node, checkpoints_table)) - entries

    def delete_newest(tx: Any) -> None:
        remove_guards(tx.connection)
        tx.connection.execute(delete(checkpoints_table).where(checkpoints_table.c.size > newest))
        for table in (audit_leaves_table, audit_subjects_table):
            tx.connection.execute(delete(table).where(table.c.index >= newest))
        for level in range(1, 40):
            tx.connection.execute(
                delete(audit_nodes_table).where(
                    audit_nodes_table.c.level == level,
                    audit_nodes_table.c.index >= newest >> level,
                )
            )

    await node.desk.ledger.write(delete_newest)


async def halted_by_a_peer(nodes: dict[Nation, Node], clock: Clock) -> str:
    """EE is on an older copy, and has learned it; the checkpoint of before that the peers hold."""
    await beats(nodes, clock)
    older = await checkpoint(nodes[EE].desk)
    await grow_log(nodes[EE], 3)
    held = await checkpoint(nodes[EE].desk)
    await roll_back(nodes[EE], 3)
    assert await checkpoint(nodes[EE].desk) == older
    nodes[EE].desk.logs = Logs()
    await say(nodes[EE], FI, LogWord(answer=Answer(409, "0\n", held)))
    assert nodes[EE].desk.logs.halted
    return held


async def test_attack_42_a_halt_survives_a_start_without_any_peer(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await halted_by_a_peer(nodes, clock)
    before = await checkpoint(nodes[EE].desk)
    nodes[EE].desk.logs = Logs()
    await check_stored_log(nodes[EE].desk)
    assert "FI holds a checkpoint that we have signed" in nodes[EE].desk.logs.halted
    await send(nodes[EE], FI)
    clock.forward(100)
    assert await checkpoint(nodes[EE].desk) == before
    assert (await audit_kinds(nodes[EE])).count(AuditKind.LOG_HALTED) == 1


async def test_attack_42_another_replica_over_the_same_database_signs_no_more_either(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await halted_by_a_peer(nodes, clock)
    before = await checkpoint(nodes[EE].desk)
    nodes[EE].desk.logs = Logs()
    await send(nodes[EE], FI)
    assert await checkpoint(nodes[EE].desk) == before
    assert "FI holds a checkpoint that we have signed" in nodes[EE].desk.logs.halted


async def test_a_halt_ends_at_the_start_at_which_the_log_continues_what_was_signed(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """As where the newest database was put back; here the halt is in it, too."""
    held = await checkpoint(nodes[EE].desk)
    await halt(nodes[EE].desk, FI, "FI holds a checkpoint that we have signed.", held)
    nodes[EE].desk.logs = Logs()
    await check_stored_log(nodes[EE].desk)
    assert nodes[EE].desk.logs.halted == ""
    assert AuditKind.LOG_RESUMED in await audit_kinds(nodes[EE])
    assert await checkpoint(nodes[EE].desk) != held
    nodes[EE].desk.logs = Logs()
    await check_stored_log(nodes[EE].desk)
    assert (await audit_kinds(nodes[EE])).count(AuditKind.LOG_RESUMED) == 1


async def test_a_halted_log_that_was_never_signed_shows_itself_empty(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    """The older copy is from before the first checkpoint."""
    await halted_by_a_peer(nodes, clock)
    await nodes[EE].desk.ledger.write(lambda tx: tx.connection.execute(delete(checkpoints_table)))
    key = nodes[EE].desk.log_signer.key
    assert open_checkpoint(await checkpoint(nodes[EE].desk), key).size == 0


async def test_the_export_of_a_halted_log_says_that_it_was_halted(
    nodes: dict[Nation, Node], clock: Clock
) -> None:
    await halted_by_a_peer(nodes, clock)
    exported = [
        line async for text in export_lines(nodes[EE].desk, "auditor") for line in text.splitlines()
    ]
    assert "log_halted" in "".join(exported)
    *_, verdict = verify_export(exported)
    assert isinstance(verdict, Verdict)
    assert verdict.intact
    assert verdict.entries > verdict.signed_entries
