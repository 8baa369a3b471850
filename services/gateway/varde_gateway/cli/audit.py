"""``varde audit``: fetch a node's audit log, and verify one without trusting any server."""

import importlib
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from varde import evidence
from varde.attestation import Outcome, Step
from varde.bundle import is_bundle
from varde.encoding import parse_json
from varde.errors import Malformed, VardeError
from varde.examination import Examination, examine
from varde.explanation import describe_evidence, describe_log, explain_log
from varde.identifiers import FederationId, parse_federation_id
from varde.note import MAX_NOTE_BYTES, format_vkey
from varde.roster import parse_roster_payload, parse_voted_roster
from varde.testimony import printable
from varde_gateway.cli.archive import archive
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.download import save
from varde_gateway.cli.exits import Exit, fail
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
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)
from varde_gateway.cli.queries import app as queries
from varde_gateway.cli.review import ExportFormat, add_to, export_entries
from varde_gateway.cli.witnesses import witnesses

_MAX_ROSTERS_BYTES: Final = 256 * 1024 * 1024
_MARKS: Final = {
    Outcome.OK: ("ok     ", "green"),
    Outcome.WARNING: ("warning", "yellow"),
    Outcome.FAILED: ("FAILED ", "bold red"),
}

app = make_app("Search an audit log, follow an alert, export, archive, erase, or verify offline.")
add_to(app)
app.command()(archive)
app.command()(witnesses)
app.add_typer(queries, name="queries")


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
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            help="Instead of a sign-in: a node's home. Its database is read as it is; the node need not run.",
        ),
    ] = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
) -> None:
    """Write the whole audit log of a node to a file, or the entries that are searched for, as an auditor.

    Examples: varde audit export --demo demo --nation EE --out EE.jsonl |
    varde audit export --format csv --kind refused --demo demo --nation EE --out refused.csv |
    varde audit export --home /var/lib/varde --out EE.jsonl
    """
    wanted = filter_parameters(kind, actor, alert, about, text, begin, until)
    if form is ExportFormat.LOG and wanted:
        fail(
            Exit.USAGE, "the log can only be verified whole: a filter needs --format csv or jsonl."
        )
    if home is not None:
        if form is not ExportFormat.LOG or url is not None or demo is not None:
            fail(Exit.USAGE, "--home gives the whole log, and stands alone with --out.")
        # By name, as the commands themselves are: a search at a node must not wait for the database library.
        offline = importlib.import_module("varde_gateway.cli.offline_export")
        entries: str = offline.export_stored(home, out)
        print(f"{out}: {entries}. Verify it with: varde audit verify {out}")
        return
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
    with signed_in(sign_in) as node:
        _save(node, "/v1/audit/export", out)


@app.command(name="evidence")
def take_evidence(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="The alert's id.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    sender: Annotated[
        str | None, typer.Option("--from", help="Whose alert, should two nations have used one id.")
    ] = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
) -> None:
    """Write the evidence of one alert to a file: what every nation signed about it, with the proofs of the log.

    Example: varde audit evidence 0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f --demo demo --nation EE --out alert.jsonl
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
    query = "" if sender is None else f"?from={sender}"
    with signed_in(sign_in) as node:
        _save(node, f"/v1/alerts/{alert_id}/evidence{query}", out)


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(help="What 'varde audit export' or 'varde audit evidence' wrote.")
    ],
    *,
    genesis: Annotated[
        str | None,
        typer.Option(
            "--genesis",
            help="The fingerprint of the first roster, as your nation was told it out of band.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            help="For a log: its two keys (C2SP vkeys) as you know them from elsewhere, each with '--key', Ed25519 first.",
        ),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(
            "--roster",
            help="For a log: a roster file, or a node's rosters.json; its keys are used.",
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            help="For a log: a file with a checkpoint of it that another nation gave you; the log must contain it. Repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify an exported audit log, or the evidence of an alert; needs no server and no network.

    Every step says what was checked and what it proves. Ends with 1 where anything is wrong.

    Examples: varde audit verify EE.jsonl --genesis jwWBcz8… | varde audit verify alert.jsonl --json |
    varde audit verify EE.jsonl --genesis jwWBcz8… --checkpoint from-LV.txt
    """
    try:
        fingerprint = None if genesis is None else _fingerprint(genesis)
        pinned = [*(key or []), *(_keys_of(roster) if roster else [])]
        given = [_note_of(each) for each in checkpoint or []]
        found = _verify(file, pinned, given, fingerprint, quiet=as_json)
    except OSError as error:
        fail(Exit.USAGE, f"{error.filename} cannot be read: {error.strerror}.")
    except VardeError as error:
        fail(Exit.FAILED, f"{file}: {error.detail}")
    if isinstance(found, evidence.Verdict):
        described, steps = describe_log(found), explain_log(found)
        what = f"{found.origin} of {found.nation}: {found.entries} entries, {found.signed_entries} of them signed"
    else:
        described, steps = describe_evidence(found), found.steps
        what = f"the evidence of alert {found.alert} of {found.sender}, taken at {found.node}"
    if as_json:
        print_json(described)
    else:
        _print(steps)
        word = "intact" if found.intact else "NOT intact"
        print(f"{file}: {word}; {printable(what)}.")
    sys.exit(Exit.OK if found.intact else Exit.FAILED)


def _save(node: NodeClient, path: str, out: Path) -> None:
    save(node, path, out)
    print(f"{out}: {out.stat().st_size} bytes. Verify it with: varde audit verify {out}")


def _fingerprint(text: str) -> FederationId:
    try:
        return parse_federation_id(text)
    except Malformed as error:
        fail(Exit.USAGE, f"--genesis is not a fingerprint of 43 characters: {error.detail}.")


def _verify(
    file: Path, pinned: list[str], given: list[str], genesis: FederationId | None, *, quiet: bool
) -> evidence.Verdict | Examination:
    size = file.stat().st_size
    now = int(time.time())  # noqa: TID251 -- a command is an edge
    columns = (TextColumn("verifying"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        file.open("rb") as raw,
        Progress(
            *columns, console=console, transient=True, disable=quiet or not console.is_terminal
        ) as bar,
    ):
        task = bar.add_task("", total=size)
        lines = _text_lines(raw)
        first = next(lines, "")
        whole: Iterable[str] = chain((first,), lines)
        if is_bundle(first):
            if given:
                fail(
                    Exit.USAGE,
                    "--checkpoint goes with a whole log, not with the evidence of one alert.",
                )
            return examine(whole, genesis=genesis, now=now)
        for report in evidence.verify_export(whole, pinned, genesis=genesis, now=now, given=given):
            if isinstance(report, evidence.Verdict):
                return report
            bar.update(task, completed=raw.tell())
    raise AssertionError("the verification ends with a verdict")


def _text_lines(lines: IO[bytes]) -> Iterator[str]:
    # A byte that is no UTF-8 is the log's fault, not ours: the line then matches no hash.
    # A longer line than any in an export arrives in pieces, each of which is refused.
    while line := lines.readline(evidence.MAX_LINE_BYTES + 1):
        yield line.decode("utf-8", "replace")


def _note_of(file: Path) -> str:
    with file.open("rb") as raw:
        # What is longer than a note may be is refused as that.
        return raw.read(MAX_NOTE_BYTES + 1).decode("utf-8", "replace")


def _keys_of(roster: Path) -> list[str]:
    raw = roster.read_bytes()
    value = parse_json(raw, limit=_MAX_ROSTERS_BYTES)
    listed = value.get("rosters")
    texts = [str(each).encode() for each in listed] if isinstance(listed, list) else [raw]
    payloads = [parse_roster_payload(parse_voted_roster(each).payload) for each in texts]
    members = [member for each in payloads for member in each.members.values()]
    return [format_vkey(key) for member in members for key in member.log.both]


def _print(steps: Iterable[Step]) -> None:
    console = Console(highlight=False)
    for each in steps:
        mark, style = _MARKS[each.outcome]
        line = Text.assemble(
            (mark, style), f" {each.check}, {each.place}: ", printable(each.detail)
        )
        console.print(line, soft_wrap=True)
