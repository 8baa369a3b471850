"""Cancellations that somebody else kept for himself, in both services: each has the module, as they meet only in the core."""

import asyncio
from contextlib import suppress
from types import ModuleType

import pytest

from varde_gateway import cancellation as of_the_gateway
from varde_relay import cancellation as of_the_relay

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.parametrize("module", [of_the_gateway, of_the_relay], ids=["gateway", "relay"]),
]


async def test_a_cancellation_that_was_swallowed_is_raised_again(module: ModuleType) -> None:
    async def work() -> None:
        with module.heeding_cancellation(), suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=3)
    assert task.cancelled()


async def test_the_failure_of_a_child_in_a_task_group_is_no_cancellation_for_what_comes_after(
    module: ModuleType,
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def work() -> str:
        with suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(60)
        with module.heeding_cancellation():
            await asyncio.sleep(0)
        return "done"

    assert await asyncio.create_task(work()) == "done"


async def test_a_task_that_swallows_cancellations_is_asked_until_it_ends(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    swallowed = 0

    async def be_deaf() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1

    async with asyncio.timeout(3):
        await module.end_task(asyncio.create_task(be_deaf()))
    assert swallowed == 3


async def test_a_task_that_ends_in_time_is_not_cancelled(module: ModuleType) -> None:
    task = asyncio.create_task(asyncio.sleep(0.01, "result"))
    await module.end_task(task, 3)
    assert task.result() == "result"
