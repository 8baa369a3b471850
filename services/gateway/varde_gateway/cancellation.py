"""Cancellations that must not be lost, whatever is being waited for.

nats-py catches some; ``asyncio.wait_for`` of Python 3.11 loses one that comes in the moment of the answer
(python/cpython#86296); a ``TaskGroup`` loses one that comes together with an error of a child. A worker that has lost its own
goes on for ever, and a gateway does not stop.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

AGAIN_SECONDS: Final = 1.0


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raise the cancellation of the calling task that came meanwhile and that whoever was called has kept for himself.

    What counts is that one came since: below Python 3.13 a task's count stays up after the error of a child in a ``TaskGroup``.
    """
    task = asyncio.current_task()
    assert task is not None, "only tasks are cancelled"
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


async def end_task(task: asyncio.Task[Any], patience_seconds: float = 0) -> None:
    """Wait so long for ``task``; then cancel it, again and again, until it has ended. How it ends is not told."""
    await asyncio.wait({task}, timeout=patience_seconds)
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()
