"""Since when our own broker has stored nothing in which stream, and what a person is told of it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

STUCK_AFTER_MS: Final = 12_000
"""Added to the five seconds for which the first publish waited: a broker that is only slow has answered by then."""

STORES_NOTHING: Final = "stores nothing"
"""How ``trouble`` begins."""


@dataclass(slots=True)
class Storing:
    """``trouble`` is empty while every stream stores; ``since`` is of a clock that never steps, by stream."""

    trouble: str = ""
    since: dict[str, int] = field(default_factory=dict)

    def judge(self, failed: Collection[str], asked_at: int, now: int) -> list[str]:
        """After a look at all streams: those that have not stored for so long that they will not by themselves."""
        self.since = {stream: self.since.get(stream, asked_at) for stream in failed}
        return sorted(each for each, at in self.since.items() if now - at >= STUCK_AFTER_MS)
