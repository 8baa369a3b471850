"""The outside of a sealed document: flattened JWE JSON for one recipient, as relays and brokers see it.

Protocol section 7 (RFC 7516 section 7.2.2, draft-ietf-jose-hpke-encrypt key encryption). This module reads and
writes the form; ``sealing`` closes and opens it. A relay sees from, to, id, lane, expiry, sequence and size.
"""

from dataclasses import dataclass
from typing import Final

from varde.document import PROFILE, check_profile
from varde.encoding import (
    MAX_SECONDS,
    Json,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
)
from varde.errors import Malformed, Reason
from varde.identifiers import (
    DocumentId,
    FederationId,
    Lane,
    Nation,
    parse_document_id,
    parse_federation_id,
    parse_lane,
    parse_nation,
)

MAX_ENVELOPE_BYTES: Final = 768 * 1024
PADDING_STEP_BYTES: Final = 512
ENCAPSULATED_BYTES: Final = 1120
WRAPPED_KEY_BYTES: Final = 48
IV_BYTES: Final = 12
TAG_BYTES: Final = 16

_MAX_HEADER_BYTES: Final = 2048
_MEMBERS: Final = frozenset({"protected", "header", "encrypted_key", "iv", "ciphertext", "tag"})
# What stands between the quotes is base64url: nothing needs to be escaped.
_FORM: Final = (
    '{{"protected":"{}","header":{{"ek":"{}"}},"encrypted_key":"{}","iv":"{}",'
    '"ciphertext":"{}","tag":"{}"}}'
)
_PROFILE: Final = {"alg": "HPKE-9-KE", "enc": "A256GCM", "typ": "varde-envelope+json"}
_HEADER_MEMBERS: Final = frozenset(
    {*_PROFILE, "v", "fed", "from", "to", "id", "lane", "exp", "seq", "kid"}
)


@dataclass(frozen=True, slots=True)
class EnvelopeHeader:
    """What the outside says; ``expires_at`` in Unix seconds, ``sequence`` counts from 1 per recipient, 0 is unnumbered."""

    federation: FederationId
    sender: Nation
    to: Nation
    id: DocumentId
    lane: Lane
    expires_at: int
    sequence: int
    kid: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope; ``protected`` is the base64url text that the ciphertext authenticates."""

    header: EnvelopeHeader
    protected: str
    encapsulated: bytes
    wrapped_key: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes


def format_protected(header: EnvelopeHeader) -> str:
    """The protected header, base64url."""
    return encode_base64url(
        format_json(
            {
                **_PROFILE,
                "v": PROFILE,
                "fed": header.federation,
                "from": header.sender,
                "to": header.to,
                "id": header.id,
                "lane": header.lane.value,
                "exp": header.expires_at,
                "seq": header.sequence,
                "kid": header.kid,
            }
        )
    )


def format_envelope(envelope: Envelope) -> bytes:
    """The bytes that travel."""
    return _FORM.format(
        envelope.protected,
        encode_base64url(envelope.encapsulated),
        encode_base64url(envelope.wrapped_key),
        encode_base64url(envelope.iv),
        encode_base64url(envelope.ciphertext),
        encode_base64url(envelope.tag),
    ).encode()


def parse_envelope(raw: bytes) -> Envelope:
    """``Malformed`` with ``OVERSIZE``, ``MALFORMED`` or ``WRONG_PROFILE`` unless ``raw`` has the one form.

    (1) size and strict JSON with exactly the members; (2) the protected header: the profile's constants first, then
    each member; (3) the fixed lengths of encapsulated key, wrapped key, IV and tag, and a padded ciphertext; (4) no
    byte more than needed, members in their order.
    """
    value = exact_members(parse_json(raw, limit=MAX_ENVELOPE_BYTES), _MEMBERS, "envelope")  # (1)
    header = _parse_protected(value["protected"])  # (2)
    ciphertext = decode_base64url(value["ciphertext"])  # (3)
    if not ciphertext or len(ciphertext) % PADDING_STEP_BYTES:
        raise Malformed(f"the ciphertext is not padded to {PADDING_STEP_BYTES} bytes")
    unprotected = exact_members(value["header"], frozenset({"ek"}), "unprotected header")
    envelope = Envelope(
        header=header,
        protected=str(value["protected"]),
        encapsulated=decode_base64url(unprotected["ek"], length=ENCAPSULATED_BYTES),
        wrapped_key=decode_base64url(value["encrypted_key"], length=WRAPPED_KEY_BYTES),
        iv=decode_base64url(value["iv"], length=IV_BYTES),
        ciphertext=ciphertext,
        tag=decode_base64url(value["tag"], length=TAG_BYTES),
    )
    texts = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    protected, key, iv, text, tag = (value[each] for each in texts)
    if _FORM.format(protected, unprotected["ek"], key, iv, text, tag).encode() != raw:  # (4)
        raise Malformed("the envelope is not in its one form")
    return envelope


def _parse_protected(value: Json) -> EnvelopeHeader:
    header = parse_json(decode_base64url(value), limit=_MAX_HEADER_BYTES)
    for member, constant in _PROFILE.items():
        if header.get(member) != constant:
            raise Malformed(f"{member} is not {constant}", Reason.WRONG_PROFILE)
    exact_members(header, _HEADER_MEMBERS, "protected header")
    check_profile(header["v"])
    decode_base64url(header["kid"], length=32)
    return EnvelopeHeader(
        federation=parse_federation_id(header["fed"]),
        sender=parse_nation(header["from"]),
        to=parse_nation(header["to"]),
        id=parse_document_id(header["id"]),
        lane=parse_lane(header["lane"]),
        expires_at=require_integer(header["exp"], "exp", most=MAX_SECONDS),
        sequence=require_integer(header["seq"], "seq"),
        kid=str(header["kid"]),
    )
