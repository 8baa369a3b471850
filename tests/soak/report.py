"""What a campaign found, as lines, as a table, and as Markdown."""

import statistics
from collections import defaultdict
from pathlib import Path

from soak.campaign import Outcome, Result

INVARIANTS = {
    "I1": "every accepted alert is at every recipient, receipted",
    "I2": "at most one visible effect per alert and nation",
    "I3": "no receipt without the durable record behind it",
    "I4": "nothing is there that was not sent, byte for byte",
    "I5": "audit logs only grow, and verify",
    "I6": "one roster everywhere, with its votes",
    "I7": "a silenced peer is noticed within two heartbeats",
    "API": "no answer but 202, 401 and 503 (RFC 9457)",
    "hostile": "what a hostile member did is refused, with its trace, and has no effect",
    "recovery": "every node is ready within 60 s of the healing",
}


def format_line(number: int, outcome: Outcome) -> str:
    """One fault."""
    held = "held" if not outcome.violations else "VIOLATED"
    noticed = "" if outcome.noticed is None else f", noticed {outcome.noticed:.1f} s"
    text = (
        f"{number:4} {held:8} {outcome.fault.describe():<74} {outcome.alerts:4} alerts, "
        f"settled {outcome.settled:5.2f} s{noticed}, {outcome.seconds:.1f} s in all"
    )
    return "\n".join([text, *(f"       {v.invariant}: {v.detail}" for v in outcome.violations)])


def format_report(result: Result, *, command: str, nations: list[str]) -> str:
    """Markdown: totals, a row per kind of fault, a row per invariant, and every violation."""
    tally = result.tally
    lines = [
        f"`{command}`: {len(result.outcomes)} faults in {result.seconds / 60:.0f} minutes in a federation of "
        f"{', '.join(nations)}; {result.alerts} alerts accepted for {result.deliveries} deliveries; "
        f"**{len(result.violations)} violations**.",
        "",
        "| fault | injected | held | last receipt after healing, median | longest |",
        "|---|---|---|---|---|",
        *_rows_by_kind(result),
        "",
        "| | invariant | checked | violations |",
        "|---|---|---|---|",
    ]
    looked = {
        "I1": f"{tally.arrivals} arrivals",
        "I2": f"{tally.events} events",
        "I3": f"{tally.receipts} receipts",
        "I4": f"{tally.received} alerts received",
        "I5": f"{tally.exports} exports, {tally.entries} entries",
        "I6": f"{tally.rosters} roster chains",
        "I7": f"{tally.silences} silences noticed",
        "API": f"{result.alerts} alerts accepted",
        "hostile": f"{result.done.total()} acts, {result.refused.total()} traces",
        "recovery": f"{len(result.outcomes)} times",
    }
    for name, meaning in INVARIANTS.items():
        count = sum(each.invariant == name for each in result.violations)
        lines.append(f"| {name} | {meaning} | {looked[name]} | {count} |")
    if result.done:
        lines += ["", "| hostile acts | done | with the trace of their refusal |", "|---|---|---|"]
        lines += [f"| {n} | {count} | {result.refused[n]} |" for n, count in result.done.items()]
    noticed = [each.noticed for each in result.outcomes if each.noticed is not None]
    if noticed:
        lines += ["", f"Silences were noticed after {min(noticed):.1f} to {max(noticed):.1f} s."]
    if tally.halted:
        lines.append(
            f"After {tally.halted} older copies the node learned from its peers that its log had forked, and signed no more."
        )
    if tally.delayed:
        lines.append(
            f"{tally.delayed} deliveries signed by a clock more than five minutes ahead waited, visibly, for that time."
        )
    if tally.lost_with_copies:
        lines.append(
            f"{tally.lost_with_copies} alerts were in no database any more after an older copy was given back, "
            "and are not counted in I1."
        )
    if result.violations:
        lines += ["", "Violations:", ""]
        lines += [f"- {each.invariant}: {each.detail}" for each in result.violations]
    return "\n".join(lines) + "\n"


def write_report(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _rows_by_kind(result: Result) -> list[str]:
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for each in result.outcomes:
        kinds[each.fault.kind].append(each)
    rows = []
    for kind, outcomes in kinds.items():
        settled = [each.settled for each in outcomes]
        held = sum(not each.violations for each in outcomes)
        rows.append(
            f"| {kind} | {len(outcomes)} | {held} | {statistics.median(settled):.2f} s | {max(settled):.2f} s |"
        )
    return rows
