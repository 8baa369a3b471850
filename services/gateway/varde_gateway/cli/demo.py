"""``varde demo``: a whole federation on this machine, and what happens in it, line by line."""

import asyncio
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.table import Table

from varde.errors import VardeError
from varde.identifiers import Nation, parse_nation
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.live import Follower, LinePrinter
from varde_gateway.cli.running import READY_SECONDS, run_until_stopped, unless_stopped
from varde_gateway.founding.demo import NATIONS, DemoNation, prepare_demo
from varde_gateway.private_files import write_private
from varde_gateway.supervision.node import read_place
from varde_gateway.supervision.nodes import RunningNodes
from varde_gateway.supervision.supervisor import only_supervisor_of

DEMO_FILE = "demo.json"
MIN_NATIONS = 2

ACQUAINTED_SECONDS: Final = 20.0
ASK_AGAIN_SECONDS: Final = 0.1

app = make_app()


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where everything is kept; made when it is not there.")
    ],
    nations: Annotated[
        str | None,
        typer.Option("--nations", help=f"Two or more of {','.join(NATIONS)}. [default: EE,FI,LV]"),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            "--base-port",
            min=1024,
            max=65000,
            help="First port; ten for each nation. [default: 18400]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make and run a federation: for each nation keys, votes, broker, relay and gateway.

    Writes DIR/demo.json with addresses, users and passwords once every node is ready, then shows each event.
    Ctrl-C stops everything; started again on the same DIR it goes on where it was.

    Examples: varde demo --dir demo | varde demo --dir seven --nations EE,FI,LV,LT,NO,PL,UA --base-port 19000
    """
    wanted = None if nations is None else _parse_nations(nations)
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    run_until_stopped(lambda stop: _run(stop, directory, wanted, base_port, as_json))


async def _run(
    stop: asyncio.Event,
    directory: Path,
    nations: list[Nation] | None,
    base_port: int | None,
    as_json: bool,
) -> None:
    begun = time.monotonic()
    with only_supervisor_of(directory):
        members, fresh = prepare_demo(
            directory,
            nations,
            base_port,
            now=datetime.now(UTC),  # noqa: TID251 -- a command is an edge
            random=secrets.token_bytes,
        )
        if not as_json:
            print(
                f"{'Made' if fresh else 'Found'} {', '.join(each.nation for each in members)} in {directory}; starting ...",
                flush=True,
            )
        demo_file = directory / DEMO_FILE
        all_ready = False

        def follow_pids() -> None:
            if all_ready:
                write_private(demo_file, _format_demo(members, running))

        running = RunningNodes([read_place(each.home) for each in members], follow_pids)
        async with running.run():
            await unless_stopped(stop, running.wait_ready(READY_SECONDS))
            await unless_stopped(stop, _wait_acquainted(running))
            if stop.is_set():
                return
            all_ready = True
            follow_pids()
            if as_json:
                print_json(json.loads(_format_demo(members, running)))
            else:
                _print_table(members, running, demo_file, time.monotonic() - begun)
            await unless_stopped(stop, _follow_all(members, running, LinePrinter(as_json)))
            if not as_json:
                print("stopping ...", flush=True)


async def _wait_acquainted(running: RunningNodes) -> None:
    """Return when every node has the others' prekeys: from then on an alert goes at once."""
    deadline = time.monotonic() + ACQUAINTED_SECONDS
    async with httpx.AsyncClient(timeout=5) as client:
        for place in running.places:
            while time.monotonic() < deadline:
                answer = await client.get(f"{place.url}/health/ready")
                if answer.json().get("without_prekeys_of") == []:
                    break
                await asyncio.sleep(ASK_AGAIN_SECONDS)


async def _follow_all(
    members: list[DemoNation], running: RunningNodes, printer: LinePrinter
) -> None:
    async with asyncio.TaskGroup() as group:
        for member, place in zip(members, running.places, strict=True):
            auditor = member.sign_in["users"]["auditor"]
            follower = Follower(
                place.url, auditor["username"], auditor["password"], member.nation, printer
            )
            group.create_task(follower.follow_for_ever())


def _format_demo(members: list[DemoNation], running: RunningNodes) -> bytes:
    nations: dict[str, Any] = {
        member.nation: {
            "url": place.url,
            "home": str(member.home),
            "broker_url": place.broker_url,
            **member.sign_in,
            "pids": running.pids(member.nation),
        }
        for member, place in zip(members, running.places, strict=True)
    }
    return json.dumps({"nations": nations}, indent=2).encode() + b"\n"


def _print_table(
    members: list[DemoNation], running: RunningNodes, demo_file: Path, seconds: float
) -> None:
    table = Table("nation", "API", "operator", "officer", title=f"ready in {seconds:.1f} s")
    for member, place in zip(members, running.places, strict=True):
        users = member.sign_in["users"]
        table.add_row(
            member.nation, place.url, users["operator"]["username"], users["officer"]["username"]
        )
    console = Console()
    console.print(table)
    first, *others = (each.nation for each in members)
    # Not through the table's console, which would break the command over lines.
    print(f"Passwords are in {demo_file}. In another terminal, for example:")
    print(
        f"  varde send --demo {demo_file.parent} --nation {first} --to {','.join(others)} --tlp AMBER "
        f"--headline 'Border fence cut' --event 'Border disturbance' --severity Severe"
    )
    print("Every event follows here; Ctrl-C stops everything.", flush=True)


def _parse_nations(text: str) -> list[Nation]:
    try:
        nations = [parse_nation(each.strip()) for each in text.split(",")]
    except VardeError as error:
        fail(Exit.USAGE, f"--nations: {error.detail}")
    if len(nations) < MIN_NATIONS or len(set(nations)) != len(nations):
        fail(Exit.USAGE, "--nations: name two or more different nations, for example EE,FI,LV")
    return nations
