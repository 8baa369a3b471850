"""A nation that lies about its audit log: it has its keys and two histories, shows each peer one, and speaks for itself.

Its heartbeats are composed here and not by the node's flow: the histories are two databases that went apart, the proofs of
each are real, and how it lies is its ``Manner``. ``Street`` lets it live beside honest nodes, second by second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from support.nodes import Clock, Node
from varde.checkpoint import format_consistency, parse_checkpoint
from varde.document import parse_document
from varde.exchange import LogWord
from varde.heartbeat import (
    CHAIN_START,
    Heartbeat,
    Received,
    Sent,
    format_heartbeat,
    parse_heartbeat,
)
from varde.identifiers import Lane, Nation
from varde.merkle import consistency_proof
from varde.note import parse_note
from varde.signing import Kind, parse_signed
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.store.tables import cosignatures_table, log_conflicts_table, log_unproven_table
from varde_gateway.store.tree import read_ahead

BEAT_SECONDS = 10


@dataclass
class Manner:
    """How it lies; changed in the middle of its life."""

    silent: bool = False
    """It says nothing of its log any more, and hears."""

    deaf: bool = False
    """It says that it hears nobody."""

    refused: bool = False
    """It asks for cosignatures so that they are refused."""

    halted: bool = False
    """It says that it has lost history."""


@dataclass
class LyingLog:
    """``faces`` are its two histories, each the node over one database, by the peer that is shown it."""

    nation: Nation
    faces: dict[Nation, Node]
    clock: Clock
    manner: Manner = field(default_factory=Manner)
    stored: dict[Nation, int] = field(default_factory=dict)
    heard: dict[Nation, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    shown: dict[Nation, list[str]] = field(default_factory=dict)
    beat_at: int = 0

    async def hear(self, peer: Nation, raw: bytes) -> None:
        heartbeat = parse_heartbeat(parse_document(parse_signed(raw).payload).body)
        self.heard[peer] = heartbeat.sequence, heartbeat.log.prove
        answer = heartbeat.log.answer
        if answer is not None and answer.status == 409:
            self.stored[peer] = int(answer.body)
        elif answer is not None and answer.status == 200:
            self.stored[peer] = parse_checkpoint(parse_note(self.shown[peer][-1]).text).size

    async def say(self) -> dict[Nation, bytes]:
        return {peer: await self._say(peer) for peer in self.faces}

    async def _say(self, peer: Nation) -> bytes:
        desk = self.faces[peer].desk
        heartbeat = Heartbeat(
            self.clock.ms,
            Sent(1, 0, CHAIN_START),
            Received(1, 0, 0, ()),
            (),
            {},
            await self._word(peer),
        )
        body = format_heartbeat(heartbeat)
        return compose_now(
            desk, Kind.HEARTBEAT, [peer], body, lane=Lane.URGENT, life_seconds=60
        ).raw

    async def _word(self, peer: Nation) -> LogWord:
        heard, asked = self.heard.get(peer, (0, ()))
        heard = 0 if self.manner.deaf else heard
        if self.manner.silent:
            return LogWord(heard=heard, halted=self.manner.halted)
        ledger = self.faces[peer].desk.ledger
        note = await checkpoint(self.faces[peer].desk)
        self.shown.setdefault(peer, []).append(note)
        size = parse_checkpoint(parse_note(note).text).size

        def paths(connection: Any) -> dict[int, tuple[bytes, ...]]:
            olds = {*asked, self.stored.get(peer, 0)}
            return {
                old: tuple(
                    read_ahead(connection, lambda read, o=old: consistency_proof(o, size, read))
                )  # type: ignore[misc] # the default binds the loop's value
                if old
                else ()
                for old in olds
                if old <= size
            }

        found = await ledger.read(paths)
        old = self.stored.get(peer, 0)
        if self.manner.refused:
            add = format_consistency(0, (), note)
        else:
            add = format_consistency(old, found[old], note)
        return LogWord(
            add=add,
            proofs=tuple((each, found[each]) for each in asked if each in found),
            heard=heard,
            halted=self.manner.halted,
        )


@dataclass
class Street:
    """Honest nodes and a liar, one second after the other; heartbeats arrive in the second after they were said."""

    honest: Sequence[Node]
    liar: LyingLog
    clock: Clock
    cut: bool = False
    """The honest do not hear each other."""

    async def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.forward(1)
            for node in self.honest:
                await node.beat()
            for node in self.honest:
                await self._carry(node)
            if self.clock.ms >= self.liar.beat_at:
                self.liar.beat_at = self.clock.ms + BEAT_SECONDS * 1000
                for peer, raw in (await self.liar.say()).items():
                    self._node(peer).broker.heard.append((self.liar.nation, raw))

    async def _carry(self, node: Node) -> None:
        while node.broker.pulses:
            peer, raw = node.broker.pulses.popleft()
            if peer == self.liar.nation:
                await self.liar.hear(node.desk.nation, raw)
            elif not self.cut:
                self._node(peer).broker.heard.append((node.desk.nation, raw))

    def _node(self, nation: Nation) -> Node:
        return next(each for each in self.honest if each.desk.nation == nation)


async def convictions(node: Node) -> list[frozenset[str]]:
    """The pairs of checkpoint texts that a node holds as proof of two histories."""
    return await _pairs(node, log_conflicts_table)


async def debts(node: Node) -> list[frozenset[str]]:
    """The pairs of checkpoint texts of which it waits for a proof."""
    return await _pairs(node, log_unproven_table)


async def cosigned(node: Node, by: Node) -> int:
    """The size of the newest checkpoint of the node's log that ``by`` has cosigned."""
    table = cosignatures_table.c
    query = select(table.size).where(table.witness == by.party.member.witness_name)
    return max(await node.desk.ledger.read(lambda c: [*c.scalars(query)]), default=0)


async def _pairs(node: Node, table: Any) -> list[frozenset[str]]:
    found = await node.desk.ledger.read(lambda c: c.execute(select(table)).all())
    return [
        frozenset(parse_note(each).text for each in (row.first_note, row.second_note))
        for row in found
    ]
