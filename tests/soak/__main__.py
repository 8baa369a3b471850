"""``make soak-faults``: a long seeded campaign. ``SOAK_FAULTS``, ``SOAK_SEED``, ``SOAK_NATIONS``, ``SOAK_REPORT`` choose.

Prints a line per fault and the report; ends with 1 where an invariant was violated, with 2 where it cannot run here.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.campaign import Outcome, new_directory, running_campaign
from soak.faults import WEIGHTS, draw_faults
from soak.field import find_faketime
from soak.hostile_words import HOSTILE_WEIGHTS
from soak.report import format_line, format_report, write_report
from support.netns import why_no_namespaces


def main() -> int:
    """Run one campaign."""
    reason = why_no_namespaces()
    if find_faketime() is None:
        reason = "libfaketime is not installed: deploy/debian-packages installs it"
    if reason is not None:
        print(f"no campaign here: {reason}", file=sys.stderr)
        return 2
    count = int(os.environ.get("SOAK_FAULTS", "200"))
    seed = int(os.environ.get("SOAK_SEED", "1"))
    nations = os.environ.get("SOAK_NATIONS", "EE,FI,LV,LT").split(",")
    report = Path(
        os.environ.get("SOAK_REPORT", Path(tempfile.gettempdir()) / "varde-soak-report.md")
    )
    # At each end of a TLS connection by the other side asyncio warns.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # Whoever ends us, namespaces and nodes are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = new_directory()
    print(
        f"{count} faults, seed {seed}, nations {', '.join(nations)}, homes in {directory}",
        flush=True,
    )

    def tell(number: int, outcome: Outcome) -> None:
        print(format_line(number, outcome), flush=True)

    with running_campaign(nations, seed, directory) as campaign:
        result = campaign.run(
            draw_faults(seed, count, nations, {**WEIGHTS, **HOSTILE_WEIGHTS}), tell
        )
    command = (
        f"make soak-faults SOAK_FAULTS={count} SOAK_SEED={seed} SOAK_NATIONS={','.join(nations)}"
    )
    text = format_report(result, command=command, nations=nations)
    write_report(report, text)
    print(f"\n{text}\nreport: {report}", flush=True)
    if result.violations:
        print(f"the nodes' logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
