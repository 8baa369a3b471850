"""Fifty nations, each with a direct link to a few others only, and a tenth of the links cut: what the beacon chain makes of it.

    PYTHONPATH=tests python -m simulation.fifty --report fifty.md --picture fifty.svg

Real core, flow, signatures and databases; links and time are simulated. Each sender sends urgent alerts to all the others.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import structlog

from simulation.chart import Bar, Part, draw_bars
from simulation.node import AtOnce
from simulation.world import Place, World
from support.alerts import sample_alert
from support.federation import Federation, federation
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Lane, Nation
from varde.transit import MAX_HOPS
from varde_gateway.flow.send import Order, send_alert

NATIONS = 50
DEGREES = (4, 6, 8)
SEEDS = (1, 2, 3)
CUT_SHARE = 0.1
ALERTS = 5
SECONDS = 60
PARTS = (
    Part("straight", "#1e4e8c", "#ffffff"),
    Part("through one", "#3f83c5", "#ffffff"),
    Part("through two", "#93c1e8", "#1a202c"),
    Part("through three", "#d2e5f6", "#1a202c"),
    Part("not delivered", "#c2570c", "#ffffff"),
)


class Trial(NamedTuple):
    """How many links each nation has, and the seed by which they are drawn."""

    degree: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of one trial; ``hops`` counts deliveries by the nations that handed them on.

    ``too_far`` are those to which no way with at most three nations on it was left, ``missed`` those that had one and were
    not delivered all the same, ``open`` those that their sender still shows as open.
    """

    trial: Trial
    links: int
    cut: int
    deliveries: int
    delivered: int
    too_far: int
    missed: int
    open: int
    hops: Counter[int]
    direct: int
    on_the_way: int
    answers: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m simulation.fifty", description=__doc__)
    parser.add_argument("--nations", type=int, default=NATIONS)
    parser.add_argument("--alerts", type=int, default=ALERTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="varde-fifty-", dir=memory if memory.is_dir() else None
    ) as directory:
        say(f"founding a federation of {asked.nations}")
        place = Place(Path(directory), a_federation(asked.nations))
        results = [
            asyncio.run(_run(place, Trial(degree, seed), asked.alerts))
            for degree in DEGREES
            for seed in asked.seeds
        ]
    text = table(results, asked.nations, asked.alerts)
    print(text)
    if asked.report is not None:
        asked.report.write_text(text)
    if asked.picture is not None:
        asked.picture.write_text(picture(results, asked.nations))


def a_federation(count: int) -> Federation:
    """Nations of two letters, AA, AB, AC, …"""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = [Nation(a + b) for a in letters for b in letters][:count]
    return federation(*names)


def regular_links(nations: list[Nation], degree: int, lot: random.Random) -> set[frozenset[Nation]]:
    """A connected graph in which every nation has ``degree`` links: a ring, its links exchanged by lot again and again."""
    count = len(nations)
    links = {
        frozenset((nations[at], nations[(at + step) % count]))
        for at in range(count)
        for step in range(1, degree // 2 + 1)
    }
    while True:
        for _ in range(10 * len(links)):
            (a, b), (c, d) = (
                lot.sample(sorted(link), 2) for link in lot.sample(sorted(links, key=sorted), 2)
            )
            fresh = {frozenset((a, c)), frozenset((b, d))}
            if len({a, b, c, d}) == 4 and not fresh & links:
                links = links - {frozenset((a, b)), frozenset((c, d))} | fresh
        if len(distances(nations[0], links)) == count:
            return links


def distances(begin: Nation, links: set[frozenset[Nation]]) -> dict[Nation, int]:
    """How many links every nation is away."""
    found, edge = {begin: 0}, [begin]
    while edge:
        here = edge.pop(0)
        for link in links:
            if here in link:
                (there,) = link - {here}
                if there not in found:
                    found[there] = found[here] + 1
                    edge.append(there)
    return found


async def _run(place: Place, trial: Trial, alerts: int) -> Result:
    degree, seed = trial
    asyncio.get_running_loop().set_default_executor(AtOnce())
    world = World(place, seed)
    await world.open()
    nations = sorted(world.nodes)
    links = regular_links(nations, degree, world.lot)
    cut = set(world.lot.sample(sorted(links, key=sorted), round(len(links) * CUT_SHARE)))
    alive = links - cut
    world.cut = {
        pair
        for a, b in combinations(nations, 2)
        if frozenset((a, b)) not in alive
        for pair in ((a, b), (b, a))
    }
    try:
        for round_ in range(5):
            say(f"degree {degree}, seed {seed}: heartbeats, round {round_ + 1} of 5")
            world.ms += 10_000
            await _beat(world)
        senders = world.lot.sample(nations, alerts)
        sent = {sender: await _send(world, sender, nations) for sender in senders}
        world.outbound.clear()
        for second in range(SECONDS):
            if second % 10 == 9:
                await _beat(world)
            await _work(world, alive)
            waiting = await _open_deliveries(world, senders)
            say(f"degree {degree}, seed {seed}: {second + 1} s, {waiting} deliveries wait")
            if not waiting:
                break
            world.ms += 1000
        return await _result(world, trial, links, cut, sent)
    finally:
        await world.close()


async def _beat(world: World) -> None:
    for node in world.nodes.values():
        await node.beat()
    world.pass_pulses()
    for node in world.nodes.values():
        await node.beat()


async def _send(world: World, sender: Nation, nations: list[Nation]) -> str:
    node = world.nodes[sender]
    order = Order(
        tuple(each for each in nations if each != sender), Tlp.GREEN, parse_alert(sample_alert())
    )
    answer = await send_alert(
        node.desk, order, author="operator", document_id=node.desk.new_id(), claim=None
    )
    return str(answer["id"])


async def _work(world: World, alive: set[frozenset[Nation]]) -> None:
    for node in world.nodes.values():
        await node.publish_due()
        await node.reroute()
    moved = True
    while moved:
        moved = False
        for link in sorted(alive, key=sorted):
            a, b = sorted(link)
            for one, other in ((a, b), (b, a)):
                moved |= bool(sum(world.carry(one, other, lane, 1000) for lane in Lane))
        for node in world.nodes.values():
            await node.take_in(1000)
            await node.publish_due()


async def _open_deliveries(world: World, senders: list[Nation]) -> int:
    return sum(
        [
            await world.nodes[sender].ledger.read(
                lambda c: (
                    c.exec_driver_sql(
                        "SELECT count(*) FROM delivery d JOIN document o ON o.id = d.document_id"
                        " WHERE d.open AND o.kind = 'alert'"
                    ).scalar()
                    or 0
                )
            )
            for sender in senders
        ]
    )


async def _result(
    world: World,
    trial: Trial,
    links: set[frozenset[Nation]],
    cut: set[frozenset[Nation]],
    sent: dict[Nation, str],
) -> Result:
    hops: Counter[int] = Counter()
    delivered = too_far = missed = open_ = total = 0
    for sender, alert in sent.items():
        rows = await world.nodes[sender].ledger.read(
            lambda c, alert=alert: c.exec_driver_sql(
                "SELECT recipient, via, delivered_at, open FROM delivery WHERE document_id = ?",
                (alert,),
            ).all()
        )
        far = distances(sender, links - cut)
        for recipient, via, delivered_at, is_open in rows:
            total += 1
            open_ += bool(is_open)
            beyond = far.get(Nation(recipient), MAX_HOPS + 2) > MAX_HOPS + 1
            too_far += beyond
            if delivered_at is not None:
                delivered += 1
                hops[len(via.split(",")) if via else 0] += 1
            elif not beyond:
                missed += 1
    sealed = [
        (nation, each) for nation, each in world.outbound if each.raw.startswith(b'{"protected"')
    ]
    return Result(
        trial=trial,
        links=len(links),
        cut=len(cut),
        deliveries=total,
        delivered=delivered,
        too_far=too_far,
        missed=missed,
        open=open_,
        hops=hops,
        direct=sum(each.transit is None for _, each in sealed),
        on_the_way=sum(each.transit is not None for _, each in sealed),
        answers=len(world.outbound) - len(sealed),
    )


def table(results: list[Result], nations: int, alerts: int) -> str:
    """Markdown: one row a degree and seed."""
    lines = [
        f"{nations} nations, {alerts} urgent alerts, each to all the others; {CUT_SHARE:.0%} of the links cut.",
        "",
        "| links a nation | seed | links, cut | delivered | no way short enough | missed all the same | still open | handed on by 0 / 1 / 2 / 3 | "
        "sealed for the direct link, with a label, a delivery | receipts and their copies |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        hops = " / ".join(str(each.hops[n]) for n in range(MAX_HOPS + 1))
        share = each.delivered / each.deliveries
        cost = (each.direct + each.on_the_way) / each.deliveries
        lines.append(
            f"| {each.trial.degree} | {each.trial.seed} | {each.links}, {each.cut} | {each.delivered} of {each.deliveries} ({share:.1%}) | {each.too_far} "
            f"| {each.missed} | {each.open} | {hops} | {each.direct}, {each.on_the_way}, {cost:.1f} | {each.answers} |"
        )
    return "\n".join(lines) + "\n"


def picture(results: list[Result], nations: int) -> str:
    """The deliveries by the number of nations that handed them on, one bar a degree and seed."""
    bars = [
        Bar(
            f"{each.trial.degree} links",
            f"seed {each.trial.seed}",
            [*(each.hops[n] for n in range(MAX_HOPS + 1)), each.deliveries - each.delivered],
        )
        for each in results
    ]
    return draw_bars(
        "Deliveries by the nations that handed them on",
        f"{nations} nations with 4, 6 or 8 direct links each, {CUT_SHARE:.0%} of the links cut; one alert of each of "
        f"{results[0].deliveries // (nations - 1)} nations to all others",
        "deliveries",
        PARTS,
        bars,
    )


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
