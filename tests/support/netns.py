"""A federation whose nations are apart: each node runs in a network namespace of its own, joined by a router in another.

The router (the fabric) is where links are cut and shaped, so that neither end is told: a blackhole rule drops what one
nation's address sends to another's, in one direction; a shaped direction is routed through a TUN device whose other end
loses, delays and reorders packets (``lossy_wire``; ``tc netem`` is missing in many small kernels). The link of two
nations is cut or shaped alone. The test itself stands in the fabric (``setns`` of the calling thread) and reaches every
node's API from there, whatever is cut. Nothing touches the machine's own interfaces; needs root.
"""

import ctypes
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from support.lossy_wire import Shape
from support.running import Person, wait_for
from varde.identifiers import parse_nation
from varde_gateway.founding.federation import found_federation
from varde_gateway.founding.home import NodePlan, User
from varde_gateway.supervision import leash

HTTP_PORT = 8400
BROKER_PORT = 4222
RELAY_PORT = 8402
READY_SECONDS = 90.0
PARTS = ("gateway", "relay", "broker")
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_CUT_RULES = 1000
_SHAPE_RULES = 2000
_WIRE_TABLE = "77"
_WIRE = "wire0"


def why_no_namespaces() -> str | None:
    """The reason why this machine cannot run these tests; None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.access("/dev/net/tun", os.W_OK):
        return "there is no /dev/net/tun, through which links are shaped"
    name = _namespace_name("probe")
    try:
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
            _run("ip", "-n", name, "rule", "add", "from", "10.77.1.1", "blackhole")
        finally:
            _run("ip", "netns", "del", name)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or error
        return f"this kernel makes no namespaces with links: {said}".strip()
    return None


class Fabric:
    """The router between the nations and their namespaces; knows no nation's processes."""

    def __init__(self, nations: Sequence[str], seed: int) -> None:
        self.nations = [*nations]
        self.namespace = _namespace_name("fabric")
        self.of = {nation: _namespace_name(nation.lower()) for nation in nations}
        self.shaped: set[tuple[str, str]] = set()
        self.cuts: set[tuple[str, str]] = set()
        self._seed = seed
        self._wire: subprocess.Popen[str] | None = None

    def address(self, nation: str) -> str:
        return f"10.77.{self.nations.index(nation) + 1}.1"

    def lay(self) -> None:
        """Make namespaces, links and routes."""
        _remove_left_over()
        for name in (self.namespace, *self.of.values()):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        # Replies may come another way than requests go, where one direction is shaped.
        settings = ("ip_forward=1", "conf/all/rp_filter=0", "conf/default/rp_filter=0")
        script = "; ".join(
            f"echo {value} > /proc/sys/net/ipv4/{name}"
            for name, value in (each.split("=") for each in settings)
        )
        _run(*_inside(self.namespace), "sh", "-c", script)
        for number, nation in enumerate(self.nations, start=1):
            here, there = self.namespace, self.of[nation]
            near, far = f"n{number}", "up0"
            pair = ("link", "add", near, "type", "veth", "peer", "name", far, "netns", there)
            _run("ip", "-n", here, *pair)
            _run("ip", "-n", here, "address", "add", f"10.77.{number}.254/24", "dev", near)
            _run("ip", "-n", here, "link", "set", near, "up")
            _run("ip", "-n", there, "address", "add", f"{self.address(nation)}/24", "dev", far)
            _run("ip", "-n", there, "link", "set", far, "up")
            _run("ip", "-n", there, "route", "add", "default", "via", f"10.77.{number}.254")

    def remove(self) -> None:
        if self._wire is not None:
            assert self._wire.stdin is not None
            assert self._wire.stdout is not None
            self._wire.stdin.close()
            self._wire.wait(10)
            self._wire.stdout.close()
            self._wire = None
        for name in (*self.of.values(), self.namespace):
            if (_NAMESPACES / name).exists():
                _run("ip", "netns", "del", name)

    def standing_inside(self) -> AbstractContextManager[None]:
        """The calling thread, and those that it starts, are in the fabric until the context ends."""
        return _standing_in(self.namespace)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Nothing that ``sender`` sends reaches ``receiver``, and nobody is told."""
        if (sender, receiver) not in self.cuts:
            self._rule("add", _CUT_RULES, sender, receiver, "blackhole")
            self.cuts.add((sender, receiver))

    def cut(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def isolate(self, nation: str) -> None:
        """Cut every link of one nation."""
        for other in self.nations:
            if other != nation:
                self.cut(nation, other)

    def heal(self, one: str, other: str) -> None:
        """The link of two nations is as it was: not cut and not shaped, in both directions."""
        for way in ((one, other), (other, one)):
            if way in self.cuts:
                self._rule("del", _CUT_RULES, *way, "blackhole")
                self.cuts.discard(way)
            if way in self.shaped:
                self._rule("del", _SHAPE_RULES, *way, "lookup", _WIRE_TABLE)
                self._order(way, {"off": True})
                self.shaped.discard(way)

    def heal_all(self) -> None:
        for way in {*self.cuts, *self.shaped}:
            self.heal(*way)

    def shape_one_way(self, sender: str, receiver: str, shape: Shape) -> None:
        """Lose, delay and reorder what ``sender`` sends to ``receiver``."""
        if self._wire is None:
            self._wire = self._start_wire()
        way = (sender, receiver)
        shares = {name: getattr(shape, name) for name in Shape.__slots__}
        self._order(way, shares)
        if way not in self.shaped:
            # Only what comes from the sender's own link: what comes out of the wire goes on.
            near = f"n{self.nations.index(sender) + 1}"
            self._rule("add", _SHAPE_RULES, *way, "iif", near, "lookup", _WIRE_TABLE)
            self.shaped.add(way)

    def shape(self, one: str, other: str, shape: Shape) -> None:
        self.shape_one_way(one, other, shape)
        self.shape_one_way(other, one, shape)

    def shape_all(self, nation: str, shape: Shape) -> None:
        """Every link of one nation."""
        for other in self.nations:
            if other != nation:
                self.shape(nation, other, shape)

    def _rule(self, deed: str, base: int, sender: str, receiver: str, *then: str) -> None:
        places = self.nations.index(sender), self.nations.index(receiver)
        number = base + 16 * places[0] + places[1]
        way = ("from", self.address(sender), "to", self.address(receiver))
        _run("ip", "-n", self.namespace, "rule", deed, "pref", str(number), *way, *then)

    def _order(self, way: tuple[str, str], wanted: Mapping[str, Any]) -> None:
        assert self._wire is not None
        assert self._wire.stdin is not None
        assert self._wire.stdout is not None
        order = {"from": self.address(way[0]), "to": self.address(way[1]), **wanted}
        self._wire.stdin.write(json.dumps(order) + "\n")
        self._wire.stdin.flush()
        assert self._wire.stdout.readline() == "done\n", "the wire has ended"

    def _start_wire(self) -> subprocess.Popen[str]:
        program = str(Path(__file__).with_name("lossy_wire.py"))
        wire = subprocess.Popen(
            [*_inside(self.namespace), sys.executable, program, _WIRE, str(self._seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert wire.stdout is not None
        assert wire.stdout.readline() == "ready\n"
        _run("ip", "-n", self.namespace, "link", "set", _WIRE, "up")
        route = ("route", "add", "default", "dev", _WIRE, "table", _WIRE_TABLE)
        _run("ip", "-n", self.namespace, *route)
        return wire


class ApartFederation:
    """Nations in namespaces, each run by its own ``varde up``."""

    def __init__(self, directory: Path, nations: Sequence[str], seed: int = 1) -> None:
        self.directory = directory
        self.nations = [*nations]
        self.fabric = Fabric(nations, seed)
        self.users: dict[str, tuple[User, ...]] = {}
        self.genesis = ""
        self.environment: dict[str, dict[str, str]] = {nation: {} for nation in nations}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._people: dict[tuple[str, str], Person] = {}

    def home(self, nation: str) -> Path:
        return self.directory / nation

    def url(self, nation: str) -> str:
        return f"http://{self.fabric.address(nation)}:{HTTP_PORT}"

    def found(self) -> None:
        """Make every home, with everybody's votes."""
        plans = [
            NodePlan(
                nation=parse_nation(nation),
                name=nation,
                home=self.home(nation),
                broker_address=f"{self.fabric.address(nation)}:{BROKER_PORT}",
                http_port=HTTP_PORT,
                broker_port=BROKER_PORT,
                relay_port=RELAY_PORT,
                http_host=self.fabric.address(nation),
                broker_host="0.0.0.0",
            )
            for nation in self.nations
        ]
        founded = found_federation(
            plans, sensors=(), now=datetime.now(UTC), random=secrets.token_bytes
        )
        self.genesis = founded.fingerprint
        self.users = {node.plan.nation: node.users for node in founded.nodes}

    def start(self, *nations: str) -> None:
        """Start nodes, all where none is named, without waiting."""
        for nation in nations or self.nations:
            log = (self.directory / f"{nation}.log").open("ab")
            command = (sys.executable, "-m", "varde_gateway", "up", "--home", self.home(nation))
            # The leash stops the node when this process is killed.
            leashed = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()))
            inside = _inside(self.fabric.of[nation])
            with log:
                self._running[nation] = subprocess.Popen(
                    [*leashed, *inside, *map(str, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.environment[nation]},
                    start_new_session=True,
                )

    def stop(self, *nations: str) -> None:
        """Stop nodes as an operator does, all where none is named; all at once."""
        chosen = [each for each in nations or self.nations if each in self._running]
        for nation in chosen:
            self._running[nation].send_signal(signal.SIGTERM)
        for nation in chosen:
            process = self._running.pop(nation)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def kill(self, nation: str) -> None:
        """SIGKILL to ``varde up`` itself; the kernel tells its processes to stop."""
        process = self._running.pop(nation)
        process.kill()
        process.wait()

    def is_running(self, nation: str) -> bool:
        """Whether ``varde up`` of this nation runs; it may have ended by itself."""
        return nation in self._running and self._running[nation].poll() is None

    def is_ready(self, nation: str) -> bool:
        """Whether the node works and can seal for every peer; works inside the fabric only."""
        try:
            answer = httpx.get(f"{self.url(nation)}/health/ready", timeout=2)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["without_prekeys_of"] == []

    def wait_ready(self, *nations: str, seconds: float = READY_SECONDS) -> None:
        for nation in nations or self.nations:

            def ready(nation: str = nation) -> bool:
                assert self.is_running(nation), (self.directory / f"{nation}.log").read_text()
                return self.is_ready(nation)

            wait_for(ready, seconds, f"{nation} is ready: see {self.home(nation) / 'logs'}")

    def person(self, nation: str, role: str) -> Person:
        """A signed-in user, for the thread that stands in the fabric."""
        if (nation, role) not in self._people:
            self._people[nation, role] = self.sign_in(nation, role)
        return self._people[nation, role]

    def sign_in(self, nation: str, role: str) -> Person:
        """A client of one's own, for another thread."""
        user = next(each for each in self.users[nation] if role in each.roles)
        return Person(self.url(nation), user.username, user.password)

    def pid(self, nation: str, part: str) -> int | None:
        """The process of a part now; None between its end and its next start."""
        try:
            return int((self.home(nation) / "logs" / f"{part}.pid").read_text())
        except (OSError, ValueError):
            return None

    def signal(self, nation: str, part: str, number: signal.Signals) -> int:
        """Signal one process; its id."""
        pid = wait_for(lambda: self.pid(nation, part), 20, f"{part} of {nation} runs")
        os.kill(pid, number)
        return pid

    def wait_restarted(self, nation: str, part: str, former: int) -> None:
        wait_for(
            lambda: self.pid(nation, part) not in (former, None),
            30,
            f"{part} of {nation} is started again",
        )

    def database(self, nation: str) -> Path:
        url = self.environment[nation].get("VARDE_DATABASE_URL", "sqlite:///varde.db")
        return self.home(nation) / url.removeprefix("sqlite:///")

    def ask(self, nation: str, query: str, *values: Any) -> list[Any]:
        """Read the node's database, while it runs or not."""
        place = f"file:{self.database(nation)}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()

    def close_clients(self) -> None:
        for person in self._people.values():
            person.client.close()
        self._people.clear()


Preparation: TypeAlias = Callable[[ApartFederation], AbstractContextManager[None]]


@contextmanager
def apart_federation(
    directory: Path,
    nations: Sequence[str],
    *,
    seed: int = 1,
    prepared: Preparation = lambda _: nullcontext(),
) -> Iterator[ApartFederation]:
    """Found, lay, start, stand in the fabric, hand over; then stop and remove everything.

    ``prepared`` is entered when the homes are there and left when the nodes are stopped.
    """
    federation = ApartFederation(directory, nations, seed)
    federation.found()
    with ExitStack() as leaving:
        leaving.enter_context(prepared(federation))
        leaving.callback(federation.fabric.remove)
        federation.fabric.lay()
        leaving.enter_context(federation.fabric.standing_inside())
        leaving.callback(federation.stop)
        leaving.callback(federation.close_clients)
        federation.start()
        federation.wait_ready()
        yield federation


@contextmanager
def _standing_in(namespace: str) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        Path("/proc/thread-self/ns/net").open("rb") as before,
        (_NAMESPACES / namespace).open("rb") as wanted,
    ):
        _enter(libc, wanted.fileno())
        try:
            yield
        finally:
            _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _inside(namespace: str) -> tuple[str, ...]:
    # Not `ip netns exec`, which also makes a mount namespace: a disk mounted later would not be seen there.
    return ("/usr/bin/nsenter", f"--net={_NAMESPACES / namespace}", "--")


def _namespace_name(part: str) -> str:
    return f"varde-{os.getpid()}-{secrets.token_hex(3)}-{part}"


def _remove_left_over() -> None:
    """Namespaces of a test process that was killed; what runs in them ended with it."""
    for path in _NAMESPACES.glob("varde-*-*"):
        if not Path(f"/proc/{path.name.split('-')[1]}").exists():
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", path.name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
