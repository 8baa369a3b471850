"""How much each peer may have us hand on to others: so many documents and bytes a second, and a burst of both.

Memory only: a node that begins anew gives everybody the whole burst.
"""

from dataclasses import dataclass
from typing import Final

from varde.identifiers import Nation

DOCUMENTS_PER_SECOND: Final = 200
BYTES_PER_SECOND: Final = 2 * 1024 * 1024
BURST_SECONDS: Final = 10
"""So many seconds' worth may come at once, after as long a pause."""


@dataclass(slots=True)
class _Budget:
    at: int
    documents: float = DOCUMENTS_PER_SECOND * BURST_SECONDS
    bytes: float = BYTES_PER_SECOND * BURST_SECONDS

    def fill(self, now: int) -> None:
        seconds = (now - self.at) / 1000
        self.at = now
        self.documents = min(
            self.documents + seconds * DOCUMENTS_PER_SECOND, DOCUMENTS_PER_SECOND * BURST_SECONDS
        )
        self.bytes = min(self.bytes + seconds * BYTES_PER_SECOND, BYTES_PER_SECOND * BURST_SECONDS)


class Budgets:
    """One for each link."""

    def __init__(self) -> None:
        """Nobody has used anything yet."""
        self._budgets: dict[Nation, _Budget] = {}

    def allows(self, link: Nation, size: int, now: int) -> bool:
        """Whether ``link`` may have one more document of ``size`` bytes handed on; if so, it is taken from its budget."""
        budget = self._budgets.setdefault(link, _Budget(now))
        budget.fill(now)
        if budget.documents < 1 or budget.bytes < size:
            return False
        budget.documents -= 1
        budget.bytes -= size
        return True
