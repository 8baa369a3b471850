"""The world: nations, brokers and relays in memory, links, time, and what happens to them.

Everything that is drawn by lot comes from one ``random.Random``. Signatures and key encapsulation take their randomness
from the operating system, so that bytes differ between two runs of one seed; what happens, in which order, every id and
every row that holds no such bytes do not: ``fingerprint`` is over those.
"""

import asyncio
import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from simulation.node import Clock, Crash, Message, SimBroker, SimNode, StepLedger, make_desk
from support.federation import NOW, Federation
from support.nodes import Clock as StillClock
from support.nodes import running_nodes
from varde.admission import Admit, admit
from varde.identifiers import Lane, Nation
from varde.roster import threshold
from varde_gateway.flow.outbox import reopen_queued
from varde_gateway.flow.ports import Outbound
from varde_gateway.flow.roster.prekeys import load_prekeys
from varde_gateway.flow.roster.suspensions import restore
from varde_gateway.flow.roster.trust import load_trust
from varde_gateway.flow.roster.trust_followers import TrustFollower
from varde_gateway.store.database import Database, open_database

PASSING = frozenset({"newer_roster", "suspended_sender", "from_the_future"})
"""What a relay leaves where it is, since time may heal it; not on the way through a third nation."""


@dataclass
class Doom:
    """This nation dies after so many more touches of the outside."""

    nation: Nation
    left: int


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
        self.digests: dict[str, str] = {}
        self.settling = False
        self.doom: Doom | None = None
        self.watcher: Callable[[Nation, Outbound], None] | None = None
        self.heard_at: dict[tuple[Nation, Nation], int] = {}
        # What was proposed, by hash, and for which renewal each nation has voted as which version: see ``votes``.
        self.renewals: dict[str, None] = {}
        self.grudges: dict[str, None] = {}
        self.ballots: dict[tuple[Nation, int], str] = {}
        nations = sorted(self.federation.parties)
        self.grudging = sorted(self.lot.sample(nations, threshold(len(nations)) - 1))

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
        """Called with everything that any node gives to its broker, at that moment."""
        self.outbound.append((nation, message))
        if self.watcher is not None:
            self.watcher(nation, message)

    def touch(self, nation: Nation, moment: str) -> None:
        """A node touches the outside; it dies here if that was drawn."""
        if self.doom is None or self.doom.nation != nation:
            return
        if self.doom.left > 0:
            self.doom.left -= 1
            return
        self.doom = None
        self.say(f"{nation} dies {moment}")
        self.counts[f"crash {moment}"] += 1
        raise Crash

    async def live_until_crash(self, nation: Nation, touches: int) -> None:
        """Let the node work until it has touched the outside so often; there, or when it has nothing to do, it dies."""
        self.doom = Doom(nation, touches)
        try:
            await self.nodes[nation].live()
            self.say(f"{nation} dies with nothing under way")
        except Crash:
            pass
        finally:
            self.doom = None
        await self.crash(nation)

    def reaches(self, a: Nation, b: Nation) -> bool:
        """Whether the relay of ``b`` can fetch from the broker of ``a``: neither side keeps a link to whom it suspends."""
        here, there = self.nodes[a], self.nodes[b]
        if a in there.desk.trust.suspended or b in here.desk.trust.suspended:
            return False
        return (a, b) not in self.cut and not here.broker.down and not there.broker.down

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
            elif decision.reason.value in PASSING and message.transit is None:
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
        """Every link, broker and clock is right again, everybody trusts everybody; all work for ``rounds`` times ten seconds."""
        self.settling = True
        self.cut.clear()
        for node in self.nodes.values():
            node.broker.down = node.broker.deaf = False
            node.clock.skew_ms = 0
        for node in self.nodes.values():
            for peer in sorted(node.desk.trust.suspended):
                await restore(node.desk, peer, actor="admin")
        # What a restored node has lost is delivered, as far as its sender knows: only the heartbeats find that gap.
        fewest = 5 if any(node.lineage for node in self.nodes.values()) else 1
        for number in range(rounds):
            self.ms += 10_000
            await self.work_once()
            versions = {node.desk.trust.current.version for node in self.nodes.values()}
            if number >= fewest and len(versions) == 1 and not await self.anything_open():
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

    async def fingerprint(self) -> str:
        """A digest of everything in every database that two runs of one seed must have alike."""
        rows: list[object] = []
        for node in self.nodes.values():
            for statement in _ALIKE:
                rows += [
                    tuple(row)
                    for row in await node.ledger.read(
                        lambda c, query=statement: c.exec_driver_sql(query).all()
                    )
                ]
            leaves = await node.ledger.read(
                lambda c: c.exec_driver_sql('SELECT leaf FROM audit_leaf ORDER BY "index"').all()
            )
            entries = [json.loads(leaf) for (leaf,) in leaves]
            rows += [(each["kind"], each["at"], each["actor"]) for each in entries]
        return sha256(repr(rows).encode()).hexdigest()

    async def _begin(self, nation: Nation, clock: Clock, broker: SimBroker) -> SimNode:
        party = self.federation.parties[nation]
        database = self.place.database(nation)
        ledger = StepLedger(
            database.writer,
            database.reader,
            now=clock,
            random=self.lot.randbytes,
            touch=lambda moment: self.touch(nation, moment),
        )
        await ledger.__aenter__()
        trust = await load_trust(
            ledger, self.federation.id, [self.federation.founding], clock() // 1000
        )
        desk = make_desk(party, ledger, trust, clock, self.lot.randbytes)
        # As at the start of a real node, but for the check of its log: that is an invariant here.
        desk.logs.hold(desk.ticks())
        await load_prekeys(desk)
        await reopen_queued(desk)
        return self.node_type(
            self, party, clock, broker, desk, ledger, database, TrustFollower(desk, broker)
        )


_ALIKE = (
    "SELECT sender, id, kind, lane, via, recorded_at FROM document ORDER BY sender, id",
    "SELECT document_id, recipient, sequence, state, open, attempts, via, sent_at, delivered_at"
    " FROM delivery ORDER BY document_id, recipient",
    "SELECT id, kind, at FROM event ORDER BY id",
    "SELECT nation, next_sequence, received_through FROM peer ORDER BY nation",
)


def make_template(federation: Federation, directory: Path) -> None:
    """A settled database for each party: rosters accepted, prekeys exchanged."""

    async def settle_all() -> None:
        urls = {nation: f"sqlite:///{directory / nation}.db" for nation in federation.parties}
        lot = random.Random("template")
        async with running_nodes(urls, federation, StillClock(), lot.randbytes):
            await asyncio.sleep(0)
        for nation in federation.parties:
            with closing(sqlite3.connect(directory / f"{nation}.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    asyncio.run(settle_all())
