"""``varde watch``: the events of one node, live."""

import asyncio

import httpx

from varde_gateway.cli.command import JsonOption, make_app
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.live import STREAM_TIMEOUT, Follower, LinePrinter, StreamRefusedError
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    PasswordFileOption,
    PasswordOption,
    SignIn,
    UrlOption,
    UsernameOption,
    find_sign_in,
)
from varde_gateway.cli.running import run_until_stopped, unless_stopped

_UNAUTHORIZED = 401

app = make_app()


@app.command()
def watch(
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow what happens at a node until Ctrl-C; a broken link is taken up again without loss.

    Example: varde watch --demo demo --nation FI
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
    run_until_stopped(lambda stop: _watch(stop, sign_in, LinePrinter(as_json)))


async def _watch(stop: asyncio.Event, sign_in: SignIn, printer: LinePrinter) -> None:
    follower = Follower(
        sign_in.url, sign_in.username, sign_in.password, sign_in.nation or "node", printer
    )
    try:
        # The first time is a person's mistake when it fails; later it is the network.
        async with httpx.AsyncClient(base_url=sign_in.url, timeout=STREAM_TIMEOUT) as client:
            await follower.sign_in(client)
    except StreamRefusedError as error:
        end = Exit.SIGN_IN if error.status == _UNAUTHORIZED else Exit.REFUSED
        fail(end, f"{sign_in.url} refuses {sign_in.username}: {error}")
    except httpx.HTTPError as error:
        fail(Exit.UNREACHABLE, f"{sign_in.url} does not answer ({error}). Does the node run?")
    await unless_stopped(stop, follower.follow_for_ever())
