"""``varde up``: one node on one machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.running import READY_SECONDS, run_until_stopped, unless_stopped
from varde_gateway.settings import load_settings
from varde_gateway.supervision.node import read_place
from varde_gateway.supervision.nodes import RunningNodes
from varde_gateway.supervision.supervisor import only_supervisor_of

app = make_app()


@app.command()
def up(
    home: Annotated[Path, typer.Option("--home", help="The node's home, with node.toml.")],
    as_json: JsonOption = False,
) -> None:
    """Run broker, relay and gateway of one node and start again whatever dies, until SIGTERM or Ctrl-C.

    Example: varde up --home /var/lib/varde
    """

    async def work(stop: asyncio.Event) -> None:
        settings = load_settings(home)
        with only_supervisor_of(settings.home):
            running = RunningNodes([read_place(settings.home)], on_change=lambda: None)
            async with running.run():
                await unless_stopped(stop, running.wait_ready(READY_SECONDS))
                (place,) = running.places
                if not stop.is_set():
                    facts = {
                        "nation": place.nation,
                        "url": place.url,
                        "pids": running.pids(place.nation),
                    }
                    if as_json:
                        print_json(facts)
                    else:
                        print(
                            f"{place.nation} is ready at {place.url}; logs in {place.home / 'logs'}",
                            flush=True,
                        )
                await stop.wait()

    run_until_stopped(work)
