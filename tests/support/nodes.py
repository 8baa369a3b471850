"""Whole nodes in one process: the real flow over a real database, joined by brokers in memory.

``MemoryBroker`` keeps the port's promises: at least once, acknowledged or redelivered, urgent and routine apart.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.federation import NOW, Federation, Party, log_signer, seed
from varde.admission import Admit, admit
from varde.auditlog import AuditKind
from varde.blob import BlobAddress, BlobFault
from varde.checkpoint import WitnessSigner
from varde.errors import Reason
from varde.identifiers import Lane, Nation
from varde.subjects import blob_subject, outbox_subject
from varde.transit import Transit
from varde_gateway.flow.desk import Desk, Policy
from varde_gateway.flow.heartbeats import beat, hear, watch_links
from varde_gateway.flow.inbox import take_in
from varde_gateway.flow.memory.outgoing import Outgoing
from varde_gateway.flow.outbox import publish, record, sweep
from varde_gateway.flow.ports import BrokerError, BrokerUnavailable, Carried, Held, Outbound
from varde_gateway.flow.roster.prekeys import load_prekeys, renew_prekeys
from varde_gateway.flow.roster.trust import load_trust
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.database import migrate, open_database
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.transaction import Transaction


class Clock:
    """A clock that only the test moves; milliseconds."""

    def __init__(self) -> None:
        self.ms = NOW * 1000

    def __call__(self) -> int:
        return self.ms

    def forward(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class PlainWrapping:
    """Keeps the port of the keystore's wrapping: what is unwrapped elsewhere, or changed, is refused."""

    def wrap(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        return b"|".join((purpose.encode(), aad, plaintext.hex().encode()))

    def unwrap(self, purpose: str, wrapped: bytes, aad: bytes) -> bytes:
        found_purpose, found_aad, plaintext = wrapped.split(b"|")
        assert (found_purpose.decode(), found_aad) == (purpose, aad)
        return bytes.fromhex(plaintext.decode())


@dataclass
class MemoryBroker:
    """One nation's broker: what it holds for others, and what its relay brought in."""

    out: dict[tuple[Nation, Lane], deque[tuple[bytes, Transit | None]]] = field(
        default_factory=dict
    )
    inbox: deque[tuple[bytes, Lane, Nation, Transit | None]] = field(default_factory=deque)
    pulses: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    heard: deque[tuple[Nation, bytes]] = field(default_factory=deque)
    down: bool = False
    seen: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    peers: dict[Nation, "MemoryBroker"] = field(default_factory=dict)
    asked: list[tuple[Nation, int]] = field(default_factory=list)
    faults: list[BlobFault] = field(default_factory=list)
    room: int = 2 * 1024**3

    def _publish(self, message: Outbound) -> None:
        if message.message_id in self.seen:
            return
        self.seen.add(message.message_id)
        if message.subject.startswith("blob."):
            self.blobs[message.subject] = message.raw
            return
        _, recipient, lane = message.subject.split(".")
        queue = self.out.setdefault((Nation(recipient), Lane(lane)), deque())
        queue.append((message.raw, message.transit))

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        if self.down:
            return [BrokerUnavailable("the broker is away") for _ in messages]
        for each in messages:
            self._publish(each)
        return [None for _ in messages]

    async def pulse(self, peer: Nation, raw: bytes) -> None:
        if not self.down:
            self.pulses.append((peer, raw))

    async def next_pulse(self) -> tuple[Nation, bytes]:
        raise AssertionError("the tests hand over what is heard themselves")

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        raise AssertionError("the tests hand over what is carried themselves")

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        return len(self.out.get((recipient, lane), ()))

    async def held(self) -> Held:
        if self.down:
            raise BrokerUnavailable("the broker is away")
        waiting = {outbox_subject(*each): len(queue) for each, queue in self.out.items()}
        taken = sum(len(raw) for queue in self.out.values() for raw, _ in queue)
        return Held(waiting, taken, self.room)

    async def fetch_part(self, at: Nation, blob: BlobAddress, part: int) -> bytes | BlobFault:
        self.asked.append((at, part))
        if self.down:
            raise BrokerUnavailable("the broker is away")
        if self.faults:
            return self.faults.pop()
        if at not in self.peers or self.peers[at].down:
            return BlobFault.LINK_DOWN
        return self.peers[at].blobs.get(blob_subject(blob, part), BlobFault.NOT_HERE)

    async def missing_parts(self, blob: BlobAddress, parts: int) -> list[int]:
        return [part for part in range(parts) if blob_subject(blob, part) not in self.blobs]

    async def drop_parts(self, blob: BlobAddress) -> None:
        for subject in [each for each in self.blobs if each.startswith(f"blob.{blob}.")]:
            del self.blobs[subject]

    def connected(self) -> bool:
        return not self.down

    async def wait_connected(self) -> None:
        assert not self.down


@dataclass
class Node:
    """One nation at work, stepped by the test."""

    desk: Desk
    broker: MemoryBroker
    party: Party
    files: AttachmentFiles
    refused: list[Reason] = field(default_factory=list)

    async def work(self) -> None:
        """Give the broker everything that is due."""
        await sweep(self.desk, self.broker)
        while jobs := await self.desk.outgoing.take(64, 0):
            await record(self.desk, await publish(self.desk, self.broker, jobs))

    async def take_in(self) -> list[str]:
        """Open everything that the relay brought; what became of each: acknowledged or retried."""
        fates: list[str] = []
        while self.broker.inbox:
            batch = [self.broker.inbox.popleft() for _ in range(min(16, len(self.broker.inbox)))]
            await take_in(self.desk, self.broker, [self._carried(each, fates) for each in batch])
        return fates

    async def beat(self) -> None:
        """Say the heartbeats whose turn it is, take in those that were heard, and look at the links."""
        while self.broker.heard:
            await hear(self.desk, *self.broker.heard.popleft())
        await beat(self.desk, self.broker)
        await watch_links(self.desk)

    def _carried(
        self, message: tuple[bytes, Lane, Nation, Transit | None], fates: list[str]
    ) -> Carried:
        raw, lane, link, transit = message

        async def acknowledge() -> None:
            fates.append("acknowledged")

        async def retry_later(seconds: float) -> None:
            fates.append("retried")

        return Carried(raw, lane, link, 0, acknowledge, retry_later, transit)


async def carry(sender: Node, recipient: Node) -> int:
    """What the recipient's relay does: fetch, admit, write the INBOX."""
    moved = 0
    for lane in Lane:
        queue = sender.broker.out.get((recipient.desk.nation, lane), deque())
        while queue:
            raw, transit = queue.popleft()
            decision = admit(
                raw,
                lane=lane,
                me=recipient.desk.nation,
                link=sender.desk.nation,
                trust=recipient.desk.trust,
                now=recipient.desk.now(),
                transit=transit,
            )
            if isinstance(decision, Admit):
                recipient.broker.inbox.append((raw, lane, sender.desk.nation, transit))
                moved += 1
            else:
                recipient.refused.append(decision.reason)
    return moved


async def exchange_heartbeats(
    nodes: Sequence[Node], cut: Collection[frozenset[Nation]] = ()
) -> None:
    """Everybody beats, everybody hears; nobody over the links that are cut."""
    for node in nodes:
        await node.beat()
    by_nation = {node.desk.nation: node for node in nodes}
    for node in nodes:
        while node.broker.pulses:
            peer, raw = node.broker.pulses.popleft()
            if peer in by_nation and frozenset((node.desk.nation, peer)) not in cut:
                by_nation[peer].broker.heard.append((node.desk.nation, raw))
    for node in nodes:
        await node.beat()


async def settle(nodes: Sequence[Node], cut: Collection[frozenset[Nation]] = ()) -> None:
    """Let everybody work until nothing moves any more; nothing moves over the links that are cut."""
    while True:
        moved = 0
        for node in nodes:
            await node.work()
        for sender in nodes:
            for recipient in nodes:
                link = frozenset((sender.desk.nation, recipient.desk.nation))
                if sender is not recipient and link not in cut:
                    moved += await carry(sender, recipient)
        for node in nodes:
            await node.take_in()
        if not moved:
            return


async def grow_log(node: Node, entries: int) -> None:
    """So many more entries in the node's log, in one transaction."""

    def write(tx: Transaction) -> None:
        for number in range(entries):
            tx.audit(AuditKind.SENT, "op", [("document", f"d{number}")])

    await node.desk.ledger.write(write)


@asynccontextmanager
async def running_node(
    url: str,
    party: Party,
    federation: Federation,
    clock: Clock,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> AsyncIterator[Node]:
    """One node over the database at ``url``, its prekeys made."""
    database = open_database(url)
    await asyncio.to_thread(migrate, database)
    try:
        async with Ledger(database.writer, database.reader, now=clock, random=random) as ledger:
            trust = await load_trust(ledger, federation.id, [federation.founding], clock() // 1000)
            desk = Desk(
                nation=party.nation,
                keys=party.signing,
                log_signer=log_signer(party.member.log_name, f"{party.nation} 1 log"),
                witness=WitnessSigner(
                    party.member.witness_name,
                    Ed25519PrivateKey.from_private_bytes(seed(f"{party.nation} 1 witness")),
                ),
                trust=trust,
                ledger=ledger,
                outgoing=Outgoing(),
                wrapping=PlainWrapping(),
                policy=Policy(),
                now_ms=clock,
                ticks=clock,
                random=random,
            )
            await load_prekeys(desk)
            await renew_prekeys(desk)
            with TemporaryDirectory() as folder:
                yield Node(desk, MemoryBroker(), party, AttachmentFiles(Path(folder)))
    finally:
        database.close()


@asynccontextmanager
async def running_nodes(
    urls: Mapping[Nation, str],
    federation: Federation,
    clock: Clock,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> AsyncIterator[dict[Nation, Node]]:
    """Every nation of a federation over its database, prekeys exchanged."""
    async with AsyncExitStack() as stack:
        nodes = {
            nation: await stack.enter_async_context(
                running_node(urls[nation], party, federation, clock, random)
            )
            for nation, party in federation.parties.items()
        }
        await settle(list(nodes.values()))
        yield nodes
