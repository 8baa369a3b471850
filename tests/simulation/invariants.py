"""What must hold in any world, whatever happened in it. Each check names what broke; an empty list is good.

I1 what was accepted reaches every recipient or is visibly open; I2 at most one visible effect; I3 no receipt without a
durable record behind it; I4 nothing accepted that does not verify; I5 logs only grow and always verify; I6 no roster
without its votes; I7 a silenced peer is noticed within two heartbeats.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simulation.node import SimNode
from simulation.world import World
from varde.admission import is_sealed
from varde.encoding import sha256_base64url
from varde.identifiers import Nation
from varde.merkle import Frontier, leaf_hash, root_at
from varde.roster import accept_genesis, accept_next, parse_voted_roster
from varde.signing import Kind, claimed_kind, parse_signed
from varde_gateway.flow.log.history import HistoryLost
from varde_gateway.flow.log.trail import check_stored_log
from varde_gateway.flow.memory.links import SILENT_MS, LinkState
from varde_gateway.flow.ports import Outbound
from varde_gateway.store.tree import log_size, node_reader


@dataclass
class Sent:
    """An alert that a node has accepted: its exact bytes, for whom, and in which life of its sender's database."""

    id: str
    sender: Nation
    to: tuple[Nation, ...]
    raw: bytes
    lineage: int


@dataclass
class Watch:
    """What the checks remember while the world goes on."""

    world: World
    sent: dict[str, Sent] = field(default_factory=dict)
    roots: dict[tuple[Nation, int], dict[int, bytes]] = field(default_factory=dict)
    receipts: dict[tuple[Nation, int], set[tuple[str, str]]] = field(default_factory=dict)
    prekeys: dict[tuple[Nation, int, str], int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    earlier: set[str] = field(default_factory=set)

    async def begin(self) -> None:
        """From here on every receipt is looked at; what was receipted before is taken as it is."""
        self.world.watcher = self._look_at_receipt
        for node in self.world.nodes.values():
            self.earlier |= {each for (each,) in await _all(node, "SELECT id FROM document")}

    async def remember(self) -> None:
        """Where every log stands now, and whose prekeys are in use: neither may go back from here."""
        for nation, node in self.world.nodes.items():
            size, root = await node.ledger.read(
                lambda c: (n := log_size(c), root_at(n, node_reader(c)))
            )
            self.roots.setdefault((nation, node.lineage), {})[size] = root
            for peer, sequence in await _all(node, "SELECT nation, sequence FROM peer_prekeys"):
                before = self.prekeys.get((nation, node.lineage, peer), 0)
                if sequence < before:
                    self.found.append(f"I4 {nation} went back to older prekeys of {peer}")
                self.prekeys[nation, node.lineage, peer] = sequence

    async def after_each_step(self) -> None:
        """Nobody counts a receipt that its nation has not given, and nobody is taken for live who is not heard."""
        self.look_at_links()
        for nation, node in self.world.nodes.items():
            for document, recipient in await _all(
                node, "SELECT document_id, recipient FROM delivery WHERE receipt_id IS NOT NULL"
            ):
                if document in self.earlier:
                    continue
                lives = range(self.world.nodes[Nation(recipient)].lineage + 1)
                if not any(
                    (nation, document) in self.receipts.get((Nation(recipient), life), set())
                    for life in lives
                ):
                    self._find(
                        f"I4 {nation} believes a receipt for {document} that {recipient} never gave"
                    )

    def look_at_links(self) -> None:
        """I7: nobody whose heartbeats have not come for two intervals counts as live, or was last recorded as live."""
        for nation, node in self.world.nodes.items():
            now = node.desk.ticks()
            for peer in node.desk.peers():
                silent_for = self.world.ms - self.world.heard_at.get((nation, peer), 0)
                if silent_for <= SILENT_MS + 1000:
                    continue
                if node.desk.links.state(peer, now) is LinkState.LIVE:
                    self._find(f"I7 {nation} takes {peer} for live, unheard for {silent_for} ms")
                told = node.desk.links.of(peer, now).told
                if node.looked_at == self.world.ms and told is LinkState.LIVE:
                    self._find(
                        f"I7 {nation} has not said that {peer} is silent for {silent_for} ms"
                    )

    async def at_the_end(self) -> list[str]:
        """Everything that can only be judged when all is healed and settled."""
        self.found += [
            *await self._all_arrived(),
            *await self._one_effect(),
            *await self._receipts_are_backed(),
            *await self._nothing_forged(),
            *await self._logs_hold(),
            *await self._rosters_hold(),
        ]
        return self.found

    def _look_at_receipt(self, nation: Nation, message: Outbound) -> None:
        """I3 at the moment when a receipt leaves: what it says must be in the database already, with that digest."""
        if message.transit is not None or is_sealed(message.raw):
            return
        signed = parse_signed(message.raw)
        if claimed_kind(signed) is not Kind.RECEIPT:
            return
        payload = json.loads(signed.payload)
        node = self.world.nodes[nation]
        given = self.receipts.setdefault((nation, node.lineage), set())
        for to in payload["to"]:
            for each in payload["body"]["documents"]:
                given.add((to, each["id"]))
                digest = node.ledger.read_here(
                    lambda c, key=(to, each["id"]): c.exec_driver_sql(
                        "SELECT digest FROM document WHERE sender = ? AND id = ?", key
                    ).scalar()
                )
                if digest != each["digest"]:
                    self.found.append(
                        f"I3 {nation} gives a receipt for {each['id']}, which it has not recorded"
                    )

    def _find(self, finding: str) -> None:
        if finding not in self.found:
            self.found.append(finding)

    async def _all_arrived(self) -> list[str]:
        found: list[str] = []
        for sent in self.sent.values():
            sender = self.world.nodes[sent.sender]
            if sent.id in self.forgotten and not await _has_document(sender, sent.sender, sent.id):
                continue
            for to in sent.to:
                state = await _delivery_state(sender, sent.id, to)
                there = await _has_document(self.world.nodes[to], sent.sender, sent.id)
                if not there:
                    alarm = await _alarm(self.world.nodes[to], sent.sender)
                    found.append(
                        f"I1 {sent.id} of {sent.sender} never reached {to} ({state}{alarm})"
                    )
                elif state not in {"delivered", "displayed", "acknowledged"}:
                    found.append(
                        f"I1 {sent.sender} does not know that {to} has {sent.id} ({state})"
                    )
        return found

    async def _one_effect(self) -> list[str]:
        found: list[str] = []
        for nation, node in self.world.nodes.items():
            rows = await node.ledger.read(
                lambda c: c.exec_driver_sql("SELECT data FROM event WHERE kind = 'alert'").all()
            )
            told = Counter(
                (each["from"], each["id"]) for (data,) in rows for each in (json.loads(data),)
            )
            found += [f"I2 {nation} told of {key} {n} times" for key, n in told.items() if n > 1]
        return found

    async def _receipts_are_backed(self) -> list[str]:
        found: list[str] = []
        for (nation, lineage), receipts in self.receipts.items():
            node = self.world.nodes[nation]
            if node.lineage != lineage:
                continue
            for sender, document in receipts:
                if not await _has_document(node, sender, document):
                    found.append(f"I3 {nation} has lost {document}, for which it gave a receipt")
        return found

    async def _nothing_forged(self) -> list[str]:
        found: list[str] = []
        for nation, node in self.world.nodes.items():
            rows = await node.ledger.read(
                lambda c: c.exec_driver_sql(
                    "SELECT id, sender, raw FROM document WHERE kind = 'alert'"
                ).all()
            )
            for identifier, sender, raw in rows:
                genuine = self.sent.get(identifier)
                if genuine is None or (genuine.sender, genuine.raw) != (sender, bytes(raw)):
                    found.append(f"I4 {nation} holds {identifier} of {sender}, which nobody sent")
        return found

    async def _logs_hold(self) -> list[str]:
        found: list[str] = []
        for nation, node in self.world.nodes.items():
            rows = await node.ledger.read(
                lambda c: c.exec_driver_sql(
                    'SELECT "index", leaf, hash FROM audit_leaf ORDER BY "index"'
                ).all()
            )
            for place, (index, leaf, digest) in enumerate(rows):
                if index != place or leaf_hash(leaf.encode()) != bytes(digest):
                    found.append(f"I5 {nation}: entry {place} of the log is not what it was")
                    break
            frontier = Frontier()
            for _, leaf, _ in rows:
                frontier, _ = frontier.append(leaf_hash(leaf.encode()))
            if frontier.root() != await _root(node, len(rows)):
                found.append(f"I5 {nation}: the stored tree is not that of the entries")
            try:
                await check_stored_log(node.desk)
            except HistoryLost as lost:
                found.append(f"I5 {nation}: {lost}")
            for size, root in self.roots.get((nation, node.lineage), {}).items():
                if size > len(rows) or await _root(node, size) != root:
                    found.append(f"I5 {nation}: the log does not continue its first {size} entries")
            found += await self._accused_without_cause(node)
        return found

    async def _accused_without_cause(self, node: SimNode) -> list[str]:
        """Only a log whose database was put back to an older copy may be said to have two histories."""
        origins = await node.ledger.read(
            lambda c: c.exec_driver_sql("SELECT DISTINCT origin FROM log_conflict").all()
        )
        honest = {
            other.party.member.log_name: nation
            for nation, other in self.world.nodes.items()
            if other.lineage == 0
        }
        return [
            f"I5 {node.nation} accuses the log of {honest[origin]}, which has one history"
            for (origin,) in origins
            if origin in honest
        ]

    async def _rosters_hold(self) -> list[str]:
        found: list[str] = []
        accepted: dict[int, set[str]] = {}
        newest = max(node.desk.trust.current.version for node in self.world.nodes.values())
        for nation, node in self.world.nodes.items():
            rows = await node.ledger.read(
                lambda c: c.exec_driver_sql("SELECT raw FROM roster ORDER BY version").all()
            )
            voted = [parse_voted_roster(bytes(raw)) for (raw,) in rows]
            try:
                current = accept_genesis(voted[0], self.world.federation.id)
                for each in voted[1:]:
                    current = accept_next(current, each, self.world.ms // 1000)
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with it is the finding
                found.append(f"I6 {nation} holds a roster that is not voted for: {error}")
            if len(voted) < newest:
                found.append(f"I6 {nation} never heard of roster {newest}, only of {len(voted)}")
            for version, each in enumerate(voted, start=1):
                accepted.setdefault(version, set()).add(sha256_base64url(each.payload))
        found += [
            f"I6 two rosters {n} are in force" for n, all_ in accepted.items() if len(all_) > 1
        ]
        return found


async def _all(node: SimNode, query: str) -> Sequence[Any]:
    return await node.ledger.read(lambda c: c.exec_driver_sql(query).all())


async def _alarm(node: SimNode, sender: Nation) -> str:
    """Whether the node has at least said that something of this sender is missing."""
    entries = await _all(node, "SELECT actor FROM audit_leaf WHERE kind = 'chain_broken'")
    return ", chain broken" if sender in {actor for (actor,) in entries} else ""


async def _has_document(node: SimNode, sender: str, document: str) -> bool:
    return bool(
        await node.ledger.read(
            lambda c: c.exec_driver_sql(
                "SELECT 1 FROM document WHERE sender = ? AND id = ?", (sender, document)
            ).scalar()
        )
    )


async def _delivery_state(node: SimNode, document: str, to: str) -> str | None:
    state: str | None = await node.ledger.read(
        lambda c: c.exec_driver_sql(
            "SELECT state FROM delivery WHERE document_id = ? AND recipient = ?", (document, to)
        ).scalar()
    )
    return state


async def _root(node: SimNode, size: int) -> bytes:
    return await node.ledger.read(lambda c: root_at(size, node_reader(c)))
