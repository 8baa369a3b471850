"""A member in hostile hands: its keys and its broker, used beside its own node, which knows nothing of it and runs on.

Read from the nation's home, as whoever has taken over the machine could. Documents are made with the real core; they go into
the nation's own OUTBOX, from where the others fetch. Nothing is decided here about what is sent. Protocol sections 5 to 8.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import SecretStr

from soak.field import Field
from support.running import wait_for
from varde.document import Document, format_document, parse_document
from varde.encoding import JsonObject
from varde.envelope import EnvelopeHeader
from varde.heartbeat import CHAIN_START
from varde.identifiers import (
    DocumentId,
    FederationId,
    Lane,
    Nation,
    document_id,
    parse_federation_id,
    parse_nation,
)
from varde.prekeys import choose_prekey, parse_prekeys
from varde.roster import Roster, parse_roster_payload, parse_voted_roster
from varde.sealing import seal
from varde.signing import Kind, parse_signed, sign
from varde.subjects import outbox_subject, pulse_out
from varde_gateway.keyring import Keyring, open_keystore
from varde_relay.links import host_of
from varde_relay.nats_link import Connection, Endpoint, Inbound, LinkError, StreamFull

_AT_ONCE = 500
_LIFE_SECONDS = 3600
_TRAFFIC_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """What is put into the OUTBOX for one nation to fetch; ``label`` is that of the beacon chain."""

    to: Nation
    raw: bytes
    lane: Lane = Lane.URGENT
    label: str | None = None


class Hands:
    """What a hostile member can do with what is its own."""

    def __init__(self, field: Field, nation: str, chance: random.Random) -> None:
        self.field = field
        self.nation = parse_nation(nation)
        self.chance = chance
        home = field.federation.home(nation)
        passphrase = SecretStr((home / "passphrase").read_text().removesuffix("\n"))
        self.keys: Keyring = open_keystore(home / "keystore.json", self.nation, passphrase)
        self.roster: Roster = parse_roster_payload(parse_voted_roster(self._roster_text()).payload)
        self.federation: FederationId = parse_federation_id(field.federation.genesis)
        self._gateway_nkey = (home / "gateway.nk").read_text().strip()

    @classmethod
    def of(cls, field: Field, nation: str, seed: int) -> Self:
        """Those of a seed, when the nation has sent and received something that can be abused."""
        hands = cls(field, nation, random.Random(seed))
        wait_for(hands.has_traffic, _TRAFFIC_SECONDS, f"{nation} has sent and received alerts")
        return hands

    @property
    def others(self) -> list[Nation]:
        return sorted(each for each in self.roster.members if each != self.nation)

    def new_id(self) -> DocumentId:
        return document_id(int(time.time() * 1000), self.chance.randbytes(10))

    def document(self, to: Iterable[Nation], body: JsonObject, **changes: Any) -> Document:
        """A document that is right unless ``changes`` make it wrong."""
        now = int(time.time())
        honest = Document(
            federation=self.federation,
            id=self.new_id(),
            sender=self.nation,
            to=tuple(sorted(to)),
            issued_at=now,
            expires_at=now + _LIFE_SECONDS,
            roster=self.roster.reference,
            body=body,
        )
        return replace(honest, **changes)

    def sign(self, document: Document, kind: Kind) -> bytes:
        """With the hostile nation's keys, whoever the document names."""
        return sign(format_document(document), kind, self.keys.message)

    def seal(self, raw: bytes, document: Document, reader: Nation, **changes: Any) -> bytes:
        """Sealed for ``reader``, not numbered; ``changes`` are members of the outer header."""
        ((body,),) = self.field.federation.ask(
            self.nation, "SELECT body FROM peer_prekeys WHERE nation = ?", reader
        )
        chosen = choose_prekey(
            parse_prekeys(json.loads(body)).keys, int(time.time()), stale_allowed=True
        )
        assert chosen is not None
        header = EnvelopeHeader(
            federation=document.federation,
            sender=document.sender,
            to=reader,
            id=document.id,
            lane=Lane.URGENT,
            expires_at=document.expires_at,
            sequence=0,
            kid=chosen.prekey.kid,
        )
        header = replace(header, **changes)
        prekey = chosen.prekey
        key, iv = self.chance.randbytes(32), self.chance.randbytes(12)
        return seal(raw, header, prekey, content_key=key, iv=iv)

    def genesis(self) -> bytes:
        """The first roster, with its votes."""
        query = "SELECT raw FROM roster ORDER BY version LIMIT 1"
        return bytes(self.field.federation.ask(self.nation, query)[0][0])

    def numbers(self, peer: Nation) -> tuple[int, int, bytes, int, int]:
        """What the own node has numbered for a peer: first, through and chain; and what it has of its numbers."""
        query = (
            "SELECT sent_from, next_sequence - 1, sent_chain, received_from, received_through"
            " FROM peer WHERE nation = ?"
        )
        first, through, chain, got_first, got = self.field.federation.ask(self.nation, query, peer)[
            0
        ]
        return first, through, chain or CHAIN_START, got_first, got

    def agree_with(self, peer: Nation) -> bool:
        """Whether the own node and a peer know the same of both numberings, and nothing is under way to it."""
        query = "SELECT received_from, received_through, sent_from FROM peer WHERE nation = ?"
        there = self.field.federation.ask(peer, query, self.nation)[0]
        first, through, _, got_first, _ = self.numbers(peer)
        return tuple(there) == (first, through, got_first)

    def has_traffic(self) -> bool:
        """Whether there is something of each kind to abuse."""
        return all(
            self.sent_to(each, 1)
            and self.alerts_of(each, to_us=True, most=1)
            and self.alerts_of(each, to_us=False, most=1)
            for each in self.others
        ) and bool(self.received("alert", 1) and self.received("receipt", 1))

    def sent_to(self, to: Nation, most: int) -> list[tuple[Document, bytes]]:
        """The newest alerts of the hostile nation that were delivered to ``to``."""
        return self._documents(
            " JOIN delivery ON delivery.document_id = document.id WHERE document.sender = ?"
            " AND document.kind = 'alert' AND delivery.recipient = ? AND delivery.delivered_at IS NOT NULL",
            (self.nation, to),
            most,
        )

    def received(self, kind: str, most: int) -> list[tuple[Document, bytes]]:
        """The newest documents of a kind that came to it from others."""
        return self._documents(" WHERE sender != ? AND kind = ?", (self.nation, kind), most)

    def alerts_of(self, sender: Nation, *, to_us: bool, most: int) -> list[tuple[str, str]]:
        """Id and digest of alerts that ``sender`` sent to the hostile nation, or, as an ally may have told, not to it."""
        rows = self.field.federation.ask(
            sender,
            "SELECT document.id, document.digest FROM document JOIN alert ON alert.sender = document.sender"
            " AND alert.id = document.id WHERE document.sender = ? AND alert.state != 'failed'"
            f" AND instr(',' || alert.recipients || ',', ?) {'>' if to_us else '='} 0"
            " ORDER BY document.recorded_at DESC LIMIT ?",
            sender,
            f",{self.nation},",
            most,
        )
        return [(each[0], each[1]) for each in rows]

    def _documents(
        self, which: str, values: tuple[str, ...], most: int
    ) -> list[tuple[Document, bytes]]:
        rows = self.field.federation.ask(
            self.nation,
            f"SELECT document.raw FROM document{which} ORDER BY document.recorded_at DESC LIMIT ?",
            *values,
            most,
        )
        return [(parse_document(parse_signed(bytes(raw)).payload), bytes(raw)) for (raw,) in rows]

    def put_out(self, messages: Iterable[Message]) -> None:
        """Into the OUTBOX of the own broker, in this order, each under an identifier of its own."""
        inbound = [
            Inbound(
                outbox_subject(each.to, each.lane),
                each.raw,
                self.chance.randbytes(12).hex(),
                each.label,
            )
            for each in messages
        ]
        asyncio.run(self._publish(inbound))

    def pulse(self, to: Nation, raws: Iterable[bytes], pause_seconds: float) -> None:
        """Say heartbeats to a peer; the relay there hears five a second at most."""

        async def say() -> None:
            connection = await self._connect()
            for each in raws:
                await connection.send(pulse_out(to), each)
                await asyncio.sleep(pause_seconds)
            await connection.close()

        asyncio.run(say())

    def _roster_text(self) -> bytes:
        query = "SELECT raw FROM roster ORDER BY version DESC LIMIT 1"
        return bytes(self.field.federation.ask(self.nation, query)[0][0])

    async def _connect(self) -> Connection:
        member = self.roster.members[self.nation]
        endpoint = Endpoint(
            url=member.broker,
            server_name=host_of(member.broker),
            ca=member.ca,
            reply_prefix="_INBOX",
            client_name="whoever has the key",
            nkey_seed=self._gateway_nkey,
        )
        connection = Connection(endpoint, lambda _: None)
        await connection.open()
        return connection

    async def _publish(self, messages: list[Inbound]) -> None:
        connection = await self._connect()
        try:
            for begin in range(0, len(messages), _AT_ONCE):
                answers = await connection.publish_many(messages[begin : begin + _AT_ONCE])
                failed: list[LinkError] = [each for each in answers if each is not None]
                # A full OUTBOX is the hostile nation's own trouble.
                assert all(isinstance(each, StreamFull) for each in failed), failed
        finally:
            await connection.close()
