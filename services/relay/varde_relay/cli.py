"""The relay's command line: ``run``, ``prepare`` (``access`` and ``broker``), ``check``; each on one relay home."""

import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from varde.errors import VardeError
from varde_relay.access import access_config, broker_config
from varde_relay.app import public_nkey, read_authority, run
from varde_relay.broker_files import write_whole
from varde_relay.links import peer_endpoints
from varde_relay.rosters import Chain, read_cache
from varde_relay.settings import SETTINGS_FILE, Settings, load_settings

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        help="The relay's folder, with relay.toml, relay.nk and rosters.json.",
        exists=True,
    ),
]

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Varde's relay: pulls sealed documents from the peers' brokers into our own. Holds no message key.",
)


def main() -> None:
    """Enter here."""
    cli()


@cli.command("run")
def run_command(home: HomeOption) -> None:
    """Run the relay until SIGTERM."""
    run(_settings(home))


@cli.command("access")
def access_command(home: HomeOption) -> None:
    """Write the broker's access list from the cached roster, without running."""
    settings = _settings(home)
    chain = _chain(settings)
    local = settings.local_users(public_nkey(settings.nkey_seed()))
    path = settings.path(settings.broker.access_file)
    write_whole(path, access_config(chain.trust, settings.me, local))
    typer.echo(f"wrote {path} from roster {chain.trust.current.version}")


@cli.command("broker")
def broker_command(home: HomeOption) -> None:
    """Write the broker's configuration (nats.conf) from relay.toml."""
    settings = _settings(home)
    path = settings.path(settings.broker.config_file)
    write_whole(path, broker_config(settings.broker_place()))
    typer.echo(f"wrote {path}")


@cli.command("prepare")
def prepare_command(home: HomeOption) -> None:
    """Write both files that the broker needs for its first start."""
    broker_command(home)
    access_command(home)


@cli.command("check")
def check_command(home: HomeOption) -> None:
    """Check settings, key, authority and roster chain, and say what the relay would do."""
    settings = _settings(home)
    seed = settings.nkey_seed()
    read_authority(settings)
    trust = _chain(settings).trust
    typer.echo(f"nation {settings.me}, relay key {public_nkey(seed)}")
    typer.echo(
        f"roster {trust.current.version}, members {', '.join(sorted(trust.current.members))}"
    )
    for peer, endpoint in peer_endpoints(trust, settings.me, seed, settings.links).items():
        typer.echo(f"link to {peer} at {endpoint.url}, certificate for {endpoint.server_name}")
    own = trust.current.members.get(settings.me)
    if own is None:
        _fail(f"{settings.me} is not on the roster")
    if own.relay != public_nkey(seed):
        _fail("the roster names another relay key than the one in nkey_file; peers will refuse us")
    typer.echo("all right")


def _settings(home: Path) -> Settings:
    try:
        return load_settings(home)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        _fail(f"{home / SETTINGS_FILE}: {problems}")


def _chain(settings: Settings) -> Chain:
    path = settings.path(settings.rosters_file)
    try:
        chain = read_cache(path, settings.federation, int(time.time()))  # noqa: TID251 -- a command is an edge
    except VardeError as error:
        _fail(f"{path}: {error}")
    if chain is None:
        _fail(
            f"{path} is missing or empty; run the relay once with its gateway, or copy the voted rosters there"
        )
    return chain


def _fail(text: str) -> NoReturn:
    typer.echo(f"error: {text}", err=True)
    sys.exit(1)
