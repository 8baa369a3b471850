"""The fourth step, at the recipient: what the relay carried here is opened, recorded and receipted.

One task a lane, so that a routine backlog never stands before an urgent alert. A batch is opened and its receipts are
signed in a thread, then recorded in one transaction; only after the commit does the broker hear that it is done.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from varde.document import MAX_LIFE_SECONDS
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import Lane, Nation
from varde.opening import Opened, Rejection, open_document
from varde.receipt import MAX_RECEIPTED, Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind
from varde_gateway.flow.accept import (
    Accepted,
    read_body,
    record_accepted,
    record_heard,
    record_refusal,
)
from varde_gateway.flow.compose import Composed, compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.outbox import UNRECEIPTED_KINDS
from varde_gateway.flow.ports import Broker, BrokerError, Carried
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.flow.worker import repeat
from varde_gateway.store.transaction import Transaction

BATCH: Final = 64
WAIT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 5.0
BROKER_PAUSE_SECONDS: Final = 1.0
PASSING_REASONS: Final = frozenset({Reason.NEWER_ROSTER, Reason.FROM_THE_FUTURE})
"""Refusals that time may heal: the roster is on its way, or a clock is wrong."""

_log = structlog.get_logger("inbox")


@dataclass(frozen=True, slots=True)
class _Judged:
    carried: Carried
    outcome: Accepted | Rejection


async def run_inbox(desk: Desk, broker: Broker, lane: Lane) -> None:
    """Take in one lane for ever."""

    async def one_round() -> None:
        await broker.wait_connected()
        try:
            batch = await broker.fetch(lane, BATCH, WAIT_SECONDS)
        except BrokerError as error:
            _log.warning("inbox waits for the broker", lane=lane.value, detail=error.detail)
            await asyncio.sleep(BROKER_PAUSE_SECONDS)
            return
        if batch:
            await take_in(desk, batch)

    await repeat(f"inbox-{lane.value}", one_round, pause_seconds=0)


async def take_in(desk: Desk, batch: Sequence[Carried]) -> None:
    """Open, record and receipt one batch, then tell the broker."""
    judged, receipts = await asyncio.to_thread(_judge, desk, batch)

    heard = {
        each.outcome.opened.document.sender for each in judged if isinstance(each.outcome, Accepted)
    }

    def record(tx: Transaction) -> None:
        recorded: dict[tuple[Nation, str], str] = {}
        if heard:
            record_heard(tx, heard)
        for each in judged:
            if isinstance(each.outcome, Accepted):
                record_accepted(tx, desk, each.outcome, recorded)
            elif each.outcome.reason not in PASSING_REASONS:
                record_refusal(tx, each.carried.sender, each.outcome)
        for receipt in receipts:
            record_document(tx, receipt)
            queue_deliveries(tx, desk, receipt, receipt.document.to, sealed=False, numbered=False)

    if any(_is_final(each) for each in judged):
        await desk.ledger.write(record)
    for each in judged:
        if _is_final(each):
            await each.carried.acknowledge()
        else:
            await each.carried.retry_later(RETRY_SECONDS)


def _is_final(judged: _Judged) -> bool:
    return isinstance(judged.outcome, Accepted) or judged.outcome.reason not in PASSING_REASONS


def _judge(desk: Desk, batch: Sequence[Carried]) -> tuple[list[_Judged], list[Composed]]:
    judged = [_Judged(each, _open(desk, each.raw)) for each in batch]
    covered: dict[tuple[Nation, Lane], list[Opened]] = {}
    for each in judged:
        if isinstance(each.outcome, Accepted):
            opened = each.outcome.opened
            if opened.kind not in UNRECEIPTED_KINDS:
                covered.setdefault((opened.document.sender, each.carried.lane), []).append(opened)
    at = desk.now_ms()
    receipts = [
        compose_now(
            desk,
            Kind.RECEIPT,
            [sender],
            format_receipt(
                Receipt(
                    Stage.DELIVERED,
                    tuple(Receipted(each.document.id, each.digest, at) for each in documents),
                )
            ),
            lane=lane,
            life_seconds=MAX_LIFE_SECONDS,
        )
        for (sender, lane), documents in covered.items()
    ]
    return judged, receipts


def _open(desk: Desk, raw: bytes) -> Accepted | Rejection:
    opening = open_document(
        raw, me=desk.nation, trust=desk.trust, prekeys=desk.own_prekeys, now=desk.now()
    )
    if isinstance(opening, Rejection):
        return opening
    try:
        return Accepted(opening, read_body(opening))
    except (Malformed, Untrusted) as error:
        return Rejection(Reason.BAD_BODY, error.detail, opening.header)


assert BATCH <= MAX_RECEIPTED  # one receipt covers what one batch brought
