"""The review: an auditor searches the log, takes copies of what was found, and keeps queries to come back to.

Every look is itself an entry: who, over what filter, how many results, committed before the answer. The first page of a
search writes the filter in short words; a page that goes on writes one short entry with the same digest, so that all
pages count as one look. What was typed as free text is never written down, only that there was one and the digest of
the whole filter: it may be content.
"""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.encoding import JsonObject, format_json, sha256_base64url
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Forbidden, NotFound
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.review import (
    EntryFilter,
    EntryPage,
    Order,
    Place,
    alerts_above,
    count_entries,
    find_entries,
    marking_of,
)
from varde_gateway.store.tables import saved_queries_table
from varde_gateway.store.transaction import Event, Transaction
from varde_gateway.store.tree import log_size

MAX_SAVED: Final = 100
CSV_COLUMNS: Final = ("index", "at", "kind", "actor", "subjects", "detail", "hash", "withheld")
_PAGE: Final = 2000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What OWASP's "CSV Injection" names, the wide forms of East Asian spreadsheets among them."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, and up to which marking they see content."""

    username: str
    clearance: Tlp


async def search(
    desk: Desk,
    viewer: Viewer,
    wanted: EntryFilter,
    *,
    order: Order,
    limit: int,
    place: Place | None,
) -> EntryPage:
    """One page; ``place`` is the ``following`` of the page before, None for the first.

    All pages are of the log as it was at the first one: what is appended meanwhile moves nothing.
    """

    def read(connection: Connection) -> EntryPage:
        begin = place or Place(None, log_size(connection))
        # A cursor is the caller's word: it reaches no further than the log does.
        begin = Place(begin.after, min(begin.size, log_size(connection)))
        return find_entries(connection, wanted, viewer.clearance, begin, order=order, limit=limit)

    page = await desk.ledger.read(read)
    results = f"{len(page.items)} results"
    if place is None:
        more = "" if page.following is None else " and more"
        said = f"search, {results}{more}: {in_words(wanted)}"
    else:
        said = f"search, continued: {results}"
    await record_look(desk, viewer, said, [("query", digest_of(wanted))])
    return page


async def record_look(
    desk: Desk, viewer: Viewer, said: str, subjects: list[tuple[str, str]]
) -> None:
    """Log that somebody looked; durable when it returns."""
    await desk.ledger.write(
        lambda tx: tx.audit(AuditKind.REVIEWED, viewer.username, subjects, said)
    )


async def check_clearance(desk: Desk, viewer: Viewer, alert_id: str) -> None:
    """``Forbidden`` where the alert's marking is above what the viewer may see."""
    if viewer.clearance is Tlp.RED:
        return
    marking = await desk.ledger.read(lambda connection: marking_of(connection, alert_id))
    if marking is not None and _rank(marking) > _rank(viewer.clearance):
        raise Forbidden(
            f"This alert is TLP:{marking.value}; you are cleared up to TLP:{viewer.clearance.value}. "
            "An administrator can say who is cleared for it."
        )


async def events_for(desk: Desk, clearance: Tlp, events: Sequence[Event]) -> Sequence[Event]:
    """The events as somebody of this clearance sees them: of an alert above it only that there is something."""
    if clearance is Tlp.RED or not events:
        return events
    about = {_alert_of(each) for each in events} - {None}
    above = await desk.ledger.read(lambda connection: alerts_above(connection, about, clearance))
    return [
        replace(each, data={"id": each.data.get("id"), "withheld": True})
        if _alert_of(each) in above
        else each
        for each in events
    ]


def _alert_of(event: Event) -> str | None:
    alert = event.data.get("alert", event.data.get("id"))
    return alert if isinstance(alert, str) else None


async def begin_export(
    desk: Desk, viewer: Viewer, wanted: EntryFilter, *, order: Order, form: str
) -> AsyncIterator[str]:
    """All that ``wanted`` finds now, as text in pieces: ``csv`` or ``jsonl``. The look is logged before the first piece."""

    def count(connection: Connection) -> tuple[int, int]:
        size = log_size(connection)
        return size, count_entries(connection, wanted, viewer.clearance, size)

    size, results = await desk.ledger.read(count)
    said = f"export {form}, {results} results: {in_words(wanted)}"
    await record_look(desk, viewer, said, [("query", digest_of(wanted))])

    async def pieces() -> AsyncIterator[str]:
        if form == "csv":
            yield ",".join(CSV_COLUMNS) + "\r\n"
        place: Place | None = Place(None, size)
        while place is not None:
            page = await desk.ledger.read(_page_reader(wanted, viewer.clearance, place, order))
            yield await asyncio.to_thread(
                format_csv if form == "csv" else _format_jsonl, page.items
            )
            place = page.following

    return pieces()


def _page_reader(
    wanted: EntryFilter, clearance: Tlp, place: Place, order: Order
) -> Callable[[Connection], EntryPage]:
    return lambda connection: find_entries(
        connection, wanted, clearance, place, order=order, limit=_PAGE
    )


def format_csv(items: Iterable[JsonObject]) -> str:
    """RFC 4180 lines; no cell begins as a formula of a spreadsheet does: an apostrophe stands before it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for each in items:
        row: dict[str, Any] = {**each, "withheld": "yes" if each["withheld"] else ""}
        row["subjects"] = " ".join(
            f"{subject['label']}:{subject['value']}" for subject in row["subjects"]
        )
        writer.writerow([_safe_cell(str(row[name])) for name in CSV_COLUMNS])
    return text.getvalue()


def _safe_cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _format_jsonl(items: Iterable[JsonObject]) -> str:
    return "".join(
        json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in items
    )


def describe_filter(wanted: EntryFilter) -> JsonObject:
    """The conditions that are there, under their names in the API."""
    described: JsonObject = {
        "kind": [each.value for each in wanted.kinds],
        "actor": wanted.actor,
        "subject": wanted.subject,
        "alert": wanted.alert,
        "nation": wanted.nation,
        "text": wanted.text,
        "from": rfc3339(wanted.from_ms),
        "until": rfc3339(wanted.until_ms),
    }
    return {name: value for name, value in described.items() if value}


def digest_of(wanted: EntryFilter) -> str:
    """The same for the same conditions; what was looked for can be held against it."""
    return sha256_base64url(format_json(describe_filter(wanted)))


def in_words(wanted: EntryFilter) -> str:
    """Short, and without the free text."""
    described = describe_filter(wanted)
    if wanted.text is not None:
        described["text"] = f"({len(wanted.text)} characters)"
    words = [
        f"{name} {'|'.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in described.items()
    ]
    return ", ".join(words) or "everything"


async def list_queries(desk: Desk, owner: str) -> list[JsonObject]:
    """What this user has saved, by name."""
    return await desk.ledger.read(lambda connection: _saved(connection, owner))


async def save_query(desk: Desk, owner: str, name: str, wanted: JsonObject) -> JsonObject:
    """Keep a filter under a name, in place of what had that name; ``Conflict`` where there are too many."""
    table = saved_queries_table
    this = (table.c.owner == owner, table.c.name == name)

    def save(tx: Transaction) -> JsonObject:
        names = set(tx.connection.scalars(select(table.c.name).where(table.c.owner == owner)))
        row = {"filter": format_json(wanted).decode(), "saved_at": tx.now}
        if name in names:
            tx.connection.execute(update(table).where(*this).values(**row))
        elif len(names) >= MAX_SAVED:
            raise Conflict(f"You have saved {MAX_SAVED} queries. Delete one first.")
        else:
            tx.connection.execute(insert(table), {"owner": owner, "name": name, **row})
        return {"name": name, "filter": wanted, "saved_at": rfc3339(tx.now)}

    return await desk.ledger.write(save)


async def delete_query(desk: Desk, owner: str, name: str) -> JsonObject:
    """Forget a saved query of one's own; ``NotFound`` where there is none of this name. Returns it."""
    table = saved_queries_table

    def forget(tx: Transaction) -> JsonObject:
        saved = next((each for each in _saved(tx.connection, owner) if each["name"] == name), None)
        if saved is None:
            raise NotFound(f"You have saved no query {name}.")
        tx.connection.execute(delete(table).where(table.c.owner == owner, table.c.name == name))
        return saved

    return await desk.ledger.write(forget)


def _saved(connection: Connection, owner: str) -> list[JsonObject]:
    table = saved_queries_table
    rows = connection.execute(select(table).where(table.c.owner == owner).order_by(table.c.name))
    return [
        {
            "name": row.name,
            "filter": json.loads(row.filter),
            "saved_at": rfc3339(row.saved_at),
        }
        for row in rows
    ]


def _rank(marking: Tlp) -> int:
    return [*Tlp].index(marking)
