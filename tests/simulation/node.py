"""One nation of the world: the real flow over a real database, its broker in memory, its clock, and where it may die.

A node touches the outside (its database, its broker) at named moments. The world may have drawn that it dies at one of
them: ``Crash`` is then raised there, no later line of the step runs, and the node begins again from its database.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from support.federation import Party, log_signer, seed
from support.nodes import PlainWrapping
from varde.checkpoint import WitnessSigner
from varde.identifiers import Lane, Nation
from varde.roster import Trust
from varde.subjects import outbox_subject
from varde.transit import Transit
from varde_gateway.flow.beacon import reroute
from varde_gateway.flow.desk import Desk, Policy
from varde_gateway.flow.heartbeats import beat, hear, watch_links
from varde_gateway.flow.inbox import take_in
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.memory.outgoing import Outgoing
from varde_gateway.flow.outbox import publish, record, sweep
from varde_gateway.flow.ports import (
    BrokerError,
    BrokerUnavailable,
    Carried,
    Outbound,
)
from varde_gateway.flow.ports import Held as HeldInOutbox
from varde_gateway.flow.roster.trust_followers import TrustFollower
from varde_gateway.store.database import Database
from varde_gateway.store.ledger import Ledger, _Step
from varde_gateway.store.transaction import Transaction

T = TypeVar("T")
Touch = Callable[[str], None]


class Crash(BaseException):
    """The node's process is gone; no handler of the flow may take it for an error of its own."""


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

    def __init__(
        self,
        writer: Engine,
        reader: Engine,
        *,
        now: Callable[[], int],
        random: Callable[[int], bytes],
        touch: Touch,
    ) -> None:
        super().__init__(writer, reader, now=now, random=random)
        self._touch = touch

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._readers.shutdown()
        self._readers = AtOnce()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None

    async def write(self, step: Callable[[Transaction], T]) -> T:
        def act(tx: Transaction) -> T:
            answer = step(tx)
            self._touch("before a commit")
            return answer

        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._commit([_Step(act, future)])
        self._touch("after a commit")
        # What was to follow the commit is run by the loop before anything else happens.
        await asyncio.sleep(0)
        return future.result()


class Surroundings(Protocol):
    """What a node needs to know of the world."""

    ms: int

    def sent(self, nation: Nation, message: Outbound) -> None:
        """Called with everything that the node gives to its broker."""

    def touch(self, nation: Nation, moment: str) -> None:
        """Called wherever the node touches the outside; raises ``Crash`` where it dies there."""


@dataclass
class Clock:
    """One node's clock: the world's time and how wrong it is."""

    world: Surroundings
    skew_ms: int = 0

    def __call__(self) -> int:
        return self.world.ms + self.skew_ms

    def ticks(self) -> int:
        """The clock that never steps."""
        return self.world.ms


@dataclass(frozen=True)
class Message:
    """What a broker holds."""

    id: str
    raw: bytes
    transit: Transit | None


Held = tuple[Message, Lane, Nation]
"""A message in an INBOX, its lane, and from whose OUTBOX it was fetched."""


@dataclass
class SimBroker:
    """One nation's broker. ``down`` takes nothing; ``deaf`` stores what it is given and does not say so."""

    world: Surroundings
    nation: Nation
    out: dict[tuple[Nation, Lane], list[Message]] = field(default_factory=dict)
    inbox: deque[Held] = field(default_factory=deque)
    seen: set[str] = field(default_factory=set)
    inbox_seen: set[str] = field(default_factory=set)
    pulses: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    heard: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    down: bool = False
    deaf: bool = False
    older: tuple[dict[tuple[Nation, Lane], list[Message]], list[Held]] = field(
        default_factory=lambda: ({}, [])
    )

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        if self.down:
            return [BrokerUnavailable("the broker is away") for _ in messages]
        if messages:
            self.world.touch(self.nation, "before it gives documents to its broker")
        for each in messages:
            self.world.sent(self.nation, each)
            if each.message_id not in self.seen:
                self.seen.add(each.message_id)
                _, peer, lane = each.subject.split(".")
                held = self.out.setdefault((Nation(peer), Lane(lane)), [])
                held.append(Message(each.message_id, each.raw, each.transit))
        if messages:
            self.world.touch(self.nation, "before its broker answers")
        if self.deaf:
            return [BrokerUnavailable("the answer was lost") for _ in messages]
        return [None for _ in messages]

    async def pulse(self, peer: Nation, raw: bytes) -> None:
        self.world.touch(self.nation, "before it says a heartbeat")
        if not self.down:
            self.pulses.append((peer, raw))

    async def next_pulse(self) -> tuple[Nation, bytes]:
        raise AssertionError("the world hands over what is heard")

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        raise AssertionError("the world hands over what is carried")

    async def fetch_part(self, *_: object) -> bytes:
        raise AssertionError("nobody attaches files in this world")

    async def missing_parts(self, *_: object) -> list[int]:
        raise AssertionError("nobody attaches files in this world")

    async def drop_parts(self, *_: object) -> None:
        raise AssertionError("nobody attaches files in this world")

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        if self.down:
            raise BrokerUnavailable("the broker is away")
        return len(self.out.get((recipient, lane), ()))

    async def held(self) -> HeldInOutbox:
        if self.down:
            raise BrokerUnavailable("the broker is away")
        waiting = {outbox_subject(*each): len(held) for each, held in self.out.items()}
        taken = sum(len(each.raw) for held in self.out.values() for each in held)
        return HeldInOutbox(waiting, taken, 2 * 1024**3)

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
        """Copy the store, so that it can be put back."""
        self.older = ({key: [*held] for key, held in self.out.items()}, [*self.inbox])

    def roll_back(self) -> None:
        """Put the copy back: what was fetched since is fetched again, what was opened since comes again."""
        out, inbox = self.older
        self.out = {key: [*held] for key, held in out.items()}
        self.inbox, self.inbox_seen = deque(inbox), set()


@dataclass
class SimNode:
    """One nation; ``lineage`` counts the older copies of its database that were put back.

    ``looked_at`` is when it last looked at its links, in the world's time.
    """

    world: Surroundings
    party: Party
    clock: Clock
    broker: SimBroker
    desk: Desk
    ledger: Ledger
    database: Database
    follower: TrustFollower
    lineage: int = 0
    looked_at: int | None = None

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
        """Open up to ``most`` of what the relay brought; what the broker has not heard of comes again."""
        if self.broker.down:
            return 0
        kept = dict(
            enumerate(self.broker.inbox.popleft() for _ in range(min(most, len(self.broker.inbox))))
        )
        opened = len(kept)
        carried = [self._carried(number, kept, acknowledge=acknowledge) for number in range(opened)]
        try:
            if carried:
                await take_in(self.desk, self.broker, carried)
        finally:
            self.broker.inbox.extend(kept.values())
        return opened - len(kept)

    def _carried(self, number: int, kept: dict[int, Held], *, acknowledge: bool) -> Carried:
        message, lane, link = kept[number]

        async def done() -> None:
            self.world.touch(self.nation, "before it tells its broker that a document is done")
            if acknowledge:
                del kept[number]

        async def retry_later(seconds: float) -> None:
            """It is kept, and comes again."""

        return Carried(message.raw, lane, link, 0, done, retry_later, message.transit)

    async def beat(self) -> None:
        """Hear what was said, say the heartbeats whose turn it is, and look at the links."""
        while self.broker.heard and not self.broker.down:
            await hear(self.desk, *self.broker.heard.popleft())
        await beat(self.desk, self.broker)
        await watch_links(self.desk)
        self.looked_at = self.world.ms

    async def reroute(self) -> None:
        """Let what waits too long go around."""
        if not self.broker.down:
            await reroute(self.desk, self.broker)

    async def look_around(self) -> None:
        """Follow the roster, and sign a checkpoint of the log."""
        await self.follower.follow()
        await checkpoint(self.desk)

    async def live(self) -> None:
        """A bit of everything, in the order in which a crash finds the most under way."""
        await self.publish_due()
        await self.take_in(16)
        await self.publish_due()
        await self.reroute()
        await self.beat()
        await self.look_around()

    async def close(self) -> None:
        await self.ledger.__aexit__(None, None, None)
        self.database.close()


def make_desk(
    party: Party, ledger: Ledger, trust: Trust, clock: Clock, randbytes: Callable[[int], bytes]
) -> Desk:
    """A node of this party over this ledger."""
    witness_key = Ed25519PrivateKey.from_private_bytes(seed(f"{party.nation} 1 witness"))
    return Desk(
        nation=party.nation,
        keys=party.signing,
        voting_keys=(party.voting,),
        log_signer=log_signer(party.member.log_name, f"{party.nation} 1 log"),
        witness=WitnessSigner(party.member.witness_name, witness_key),
        trust=trust,
        ledger=ledger,
        outgoing=Outgoing(),
        wrapping=PlainWrapping(),
        policy=Policy(),
        now_ms=clock,
        ticks=clock.ticks,
        random=randbytes,
    )
