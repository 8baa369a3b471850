"""What the nations say of their audit logs in heartbeats: cosign mine, here is yours, this I have seen, prove that.

A log's checkpoints travel with the heartbeats. Each peer verifies that a new one continues the last it has stored, stores
it, and only then cosigns it. The newest checkpoints that a node has verified it passes on, so that a log which shows two
histories to two peers is found out. And a node whose own database was rolled back learns from what the others hold that it
must not go on signing. Protocol section 10.6.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from varde.checkpoint import (
    Checkpoint,
    LogKey,
    format_consistency,
    take_cosignature,
    witness_majority,
)
from varde.errors import VardeError
from varde.exchange import MAX_PROVE, MAX_SEEN, Answer, LogWord
from varde.identifiers import Nation
from varde.merkle import consistency_proof
from varde.note import parse_vkey
from varde.witness import WitnessStatus
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.cosignatures import Cosignature, keep_cosignature
from varde_gateway.flow.log.cosigning import consider, witnessed_notes
from varde_gateway.flow.log.fork_evidence import evidence_notes, unproven
from varde_gateway.flow.log.forks import Considered, compare, read_state, recall_claims, settle
from varde_gateway.flow.log.history import HistoryLost, face
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.log.witness_report import witness_names
from varde_gateway.flow.memory.log_talk import LogTalk, Shown
from varde_gateway.store.tables import AnyRow, checkpoints_table
from varde_gateway.store.tree import read_ahead

MAX_ASKED: Final = 4
_OK: Final = 200

Paths = Mapping[int, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class _Known:
    """``notes`` are those that we pass on, with their origins, the evidence first; ``owed`` is kept of what logs owe."""

    paths: Paths
    notes: Sequence[tuple[str, str]]
    owed: Sequence[AnyRow]


async def speak(desk: Desk, peers: Sequence[Nation]) -> dict[Nation, LogWord]:
    """What the next heartbeat to each peer says about logs."""
    talks = {peer: desk.logs.of(peer) for peer in peers}
    # Before our checkpoint is read: whatever somebody asks about by now, the newest covers.
    heard = {peer: (talk.heard, talk.asked_of_us) for peer, talk in talks.items()}
    try:
        note = await checkpoint(desk)
    except HistoryLost:
        # Who cannot say what its own log is says nothing of logs; the rest of the heartbeat goes on.
        return {peer: LogWord(heard=newest, halted=True) for peer, (newest, _) in heard.items()}
    asked_sizes = {size for _, asked in heard.values() for size in asked}
    newest_own = Shown(read_state(note), note)
    offered = desk.logs.offer(newest_own, max(asked_sizes, default=0), desk.ticks())
    own = offered.checkpoint
    olds = {talk.stored_there for talk in talks.values()} | asked_sizes
    known = await desk.ledger.read(lambda c: _known(c, olds, own.size))
    recall_claims(desk, known.owed)
    words: dict[Nation, LogWord] = {}
    for peer, talk in talks.items():
        newest, asked = heard[peer]
        talk.said = own
        add = _add(talk.stored_there, known.paths, own, offered.note, asked=bool(asked))
        if add is not None:
            # The answer may come after the next question was asked.
            talk.asked = [*(size for size in talk.asked if size != own.size), own.size][-MAX_ASKED:]
        words[peer] = LogWord(
            add=add,
            answer=talk.answer,
            seen=_next_to_tell(talk, _others(desk, peer, known.notes), desk.ticks()),
            prove=tuple(sorted(talk.claims)[:MAX_PROVE]),
            proofs=tuple((old, known.paths[old]) for old in asked if old in known.paths),
            heard=newest,
            halted=bool(desk.logs.halted),
        )
        talk.answer = None
    return words


def note_spoken(desk: Desk, peer: Nation, word: LogWord, sequence: int) -> None:
    """Our heartbeat of this ``sequence`` has said ``word``: from here on the peer can have heard it."""
    desk.logs.of(peer).speak(sequence, word.seen, word.prove, desk.ticks())


async def listen(desk: Desk, peer: Nation, word: LogWord, sequence: int) -> None:
    """Take in what the peer's heartbeat of this ``sequence`` says about logs.

    (1) what it has heard of ours; (2) its new checkpoint: cosign it or say why not; (3) its answer to ours; (4) what it
    has seen of others; (5) its questions; (6) the proofs that we asked it for.
    """
    talk = desk.logs.of(peer)
    talk.hear(word.heard)  # (1)
    key = _log_key(desk, peer)
    considered = Considered()
    if word.add is not None and key is not None:
        talk.answer, considered = await consider(desk, peer, key, word.add)  # (2)
    if word.answer is not None:
        await _take_answer(desk, peer, talk, word.answer)  # (3)
        if word.heard in talk.spoken:
            # What answers a process of before, on another copy of the database perhaps, says nothing of what is held.
            others = len(witness_names(desk.trust.current, desk.nation))
            desk.logs.hear_answer(peer, witness_majority(others + 1))
    for note in word.seen:
        await compare(desk, peer, note)  # (4)
    # Both at once, and after what else it told: who says that he has heard a question has answered it.
    talk.heard, talk.asked_of_us = sequence, word.prove  # (5)
    if key is not None:
        await settle(desk, peer, key.name, word, considered)  # (6)


def _known(connection: Connection, olds: set[int], size: int) -> _Known:
    notes = [*evidence_notes(connection), *witnessed_notes(connection)]
    return _Known(_paths(connection, olds, size), [*dict.fromkeys(notes)], unproven(connection))


def _others(desk: Desk, peer: Nation, notes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    key = _log_key(desk, peer)
    return [(origin, note) for origin, note in notes if key is None or origin != key.name]


def _next_to_tell(talk: LogTalk, notes: Sequence[tuple[str, str]], now: int) -> tuple[str, ...]:
    talk.known_there &= {note for _, note in notes}
    due = [(origin, note) for origin, note in notes if note not in talk.known_there]
    # What was begun is told on until it is heard; then the log of which nothing was said for the longest time.
    due.sort(key=lambda each: (each[1] not in talk.told, talk.turns.get(each[0], 0)))
    newest = max(talk.claims.values(), key=lambda claim: claim.shown.checkpoint.size, default=None)
    # Its own state that it is asked for: a log that has lost history learns by it that it has.
    own = () if newest is None else (newest.shown.note,)
    told = due[: MAX_SEEN - len(own)]
    talk.turns = {origin: talk.turns.get(origin, 0) for origin, _ in notes}
    talk.turns |= {origin: now for origin, _ in told}
    return (*own, *(note for _, note in told))


def _paths(connection: Connection, olds: set[int], size: int) -> dict[int, tuple[bytes, ...]]:
    paths: dict[int, tuple[bytes, ...]] = {}
    for old in olds:
        if old <= size:
            # What a tree with holes cannot prove stays owing, and the peers then alarm.
            with suppress(KeyError):
                paths[old] = _path(connection, old, size)
    return paths


def _path(connection: Connection, old: int, size: int) -> tuple[bytes, ...]:
    if old == 0:
        return ()
    return tuple(read_ahead(connection, lambda read: consistency_proof(old, size, read)))


def _add(stored: int, paths: Paths, own: Checkpoint, note: str, *, asked: bool) -> str | None:
    if own.size == 0 or stored not in paths:
        return None
    if own.size == stored and not asked:
        return None
    # Proofs lead to the checkpoint beside them, also where the peer should have stored it.
    return format_consistency(stored, paths[stored], note)


def _log_key(desk: Desk, nation: Nation) -> LogKey | None:
    member = desk.trust.current.members.get(nation)
    return None if member is None else member.log


async def _take_answer(desk: Desk, peer: Nation, talk: LogTalk, answer: Answer) -> None:
    said = talk.said
    if answer.known is not None:
        await face(desk, peer, answer.known)
    if said is None:
        return
    if answer.status == _OK:
        await _take_cosignature(desk, peer, talk, answer.body)
    elif answer.status == WitnessStatus.OTHER_SIZE:
        text = answer.body.removesuffix("\n")
        if text.isascii() and text.isdigit() and int(text) <= said.size:
            talk.stored_there = int(text)
    else:
        talk.refusal = f"{peer} does not cosign our log (status {answer.status})"


async def _take_cosignature(desk: Desk, peer: Nation, talk: LogTalk, body: str) -> None:
    member = desk.trust.current.members.get(peer)
    if member is None:
        return
    key = parse_vkey(member.witness)
    notes = await desk.ledger.read(lambda c: _own_notes(c, talk.asked))
    for size in sorted(notes, reverse=True):
        try:
            line, at = take_cosignature(notes[size], body, key, desk.now())
        except VardeError as error:
            talk.refusal = f"the cosignature of {peer} is wrong: {error.detail}"
            continue
        if line != body:
            # A line by somebody else is his to give; a wrong one under our checkpoint would spoil it for every verifier.
            talk.refusal = f"the cosignature of {peer} is wrong: its answer is not this one line"
            return
        await keep_cosignature(desk, Cosignature(size, key.name, line, at * 1000))
        talk.refusal = ""
        talk.stored_there = size
        talk.asked = [each for each in talk.asked if each > size]
        return


def _own_notes(connection: Connection, sizes: Sequence[int]) -> dict[int, str]:
    rows = connection.execute(
        select(checkpoints_table.c.size, checkpoints_table.c.note).where(
            checkpoints_table.c.size.in_(sizes)
        )
    )
    return {row.size: row.note for row in rows}
