"""``varde audit search | trail | statistics | erase``, and the filtered forms of ``varde audit export``.

Everything goes through the node's API, as the user who signs in; what that user may not see is not here either.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from varde.testimony import printable
from varde_gateway.cli.command import JsonOption, print_json
from varde_gateway.cli.download import save
from varde_gateway.cli.filters import (
    AboutOption,
    ActorOption,
    AlertOption,
    FromOption,
    KindOption,
    TextOption,
    UntilOption,
    filter_parameters,
)
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    NodeClient,
    PasswordFileOption,
    PasswordOption,
    SignIn,
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)
from varde_gateway.cli.queries import saved_parameters

MAX_PAGE: Final = 200
_NUMBERS: Final = {"p50": "p50 ms", "p90": "p90 ms", "p99": "p99 ms", "count": "count"}


class ExportFormat(StrEnum):
    """``log`` is the whole log for ``varde audit verify``; the others are entries for people and programs."""

    LOG = "log"
    CSV = "csv"
    JSONL = "jsonl"


class Order(StrEnum):
    """Which entries come first."""

    NEWEST = "newest"
    OLDEST = "oldest"


def add_to(app: typer.Typer) -> None:
    """Make the commands of this module commands of ``varde audit``."""
    for command in (search, trail, statistics, erase):
        app.command()(command)


def search(
    *,
    kind: KindOption = None,
    actor: ActorOption = None,
    alert: AlertOption = None,
    about: AboutOption = None,
    text: TextOption = None,
    begin: FromOption = None,
    until: UntilOption = None,
    saved: Annotated[
        str | None,
        typer.Option("--saved", help="As kept under this name: 'varde audit queries list'."),
    ] = None,
    order: Annotated[Order, typer.Option("--order")] = Order.NEWEST,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 50,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the audit log of a node, as an auditor; that you looked is recorded in it.

    Examples: varde audit search --kind refused --about FI --demo demo --nation EE |
    varde audit search --text expired --from 2026-03-01 --url http://127.0.0.1:18400 --username auditor.ee |
    varde audit search --saved refused-by-fi --from 2026-03-01 --demo demo --nation EE
    """
    wanted = filter_parameters(kind, actor, alert, about, text, begin, until)
    sign_in = _sign_in("auditor", url, username, password, password_file, demo, nation)
    found: list[dict[str, Any]] = []
    with signed_in(sign_in) as node:
        if saved is not None:
            named = {label for label, _ in wanted}
            kept = saved_parameters(node, saved)
            wanted = [*(each for each in kept if each[0] not in named), *wanted]
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            size = min(MAX_PAGE, limit - len(found))
            page = [("order", order.value), ("limit", str(size))]
            page += [("cursor", cursor)] if cursor else []
            answer = node.get(f"/v1/audit/entries?{urlencode([*wanted, *page])}")
            found += answer["items"]
            cursor = answer["next_cursor"]
    if as_json:
        print_json({"items": found, "more": cursor is not None})
        return
    for each in found:
        print(_entry_line(each))
    more = " There are more: raise --limit." if cursor is not None else ""
    print(f"{len(found)} entries.{more}", file=sys.stderr)


def trail(
    *,
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="The alert's id.")],
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow one alert across the nodes: who had it when, by whose clock, over which way, with the delays.

    Example: varde audit trail 0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f --demo demo --nation EE
    """
    sign_in = _sign_in("auditor", url, username, password, password_file, demo, nation)
    with signed_in(sign_in) as node:
        found = node.get(f"/v1/alerts/{alert_id}/trail")
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(_nations_table(found))
    for each in found["timeline"]:
        way = f" via {','.join(each['via'])}" if each["via"] else ""
        index = "" if each["index"] is None else f" #{each['index']}"
        line = (
            f"{each['at']} by {each['clock']}'s clock  {each['nation']:<4} {each['step']:<13} "
            f"{' '.join(filter(None, (each['actor'], each['detail'])))}{way} ({each['source']}{index})"
        )
        console.print(Text(printable(line)), soft_wrap=True)


def statistics(
    *,
    begin: FromOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count and measure: entries, alerts, delays per nation, refusals, what was not answered.

    Example: varde audit statistics --from 2026-03-01 --until 2026-04-01 --demo demo --nation EE
    """
    sign_in = _sign_in("auditor", url, username, password, password_file, demo, nation)
    wanted = filter_parameters(None, None, None, None, None, begin, until)
    with signed_in(sign_in) as node:
        found = node.get(f"/v1/audit/statistics?{urlencode(wanted)}")
    if as_json:
        print_json(found)
        return
    console = Console()
    for title, counts in (("Entries", found["entries"]), *_alert_counts(found["alerts"])):
        words = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        console.print(Text(f"{title}: {words}"), soft_wrap=True)
    for title, rows in (
        ("Delivery", found["delivery_ms"]),
        ("Acknowledgement", found["acknowledgement_ms"]),
    ):
        console.print(_figures_table(title, rows))
    for each in found["deliveries"]:
        states = ", ".join(f"{name} {count}" for name, count in each["states"].items())
        more = f"{each['overdue']} overdue, {each['through_others']} through others"
        console.print(Text(f"To {each['nation']}: {states}; {more}"), soft_wrap=True)
    for each in found["refusals"]:
        line = f"Refused from {each['link']}: {each['reason']} {each['count']}"
        console.print(Text(printable(line)), soft_wrap=True)


def erase(
    *,
    alert: Annotated[str, typer.Option("--alert", help="The alert's id.")],
    reason: Annotated[
        str, typer.Option("--reason", help="The law or the order; it is logged for ever.")
    ],
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase the content of one alert at this node, as an administrator; its log entries stay.

    Example: varde audit erase --alert 0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f --reason "Order 17/2026" --demo demo --nation EE
    """
    sign_in = _sign_in("admin", url, username, password, password_file, demo, nation)
    with signed_in(sign_in) as node:
        found = node.post(f"/v1/alerts/{alert}/erase", json={"reason": reason})
    if as_json:
        print_json(found)
    elif found["state"] == "waiting":
        print(f"{alert}: asked for; another administrator must confirm it with the same command.")
    else:
        print(f"{alert}: the content is erased at this node; its entries in the log stay.")


def export_entries(
    node: NodeClient, form: ExportFormat, wanted: list[tuple[str, str]], out: Path
) -> int:
    """Write what the filter finds to ``out``, as it comes; how many lines there are."""
    return save(node, f"/v1/audit/entries?{urlencode([*wanted, ('format', form.value)])}", out)


def _sign_in(  # noqa: PLR0917 -- the same options in every command
    role: str,
    url: str | None,
    username: str | None,
    password: str | None,
    password_file: Path | None,
    demo: Path | None,
    nation: str | None,
) -> SignIn:
    return find_sign_in(
        role,
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )


def _entry_line(entry: dict[str, Any]) -> str:
    subjects = " ".join(f"{each['label']}:{each['value']}" for each in entry["subjects"])
    said = "(withheld)" if entry["withheld"] else f"{subjects} {entry['detail']}".strip()
    return printable(
        f"{entry['index']:>8} {entry['at']} {entry['kind']:<17} {entry['actor']:<16} {said}"
    )


def _nations_table(found: dict[str, Any]) -> Table:
    # As wide as a terminal of eighty columns.
    table = Table(
        "nation",
        "state",
        "via",
        title=f"Alert {found['id']}",
        caption=f"milliseconds from step to step, by the clock of {found['node']}",
        pad_edge=False,
    )
    for name in ("sent", "delivered", "displayed", "ack", "total"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found["nations"]:
        delays = each["delays"]
        late = " overdue" if each["overdue"] else ""
        cells = [
            delays.get("queued_to_sent_ms"),
            delays.get("sent_to_delivered_ms"),
            delays.get("delivered_to_displayed_ms"),
            delays.get("displayed_to_acknowledged_ms", delays.get("delivered_to_acknowledged_ms")),
            each["total_ms"],
        ]
        table.add_row(
            each["nation"],
            each["state"] + late,
            ",".join(each["via"]) or "direct",
            *("" if cell is None else str(cell) for cell in cells),
        )
    return table


def _figures_table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table("nation", title=title)
    for name in _NUMBERS.values():
        table.add_column(name, justify="right")
    for each in rows:
        table.add_row(each["nation"], *(str(each[name]) for name in _NUMBERS))
    return table


def _alert_counts(alerts: dict[str, dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    return [(f"Alerts by {name}", counts) for name, counts in alerts.items()]
