"""Searching the audit log: which entries a filter finds, page by page, and which of them a reader may not see whole.

One condition that has an index leads, and the others are held against what it gives, in stretches of the log that grow
while little is found. Where many entries must be looked through, a page ends after ``MAX_SPAN`` of them (with free text,
``MAX_TEXT_SPAN``) and says where to go on: no search takes long, however large the log is. Nothing here writes.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.encoding import JsonObject, encode_base64url
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.mentions import LABEL
from varde_gateway.store.tables import (
    AnyRow,
    alerts_table,
    audit_leaves_table,
    audit_subjects_table,
)

MAX_SPAN: Final = 1_000_000
MAX_TEXT_SPAN: Final = 250_000
_FIRST_STRETCH: Final = 4_000
_GROWTH: Final = 4
_ABOUT: Final = "document"
_leaf = audit_leaves_table.c
_subject = audit_subjects_table.c


class Order(StrEnum):
    """Which entries come first."""

    OLDEST = "oldest"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries are wanted; every condition holds. Times in Unix milliseconds, ``until_ms`` not included."""

    kinds: tuple[AuditKind, ...] = ()
    actor: str | None = None
    subject: str | None = None
    alert: str | None = None
    nation: str | None = None
    text: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: after the entry ``after`` (None: at the beginning), in the log of ``size`` entries."""

    after: int | None
    size: int


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries in their order, and where the next page begins; None at the end."""

    items: list[JsonObject]
    following: Place | None


def allowed_markings(clearance: Tlp) -> tuple[str, ...]:
    """The markings whose content may be shown."""
    markings = [*Tlp]
    return tuple(each.value for each in markings[: markings.index(clearance) + 1])


def find_entries(
    connection: Connection,
    wanted: EntryFilter,
    clearance: Tlp,
    place: Place,
    *,
    order: Order,
    limit: int,
) -> EntryPage:
    """One page of what ``wanted`` finds; what the reader may not see is there without subjects and detail."""
    bounds = _bounds(connection, wanted, place, order)
    if bounds is None:
        return EntryPage([], None)
    search = _Search(wanted, clearance, on_sqlite=connection.dialect.name == "sqlite")
    rows: list[AnyRow] = []
    examined: int | None = None
    for stretch in stretches(bounds, order, search.span):
        query = search.rows(stretch, order).limit(limit + 1 - len(rows))
        rows += connection.execute(query)
        examined = stretch.last if order is Order.OLDEST else stretch.first
        if len(rows) > limit:
            break
    following = None
    if len(rows) > limit:
        following = Place(rows[limit - 1][0], place.size)
    elif examined is not None and bounds.first < examined < bounds.last:
        following = Place(examined, place.size)
    return EntryPage(_describe(connection, rows[:limit], clearance), following)


def count_entries(connection: Connection, wanted: EntryFilter, clearance: Tlp, size: int) -> int:
    """How many of the first ``size`` entries ``wanted`` finds."""
    bounds = _bounds(connection, wanted, Place(None, size), Order.OLDEST)
    if bounds is None:
        return 0
    if wanted == EntryFilter():
        return bounds.last - bounds.first + 1
    search = _Search(wanted, clearance, on_sqlite=connection.dialect.name == "sqlite")
    return connection.scalar(search.count(bounds)) or 0


def marking_of(connection: Connection, alert_id: str) -> Tlp | None:
    """The strictest marking that an alert of this id has here; None where there is none."""
    found = connection.scalars(
        select(alerts_table.c.tlp).where(alerts_table.c.id == alert_id)
    ).all()
    return max((Tlp(each) for each in found), key=[*Tlp].index, default=None)


def alerts_above(
    connection: Connection, alerts: Collection[str | None], clearance: Tlp
) -> set[str]:
    """Which of these alerts have a marking above ``clearance``."""
    return set(
        connection.scalars(
            select(alerts_table.c.id).where(
                alerts_table.c.id.in_(alerts),
                alerts_table.c.tlp.not_in(allowed_markings(clearance)),
            )
        )
    )


def withheld_among(connection: Connection, indexes: Sequence[int], clearance: Tlp) -> set[int]:
    """Which of these entries are about an alert above ``clearance``."""
    if clearance is Tlp.RED or not indexes:
        return set()
    return set(
        connection.scalars(
            select(_subject.index)
            .join(alerts_table, alerts_table.c.id == _subject.value)
            .where(
                _subject.index.in_(indexes),
                _subject.label == _ABOUT,
                alerts_table.c.tlp.not_in(allowed_markings(clearance)),
            )
        )
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Entries from ``first`` to ``last``, both included."""

    first: int
    last: int


def _bounds(
    connection: Connection, wanted: EntryFilter, place: Place, order: Order
) -> Bounds | None:
    first, last = 0, place.size - 1
    if place.after is not None and order is Order.OLDEST:
        first = place.after + 1
    elif place.after is not None:
        last = min(last, place.after - 1)
    if wanted.from_ms is not None or wanted.until_ms is not None:
        # Times follow the order of the log unless somebody has set the clock back: this only narrows what is looked at.
        query = select(func.min(_leaf.index), func.max(_leaf.index)).where(*_in_time(wanted))
        earliest, latest = connection.execute(query).one()
        if earliest is None:
            return None
        first, last = max(first, earliest), min(last, latest)
    return Bounds(first, last) if first <= last else None


def stretches(bounds: Bounds, order: Order, span: int | None) -> Iterator[Bounds]:
    """Parts of ``bounds`` in order, each larger than the one before; all of it at once where ``span`` is None."""
    if span is None:
        yield bounds
        return
    length, left = _FIRST_STRETCH, span
    first, last = bounds.first, bounds.last
    while left > 0 and first <= last:
        length = min(length, left, last - first + 1)
        if order is Order.OLDEST:
            yield Bounds(first, first + length - 1)
            first += length
        else:
            yield Bounds(last - length + 1, last)
            last -= length
        left -= length
        length *= _GROWTH


def _in_time(wanted: EntryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.from_ms is not None:
        conditions.append(_leaf.at >= wanted.from_ms)
    if wanted.until_ms is not None:
        conditions.append(_leaf.at < wanted.until_ms)
    return conditions


class _Search:
    """The statements of one filter; ``span`` is how many entries a page may look through, None where few are led to."""

    def __init__(self, wanted: EntryFilter, clearance: Tlp, *, on_sqlite: bool) -> None:
        self._clearance = clearance
        self._on_sqlite = on_sqlite
        self._index: ColumnElement[int] = _leaf.index
        self._source: FromClause = audit_leaves_table
        self._leading: list[ColumnElement[bool]] = []
        rest = self._lead(wanted)
        self._others = self._conditions(rest)
        self.span: int | None = None
        if self._others and wanted.alert is None and wanted.subject is None:
            self.span = MAX_SPAN if wanted.text is None else MAX_TEXT_SPAN

    def rows(self, stretch: Bounds, order: Order) -> Select[Any]:
        """Index, leaf and hash of what is found there, in order."""
        query = self._found(select(_leaf.index, _leaf.leaf, _leaf.hash), stretch)
        return query.order_by(self._index.desc() if order is Order.NEWEST else self._index)

    def count(self, stretch: Bounds) -> Select[Any]:
        """How many are found there."""
        return self._found(select(func.count()), stretch)

    def _found(self, query: Select[Any], stretch: Bounds) -> Select[Any]:
        return query.select_from(self._source).where(
            *self._leading,
            self._index >= stretch.first,
            self._index <= stretch.last,
            *self._others,
        )

    def _lead(self, wanted: EntryFilter) -> EntryFilter:
        """Take one condition to lead; the filter without it."""
        if wanted.alert is not None:
            return self._lead_by_subject(replace(wanted, alert=None), wanted.alert, _ABOUT)
        if wanted.subject is not None:
            # One entry may name it under two labels.
            named = select(_subject.index).where(_subject.value == wanted.subject)
            self._leading = [_leaf.index.in_(named)]
            return replace(wanted, subject=None)
        if wanted.nation is not None:
            return self._lead_by_subject(replace(wanted, nation=None), wanted.nation, LABEL)
        if wanted.actor is not None:
            self._leading = [_leaf.actor == wanted.actor]
            return replace(wanted, actor=None)
        if len(wanted.kinds) == 1:
            self._leading = [_leaf.kind == wanted.kinds[0].value]
            return replace(wanted, kinds=())
        return wanted

    def _lead_by_subject(self, rest: EntryFilter, value: str, label: str) -> EntryFilter:
        self._index = _subject.index
        self._source = audit_subjects_table.join(audit_leaves_table, _leaf.index == _subject.index)
        self._leading = [_subject.value == value, _subject.label == label]
        return rest

    def _conditions(self, rest: EntryFilter) -> list[ColumnElement[bool]]:
        # The sum keeps the index of times out: it would give the entries in another order than the log's.
        conditions: list[ColumnElement[bool]] = []
        if rest.from_ms is not None:
            conditions.append(_leaf.at + 0 >= rest.from_ms)
        if rest.until_ms is not None:
            conditions.append(_leaf.at + 0 < rest.until_ms)
        if rest.kinds:
            conditions.append(_leaf.kind.in_([each.value for each in rest.kinds]))
        if rest.actor is not None:
            conditions.append(_leaf.actor == rest.actor)
        for value, label in (
            (rest.subject, None),
            (rest.nation, LABEL),
        ):
            if value is not None:
                conditions.append(_is_about(value, label))
        if rest.text is not None:
            conditions += self._text(rest.text)
        return conditions

    def _text(self, text: str) -> list[ColumnElement[bool]]:
        # The whole leaf first: most entries are out then, and need not be read as JSON.
        within = json.dumps(text, ensure_ascii=False)[1:-1]
        members: list[ColumnElement[str]]
        if self._on_sqlite:
            members = [
                func.json_extract(_leaf.leaf, "$.detail"),
                func.json_extract(_leaf.leaf, "$.subjects"),
            ]
        else:
            value: ColumnElement[Any] = literal_column("audit_leaf.leaf::json")
            members = [value.op("->>")("detail"), value.op("->>")("subjects")]
        detail, subjects = members
        conditions: list[ColumnElement[bool]] = [
            self._contains(_leaf.leaf, within),
            or_(self._contains(detail, text), self._contains(subjects, within)),
        ]
        if self._clearance is not Tlp.RED:
            # A match would tell what is withheld.
            conditions.append(~_is_withheld(self._clearance))
        return conditions

    def _contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        if self._on_sqlite:
            # Its LIKE takes a letter of either case already.
            return column.contains(text, autoescape=True)
        escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
        return column.ilike(f"%{escaped}%", escape="/")


def _is_about(value: str, label: str | None) -> ColumnElement[bool]:
    named = audit_subjects_table.alias()
    conditions = [named.c.index == _leaf.index, named.c.value == value]
    if label is not None:
        conditions.append(named.c.label == label)
    return exists().where(*conditions).correlate(audit_leaves_table)


def _is_withheld(clearance: Tlp) -> ColumnElement[bool]:
    named = audit_subjects_table.alias()
    return (
        exists()
        .where(
            and_(
                named.c.index == _leaf.index,
                named.c.label == _ABOUT,
                alerts_table.c.id == named.c.value,
                alerts_table.c.tlp.not_in(allowed_markings(clearance)),
            )
        )
        .correlate(audit_leaves_table)
    )


def _describe(connection: Connection, rows: Sequence[AnyRow], clearance: Tlp) -> list[JsonObject]:
    withheld = withheld_among(connection, [index for index, _, _ in rows], clearance)
    return [_describe_entry(index, text, digest, index in withheld) for index, text, digest in rows]


def _describe_entry(index: int, text: str, digest: bytes, withheld: bool) -> JsonObject:
    leaf = json.loads(text)
    return {
        "index": index,
        "kind": leaf["kind"],
        "at": rfc3339(leaf["at"]),
        "actor": leaf["actor"],
        "subjects": []
        if withheld
        else [{"label": label, "value": value} for label, value in leaf["subjects"]],
        "detail": "" if withheld else leaf["detail"],
        "hash": encode_base64url(digest),
        "withheld": withheld,
    }
