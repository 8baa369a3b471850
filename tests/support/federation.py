"""A small federation in memory: members with fixed keys, a founding roster that all voted for, prekeys, documents.

Everything comes from fixed seeds, so that two runs use the same keys. Nothing here does I/O.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from varde.checkpoint import LogSigner
from varde.document import Document, format_document
from varde.encoding import JsonObject, sha256_base64url
from varde.envelope import EnvelopeHeader
from varde.identifiers import DocumentId, FederationId, Lane, Nation, document_id, parse_nation
from varde.keys import PrekeyPrivate, SigningKeys
from varde.member import Member, Standing
from varde.opening import Opening, open_document
from varde.prekeys import DatedPrekey
from varde.roster import (
    Roster,
    Trust,
    accept_genesis,
    format_roster_payload,
    format_voted_roster,
    parse_voted_roster,
    sign_vote,
)
from varde.sealing import seal
from varde.signing import Kind, sign

NOW = 1_780_000_000
DAY = 24 * 3600
EE, FI, LV, LT, NO, PL, UA = (
    parse_nation(each) for each in ("EE", "FI", "LV", "LT", "NO", "PL", "UA")
)


def seed(label: str) -> bytes:
    """32 bytes that are always the same for a label."""
    return hashlib.sha256(f"varde test seed: {label}".encode()).digest()


def signing_keys(label: str) -> SigningKeys:
    return SigningKeys(
        ed25519_seed=seed(f"{label} ed25519"), ml_dsa_65_seed=seed(f"{label} ml-dsa-65")
    )


def nkey(public: bytes) -> str:
    """The text of a NATS user's public key: prefix, key and CRC-16 in base32."""
    body = bytes([20 << 3]) + public
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode()


def vkey(name: str, public: bytes, *, kind: int = 1) -> str:
    """The C2SP verifier key of an Ed25519 log; kind 4 is that of a witness."""
    typed = bytes([kind]) + public
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4]
    return f"{name}+{key_id.hex()}+{base64.b64encode(typed).decode()}"


def ed25519_public(label: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed(label)).public_key().public_bytes_raw()


def log_signer(origin: str, label: str) -> LogSigner:
    """The two keys of a log, from two seeds of one label."""
    return LogSigner(
        origin,
        Ed25519PrivateKey.from_private_bytes(seed(label)),
        MLDSA44PrivateKey.from_seed_bytes(seed(f"{label} ml-dsa-44")),
    )


@dataclass(frozen=True)
class Party:
    """One nation's secrets and its seat."""

    nation: Nation
    signing: SigningKeys
    voting: SigningKeys
    prekeys: tuple[PrekeyPrivate, ...]
    member: Member

    def dated_prekeys(self) -> tuple[DatedPrekey, ...]:
        """Yesterday's, which has expired; today's, in whose middle ``NOW`` is; tomorrow's."""
        start = NOW - DAY // 2
        return tuple(
            DatedPrekey(each.prekey, start + day * DAY, start + (day + 1) * DAY)
            for day, each in enumerate(self.prekeys, start=-1)
        )

    @property
    def prekey(self) -> PrekeyPrivate:
        """Today's."""
        return self.prekeys[1]

    def private_prekeys(self) -> Mapping[str, PrekeyPrivate]:
        return {each.prekey.kid: each for each in self.prekeys}


@cache
def party(nation: Nation, generation: int = 1) -> Party:
    """A nation's keys; another ``generation`` has other keys for everything."""
    label = f"{nation} {generation}"
    signing, voting = signing_keys(f"{label} signing"), signing_keys(f"{label} voting")
    member = Member(
        nation=nation,
        standing=Standing.MEMBER,
        name=f"Nation {nation}",
        broker=f"tls://{nation.lower()}.example:4222",
        ca=b"certificate of " + seed(f"{label} ca"),
        relay=nkey(ed25519_public(f"{label} relay")),
        log=log_signer(f"varde.example/{nation.lower()}", f"{label} log").key,
        witness=vkey(
            f"varde.example/{nation.lower()}/witness", ed25519_public(f"{label} witness"), kind=4
        ),
        signing_keys=signing.public,
        voting_keys=voting.public,
    )
    prekeys = tuple(PrekeyPrivate(seed(f"{label} prekey {day}")) for day in range(3))
    return Party(nation, signing, voting, prekeys, member)


def observer(nation: Nation) -> Member:
    """A seat without a vote."""
    return replace(party(nation).member, standing=Standing.OBSERVER, voting_keys=None)


def voted(payload: bytes, voters: Iterable[Party]) -> bytes:
    """A roster with the votes of these, as it travels."""
    return format_voted_roster(
        payload, [sign_vote(payload, each.nation, each.voting) for each in voters]
    )


def successor(roster: Roster, members: Iterable[Member], **changes: Any) -> bytes:
    """The payload of the version after ``roster`` with these members."""
    values: dict[str, Any] = {
        "federation": roster.federation,
        "version": roster.version + 1,
        "previous": roster.hash,
        "issued_at": roster.issued_at + DAY,
        "expires_at": roster.issued_at + 31 * DAY,
        "members": members,
    }
    return format_roster_payload(**(values | changes))


@dataclass(frozen=True)
class Federation:
    """Members, and the first roster that all of them voted for."""

    parties: Mapping[Nation, Party]
    founding: bytes
    roster: Roster

    @property
    def id(self) -> FederationId:
        return self.roster.federation

    @property
    def trust(self) -> Trust:
        return Trust(self.roster)

    def members(self) -> list[Member]:
        return list(self.roster.members.values())

    def document(
        self, sender: Nation = EE, to: Iterable[Nation] = (FI, LV), **changes: Any
    ) -> Document:
        """A document of ``sender``, issued now, that lives an hour."""
        document = Document(
            federation=self.id,
            id=a_document_id(1),
            sender=sender,
            to=tuple(to),
            issued_at=NOW,
            expires_at=NOW + 3600,
            roster=self.roster.reference,
            body={"text": "the ice is out"},
        )
        return replace(document, **changes)

    def sign(self, document: Document, kind: Kind = Kind.ALERT) -> bytes:
        """Signed by the sender that the document names."""
        return sign(format_document(document), kind, self.parties[document.sender].signing)

    def header(self, document: Document, to: Nation = FI, **changes: Any) -> EnvelopeHeader:
        """What the outside of an honest envelope says."""
        header = EnvelopeHeader(
            federation=document.federation,
            sender=document.sender,
            to=to,
            id=document.id,
            lane=Lane.URGENT,
            expires_at=document.expires_at,
            sequence=1,
            kid=self.parties[to].prekey.prekey.kid,
        )
        return replace(header, **changes)

    def seal(
        self,
        signed: bytes,
        document: Document,
        to: Nation = FI,
        *,
        label: str = "1",
        **changes: Any,
    ) -> bytes:
        """Sealed for the prekey of ``to`` of today; ``changes`` are members of the outer header."""
        return seal(
            signed,
            self.header(document, to, **changes),
            self.parties[to].prekey.prekey,
            content_key=seed(f"content key {label}"),
            iv=seed(f"iv {label}")[:12],
        )

    def envelope(self, to: Nation = FI, kind: Kind = Kind.ALERT, **changes: Any) -> bytes:
        """A whole honest envelope from EE; ``changes`` are fields of the document."""
        document = self.document(**changes)
        return self.seal(self.sign(document, kind), document, to)

    def open(
        self, raw: bytes, me: Nation = FI, *, trust: Trust | None = None, now: int = NOW
    ) -> Opening:
        """What ``me`` makes of these bytes."""
        return open_document(
            raw,
            me=me,
            trust=trust or self.trust,
            prekeys=self.parties[me].private_prekeys(),
            now=now,
        )


def a_document_id(number: int) -> DocumentId:
    return document_id(NOW * 1000, number.to_bytes(10, "big"))


@cache
def federation(*nations: Nation) -> Federation:
    """The federation of these nations, by default EE, FI and LV."""
    parties = {each: party(each) for each in sorted(nations or (EE, FI, LV))}
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
    return Federation(parties, founding, roster)


def outcome(opening: Opening) -> str:
    """``opened``, or the reason of the rejection."""
    return getattr(opening, "reason", "opened")


def edited(raw: bytes, edit: Callable[[JsonObject], None]) -> bytes:
    """The JSON of ``raw`` after ``edit``, compact again: what somebody on the way could make of it."""
    value = json.loads(raw)
    edit(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
