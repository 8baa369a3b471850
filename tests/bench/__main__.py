"""``make bench``: the figures of the design's table, beside the raw broker path, in one run on this machine.

Machines differ and are noisy: read the ratios. Options: ``--quick`` for a short run, ``--out FILE`` for the JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from bench.federation import idle, latency, throughput, webhooks
from bench.parts import local_parts, raw_two_hops
from support.running import Federation, free_base_port

SEVEN = ["EE", "FI", "LV", "LT", "NO", "PL", "UA"]


def percentiles(figures: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(figures, n=100, method="inclusive")
    return {
        "p50": cuts[49],
        "p90": cuts[89],
        "p99": cuts[98],
        "max": max(figures),
        "n": len(figures),
    }


def started(directory: Path, nations: list[str]) -> tuple[Federation, float]:
    federation = Federation(
        directory,
        nations,
        free_base_port(len(nations)),
        VARDE_SENSOR_REQUESTS_PER_MINUTE="1000000",
    )
    begun = time.perf_counter()
    federation.start()
    return federation, time.perf_counter() - begun


def measure(count: int) -> dict[str, Any]:
    results: dict[str, Any] = {
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "python": platform.python_version(),
        }
    }
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        console.print("parts: commit, sign, seal, open, raw two-hop path")
        parts = local_parts(count)
        results["parts_ms"] = {name: percentiles(figures) for name, figures in parts.items()}
        hops, hop_rate = asyncio.run(raw_two_hops(count, 64, free_base_port(1) + 100))
        results["raw_two_hops_ms"], results["raw_two_hops_per_s"] = percentiles(hops), hop_rate

        console.print("three nations: start, idle")
        three, seconds = started(Path(scratch) / "three", ["EE", "FI", "LV"])
        results["start_three_nations_s"] = seconds
        results["idle_node"] = idle(three, "EE", 30)
        three.stop()

        console.print("two nations: latency, throughput, webhooks")
        two, _ = started(Path(scratch) / "two", ["EE", "FI"])
        asyncio.run(latency(two, "EE", ["FI"], 20))
        figures = asyncio.run(latency(two, "EE", ["FI"], count))
        results["two_nations_ms"] = {name: percentiles(each) for name, each in figures.items()}
        results["two_nations_per_s"] = asyncio.run(throughput(two, "EE", ["FI"], count * 5, 32))
        results["webhooks_per_s"] = asyncio.run(webhooks(two, "EE", count * 4, 32))
        two.stop()

        console.print("seven nations: latency, throughput")
        seven, _ = started(Path(scratch) / "seven", SEVEN)
        figures = asyncio.run(latency(seven, "EE", SEVEN[1:], count // 2))
        results["seven_nations_ms"] = {name: percentiles(each) for name, each in figures.items()}
        results["seven_nations_per_s"] = asyncio.run(throughput(seven, "EE", SEVEN[1:], count, 16))
        seven.stop()
    return results


def rows(results: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What, measured, goal, whether it is met."""
    parts = results["parts_ms"]
    unavoidable = (
        2 * parts["commit"]["p50"]
        + parts["sign"]["p50"]
        + parts["seal"]["p50"]
        + parts["open"]["p50"]
        + results["raw_two_hops_ms"]["p50"]
    )
    two, seven = results["two_nations_ms"], results["seven_nations_ms"]
    one_way, whole = two["one_way"], two["from_post"]["p50"]
    idle_node = results["idle_node"]
    rate, seven_rate = results["two_nations_per_s"], results["seven_nations_per_s"]
    return [
        (
            "raw JetStream, two hops, one in flight",
            f"p50 {results['raw_two_hops_ms']['p50']:.1f} ms, p99 {results['raw_two_hops_ms']['p99']:.1f} ms; "
            f"{results['raw_two_hops_per_s']:.0f}/s",
            "for scale",
            True,
        ),
        ("sum of the unavoidable parts", f"{unavoidable:.1f} ms", "about 4 ms", True),
        (
            "accepted → committed at the peer, two nations",
            f"p50 {one_way['p50']:.1f} ms, p99 {one_way['p99']:.1f} ms",
            "p50 ≤ 7.5, p99 ≤ 30 ms",
            one_way["p50"] <= 7.5 and one_way["p99"] <= 30,
        ),
        (
            "POST begun → committed at the peer",
            f"p50 {whole:.1f} ms = {whole / unavoidable:.1f} × the parts",
            "≤ 2 × the parts",
            whole <= 2 * unavoidable,
        ),
        (
            "accepted → signed receipt at the sender",
            f"p50 {two['receipt']['p50']:.1f} ms, p99 {two['receipt']['p99']:.1f} ms",
            "p50 ≤ 20 ms",
            two["receipt"]["p50"] <= 20,
        ),
        (
            "seven nations, one alert to six, all six",
            f"p50 {seven['one_way']['p50']:.1f} ms, p99 {seven['one_way']['p99']:.1f} ms",
            "p99 ≤ 150 ms",
            seven["one_way"]["p99"] <= 150,
        ),
        (
            "sustained with receipts, two nations",
            f"{rate['receipted_per_s']:.0f} alerts/s",
            "≥ 300/s",
            rate["receipted_per_s"] >= 300,
        ),
        (
            "sustained with receipts, seven nations",
            f"{seven_rate['receipted_per_s']:.0f} alerts/s × 6",
            "≥ 60/s × 6",
            seven_rate["receipted_per_s"] >= 60,
        ),
        (
            "webhook accepted",
            f"{results['webhooks_per_s']:.0f}/s",
            "≥ 500/s",
            results["webhooks_per_s"] >= 500,
        ),
        (
            "idle node",
            f"{idle_node['rss_mb']:.0f} MB, {idle_node['cpu_percent']:.1f} % of a core",
            "≤ 250 MB, ≤ 2 %",
            idle_node["rss_mb"] <= 250 and idle_node["cpu_percent"] <= 2,
        ),
        (
            "start, three nations ready",
            f"{results['start_three_nations_s']:.1f} s",
            "≤ 10 s",
            results["start_three_nations_s"] <= 10,
        ),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the repetitions")
    parser.add_argument("--out", type=Path, default=Path("bench-results.json"))
    options = parser.parse_args()
    results = measure(40 if options.quick else 200)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("what", "measured", "goal", "met")
    for what, measured, goal, met in rows(results):
        table.add_row(what, measured, goal, "yes" if met else "not yet")
    Console(width=120).print(table)
    print(f"\nAll percentiles: {options.out}")


if __name__ == "__main__":
    main()
