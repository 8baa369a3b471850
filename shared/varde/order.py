"""Whether the entries of an exported log stand in their order, each once: what was deleted, inserted or swapped, and where.

Protocol section 10.5. An entry names its own index, so that one that was moved is named exactly. Nothing here knows a
checkpoint; memory is bounded, whatever the file.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MAX_FINDINGS: Final = 100


class Fault(StrEnum):
    """What was done to the log; a short ``UNSIGNED_TAIL`` alone is no sign of tampering."""

    CHANGED = "changed"
    DELETED = "deleted"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    TRUNCATED = "truncated"
    BAD_CHECKPOINT = "bad_checkpoint"
    BAD_ROSTER = "bad_roster"
    UNREADABLE = "unreadable"
    UNSIGNED_TAIL = "unsigned_tail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and the entries ``first`` to ``last`` in which it lies."""

    fault: Fault
    first: int
    last: int
    detail: str


@dataclass(slots=True)
class Findings:
    """What was found, in order; more than anybody reads is not kept."""

    found: list[Finding] = field(default_factory=list)

    def add(self, fault: Fault, first: int, last: int, detail: str) -> None:
        """Keep it, where there is room."""
        if len(self.found) < MAX_FINDINGS:
            self.found.append(Finding(fault, first, last, detail))


@dataclass(slots=True)
class Order:
    """The order of the entries that were taken so far; ``expected`` is the index that should come next.

    ``rows`` counts what was taken; ``disordered_at`` is the first row that is not in its place. Each is judged when the
    next one is known: what follows tells a swap from a deletion.
    """

    findings: Findings
    expected: int = 0
    rows: int = 0
    disordered_at: int | None = None
    _waiting: int | None = None
    _displaced: dict[int, int] = field(default_factory=dict)

    def take(self, index: int) -> None:
        """The next row is entry ``index``."""
        self.settle(following=index)
        self._waiting = index
        self.rows += 1

    def settle(self, following: int | None = None) -> None:
        """Judge the place of the last one taken; None where nothing follows it."""
        index, expected = self._waiting, self.expected
        self._waiting = None
        if index is None:
            return
        if index == expected:
            self.expected += 1
            return
        if self.disordered_at is None:
            self.disordered_at = self.rows - 1
        if index < expected:
            self._take_earlier(index)
        elif following is not None and following <= expected + 1:
            # The one that belongs here, or its successor, comes next: this one stands in another's place.
            self._displace(index)
        else:
            missing = f"{expected}" if index == expected + 1 else f"{expected} to {index - 1}"
            self.findings.add(Fault.DELETED, expected, index - 1, f"entry {missing} is missing")
            self.expected = index + 1

    def finish(self) -> None:
        """Nothing follows: what stands in another's place was put there."""
        self.settle()
        for place, index in self._displaced.items():
            detail = f"entry {index} stands in the place of {place}"
            self.findings.add(Fault.INSERTED, index, index, detail)

    def explains(self, size: int) -> bool:
        """Whether an entry out of order already explains that a tree of the first ``size`` rows is another one."""
        return self.disordered_at is not None and self.disordered_at < size

    def _displace(self, index: int) -> None:
        # Bounded, so that a file of nothing but misplaced entries takes no memory.
        if len(self._displaced) < MAX_FINDINGS:
            self._displaced[self.expected] = index
        self.expected += 1

    def _take_earlier(self, index: int) -> None:
        other = self._displaced.pop(index, None)
        if other is not None and other == self.expected:
            detail = f"entries {index} and {other} stand in each other's place"
            self.findings.add(Fault.SWAPPED, index, other, detail)
            self.expected += 1
        else:
            detail = f"entry {index} was inserted a second time"
            self.findings.add(Fault.INSERTED, index, index, detail)
