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
from varde.transit import Transit, check_transit

UNSEALED_KINDS: Final = frozenset(
    {Kind.RECEIPT, Kind.PREKEYS, Kind.HEARTBEAT, Kind.CHECKPOINT, Kind.ROSTER, Kind.VOTE}
)
"""These hold no content that a relay may not see, and must flow where no prekey is live."""

SELF_PROVING_KINDS: Final = frozenset({Kind.HEARTBEAT, Kind.ROSTER, Kind.VOTE})
"""These are taken from a member whatever roster they name: by them a node learns that one of the two is behind."""

_SEALED_START: Final = b'{"protected":'


@dataclass(frozen=True, slots=True)
class Admit:
    """The document may enter our INBOX, on this lane; ``final`` is whom it is for: we, or one to hand it on to."""

    sender: Nation
    final: Nation
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


def admit(
    raw: bytes,
    *,
    lane: Lane,
    me: Nation,
    link: Nation,
    trust: Trust,
    now: int,
    transit: Transit | None = None,
) -> Decision:
    """Judge what was fetched from the OUTBOX of ``link`` on ``lane``; ``transit`` is its label, if it has one.

    (1) size; (2) strict JSON and the profile's constants; (3) our federation; (4) the sender is on the roster, is not
    ourselves, is not suspended, and the document came from its OUTBOX or on a way that the label allows; (5) it is
    for us, or for another member to hand it on to, not suspended; (6) the lane is the one it travelled on; (7) it has
    not expired. An unsealed document further: (8) its kind may travel unsealed; (9) both signatures; (10) time and
    roster.
    """
    route = _Route(me, link, trust, transit)
    try:
        if len(raw) > MAX_ENVELOPE_BYTES:  # (1)
            raise Malformed(f"{len(raw)} bytes", Reason.OVERSIZE)
        if is_sealed(raw):
            return _admit_sealed(raw, lane=lane, route=route, now=now)
        return _admit_unsealed(raw, lane=lane, route=route, now=now)
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
    """The roster that the document names is accepted here, and its keys are those that signed the document.

    A self-proving kind may name a roster that we have not yet, or have no more: then today's keys must have signed it.
    """
    if kind in SELF_PROVING_KINDS and document.roster.version != trust.current.version:
        roster = trust.current
    else:
        roster = trust.roster_named(document.roster, now)
    member = roster.members.get(document.sender)
    if member is None or not is_headed_by(signed, kind, member.signing_keys):
        raise Untrusted(Reason.BAD_SIGNATURE, "signed with other keys than the named roster gives")


@dataclass(frozen=True, slots=True)
class _Route:
    me: Nation
    link: Nation
    trust: Trust
    transit: Transit | None

    @property
    def final(self) -> Nation:
        return self.me if self.transit is None else self.transit.final

    def check(self, sender: Nation) -> None:
        check_sender(sender, self.me, self.trust)
        if self.transit is not None:
            check_transit(
                self.transit,
                sender=sender,
                me=self.me,
                link=self.link,
                members=self.trust.current.members.keys(),
            )
            if self.final in self.trust.suspended:
                raise Refused(Reason.BAD_ROUTE, f"{self.final} is suspended by this nation")
        elif sender != self.link:
            raise Refused(Reason.WRONG_LINK, f"a document of {sender} on the link to {self.link}")


def _admit_sealed(raw: bytes, *, lane: Lane, route: _Route, now: int) -> Decision:
    header = parse_envelope(raw).header  # (2)
    check_federation(header.federation, route.trust)  # (3)
    route.check(header.sender)  # (4)
    if header.to != route.final:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the envelope is for {header.to}")
    if header.lane is not lane:  # (6)
        raise Refused(
            Reason.WRONG_LINK, f"{header.lane.value}, but it came on the {lane.value} lane"
        )
    check_not_expired(header.expires_at, now)  # (7)
    return Admit(header.sender, route.final, lane, header.id)


def _admit_unsealed(raw: bytes, *, lane: Lane, route: _Route, now: int) -> Decision:
    trust = route.trust
    signed = parse_signed(raw)  # (2)
    document = parse_document(signed.payload)
    check_federation(document.federation, trust)  # (3)
    route.check(document.sender)  # (4)
    if route.final not in document.to:  # (5)
        raise Refused(Reason.NOT_FOR_US, f"the document is for {', '.join(document.to)}")
    check_not_expired(document.expires_at, now)  # (7)
    kind = claimed_kind(signed)
    if kind not in UNSEALED_KINDS:  # (8)
        raise Refused(Reason.WRONG_KIND, f"{kind.value} documents may not travel unsealed")
    verify_by_sender(signed, kind, document.sender, trust)  # (9)
    check_time(document, now)  # (10)
    check_roster(signed, kind, document, trust, now)
    return Admit(document.sender, route.final, lane, document.id)
