"""``varde doctor``: everything that must hold for a node to work, checked one by one, each with what to do about it."""

import asyncio
import ctypes
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from cryptography import x509
from rich.console import Console
from rich.text import Text

from varde.checkpoint import LogSigner
from varde.encoding import parse_json, require_list
from varde.errors import VardeError
from varde.identifiers import Nation, parse_federation_id, parse_nation
from varde.roster import Roster, extend_chain
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.database_checks import check_database
from varde_gateway.cli.exits import Exit
from varde_gateway.cli.finding import Finding, Level
from varde_gateway.flow.memory.storing import STORES_NOTHING
from varde_gateway.keyring import Keyring, open_keystore
from varde_gateway.keystore_file import KeystoreError
from varde_gateway.private_files import ExposedFileError, read_private
from varde_gateway.settings import GatewaySettings, SettingsError, load_settings
from varde_gateway.supervision.node import (
    MissingBrokerError,
    NodePlace,
    find_broker,
    programs_of,
    read_place,
)

ROSTER_RENEWAL_SECONDS: Final = 30 * 24 * 3600
"""How old the roster may be before its renewal is due; it lives 90 days."""

CERTIFICATE_WARNING_SECONDS: Final = 30 * 24 * 3600
DISK_WARNING_BYTES: Final = 2 * 1024**3
DISK_FAILURE_BYTES: Final = 256 * 1024**2
_MAX_ROSTERS_BYTES: Final = 256 * 1024 * 1024
_CLOCK_NOT_SYNCHRONISED: Final = 5
_ANSWER_SECONDS: Final = 3.0
_TIMEX_BYTES: Final = 512
_DAY: Final = 24 * 3600
_PRIVATE: Final = (
    "keystore.json",
    "gateway.nk",
    "relay/relay.nk",
    "broker/server.key",
    "broker/ca.key",
    "bootstrap.json",
)
_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


app = make_app()


@app.command()
def doctor(
    home: Annotated[Path, typer.Option("--home", help="The node's home, with node.toml.")],
    as_json: JsonOption = False,
) -> None:
    """Check one node, running or not. Ends with 1 where a check fails.

    Example: varde doctor --home /var/lib/varde
    """
    now = int(time.time())  # noqa: TID251 -- a command is an edge
    # On a terminal only: a log of a million entries is read for a minute.
    with Console(stderr=True).status("checking"):
        findings = [*examine(home.resolve(), now)]
    if as_json:
        print_json([asdict(each) for each in findings])
    else:
        console = Console()
        for each in findings:
            line = Text.assemble(
                (f"{each.level.value:<5}", _STYLE[each.level]), f"{each.check:<13}", each.text
            )
            console.print(line, soft_wrap=True)
            if each.advice:
                console.print(Text(f"{'':<18}{each.advice}"), soft_wrap=True)
    sys.exit(Exit.FAILED if any(each.level is Level.FAIL for each in findings) else Exit.OK)


def examine(home: Path, now: int) -> Iterator[Finding]:
    """Every check in order of dependence; ``now`` in Unix seconds."""
    try:
        settings = load_settings(home)
        nation = parse_nation(settings.nation)
    except SettingsError as error:
        yield Finding(
            "settings", Level.FAIL, str(error), "Nothing else can be checked without them."
        )
        return
    yield Finding("settings", Level.OK, f"{home / 'node.toml'} of {nation}")
    yield check_modes(home)
    keyring, finding = check_keystore(settings, nation)
    yield finding
    roster, finding = check_roster(settings, now)
    yield finding
    if roster is not None and keyring is not None:
        yield check_seat(roster, keyring)
    for name in ("server.crt", "ca.crt"):
        yield check_certificate(home / "broker" / name, now)
    yield check_clock()
    yield check_disk(home)
    yield check_broker_program()
    try:
        place = read_place(home)
    except (OSError, KeyError) as error:
        yield Finding(
            "parts",
            Level.FAIL,
            f"relay/relay.toml cannot be read: {error}",
            "Run 'varde init' again elsewhere and compare.",
        )
        return
    yield from check_parts(place)
    yield from check_storing(place)
    yield from check_database(settings, roster, nation, now)


def check_modes(home: Path) -> Finding:
    """No secret file may be used by others than its owner."""
    exposed = []
    for name in _PRIVATE:
        try:
            read_private(home / name)
        except ExposedFileError:
            exposed.append(name)
        except OSError:
            continue
    if exposed:
        files = " ".join(str(home / name) for name in exposed)
        return Finding(
            "permissions", Level.FAIL, f"others may use {', '.join(exposed)}", f"chmod 600 {files}"
        )
    return Finding("permissions", Level.OK, "only their owner may read the secret files")


def check_keystore(settings: GatewaySettings, nation: Nation) -> tuple[Keyring | None, Finding]:
    """The keystore opens with its passphrase."""
    try:
        keyring = open_keystore(settings.keystore, nation, settings.read_passphrase())
    except (KeystoreError, SettingsError) as error:
        return None, Finding("keystore", Level.FAIL, str(error))
    return keyring, Finding("keystore", Level.OK, f"{settings.keystore.name} opens")


def check_roster(settings: GatewaySettings, now: int) -> tuple[Roster | None, Finding]:
    """The chain from the genesis fingerprint holds, and its end has not expired.

    The relay's copy is the newer one: what the gateway accepts, it tells the relay.
    """
    relay_copy = settings.home / "relay" / "rosters.json"
    path = relay_copy if relay_copy.exists() else settings.rosters_file
    try:
        value = parse_json(path.read_bytes(), limit=_MAX_ROSTERS_BYTES)
        raws = [
            str(each).encode()
            for each in require_list(value.get("rosters"), "rosters", most=10_000)
        ]
        chain = extend_chain([], raws, parse_federation_id(settings.genesis), now)
        roster = chain[-1][0]
    except (OSError, ValueError, IndexError, VardeError) as error:
        return None, Finding(
            "roster",
            Level.FAIL,
            f"{path} does not verify: {error}",
            "Put the voted rosters back from a backup or a peer.",
        )
    what = f"version {roster.version} of {', '.join(sorted(roster.members))}"
    days = (roster.expires_at - now) // _DAY
    if now >= roster.expires_at:
        return roster, Finding(
            "roster",
            Level.FAIL,
            f"{what} has expired",
            "Renew it by the members' votes; alerts still go out.",
        )
    level = Level.WARN if now - roster.issued_at >= ROSTER_RENEWAL_SECONDS else Level.OK
    advice = "Propose its renewal: varde roster propose --renew" if level is Level.WARN else ""
    return roster, Finding("roster", level, f"{what}, valid for {days} days", advice)


def check_seat(roster: Roster, keyring: Keyring) -> Finding:
    """The keys in the keystore are those that the peers know."""
    own = roster.members.get(keyring.nation)
    if own is None:
        return Finding(
            "seat",
            Level.FAIL,
            f"{keyring.nation} is not on the roster",
            "The members must vote it in.",
        )
    following = keyring.next_message
    held = [keyring.message.public, *([] if following is None else [following.public])]
    if own.signing_keys not in held:
        return Finding(
            "seat",
            Level.FAIL,
            "the roster names other signing keys than the keystore has",
            "Restore the keystore that belongs to this seat.",
        )
    if own.log != LogSigner(own.log_name, keyring.log, keyring.log_ml_dsa_44).key:
        return Finding(
            "seat",
            Level.FAIL,
            "the roster names other keys for the audit log than the keystore has: no peer will cosign it",
            "Restore the keystore that belongs to this seat.",
        )
    return Finding("seat", Level.OK, "the roster names this node's keys")


def check_certificate(path: Path, now: int) -> Finding:
    """The broker's certificate, or its authority's, is valid and stays so for a while."""
    name = path.name
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        return Finding(name, Level.FAIL, f"cannot be read: {error}", "Put it back from the backup.")
    left = certificate.not_valid_after_utc - datetime.fromtimestamp(now, UTC)
    if left.total_seconds() <= 0:
        return Finding(
            name,
            Level.FAIL,
            "has expired: no peer connects",
            "Make a new one and restart the broker.",
        )
    level = Level.WARN if left.total_seconds() < CERTIFICATE_WARNING_SECONDS else Level.OK
    return Finding(
        name,
        level,
        f"valid for {left.days} days",
        "Make a new one in time." if level is Level.WARN else "",
    )


def check_clock() -> Finding:
    """Documents are refused where clocks differ by more than five minutes."""
    if sys.platform != "linux":
        return Finding(
            "clock", Level.WARN, "cannot be checked on this system", "See that it is synchronised."
        )
    # adjtimex(2) with modes 0 only reads; the kernel knows whether anything disciplines its clock.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _CLOCK_NOT_SYNCHRONISED:
        return Finding(
            "clock",
            Level.WARN,
            "is not known to be synchronised",
            "Run chrony or systemd-timesyncd, on the host where this is a container.",
        )
    return Finding("clock", Level.OK, "is synchronised")


def check_disk(home: Path) -> Finding:
    """Database, broker and logs need room."""
    free = shutil.disk_usage(home).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < DISK_FAILURE_BYTES:
        return Finding("disk", Level.FAIL, text, f"Make room on the file system of {home} at once.")
    if free < DISK_WARNING_BYTES:
        return Finding("disk", Level.WARN, text, f"Make room on the file system of {home}.")
    return Finding("disk", Level.OK, text)


def check_broker_program() -> Finding:
    """There is a nats-server to start."""
    try:
        return Finding("nats-server", Level.OK, find_broker())
    except MissingBrokerError as error:
        return Finding(
            "nats-server", Level.WARN, str(error), "Not needed where the broker runs elsewhere."
        )


def check_parts(place: NodePlace) -> Iterator[Finding]:
    """Broker, relay and gateway run and are ready; where nothing runs, their ports are free."""
    programs = programs_of(place)
    ready = {part: asyncio.run(program.probe.ready()) for part, program in programs.items()}
    ports = {"broker": place.broker_port, "relay": place.relay_port, "gateway": place.http_port}
    for part, program in programs.items():
        if ready[part]:
            yield Finding(part, Level.OK, f"is ready on port {ports[part]}")
        elif _taken(ports[part]):
            yield Finding(
                part,
                Level.FAIL,
                f"is not ready, but port {ports[part]} is in use",
                f"See {program.log_file}; if another program has the port, stop it or change the port.",
            )
        else:
            advice = (
                f"Start the node: varde up --home {place.home}. Why it ended: {program.log_file}"
            )
            yield Finding(
                part, Level.FAIL if any(ready.values()) else Level.WARN, "does not run", advice
            )


def check_storing(place: NodePlace) -> Iterator[Finding]:
    """The broker stores what the gateway gives it; only a gateway that runs can say so."""
    try:
        answer = httpx.get(f"{place.url}/health/ready", timeout=_ANSWER_SECONDS)
        broker = str(answer.json()["checks"]["broker"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return
    if not broker.startswith(STORES_NOTHING):
        if broker == "ok":
            yield Finding("storing", Level.OK, "the broker stores what it is given")
        return
    yield Finding(
        "storing",
        Level.FAIL,
        f"the broker {broker}",
        f"Make room on the file system of {place.home / 'broker' / 'store'}; the broker is restarted by itself then. "
        f"Where it is not within a minute, restart it; {place.home / 'logs' / 'broker.log'} says why it stores nothing.",
    )


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
