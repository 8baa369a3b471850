"""The third step: what was committed is sealed for its recipient and given to our broker.

The database decides what is open; the broker's acknowledgement moves a delivery to ``sent`` and no further. Until the
recipient's signed receipt is here, the delivery is tried again whenever the broker no longer holds it. A delivery
without a live prekey waits visibly and goes when the prekeys arrive.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from varde.auditlog import AuditKind
from varde.identifiers import DocumentId, Lane, Nation
from varde.signing import Kind
from varde.subjects import message_id, outbox_subject
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.outgoing import Job
from varde_gateway.flow.ports import Broker, Outbound
from varde_gateway.flow.seal import outbound_through, prekey_for, seal_jobs
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import AnyRow, deliveries_table, documents_table
from varde_gateway.store.transaction import Transaction

BATCH: Final = 64
SWEEP_SECONDS: Final = 1.0
RECORD_AFTER_SECONDS: Final = 0.04
MAX_BACKOFF_SECONDS: Final = 300
MAX_DUE: Final = 1024
UNRECEIPTED_KINDS: Final = frozenset({Kind.RECEIPT, Kind.HEARTBEAT, Kind.CHECKPOINT})
"""A receipt for a receipt would never end; a lost one is asked for by the document coming again."""
NO_LIVE_PREKEY: Final = "no live prekey"
SUSPENDED: Final = "suspended by this nation"


_ANY_OPEN: Final = select(deliveries_table.c.document_id).where(deliveries_table.c.open).limit(1)
THIS_DELIVERY: Final = and_(
    deliveries_table.c.document_id == bindparam("key_document"),
    deliveries_table.c.recipient == bindparam("key_recipient"),
)
# The receipt may have overtaken this record: a state never goes backwards, an open delivery may close.
_MARK_SENT: Final = (
    update(deliveries_table)
    .where(THIS_DELIVERY)
    .values(
        state=case((deliveries_table.c.state == "queued", "sent"), else_=deliveries_table.c.state),
        open=and_(deliveries_table.c.open, bindparam("still_open", type_=Boolean)),
        sent_at=case(
            (
                or_(
                    deliveries_table.c.sent_at.is_(None),
                    deliveries_table.c.sent_at > bindparam("moment"),
                ),
                bindparam("moment"),
            ),
            else_=deliveries_table.c.sent_at,
        ),
        attempts=deliveries_table.c.attempts + 1,
        next_attempt_at=bindparam("following"),
        stale_prekey=bindparam("stale"),
        last_error=None,
    )
)
_MARK_WAITING: Final = (
    update(deliveries_table)
    .where(THIS_DELIVERY)
    .values(last_error=bindparam("failure"), next_attempt_at=bindparam("following"))
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt: given to our broker at ``at`` (Unix milliseconds), or why not."""

    job: Job
    stale: bool
    failure: str | None
    at: int


async def run_outbox(desk: Desk, broker: Broker) -> None:
    """Deliver for ever; survives a broker that is away."""
    await reopen_queued(desk)
    loop = asyncio.get_running_loop()
    sweep_due = loop.time()
    outcomes: asyncio.Queue[list[Outcome]] = asyncio.Queue()

    async def publish_round() -> None:
        nonlocal sweep_due
        if not broker.connected():
            await broker.wait_connected()
            # What our own broker did not take while it was away is due now, not at its next turn.
            await reopen_queued(desk)
            desk.outgoing.wake()
        if desk.outgoing.asked_to_look() or loop.time() >= sweep_due:
            await sweep(desk, broker)
            sweep_due = loop.time() + SWEEP_SECONDS
        jobs = await desk.outgoing.take(BATCH, SWEEP_SECONDS)
        if jobs:
            outcomes.put_nowait(await publish(desk, broker, jobs))

    async def record_round() -> None:
        collected = await outcomes.get()
        # A commit now would stand before the recipients' receipts and the next alert at the disk; until it is made, a
        # crash only means that the delivery is published once more.
        await asyncio.sleep(RECORD_AFTER_SECONDS)
        while not outcomes.empty():
            collected += outcomes.get_nowait()
        await record(desk, collected)

    async with asyncio.TaskGroup() as group:
        group.create_task(repeat("outbox", publish_round, pause_seconds=0))
        group.create_task(repeat("outbox-record", record_round, pause_seconds=0))


async def publish(desk: Desk, broker: Broker, jobs: Sequence[Job]) -> list[Outcome]:
    """Seal one batch and give it to the broker; what came of each, to be recorded.

    Where that fails as a whole, the batch is done with for now: the sweep finds it in the database again.
    """
    try:
        return await _publish(desk, broker, jobs)
    except BaseException:
        desk.outgoing.finish(jobs)
        raise


async def _publish(desk: Desk, broker: Broker, jobs: Sequence[Job]) -> list[Outcome]:
    suspended = [job for job in jobs if job.recipient in desk.trust.suspended]
    allowed = [job for job in jobs if job.recipient not in desk.trust.suspended]
    sealed, waiting = await asyncio.to_thread(seal_jobs, desk, allowed)
    direct = [
        Outbound(
            outbox_subject(each.job.recipient, each.job.lane),
            each.raw,
            message_id(each.job.document, each.job.recipient, each.job.attempt),
        )
        for each in sealed
    ]
    beside = [
        outbound_through(each, each.job.through) for each in sealed if each.job.through is not None
    ]
    # What goes beside the direct link is not waited for by anybody: only the direct answers count.
    answers = (await broker.publish_many([*direct, *beside]))[: len(direct)]
    now = desk.now_ms()
    return [
        *(
            Outcome(each.job, each.stale, None if answer is None else answer.detail, now)
            for each, answer in zip(sealed, answers, strict=True)
        ),
        *(Outcome(job, False, NO_LIVE_PREKEY, now) for job in waiting),
        *(Outcome(job, False, SUSPENDED, now) for job in suspended),
    ]


async def record(desk: Desk, outcomes: Sequence[Outcome]) -> None:
    """Record what came of deliveries; from then on the sweep may find them again."""
    try:
        await desk.ledger.write(lambda tx: _record_outcomes(tx, desk, outcomes))
    finally:
        desk.outgoing.finish(outcome.job for outcome in outcomes)


async def sweep(desk: Desk, broker: Broker) -> None:
    """Find due deliveries in the database: give up the expired, leave those that the broker still holds, retry the rest."""
    if not await desk.ledger.read(is_any_open):
        return
    now = desk.now_ms()
    due = await desk.ledger.read(lambda connection: _due(connection, desk.nation, now))
    if not due:
        return
    expired = [row for row in due if row.expires_at * 1000 <= now]
    if expired:
        await desk.ledger.write(lambda tx: _give_up(tx, expired))
    held: list[AnyRow] = []
    retry: list[AnyRow] = []
    backlog: dict[tuple[str, str], int] = {}
    for row in due:
        if row.expires_at * 1000 <= now:
            continue
        lane_of_peer = (row.recipient, row.lane)
        if row.state == "sent" and lane_of_peer not in backlog:
            backlog[lane_of_peer] = await broker.backlog(Nation(row.recipient), Lane(row.lane))
        (held if row.state == "sent" and backlog[lane_of_peer] else retry).append(row)
    if held:
        await desk.ledger.write(lambda tx: _postpone(tx, desk, held))
    if retry:
        keys = [(row.document_id, row.recipient) for row in retry]
        raws = await desk.ledger.read(
            lambda connection: raw_documents(connection, desk, {key[0] for key in keys})
        )
        desk.outgoing.offer(job_of(row, raws[row.document_id]) for row in retry)


def _record_outcomes(tx: Transaction, desk: Desk, outcomes: Sequence[Outcome]) -> None:
    sent: list[dict[str, object]] = []
    kept: list[dict[str, object]] = []
    for outcome in outcomes:
        job = outcome.job
        row: dict[str, object] = {"key_document": job.document, "key_recipient": job.recipient}
        if outcome.failure is None:
            row |= {
                "following": tx.now + _backoff_seconds(desk, job.attempt) * 1000,
                "still_open": job.kind not in UNRECEIPTED_KINDS,
                "stale": outcome.stale,
                "moment": outcome.at,
            }
            sent.append(row)
        else:
            row |= {
                "failure": outcome.failure,
                "following": tx.now + desk.policy.retry_seconds * 1000,
            }
            if outcome.failure == NO_LIVE_PREKEY and prekey_for(desk, job) is not None:
                # It arrived between the attempt and this record.
                row["following"] = tx.now
                tx.after_commit(desk.outgoing.wake)
            kept.append(row)
    if sent:
        _announce_sent(tx, outcomes)
        tx.connection.execute(_MARK_SENT, sent)
    if kept:
        tx.connection.execute(_MARK_WAITING, kept)


def _announce_sent(tx: Transaction, outcomes: Sequence[Outcome]) -> None:
    # Only for what is still queued: where the receipt has overtaken this record, more is known already.
    alerts = {
        outcome.job.key
        for outcome in outcomes
        if outcome.failure is None and outcome.job.kind is Kind.ALERT
    }
    if not alerts:
        return
    queued = tx.connection.execute(
        select(deliveries_table.c.document_id, deliveries_table.c.recipient).where(
            deliveries_table.c.document_id.in_({document for document, _ in alerts}),
            deliveries_table.c.state == "queued",
        )
    )
    for document, recipient in queued:
        if (document, recipient) in alerts:
            tx.event("delivery", {"id": document, "to": recipient, "state": "sent"})


def is_any_open(connection: Connection) -> bool:
    """Whether any delivery of ours is open: to ask that first keeps an idle node idle, as the other questions are long."""
    return connection.execute(_ANY_OPEN).first() is not None


def open_deliveries(
    own: Nation,
    *conditions: ColumnElement[bool],
    most: int,
    few_of: Collection[Nation] = (),
    few: int = 0,
) -> Select[Any]:
    """The first ``most`` of our own open deliveries with what ``job_of`` needs of their documents.

    Each recipient has its turn, so that one for which thousands wait does not keep out the others; of each the urgent
    before the routine, oldest first. Of each recipient in ``few_of`` no more than ``few``.
    """
    row = deliveries_table.c
    urgent_first = case((row.lane == Lane.URGENT.value, 0), else_=1)
    oldest = (urgent_first, row.queued_at, row.document_id)
    turn = func.row_number().over(partition_by=row.recipient, order_by=oldest).label("turn")
    its_document = and_(documents_table.c.sender == own, documents_table.c.id == row.document_id)
    # Only what is ordered by: whole rows of fifty thousand would be sorted ten times as long.
    ranked = (
        select(
            row.document_id, row.recipient, urgent_first.label("lane_order"), row.queued_at, turn
        )
        .join(documents_table, its_document)
        .where(row.open, *conditions)
        .subquery()
    )
    share = case((ranked.c.recipient.in_(few_of), few), else_=most)
    first = (
        select(ranked.c.document_id, ranked.c.recipient, ranked.c.turn)
        .where(ranked.c.turn <= share)
        .order_by(ranked.c.turn, ranked.c.lane_order, ranked.c.queued_at, ranked.c.document_id)
        .limit(most)
        .subquery()
    )
    these = and_(first.c.document_id == row.document_id, first.c.recipient == row.recipient)
    return (
        select(
            row.document_id,
            row.recipient,
            row.lane,
            row.sealed,
            row.sequence,
            row.state,
            row.attempts,
            row.reroutings,
            documents_table.c.kind,
            documents_table.c.expires_at,
        )
        .join(first, these)
        .join(documents_table, its_document)
        .order_by(first.c.turn, *oldest)
    )


def _due(connection: Connection, own: Nation, now: int) -> Sequence[AnyRow]:
    due = or_(deliveries_table.c.next_attempt_at <= now, documents_table.c.expires_at * 1000 <= now)
    return connection.execute(open_deliveries(own, due, most=MAX_DUE)).all()


def raw_documents(connection: Connection, desk: Desk, ids: set[str]) -> dict[str, bytes]:
    """The signed bytes of our own documents by id."""
    rows = connection.execute(
        select(documents_table.c.id, documents_table.c.raw).where(
            documents_table.c.sender == desk.nation, documents_table.c.id.in_(ids)
        )
    )
    return {row.id: row.raw for row in rows}


def job_of(row: AnyRow, raw: bytes) -> Job:
    """The delivery of a row, with its document, to try now."""
    return Job(
        document=DocumentId(row.document_id),
        recipient=Nation(row.recipient),
        kind=Kind(row.kind),
        lane=Lane(row.lane),
        sealed=row.sealed,
        sequence=row.sequence or 0,
        expires_at=row.expires_at,
        raw=raw,
        attempt=row.attempts + 1,
    )


def _postpone(tx: Transaction, desk: Desk, rows: Sequence[AnyRow]) -> None:
    following = tx.now + desk.policy.retry_seconds * 1000
    tx.connection.execute(
        update(deliveries_table).where(THIS_DELIVERY).values(next_attempt_at=following),
        [{"key_document": row.document_id, "key_recipient": row.recipient} for row in rows],
    )


def _give_up(tx: Transaction, rows: Sequence[AnyRow]) -> None:
    for row in rows:
        changed = tx.connection.execute(
            update(deliveries_table)
            .where(
                deliveries_table.c.document_id == row.document_id,
                deliveries_table.c.recipient == row.recipient,
                deliveries_table.c.open,
            )
            .values(
                open=False,
                # One that was sent again after its receipt has not failed.
                state=case(
                    (deliveries_table.c.receipt_id.is_(None), "failed"),
                    else_=deliveries_table.c.state,
                ),
                last_error="expired before the recipient's receipt",
            )
            .returning(deliveries_table.c.state)
        ).scalar_one_or_none()
        if changed == "failed" and row.kind not in {each.value for each in UNRECEIPTED_KINDS}:
            tx.audit(
                AuditKind.FAILED,
                "node",
                [("document", row.document_id)],
                f"{row.recipient}: expired",
            )
            tx.event("delivery", {"id": row.document_id, "to": row.recipient, "state": "failed"})


async def reopen_queued(desk: Desk) -> None:
    """Make due at once what was in memory when the process ended."""

    def reopen(tx: Transaction) -> None:
        tx.connection.execute(
            update(deliveries_table)
            .where(deliveries_table.c.open, deliveries_table.c.state == "queued")
            .values(next_attempt_at=tx.now)
        )

    await desk.ledger.write(reopen)


def _backoff_seconds(desk: Desk, attempt: int) -> int:
    return int(min(desk.policy.retry_seconds * 2 ** min(attempt - 1, 10), MAX_BACKOFF_SECONDS))
