"""What searches of the audit log go by, held against the entries themselves.

The columns beside a leaf and the rows of ``audit_subject`` are an index: no signature covers them, and who edits them by
hand makes an entry vanish from searches, trails and evidence while the log stays intact. Here they are made again from the
bytes of each leaf, and every difference is named. Whether the leaves are those that were signed says ``varde audit verify``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, TypeAlias

from sqlalchemy import Connection, func, or_, select
from sqlalchemy.exc import OperationalError

from varde.auditlog import AuditLeaf, parse_leaf
from varde.errors import VardeError
from varde.merkle import leaf_hash
from varde_gateway.store.mentions import subjects_of
from varde_gateway.store.tables import AnyRow, audit_leaves_table, audit_subjects_table

MAX_STRAYS: Final = 100
_leaf = audit_leaves_table.c
_subject = audit_subjects_table.c


class IndexFault(StrEnum):
    """What is not as the entry says."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    HASH = "hash"
    KIND = "kind"
    TIME = "time"
    ACTOR = "actor"
    SUBJECT_MISSING = "subject_missing"
    SUBJECT_ADDED = "subject_added"


MEANINGS: Final = {
    IndexFault.MISSING: "it is not there",
    IndexFault.UNREADABLE: "its bytes are no entry of this number",
    IndexFault.HASH: "its bytes do not have the hash that stands beside them",
    IndexFault.KIND: "the kind that stands beside it is another one",
    IndexFault.TIME: "the time that stands beside it is another one",
    IndexFault.ACTOR: "the actor that stands beside it is another one",
    IndexFault.SUBJECT_MISSING: "searches do not find it under something that it names",
    IndexFault.SUBJECT_ADDED: "searches find it under something that it does not name",
}


@dataclass(frozen=True, slots=True)
class IndexFinding:
    """One fault of one entry; each once, however many subjects it is about."""

    entry: int
    fault: IndexFault

    def __str__(self) -> str:
        """For people."""
        return f"entry {self.entry}: {MEANINGS[self.fault]}"


Check: TypeAlias = Callable[[Connection], list[IndexFinding]]


def checks(size: int, batch: int) -> Iterator[Check]:
    """The whole check of a log of ``size`` entries, in parts of ``batch`` that each take a short time."""
    for first in range(0, size, batch):
        yield partial(check_entries, first=first, last=min(first + batch, size) - 1)
    yield find_strays


def check_entries(connection: Connection, first: int, last: int) -> list[IndexFinding]:
    """Hold what searches know of the entries ``first`` to ``last`` against their bytes; all of them must be committed."""
    try:
        leaves, subjects = _read(connection, first, last)
    except OperationalError as error:
        # SQLite keeps text that is no text, and fails where it is read: the entry is found by taking the range apart.
        if "decode" not in str(error.orig):
            raise
        if first == last:
            return [IndexFinding(first, IndexFault.UNREADABLE)]
        middle = (first + last) // 2
        return check_entries(connection, first, middle) + check_entries(
            connection, middle + 1, last
        )
    return [
        IndexFinding(index, fault)
        for index in range(first, last + 1)
        for fault in _faults(index, leaves.get(index), subjects.get(index, set()))
    ]


def find_strays(connection: Connection) -> list[IndexFinding]:
    """Subjects of entries that the log does not reach, ``MAX_STRAYS`` at the most."""
    size = select(func.coalesce(func.max(_leaf.index), -1)).scalar_subquery()
    query = (
        select(_subject.index)
        .where(or_(_subject.index < 0, _subject.index > size))
        .distinct()
        .order_by(_subject.index)
        .limit(MAX_STRAYS)
    )
    found = connection.scalars(query)
    return [IndexFinding(index, IndexFault.SUBJECT_ADDED) for index in found]


def _read(
    connection: Connection, first: int, last: int
) -> tuple[dict[int, AnyRow], dict[int, set[tuple[str, str]]]]:
    rows = connection.execute(
        select(_leaf.index, _leaf.kind, _leaf.at, _leaf.actor, _leaf.leaf, _leaf.hash).where(
            _leaf.index.between(first, last)
        )
    )
    leaves = {row[0]: row for row in rows}
    subjects: dict[int, set[tuple[str, str]]] = {}
    for index, label, value in connection.execute(
        select(_subject.index, _subject.label, _subject.value).where(
            _subject.index.between(first, last)
        )
    ):
        subjects.setdefault(index, set()).add((label, value))
    return leaves, subjects


def _faults(index: int, row: AnyRow | None, subjects: set[tuple[str, str]]) -> Iterator[IndexFault]:
    if row is None:
        yield IndexFault.MISSING
        return
    _, kind, at, actor, text, digest = row
    leaf = _parse(index, text)
    if leaf is None:
        yield IndexFault.UNREADABLE
        return
    if leaf_hash(text.encode()) != digest:
        yield IndexFault.HASH
    if kind != leaf.kind:
        yield IndexFault.KIND
    if at != leaf.at:
        yield IndexFault.TIME
    if actor != leaf.actor:
        yield IndexFault.ACTOR
    named = {*subjects_of(leaf)}
    if named - subjects:
        yield IndexFault.SUBJECT_MISSING
    if subjects - named:
        yield IndexFault.SUBJECT_ADDED


def _parse(index: int, text: object) -> AuditLeaf | None:
    # SQLite keeps what was put there by hand as it was put there.
    if not isinstance(text, str):
        return None
    try:
        leaf = parse_leaf(text.encode())
    except (VardeError, UnicodeEncodeError):
        return None
    return leaf if leaf.index == index else None
