"""``varde gateway`` and ``python -m varde_gateway run``: the gateway process alone."""

from pathlib import Path
from typing import Annotated

import typer

from varde_gateway.app import run
from varde_gateway.cli.command import make_app
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.keystore_file import KeystoreError
from varde_gateway.settings import SettingsError, load_settings

app = make_app()


@app.command()
def gateway(
    home: Annotated[Path, typer.Option("--home", help="The node's home, with node.toml.")],
) -> None:
    """Run the gateway of one node until SIGTERM. Its broker may start before or after it.

    Example: varde gateway --home /var/lib/varde
    """
    try:
        run(load_settings(home))
    except (SettingsError, KeystoreError, HistoryLost) as error:
        fail(Exit.FAILED, str(error))
