"""The beacon chain at the sender: what does not get through directly goes through whoever is heard by both.

A delivery without a receipt for three seconds (thirty on the routine lane) is also given to peers that hear its
recipient. What these do with it is ``hand_on``. Protocol section 8.4.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, case, literal, or_, update

from varde.auditlog import AuditKind
from varde.identifiers import DocumentId, Lane, Nation
from varde.signing import Kind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.links import LinkState
from varde_gateway.flow.memory.outgoing import Job
from varde_gateway.flow.outbox import (
    THIS_DELIVERY,
    UNRECEIPTED_KINDS,
    is_any_open,
    job_of,
    open_deliveries,
    raw_documents,
)
from varde_gateway.flow.ports import Broker, Outbound
from varde_gateway.flow.seal import outbound_through, seal_jobs
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import deliveries_table, documents_table
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 0.5
PATIENCE_MS: Final = {Lane.URGENT: 3_000, Lane.ROUTINE: 30_000}
"""How long a delivery waits for its receipt before it goes around."""

BEHIND_OTHERS_MS: Final = {Lane.URGENT: 3_000, Lane.ROUTINE: 600_000}
"""The same where receipts come straight, so that a delivery may be behind others only."""

AGAIN_AFTER_MS: Final = 5_000
MAX_TURNS: Final = 60
FEW: Final = 8
"""How many deliveries to a recipient whose receipts come straight one round re-routes, the oldest of them."""

MAX_REROUTED: Final = 64
"""How many deliveries one round re-routes, of each recipient in turn: a long backlog shall not be sent twice at once."""

WAYS: Final = {Lane.URGENT: 2, Lane.ROUTINE: 1}

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
    if not reachable or not await desk.ledger.read(is_any_open):
        return
    silences = {peer: ticks - desk.links.of(peer, ticks).answered_at for peer in reachable}
    stuck = open_deliveries(
        desk.nation,
        *_stuck(desk, silences, now),
        most=MAX_REROUTED,
        few_of=_answering(silences, Lane.URGENT),
        few=FEW,
    )
    late = await desk.ledger.read(lambda connection: connection.execute(stuck).all())
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


@dataclass(frozen=True, slots=True)
class _Rerouted:
    document: DocumentId
    recipient: Nation
    kind: Kind
    ways: tuple[Nation, ...]
    turn: int


def _answering(silences: Mapping[Nation, int], lane: Lane) -> list[Nation]:
    return [peer for peer, silence in silences.items() if silence < PATIENCE_MS[lane]]


def _stuck(desk: Desk, silences: Mapping[Nation, int], now: int) -> list[ColumnElement[bool]]:
    ticks = desk.ticks()
    away = [
        peer
        for peer in silences
        if desk.links.state(peer, ticks) in {LinkState.SILENT, LinkState.CUT}
    ]
    row = deliveries_table.c
    # A little longer each time: 5 s, 10 s, 15 s, ... 5 min.
    turns = case((row.reroutings > MAX_TURNS, MAX_TURNS), else_=row.reroutings)
    # PostgreSQL would take it for an integer of 32 bits, as what is subtracted is.
    moment = literal(now, BigInteger)
    return [
        documents_table.c.expires_at * 1000 > now,
        documents_table.c.kind.not_in([each.value for each in UNRECEIPTED_KINDS]),
        row.recipient.in_(silences),
        or_(row.rerouted_at.is_(None), row.rerouted_at <= moment - turns * AGAIN_AFTER_MS),
        or_(
            *(
                and_(
                    row.lane == lane.value,
                    row.queued_at <= now - patience,
                    _does_not_come(now, lane, away=away, answering=_answering(silences, lane)),
                )
                for lane, patience in PATIENCE_MS.items()
            )
        ),
    ]


def _does_not_come(
    now: int, lane: Lane, *, away: Collection[Nation], answering: Collection[Nation]
) -> ColumnElement[bool]:
    # In the question itself, not over its answer: what only waits must not take the room of what is stuck.
    row = deliveries_table.c
    return or_(
        # Sent again since the recipient may have lost it: a peer that says so all the time must not fill all links.
        and_(row.delivered_at.is_not(None), row.recipient.in_(away)),
        # Where receipts come over the direct link, a delivery that waits is behind others, and sending all of them around as
        # well would make the backlog longer. Or it was lost on a connection that broke, and the receipts are of others: so a
        # few of the urgent ones go around all the same, and of the routine ones those that are passed over again and again.
        and_(
            row.delivered_at.is_(None),
            or_(
                row.recipient.not_in(answering),
                row.queued_at <= now - BEHIND_OTHERS_MS[lane],
            ),
        ),
    )


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
