"""The files that the relay keeps for its broker, and the signal that makes the broker read them.

Protocol section 8.1: who may fetch follows the roster without a restart.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

_BROKER_PROCESS: Final = "nats-server"


class BrokerNotSignalled(Exception):
    """The broker could not be told; it reads the new file at its next start."""


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old or the new text, never half of one; readable by its owner only."""
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_if_changed(path: Path, text: str) -> bool:
    """Whether the file had another text, or was not there, and has been written."""
    try:
        if path.read_text("utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    write_whole(path, text)
    return True


def reload_broker(
    pid_file: Path, *, send_signal: Callable[[int, signal.Signals], None] = os.kill
) -> None:
    """Make the broker read its configuration again; connections of users that are gone are ended by it."""
    _signal_broker(pid_file, signal.SIGHUP, send_signal)


def end_broker(
    pid_file: Path, *, send_signal: Callable[[int, signal.Signals], None] = os.kill
) -> None:
    """Make the broker write down what it has and end; whoever runs it starts it again."""
    _signal_broker(pid_file, signal.SIGTERM, send_signal)


def _signal_broker(
    pid_file: Path, number: signal.Signals, send_signal: Callable[[int, signal.Signals], None]
) -> None:
    try:
        pid = int(pid_file.read_text("ascii").strip())
        # After a crash the number may belong to another process, which the signal would end.
        name = Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
        if name != _BROKER_PROCESS:
            raise BrokerNotSignalled(f"process {pid} is {name}, not {_BROKER_PROCESS}")
        send_signal(pid, number)
    except (OSError, ValueError) as error:
        raise BrokerNotSignalled(f"{pid_file.name}: {error}") from error
