"""Real brokers for tests: nats-server on free loopback ports, real TLS, real NKeys, a roster that names them all."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.federation import DAY, NOW, Federation, Party, party, seed, voted
from varde.encoding import sha256_base64url
from varde.identifiers import DocumentId, FederationId, Lane, Nation, document_id
from varde.roster import Trust, accept_genesis, format_roster_payload, parse_voted_roster
from varde.subjects import reply_prefix
from varde_gateway.broker_link import BrokerLink
from varde_gateway.broker_streams import BrokerLimits
from varde_gateway.flow.ports import Outbound
from varde_gateway.founding.pki import Authority, make_ca, make_server_certificate
from varde_relay.access import BrokerPlace, LocalUsers, access_config, broker_config
from varde_relay.book import RosterBook
from varde_relay.home import Home
from varde_relay.link import Pace
from varde_relay.links import Links
from varde_relay.nats_link import Endpoint
from varde_relay.parts import Parts
from varde_relay.rosters import Announcement, format_announcement
from varde_relay.state import RelayState

NATS_SERVER = shutil.which("nats-server") or str(Path(sys.executable).parent / "nats-server")
PATIENCE_SECONDS = 15.0


def nkey_seed(label: str) -> str:
    """The text of a user's seed, always the same for a label; public half as ``support.federation`` has it."""
    return bytes(nkeys.encode_seed(seed(label), nkeys.PREFIX_BYTE_USER)).decode()


def nkey_public(nkey: str) -> str:
    return bytes(nkeys.from_seed(bytearray(nkey.encode())).public_key).decode()


def relay_seed(nation: Nation) -> str:
    return nkey_seed(f"{nation} 1 relay")


async def publish(gateway: BrokerLink, subject: str, raw: bytes, message_id: str) -> None:
    """One message, acknowledged by the broker; ``BrokerError`` otherwise."""
    (error,) = await gateway.publish_many([Outbound(subject, raw, message_id)])
    if error is not None:
        raise error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(
    condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Return once the condition holds; an assertion naming ``what`` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


@dataclass
class RunningBroker:
    """One nation's nats-server and its files."""

    nation: Nation
    folder: Path
    port: int
    authority: Authority
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @property
    def access_file(self) -> Path:
        return self.folder / "access.conf"

    @property
    def pid_file(self) -> Path:
        return self.folder / "nats.pid"

    @property
    def store_dir(self) -> Path:
        return self.folder / "store"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def nkey_file(self) -> Path:
        return self.folder / "gateway.nk"

    def local_users(self) -> LocalUsers:
        return LocalUsers(
            nkey_public(nkey_seed(f"{self.nation} gateway")), nkey_public(relay_seed(self.nation))
        )

    def write(self, trust: Trust, *, sync_always: bool = False) -> None:
        """Everything that nats-server reads."""
        certificate = make_server_certificate(self.authority, ["127.0.0.1", "localhost"], now())
        (self.folder / "server.crt").write_bytes(certificate.certificate_pem)
        (self.folder / "server.key").write_bytes(certificate.key_pem)
        ca = x509.load_der_x509_certificate(self.authority.certificate_der)
        self.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
        self.nkey_file.write_text(nkey_seed(f"{self.nation} gateway"))
        place = BrokerPlace(
            nation=self.nation,
            host="127.0.0.1",
            port=self.port,
            certificate_file=self.folder / "server.crt",
            key_file=self.folder / "server.key",
            store_dir=self.store_dir,
            pid_file=self.pid_file,
            access_file=PurePath("access.conf"),
            max_store_bytes=8 * 1024**3,
            sync_always=sync_always,
        )
        (self.folder / "nats.conf").write_text(broker_config(place))
        self.access_file.write_text(access_config(trust, self.nation, self.local_users()))

    def start(self) -> None:
        """Return once it listens."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [NATS_SERVER, "-c", str(self.folder / "nats.conf")], stderr=log, stdout=log
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "broker.log").read_text()
            assert time.monotonic() < deadline, "nats-server does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def reload(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGHUP)

    def log(self) -> str:
        return (self.folder / "broker.log").read_text()

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_SECONDS)
            self.process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Coast:
    """Several nations, each with its broker; the federation's documents are of ``NOW``, its certificates of today."""

    federation: Federation
    brokers: dict[Nation, RunningBroker]
    suspended: dict[Nation, frozenset[Nation]] = field(default_factory=dict)

    @property
    def trust(self) -> Trust:
        return self.federation.trust

    def announcement(self, suspended: Iterable[Nation] = ()) -> bytes:
        """What a gateway tells its relay."""
        return format_announcement(
            Announcement((self.federation.founding.decode(),), frozenset(suspended))
        )

    def endpoint(
        self, at: Nation, who: Nation, *, nkey: str | None = None, ca: bytes | None = None
    ) -> Endpoint:
        """How the relay of ``who`` reaches the broker of ``at``."""
        broker = self.brokers[at]
        return Endpoint(
            url=broker.url,
            server_name="127.0.0.1",
            ca=ca or broker.authority.certificate_der,
            reply_prefix=reply_prefix(who),
            client_name=f"relay of {who}",
            nkey_seed=nkey or relay_seed(who),
        )

    def envelope(
        self, sender: Nation, to: Nation, number: int = 1, lane: Lane = Lane.URGENT, **changes: Any
    ) -> bytes:
        """A sealed alert with its own id."""
        federation = self.federation
        document = federation.document(sender, [to], **({"id": document_number(number)} | changes))
        return federation.seal(
            federation.sign(document), document, to, label=str(number), lane=lane
        )

    @asynccontextmanager
    async def gateway(
        self, nation: Nation, limits: BrokerLimits | None = None
    ) -> AsyncIterator[BrokerLink]:
        """The gateway's adapter at its own broker, connected."""
        broker = self.brokers[nation]
        link = BrokerLink(
            nation=nation,
            url=broker.url,
            ca_file=broker.ca_file,
            nkey_file=broker.nkey_file,
            peers=lambda: [each for each in self.brokers if each != nation],
            limits=limits or BrokerLimits(),
        )

        async def tell(_known: int) -> bytes:
            return self.announcement(self.suspended.get(nation, frozenset()))

        link.serve_roster(tell)
        async with link:
            await asyncio.wait_for(link.wait_connected(), PATIENCE_SECONDS)
            yield link

    @asynccontextmanager
    async def relay(self, nation: Nation, *, batch: int = 256) -> AsyncIterator[RelayState]:
        """The relay's own parts, wired as its ``app`` wires them, with the clock at ``NOW``; its gateway must run."""
        broker = self.brokers[nation]
        state = RelayState()
        book = RosterBook(
            nation,
            self.federation.id,
            broker.local_users(),
            state,
            cache=broker.folder / "rosters.json",
            access_file=broker.access_file,
            pid_file=broker.pid_file,
            clock=lambda: NOW,
        )
        home = Home(self.endpoint(nation, nation), state, pause=lambda _: 0.1, book=book)
        links = Links(
            nation,
            book,
            home,
            state,
            nkey_seed=relay_seed(nation),
            overrides={},
            pace=Pace(batch, 5.0, lambda _: 0.1),
            clock=lambda: NOW,
        )
        parts = Parts(nation, home, links)
        await book.load()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in (book, parts, home, links)]
            try:
                await until(lambda: state.links, "the relay knows its peers")
                yield state
            finally:
                for task in tasks:
                    task.cancel()


def document_number(number: int) -> DocumentId:
    return document_id(NOW * 1000 + number, seed(f"document {number}")[:10])


def build_coast(folder: Path, *nations: Nation) -> Coast:
    """Files and roster for these nations; no broker runs yet."""
    parties: dict[Nation, Party] = {}
    brokers: dict[Nation, RunningBroker] = {}
    for nation in sorted(nations):
        home = folder / nation
        home.mkdir()
        broker = RunningBroker(nation, home, free_port(), make_ca(nation, now()))
        brokers[nation] = broker
        known = party(nation)
        member = replace(known.member, broker=broker.url, ca=broker.authority.certificate_der)
        parties[nation] = replace(known, member=member)
    payload = format_roster_payload(
        federation=None,
        version=1,
        previous=None,
        issued_at=NOW - DAY,
        expires_at=NOW + 60 * DAY,
        members=[each.member for each in parties.values()],
    )
    founding = voted(payload, parties.values())
    roster = accept_genesis(parse_voted_roster(founding), FederationId(sha256_base64url(payload)))
    coast = Coast(Federation(parties, founding, roster), brokers)
    for broker in brokers.values():
        broker.write(coast.trust)
    return coast


@asynccontextmanager
async def running_coast(folder: Path, *nations: Nation) -> AsyncIterator[Coast]:
    """The same with every broker running; all of them are stopped at the end."""
    coast = build_coast(folder, *nations)
    try:
        for broker in coast.brokers.values():
            broker.start()
        yield coast
    finally:
        for broker in coast.brokers.values():
            broker.stop()
