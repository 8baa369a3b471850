"""Searching the audit log: which entries a filter finds, page by page, and which of them a reader may not see whole.

A page costs what its own entries cost where one condition has an index. What no index answers (free text, and any
second condition) is looked for among at most ``MAX_EXAMINED`` entries a page; the page then ends early and says where
to go on. Nothing here writes.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
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
    alerts_table,
    audit_leaves_table,
    audit_subjects_table,
)

MAX_EXAMINED: Final = 500_000
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
    search = _Search(connection, wanted, clearance, order, bounds)
    indexes = [index for (index,) in connection.execute(search.query().limit(limit + 1)).all()]
    following = None
    if len(indexes) > limit:
        following = Place(indexes[limit - 1], place.size)
    elif (examined := search.last_examined()) is not None:
        following = Place(examined, place.size)
    return EntryPage(_describe(connection, indexes[:limit], clearance), following)


def count_entries(connection: Connection, wanted: EntryFilter, clearance: Tlp, size: int) -> int:
    """How many of the first ``size`` entries ``wanted`` finds."""
    place, total = Place(None, size), 0
    while (bounds := _bounds(connection, wanted, place, Order.OLDEST)) is not None:
        search = _Search(connection, wanted, clearance, Order.OLDEST, bounds)
        total += connection.scalar(select(func.count()).select_from(search.query().subquery())) or 0
        examined = search.last_examined()
        if examined is None:
            break
        place = Place(examined, size)
    return total


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
class _Bounds:
    first: int
    last: int


def _bounds(
    connection: Connection, wanted: EntryFilter, place: Place, order: Order
) -> _Bounds | None:
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
    return _Bounds(first, last) if first <= last else None


def _in_time(wanted: EntryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.from_ms is not None:
        conditions.append(_leaf.at >= wanted.from_ms)
    if wanted.until_ms is not None:
        conditions.append(_leaf.at < wanted.until_ms)
    return conditions


class _Search:
    """One condition that has an index leads; the others are held against what it gives."""

    def __init__(
        self,
        connection: Connection,
        wanted: EntryFilter,
        clearance: Tlp,
        order: Order,
        bounds: _Bounds,
    ) -> None:
        self._connection = connection
        self._order = order
        self._clearance = clearance
        self._on_sqlite = connection.dialect.name == "sqlite"
        rest, leading, column = _lead(wanted)
        self._index = column
        self._leading = leading.where(column >= bounds.first, column <= bounds.last)
        self._others = self._conditions(rest)

    def query(self) -> Select[Any]:
        """The indexes of the entries that are found, in order."""
        if not self._others:
            return self._ordered(self._leading, self._index)
        examined = self._ordered(self._leading, self._index).limit(MAX_EXAMINED).subquery()
        found = (
            select(examined.c.index)
            .join(audit_leaves_table, _leaf.index == examined.c.index)
            .where(*self._others)
        )
        return self._ordered(found, examined.c.index)

    def last_examined(self) -> int | None:
        """The last entry that was looked at, where there are more to look at."""
        if not self._others:
            return None
        at_the_end = self._ordered(self._leading, self._index).offset(MAX_EXAMINED - 1).limit(2)
        rows = self._connection.execute(at_the_end).all()
        return int(rows[0][0]) if len(rows) == 2 else None  # noqa: PLR2004 -- the last one, and that another follows

    def _ordered(self, query: Select[Any], index: ColumnElement[int]) -> Select[Any]:
        return query.order_by(index.desc() if self._order is Order.NEWEST else index)

    def _conditions(self, rest: EntryFilter) -> list[ColumnElement[bool]]:
        conditions = _in_time(rest)
        if rest.kinds:
            conditions.append(_leaf.kind.in_([each.value for each in rest.kinds]))
        if rest.actor is not None:
            conditions.append(_leaf.actor == rest.actor)
        for value, label in (
            (rest.subject, None),
            (rest.alert, _ABOUT),
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


def _lead(wanted: EntryFilter) -> tuple[EntryFilter, Select[Any], ColumnElement[int]]:
    """The conditions that are left, what the leading one selects, and its column of indexes."""
    index = _subject.index
    by_subject, by_leaf = select(index.label("index")), select(_leaf.index.label("index"))
    if wanted.alert is not None:
        query = by_subject.where(_subject.value == wanted.alert, _subject.label == _ABOUT)
        return replace(wanted, alert=None), query, index
    if wanted.subject is not None:
        # One entry may name it under two labels.
        query = by_subject.where(_subject.value == wanted.subject).distinct()
        return replace(wanted, subject=None), query, index
    if wanted.nation is not None:
        query = by_subject.where(_subject.value == wanted.nation, _subject.label == LABEL)
        return replace(wanted, nation=None), query, index
    if wanted.actor is not None:
        return replace(wanted, actor=None), by_leaf.where(_leaf.actor == wanted.actor), _leaf.index
    if len(wanted.kinds) == 1:
        query = by_leaf.where(_leaf.kind == wanted.kinds[0].value)
        return replace(wanted, kinds=()), query, _leaf.index
    return wanted, by_leaf, _leaf.index


def _is_about(value: str, label: str | None) -> ColumnElement[bool]:
    conditions = [_subject.index == _leaf.index, _subject.value == value]
    if label is not None:
        conditions.append(_subject.label == label)
    return exists().where(*conditions).correlate(audit_leaves_table)


def _is_withheld(clearance: Tlp) -> ColumnElement[bool]:
    return (
        exists()
        .where(
            and_(
                _subject.index == _leaf.index,
                _subject.label == _ABOUT,
                alerts_table.c.id == _subject.value,
                alerts_table.c.tlp.not_in(allowed_markings(clearance)),
            )
        )
        .correlate(audit_leaves_table)
    )


def _describe(connection: Connection, indexes: Sequence[int], clearance: Tlp) -> list[JsonObject]:
    if not indexes:
        return []
    rows = {
        index: (text, digest)
        for index, text, digest in connection.execute(
            select(_leaf.index, _leaf.leaf, _leaf.hash).where(_leaf.index.in_(indexes))
        )
    }
    withheld = withheld_among(connection, indexes, clearance)
    return [_describe_entry(each, *rows[each], each in withheld) for each in indexes]


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
