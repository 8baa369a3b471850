"""The nations watch one another's audit logs: cosign what continues, keep what contradicts.

A log's checkpoints travel with the heartbeats. Each peer verifies that a new one continues the last it has stored, stores
it, and only then cosigns it. The newest checkpoints that a node has verified it passes on, so that a log which shows two
histories to two peers is found out: both checkpoints are kept, the log is not cosigned any more, everybody is alarmed. And
a node whose own database was rolled back learns from what the others hold that it must not go on signing. Protocol
section 10.6.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection, insert, select, update

from varde.auditlog import AuditKind
from varde.checkpoint import (
    Checkpoint,
    LogKey,
    cosigned_at,
    format_consistency,
    keep_own_lines,
    open_checkpoint,
    parse_checkpoint,
    witness_majority,
)
from varde.encoding import sha256_base64url
from varde.errors import Untrusted, VardeError
from varde.exchange import MAX_PROVE, MAX_SEEN, Answer, LogWord
from varde.identifiers import Nation
from varde.merkle import consistency_proof, root_at, verify_consistency
from varde.note import format_signature, parse_note, parse_vkey
from varde.witness import Cosign, RefuseCheckpoint, WitnessStatus, consider_checkpoint
from varde_gateway.flow.cosignatures import Cosignature, keep_cosignature
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log_talk import Claim, LogTalk
from varde_gateway.flow.trail import HistoryLost, checkpoint, halt
from varde_gateway.store.tables import (
    checkpoints_table,
    log_conflicts_table,
    witnessed_table,
)
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size, read_ahead

PATIENCE_HEARTBEATS: Final = 3
"""How many heartbeats a log may leave a proof owing that it was asked for."""

TELLINGS: Final = 3
"""How often each peer is told of a checkpoint: a heartbeat may be lost."""

MAX_CLAIMS: Final = 8
MAX_ASKED: Final = 4


async def speak(desk: Desk, peers: Sequence[Nation]) -> dict[Nation, LogWord]:
    """What the next heartbeat to each peer says about logs."""
    try:
        note = await checkpoint(desk)
    except HistoryLost:
        # Who cannot say what its own log is says nothing of logs; the rest of the heartbeat goes on.
        return {peer: LogWord() for peer in peers}
    talks = {peer: desk.logs.of(peer) for peer in peers}
    own = parse_checkpoint(parse_note(note).text)
    asked = {peer: talk.asked_of_us for peer, talk in talks.items()}
    olds = {talk.stored_there for talk in talks.values()}
    olds |= {size for sizes in asked.values() for size in sizes}
    paths, seen = await desk.ledger.read(lambda c: (_paths(c, olds, own.size), _seen(c)))
    words: dict[Nation, LogWord] = {}
    for peer, talk in talks.items():
        talk.said = own
        key = _log_key(desk, peer)
        others = [note for origin, note in seen if key is None or origin != key.name]
        told = _next_to_tell(talk, others)
        add = _add(talk.stored_there, paths, own, note)
        if add is not None:
            # The answer may come after the next question was asked.
            talk.asked = [*(size for size in talk.asked if size != own.size), own.size][-MAX_ASKED:]
        words[peer] = LogWord(
            add=add,
            answer=talk.answer,
            seen=told,
            prove=tuple(sorted(talk.claims)[:MAX_PROVE]),
            proofs=tuple((old, paths[old]) for old in asked[peer] if old in paths),
        )
        talk.answer = None
        talk.asked_of_us = ()
    return words


async def listen(desk: Desk, peer: Nation, word: LogWord) -> None:
    """Take in what a peer's heartbeat says about logs.

    (1) its new checkpoint: cosign it or say why not; (2) its answer to ours; (3) what it has seen of others; (4) the
    proofs that we asked it for.
    """
    talk = desk.logs.of(peer)
    newest: Checkpoint | None = None
    if word.add is not None:
        newest = await _consider(desk, peer, talk, word.add)  # (1)
    if word.answer is not None:
        await _take_answer(desk, peer, talk, word.answer)  # (2)
    for note in word.seen:
        await _compare(desk, peer, note)  # (3)
    talk.asked_of_us = tuple(size for size in word.prove if talk.said and size <= talk.said.size)
    if newest is not None:
        note = _note_in(word.add or "")
        await _settle_claims(desk, peer, newest, dict(word.proofs), note)  # (4)


async def add_checkpoint(desk: Desk, request: bytes) -> Answer:
    """Answer tlog-witness ``add-checkpoint`` as it came by HTTP: for the log of any member but ourselves."""
    keys = {
        member.log_name: (nation, member.log)
        for nation, member in desk.trust.current.members.items()
        if nation != desk.nation
    }
    origin = _origin_in(request)
    if origin not in keys:
        status = WitnessStatus.MALFORMED if origin is None else WitnessStatus.UNKNOWN_LOG
        return Answer(status.value, "", None)
    nation, key = keys[origin]
    text = request.decode()
    decision, stored = await desk.ledger.write(lambda tx: _consider_durably(tx, text, key, nation))
    return _answer(desk, decision, stored)


async def witnessed_note(desk: Desk, origin_digest: str) -> str | None:
    """The newest checkpoint that we have stored for the log whose origin has this SHA-256 (hexadecimal)."""
    rows = await desk.ledger.read(_witnessed)
    for origin, note in rows:
        if hashlib.sha256(origin.encode()).hexdigest() == origin_digest:
            return note
    return None


def _origin_in(request: bytes) -> str | None:
    try:
        return parse_checkpoint(parse_note(_note_in(request.decode())).text).origin
    except (UnicodeDecodeError, VardeError):
        return None


def _note_in(request: str) -> str:
    return request.partition("\n\n")[2]


def _answer(desk: Desk, decision: Cosign | RefuseCheckpoint, stored: str | None) -> Answer:
    if isinstance(decision, RefuseCheckpoint):
        other_size = decision.status is WitnessStatus.OTHER_SIZE
        body = f"{decision.known_size}\n" if other_size else ""
        return Answer(decision.status.value, body, stored)
    desk.logs.verify(decision.checkpoint)
    # What was stored is durable by now, and is never cosigned in another form after a crash.
    return Answer(200, format_signature(desk.witness.cosign(decision.note, desk.now())), None)


def _next_to_tell(talk: LogTalk, notes: Sequence[str]) -> tuple[str, ...]:
    # The least told first; and what is told no more may be forgotten.
    talk.told = {note: talk.told.get(note, 0) for note in notes}
    due = [note for note in notes if talk.told[note] < TELLINGS]
    told = tuple(sorted(due, key=lambda note: talk.told[note])[:MAX_SEEN])
    for note in told:
        talk.told[note] += 1
    return told


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


def _witnessed(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(select(witnessed_table.c.origin, witnessed_table.c.note))
    return [(row.origin, row.note) for row in rows]


def _seen(connection: Connection) -> list[tuple[str, str]]:
    seen = _witnessed(connection)
    for row in connection.execute(select(log_conflicts_table)):
        # Both sides of a contradiction, so that whoever has seen either can find it out himself.
        seen += [(row.origin, row.first_note), (row.origin, row.second_note)]
    return [*dict.fromkeys(seen)]


def _add(
    stored: int, paths: Mapping[int, tuple[bytes, ...]], own: Checkpoint, note: str
) -> str | None:
    if own.size in {0, stored} or stored not in paths:
        return None
    return format_consistency(stored, paths[stored], note)


def _log_key(desk: Desk, nation: Nation) -> LogKey | None:
    member = desk.trust.current.members.get(nation)
    return None if member is None else member.log


async def _consider(desk: Desk, peer: Nation, talk: LogTalk, request: str) -> Checkpoint | None:
    key = _log_key(desk, peer)
    if key is None:
        return None
    decision, stored = await desk.ledger.write(lambda tx: _consider_durably(tx, request, key, peer))
    talk.answer = _answer(desk, decision, stored)
    return None if isinstance(decision, RefuseCheckpoint) else decision.checkpoint


def _consider_durably(
    tx: Transaction, request: str, key: LogKey, peer: Nation
) -> tuple[Cosign | RefuseCheckpoint, str | None]:
    stored = tx.connection.scalar(
        select(witnessed_table.c.note).where(witnessed_table.c.origin == key.name)
    )
    if _has_conflict(tx.connection, key.name):
        detail = "this log has signed two histories and is not cosigned any more"
        return RefuseCheckpoint(WitnessStatus.UNSIGNED, detail), stored
    try:
        known = {} if stored is None else {key.name: open_checkpoint(stored, key)}
    except VardeError as error:
        detail = f"what is stored here of this log is not what it signed: {error.detail}"
        return RefuseCheckpoint(WitnessStatus.UNSIGNED, detail), None
    decision = consider_checkpoint(request.encode(), {key.name: key}, known)
    if isinstance(decision, Cosign):
        row = {"size": decision.checkpoint.size, "note": decision.note, "at": tx.now}
        if stored is None:
            tx.connection.execute(insert(witnessed_table), {"origin": key.name, **row})
        else:
            tx.connection.execute(
                update(witnessed_table).where(witnessed_table.c.origin == key.name).values(**row)
            )
    elif stored is not None and decision.status in _CONTRADICTIONS:
        _record_contradiction(tx, key, peer, stored, _note_in(request), decision)
    return decision, stored


_CONTRADICTIONS: Final = frozenset({WitnessStatus.OTHER_SIZE, WitnessStatus.INCONSISTENT})


def _record_contradiction(  # noqa: PLR0917 -- the parts of one finding
    tx: Transaction,
    key: LogKey,
    peer: Nation,
    stored: str,
    note: str,
    decision: RefuseCheckpoint,
) -> None:
    before, now = open_checkpoint(stored, key), open_checkpoint(note, key)
    note = keep_own_lines(note, key)
    if before.size == now.size and before.root != now.root:
        record_conflict(tx, peer, stored, note, f"two checkpoints of {now.size} entries")
    elif decision.status is WitnessStatus.INCONSISTENT:
        record_conflict(
            tx, peer, stored, note, f"{now.size} entries do not continue {before.size} entries"
        )


def record_conflict(tx: Transaction, nation: Nation, first: str, second: str, detail: str) -> None:
    """Keep both checkpoints of ``nation`` for ever and raise the alarm, once for each pair."""
    # Of what was signed: the same two states come with other lines each time they are signed or carried.
    texts = sorted(parse_note(each).text for each in (first, second))
    digest = sha256_base64url("\0".join(texts).encode())
    known = tx.connection.scalar(
        select(log_conflicts_table.c.digest).where(log_conflicts_table.c.digest == digest)
    )
    if known is not None:
        return
    origin = parse_checkpoint(parse_note(first).text).origin
    tx.connection.execute(
        insert(log_conflicts_table),
        {
            "digest": digest,
            "origin": origin,
            "first_note": first,
            "second_note": second,
            "detail": detail,
            "at": tx.now,
        },
    )
    tx.audit(AuditKind.LOG_FORKED, nation, [("conflict", digest)], detail)
    tx.event("log_forked", {"nation": nation, "detail": detail, "conflict": digest})


def _has_conflict(connection: Connection, origin: str) -> bool:
    found = connection.scalar(
        select(log_conflicts_table.c.digest).where(log_conflicts_table.c.origin == origin).limit(1)
    )
    return found is not None


async def _take_answer(desk: Desk, peer: Nation, talk: LogTalk, answer: Answer) -> None:
    said = talk.said
    if answer.known is not None:
        await _compare_own(desk, peer, answer.known)
    desk.logs.hear_answer(peer, witness_majority(len(desk.trust.current.voters())))
    if said is None:
        return
    if answer.status == 200:  # noqa: PLR2004 -- HTTP's OK, as tlog-witness has it
        await _keep_cosignature(desk, peer, talk, answer.body)
    elif answer.status == WitnessStatus.OTHER_SIZE:
        text = answer.body.removesuffix("\n")
        if text.isascii() and text.isdigit() and int(text) <= said.size:
            talk.stored_there = int(text)
    else:
        talk.refusal = f"{peer} does not cosign our log (status {answer.status})"


async def _keep_cosignature(desk: Desk, peer: Nation, talk: LogTalk, line: str) -> None:
    member = desk.trust.current.members.get(peer)
    if member is None:
        return
    key = parse_vkey(member.witness)
    notes = await desk.ledger.read(lambda c: _own_notes(c, talk.asked))
    for size in sorted(notes, reverse=True):
        try:
            at = cosigned_at(notes[size] + line, key)
        except VardeError as error:
            talk.refusal = f"the cosignature of {peer} is wrong: {error.detail}"
            continue
        await keep_cosignature(desk, Cosignature(size, key.name, line, at * 1000))
        talk.refusal = ""
        talk.stored_there = size
        talk.asked = [each for each in talk.asked if each > size]
        return


async def _compare_own(desk: Desk, peer: Nation, note: str) -> None:
    # Signed by our own log key: what we have signed once, we must still be able to continue.
    try:
        signed = open_checkpoint(note, desk.log_signer.key)
    except VardeError:
        return
    detail = await desk.ledger.read(lambda c: _missing_history(c, signed))
    if detail is not None:
        await halt(desk, peer, f"{peer} holds a checkpoint that we have signed: {detail}")


def _missing_history(connection: Connection, signed: Checkpoint) -> str | None:
    size = log_size(connection)
    if signed.size > size:
        return f"{signed.size} entries, ours has {size}; the database is an older copy"
    try:
        root = read_ahead(connection, lambda read: root_at(signed.size, read))
    except KeyError:
        return f"{signed.size} entries, and in our tree hashes of them are missing"
    return None if root == signed.root else f"{signed.size} entries with another root than ours"


async def _compare(desk: Desk, by: Nation, note: str) -> None:
    opened = _open_seen(desk, note)
    if opened is None:
        return
    owner, claimed, own_lines = opened
    if owner == desk.nation:
        await _compare_own(desk, by, note)
    elif not desk.logs.is_verified(claimed):
        await _compare_other(desk, by, owner, claimed, own_lines)


def _open_seen(desk: Desk, note: str) -> tuple[Nation, Checkpoint, str] | None:
    try:
        origin = parse_checkpoint(parse_note(note).text).origin
        for member in desk.trust.current.members.values():
            if member.log_name == origin:
                checkpoint = open_checkpoint(note, member.log)
                return member.nation, checkpoint, keep_own_lines(note, member.log)
    except VardeError:
        # Whoever passes on what no log has signed proves nothing by it.
        return None
    return None


async def _compare_other(
    desk: Desk, by: Nation, owner: Nation, claimed: Checkpoint, note: str
) -> None:
    talk = desk.logs.of(owner)
    other = talk.claims.get(claimed.size)
    stored = await desk.ledger.read(lambda c: _stored_note(c, claimed.origin))
    for known in filter(None, (stored, None if other is None else other.note)):
        seen = parse_checkpoint(parse_note(known).text)
        if seen == claimed:
            return
        if seen.size == claimed.size:
            detail = f"two checkpoints of {claimed.size} entries, one seen by {by}"
            await _alarm(desk, owner, known, note, detail)
            return
    if len(talk.claims) < MAX_CLAIMS:
        talk.claims[claimed.size] = Claim(claimed, note, by)


async def _settle_claims(
    desk: Desk,
    nation: Nation,
    newest: Checkpoint,
    proofs: Mapping[int, tuple[bytes, ...]],
    newest_note: str,
) -> None:
    talk = desk.logs.of(nation)
    for size, claim in [*talk.claims.items()]:
        if size > newest.size:
            owed = f"{size} entries as seen by {claim.by}, but {newest.size} here"
        elif size not in proofs and claim.checkpoint != newest:
            owed = f"no proof that {newest.size} entries continue {size} as seen by {claim.by}"
        else:
            owed = ""
        if owed:
            claim.heartbeats += 1
            if claim.heartbeats < PATIENCE_HEARTBEATS:
                continue
        del talk.claims[size]
        if not owed and _continues(claim.checkpoint, newest, proofs.get(size, ())):
            desk.logs.verify(claim.checkpoint)
            continue
        broken = f"{newest.size} entries do not continue {size} as seen by {claim.by}"
        await _alarm(desk, nation, claim.note, newest_note, owed or broken)


def _continues(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> bool:
    try:
        verify_consistency(old.size, new.size, old.root, new.root, path)
    except Untrusted:
        return False
    return True


async def _alarm(desk: Desk, nation: Nation, first: str, second: str, detail: str) -> None:
    await desk.ledger.write(lambda tx: record_conflict(tx, nation, first, second, detail))


def _stored_note(connection: Connection, origin: str) -> str | None:
    note: str | None = connection.scalar(
        select(witnessed_table.c.note).where(witnessed_table.c.origin == origin)
    )
    return note


def _own_notes(connection: Connection, sizes: Sequence[int]) -> dict[int, str]:
    rows = connection.execute(
        select(checkpoints_table.c.size, checkpoints_table.c.note).where(
            checkpoints_table.c.size.in_(sizes)
        )
    )
    return {row.size: row.note for row in rows}
