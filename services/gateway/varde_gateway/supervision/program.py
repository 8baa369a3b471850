"""One program to keep running: how to start it, how to see that it is ready, and what an earlier run left behind.

Knows processes and files under ``/proc``, not what the programs do.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_PROBE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_DEAD: Final = frozenset({"Z", "X"})
_OK: Final = b"HTTP/1.1 200 "


class Probe(Protocol):
    """Whether a program does its work now, and where it is asked."""

    @property
    def host(self) -> str:
        """The address that the program listens on."""

    @property
    def port(self) -> int:
        """The port."""

    async def ready(self) -> bool:
        """One try; never raises, never longer than a second or two."""


@dataclass(frozen=True, slots=True)
class ListensOn:
    """Ready when the port takes connections."""

    host: str
    port: int

    async def ready(self) -> bool:
        """Connect and hang up."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                _, writer = await asyncio.open_connection(self.host, self.port)
                await _hang_up(writer)
        except (OSError, TimeoutError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class AnswersReady:
    """Ready when ``GET /health/ready`` gives 200."""

    host: str
    port: int

    async def ready(self) -> bool:
        """One request on a connection of its own."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(
                        b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                    )
                    return await reader.readexactly(len(_OK)) == _OK
                finally:
                    await _hang_up(writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False


@dataclass(frozen=True, slots=True)
class Program:
    """``name`` is the part (broker, relay, gateway) and ``owner`` whose (a nation); ``argv[0]`` is an absolute path."""

    owner: str
    name: str
    argv: tuple[str, ...]
    probe: Probe
    log_file: Path
    pid_file: Path


def port_is_taken(program: Program) -> bool:
    """Whether somebody else listens where this program will; its answers would pass for the program's own."""
    family = socket.AF_INET6 if ":" in program.probe.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((program.probe.host, program.probe.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def stop_left_over(program: Program) -> int | None:
    """Stop the process that an earlier, killed supervisor started; its id, or None where there is none.

    Only a process with exactly this program's command line, which holds its home: the id in the file may belong to
    somebody else by now.
    """
    try:
        pid = int(program.pid_file.read_text("ascii"))
    except (OSError, ValueError):
        return None
    if not _runs(pid, program):
        return None
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal_group(pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            # Not by its command line, which a dying process loses before its ports.
            if not _lives(pid):
                return pid
            time.sleep(_POLL_SECONDS)
    return pid


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a program and what it has started; it leads its own process group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def tail_of(path: Path, lines: int = 12) -> str:
    """The last lines of a log file, for a person who must see why a part does not start."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # The other side may have been quicker; the answer counts, not the farewell.
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in _DEAD


def _runs(pid: int, program: Program) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    arguments = command.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\0")
    return _lives(pid) and tuple(arguments) == program.argv
