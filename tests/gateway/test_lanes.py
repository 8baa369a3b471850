"""Urgent before routine, also where ten thousand routine deliveries wait."""

import asyncio

import pytest

from support.federation import FI, a_document_id
from varde.identifiers import Lane
from varde.signing import Kind
from varde_gateway.flow.inbox import BATCH, UrgentFirst
from varde_gateway.flow.memory.outgoing import MAX_HELD, Job, Outgoing

pytestmark = pytest.mark.asyncio
BACKLOG = 10_000


def job(number: int, lane: Lane) -> Job:
    return Job(
        document=a_document_id(number),
        recipient=FI,
        kind=Kind.ALERT,
        lane=lane,
        sealed=True,
        sequence=number,
        expires_at=2**40,
        raw=b"",
        attempt=1,
    )


async def test_an_urgent_delivery_overtakes_ten_thousand_routine_ones() -> None:
    outgoing = Outgoing()
    outgoing.offer(job(number, Lane.ROUTINE) for number in range(BACKLOG))
    in_work = await outgoing.take(64, 0)
    urgent = job(BACKLOG + 1, Lane.URGENT)
    outgoing.offer([urgent])
    assert (await outgoing.take(64, 0))[0] == urgent
    assert {each.lane for each in in_work} == {Lane.ROUTINE}


async def test_a_lane_that_is_full_takes_what_the_database_offers_again_later() -> None:
    outgoing = Outgoing()
    outgoing.offer(job(number, Lane.ROUTINE) for number in range(BACKLOG))
    taken = []
    while batch := await outgoing.take(500, 0):
        taken += batch
        outgoing.finish(batch)
    assert len(taken) == MAX_HELD
    outgoing.offer(job(number, Lane.ROUTINE) for number in range(MAX_HELD, BACKLOG))
    assert outgoing.busy()
    assert (await outgoing.take(1, 0))[0].sequence == MAX_HELD


async def test_a_delivery_is_held_once_however_often_it_is_offered() -> None:
    outgoing = Outgoing()
    outgoing.offer([job(1, Lane.URGENT)] * 5)
    assert len(await outgoing.take(10, 0)) == 1
    outgoing.offer([job(1, Lane.URGENT)])
    assert await outgoing.take(10, 0) == []
    outgoing.finish([job(1, Lane.URGENT)])
    outgoing.offer([job(1, Lane.URGENT)])
    assert len(await outgoing.take(10, 0)) == 1


async def waits(turn: asyncio.Task[None]) -> bool:
    """Whether it has not come after everything that could run has run."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not turn.done()


async def test_routine_documents_are_not_taken_in_while_whole_batches_of_urgent_ones_wait() -> None:
    precedence = UrgentFirst()
    await precedence.take_turn(Lane.URGENT, BATCH)
    turn = asyncio.create_task(precedence.take_turn(Lane.ROUTINE, BATCH))
    assert await waits(turn)
    precedence.end_turn(Lane.URGENT, BATCH)
    await precedence.take_turn(Lane.URGENT, BATCH - 1)
    assert await waits(turn)
    precedence.end_turn(Lane.URGENT, BATCH - 1)
    assert not await waits(turn)


async def test_a_few_urgent_documents_hold_up_nothing() -> None:
    precedence = UrgentFirst()
    await precedence.take_turn(Lane.URGENT, BATCH - 1)
    turn = asyncio.create_task(precedence.take_turn(Lane.ROUTINE, BATCH))
    assert not await waits(turn)
    precedence.end_turn(Lane.ROUTINE, BATCH)


async def test_a_flood_of_urgent_documents_does_not_stop_the_routine_lane() -> None:
    precedence = UrgentFirst()
    await precedence.take_turn(Lane.URGENT, BATCH)
    async with asyncio.timeout(30):
        await precedence.take_turn(Lane.ROUTINE, 1)
