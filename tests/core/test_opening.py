"""Opening: what comes out of it, and that the checks stand in the order of the protocol."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LV, NOW, PL, federation, outcome, party, successor, voted
from varde.admission import UNSEALED_KINDS
from varde.document import format_document
from varde.encoding import sha256_base64url
from varde.envelope import MAX_ENVELOPE_BYTES
from varde.errors import Reason
from varde.identifiers import FederationId, Lane
from varde.keys import PrekeyPrivate
from varde.opening import SEALED_KINDS, Opened, Rejection, open_document
from varde.roster import GRACE_SECONDS, Trust, accept_next, parse_voted_roster
from varde.signing import Kind, sign

STATES = federation()
DOCUMENT = STATES.document()


def opened_with(raw: bytes, prekeys: dict[str, PrekeyPrivate]) -> Opened | Rejection:
    return open_document(raw, me=FI, trust=STATES.trust, prekeys=prekeys, now=NOW)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b'{"protected":' + tail))
def test_any_bytes_are_rejected_by_name(raw: bytes) -> None:
    opening = STATES.open(raw)
    assert isinstance(opening, Rejection)
    assert opening.reason is Reason.MALFORMED
    assert opening.header is None
    assert opening.detail


@pytest.mark.parametrize("kind", sorted(SEALED_KINDS))
def test_a_sealed_document_opens_as_its_kind(kind: Kind) -> None:
    signed = STATES.sign(DOCUMENT, kind)
    opening = STATES.open(STATES.seal(signed, DOCUMENT, lane=Lane.ROUTINE))
    assert opening == Opened(
        kind=kind,
        document=DOCUMENT,
        raw=signed,
        digest=sha256_base64url(signed),
        header=STATES.header(DOCUMENT, lane=Lane.ROUTINE),
    )


@pytest.mark.parametrize("kind", sorted(UNSEALED_KINDS))
def test_an_unsealed_document_opens_as_its_kind(kind: Kind) -> None:
    raw = STATES.sign(DOCUMENT, kind)
    assert STATES.open(raw) == Opened(kind, DOCUMENT, raw, sha256_base64url(raw), None)


def test_every_kind_travels_in_one_of_two_ways_and_a_roster_in_both() -> None:
    assert set(Kind) == SEALED_KINDS | UNSEALED_KINDS
    assert {Kind.ROSTER} == SEALED_KINDS & UNSEALED_KINDS


@pytest.mark.parametrize("kind", sorted(SEALED_KINDS - UNSEALED_KINDS))
def test_what_holds_content_does_not_open_unsealed(kind: Kind) -> None:
    opening = STATES.open(STATES.sign(DOCUMENT, kind))
    assert opening == Rejection(
        Reason.WRONG_KIND, f"{kind.value} documents may not travel this way", None
    )


@pytest.mark.parametrize("kind", sorted(UNSEALED_KINDS - SEALED_KINDS))
def test_what_travels_unsealed_does_not_open_sealed(kind: Kind) -> None:
    opening = STATES.open(STATES.envelope(kind=kind))
    assert isinstance(opening, Rejection)
    assert opening.reason is Reason.WRONG_KIND
    assert opening.header == STATES.header(DOCUMENT)


def test_a_document_opens_with_any_of_our_prekeys() -> None:
    prekeys = dict(STATES.parties[FI].private_prekeys())
    raw = STATES.envelope()
    assert isinstance(opened_with(raw, prekeys), Opened)
    only = {STATES.parties[FI].prekey.prekey.kid: STATES.parties[FI].prekey}
    assert isinstance(opened_with(raw, only), Opened)
    assert outcome(opened_with(raw, {})) is Reason.NO_PREKEY
    wrong = {STATES.parties[FI].prekey.prekey.kid: party(LV).prekey}
    assert outcome(opened_with(raw, wrong)) is Reason.BAD_WRAP


@pytest.mark.parametrize("tail", [b"\n", b"\t", b"\r\n", b" \n", b"\x00"])
def test_nothing_but_spaces_pads_a_document(tail: bytes) -> None:
    signed = STATES.sign(DOCUMENT)
    assert outcome(STATES.open(STATES.seal(signed + b"   ", DOCUMENT))) == "opened"
    assert outcome(STATES.open(STATES.seal(signed + tail, DOCUMENT))) is Reason.MALFORMED


def test_our_own_unsealed_document_is_rejected() -> None:
    raw = STATES.sign(STATES.document(sender=FI), Kind.RECEIPT)
    assert outcome(STATES.open(raw)) is Reason.OWN_DOCUMENT


@pytest.mark.parametrize("kind", [Kind.ALERT, Kind.RECEIPT])
def test_a_document_under_an_earlier_roster_opens_for_seven_days(kind: Kind) -> None:
    payload = successor(STATES.roster, STATES.members())
    second = accept_next(
        STATES.roster, parse_voted_roster(voted(payload, STATES.parties.values())), NOW
    )
    last = second.issued_at + GRACE_SECONDS
    document = STATES.document(issued_at=last, expires_at=last + 60)
    signed = STATES.sign(document, kind)
    raw = STATES.seal(signed, document) if kind is Kind.ALERT else signed
    trust = Trust(second, {1: STATES.roster})
    assert outcome(STATES.open(raw, trust=trust, now=last)) == "opened"
    assert outcome(STATES.open(raw, trust=trust, now=last + 1)) is Reason.OLD_ROSTER


def test_an_oversize_document_is_rejected_before_it_is_read() -> None:
    exact = b'{"protected":' + b" " * (MAX_ENVELOPE_BYTES - 13)
    assert outcome(STATES.open(exact)) is Reason.MALFORMED
    too_large = STATES.open(exact + b" ")
    assert too_large == Rejection(Reason.OVERSIZE, f"{MAX_ENVELOPE_BYTES + 1} bytes", None)


def test_a_rejection_carries_what_the_outside_claimed() -> None:
    opening = STATES.open(STATES.envelope(), now=NOW + 5000)
    assert isinstance(opening, Rejection)
    assert opening.header == STATES.header(DOCUMENT)


def test_the_outside_is_judged_in_order() -> None:
    """An envelope with everything wrong; each mend shows the next reason."""
    signed = STATES.sign(DOCUMENT)
    wrong: dict[str, object] = {
        "federation": FederationId("A" * 43),
        "sender": PL,
        "expires_at": NOW - 400,
    }
    reasons = []
    for mended in ("", "federation", "sender", "me", "expires_at"):
        wrong.pop(mended, None)
        me = LV if mended in {"", "federation", "sender"} else FI
        raw = STATES.seal(signed, DOCUMENT, **wrong)
        reasons.append(outcome(STATES.open(raw, me=me)))
    assert reasons == [
        Reason.WRONG_FEDERATION,
        Reason.UNKNOWN_SENDER,
        Reason.NOT_FOR_US,
        Reason.EXPIRED,
        "opened",
    ]


def test_the_inside_is_judged_in_order() -> None:
    """Signed by others, for others, from the future, under another roster: each mend shows the next reason."""
    wrong: dict[str, object] = {
        "to": (LV,),
        "issued_at": NOW + 4000,
        "expires_at": NOW + 8000,
        "roster": replace(DOCUMENT.roster, hash="A" * 43),
    }
    signers = [party(LV), *[party(EE)] * 4]
    reasons = []
    for mended, signer in zip(("", "", "to", "issued_at", "roster"), signers, strict=True):
        wrong.pop(mended, None)
        document = STATES.document(**{"expires_at": NOW + 8000} | wrong)
        signed = sign(format_document(document), Kind.ALERT, signer.signing)
        reasons.append(outcome(STATES.open(STATES.seal(signed, document))))
    assert reasons == [
        Reason.BAD_SIGNATURE,
        Reason.INNER_OUTER_MISMATCH,
        Reason.FROM_THE_FUTURE,
        Reason.FORKED_ROSTER,
        "opened",
    ]


def test_an_unsealed_document_is_judged_in_order() -> None:
    wrong: dict[str, object] = {
        "federation": FederationId("A" * 43),
        "sender": PL,
        "to": (LV,),
        "expires_at": NOW - 400,
        "kind": Kind.ALERT,
        "keys": party(LV),
        "issued_at": NOW + 400,
        "roster": replace(DOCUMENT.roster, version=2),
    }
    reasons = []
    for mended in ("", *wrong):
        wrong.pop(mended, None)
        fields = {name: each for name, each in wrong.items() if name not in {"kind", "keys"}}
        keys = wrong.get("keys", party(EE))
        raw = sign(
            format_document(STATES.document(**fields)),
            wrong.get("kind", Kind.RECEIPT),
            keys.signing,
        )
        reasons.append(outcome(STATES.open(raw)))
    assert reasons == [
        Reason.WRONG_FEDERATION,
        Reason.UNKNOWN_SENDER,
        Reason.NOT_FOR_US,
        Reason.EXPIRED,
        Reason.WRONG_KIND,
        Reason.BAD_SIGNATURE,
        Reason.FROM_THE_FUTURE,
        Reason.NEWER_ROSTER,
        "opened",
    ]
