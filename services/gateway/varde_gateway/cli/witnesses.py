"""``varde audit witnesses``: how far a node's log is cosigned and by whom, and what is held against any log."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from varde_gateway.cli.command import JsonOption, print_json
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    PasswordFileOption,
    PasswordOption,
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)


def witnesses(
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who has cosigned a node's audit log and how far, inside the federation and outside, as an auditor.

    Example: varde audit witnesses --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        found = node.get("/v1/audit/witnesses")
    if as_json:
        print_json(found)
        return
    console = Console()
    _show_log(console, found["log"])
    _show_witnesses(console, found["log"]["entries"], found["witnesses"], found["outside"])
    for each in found["unproven"]:
        line = f"UNPROVEN, and not cosigned meanwhile: {each['origin']}: {each['detail']} ({each['at']})."
        console.print(Text(line, "bold yellow"), soft_wrap=True)
    for each in found["conflicts"]:
        line = f"TWO HISTORIES of {each['origin']}: {each['detail']} ({each['at']})."
        console.print(Text(line, "bold red"), soft_wrap=True)


def _show_log(console: Console, log: dict[str, Any]) -> None:
    witnessed = "none yet" if log["witnessed"] is None else log["witnessed"]
    line = (
        f"{log['origin']}: {log['entries']} entries, signed up to {log['signed']}, "
        f"witnessed by {log['needed']} members or more up to {witnessed}."
    )
    console.print(Text(line), soft_wrap=True)
    if log["halted"] is not None:
        console.print(Text(f"It is signed no more: {log['halted']}", "bold red"), soft_wrap=True)


def _show_witnesses(
    console: Console, entries: int, members: list[dict[str, Any]], outside: list[dict[str, Any]]
) -> None:
    table = Table("witness", "of", "cosigned", "behind", "at", "trouble", pad_edge=False)
    for each in (*members, *outside):
        size = each["size"]
        table.add_row(
            Text(each["witness"]),
            Text(each.get("nation") or "outside"),
            Text("nothing yet" if size is None else str(size)),
            Text("" if size is None else str(entries - size)),
            Text(each["at"] or ""),
            Text(each["trouble"] or "", "yellow"),
        )
    console.print(table)
