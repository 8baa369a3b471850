"""``python tests/bench/review.py``: searches, statistics and exports over 1,000,000 audit entries, with times and memory.

Seeds a database of its own through the real ledger (``--entries N``, ``--url`` for PostgreSQL, ``--keep FILE``), then asks
what an auditor asks. Machines differ: nothing is asserted.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from support.federation import EE, federation
from support.nodes import Clock, Node, running_node
from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.flow.review.review import Viewer, begin_export, search
from varde_gateway.flow.review.statistics import statistics
from varde_gateway.store.review import EntryFilter, Order
from varde_gateway.store.tables import audit_leaves_table
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size

BATCH = 2000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NATIONS = ("FI", "LV", "LT", "NO", "PL", "UA")
VIEWER = Viewer("auditor.ee", Tlp.RED)
CLEARED = Viewer("outside", Tlp.AMBER)


def entries(count: int) -> Iterator[tuple[AuditKind, str, list[tuple[str, str]], str]]:
    """What a busy node writes: each alert sent, receipted, displayed and acknowledged; now and then a refusal."""
    for number in range(count):
        turn, alert = number % 5, f"019ab3f2-6c1e-7d3a-9b52-{number // 5:012x}"
        nation = NATIONS[number // 5 % len(NATIONS)]
        about = [("document", alert)]
        if number % 1000 == 999:
            yield AuditKind.REFUSED, nation, about, f"expired: expired {number % 600} s ago"
        elif turn == 0:
            yield AuditKind.SENT, "operator.ee", [*about, ("digest", f"{number:043d}")], "FI,LV"
        elif turn == 1:
            receipt = ("receipt", f"019ab3f2-6c1e-7d3b-9b52-{number:012x}")
            yield AuditKind.RECEIPTED, nation, [receipt, *about], "delivered, 1 of 1 known"
        elif turn == 2:
            yield AuditKind.DISPLAYED, f"{nation}/officer", about, ""
        elif turn == 3:
            yield AuditKind.ACKNOWLEDGED, f"{nation}/officer", about, "actioning"
        else:
            yield AuditKind.SIGNED_IN, "officer.ee", [("address", "127.0.0.1")], ""


async def seed(node: Node, clock: Clock, count: int) -> None:
    batch: list[Any] = []

    def write(tx: Transaction) -> None:
        for kind, actor, subjects, detail in batch:
            tx.audit(kind, actor, subjects, detail)

    for each in entries(count):
        batch.append(each)
        if len(batch) == BATCH:
            clock.ms += 2000
            await node.desk.ledger.write(write)
            batch = []
    await node.desk.ledger.write(write)


def resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * PAGE_BYTES / 1e6


async def timed(act: Callable[[], Awaitable[str]]) -> tuple[float, str]:
    begun = time.perf_counter()
    said = await act()
    return time.perf_counter() - begun, said


async def stream(pieces: Any) -> str:
    before = most = resident_mb()
    size = 0
    async for each in pieces:
        size += len(each)
        most = max(most, resident_mb())
    return f"{size / 1e6:.0f} MB; RSS {before:.0f} MB before, {most:.0f} MB at the most"


async def measure(url: str, count: int) -> None:
    clock, console = Clock(), Console()
    founded = federation()
    async with running_node(url, founded.parties[EE], founded, clock) as node:
        desk = node.desk
        size = await desk.ledger.read(log_size)
        if size < count:
            begun = time.perf_counter()
            await seed(node, clock, count - size)
            console.print(f"{count:,} entries seeded in {time.perf_counter() - begun:.0f} s")
        newest = await desk.ledger.read(
            lambda connection: connection.scalar(select(func.max(audit_leaves_table.c.at)))
        )
        # A database that was kept is from a later time than the clock of a new process.
        clock.ms = max(clock.ms, newest or 0) + 1
        middle = clock.ms - count // 2

        def asking(wanted: EntryFilter, viewer: Viewer = VIEWER) -> Callable[[], Awaitable[str]]:
            async def act() -> str:
                page = await search(desk, viewer, wanted, order=Order.NEWEST, limit=50, place=None)
                more = "" if page.following is None else ", more to look through"
                return f"{len(page.items)} results{more}"

            return act

        async def count_all() -> str:
            found = await statistics(desk, VIEWER, None, None)
            return f"{len(found)} parts"

        async def export(form: str) -> str:
            wanted = EntryFilter()
            return await stream(
                await begin_export(desk, VIEWER, wanted, order=Order.OLDEST, form=form)
            )

        alert = f"019ab3f2-6c1e-7d3a-9b52-{count // 10:012x}"
        table = Table(
            "what", "seconds", "result", title=f"{count:,} entries, {url.partition(':')[0]}"
        )
        for name, act in (
            ("everything, newest first", asking(EntryFilter())),
            ("one alert", asking(EntryFilter(alert=alert))),
            ("one nation", asking(EntryFilter(nation="UA"))),
            ("refusals", asking(EntryFilter(kinds=(AuditKind.REFUSED,)))),
            ("a time, a nation, two kinds", asking(EntryFilter(
                kinds=(AuditKind.REFUSED, AuditKind.SENT), nation="LV", from_ms=middle
            ))),
            ("text that is common", asking(EntryFilter(text="actioning"))),
            ("text that is nowhere", asking(EntryFilter(text="narwhal"))),
            ("text that is nowhere, of one nation", asking(EntryFilter(nation="FI", text="narwhal"))),
            ("text that is nowhere, by clearance", asking(EntryFilter(text="narwhal"), CLEARED)),
            ("an actor that is nobody", asking(EntryFilter(actor="nobody"))),
            ("statistics of all time", count_all),
            ("export of all as CSV", lambda: export("csv")),
            ("export of all as JSON Lines", lambda: export("jsonl")),
            ("export of the log to verify", lambda: stream(export_lines(desk, "auditor.ee"))),
        ):  # fmt: skip
            seconds, said = await timed(act)
            table.add_row(name, f"{seconds:.3f}", said)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--url", help="An empty database; a SQLite file of its own where not said.")
    parser.add_argument("--keep", type=Path, help="Seed this SQLite file once, and use it again.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file = options.keep or Path(directory) / "review.db"
        asyncio.run(measure(options.url or f"sqlite:///{file}", options.entries))


if __name__ == "__main__":
    main()
