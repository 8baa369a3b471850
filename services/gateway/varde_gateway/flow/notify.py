"""The sixth step, at home: what was committed is told to every screen that follows the event stream.

The table is the truth; the commit only wakes the followers. A follower that was away gives the last id it has and
misses nothing that is still kept.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Final

from sqlalchemy import Connection, delete, func, select

from varde_gateway.store.ledger import Event, Ledger, Transaction
from varde_gateway.store.tables import events_table

PAGE: Final = 500
KEPT_MILLISECONDS: Final = 7 * 24 * 3600 * 1000
_POLL_SECONDS: Final = 1.0


class EventFeed:
    """Hands the events of one node to any number of followers."""

    def __init__(self, ledger: Ledger) -> None:
        """Listens to the commits of ``ledger`` from now on."""
        self._ledger = ledger
        self._waiters: set[asyncio.Event] = set()
        ledger.listen(self._tell)

    async def newest_id(self) -> int:
        """The id of the newest event; 0 where there is none."""
        return await self._ledger.read(
            lambda connection: connection.scalar(select(func.max(events_table.c.id))) or 0
        )

    async def follow(self, after: int | None) -> AsyncGenerator[Event | None, None]:
        """Every event after ``after`` in order, for ever; from now on where it is None.

        Yields None once a second where nothing came, so that the stream can show that it lives.
        """
        last = await self.newest_id() if after is None else after
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            while True:
                waiter.clear()
                events = await self._ledger.read(_page_after(last))
                for event in events:
                    last = event.id
                    yield event
                if events:
                    continue
                try:
                    async with asyncio.timeout(_POLL_SECONDS):
                        await waiter.wait()
                except TimeoutError:
                    yield None
        finally:
            self._waiters.discard(waiter)

    def _tell(self, _events: list[Event]) -> None:
        for waiter in self._waiters:
            waiter.set()


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
