"""Many schedules and a report.

PYTHONPATH=tests python -m simulation --schedules 10000 --processes 2 --report simulation.md
PYTHONPATH=tests python -m simulation --seed 4711 --nations 3 --trace

A seed stands for the same life as long as neither the simulation nor the number of nations changes.
"""

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import structlog

from simulation.deeds import DEEDS, FAULTS
from simulation.schedule import Outcome, a_place, run_schedule

NATIONS = (3, 3, 3, 4)
"""Every fourth process' worth of schedules has four nations instead of three."""
CHUNK = 25


def main() -> int:
    asked = _asked()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.setswitchinterval(0.0005)
    if asked.seed is not None:
        return _one(asked.seed, asked.nations, trace=asked.trace)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    chunks = [
        (first, min(CHUNK, asked.first + asked.schedules - first), NATIONS[index % len(NATIONS)])
        for index, first in enumerate(range(asked.first, asked.first + asked.schedules, CHUNK))
    ]
    with multiprocessing.get_context("fork").Pool(asked.processes, maxtasksperchild=8) as pool:
        for done in pool.imap_unordered(_chunk, chunks):
            outcomes += done
            for each in done:
                for violation in each.violations:
                    print(f"\nseed {each.seed}: {violation}\n{each.replay}", file=sys.stderr)
            _progress(outcomes, asked.schedules, began)
            if asked.report is not None:
                # A run that is stopped before its end leaves what it has found.
                asked.report.write_text(report(outcomes, asked.schedules, time.monotonic() - began))
    print(file=sys.stderr)
    print(report(outcomes, asked.schedules, time.monotonic() - began))
    return 1 if any(each.violations for each in outcomes) else 0


def report(outcomes: list[Outcome], wanted: int, seconds: float) -> str:
    """What was done and what held, as Markdown."""
    counts: Counter[str] = Counter()
    for each in outcomes:
        counts += each.counts
    faults = {name: counts[name] for name in FAULTS}
    work = {name: counts[name] for name in DEEDS}
    inside = {name: n for name, n in counts.items() if name.startswith(("crash ", "tampered: "))}
    failed = [each for each in outcomes if each.violations]
    seeds = sorted(each.seed for each in outcomes)
    sizes = Counter(each.nations for each in outcomes)
    lines = [
        f"{len(outcomes)} of {wanted} schedules (seeds {seeds[0]} to {seeds[-1]}; "
        + ", ".join(f"{n} with {size} nations" for size, n in sorted(sizes.items()))
        + f"), {sum(each.steps for each in outcomes)} steps, {sum(faults.values())} faults, "
        f"{counts['alerts']} alerts, {counts['receipts']} documents receipted, {seconds / 60:.0f} min.",
        "",
        f"Violations: **{sum(len(each.violations) for each in outcomes)}**, in {len(failed)} schedules.",
        "",
        *_table("fault", faults),
        *_table("where a node died, what was changed", inside),
        *_table("work between them", work),
    ]
    for each in failed:
        lines += [
            f"- seed {each.seed}, {each.nations} nations: {violation}"
            for violation in each.violations
        ]
        lines.append(f"  `{each.replay}`")
    return "\n".join(lines)


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    rows = (f"| {name} | {count} |" for name, count in sorted(counts.items()))
    return [f"| {title} | times |", "|---|---|", *rows, ""]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the report there, as Markdown")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--nations", type=int, default=3, choices=(3, 4), help="with --seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: show what happened")
    return parser.parse_args()


def _one(seed: int, nations: int, *, trace: bool) -> int:
    with a_place(nations) as place:
        outcome = run_schedule(seed, place)
    if trace:
        print("\n".join(outcome.trace))
    print("\n".join(outcome.violations) or "nothing was violated")
    print(f"digest {outcome.digest}")
    return 1 if outcome.violations else 0


def _chunk(asked: tuple[int, int, int]) -> list[Outcome]:
    first, count, nations = asked
    with a_place(nations) as place:
        return [run_schedule(first + n, place).without_trace() for n in range(count)]


def _progress(outcomes: list[Outcome], wanted: int, began: float) -> None:
    done, bad = len(outcomes), sum(bool(each.violations) for each in outcomes)
    rate = done / (time.monotonic() - began)
    print(
        f"\r{done} of {wanted} schedules, {rate:.1f} a second, {bad} with violations",
        end="",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
