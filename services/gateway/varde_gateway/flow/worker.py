"""The outermost line of every background worker: one round after another, for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger("worker")


async def repeat(
    name: str,
    one_round: Callable[[], Awaitable[object]],
    *,
    pause_seconds: float,
    pause_after_failure_seconds: float = 1.0,
) -> None:
    """Run ``one_round`` until cancelled; a round that fails is logged with its stack and the next one comes."""
    while True:
        try:
            await one_round()
        except Exception:  # noqa: BLE001 -- a worker outlives whatever one round meets
            _log.exception("round failed", worker=name)
            await asyncio.sleep(pause_after_failure_seconds)
        else:
            await asyncio.sleep(pause_seconds)
