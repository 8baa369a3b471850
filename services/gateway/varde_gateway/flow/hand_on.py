"""The beacon chain at a nation on the way: what is for another goes on to the next nation, still sealed, and is logged.

Whoever brings it may have so much of our time and of our OUTBOX, and our own documents have the rest. Nobody loses by a
refusal: the sender's database is the truth, and it sends again, sealed anew and by another way. Protocol section 8.4.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from varde.admission import Admit, Refuse, admit
from varde.auditlog import AuditKind
from varde.encoding import sha256_base64url
from varde.errors import Reason
from varde.identifiers import DocumentId, Nation
from varde.opening import Rejection
from varde.subjects import outbox_subject, transit_id
from varde.transit import MAX_HOPS, Transit
from varde_gateway.flow.accept import way_in_words
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.links import LinkState
from varde_gateway.flow.memory.refusals import RETRY_SECONDS, record_refusal
from varde_gateway.flow.ports import Broker, BrokerError, Carried, Held, Outbound
from varde_gateway.store.transaction import Transaction

MAX_WAITING: Final = 1000
"""Where so many wait for the next nation on that lane, ours among them, none of others is put behind them."""

OWN_SHARE: Final = 0.5
"""Of the OUTBOX; what is handed on may have the rest."""


@dataclass(frozen=True, slots=True)
class _Step:
    document: DocumentId
    sender: Nation
    transit: Transit
    outbound: Outbound
    key: tuple[str, str]


_Taken: TypeAlias = tuple[_Step, Carried]
_Refused: TypeAlias = tuple[Refuse, Carried]


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
    done: list[_Taken] = []
    failed: list[Carried] = []
    try:
        if fresh:
            fresh, excess = _within_limits(desk, fresh, await broker.held())
            refused += excess
        answers = await broker.publish_many([step.outbound for step, _ in fresh])
        done = [each for each, answer in zip(fresh, answers, strict=True) if answer is None]
        failed = [carried for (_, carried), answer in zip(fresh, answers, strict=True) if answer]
    except BrokerError:
        failed = [carried for _, carried in fresh]
    await _record(desk, done, refused)
    for step, _ in done:
        desk.handed_on.add(step.key)
    for carried in [*(each for _, each in done), *(each for _, each in refused), *again]:
        await carried.acknowledge()
    for carried in failed:
        if desk.patience.allows(carried.link, desk.ticks()):
            await carried.retry_later(RETRY_SECONDS)
        else:
            await carried.acknowledge()


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
    target = _next_nation(desk, label, decision.sender)
    if target is None:
        return Refuse(Reason.POLICY, f"{label.final} is not heard, and nobody who hears it")
    digest = sha256_base64url(carried.raw)
    outbound = Outbound(
        outbox_subject(target, carried.lane),
        carried.raw,
        transit_id(decision.id, target, label, digest),
        label,
    )
    return _Step(decision.id, decision.sender, label, outbound, (digest, label.final))


def _next_nation(desk: Desk, label: Transit, sender: Nation) -> Nation | None:
    # The nation itself where it is heard, or was a moment ago; else somebody who hears it, if one more may hand it on.
    ticks, left = desk.ticks(), MAX_HOPS - len(label.hops)
    state = desk.links.state(label.final, ticks)
    if state is LinkState.LIVE:
        return label.final
    ways = (
        desk.links.ways(label.final, ticks, been={sender, *label.hops}, others=left) if left else ()
    )
    if not ways:
        return label.final if state is LinkState.LATE else None
    # By lot: a neighbour that claims the shortest way and hands nothing on shall not have every try.
    return ways[desk.random(1)[0] % len(ways)]


def _within_limits(
    desk: Desk, steps: Sequence[_Taken], held: Held
) -> tuple[list[_Taken], list[_Refused]]:
    now = desk.ticks()
    waiting, taken = Counter(held.messages), held.taken
    within: list[_Taken] = []
    excess: list[_Refused] = []
    for step, carried in steps:
        subject, size = step.outbound.subject, len(carried.raw)
        if waiting[subject] >= MAX_WAITING:
            detail = f"{MAX_WAITING} documents wait before it on {subject}"
        elif taken + size > held.room * (1 - OWN_SHARE):
            detail = "our OUTBOX has room for our own documents only"
        elif not desk.budgets.allows(carried.link, size, now):
            detail = f"more than {carried.link} may have handed on in that time"
        else:
            waiting[subject] += 1
            taken += size
            within.append((step, carried))
            continue
        excess.append((Refuse(Reason.POLICY, detail), carried))
    return within, excess


async def _record(desk: Desk, done: Sequence[_Taken], refused: Sequence[_Refused]) -> None:
    now = desk.now_ms()
    noted = [
        (carried.link, rejection)
        for refusal, carried in refused
        for rejection in (Rejection(refusal.reason, refusal.detail, None),)
        if desk.refusals.note(carried.link, rejection, now)
    ]

    def write(tx: Transaction) -> None:
        for step, carried in done:
            _record_handed_on(tx, step, carried.link)
        for link, rejection in noted:
            record_refusal(tx, link, rejection)

    if done or noted:
        await desk.ledger.write(write)


def _record_handed_on(tx: Transaction, step: _Step, link: Nation) -> None:
    hops = step.transit.hops
    tx.audit(
        AuditKind.FORWARDED,
        link,
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
