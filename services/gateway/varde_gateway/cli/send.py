"""``varde send``: an alert from the command line, composed from options or taken from a CAP file."""

import json
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from varde.capcodes import Category, Certainty, Severity, Status, Urgency
from varde_gateway.cli.attachment import check_upload, upload
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
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

CAP_XML: Final = "application/cap+xml"
_POLL_SECONDS: Final = 0.1
_OPEN_STATES: Final = frozenset({"queued", "sent"})


class Tlp(StrEnum):
    """Traffic Light Protocol 2.0."""

    RED = "RED"
    AMBER_STRICT = "AMBER+STRICT"
    AMBER = "AMBER"
    GREEN = "GREEN"
    CLEAR = "CLEAR"


app = make_app()


@app.command()
def send(
    *,
    to: Annotated[str, typer.Option("--to", help="Nations, such as FI,LV; '*' for all.")],
    tlp: Annotated[Tlp, typer.Option("--tlp", help="Who may see it.")],
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A CAP 1.2 alert: .xml, or .json as the API takes it."),
    ] = None,
    headline: Annotated[str | None, typer.Option("--headline", help="One line.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="What kind of event.")] = None,
    severity: Annotated[Severity, typer.Option("--severity")] = Severity.UNKNOWN,
    urgency: Annotated[Urgency, typer.Option("--urgency")] = Urgency.IMMEDIATE,
    certainty: Annotated[Certainty, typer.Option("--certainty")] = Certainty.OBSERVED,
    category: Annotated[Category, typer.Option("--category")] = Category.SECURITY,
    status: Annotated[
        Status, typer.Option("--status", help="Exercise for a drill.")
    ] = Status.ACTUAL,
    description: Annotated[str | None, typer.Option("--description")] = None,
    instruction: Annotated[str | None, typer.Option("--instruction")] = None,
    area: Annotated[str | None, typer.Option("--area", help="Where, in words.")] = None,
    language: Annotated[str, typer.Option("--language")] = "en",
    attach: Annotated[
        list[Path] | None,
        typer.Option("--attach", help="A file to go with it, up to 50 MiB; may stand 16 times."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds to wait for the nations' signed receipts."),
    ] = 0.0,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Give the same one again to repeat a send safely."),
    ] = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an alert to one or more nations, as an operator.

    To a demo: varde send --demo demo --nation EE --to FI,LV --tlp AMBER --event "Border disturbance"
    --headline "Fence cut" --severity Severe

    With files: varde send --demo demo --nation EE --to FI --tlp AMBER --event Sabotage --headline "Cable cut"
    --attach map.pdf --attach photo.jpg

    A CAP file: varde send --url https://node.example --username operator.ee --to "*" --tlp GREEN --file storm.xml --wait 5
    """
    sign_in = find_sign_in(
        "operator",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    recipients = [each.strip() for each in to.split(",")]
    key = key or str(uuid.uuid4())  # noqa: TID251 -- a command is an edge
    headers = {"Idempotency-Key": key}
    uploads = [check_upload(each) for each in attach or []]
    if file is None:
        if headline is None or event is None:
            fail(
                Exit.USAGE, "say what happened: --headline and --event, or --file with a CAP alert."
            )
        info: dict[str, Any] = {
            "language": language,
            "category": [category.value],
            "event": event,
            "urgency": urgency.value,
            "severity": severity.value,
            "certainty": certainty.value,
            "headline": headline,
        }
        info |= {
            name: text
            for name, text in (("description", description), ("instruction", instruction))
            if text
        }
        if area:
            info["area"] = [{"areaDesc": area}]
        alert = _new_alert(sign_in.username, status, recipients, info)
        request: dict[str, Any] = {"json": {"to": recipients, "tlp": tlp.value, "alert": alert}}
    else:
        request = _from_file(file, recipients, tlp)
    with signed_in(sign_in) as node:
        request["headers"] = headers | request.get("headers", {})
        ids = [upload(node, each, f"{key}-{place}") for place, each in enumerate(uploads)]
        _name_files(request, ids)
        accepted = node.post("/v1/alerts", **request)
        if wait:
            accepted = _wait_for_receipts(node, accepted, wait)
    if as_json:
        print_json(accepted)
    else:
        _print(accepted)


def _new_alert(
    sender: str, status: Status, recipients: list[str], info: dict[str, Any]
) -> dict[str, Any]:
    now = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 -- a command is an edge
    alert: dict[str, Any] = {
        "identifier": f"{sender}-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",  # noqa: TID251 -- as above
        "sender": sender,
        # CAP 1.2 writes UTC as -00:00 and never as Z.
        "sent": f"{now:%Y-%m-%dT%H:%M:%S}-00:00",
        "status": status.value,
        "msgType": "Alert",
        "scope": "Private",
        "addresses": " ".join(recipients),
        "info": [info],
    }
    return alert


def _from_file(file: Path, recipients: list[str], tlp: Tlp) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error.strerror}.")
    if raw.lstrip().startswith(b"{"):
        try:
            alert = json.loads(raw)
        except ValueError as error:
            fail(Exit.USAGE, f"{file} is not JSON: {error}.")
        return {"json": {"to": recipients, "tlp": tlp.value, "alert": alert.get("alert", alert)}}
    return {
        "content": raw,
        "params": {"to": ",".join(recipients), "tlp": tlp.value},
        "headers": {"Content-Type": CAP_XML},
    }


def _name_files(request: dict[str, Any], ids: list[str]) -> None:
    if ids and "json" in request:
        request["json"]["attachments"] = ids
    elif ids:
        request["params"]["attachment"] = ids


def _wait_for_receipts(node: NodeClient, accepted: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        alert = node.get(f"/v1/alerts/{accepted['id']}")
        waiting = any(each["state"] in _OPEN_STATES for each in alert["deliveries"])
        if not waiting or time.monotonic() > deadline:
            return {**accepted, "state": alert["state"], "deliveries": alert["deliveries"]}
        time.sleep(_POLL_SECONDS)


def _print(accepted: Any) -> None:
    print(f"alert {accepted['id']}")
    table = Table("to", "state")
    for each in accepted["deliveries"]:
        table.add_row(each["to"], each["state"])
    Console().print(table)
