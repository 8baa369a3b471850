"""The sixth step, at home: what was committed is told to every screen that follows the event stream.

The table is the truth; the commit only wakes the followers. A follower that was away gives the last id it has and
misses nothing that is still kept.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from itertools import islice
from typing import Final

from sqlalchemy import Connection, delete, func, select

from varde.encoding import Json
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.tables import events_table
from varde_gateway.store.transaction import Event, Transaction

PAGE: Final = 500
RECENT: Final = 2000
KEPT_MILLISECONDS: Final = 7 * 24 * 3600 * 1000
_POLL_SECONDS: Final = 1.0


class EventFeed:
    """Hands the events of one node to any number of followers.

    Followers that keep up are served from memory; one that was away, or that missed commits of another replica of this
    gateway, reads the table.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Listens to the commits of ``ledger`` from now on."""
        self._ledger = ledger
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._waiters: set[asyncio.Event] = set()
        ledger.listen(self._tell)

    async def newest_id(self) -> int:
        """The id of the newest event; 0 where there is none."""
        return await self._ledger.read(
            lambda connection: connection.scalar(select(func.max(events_table.c.id))) or 0
        )

    async def follow(self, after: int | None) -> AsyncGenerator[list[Event]]:
        """Every event after ``after`` in order, for ever, as they come; from now on where it is None.

        Yields an empty list where there is nothing more for now: when it has caught up, and then once a second, so that
        the stream can show that it lives.
        """
        caught_up = False
        last = await self.newest_id() if after is None else after
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            while True:
                waiter.clear()
                events = self._remembered_after(last)
                if events is None:
                    events = await self._ledger.read(_page_after(last))
                if events or not caught_up:
                    caught_up = caught_up or not events
                    last = events[-1].id if events else last
                    yield events
                    continue
                try:
                    async with asyncio.timeout(_POLL_SECONDS):
                        await waiter.wait()
                except TimeoutError:
                    missed = (
                        await self._ledger.read(_page_after(last)) if self._ledger.shared else []
                    )
                    last = missed[-1].id if missed else last
                    yield missed
        finally:
            self._waiters.discard(waiter)

    def _remembered_after(self, last: int) -> list[Event] | None:
        """What memory holds after ``last``; None where only the table can say."""
        recent = self._recent
        if recent and recent[-1].id <= last:
            return []
        if not recent or recent[0].id > last + 1:
            return None
        return list(islice(recent, last + 1 - recent[0].id, None))

    def _tell(self, events: list[Event]) -> None:
        if self._recent and events[0].id != self._recent[-1].id + 1:
            # Another replica committed in between: what is remembered has a gap.
            self._recent.clear()
        self._recent.extend(events)
        erased = {str(each.data["id"]) for each in events if each.kind == "erased"}
        if erased:
            self._forget_content(erased)
        for waiter in self._waiters:
            waiter.set()

    def _forget_content(self, alerts: set[str]) -> None:
        cleaned = [
            replace(each, data=without_content(each.kind, each.data))
            if not alerts.isdisjoint({str(each.data.get("id")), str(each.data.get("alert"))})
            else each
            for each in self._recent
        ]
        self._recent.clear()
        self._recent.extend(cleaned)


def without_content(kind: str, data: dict[str, Json]) -> dict[str, Json]:
    """What an event says of an alert or an answer, with its words taken out."""
    words = {"alert": "headline", "acknowledgement": "note", "attachment": "name"}
    return {**data, words[kind]: ""} if kind in words else data


def forget_old_events(tx: Transaction) -> None:
    """Delete events that nobody can resume from any more."""
    tx.connection.execute(
        delete(events_table).where(events_table.c.at < tx.now - KEPT_MILLISECONDS)
    )


def _page_after(last: int) -> Callable[[Connection], list[Event]]:
    def query(connection: Connection) -> list[Event]:
        rows = connection.execute(
            select(events_table.c.id, events_table.c.kind, events_table.c.at, events_table.c.data)
            .where(events_table.c.id > last)
            .order_by(events_table.c.id)
            .limit(PAGE)
        )
        return [Event(row.id, row.kind, row.at, json.loads(row.data)) for row in rows]

    return query
