"""Deliveries on their way from a commit to the outbox worker, urgent first.

A hint only: what is lost here (a full queue, a dead process) is found again in the database by the worker's sweep.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from varde.identifiers import DocumentId, Lane, Nation
from varde.signing import Kind

MAX_HELD: Final = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery to try now; ``expires_at`` in Unix seconds, ``attempt`` counts from 1.

    ``through`` is a nation that shall hand it on, beside the direct link.
    """

    document: DocumentId
    recipient: Nation
    kind: Kind
    lane: Lane
    sealed: bool
    sequence: int
    expires_at: int
    raw: bytes
    attempt: int
    through: Nation | None = None

    @property
    def key(self) -> tuple[DocumentId, Nation]:
        """What makes a delivery one."""
        return self.document, self.recipient


class Outgoing:
    """Two lanes of jobs; one delivery is held, or in work, at most once."""

    def __init__(self) -> None:
        """Empty."""
        self._lanes: dict[Lane, deque[Job]] = {Lane.URGENT: deque(), Lane.ROUTINE: deque()}
        self._known: dict[Lane, set[tuple[DocumentId, Nation]]] = {lane: set() for lane in Lane}
        self._wake = asyncio.Event()
        self._look_now = False

    def offer(self, jobs: Iterable[Job]) -> None:
        """Take what there is room for and is not here yet."""
        for job in jobs:
            # Each lane has its own room: ten thousand routine deliveries shall not keep an urgent one out.
            known = self._known[job.lane]
            if job.key not in known and len(known) < MAX_HELD:
                known.add(job.key)
                self._lanes[job.lane].append(job)
        self._wake.set()

    async def take(self, most: int, wait_seconds: float) -> list[Job]:
        """Up to ``most`` jobs, urgent before routine; an empty list after ``wait_seconds`` without any."""
        if not any(self._lanes.values()):
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        taken: list[Job] = []
        for lane in (Lane.URGENT, Lane.ROUTINE):
            jobs = self._lanes[lane]
            while jobs and len(taken) < most:
                taken.append(jobs.popleft())
        return taken

    def busy(self) -> bool:
        """Whether deliveries wait to be taken."""
        return any(self._lanes.values())

    def finish(self, jobs: Iterable[Job]) -> None:
        """These are done with for now; the database says when they come again."""
        for job in jobs:
            self._known[job.lane].discard(job.key)

    def wake(self) -> None:
        """Let the worker look at the database now."""
        self._look_now = True
        self._wake.set()

    def asked_to_look(self) -> bool:
        """Whether ``wake`` was called since the last question."""
        asked, self._look_now = self._look_now, False
        return asked
