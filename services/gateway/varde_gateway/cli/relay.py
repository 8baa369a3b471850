"""``varde relay``: becomes the relay's own program. The two services share no code but the protocol."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from varde_gateway.cli.command import make_app
from varde_gateway.cli.exits import Exit, fail

app = make_app()


@app.command()
def relay(
    home: Annotated[Path, typer.Option("--home", help="The node's home, or its relay folder.")],
) -> None:
    """Run the relay of one node until SIGTERM.

    Example: varde relay --home /var/lib/varde
    """
    folder = next(
        (each for each in (home / "relay", home) if (each / "relay.toml").is_file()), None
    )
    if folder is None:
        fail(Exit.FAILED, f"there is no relay.toml in {home}. Make a node with 'varde init'.")
    program = [sys.executable, "-m", "varde_relay", "run", "--home", str(folder)]
    sys.stdout.flush()
    os.execv(program[0], program)  # noqa: S606 -- this Python itself; no shell
