"""Notices that our own broker answers and stores nothing, says so, and asks our relay to have it started again.

A publish without an answer makes it look at once, and now and then it looks without one, so that the first alert after a
full disk does not have to find out. What is stored is not known here (``broker_probe``), and whether a restart would
help, and may be, decides the relay, which sees the broker's disk. Protocol section 8.1.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from varde.auditlog import AuditKind
from varde.subjects import BROKER_RESTARTED
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.storing import STORES_NOTHING
from varde_gateway.flow.outbox import reopen_queued
from varde_gateway.flow.ports import BrokerError
from varde_gateway.flow.worker import repeat

LOOK_SECONDS: Final = 10.0
LOOK_AGAIN_SECONDS: Final = 1.0
MAX_DETAIL: Final = 500
RELAY_SILENT: Final = "our relay, which could restart it, does not answer: restart it"

_log = structlog.get_logger("store_watch")


class StoringBroker(Protocol):
    """Our nation's broker, asked whether it stores."""

    async def wait_connected(self) -> None:
        """Return once it answers."""

    async def wait_unstored(self) -> None:
        """Return when something was published and not stored since the last return."""

    async def streams_without_store(self) -> list[str]:
        """The streams that take nothing more, by trying; ``BrokerError`` where it does not answer at all."""

    def name_storing_trouble(self, trouble: str) -> None:
        """What those whose messages are not stored are told from now on; empty when it is over."""

    async def ask_restart(self, streams: Sequence[str]) -> bytes:
        """What our relay says to that; ``BrokerError`` where it says nothing."""


async def run_store_watch(desk: Desk, broker: StoringBroker) -> None:
    """Look for ever."""

    async def one_round() -> None:
        await broker.wait_connected()
        await look(desk, broker)
        if desk.storing.since or desk.storing.trouble:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await broker.wait_unstored()

    await repeat("store-watch", one_round, pause_seconds=0)


async def look(desk: Desk, broker: StoringBroker) -> None:
    """Try every stream once, and act on what has been seen so far."""
    storing, asked_at = desk.storing, desk.ticks()
    try:
        failed = await broker.streams_without_store()
    except BrokerError:
        # Away, or busy: what it stores is seen when it answers again.
        storing.since = {}
        return
    stuck = storing.judge(failed, asked_at, desk.ticks())
    if stuck:
        await _have_restarted(desk, broker, stuck)
    elif storing.trouble and not failed:
        _name(desk, broker, "")
        _log.info("broker stores again")
        # What it did not take is due now, not at its next turn.
        await reopen_queued(desk)
        desk.outgoing.wake()


async def _have_restarted(desk: Desk, broker: StoringBroker, streams: Sequence[str]) -> None:
    try:
        answer = await broker.ask_restart(streams)
    except BrokerError:
        answer = RELAY_SILENT.encode()
    restarted = answer == BROKER_RESTARTED
    said = "it is being restarted" if restarted else answer.decode("utf-8", "replace")[:MAX_DETAIL]
    trouble = f"{STORES_NOTHING} in {', '.join(streams)}: {said}"
    if trouble != desk.storing.trouble:
        _log.error("broker stores nothing", streams=[*streams], detail=said)
    _name(desk, broker, trouble)
    if restarted:
        detail = f"it stored nothing in {', '.join(streams)}"
        await desk.ledger.write(lambda tx: tx.audit(AuditKind.BROKER_RESTARTED, "node", [], detail))


def _name(desk: Desk, broker: StoringBroker, trouble: str) -> None:
    desk.storing.trouble = trouble
    broker.name_storing_trouble(f"our broker {trouble}" if trouble else "")
