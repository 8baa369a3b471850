"""Nations that vote on the roster of a running federation: whole nodes with their voting keys, stepped by the test."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from support.alerts import sample_alert
from support.federation import Party, federation, party
from support.nodes import Clock, Node, running_node, settle
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Lane, Nation
from varde.proposal import Change
from varde.roster import Roster, Vote, parse_vote, sign_vote
from varde.signing import Kind
from varde_gateway.flow.compose import compose
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.roster.trust_followers import TrustFollower
from varde_gateway.flow.roster.voting import cast_vote, describe_proposals, propose
from varde_gateway.flow.send import Order, queue_deliveries, record_document, send_alert
from varde_gateway.store.alerts import find_alert
from varde_gateway.store.tables import events_table, roster_proposals_table


@dataclass
class TellingBroker:
    """What a broker and a relay were told."""

    streams: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)

    async def ensure_streams(self) -> None:
        self.streams += 1

    async def announce_roster(self, raw: bytes) -> None:
        self.told.append(json.loads(raw))


@dataclass
class Voter:
    """A node with its voting key and the worker that follows its trust."""

    node: Node
    broker: TellingBroker
    follower: TrustFollower

    @property
    def version(self) -> int:
        return self.node.desk.trust.current.version

    @property
    def roster(self) -> Roster:
        return self.node.desk.trust.current


@dataclass
class World:
    """Some nations at work, and those that may join."""

    voters: dict[Nation, Voter]
    clock: Clock

    def __getitem__(self, nation: Nation) -> Voter:
        return self.voters[nation]

    async def run(self, *only: Nation, cut: Iterable[frozenset[Nation]] = ()) -> None:
        """Let these, or all, work and follow until nothing changes any more."""
        taking = [each for nation, each in self.voters.items() if not only or nation in only]
        while True:
            before = [each.node.desk.trust for each in taking]
            await settle([each.node for each in taking], tuple(cut))
            for each in taking:
                await each.follower.follow()
            await settle([each.node for each in taking], tuple(cut))
            if before == [each.node.desk.trust for each in taking]:
                return

    async def run_again(self) -> None:
        """What was refused because its recipient was behind is tried again."""
        self.clock.forward(11)
        await self.run()

    async def propose(self, nation: Nation, change: Change) -> str:
        answer = await propose(self[nation].node.desk, change, actor="admin")
        return str(answer["hash"])

    async def vote(self, nation: Nation, digest: str, *, instead: bool = False) -> dict[str, Any]:
        desk = self[nation].node.desk
        answer: Any = await cast_vote(desk, digest, instead=instead, actor="admin")
        return dict(answer)

    async def change(self, change: Change, *nations: Nation) -> None:
        """The first proposes, all of them vote, everybody hears of it."""
        digest = await self.propose(nations[0], change)
        await self.run()
        for nation in nations:
            if self[nation].version < parse_version(self[nations[0]], digest):
                await self.vote(nation, digest)
                await self.run()


def parse_version(voter: Voter, digest: str) -> int:
    return voter.version if voter.roster.hash == digest else voter.version + 1


@asynccontextmanager
async def world(
    new_database: Callable[[], str],
    nations: Iterable[Nation],
    newcomers: Iterable[Nation] = (),
    clock: Clock | None = None,
) -> AsyncIterator[World]:
    clock = clock or Clock()
    founded = federation(*nations)
    async with AsyncExitStack() as stack:
        voters: dict[Nation, Voter] = {}
        for nation in sorted({*founded.parties, *newcomers}):
            node = await stack.enter_async_context(
                running_node(new_database(), party(nation), founded, clock)
            )
            node.desk.voting_keys = (party(nation).voting,)
            broker = TellingBroker()
            voters[nation] = Voter(node, broker, TrustFollower(node.desk, broker))
        made = World(voters, clock)
        await made.run()
        yield made


async def audited(voter: Voter, kind: str) -> list[dict[str, Any]]:
    entries: Any = await voter.node.desk.ledger.read(
        lambda c: list_entries(c, limit=200, after_index=None, kind=kind)
    )
    return list(entries[0])


async def events(voter: Voter, kind: str) -> list[dict[str, Any]]:
    rows = await voter.node.desk.ledger.read(
        lambda c: c.execute(select(events_table.c.data).where(events_table.c.kind == kind)).all()
    )
    return [json.loads(row.data) for row in rows]


async def count(voter: Voter, table: Any) -> int:
    return int(
        await voter.node.desk.ledger.read(
            lambda c: c.scalar(select(func.count()).select_from(table))
        )
    )


async def listed(voter: Voter) -> list[dict[str, Any]]:
    desk = voter.node.desk
    found: Any = await desk.ledger.read(lambda c: describe_proposals(c, desk))
    return list(found)


async def alert(sender: Voter, *to: Nation) -> str:
    desk = sender.node.desk
    order = Order(to, Tlp.AMBER, parse_alert(sample_alert()))
    answer = await send_alert(desk, order, author="operator", document_id=desk.new_id(), claim=None)
    return str(answer["id"])


async def has(voter: Voter, alert_id: str) -> bool:
    desk = voter.node.desk
    return (
        await desk.ledger.read(lambda c: find_alert(c, alert_id, None, desk.now_ms()))
    ) is not None


async def send_raw(sender: Voter, kind: Kind, body: Any, *to: Nation) -> None:
    """A document that a hostile member signs without asking anybody's rules."""
    desk = sender.node.desk
    document = await compose(desk, kind, to, body, lane=Lane.URGENT, life_seconds=3600)

    def record(tx: Any) -> None:
        record_document(tx, document)
        queue_deliveries(tx, desk, document, to, sealed=False, numbered=False)

    await desk.ledger.write(record)


def vote_by(voter: Party, payload: bytes) -> Vote:
    return parse_vote(sign_vote(payload, voter.nation, voter.voting))


async def payload_of(voter: Voter, digest: str) -> bytes:
    found: Any = await voter.node.desk.ledger.read(
        lambda c: c.scalar(
            select(roster_proposals_table.c.payload).where(roster_proposals_table.c.hash == digest)
        )
    )
    return bytes(found)
