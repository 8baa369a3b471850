"""Verifying an exported audit log offline: every entry, their order, and every checkpoint that was signed over them.

Protocol section 10.5. The export is JSON Lines: a header, the entries in order with the checkpoints where they were
signed, an end line. Verification is one pass in constant memory. An entry names its own index, so that a deleted,
inserted or moved one is named exactly; where somebody recomputed what could be recomputed, the signed checkpoints
say between which entries the log was altered.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from varde.checkpoint import open_checkpoint
from varde.encoding import decode_base64url
from varde.errors import Malformed, VardeError
from varde.merkle import Frontier, leaf_hash
from varde.note import KeyType, NoteKey, parse_vkey

FORMAT: Final = "audit-log"
FORMAT_VERSION: Final = 1
PROGRESS_EVERY: Final = 5000
MAX_FINDINGS: Final = 100


class Fault(StrEnum):
    """What was done to the log."""

    CHANGED = "changed"
    DELETED = "deleted"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    TRUNCATED = "truncated"
    BAD_CHECKPOINT = "bad_checkpoint"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and the entries ``first`` to ``last`` in which it lies."""

    fault: Fault
    first: int
    last: int
    detail: str


@dataclass(frozen=True, slots=True)
class Progress:
    """So many entries have been read."""

    entries: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome.

    ``signed_entries`` is the size of the largest checkpoint that matches; ``keys_pinned`` says whether the verifier was
    told the log's key, or had to take it from the file.
    """

    origin: str
    nation: str
    entries: int
    checkpoints: int
    signed_entries: int
    findings: tuple[Finding, ...]
    keys_pinned: bool

    @property
    def intact(self) -> bool:
        """Whether nothing was found, and at least the signed part is as it was signed."""
        return not self.findings


Report: TypeAlias = Progress | Verdict


@dataclass(slots=True)
class _Reader:
    key: NoteKey
    frontier: Frontier = field(default_factory=Frontier)
    expected: int = 0
    last_good: int = 0
    checkpoints: int = 0
    suspect: tuple[int, int] | None = None
    waiting: int | None = None
    displaced: dict[int, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def find(self, fault: Fault, first: int, last: int, detail: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(fault, first, last, detail))

    def take_entry(self, line: dict[str, Any]) -> None:
        index, leaf, stored = _entry(line)
        raw = leaf.encode()
        digest = leaf_hash(raw)
        if digest != stored or not leaf.startswith(f'{{"index":{index},"kind":'):
            self.find(Fault.CHANGED, index, index, f"entry {index} is not what its hash says")
        self.frontier, _ = self.frontier.append(digest)
        self.place_waiting(following=index)
        self.waiting = index

    def place_waiting(self, following: int | None) -> None:
        """Judge the place of the entry before this one: what follows tells a swap from a deletion."""
        index, expected = self.waiting, self.expected
        if index is None:
            return
        self.waiting = None
        if index == expected:
            self.expected += 1
        elif index < expected:
            self._take_earlier(index)
        elif following is not None and following <= expected + 1:
            # The one that belongs here, or its successor, comes next: this one stands in another's place.
            self.displaced[expected] = index
            self.expected += 1
        else:
            missing = f"{expected}" if index == expected + 1 else f"{expected} to {index - 1}"
            self.find(Fault.DELETED, expected, index - 1, f"entry {missing} is missing")
            self.expected = index + 1

    def _take_earlier(self, index: int) -> None:
        other = self.displaced.pop(index, None)
        if other is not None and other == self.expected:
            self.find(
                Fault.SWAPPED,
                index,
                other,
                f"entries {index} and {other} stand in each other's place",
            )
            self.expected += 1
        else:
            self.find(Fault.INSERTED, index, index, f"entry {index} was inserted a second time")

    def take_checkpoint(self, raw: str) -> None:
        size = self.frontier.size
        try:
            checkpoint = open_checkpoint(raw, self.key)
        except VardeError as error:
            self.find(Fault.BAD_CHECKPOINT, size, size, f"after entry {size - 1}: {error.detail}")
            return
        if (checkpoint.size, checkpoint.root) == (size, self.frontier.root()):
            self.checkpoints += 1
            self.last_good = size
        elif self.suspect is None:
            self.suspect = (self.last_good, checkpoint.size - 1)

    def take_end(self, entries: int, raw: str) -> None:
        self.place_waiting(following=None)
        try:
            size = open_checkpoint(raw, self.key).size
        except VardeError as error:
            self.find(Fault.BAD_CHECKPOINT, entries, entries, f"the last one: {error.detail}")
            return
        read = self.expected
        if read < max(size, entries):
            last = max(size, entries) - 1
            self.find(Fault.TRUNCATED, read, last, f"entries {read} to {last} were cut off")
        elif size == self.frontier.size and self.last_good != size:
            self.take_checkpoint(raw)

    def finish(self) -> None:
        self.place_waiting(following=None)
        for place, index in self.displaced.items():
            self.find(Fault.INSERTED, index, index, f"entry {index} stands in the place of {place}")
        if self.suspect is not None:
            self._blame_range(*self.suspect)

    def _blame_range(self, first: int, last: int) -> None:
        # A fault that is named exactly already explains why the checkpoint after it does not match.
        if any(each.first <= last for each in self.findings):
            return
        self.find(
            Fault.CHANGED,
            first,
            last,
            f"entries {first} to {last} are not those that the checkpoint of {last + 1} entries signs",
        )


def verify_export(lines: Iterable[str], pinned: Sequence[str] = ()) -> Iterator[Report]:
    """Verify an export line by line; yields ``Progress`` now and then and one ``Verdict`` at the end.

    ``pinned`` are vkeys that the verifier knows from elsewhere (the roster); without them the file's own key is taken
    and the verdict says so. ``Malformed`` where the file is no export at all.
    """
    iterator = _parsed(lines)
    header = next(iterator, None)
    origin, nation, key, from_outside = _open_header(header, pinned)
    reader = _Reader(key)
    ended = False
    for line in iterator:
        if "leaf" in line:
            reader.take_entry(line)
            if reader.frontier.size % PROGRESS_EVERY == 0:
                yield Progress(reader.frontier.size)
        elif "checkpoint" in line:
            reader.take_checkpoint(str(line["checkpoint"]))
        elif "end" in line:
            ended = True
            reader.take_end(*_end(line["end"]))
        else:
            reader.find(
                Fault.UNREADABLE, reader.expected, reader.expected, "a line is not of an export"
            )
    reader.finish()
    if not ended:
        reader.find(
            Fault.TRUNCATED,
            reader.expected,
            reader.expected,
            f"the file ends after entry {reader.expected - 1}",
        )
    yield Verdict(
        origin=origin,
        nation=nation,
        entries=reader.frontier.size,
        checkpoints=reader.checkpoints,
        signed_entries=reader.last_good,
        findings=tuple(reader.findings),
        keys_pinned=from_outside,
    )


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = {}
        yield value if isinstance(value, dict) else {}


def _open_header(
    header: dict[str, Any] | None, pinned: Sequence[str]
) -> tuple[str, str, NoteKey, bool]:
    if header is None or (header.get("varde"), header.get("v")) != (FORMAT, FORMAT_VERSION):
        raise Malformed("this is not an exported audit log (make one with 'varde audit export')")
    keys = [parse_vkey(each) for each in (pinned or header.get("vkeys") or ())]
    logs = [each for each in keys if each.type is KeyType.ED25519]
    origin = str(header.get("origin"))
    key = next((each for each in logs if each.name == origin), None)
    if key is None:
        raise Malformed(f"no key for the log {origin!r} is given")
    return origin, str(header.get("nation")), key, bool(pinned)


def _entry(line: dict[str, Any]) -> tuple[int, str, bytes]:
    index, leaf, stored = line.get("index"), line.get("leaf"), line.get("hash")
    if not isinstance(index, int) or not isinstance(leaf, str):
        return -1, "", b""
    try:
        return index, leaf, decode_base64url(stored, length=32)
    except Malformed:
        return index, leaf, b""


def _end(value: object) -> tuple[int, str]:
    if not isinstance(value, dict) or not isinstance(value.get("entries"), int):
        return 0, ""
    return value["entries"], str(value.get("checkpoint"))
