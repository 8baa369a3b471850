"""What a node gives out as a stream, on its way into a file: whole or not at all, with its progress on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from varde_gateway.cli.node_client import NodeClient

_STEP: Final = 100_000
"""After how many bytes the display is told: line by line it would take longer than the download."""


class Counter:
    """Shows how much has come."""

    def __init__(self, bar: Progress) -> None:
        """Nothing has come yet."""
        self._bar = bar
        self._task = bar.add_task("", lines="0", bytes="0 bytes")
        self._shown = -_STEP
        self.lines = 0
        self.bytes = 0

    def add(self, chunk: bytes) -> None:
        """So much more."""
        self.lines += chunk.count(b"\n")
        self.bytes += len(chunk)
        if self.bytes - self._shown >= _STEP:
            self._shown = self.bytes
            self._bar.update(self._task, lines=f"{self.lines:,}", bytes=in_words(self.bytes))


@contextmanager
def counting(what: str, console: Console | None = None) -> Iterator[Counter]:
    """Count, and show it on standard error where that is a terminal; ``what`` is being done."""
    shown_on = console or Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn(f"{what} {{task.fields[lines]}} lines, {{task.fields[bytes]}}"),
        TimeElapsedColumn(),
        console=shown_on,
        transient=True,
        disable=not shown_on.is_terminal,
    ) as bar:
        yield Counter(bar)


def save(node: NodeClient, path: str, out: Path, console: Console | None = None) -> int:
    """Write what ``path`` gives to ``out``, which is there when it is whole; how many lines it has."""
    draft = out.with_name(f".{out.name}.part")
    with (
        node.stream(path) as answer,
        draft.open("wb") as file,
        counting("exporting", console) as count,
    ):
        for chunk in answer.iter_bytes():
            file.write(chunk)
            count.add(chunk)
    draft.replace(out)
    return count.lines


def in_words(size: int) -> str:
    """``1.5 MB``; bytes below a thousand as they are."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:  # noqa: PLR2004 -- a thousand of one is one of the next
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
