"""What ``varde up`` and ``varde demo`` share: wait for a signal, say why a start failed."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from varde.errors import VardeError
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.founding.home import FoundingError
from varde_gateway.keystore_file import KeystoreError
from varde_gateway.private_files import ExposedFileError
from varde_gateway.settings import SettingsError
from varde_gateway.supervision.node import MissingBrokerError, PreparationError
from varde_gateway.supervision.supervisor import AlreadyRunningError, StartFailedError

READY_SECONDS: Final = 60.0
EXPECTED: Final = (
    AlreadyRunningError,
    ExposedFileError,
    FoundingError,
    KeystoreError,
    MissingBrokerError,
    PreparationError,
    SettingsError,
    StartFailedError,
    VardeError,
)
"""What may go wrong without a defect of Varde; each text says what to do."""

T = TypeVar("T")


def run_until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with an event that SIGINT and SIGTERM set; end the command where it fails."""
    failure: BaseException
    try:
        asyncio.run(_with_signals(work))
    except EXPECTED as error:
        failure = error
    except BaseExceptionGroup as group:
        expected, unexpected = group.split(EXPECTED)
        if expected is None or unexpected is not None:
            raise
        failure = _first(expected)
    else:
        return
    fail(Exit.FAILED, str(failure))


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of ``work``, or None where ``stop`` was set first; ``work`` is then cancelled."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        stopping = group.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done():
            working.cancel()
            return None
    return working.result()


async def _with_signals(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await work(stop)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
