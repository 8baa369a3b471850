"""``make bench-log``: the audit log at 10,000 and at 1,000,000 entries, in one run: appends, proofs, exports, verification.

Two databases are filled through the real ledger, with checkpoints and cosignatures, once where ``--keep`` says. Appends
are measured in short rounds that take turns between the two, so that what else the machine does falls on both. Exports and
both verifiers run as processes of their own, whose peak of resident memory is read. ``--postgres`` does the same on a
private PostgreSQL cluster that syncs every commit. Machines differ and are noisy: read the ratios.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, insert, select

from bench.wire import Wire
from support.databases import postgres_cluster, postgres_programs
from support.desks import PASSWORD, open_office
from support.federation import EE, federation, seed
from support.nodes import Clock, Node, running_node
from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.checkpoint import WitnessSigner, open_checkpoint
from varde.note import format_signature
from varde_gateway.flow.log.trail import checkpoint, inclusion
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.flow.review.review import Viewer, begin_export
from varde_gateway.store.review import EntryFilter, Order
from varde_gateway.store.tables import audit_leaves_table, cosignatures_table
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size
from varde_gateway.store.users import find_user

ROOT = Path(__file__).parents[2]
SEED_COMMIT = 250
"""Entries in one commit while a database is filled, and one checkpoint after each."""
COSIGNED_EVERY = 10
IN_FLIGHT = 256
UNCOUNTED_ROUNDS = 2
NATIONS = ("FI", "LV", "LT", "NO", "PL", "UA")
EXPORTS = ("log", "csv", "jsonl")
Fact = tuple[AuditKind, str, list[tuple[str, str]], str]


def facts(first: int) -> Iterator[Fact]:
    """What a node writes that sends alerts to three nations and answers them; digests fall anywhere, ids grow."""
    number = first
    while True:
        digest = hashlib.sha256(str(number // 10).encode()).hexdigest()
        alert = f"019ab3f2-{number // 10:08x}-7{digest[:3]}-9b52-{digest[3:15]}"[-36:]
        about, nation = ("document", alert), NATIONS[number // 10 % len(NATIONS)]
        turn = number % 10
        if turn == 0:
            others = ",".join(NATIONS[(number // 10 + step) % len(NATIONS)] for step in range(3))
            yield AuditKind.SENT, "operator.ee", [about, ("digest", digest[:43])], others
        elif turn <= 3:
            own = hashlib.sha256(f"receipt {number}".encode()).hexdigest()[:12]
            receipt = ("receipt", f"019ab3f3-{number:08x}-7d3b-9b52-{own}"[-36:])
            yield AuditKind.RECEIPTED, nation, [receipt, about], "delivered, 1 of 1 known"
        elif turn == 4:
            yield AuditKind.RECEIVED, nation, [about, ("digest", digest[20:63])], "direct"
        elif turn == 5:
            yield AuditKind.DISPLAYED, f"{nation}/officer", [about], ""
        elif turn <= 7:
            yield AuditKind.ACKNOWLEDGED, f"{nation}/officer", [about], "actioning"
        elif turn == 8:
            yield AuditKind.SIGNED_IN, "officer.ee", [("address", f"10.0.0.{number % 256}")], ""
        else:
            yield AuditKind.REFUSED, nation, [about], f"expired: expired {number % 600} s ago"
        number += 1


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Node, Clock]]:
    """A node over the database; its clock goes on where the log ends."""
    clock, founded = Clock(), federation()
    async with running_node(url, founded.parties[EE], founded, clock) as node:
        newest = await node.desk.ledger.read(
            lambda connection: connection.scalar(select(func.max(audit_leaves_table.c.at)))
        )
        clock.ms = max(clock.ms, newest or 0) + 1000
        yield node, clock


async def fill(node: Node, clock: Clock, count: int, say: Callable[[int], None]) -> None:
    """Append up to ``count`` entries, a checkpoint after each commit, some of them cosigned by all others."""
    ledger, founded = node.desk.ledger, federation()
    witnesses = [
        WitnessSigner(
            party.member.witness_name,
            Ed25519PrivateKey.from_private_bytes(seed(f"{nation} 1 witness")),
        )
        for nation, party in founded.parties.items()
        if nation != EE
    ]
    size, commits = await ledger.read(log_size), 0
    source = facts(size)
    while size < count:
        batch = [next(source) for _ in range(min(SEED_COMMIT, count - size))]

        def write(tx: Transaction, batch: Sequence[Fact] = batch) -> None:
            for fact in batch:
                tx.audit(*fact)

        clock.ms += 500
        await ledger.write(write)
        size, commits = size + len(batch), commits + 1
        note = await checkpoint(node.desk)
        if commits % COSIGNED_EVERY == 0:
            rows = [
                {
                    "size": size,
                    "witness": each.key.name,
                    "line": format_signature(each.cosign(note, clock.ms // 1000)),
                    "at": clock.ms,
                }
                for each in witnesses
            ]
            await ledger.write(
                lambda tx, rows=rows: (
                    tx.connection.execute(insert(cosignatures_table), rows) and None
                )
            )
            say(size)


async def append(node: Node, count: int, in_flight: int) -> float:
    """Entries a second: each a step of its own, ``in_flight`` of them waiting for their commit at any time."""
    ledger = node.desk.ledger
    source = facts(await ledger.read(log_size))
    left = count

    async def writer() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            fact = next(source)
            await ledger.write(lambda tx, fact=fact: tx.audit(*fact))

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(writer())
    return count / (time.perf_counter() - begun)


def turns(nodes: dict[str, Node], rounds: int) -> Iterator[tuple[str, Node, bool]]:
    """The two take turns, the one that begins changes; whether it counts: the first rounds fill the caches of both."""
    for number in range(rounds + UNCOUNTED_ROUNDS):
        both = [*nodes.items()]
        for which, node in both if number % 2 else reversed(both):
            yield which, node, number >= UNCOUNTED_ROUNDS


async def appends(nodes: dict[str, Node], rounds: int) -> dict[str, Any]:
    """Ratios are medians over the pairs of one round."""
    measured: dict[str, Any] = {}
    for name, in_flight, count in (
        # Long enough for the write-ahead log to be brought into the database several times in each.
        ("full load", IN_FLIGHT, 8 * IN_FLIGHT),
        ("one at a time", 1, 50),
    ):
        rates: dict[str, list[float]] = {"small": [], "large": []}
        for which, node, counts in turns(nodes, rounds):
            rate = await append(node, count, in_flight)
            if counts:
                rates[which].append(rate)
        pairs = zip(rates["large"], rates["small"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        measured[name] = compared(rates["small"], rates["large"], ratio)
    return measured


async def bursts(nodes: dict[str, Node], files: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Bursts of two commits, apart by whether SQLite brought its write-ahead log into the database during one.

    It does so after every 1,000 pages, which is every second burst or so: in rounds this short a median is of the one
    kind for one database and of the other kind for the other.
    """
    rates: dict[tuple[str, bool], list[float]] = {}
    for which, node, counts in turns(nodes, rounds):
        before = files[which].stat().st_mtime_ns
        rate = await append(node, 2 * IN_FLIGHT, IN_FLIGHT)
        if counts:
            moved = files[which].stat().st_mtime_ns != before
            rates.setdefault((which, moved), []).append(rate)
    measured: dict[str, Any] = {}
    for word, moved in (("with", True), ("without", False)):
        small, large = rates["small", moved], rates["large", moved]
        ratio = statistics.median(large) / statistics.median(small)
        name = f"bursts of {2 * IN_FLIGHT}, {word} the write-ahead log moved"
        measured[name] = compared(small, large, ratio)
    return measured


def compared(small: list[float], large: list[float], ratio: float) -> dict[str, Any]:
    return {
        "small_per_s": statistics.median(small),
        "large_per_s": statistics.median(large),
        "ratio": ratio,
        "rounds": [len(small), len(large)],
    }


def percentiles(figures: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(figures, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(figures), "n": len(figures)}


async def proofs(node: Node, clock: Clock, count: int) -> dict[str, Any]:
    """Milliseconds for the proof of entries anywhere in the log: the flow alone, then over HTTP with a signed-in user."""
    desk = node.desk
    size = open_checkpoint(await checkpoint(desk), desk.log_signer.key).size
    anywhere = random.Random(size)
    flow: list[float] = []
    for _ in range(count):
        index = anywhere.randrange(size)
        begun = time.perf_counter()
        await inclusion(desk, index)
        flow.append((time.perf_counter() - begun) * 1e3)
    http: list[float] = []
    async with served(node, clock) as wire:
        for _ in range(count):
            index = anywhere.randrange(size)
            begun = time.perf_counter()
            status, _ = await wire.send("GET", f"/v1/audit/proof?index={index}")
            http.append((time.perf_counter() - begun) * 1e3)
            assert status == 200
    return {"flow_ms": percentiles(flow), "http_ms": percentiles(http)}


@asynccontextmanager
async def served(node: Node, clock: Clock) -> AsyncIterator[Wire]:
    """The node's API on a port of loopback, and an auditor who is signed in."""
    known = await node.desk.ledger.read(lambda connection: find_user(connection, "auditor.ee"))
    assert known is None, "an API was opened on this database before"
    async with open_office(node, clock) as office:
        # With the protocol named, as uvicorn's own sockets are: asyncio then sets TCP_NODELAY.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(office.api, log_config=None, lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        wire = await Wire(f"http://127.0.0.1:{listening.getsockname()[1]}").open()
        await wire.sign_in({"username": "auditor.ee", "password": PASSWORD})
        yield wire
        wire.close()
        server.should_exit = True
        await running


async def export(url: str, form: str, out: Path) -> None:
    """What the API streams, into a file; in a process of its own."""
    async with opened(url) as (node, _):
        if form == "log":
            pieces = export_lines(node.desk, "auditor.ee")
        else:
            viewer = Viewer("auditor.ee", Tlp.RED)
            pieces = await begin_export(
                node.desk, viewer, EntryFilter(), order=Order.OLDEST, form=form
            )
        with out.open("w", encoding="utf-8", newline="") as file:
            async for piece in pieces:
                file.write(piece)


def run_measured(*command: str) -> dict[str, Any]:
    """Run a command to its end: seconds, and the peak of its resident memory as the kernel counted it."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text("ascii")
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024 / 1e6)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    seconds = time.perf_counter() - begun
    watcher.join()
    assert process.returncode == 0, said
    return {"seconds": seconds, "peak_mb": peak, "said": said}


def files(url: str, directory: Path, size_name: str) -> dict[str, Any]:
    """Every export of one database, and both verifiers over the whole log."""
    measured: dict[str, Any] = {}
    for form in EXPORTS:
        out = directory / f"{size_name}.{form}"
        found = run_measured(
            sys.executable, str(Path(__file__)), "--export", form, "--url", url, "--file", str(out)
        )
        found["mb"] = out.stat().st_size / 1e6
        measured[f"export {form}"] = found
    whole, genesis = str(directory / f"{size_name}.log"), str(federation().id)
    for name, command in (
        ("varde audit verify", [sys.executable, "-m", "varde_gateway", "audit", "verify"]),
        ("varde_verify.py", [sys.executable, "-I", str(ROOT / "deploy/verify/varde_verify.py")]),
    ):
        found = run_measured(*command, whole, "--genesis", genesis, "--json")
        verdict = json.loads(found.pop("said"))
        assert verdict["intact"], verdict
        measured[name] = found | {each: verdict[each] for each in ("entries", "checkpoints")}
    for form in EXPORTS:
        (directory / f"{size_name}.{form}").unlink()
    return measured


async def fill_all(urls: dict[str, str], sizes: dict[str, int], console: Console) -> None:
    for name, url in urls.items():
        begun = time.perf_counter()
        async with opened(url) as (node, clock):
            await fill(
                node,
                clock,
                sizes[name],
                lambda size: size % 100_000 or console.print(f"{size:,} entries"),
            )
        console.print(f"{name}: filled in {time.perf_counter() - begun:.0f} s")


async def measure(
    urls: dict[str, str], sizes: dict[str, int], rounds: int, directory: Path, console: Console
) -> dict[str, Any]:
    results: dict[str, Any] = {"sizes": sizes}
    async with AsyncExitStack() as stack:
        running = {name: await stack.enter_async_context(opened(urls[name])) for name in sizes}
        nodes = {name: node for name, (node, _) in running.items()}
        results["append"] = await appends(nodes, rounds)
        paths = {name: Path(url.removeprefix("sqlite:///")) for name, url in urls.items()}
        if all(path.is_file() for path in paths.values()):
            results["append"] |= await bursts(nodes, paths, 4 * rounds)
        console.print_json(data=results["append"])
        results["proof"] = {
            name: await proofs(node, clock, 500) for name, (node, clock) in running.items()
        }
        console.print_json(data=results["proof"])
    for name in sizes:
        results[name] = await asyncio.to_thread(files, urls[name], directory, name)
        console.print_json(data=results[name])
    return results


def show(results: dict[str, Any], title: str) -> Table:
    small, large = (f"{results['sizes'][name]:,}" for name in ("small", "large"))
    table = Table("what", small, large, title=title)
    for name, found in results["append"].items():
        table.add_row(
            f"appends, {name}",
            f"{found['small_per_s']:.0f}/s",
            f"{found['large_per_s']:.0f}/s; {found['ratio']:.2f} of it",
        )
    for name in ("flow_ms", "http_ms"):
        cells = (results["proof"][which][name] for which in ("small", "large"))
        table.add_row(
            f"inclusion proof, {name.removesuffix('_ms')}",
            *(f"p50 {each['p50']:.1f} ms, p99 {each['p99']:.1f} ms" for each in cells),
        )
    for name in results["large"]:
        cells = (results[which][name] for which in ("small", "large"))
        table.add_row(
            name,
            *(
                f"{each['seconds']:.1f} s, {each['peak_mb']:.0f} MB resident"
                + (f", file {each['mb']:.0f} MB" if "mb" in each else "")
                for each in cells
            ),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-log", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of SQLite")
    parser.add_argument(
        "--keep", type=Path, help="fill SQLite databases here once; an existing folder"
    )
    parser.add_argument("--out", type=Path, help="all figures as JSON")
    parser.add_argument("--export", choices=EXPORTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        asyncio.run(export(options.url, options.export, options.file))
        return
    console = Console(stderr=True)
    sizes = {"small": options.small, "large": options.large}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.postgres:
            programs = postgres_programs()
            assert programs is not None, "PostgreSQL is not installed here"
            cluster = stack.enter_context(postgres_cluster(programs, durable=True))
            urls = {name: cluster.new_database() for name in sizes}
            asyncio.run(fill_all(urls, sizes, console))
        else:
            kept = options.keep or directory
            filled = {name: kept / f"{sizes[name]}.filled.db" for name in sizes}
            asyncio.run(fill_all({n: f"sqlite:///{f}" for n, f in filled.items()}, sizes, console))
            for name, file in filled.items():
                # What is measured appends to a copy: the next run begins where this one did.
                shutil.copy(file, directory / f"{name}.db")
            urls = {name: f"sqlite:///{directory / f'{name}.db'}" for name in sizes}
        results = asyncio.run(measure(urls, sizes, options.rounds, directory, console))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")
    kind = "PostgreSQL" if options.postgres else "SQLite"
    Console(width=120).print(show(results, f"{kind}, {len(os.sched_getaffinity(0))} cores"))


if __name__ == "__main__":
    main()
