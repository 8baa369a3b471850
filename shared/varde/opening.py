"""What a recipient checks, in order, before anything of a document is believed: cheap first, each refusal named.

Protocol section 9. What is left to the caller is the replay check and the one transaction that records document,
audit leaf and receipt; and the kind's own body, which its module parses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from varde.admission import (
    UNSEALED_KINDS,
    check_federation,
    check_roster,
    check_sender,
    is_sealed,
    verify_by_sender,
)
from varde.document import Document, check_not_expired, check_time, parse_document
from varde.encoding import sha256_base64url
from varde.envelope import MAX_ENVELOPE_BYTES, Envelope, EnvelopeHeader, parse_envelope
from varde.errors import Malformed, Reason, Refused, Untrusted, VardeError
from varde.identifiers import Nation
from varde.keys import PrekeyPrivate
from varde.roster import Trust
from varde.sealing import unseal
from varde.signing import Kind, Signed, claimed_kind, parse_signed

SEALED_KINDS: Final = frozenset({Kind.ALERT, Kind.MESSAGE, Kind.ACKNOWLEDGEMENT, Kind.ROSTER})
"""A roster document is sealed where it tells a suspension, and unsealed where it proposes: its reader checks which."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A document that verifies; ``raw`` is the signed bytes to keep, ``digest`` their base64url SHA-256."""

    kind: Kind
    document: Document
    raw: bytes
    digest: str
    header: EnvelopeHeader | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why not; ``header`` is what the outside claimed, where it could be read."""

    reason: Reason
    detail: str
    header: EnvelopeHeader | None


Opening: TypeAlias = Opened | Rejection


def open_document(
    raw: bytes, *, me: Nation, trust: Trust, prekeys: Mapping[str, PrekeyPrivate], now: int
) -> Opening:
    """Open what came from the INBOX; ``now`` in Unix seconds.

    (1) size; (2) strict JSON and the profile's constants; (3) our federation; (4) the sender is another member, not
    suspended; (5) it is for us; (6) it has not expired; (7) we hold the private half of its prekey; (8) the content
    key unwraps; (9) the content decrypts; (10) the kind may travel so, and both signatures are the sender's; (11)
    the payload has exactly its members; (12) inner and outer agree; (13) time; (14) roster version, and that its
    keys signed.
    """
    header: EnvelopeHeader | None = None
    try:
        if len(raw) > MAX_ENVELOPE_BYTES:  # (1)
            raise Malformed(f"{len(raw)} bytes", Reason.OVERSIZE)
        if not is_sealed(raw):
            return _open_unsealed(raw, me=me, trust=trust, now=now)
        envelope = parse_envelope(raw)  # (2)
        header = envelope.header
        return _open_sealed(envelope, me=me, trust=trust, prekeys=prekeys, now=now)
    except VardeError as error:
        return Rejection(error.reason, error.detail, header)


def _open_sealed(
    envelope: Envelope,
    *,
    me: Nation,
    trust: Trust,
    prekeys: Mapping[str, PrekeyPrivate],
    now: int,
) -> Opened:
    header = envelope.header
    check_federation(header.federation, trust)  # (3)
    check_sender(header.sender, me, trust)  # (4)
    if header.to != me:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the envelope is for {header.to}")
    check_not_expired(header.expires_at, now)  # (6)
    prekey = prekeys.get(header.kid)
    if prekey is None:  # (7)
        raise Refused(Reason.NO_PREKEY, "the prekey is not ours, or is deleted")
    raw = unseal(envelope, prekey).rstrip(b" ")  # (8) (9)
    signed = parse_signed(raw)
    kind = _kind_travelling(signed, SEALED_KINDS)  # (10)
    verify_by_sender(signed, kind, header.sender, trust)
    document = parse_document(signed.payload)  # (11)
    _check_inner_is_outer(document, header)  # (12)
    check_time(document, now)  # (13)
    check_roster(signed, kind, document, trust, now)  # (14)
    return Opened(kind, document, raw, sha256_base64url(raw), header)


def _open_unsealed(raw: bytes, *, me: Nation, trust: Trust, now: int) -> Opened:
    signed = parse_signed(raw)  # (2)
    document = parse_document(signed.payload)  # (11)
    check_federation(document.federation, trust)  # (3)
    check_sender(document.sender, me, trust)  # (4)
    if me not in document.to:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the document is for {', '.join(document.to)}")
    check_not_expired(document.expires_at, now)  # (6)
    kind = _kind_travelling(signed, UNSEALED_KINDS)  # (10)
    verify_by_sender(signed, kind, document.sender, trust)
    check_time(document, now)  # (13)
    check_roster(signed, kind, document, trust, now)  # (14)
    return Opened(kind, document, raw, sha256_base64url(raw), None)


def _kind_travelling(signed: Signed, allowed: frozenset[Kind]) -> Kind:
    kind = claimed_kind(signed)
    if kind not in allowed:
        raise Refused(Reason.WRONG_KIND, f"{kind.value} documents may not travel this way")
    return kind


def _check_inner_is_outer(document: Document, header: EnvelopeHeader) -> None:
    # Against surreptitious forwarding: the signed payload names sender and every recipient.
    inner = (document.federation, document.id, document.sender, document.expires_at)
    outer = (header.federation, header.id, header.sender, header.expires_at)
    if inner != outer or header.to not in document.to:
        raise Untrusted(
            Reason.INNER_OUTER_MISMATCH, "the envelope and the document inside do not agree"
        )
