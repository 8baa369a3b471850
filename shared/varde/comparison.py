"""An exported log beside checkpoints of it that others hold: were they shown the same history as whoever reads the file?

Protocol section 10.5. A file that is consistent with itself may still be one of two histories. Each checkpoint that the
verifier was given, as a peer stored it or a witness cosigned it, must be over the first entries of the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from varde.attestation import open_with_any
from varde.checkpoint import LogKey
from varde.errors import VardeError
from varde.merkle import Frontier
from varde.order import Fault, Findings, Order


@dataclass(slots=True)
class Comparison:
    """``notes`` are what was given; ``held`` the sizes of those that the file contains, in order."""

    notes: Sequence[str]
    held: list[int] = field(default_factory=list)
    _wanted: dict[int, list[bytes]] = field(default_factory=dict)
    _missed: list[tuple[int, int]] = field(default_factory=list)

    def open(self, keys: Iterable[LogKey], findings: Findings) -> None:
        """Open them with the keys of the log, before its first entry."""
        for number, raw in enumerate(self.notes, start=1):
            try:
                checkpoint, _ = open_with_any(raw, keys)
            except VardeError as error:
                detail = f"checkpoint {number} of those that you gave: {error.detail}"
                findings.add(Fault.BAD_CHECKPOINT, 0, 0, detail)
            else:
                self._wanted.setdefault(checkpoint.size, []).append(checkpoint.root)

    def meet(self, log: Frontier) -> None:
        """Hold those of this size against the log, as far as it was read."""
        before = self.held[-1] if self.held else 0
        for root in self._wanted.pop(log.size, ()):
            if root == log.root():
                self.held.append(log.size)
            else:
                self._missed.append((before, log.size))

    def judge(self, order: Order, findings: Findings) -> None:
        """What is wrong, at the end of the file."""
        for first, size in self._missed:
            if not order.explains(size):
                detail = (
                    f"entries {first} to {size - 1} are not those that the checkpoint of {size} entries that you gave "
                    "signs: its holder was shown another history"
                )
                findings.add(Fault.CHANGED, first, size - 1, detail)
        read = order.expected
        for size in sorted(self._wanted):
            if size > read:
                detail = f"the checkpoint of {size} entries that you gave signs entries {read} to {size - 1}, too"
                findings.add(Fault.TRUNCATED, read, size - 1, detail)
