"""The beacon chain: what does not get through directly goes through whoever is heard by both.

At the sender, a delivery without a receipt for three seconds (thirty on the routine lane) is also given to peers that hear
its recipient. At a nation on the way, what is for another is handed on, still sealed, and logged. Protocol section 8.4.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, Connection, bindparam, case, literal, or_, update

from varde.admission import Admit, Refuse, admit
from varde.auditlog import AuditKind
from varde.encoding import sha256_base64url
from varde.identifiers import DocumentId, Lane, Nation
from varde.opening import Rejection
from varde.signing import Kind
from varde.subjects import outbox_subject, transit_id
from varde.transit import MAX_HOPS, Transit
from varde_gateway.flow.accept import way_in_words
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.links import LinkState
from varde_gateway.flow.outbox import (
    THIS_DELIVERY,
    UNRECEIPTED_KINDS,
    job_of,
    open_deliveries,
    raw_documents,
)
from varde_gateway.flow.outgoing import Job
from varde_gateway.flow.ports import Broker, Carried, Outbound
from varde_gateway.flow.refusals import record_refusal
from varde_gateway.flow.seal import outbound_through, seal_jobs
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import AnyRow, deliveries_table, documents_table
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 0.5
PATIENCE_MS: Final = {Lane.URGENT: 3_000, Lane.ROUTINE: 30_000}
AGAIN_AFTER_MS: Final = 5_000
MAX_TURNS: Final = 60
PASSED_OVER: Final = 20
MAX_REROUTED: Final = 64
"""How many deliveries one round re-routes: a long backlog shall not be sent twice at once."""

WAYS: Final = {Lane.URGENT: 2, Lane.ROUTINE: 1}
RETRY_SECONDS: Final = 1.0

_MARK_REROUTED: Final = (
    update(deliveries_table)
    .where(THIS_DELIVERY)
    .values(rerouted_at=bindparam("moment"), reroutings=bindparam("turn"))
)


async def run_beacon(desk: Desk, broker: Broker) -> None:
    """Re-route for ever what does not get through."""

    async def one_round() -> None:
        await broker.wait_connected()
        await reroute(desk, broker)

    await repeat("beacon", one_round, pause_seconds=CHECK_SECONDS)


async def reroute(desk: Desk, broker: Broker) -> None:
    """Give every delivery that has waited too long for its receipt to peers that hear its recipient."""
    now = desk.now_ms()
    ticks = desk.ticks()
    reachable = {
        peer: ways for peer in desk.trusted_peers() if (ways := desk.links.ways(peer, ticks))
    }
    if not reachable:
        return
    late = await desk.ledger.read(lambda connection: _late(connection, desk, [*reachable], now))
    late = [row for row in late if _is_stuck(desk, row, now)]
    if not late:
        return
    raws = await desk.ledger.read(
        lambda connection: raw_documents(connection, desk, {row.document_id for row in late})
    )
    jobs = [job_of(row, raws[row.document_id]) for row in late]
    sealed, _ = await asyncio.to_thread(seal_jobs, desk, jobs)
    turns = {(row.document_id, row.recipient): row.reroutings for row in late}
    tries: list[tuple[Job, Nation]] = []
    messages: list[Outbound] = []
    for each in sealed:
        ways = reachable[each.job.recipient]
        # Another way each time: one that is heard may still not hand on.
        turn = turns[each.job.key]
        for way in dict.fromkeys(ways[(turn + n) % len(ways)] for n in range(WAYS[each.job.lane])):
            tries.append((each.job, way))
            messages.append(outbound_through(each, way))
    answers = await broker.publish_many(messages)
    taken: dict[Job, list[Nation]] = {}
    for (job, way), answer in zip(tries, answers, strict=True):
        # What our own broker does not take the outbox says, and the next round tries again.
        if answer is None:
            taken.setdefault(job, []).append(way)
    lit = [
        _Rerouted(job.document, job.recipient, job.kind, tuple(through), turns[job.key])
        for job, through in taken.items()
    ]
    if lit:
        await desk.ledger.write(lambda tx: _record_rerouted(tx, lit))


def is_for_another(desk: Desk, carried: Carried) -> bool:
    """Whether we are a nation on the way only."""
    return carried.transit is not None and carried.transit.final != desk.nation


async def hand_on(desk: Desk, broker: Broker, batch: Sequence[Carried]) -> None:
    """Give what is for others to the next nation, log it, and only then tell our own broker.

    The same bytes for the same nation are handed on once; the sender's next attempt is sealed anew.
    """
    judged = await asyncio.to_thread(_judge_all, desk, batch)
    refused = [(refusal, carried) for refusal, carried in judged if isinstance(refusal, Refuse)]
    steps = [(step, carried) for step, carried in judged if isinstance(step, _Step)]
    again = [carried for step, carried in steps if step.key in desk.handed_on]
    fresh = [(step, carried) for step, carried in steps if step.key not in desk.handed_on]
    answers = await broker.publish_many([step.outbound for step, _ in fresh])
    done = [each for each, answer in zip(fresh, answers, strict=True) if answer is None]
    failed = [carried for (_, carried), answer in zip(fresh, answers, strict=True) if answer]
    now = desk.now_ms()
    noted = [
        (carried.link, rejection)
        for refusal, carried in refused
        for rejection in (Rejection(refusal.reason, refusal.detail, None),)
        if desk.refusals.note(carried.link, rejection, now)
    ]
    if done or noted:
        await desk.ledger.write(lambda tx: _record_handed_on(tx, done, noted))
    for step, _ in done:
        desk.handed_on.add(step.key)
    for carried in [*(each for _, each in done), *(each for _, each in refused), *again]:
        await carried.acknowledge()
    for carried in failed:
        await carried.retry_later(RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class _Rerouted:
    document: DocumentId
    recipient: Nation
    kind: Kind
    ways: tuple[Nation, ...]
    turn: int


@dataclass(frozen=True, slots=True)
class _Step:
    document: DocumentId
    sender: Nation
    transit: Transit
    outbound: Outbound
    key: tuple[str, str]


def _judge_all(desk: Desk, batch: Sequence[Carried]) -> list[tuple[_Step | Refuse, Carried]]:
    return [(_judge(desk, each), each) for each in batch]


def _judge(desk: Desk, carried: Carried) -> _Step | Refuse:
    # Our relay has judged it already, and may have been taken over.
    transit = carried.transit
    assert transit is not None
    decision = admit(
        carried.raw,
        lane=carried.lane,
        me=desk.nation,
        link=carried.link,
        trust=desk.trust,
        now=desk.now(),
        transit=transit,
    )
    if not isinstance(decision, Admit):
        return decision
    label = transit.through(desk.nation)
    digest = sha256_base64url(carried.raw)
    target = _next_nation(desk, label, decision.sender)
    outbound = Outbound(
        outbox_subject(target, carried.lane),
        carried.raw,
        transit_id(decision.id, target, label, digest),
        label,
    )
    return _Step(decision.id, decision.sender, label, outbound, (digest, label.final))


def _next_nation(desk: Desk, label: Transit, sender: Nation) -> Nation:
    # The nation itself where it is heard, or where nobody else may still hand it on: it waits in our OUTBOX then.
    ticks, left = desk.ticks(), MAX_HOPS - len(label.hops)
    if desk.links.state(label.final, ticks) is LinkState.LIVE or left <= 0:
        return label.final
    ways = desk.links.ways(label.final, ticks, been={sender, *label.hops}, others=left)
    return ways[0] if ways else label.final


def _is_stuck(desk: Desk, row: AnyRow, now: int) -> bool:
    # Where receipts come over the direct link, a delivery that waits is behind others; sending all of them around as
    # well would make the backlog longer. One that is passed over again and again goes around all the same.
    patience = PATIENCE_MS[Lane(row.lane)]
    ticks, recipient = desk.ticks(), Nation(row.recipient)
    if row.delivered_at is not None:
        # Sent again since the recipient may have lost it: a peer that says so all the time must not fill all links.
        return desk.links.state(recipient, ticks) in {LinkState.SILENT, LinkState.CUT}
    silent_for = ticks - desk.links.of(recipient, ticks).answered_at
    return silent_for >= patience or now - row.queued_at >= PASSED_OVER * patience


def _record_handed_on(
    tx: Transaction,
    done: Sequence[tuple[_Step, Carried]],
    refused: Sequence[tuple[Nation, Rejection]],
) -> None:
    for step, carried in done:
        hops = step.transit.hops
        tx.audit(
            AuditKind.FORWARDED,
            carried.link,
            [("document", step.document)],
            f"{step.sender} to {step.transit.final}{way_in_words(hops)}",
        )
        tx.event(
            "forwarded",
            {
                "id": step.document,
                "from": step.sender,
                "to": step.transit.final,
                "via": [*hops],
            },
        )
    for link, rejection in refused:
        record_refusal(tx, link, rejection)


def _late(
    connection: Connection, desk: Desk, reachable: Sequence[Nation], now: int
) -> Sequence[AnyRow]:
    urgent = deliveries_table.c.lane == Lane.URGENT.value
    # A little longer each time: 5 s, 10 s, 15 s, ... 5 min.
    turns = case(
        (deliveries_table.c.reroutings > MAX_TURNS, MAX_TURNS), else_=deliveries_table.c.reroutings
    )
    pause = turns * AGAIN_AFTER_MS
    patience = case((urgent, PATIENCE_MS[Lane.URGENT]), else_=PATIENCE_MS[Lane.ROUTINE])
    # PostgreSQL would take it for an integer of 32 bits, as what is subtracted is.
    moment = literal(now, BigInteger)
    stuck = open_deliveries(
        desk.nation,
        documents_table.c.expires_at * 1000 > now,
        documents_table.c.kind.not_in([each.value for each in UNRECEIPTED_KINDS]),
        deliveries_table.c.recipient.in_(reachable),
        deliveries_table.c.queued_at <= moment - patience,
        or_(
            deliveries_table.c.rerouted_at.is_(None),
            deliveries_table.c.rerouted_at <= moment - pause,
        ),
    )
    return connection.execute(stuck.limit(MAX_REROUTED)).all()


def _record_rerouted(tx: Transaction, lit: Sequence[_Rerouted]) -> None:
    tx.connection.execute(
        _MARK_REROUTED,
        [
            {
                "key_document": each.document,
                "key_recipient": each.recipient,
                "moment": tx.now,
                "turn": each.turn + 1,
            }
            for each in lit
        ],
    )
    for each in lit:
        tx.audit(
            AuditKind.REROUTED,
            "node",
            [("document", each.document)],
            f"{each.recipient} through {','.join(each.ways)}",
        )
        if each.kind is Kind.ALERT:
            tx.event(
                "rerouted",
                {"id": each.document, "to": each.recipient, "through": [*each.ways]},
            )
