"""The fourth step, at the recipient: what the relay carried here is opened, recorded and receipted.

One task a lane, so that a routine backlog never stands before an urgent alert; and while urgent ones wait in numbers, the
routine lane stands back, but never for long: a flood shall not stop it. A batch is opened and its receipts are
signed in a thread, then recorded in one transaction; only after the commit does the broker hear that it is done.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from varde.auditlog import name_document
from varde.document import MAX_LIFE_SECONDS
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import Lane, Nation
from varde.opening import Opened, Rejection, open_document
from varde.receipt import MAX_RECEIPTED, Receipt, Receipted, Stage, format_receipt, parse_receipt
from varde.signing import Kind
from varde_gateway.flow.accept import (
    Accepted,
    read_body,
    record_accepted,
    record_heard,
)
from varde_gateway.flow.compose import Composed, compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.hand_on import hand_on, is_for_another
from varde_gateway.flow.memory.refusals import RETRY_SECONDS, record_refusal
from varde_gateway.flow.outbox import UNRECEIPTED_KINDS
from varde_gateway.flow.ports import Broker, BrokerError, Carried
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.flow.worker import repeat
from varde_gateway.store.transaction import Transaction

BATCH: Final = 64
WAIT_SECONDS: Final = 5.0
BROKER_PAUSE_SECONDS: Final = 1.0
ROUTINE_PATIENCE_SECONDS: Final = 2.0
PASSING_REASONS: Final = frozenset({Reason.NEWER_ROSTER, Reason.FROM_THE_FUTURE})
"""Refusals that time may heal: the roster is on its way, or a clock is wrong."""

_log = structlog.get_logger("inbox")


@dataclass(frozen=True, slots=True)
class _Judged:
    """``number`` is where the document stands among its sender's, as far as it proves that: none where it did not open."""

    carried: Carried
    outcome: Accepted | Rejection
    number: tuple[Nation, int, str] | None


class UrgentFirst:
    """Has the routine lane stand back while whole batches of urgent messages wait."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._few_wait = asyncio.Event()
        self._few_wait.set()

    async def take_turn(self, lane: Lane, count: int) -> None:
        """Return when a batch of ``count`` may be taken in."""
        if lane is Lane.ROUTINE:
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUTINE_PATIENCE_SECONDS):
                    await self._few_wait.wait()
        elif count >= BATCH:
            self._few_wait.clear()

    def end_turn(self, lane: Lane, count: int) -> None:
        """A batch of ``count``, or none, was taken in."""
        if lane is Lane.URGENT and count < BATCH:
            self._few_wait.set()


async def run_inbox(desk: Desk, broker: Broker, lane: Lane, precedence: UrgentFirst) -> None:
    """Take in one lane for ever; both lanes share the ``precedence``."""

    async def one_round() -> None:
        await broker.wait_connected()
        try:
            batch = await broker.fetch(lane, BATCH, WAIT_SECONDS)
        except BrokerError as error:
            _log.warning("inbox waits for the broker", lane=lane.value, detail=error.detail)
            await asyncio.sleep(BROKER_PAUSE_SECONDS)
            return
        await precedence.take_turn(lane, len(batch))
        try:
            if batch:
                await take_in(desk, broker, batch)
        finally:
            precedence.end_turn(lane, len(batch))

    await repeat(f"inbox-{lane.value}", one_round, pause_seconds=0)


async def take_in(desk: Desk, broker: Broker, batch: Sequence[Carried]) -> None:
    """Open, record and receipt one batch, then tell the broker; what is for others is handed on."""
    own: list[Carried] = []
    on_the_way: list[Carried] = []
    for each in batch:
        (on_the_way if is_for_another(desk, each) else own).append(each)
    # Ours first: what others have sent around shall not stop them, whatever becomes of it.
    if own:
        await _take_own(desk, own)
    if on_the_way:
        await hand_on(desk, broker, on_the_way)


async def _take_own(desk: Desk, batch: Sequence[Carried]) -> None:
    judged, receipts = await asyncio.to_thread(_judge, desk, batch)

    now = desk.now_ms()
    final = [_is_final(desk, each) for each in judged]
    noted = [
        (each.carried.link, each.outcome)
        for each, ended in zip(judged, final, strict=True)
        if isinstance(each.outcome, Rejection)
        and ended
        and desk.refusals.note(each.carried.link, each.outcome, now)
    ]
    if noted or receipts or any(isinstance(each.outcome, Accepted) for each in judged):
        await desk.ledger.write(lambda tx: _record(tx, desk, judged, receipts, noted))
    for each, ended in zip(judged, final, strict=True):
        if isinstance(each.outcome, Accepted) and isinstance(each.outcome.body, Receipt):
            _note_answer(desk, each.outcome.opened.document.sender, each.carried)
        if ended:
            await each.carried.acknowledge()
        else:
            await each.carried.retry_later(RETRY_SECONDS)


def _note_answer(desk: Desk, sender: Nation, carried: Carried) -> None:
    # While its receipts come straight, a backlog is long and not cut off: nothing must go around then.
    if carried.transit is None:
        now = desk.ticks()
        desk.links.of(sender, now).answered_at = now


def _record(
    tx: Transaction,
    desk: Desk,
    judged: Sequence[_Judged],
    receipts: Sequence[tuple[Composed, Nation | None]],
    noted: Sequence[tuple[Nation, Rejection]],
) -> None:
    heard = {
        each.outcome.opened.document.sender for each in judged if isinstance(each.outcome, Accepted)
    }
    recorded: dict[tuple[Nation, str], str] = {}
    if heard:
        record_heard(tx, heard)
    # The first receipt for a document that came by two ways in one batch is the one that its entry names.
    named = {
        each.digest: name_document(Kind.RECEIPT, receipt.document.id, receipt.digest)
        for receipt, _ in reversed(receipts)
        for each in parse_receipt(receipt.document.body).documents
    }
    for each in judged:
        if isinstance(each.outcome, Accepted):
            receipt = named.get(each.outcome.opened.digest, ())
            record_accepted(tx, desk, each.outcome, recorded, each.carried.via, receipt=receipt)
        if each.number is not None:
            sender, sequence, digest = each.number
            tx.arrivals(sender).arrive(sequence, digest)
    for link, rejection in noted:
        record_refusal(tx, link, rejection)
    for composed, through in receipts:
        record_document(tx, composed)
        queue_deliveries(
            tx,
            desk,
            composed,
            composed.document.to,
            sealed=False,
            numbered=False,
            through=through,
        )


def _is_final(desk: Desk, judged: _Judged) -> bool:
    if isinstance(judged.outcome, Accepted) or judged.outcome.reason not in PASSING_REASONS:
        return True
    # By the clock that never goes back: one that is set back must not make everybody wait.
    return not desk.patience.allows(judged.carried.link, desk.ticks())


def _judge(
    desk: Desk, batch: Sequence[Carried]
) -> tuple[list[_Judged], list[tuple[Composed, Nation | None]]]:
    judged = [_open(desk, each) for each in batch]
    covered: dict[tuple[Nation, Lane, tuple[Nation, ...]], list[Opened]] = {}
    for each in judged:
        if isinstance(each.outcome, Accepted):
            opened = each.outcome.opened
            if opened.kind not in UNRECEIPTED_KINDS:
                way = opened.document.sender, each.carried.lane, each.carried.via
                covered.setdefault(way, []).append(opened)
    at = desk.now_ms()
    receipts: list[tuple[Composed, Nation | None]] = []
    for (sender, lane, via), documents in covered.items():
        receipt = compose_now(
            desk,
            Kind.RECEIPT,
            [sender],
            format_receipt(
                Receipt(
                    Stage.DELIVERED,
                    tuple(Receipted(each.document.id, each.digest, at, via) for each in documents),
                )
            ),
            lane=lane,
            life_seconds=MAX_LIFE_SECONDS,
        )
        # The answer finds the way back over whoever handed the document to us.
        receipts.append((receipt, via[-1] if via else None))
    return judged, receipts


def _open(desk: Desk, carried: Carried) -> _Judged:
    opening = open_document(
        carried.raw, me=desk.nation, trust=desk.trust, prekeys=desk.own_prekeys, now=desk.now()
    )
    if isinstance(opening, Rejection):
        return _Judged(carried, opening, None)
    header = opening.header
    number = (
        (header.sender, header.sequence, opening.digest)
        if header is not None and header.sequence
        else None
    )
    try:
        return _Judged(carried, Accepted(opening, read_body(opening)), number)
    except (Malformed, Untrusted) as error:
        return _Judged(carried, Rejection(Reason.BAD_BODY, error.detail, header), number)


assert BATCH <= MAX_RECEIPTED  # one receipt covers what one batch brought
