"""The world: nodes with real databases and the real flow, brokers and relays in memory, links, one clock each.

Everything that is drawn by lot comes from one ``random.Random``. Signatures and key encapsulation take their randomness
from the operating system, so that bytes differ between two runs of one seed; what happens, in which order, and every id
do not. A node that crashes loses its memory and begins again from its database.
"""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.federation import NOW, Federation, Party, seed
from support.nodes import Clock as StillClock
from support.nodes import PlainWrapping, running_nodes
from varde.admission import Admit, admit
from varde.checkpoint import LogSigner, WitnessSigner
from varde.identifiers import Lane, Nation
from varde.note import parse_vkey
from varde.transit import Transit
from varde_gateway.flow.beacon import reroute
from varde_gateway.flow.desk import Desk, Policy
from varde_gateway.flow.heartbeats import beat, hear, watch_links
from varde_gateway.flow.inbox import take_in
from varde_gateway.flow.outbox import publish, record, reopen_queued, sweep
from varde_gateway.flow.outgoing import Outgoing
from varde_gateway.flow.ports import BrokerError, BrokerUnavailable, Carried, Outbound
from varde_gateway.flow.prekeys import load_prekeys
from varde_gateway.flow.rosters import load_trust
from varde_gateway.flow.trail import checkpoint
from varde_gateway.flow.trust_followers import TrustFollower
from varde_gateway.store.database import Database, open_database
from varde_gateway.store.ledger import Ledger, _Step
from varde_gateway.store.transaction import Transaction

T = TypeVar("T")


class AtOnce(ThreadPoolExecutor):
    """Runs what it is given before it answers: no thread decides what comes first."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 -- as a thread's, it is the future's
            future.set_exception(error)
        return future


class StepLedger(Ledger):
    """The ledger whose commits are made by the caller instead of the writer's thread, one step each."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._readers.shutdown()
        self._readers = AtOnce()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None

    async def write(self, step: Callable[[Transaction], T]) -> T:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._commit([_Step(step, future)])
        # What was to follow the commit is run by the loop before anything else happens.
        await asyncio.sleep(0)
        return future.result()


@dataclass
class Clock:
    """One node's clock: the world's time and how wrong it is."""

    world: "World"
    skew_ms: int = 0

    def __call__(self) -> int:
        return self.world.ms + self.skew_ms


@dataclass(frozen=True)
class Message:
    """What a broker holds."""

    id: str
    raw: bytes
    transit: Transit | None


@dataclass
class SimBroker:
    """One nation's broker. ``down`` takes nothing; ``deaf`` stores what it is given and does not say so."""

    world: "World"
    nation: Nation
    out: dict[tuple[Nation, Lane], list[Message]] = field(default_factory=dict)
    inbox: deque[tuple[Message, Lane, Nation]] = field(default_factory=deque)
    seen: set[str] = field(default_factory=set)
    inbox_seen: set[str] = field(default_factory=set)
    pulses: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    heard: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    down: bool = False
    deaf: bool = False
    older: dict[tuple[Nation, Lane], list[Message]] = field(default_factory=dict)

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        if self.down:
            return [BrokerUnavailable("the broker is away") for _ in messages]
        for each in messages:
            self.world.sent(self.nation, each)
            if each.message_id not in self.seen:
                self.seen.add(each.message_id)
                _, peer, lane = each.subject.split(".")
                held = self.out.setdefault((Nation(peer), Lane(lane)), [])
                held.append(Message(each.message_id, each.raw, each.transit))
        if self.deaf:
            return [BrokerUnavailable("the answer was lost") for _ in messages]
        return [None for _ in messages]

    async def pulse(self, peer: Nation, raw: bytes) -> None:
        if not self.down:
            self.pulses.append((peer, raw))

    async def next_pulse(self) -> tuple[Nation, bytes]:
        raise AssertionError("the world hands over what is heard")

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        raise AssertionError("the world hands over what is carried")

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        if self.down:
            raise BrokerUnavailable("the broker is away")
        return len(self.out.get((recipient, lane), ()))

    def connected(self) -> bool:
        return not self.down

    async def wait_connected(self) -> None:
        assert not self.down

    async def ensure_streams(self) -> None:
        """Streams and consumers are always there."""

    async def announce_roster(self, raw: bytes) -> None:
        """The relay of this world reads its gateway's trust."""

    def lose_store(self) -> None:
        self.out, self.inbox = {}, deque()
        self.seen, self.inbox_seen = set(), set()

    def remember(self) -> None:
        self.older = {key: [*held] for key, held in self.out.items()}

    def roll_back(self) -> None:
        self.out = {key: [*held] for key, held in self.older.items()}
        self.inbox, self.inbox_seen = deque(), set()


@dataclass
class SimNode:
    """One nation; ``lineage`` counts the older copies of its database that were put back."""

    world: "World"
    party: Party
    path: Path
    clock: Clock
    broker: SimBroker
    desk: Desk
    ledger: Ledger
    database: Database
    follower: TrustFollower
    lineage: int = 0

    @property
    def nation(self) -> Nation:
        return self.party.nation

    async def publish_due(self, *, record_it: bool = True) -> None:
        """Give the broker what is due; a crash may come before it is recorded."""
        if self.broker.down:
            return
        await sweep(self.desk, self.broker)
        while jobs := await self.desk.outgoing.take(64, 0):
            outcomes = await publish(self.desk, self.broker, jobs)
            if not record_it:
                return
            await record(self.desk, outcomes)

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        """Open up to ``most`` of what the relay brought; a crash may come before the broker hears of it."""
        if self.broker.down:
            return 0
        batch = [self.broker.inbox.popleft() for _ in range(min(most, len(self.broker.inbox)))]
        later: list[tuple[Message, Lane, Nation]] = []
        carried = [self._carried(each, later, acknowledge=acknowledge) for each in batch]
        if carried:
            await take_in(self.desk, self.broker, carried)
        self.broker.inbox.extend(later)
        return len(batch) - len(later)

    def _carried(
        self,
        held: tuple[Message, Lane, Nation],
        later: list[tuple[Message, Lane, Nation]],
        *,
        acknowledge: bool,
    ) -> Carried:
        message, lane, link = held
        if not acknowledge:
            later.append(held)

        async def done() -> None:
            """The broker forgets it, unless the crash came first."""

        async def retry_later(seconds: float) -> None:
            if acknowledge:
                later.append(held)

        return Carried(message.raw, lane, link, 0, done, retry_later, message.transit)

    async def beat(self) -> None:
        while self.broker.heard and not self.broker.down:
            await hear(self.desk, *self.broker.heard.popleft())
        await beat(self.desk, self.broker)
        await watch_links(self.desk)

    async def reroute(self) -> None:
        if not self.broker.down:
            await reroute(self.desk, self.broker)

    async def look_around(self) -> None:
        await self.follower.follow()
        await checkpoint(self.desk)

    async def close(self) -> None:
        await self.ledger.__aexit__(None, None, None)
        self.database.close()


class Place:
    """A directory for one world after the other, with a settled database for each nation to begin with.

    The engines are kept from world to world: compiling every statement anew would take longer than running them.
    """

    def __init__(self, directory: Path, federation: Federation) -> None:
        self.federation = federation
        self.directory = directory / "world"
        self.template = directory / "template"
        self.directory.mkdir()
        self.template.mkdir()
        make_template(federation, self.template)
        self._databases: dict[Nation, Database] = {}

    def database(self, nation: Nation) -> Database:
        if nation not in self._databases:
            url = f"sqlite:///{self.directory / nation}.db"
            self._databases[nation] = open_database(url, readers=1)
        return self._databases[nation]

    def begin(self) -> None:
        """Put the settled databases there, and nothing else."""
        for each in self.directory.iterdir():
            each.unlink()
        for nation in self.federation.parties:
            shutil.copy(self.template / f"{nation}.db", self.directory / f"{nation}.db")


class World:
    """The federation of a place, in the life that one number gives it."""

    node_type = SimNode

    def __init__(self, place: Place, number: int) -> None:
        self.place = place
        self.federation = place.federation
        self.directory = place.directory
        self.lot = random.Random(number)
        self.ms = NOW * 1000
        self.nodes: dict[Nation, SimNode] = {}
        self.cut: set[tuple[Nation, Nation]] = set()
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.recorded: list[tuple[Message, Lane, Nation, Nation]] = []
        self.outbound: list[tuple[Nation, Outbound]] = []
        self.settling = False
        self.heard_at: dict[tuple[Nation, Nation], int] = {}

    async def open(self) -> None:
        self.place.begin()
        for nation in self.federation.parties:
            clock = Clock(self)
            self.nodes[nation] = await self._begin(nation, clock, SimBroker(self, nation))

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()

    async def crash(self, nation: Nation) -> None:
        """The gateway dies and begins again; the broker lives on."""
        node = self.nodes[nation]
        await node.close()
        self.nodes[nation] = await self._begin(nation, node.clock, node.broker)
        self.nodes[nation].lineage = node.lineage

    async def restore(self, nation: Nation, copy: Path) -> None:
        """The gateway dies, and an older copy of its database is put back."""
        node = self.nodes[nation]
        await node.close()
        for each in self.directory.glob(f"{nation}.db*"):
            each.unlink()
        shutil.copy(copy, self.directory / f"{nation}.db")
        self.nodes[nation] = await self._begin(nation, node.clock, node.broker)
        self.nodes[nation].lineage = node.lineage + 1

    async def back_up(self, nation: Nation) -> Path:
        """A whole copy of the database as it is now."""
        copy = self.directory / f"{nation}-{self.ms}.backup"
        raw = self.nodes[nation].database.reader.raw_connection()
        try:
            raw.cursor().execute(f"VACUUM INTO '{copy}'") if not copy.exists() else None
        finally:
            raw.close()
        return copy

    def say(self, line: str) -> None:
        self.trace.append(f"{(self.ms - NOW * 1000) / 1000:9.1f}  {line}")

    def sent(self, nation: Nation, message: Outbound) -> None:
        """Called with everything that any node gives to its broker."""
        self.outbound.append((nation, message))

    def reaches(self, a: Nation, b: Nation) -> bool:
        """Whether the relay of ``b`` can fetch from the broker of ``a``."""
        brokers = self.nodes[a].broker, self.nodes[b].broker
        return (a, b) not in self.cut and not any(each.down for each in brokers)

    def carry(
        self,
        a: Nation,
        b: Nation,
        lane: Lane,
        most: int,
        *,
        forget: bool = True,
        last_first: bool = False,
    ) -> int:
        """What the relay of ``b`` does at the broker of ``a``; one that dies after storing leaves them there."""
        if not self.reaches(a, b):
            return 0
        sender, recipient = self.nodes[a], self.nodes[b]
        held = sender.broker.out.get((b, lane), [])
        taken = held[-most:] if last_first else held[:most]
        moved = 0
        for message in taken:
            decision = admit(
                message.raw,
                lane=lane,
                me=b,
                link=a,
                trust=recipient.desk.trust,
                now=recipient.desk.now(),
                transit=message.transit,
            )
            if isinstance(decision, Admit):
                key = f"{a}.{message.id}"
                if key not in recipient.broker.inbox_seen:
                    recipient.broker.inbox_seen.add(key)
                    recipient.broker.inbox.append((message, lane, a))
                    self.recorded.append((message, lane, a, b))
                    moved += 1
                if forget:
                    held.remove(message)
            elif decision.reason.value in {"newer_roster", "suspended_sender", "from_the_future"}:
                continue
            else:
                self.counts[f"refused by a relay: {decision.reason.value}"] += 1
                held.remove(message)
        return moved

    def pass_pulses(self) -> None:
        """Every heartbeat that was said goes to whoever listens, or is gone."""
        for nation, node in self.nodes.items():
            while node.broker.pulses:
                peer, raw = node.broker.pulses.popleft()
                if peer in self.nodes and self.reaches(nation, peer):
                    self.nodes[peer].broker.heard.append((nation, raw))
                    self.heard_at[peer, nation] = self.ms

    async def heal_and_settle(self, rounds: int) -> None:
        """Every link, broker and clock is right again; let everybody work for ``rounds`` times ten seconds."""
        self.settling = True
        self.cut.clear()
        for node in self.nodes.values():
            node.broker.down = node.broker.deaf = False
            node.clock.skew_ms = 0
        # What a restored node has lost is delivered, as far as its sender knows: only the heartbeats find that gap.
        fewest = 5 if any(node.lineage for node in self.nodes.values()) else 1
        for number in range(rounds):
            self.ms += 10_000
            await self.work_once()
            if number >= fewest and not await self.anything_open():
                return

    async def work_once(self) -> None:
        """Everybody beats, publishes, fetches and opens until nothing moves."""
        for node in self.nodes.values():
            await node.beat()
        self.pass_pulses()
        for node in self.nodes.values():
            await node.beat()
            await node.reroute()
        for _ in range(8):
            moved = 0
            for node in self.nodes.values():
                await node.publish_due()
            for a in self.nodes:
                for b in self.nodes:
                    if a != b:
                        moved += sum(self.carry(a, b, lane, 500) for lane in Lane)
            for node in self.nodes.values():
                moved += await node.take_in(64)
            if not moved:
                break
        for node in self.nodes.values():
            if self.lot.random() < 0.5:
                await node.look_around()

    async def anything_open(self) -> bool:
        """Whether any delivery of anybody still waits for its receipt."""
        for node in self.nodes.values():
            found = await node.ledger.read(
                lambda c: c.exec_driver_sql("SELECT count(*) FROM delivery WHERE open").scalar()
            )
            if found:
                return True
        return False

    async def _begin(self, nation: Nation, clock: Clock, broker: SimBroker) -> SimNode:
        party = self.federation.parties[nation]
        path = self.directory / f"{nation}.db"
        database = self.place.database(nation)
        ledger = StepLedger(
            database.writer,
            database.reader,
            now=clock,
            random=self.lot.randbytes,
        )
        await ledger.__aenter__()
        trust = await load_trust(
            ledger, self.federation.id, [self.federation.founding], clock() // 1000
        )
        desk = make_desk(party, ledger, trust, clock, self.lot.randbytes)
        await load_prekeys(desk)
        await reopen_queued(desk)
        return self.node_type(
            self, party, path, clock, broker, desk, ledger, database, TrustFollower(desk, broker)
        )


def make_desk(party: Party, ledger: Ledger, trust: Any, clock: Any, randbytes: Any) -> Desk:
    """A node of this party over this ledger."""
    log_key, witness_key = (
        Ed25519PrivateKey.from_private_bytes(seed(f"{party.nation} 1 {each}"))
        for each in ("log", "witness")
    )
    return Desk(
        nation=party.nation,
        keys=party.signing,
        voting_keys=(party.voting,),
        log_signer=LogSigner(parse_vkey(party.member.log).name, log_key),
        witness=WitnessSigner(party.member.witness_name, witness_key),
        trust=trust,
        ledger=ledger,
        outgoing=Outgoing(),
        wrapping=PlainWrapping(),
        policy=Policy(),
        now_ms=clock,
        ticks=lambda: clock.world.ms,
        random=randbytes,
    )


def make_template(federation: Federation, directory: Path) -> None:
    """A settled database for each party: rosters accepted, prekeys exchanged."""

    async def settle_all() -> None:
        urls = {nation: f"sqlite:///{directory / nation}.db" for nation in federation.parties}
        async with running_nodes(urls, federation, StillClock()):
            await asyncio.sleep(0)
        for nation in federation.parties:
            with closing(sqlite3.connect(directory / f"{nation}.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    asyncio.run(settle_all())
