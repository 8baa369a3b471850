"""``varde audit``: fetch a node's audit log, and verify one without trusting any server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from varde import evidence
from varde.encoding import parse_json
from varde.errors import VardeError
from varde.roster import parse_roster_payload, parse_voted_roster
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
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
from varde_gateway.cli.review import (
    AboutOption,
    ActorOption,
    AlertOption,
    ExportFormat,
    FromOption,
    KindOption,
    TextOption,
    UntilOption,
    add_to,
    export_entries,
    filter_parameters,
)

_MAX_ROSTERS_BYTES = 256 * 1024 * 1024

app = make_app("Search an audit log, follow an alert, export, archive, erase, or verify offline.")
add_to(app)


@app.command()
def export(
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="The whole log to verify, or entries as CSV or JSON Lines."),
    ] = ExportFormat.LOG,
    kind: KindOption = None,
    actor: ActorOption = None,
    alert: AlertOption = None,
    about: AboutOption = None,
    text: TextOption = None,
    begin: FromOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
) -> None:
    """Write the whole audit log of a node to a file, or the entries that are searched for, as an auditor.

    Examples: varde audit export --demo demo --nation EE --out EE.jsonl |
    varde audit export --format csv --kind refused --demo demo --nation EE --out refused.csv
    """
    wanted = filter_parameters(kind, actor, alert, about, text, begin, until)
    if form is ExportFormat.LOG and wanted:
        fail(
            Exit.USAGE, "the log can only be verified whole: a filter needs --format csv or jsonl."
        )
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    if form is not ExportFormat.LOG:
        with signed_in(sign_in) as node:
            lines = export_entries(node, form, wanted, out)
        print(f"{out}: {lines} lines, {out.stat().st_size} bytes.")
        return
    draft = out.with_name(f".{out.name}.part")
    with (
        signed_in(sign_in) as node,
        node.stream("/v1/audit/export") as answer,
        draft.open("wb") as file,
    ):
        for chunk in answer.iter_bytes():
            file.write(chunk)
    draft.replace(out)
    print(f"{out}: {out.stat().st_size} bytes. Verify it with: varde audit verify {out}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What 'varde audit export' wrote.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            help="A key of the log (C2SP vkey) that you know from elsewhere; may be repeated.",
        ),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(
            "--roster", help="A roster file, or a node's rosters.json: its keys are used."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify an exported audit log; needs no server and no network. Ends with 1 where anything is wrong.

    Examples: varde audit verify EE.jsonl | varde audit verify EE.jsonl --roster /var/lib/varde/rosters.json
    """
    try:
        pinned = [*(key or []), *(_keys_of(roster) if roster else [])]
        verdict = _verify(file, pinned, quiet=as_json)
    except OSError as error:
        fail(Exit.USAGE, f"{error.filename} cannot be read: {error.strerror}.")
    except VardeError as error:
        fail(Exit.FAILED, f"{file}: {error.detail}")
    if as_json:
        print_json(
            {
                "intact": verdict.intact,
                "origin": verdict.origin,
                "nation": verdict.nation,
                "entries": verdict.entries,
                "signed_entries": verdict.signed_entries,
                "checkpoints": verdict.checkpoints,
                "keys_pinned": verdict.keys_pinned,
                "findings": [_describe(each) for each in verdict.findings],
                "warnings": [_describe(each) for each in verdict.warnings],
            }
        )
    else:
        _print(file, verdict)
    sys.exit(Exit.OK if verdict.intact else Exit.FAILED)


def _verify(file: Path, pinned: list[str], *, quiet: bool) -> evidence.Verdict:
    size = file.stat().st_size
    columns = (TextColumn("verifying"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        file.open("rb") as lines,
        Progress(
            *columns, console=console, transient=True, disable=quiet or not console.is_terminal
        ) as bar,
    ):
        task = bar.add_task("", total=size)
        for report in evidence.verify_export(_text_lines(lines), pinned):
            if isinstance(report, evidence.Verdict):
                return report
            bar.update(task, completed=lines.tell())
    raise AssertionError("the verification ends with a verdict")


def _text_lines(lines: IO[bytes]) -> Iterator[str]:
    # A byte that is no UTF-8 is the log's fault, not ours: the line then matches no hash.
    # A longer line than any in an export arrives in pieces, each of which is refused.
    while line := lines.readline(evidence.MAX_LINE_BYTES + 1):
        yield line.decode("utf-8", "replace")


def _keys_of(roster: Path) -> list[str]:
    raw = roster.read_bytes()
    value = parse_json(raw, limit=_MAX_ROSTERS_BYTES)
    listed = value.get("rosters")
    texts = [str(each).encode() for each in listed] if isinstance(listed, list) else [raw]
    payloads = [parse_roster_payload(parse_voted_roster(each).payload) for each in texts]
    return [member.log for each in payloads for member in each.members.values()]


def _describe(finding: evidence.Finding) -> dict[str, str | int]:
    return {
        "fault": finding.fault.value,
        "first": finding.first,
        "last": finding.last,
        "detail": finding.detail,
    }


def _print(file: Path, verdict: evidence.Verdict) -> None:
    what = f"{verdict.origin} of {verdict.nation}: {verdict.entries} entries"
    if verdict.intact:
        print(
            f"{file}: intact. {what}, {verdict.signed_entries} of them under {verdict.checkpoints} signed checkpoints."
        )
    else:
        print(f"{file}: NOT intact. {what}.")
        for each in verdict.findings:
            print(f"  {each.fault.value}: {each.detail}")
    for each in verdict.warnings:
        print(f"  {each.fault.value}: {each.detail}")
    if not verdict.keys_pinned:
        print(
            "The log's key was taken from the file itself: whoever made the file could have made the key. "
            "Give --roster or --key to compare with the key that the nations voted for."
        )
