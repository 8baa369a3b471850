"""The one writer of a node's database: facts, their audit entries and their events, in one durable transaction.

Steps that arrive while a commit is under way share the next one (group commit). Where one step of a batch fails, the
batch is rolled back and taken apart: every step then has a transaction of its own, so that none takes anything of
another with it. The audit log's order is the order of commits; on PostgreSQL an advisory lock keeps it single across
replicas. Reads go through their own connections and never wait for the writer.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, Engine, func, select, text

from varde.merkle import Frontier
from varde_gateway.store.tables import audit_leaves_table, events_table
from varde_gateway.store.transaction import Event, Transaction
from varde_gateway.store.tree import load_frontier

T = TypeVar("T")

MAX_BATCH: Final = 256
_LEDGER_LOCK: Final = 0x7661726465
"""The key of the advisory lock: "varde"."""
_ENDS: Final = select(
    select(func.coalesce(func.max(events_table.c.id), 0)).scalar_subquery(),
    select(func.coalesce(func.max(audit_leaves_table.c.index), -1)).scalar_subquery(),
)


@dataclass(slots=True)
class _Step:
    act: Callable[[Transaction], Any]
    future: Future[Any]


class Ledger:
    """Owns the writer thread. Use as an async context manager."""

    def __init__(
        self,
        writer: Engine,
        reader: Engine,
        *,
        now: Callable[[], int],
        random: Callable[[int], bytes],
        reader_threads: int = 4,
    ) -> None:
        """``now`` gives Unix milliseconds; ``random`` that many random bytes.

        ``commits`` counts those of this process; ``shared`` says that other processes may commit too.
        """
        self._writer = writer
        self._reader = reader
        self._now = now
        self._random = random
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._readers = ThreadPoolExecutor(reader_threads, thread_name_prefix="ledger-reader")
        self._frontier = Frontier()
        self.commits = 0
        self.shared = writer.dialect.name == "postgresql"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[list[Event]], None]] = []

    async def __aenter__(self) -> Self:
        """Start the writer; callbacks run on the loop that is running now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what was handed in, then stop."""
        self._steps.put(None)
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()

    def listen(self, listener: Callable[[list[Event]], None]) -> None:
        """Call ``listener`` on the event loop with the events of every commit of this process."""
        self._listeners.append(listener)

    async def write(self, step: Callable[[Transaction], T]) -> T:
        """Run ``step`` in the writer's next transaction; returns after the commit, raises what the step raised.

        A step may be run twice, the first run rolled back: it acts through its transaction and on nothing else.
        """
        future: Future[T] = Future()
        self._steps.put(_Step(step, future))
        return await asyncio.wrap_future(future)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` on a connection of its own, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self.read_here, query
        )

    def read_here(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` in the calling thread."""
        with self._reader.connect() as connection:
            return query(connection)

    def _run(self) -> None:
        while True:
            batch, last = self._next_batch()
            # A caller that has gone before its step began wants nothing any more; after that it cannot take it back.
            wanted = [step for step in batch if step.future.set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)
            if last:
                return

    def _next_batch(self) -> tuple[list[_Step], bool]:
        step = self._steps.get()
        batch: list[_Step] = []
        while step is not None:
            batch.append(step)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                step = self._steps.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Step]) -> None:
        try:
            answers, transaction = self._commit_together(batch)
        except Exception as error:  # noqa: BLE001 -- whatever it was, it is the answer to the step alone in its batch
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for step in batch:
                    self._commit([step])
            return
        if self._loop is not None and (transaction.events or transaction.callbacks):
            self._loop.call_soon_threadsafe(self._tell, transaction)
        for step, answer in zip(batch, answers, strict=True):
            step.future.set_result(answer)

    def _commit_together(self, batch: list[_Step]) -> tuple[list[Any], Transaction]:
        with self._writer.begin() as connection:
            if self.shared:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LEDGER_LOCK}
                )
            newest_event, newest_leaf = connection.execute(_ENDS).one()
            frontier = self._frontier
            if frontier.size != newest_leaf + 1:
                frontier = load_frontier(connection, newest_leaf + 1)
            transaction = Transaction(connection, self._now(), newest_event + 1)
            answers = [step.act(transaction) for step in batch]
            frontier = transaction.finish(frontier, self._random)
        self._frontier = frontier
        self.commits += 1
        return answers, transaction

    def _tell(self, transaction: Transaction) -> None:
        if transaction.events:
            for listener in self._listeners:
                listener(transaction.events)
        for callback in transaction.callbacks:
            callback()
