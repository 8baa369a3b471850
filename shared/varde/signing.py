"""Signed bytes: General JWS JSON with exactly two signatures, Ed25519 and ML-DSA-65, both required.

Protocol section 5 (RFC 7515 section 7.2.1, RFC 9864, RFC 9964). The payload is signed as it travels and never
re-serialised. Both protected headers name the set, so that neither signature can be stripped; each header has one
allowed form, so that a verifier compares bytes. What the payload means is not known here.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from varde.encoding import (
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_string,
)
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import Nation
from varde.keys import (
    ED25519,
    ED25519_SIGNATURE_BYTES,
    ML_DSA_65,
    ML_DSA_65_SIGNATURE_BYTES,
    SigningKeys,
    VerifyKeys,
)

MAX_PAYLOAD_BYTES: Final = 256 * 1024
MAX_ROSTER_PAYLOAD_BYTES: Final = 560 * 1024
"""A proposal holds a whole roster, of 64 seats some 530 KiB; no other kind may be so large."""

# base64url of the largest payload, and room for two headers and two signatures.
MAX_SIGNED_BYTES: Final = MAX_PAYLOAD_BYTES * 4 // 3 + 12 * 1024
MAX_SIGNED_ROSTER_BYTES: Final = MAX_ROSTER_PAYLOAD_BYTES * 4 // 3 + 12 * 1024
_MAX_HEADER_CHARACTERS: Final = 1024
_SIGNATURES: Final = 2


class Kind(StrEnum):
    """What a signed document is; the ``typ`` of its headers is ``varde-<kind>+json``."""

    ALERT = "alert"
    MESSAGE = "message"
    RECEIPT = "receipt"
    ACKNOWLEDGEMENT = "acknowledgement"
    HEARTBEAT = "heartbeat"
    PREKEYS = "prekeys"
    CHECKPOINT = "checkpoint"
    ROSTER = "roster"
    VOTE = "vote"


@dataclass(frozen=True, slots=True)
class Signature:
    """One of the two: its protected header as it travels, and the signature's bytes."""

    protected: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignaturePair:
    """Both, in their fixed order."""

    ed25519: Signature
    ml_dsa_65: Signature


@dataclass(frozen=True, slots=True)
class Signed:
    """Well-formed signed bytes whose signatures nobody has verified yet."""

    encoded_payload: str
    payload: bytes
    signatures: SignaturePair


def sign(payload: bytes, kind: Kind, keys: SigningKeys) -> bytes:
    """The whole signed document, as it travels and is stored."""
    _check_size(payload, _typ(kind))
    encoded = encode_base64url(payload)
    return _format(encoded, _sign_pair(encoded, kind, keys, member=None))


def signatures_over(
    encoded_payload: str, kind: Kind, keys: SigningKeys, *, member: Nation | None
) -> list[Json]:
    """The two signature objects over a base64url payload; ``member`` is named in a vote's headers only."""
    return format_signatures(_sign_pair(encoded_payload, kind, keys, member=member))


def format_signatures(pair: SignaturePair) -> list[Json]:
    """The two signature objects in their fixed order."""
    return [
        {"protected": each.protected, "signature": encode_base64url(each.signature)}
        for each in (pair.ed25519, pair.ml_dsa_65)
    ]


def parse_signed(raw: bytes) -> Signed:
    """``Malformed`` unless ``raw`` is the one form of these signatures over this payload.

    (1) size, strict JSON, exact members; (2) two signatures of the right lengths; (3) the payload's size, by the kind
    that the headers claim; (4) no byte more than needed, members in their order: whoever carries a document cannot make
    another digest of it.
    """
    value = exact_members(
        parse_json(raw, limit=MAX_SIGNED_ROSTER_BYTES),
        frozenset({"payload", "signatures"}),
        "document",
    )  # (1)
    payload = decode_base64url(value["payload"])
    signed = Signed(str(value["payload"]), payload, parse_signatures(value["signatures"]))  # (2)
    if len(payload) > MAX_PAYLOAD_BYTES:  # (3)
        _check_size(payload, _claimed_type(signed.signatures.ed25519))
    if _format(signed.encoded_payload, signed.signatures) != raw:  # (4)
        raise Malformed("the document is not in its one form")
    return signed


def parse_signatures(value: Json) -> SignaturePair:
    """Exactly two signature objects in the fixed order Ed25519, ML-DSA-65."""
    if not isinstance(value, list) or len(value) != _SIGNATURES:
        raise Malformed("there are not exactly two signatures", Reason.BAD_SIGNATURE)
    ed25519, ml_dsa_65 = value
    return SignaturePair(
        _parse_signature(ed25519, ED25519_SIGNATURE_BYTES),
        _parse_signature(ml_dsa_65, ML_DSA_65_SIGNATURE_BYTES),
    )


def verify_signed(signed: Signed, kind: Kind, keys: VerifyKeys) -> None:
    """``Untrusted`` unless both signatures of a document of this ``kind`` are by ``keys``."""
    verify_signatures(signed.encoded_payload, signed.signatures, kind, keys, member=None)


def verify_signatures(
    encoded_payload: str,
    signatures: SignaturePair,
    kind: Kind,
    keys: VerifyKeys,
    *,
    member: Nation | None,
) -> None:
    """Verify both halves.

    (1) the headers are those that ``keys`` make for ``kind`` and ``member``: a document of another kind is
    ``WRONG_KIND``, anything else ``BAD_SIGNATURE``; (2) the Ed25519 signature; (3) the ML-DSA-65 signature.
    """
    ed25519, ml_dsa_65 = signatures.ed25519, signatures.ml_dsa_65
    if (ed25519.protected, ml_dsa_65.protected) != _headers(kind, keys, member):  # (1)
        if _claimed_type(ed25519) != _typ(kind):
            raise Untrusted(Reason.WRONG_KIND, f"not signed as {kind.value}")
        raise Untrusted(
            Reason.BAD_SIGNATURE,
            "the signature headers do not name the sender's keys and both algorithms",
        )
    keys.verify_ed25519(ed25519.signature, f"{ed25519.protected}.{encoded_payload}".encode())  # (2)
    keys.verify_ml_dsa_65(
        ml_dsa_65.signature, f"{ml_dsa_65.protected}.{encoded_payload}".encode()
    )  # (3)


def is_headed_by(signed: Signed, kind: Kind, keys: VerifyKeys) -> bool:
    """Whether both headers are those that ``keys`` make for ``kind``; no signature is verified by it."""
    signatures = signed.signatures
    claimed = (signatures.ed25519.protected, signatures.ml_dsa_65.protected)
    return claimed == _headers(kind, keys, None)


def claimed_kind(signed: Signed) -> Kind:
    """The kind that the first header claims; nothing is verified by it."""
    typ = _claimed_type(signed.signatures.ed25519)
    for kind in Kind:
        if typ == _typ(kind):
            return kind
    raise Malformed("the type of the document is unknown", Reason.WRONG_KIND)


def claimed_key(signatures: SignaturePair) -> str:
    """The identifier of the Ed25519 key that the first header claims; nothing is verified by it."""
    header = parse_json(
        decode_base64url(signatures.ed25519.protected), limit=_MAX_HEADER_CHARACTERS
    )
    kid = header.get("kid")
    decode_base64url(kid, length=32)
    return str(kid)


def _check_size(payload: bytes, typ: Json) -> None:
    most = MAX_ROSTER_PAYLOAD_BYTES if typ == _typ(Kind.ROSTER) else MAX_PAYLOAD_BYTES
    if len(payload) > most:
        raise Malformed(f"a document of {len(payload)} bytes is too large", Reason.OVERSIZE)


def _sign_pair(
    encoded_payload: str, kind: Kind, keys: SigningKeys, *, member: Nation | None
) -> SignaturePair:
    ed25519, ml_dsa_65 = _headers(kind, keys.public, member)
    return SignaturePair(
        Signature(ed25519, keys.sign_ed25519(f"{ed25519}.{encoded_payload}".encode())),
        Signature(ml_dsa_65, keys.sign_ml_dsa_65(f"{ml_dsa_65}.{encoded_payload}".encode())),
    )


def _format(encoded_payload: str, pair: SignaturePair) -> bytes:
    # What stands between the quotes is base64url: nothing needs to be escaped.
    signatures = ",".join(
        f'{{"protected":"{each.protected}","signature":"{encode_base64url(each.signature)}"}}'
        for each in (pair.ed25519, pair.ml_dsa_65)
    )
    return f'{{"payload":"{encoded_payload}","signatures":[{signatures}]}}'.encode()


def _parse_signature(value: Json, length: int) -> Signature:
    members = exact_members(value, frozenset({"protected", "signature"}), "signature")
    protected = require_string(
        members["protected"], "protected header", most=_MAX_HEADER_CHARACTERS
    )
    return Signature(protected, decode_base64url(members["signature"], length=length))


def _headers(kind: Kind, keys: VerifyKeys, member: Nation | None) -> tuple[str, str]:
    return (
        _header(ED25519, keys.ed25519_kid, kind, member),
        _header(ML_DSA_65, keys.ml_dsa_65_kid, kind, member),
    )


@lru_cache(maxsize=1024)
def _header(algorithm: str, kid: str, kind: Kind, member: Nation | None) -> str:
    header: JsonObject = {
        "alg": algorithm,
        "kid": kid,
        "sset": [ED25519, ML_DSA_65],
        "typ": _typ(kind),
    }
    if member is not None:
        header["member"] = member
    return encode_base64url(format_json(header))


def _typ(kind: Kind) -> str:
    return f"varde-{kind.value}+json"


def _claimed_type(signature: Signature) -> Json:
    header = parse_json(decode_base64url(signature.protected), limit=_MAX_HEADER_CHARACTERS)
    return header.get("typ")
