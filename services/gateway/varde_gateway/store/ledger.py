"""The one writer of a node's database: facts, their audit entries and their events, in one durable transaction.

Steps that arrive while a commit is under way share the next one (group commit), each in its own savepoint: one that
fails takes nothing of the others with it. The audit log's order is the order of commits; on PostgreSQL an advisory lock
keeps it single across replicas. Reads go through their own connections and never wait for the writer.
"""

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, Engine, func, insert, select, text

from varde.auditlog import AuditKind, AuditLeaf, format_leaf
from varde.encoding import Json
from varde.merkle import Frontier, leaf_hash
from varde_gateway.store.tables import (
    audit_leaves_table,
    audit_nodes_table,
    audit_subjects_table,
    events_table,
)
from varde_gateway.store.tree import load_frontier, log_size

T = TypeVar("T")

MAX_BATCH: Final = 256
MAX_ACTOR: Final = 160
MAX_TEXT: Final = 160
_SALT_BYTES: Final = 16
_LEDGER_LOCK: Final = 0x7661726465  # "varde", the key of the advisory lock


@dataclass(frozen=True, slots=True)
class Event:
    """What the event stream sends; ``at`` in Unix milliseconds."""

    id: int
    kind: str
    at: int
    data: dict[str, Json]


@dataclass(slots=True)
class _Pending:
    leaves: list[tuple[AuditKind, str, tuple[tuple[str, str], ...], str]] = field(
        default_factory=list
    )
    events: list[tuple[str, dict[str, Json]]] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def mark(self) -> tuple[int, int, int]:
        return len(self.leaves), len(self.events), len(self.callbacks)

    def cut_back(self, mark: tuple[int, int, int]) -> None:
        del self.leaves[mark[0] :], self.events[mark[1] :], self.callbacks[mark[2] :]


class Transaction:
    """What a step may do: use the connection, record audit entries and events, and ask to be called after commit."""

    def __init__(
        self, connection: Connection, now: int, pending: _Pending, next_event: int
    ) -> None:
        """``now`` in Unix milliseconds, one for the whole batch."""
        self.connection = connection
        self.now = now
        self._pending = pending
        self._next_event = next_event

    def audit(
        self, kind: AuditKind, actor: str, subjects: Sequence[tuple[str, str]], detail: str = ""
    ) -> None:
        """Record an entry of the audit log: ids and digests only, never content."""
        labelled = tuple((label, _storable(value, MAX_TEXT)) for label, value in subjects)
        self._pending.leaves.append(
            (kind, _storable(actor, MAX_ACTOR), labelled, _storable(detail, MAX_TEXT))
        )

    def event(self, kind: str, data: dict[str, Json]) -> int:
        """Record an event and return its id, which also serves as the serial number of what it announces."""
        self._pending.events.append((kind, data))
        return self._next_event + len(self._pending.events) - 1

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the event loop once the transaction is durable."""
        self._pending.callbacks.append(callback)


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
        """``now`` gives Unix milliseconds; ``random`` that many random bytes."""
        self._writer = writer
        self._reader = reader
        self._now = now
        self._random = random
        self._steps: queue.SimpleQueue[tuple[Callable[[Transaction], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._readers = ThreadPoolExecutor(reader_threads, thread_name_prefix="ledger-reader")
        self._frontier: Frontier | None = None
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
        """Run ``step`` in the writer's next transaction; returns after the commit, raises what the step raised."""
        future: Future[T] = Future()
        self._steps.put((step, future))
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
            first = self._steps.get()
            if first is None:
                return
            batch = [first]
            last = False
            while len(batch) < MAX_BATCH:
                try:
                    following = self._steps.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[tuple[Callable[[Transaction], Any], Future[Any]]]) -> None:
        answers: list[tuple[Future[Any], Any, BaseException | None]] = []
        pending = _Pending()
        try:
            with self._writer.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LEDGER_LOCK}
                    )
                now = self._now()
                next_event = (connection.scalar(select(func.max(events_table.c.id))) or 0) + 1
                transaction = Transaction(connection, now, pending, next_event)
                for step, future in batch:
                    answers.append((future, *self._attempt(step, transaction, pending, len(batch))))
                events = _insert_events(connection, pending, now, next_event)
                frontier = self._append_leaves(connection, pending, now)
        except Exception as error:  # noqa: BLE001 -- whatever stopped the commit is the answer to every step in it
            self._frontier = None
            for _, future in batch:
                future.set_exception(error)
            return
        self._frontier = frontier
        if self._loop is not None and (events or pending.callbacks):
            self._loop.call_soon_threadsafe(self._tell, events, pending.callbacks)
        for future, answer, failure in answers:
            if failure is None:
                future.set_result(answer)
            else:
                future.set_exception(failure)

    @staticmethod
    def _attempt(
        step: Callable[[Transaction], Any], transaction: Transaction, pending: _Pending, of: int
    ) -> tuple[Any, BaseException | None]:
        if of == 1:
            # Alone in its transaction: its failure rolls the whole back.
            return step(transaction), None
        mark = pending.mark()
        savepoint = transaction.connection.begin_nested()
        try:
            answer = step(transaction)
        except Exception as error:  # noqa: BLE001 -- handed to the caller of this step; the others go on
            savepoint.rollback()
            pending.cut_back(mark)
            return None, error
        savepoint.commit()
        return answer, None

    def _append_leaves(self, connection: Connection, pending: _Pending, now: int) -> Frontier:
        size = log_size(connection)
        frontier = self._frontier
        if frontier is None or frontier.size != size:
            frontier = load_frontier(connection, size)
        leaf_rows: list[dict[str, Any]] = []
        subject_rows: list[dict[str, Any]] = []
        node_rows: list[dict[str, Any]] = []
        for kind, actor, subjects, detail in pending.leaves:
            index = frontier.size
            leaf = format_leaf(
                AuditLeaf(
                    index=index,
                    kind=kind,
                    at=now,
                    actor=actor,
                    subjects=subjects,
                    detail=detail,
                    salt=self._random(_SALT_BYTES),
                )
            )
            digest = leaf_hash(leaf)
            frontier, nodes = frontier.append(digest)
            leaf_rows.append(
                {
                    "index": index,
                    "kind": kind.value,
                    "at": now,
                    "actor": actor,
                    "leaf": leaf.decode(),
                    "hash": digest,
                }
            )
            subject_rows += [
                {"index": index, "label": label, "value": value}
                for label, value in dict.fromkeys(subjects)
            ]
            node_rows += [
                {"level": level, "index": place, "hash": value}
                for level, place, value in nodes
                if level > 0
            ]
        for table, rows in (
            (audit_leaves_table, leaf_rows),
            (audit_subjects_table, subject_rows),
            (audit_nodes_table, node_rows),
        ):
            if rows:
                connection.execute(insert(table), rows)
        return frontier

    def _tell(self, events: list[Event], callbacks: list[Callable[[], None]]) -> None:
        if events:
            for listener in self._listeners:
                listener(events)
        for callback in callbacks:
            callback()


def _storable(text: str, most: int) -> str:
    # What a stranger sent may be quoted in an entry; nothing in it may stop the transaction that records it.
    return text[:most].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _insert_events(
    connection: Connection, pending: _Pending, now: int, next_event: int
) -> list[Event]:
    events = [
        Event(next_event + place, kind, now, data)
        for place, (kind, data) in enumerate(pending.events)
    ]
    if events:
        connection.execute(
            insert(events_table),
            [
                {
                    "id": event.id,
                    "kind": event.kind,
                    "at": event.at,
                    "data": json.dumps(event.data, ensure_ascii=False, separators=(",", ":")),
                }
                for event in events
            ],
        )
    return events
