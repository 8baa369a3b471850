"""Starts programs, keeps each of them running, and stops them in reverse order.

A program that dies is started again at once, and with a growing pause when it dies again soon; it is never given up.
Each runs in its own process group, so that Ctrl-C reaches only the supervisor. One supervisor per directory, by a lock.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Final

from varde_gateway.private_files import write_private
from varde_gateway.supervision.program import Program, signal_group, stop_left_over, tail_of

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 15.0
STEADY_SECONDS: Final = 10.0
"""Who ran this long before it died is started again without counting earlier deaths."""

STOP_SECONDS: Final = 5.0
READY_POLL_SECONDS: Final = 0.05
DEATHS_BEFORE_READY: Final = 4
LOG_BYTES: Final = 10 * 1024 * 1024
KEPT_LOGS: Final = 3
_ROTATE_SECONDS: Final = 10.0
_LEASH: Final = Path(__file__).with_name("leash.py")


class AlreadyRunningError(Exception):
    """Another supervisor has this directory."""


class StartFailedError(Exception):
    """A program did not become ready; the text has the last lines of its log."""


class Supervised:
    """One program and its process, as they are now."""

    def __init__(self, program: Program, on_change: Callable[[], None]) -> None:
        """``on_change`` is called whenever ``pid`` is another."""
        self.program = program
        self.pid: int | None = None
        self.deaths = 0
        self.last_exit: int | str | None = None
        self._on_change = on_change

    async def keep_running(self) -> None:
        """Start it again whenever it ends, until cancelled; then stop it."""
        soon = 0
        while True:
            begun = time.monotonic()
            try:
                self.last_exit = await self._run_once()
            except OSError as error:
                # No process, no file descriptor or no disk left: that passes, and the others must run on.
                self.last_exit = str(error)
            self.deaths += 1
            soon = 0 if time.monotonic() - begun >= STEADY_SECONDS else soon + 1
            await asyncio.sleep(pause_after(soon))

    async def wait_ready(self, deadline: float) -> None:
        """Return when the program is ready; ``StartFailedError`` when it keeps dying or time is over."""
        while not (self.pid is not None and await self.program.probe.ready()):
            if self.deaths >= DEATHS_BEFORE_READY or time.monotonic() > deadline:
                program = self.program
                what = (
                    f"died {self.deaths} times, the last time with {self.last_exit}"
                    if self.deaths
                    else "runs, but does not become ready"
                )
                raise StartFailedError(
                    f"The {program.name} of {program.owner} {what}. "
                    f"The end of {program.log_file}:\n{tail_of(program.log_file)}"
                )
            await asyncio.sleep(READY_POLL_SECONDS)

    async def _run_once(self) -> int:
        program = self.program
        with program.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LEASH),
                str(os.getpid()),
                *program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._now(process.pid)
            return await process.wait()
        finally:
            # Reached by cancellation, too: whatever happens to us, the process is stopped and its number forgotten.
            if process.returncode is None:
                await _stop(process)
            self._now(None)

    def _now(self, pid: int | None) -> None:
        self.pid = pid
        if pid is None:
            self.program.pid_file.unlink(missing_ok=True)
        else:
            write_private(self.program.pid_file, str(pid).encode())
        self._on_change()


@asynccontextmanager
async def supervise(
    stages: Sequence[Sequence[Program]], on_change: Callable[[], None]
) -> AsyncIterator[list[Supervised]]:
    """Run all programs while the context is open: stage after stage in, the stages in reverse out.

    A stage is started when the one before it was started, not when that is ready: each part waits for what it needs.
    """
    watched = [[Supervised(program, on_change) for program in stage] for stage in stages]
    async with asyncio.TaskGroup() as group:
        rotating = group.create_task(
            _rotate_logs([each.program.log_file for stage in watched for each in stage])
        )
        tasks = [
            [group.create_task(each.keep_running(), name=each.program.name) for each in stage]
            for stage in watched
        ]
        try:
            yield [each for stage in watched for each in stage]
        finally:
            rotating.cancel()
            for stage_tasks in reversed(tasks):
                for task in stage_tasks:
                    task.cancel()
                await asyncio.wait(stage_tasks)


@contextmanager
def only_supervisor_of(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; ``AlreadyRunningError`` where another living process does."""
    path = directory / "supervisor.lock"
    with path.open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"{directory} is run already by process {_locker(lock)}. Stop that one first, or follow its log."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


def stop_all_left_over(programs: Sequence[Program]) -> list[tuple[Program, int]]:
    """Stop what a killed supervisor left, under the lock; last stage first."""
    stopped = ((each, stop_left_over(each)) for each in reversed(programs))
    return [(program, pid) for program, pid in stopped if pid is not None]


def pause_after(deaths_in_a_row: int) -> float:
    """Seconds before the next start: 0.1, 0.2, 0.4, … 15; none after a long life."""
    if deaths_in_a_row == 0:
        return 0.0
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(deaths_in_a_row - 1, 10))


def rotate_log(path: Path) -> bool:
    """Move a log that has grown too large aside; whether it was.

    The writer keeps its open file (it appends), so the content is copied and the file emptied; lines that are written
    between the two are lost.
    """
    if not path.exists() or path.stat().st_size <= LOG_BYTES:
        return False
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


async def _rotate_logs(paths: Sequence[Path]) -> None:
    while True:
        await asyncio.sleep(_ROTATE_SECONDS)
        for path in paths:
            await asyncio.to_thread(rotate_log, path)


async def _stop(process: asyncio.subprocess.Process) -> None:
    signal_group(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        pass
    # What the program itself has started does not outlive it either.
    signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _locker(lock: IO[bytes]) -> str:
    lock.seek(0)
    return lock.read(20).decode("ascii", "replace") or "?"
