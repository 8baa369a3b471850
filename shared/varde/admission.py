"""What a relay may decide about a document without opening it: admit it to our INBOX, or refuse it by name.

Protocol section 8.2. A relay holds no message key, so a sealed document is judged by its outside; a document that
travels unsealed (receipt, prekeys, heartbeat, checkpoint, roster, vote) is verified whole.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from varde.document import (
    Document,
    check_not_expired,
    check_time,
    parse_document,
)
from varde.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from varde.errors import Malformed, Reason, Refused, Untrusted, VardeError
from varde.identifiers import DocumentId, FederationId, Lane, Nation
from varde.roster import Trust
from varde.signing import Kind, Signed, claimed_kind, is_headed_by, parse_signed, verify_signed

UNSEALED_KINDS: Final = frozenset(
    {Kind.RECEIPT, Kind.PREKEYS, Kind.HEARTBEAT, Kind.CHECKPOINT, Kind.ROSTER, Kind.VOTE}
)
"""These hold no content that a relay may not see, and must flow where no prekey is live."""

_SEALED_START: Final = b'{"protected":'


@dataclass(frozen=True, slots=True)
class Admit:
    """The document may enter our INBOX, on this lane, as from this sender."""

    sender: Nation
    lane: Lane
    id: DocumentId


@dataclass(frozen=True, slots=True)
class Refuse:
    """The document is dropped; the reason is counted and logged."""

    reason: Reason
    detail: str


Decision: TypeAlias = Admit | Refuse


def is_sealed(raw: bytes) -> bool:
    """Whether these bytes claim to be an envelope; both forms have one fixed first member."""
    return raw.startswith(_SEALED_START)


def admit(raw: bytes, *, lane: Lane, me: Nation, link: Nation, trust: Trust, now: int) -> Decision:
    """Judge what was fetched from the OUTBOX of ``link`` on ``lane``.

    (1) size; (2) strict JSON and the profile's constants; (3) our federation; (4) the sender is on the roster, is not
    ourselves, is not suspended, and is the nation whose OUTBOX it came from; (5) it is for us; (6) the lane is the
    one it travelled on; (7) it has not expired. An unsealed document further: (8) its kind may travel unsealed; (9)
    both signatures; (10) time and roster.
    """
    try:
        if len(raw) > MAX_ENVELOPE_BYTES:  # (1)
            raise Malformed(f"{len(raw)} bytes", Reason.OVERSIZE)
        if is_sealed(raw):
            return _admit_sealed(raw, lane=lane, me=me, link=link, trust=trust, now=now)
        return _admit_unsealed(raw, lane=lane, me=me, link=link, trust=trust, now=now)
    except VardeError as error:
        return Refuse(error.reason, error.detail)


def check_sender(sender: Nation, me: Nation, trust: Trust) -> None:
    """``Untrusted`` or ``Refused`` unless ``sender`` is another member that we have not suspended."""
    if sender == me:
        raise Refused(Reason.OWN_DOCUMENT, "our own document came back to us")
    if sender not in trust.current.members:
        raise Untrusted(Reason.UNKNOWN_SENDER, f"{sender} is not on the roster")
    if sender in trust.suspended:
        raise Refused(Reason.SUSPENDED_SENDER, f"{sender} is suspended by this nation")


def check_federation(federation: FederationId, trust: Trust) -> None:
    """``Untrusted`` unless the document is of our federation."""
    if federation != trust.current.federation:
        raise Untrusted(Reason.WRONG_FEDERATION, "the document is of another federation")


def verify_by_sender(signed: Signed, kind: Kind, sender: Nation, trust: Trust) -> None:
    """Verify both signatures with the key that the sender had when it signed: today's, or an earlier one.

    Whether the earlier one still counts, ``check_roster`` decides from the roster that the document names.
    """
    candidates = trust.signing_keys(sender)
    if not candidates:
        raise Untrusted(Reason.UNKNOWN_SENDER, f"{sender} is not on the roster")
    keys = next((each for each in candidates if is_headed_by(signed, kind, each)), candidates[0])
    verify_signed(signed, kind, keys)


def check_roster(signed: Signed, kind: Kind, document: Document, trust: Trust, now: int) -> None:
    """The roster that the document names is accepted here, and its keys are those that signed the document."""
    member = trust.roster_named(document.roster, now).members.get(document.sender)
    if member is None or not is_headed_by(signed, kind, member.signing_keys):
        raise Untrusted(Reason.BAD_SIGNATURE, "signed with other keys than the named roster gives")


def _admit_sealed(
    raw: bytes, *, lane: Lane, me: Nation, link: Nation, trust: Trust, now: int
) -> Decision:
    header = parse_envelope(raw).header  # (2)
    check_federation(header.federation, trust)  # (3)
    _check_route(header.sender, me, link, trust)  # (4)
    if header.to != me:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the envelope is for {header.to}")
    if header.lane is not lane:  # (6)
        raise Refused(
            Reason.WRONG_LINK, f"{header.lane.value}, but it came on the {lane.value} lane"
        )
    check_not_expired(header.expires_at, now)  # (7)
    return Admit(header.sender, lane, header.id)


def _admit_unsealed(
    raw: bytes, *, lane: Lane, me: Nation, link: Nation, trust: Trust, now: int
) -> Decision:
    signed = parse_signed(raw)  # (2)
    document = parse_document(signed.payload)
    check_federation(document.federation, trust)  # (3)
    _check_route(document.sender, me, link, trust)  # (4)
    if me not in document.to:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the document is for {', '.join(document.to)}")
    check_not_expired(document.expires_at, now)  # (7)
    kind = claimed_kind(signed)
    if kind not in UNSEALED_KINDS:  # (8)
        raise Refused(Reason.WRONG_KIND, f"{kind.value} documents may not travel unsealed")
    verify_by_sender(signed, kind, document.sender, trust)  # (9)
    check_time(document, now)  # (10)
    check_roster(signed, kind, document, trust, now)
    return Admit(document.sender, lane, document.id)


def _check_route(sender: Nation, me: Nation, link: Nation, trust: Trust) -> None:
    check_sender(sender, me, trust)
    if sender != link:
        raise Refused(Reason.WRONG_LINK, f"a document of {sender} on the link to {link}")
