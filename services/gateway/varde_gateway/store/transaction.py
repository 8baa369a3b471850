"""What a step of the ledger may do: add rows, change them, record audit entries and events.

Rows, entries and events are collected and written together when the batch ends: at full load one statement serves
many steps.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, insert, select, update

from varde.auditlog import AuditKind, AuditLeaf, format_leaf
from varde.encoding import Json
from varde.heartbeat import CHAIN_START, Arrivals, advance_chain
from varde.merkle import Frontier, leaf_hash
from varde_gateway.store.mentions import subjects_of
from varde_gateway.store.numbering import load_arrivals, save_arrivals
from varde_gateway.store.tables import (
    audit_leaves_table,
    audit_nodes_table,
    audit_subjects_table,
    events_table,
    peers_table,
)

MAX_ACTOR: Final = 160
MAX_TEXT: Final = 160
SALT_BYTES: Final = 16


_ADVANCE_SEQUENCE: Final = (
    update(peers_table)
    .where(peers_table.c.nation == bindparam("key_nation"))
    .values(next_sequence=bindparam("following"), sent_chain=bindparam("chain"))
)


@dataclass(frozen=True, slots=True)
class Event:
    """What the event stream sends; ``at`` in Unix milliseconds."""

    id: int
    kind: str
    at: int
    data: dict[str, Json]


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: AuditKind
    actor: str
    subjects: tuple[tuple[str, str], ...]
    detail: str


@dataclass(slots=True)
class Transaction:
    """One transaction of the ledger; ``now`` in Unix milliseconds is the same for the whole batch."""

    connection: Connection
    now: int
    next_event: int
    events: list[Event] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    _sent: dict[str, tuple[int, bytes]] | None = None
    _numbered: set[str] = field(default_factory=set)
    _arrivals: dict[str, tuple[Arrivals, frozenset[int]]] = field(default_factory=dict)
    _rows: dict[Table, list[Mapping[str, Any]]] = field(default_factory=dict)
    _entries: list[_Entry] = field(default_factory=list)

    def add(self, table: Table, *rows: Mapping[str, Any]) -> None:
        """Insert rows when the batch ends, or at ``flush``; rows of one table have the same columns."""
        if rows:
            self._rows.setdefault(table, []).extend(rows)

    def number(self, recipient: str, digest: str) -> int:
        """The next number of what we send to ``recipient``, without a gap; the chain takes its ``digest`` in."""
        if self._sent is None:
            rows = self.connection.execute(
                select(peers_table.c.nation, peers_table.c.next_sequence, peers_table.c.sent_chain)
            )
            self._sent = {
                row.nation: (row.next_sequence, row.sent_chain or CHAIN_START) for row in rows
            }
        number, chain = self._sent[recipient]
        self._sent[recipient] = number + 1, advance_chain(chain, digest)
        self._numbered.add(recipient)
        return number

    def begin_again(self, recipient: str, first: int) -> None:
        """Number what follows for ``recipient`` from ``first`` on, with a new chain."""
        self.connection.execute(
            update(peers_table)
            .where(peers_table.c.nation == recipient)
            .values(sent_from=first, next_sequence=first, sent_chain=None)
        )
        if self._sent is not None:
            self._sent[recipient] = first, CHAIN_START

    def arrivals(self, sender: str) -> Arrivals:
        """What has come of the sender's numbers, to be changed in place; kept when the batch ends."""
        if sender not in self._arrivals:
            arrivals = load_arrivals(self.connection, sender)
            self._arrivals[sender] = arrivals, frozenset(arrivals.above)
        return self._arrivals[sender][0]

    def flush(self) -> None:
        """Insert now what was added: for a step that must read or change what this batch may have added."""
        rows, self._rows = self._rows, {}
        for table, added in rows.items():
            self.connection.execute(insert(table), added)

    def audit(
        self, kind: AuditKind, actor: str, subjects: Sequence[tuple[str, str]], detail: str = ""
    ) -> None:
        """Record an entry of the audit log: ids and digests only, never content."""
        labelled = tuple((label, _storable(value, MAX_TEXT)) for label, value in subjects)
        self._entries.append(
            _Entry(kind, _storable(actor, MAX_ACTOR), labelled, _storable(detail, MAX_TEXT))
        )

    def event(self, kind: str, data: dict[str, Json]) -> int:
        """Record an event and return its id, which also serves as the serial number of what it announces."""
        event = Event(self.next_event + len(self.events), kind, self.now, data)
        self.events.append(event)
        return event.id

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the event loop once the transaction is durable."""
        self.callbacks.append(callback)

    def finish(self, frontier: Frontier, random: Callable[[int], bytes]) -> Frontier:
        """Write everything that was collected; returns the log's new right edge."""
        self.add(events_table, *(_event_row(event) for event in self.events))
        if self._sent is not None and self._numbered:
            moved = [
                {"key_nation": each, "following": number, "chain": chain}
                for each, (number, chain) in self._sent.items()
                if each in self._numbered
            ]
            self.connection.execute(_ADVANCE_SEQUENCE, moved)
        for sender, (arrivals, stored_above) in self._arrivals.items():
            save_arrivals(self.connection, sender, arrivals, stored_above)
        for entry in self._entries:
            frontier = self._append(entry, frontier, random)
        self.flush()
        return frontier

    def _append(
        self, entry: _Entry, frontier: Frontier, random: Callable[[int], bytes]
    ) -> Frontier:
        index = frontier.size
        entered = AuditLeaf(
            index=index,
            kind=entry.kind,
            at=self.now,
            actor=entry.actor,
            subjects=entry.subjects,
            detail=entry.detail,
            salt=random(SALT_BYTES),
        )
        leaf = format_leaf(entered)
        digest = leaf_hash(leaf)
        frontier, nodes = frontier.append(digest)
        self.add(
            audit_leaves_table,
            {
                "index": index,
                "kind": entry.kind.value,
                "at": self.now,
                "actor": entry.actor,
                "leaf": leaf.decode(),
                "hash": digest,
            },
        )
        for label, value in subjects_of(entered):
            self.add(audit_subjects_table, {"index": index, "label": label, "value": value})
        for level, place, node in nodes:
            if level > 0:
                self.add(audit_nodes_table, {"level": level, "index": place, "hash": node})
        return frontier


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "kind": event.kind,
        "at": event.at,
        "data": json.dumps(event.data, ensure_ascii=False, separators=(",", ":")),
    }


def _storable(text: str, most: int) -> str:
    # What a stranger sent may be quoted in an entry; nothing in it may stop the transaction that records it.
    return text[:most].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
