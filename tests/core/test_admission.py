"""What a relay decides without opening: each check has its reason, and they stand in their order."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import (
    DAY,
    EE,
    FI,
    LV,
    NOW,
    PL,
    federation,
    party,
    successor,
    voted,
)
from varde.admission import (
    SELF_PROVING_KINDS,
    UNSEALED_KINDS,
    Admit,
    Refuse,
    admit,
    check_federation,
    check_roster,
    check_sender,
    is_sealed,
    verify_by_sender,
)
from varde.document import RosterReference, format_document
from varde.encoding import decode_base64url, encode_base64url, format_json
from varde.envelope import MAX_ENVELOPE_BYTES
from varde.errors import Reason, Refused, Untrusted
from varde.identifiers import FederationId, Lane, Nation
from varde.keys import SigningKeys
from varde.roster import Trust, accept_next, parse_voted_roster
from varde.signing import Kind, parse_signed, sign
from varde.transit import Transit

STATES = federation()


def decide(
    raw: bytes,
    *,
    lane: Lane = Lane.URGENT,
    link: Nation = EE,
    trust: Trust = STATES.trust,
    now: int = NOW,
    me: Nation = FI,
    transit: Transit | None = None,
) -> Admit | Refuse:
    return admit(raw, lane=lane, me=me, link=link, trust=trust, now=now, transit=transit)


def reason(decision: Admit | Refuse) -> Reason:
    assert isinstance(decision, Refuse)
    return decision.reason


def unsealed(kind: Kind = Kind.RECEIPT, **changes: object) -> bytes:
    return STATES.sign(STATES.document(**changes), kind)


def sealed(**header: object) -> bytes:
    document = STATES.document()
    return STATES.seal(STATES.sign(document), document, **header)


def test_an_envelope_for_us_is_admitted_on_its_lane() -> None:
    document = STATES.document()
    assert decide(sealed()) == Admit(EE, FI, Lane.URGENT, document.id)
    routine = decide(sealed(lane=Lane.ROUTINE), lane=Lane.ROUTINE)
    assert routine == Admit(EE, FI, Lane.ROUTINE, document.id)


@pytest.mark.parametrize("kind", sorted(UNSEALED_KINDS))
@pytest.mark.parametrize("lane", Lane)
def test_an_unsealed_document_is_admitted_on_either_lane(kind: Kind, lane: Lane) -> None:
    assert decide(unsealed(kind), lane=lane) == Admit(EE, FI, lane, STATES.document().id)


@pytest.mark.parametrize("kind", [Kind.ALERT, Kind.MESSAGE, Kind.ACKNOWLEDGEMENT])
def test_what_holds_content_may_not_travel_unsealed(kind: Kind) -> None:
    assert reason(decide(unsealed(kind))) is Reason.WRONG_KIND
    assert f"{kind.value} documents may not travel unsealed" in decide(unsealed(kind)).detail


def test_the_kinds_that_travel_unsealed_are_those_of_the_protocol() -> None:
    sealed_kinds = {Kind.ALERT, Kind.MESSAGE, Kind.ACKNOWLEDGEMENT}
    assert set(Kind) - UNSEALED_KINDS == sealed_kinds


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b'{"protected":' + tail))
def test_any_bytes_are_refused_by_name(raw: bytes) -> None:
    assert reason(decide(raw)) is Reason.MALFORMED


def test_the_first_member_tells_the_two_forms_apart() -> None:
    assert is_sealed(sealed())
    assert not is_sealed(unsealed())


def test_an_oversize_document_is_refused_before_it_is_read() -> None:
    exact = b" " * MAX_ENVELOPE_BYTES
    decision = decide(exact + b" ")
    assert decision == Refuse(Reason.OVERSIZE, f"{MAX_ENVELOPE_BYTES + 1} bytes")
    assert reason(decide(b'{"protected":' + b" " * (MAX_ENVELOPE_BYTES - 13))) is Reason.MALFORMED


def test_another_federation_is_refused() -> None:
    other = FederationId("A" * 43)
    assert reason(decide(sealed(federation=other))) is Reason.WRONG_FEDERATION
    assert reason(decide(unsealed(federation=other))) is Reason.WRONG_FEDERATION


def test_a_stranger_is_refused() -> None:
    assert reason(decide(sealed(sender=PL), link=PL)) is Reason.UNKNOWN_SENDER
    document = STATES.document(sender=PL)
    raw = sign(format_document(document), Kind.RECEIPT, party(PL).signing)
    assert reason(decide(raw, link=PL)) is Reason.UNKNOWN_SENDER


def test_our_own_document_is_refused() -> None:
    assert reason(decide(sealed(sender=FI), link=FI)) is Reason.OWN_DOCUMENT
    assert reason(decide(unsealed(sender=FI), link=FI)) is Reason.OWN_DOCUMENT


def test_a_suspended_nation_is_refused() -> None:
    trust = replace(STATES.trust, suspended=frozenset({EE}))
    assert reason(decide(sealed(), trust=trust)) is Reason.SUSPENDED_SENDER
    assert reason(decide(unsealed(), trust=trust)) is Reason.SUSPENDED_SENDER
    others = replace(STATES.trust, suspended=frozenset({LV}))
    assert isinstance(decide(sealed(), trust=others), Admit)


def test_a_document_of_another_nation_than_the_links_is_refused() -> None:
    assert reason(decide(sealed(), link=LV)) is Reason.WRONG_LINK
    assert reason(decide(unsealed(), link=LV)) is Reason.WRONG_LINK
    assert decide(sealed(), link=LV) == Refuse(
        Reason.WRONG_LINK, "a document of EE on the link to LV"
    )


def test_what_is_for_somebody_else_is_refused() -> None:
    document = STATES.document()
    for_lv = STATES.seal(STATES.sign(document), document, to=LV)
    assert decide(for_lv) == Refuse(Reason.NOT_FOR_US, "the envelope is for LV")
    assert decide(unsealed(to=(EE, LV))) == Refuse(Reason.NOT_FOR_US, "the document is for EE, LV")


def test_an_envelope_on_the_other_lane_is_refused() -> None:
    decision = decide(sealed(), lane=Lane.ROUTINE)
    assert decision == Refuse(Reason.WRONG_LINK, "urgent, but it came on the routine lane")
    assert reason(decide(sealed(lane=Lane.ROUTINE))) is Reason.WRONG_LINK


def test_what_has_expired_is_refused() -> None:
    expiry = NOW + 3600 + 300
    assert isinstance(decide(sealed(), now=expiry), Admit)
    assert isinstance(decide(unsealed(), now=expiry), Admit)
    assert reason(decide(sealed(), now=expiry + 1)) is Reason.EXPIRED
    assert reason(decide(unsealed(), now=expiry + 1)) is Reason.EXPIRED


def test_an_unsealed_document_from_the_future_or_too_long_is_refused() -> None:
    assert reason(decide(unsealed(), now=NOW - 301)) is Reason.FROM_THE_FUTURE
    assert reason(decide(unsealed(expires_at=NOW + 8 * DAY))) is Reason.LIFE_TOO_LONG


@pytest.mark.parametrize("half", [0, 1])
def test_an_unsealed_document_needs_both_signatures(half: int) -> None:
    value = json.loads(unsealed())
    signature = bytearray(decode_base64url(value["signatures"][half]["signature"]))
    signature[3] ^= 1
    value["signatures"][half]["signature"] = encode_base64url(bytes(signature))
    assert reason(decide(format_json(value))) is Reason.BAD_SIGNATURE


def test_an_unsealed_document_by_another_nations_keys_is_refused() -> None:
    raw = sign(format_document(STATES.document()), Kind.RECEIPT, party(LV).signing)
    assert reason(decide(raw)) is Reason.BAD_SIGNATURE
    voting = sign(format_document(STATES.document()), Kind.RECEIPT, party(EE).voting)
    assert reason(decide(voting)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (RosterReference(1, "A" * 43), Reason.FORKED_ROSTER),
        (RosterReference(2, STATES.roster.hash), Reason.NEWER_ROSTER),
        (RosterReference(0, STATES.roster.hash), Reason.OLD_ROSTER),
    ],
)
def test_an_unsealed_document_names_a_roster_that_we_accept(
    reference: RosterReference, expected: Reason
) -> None:
    assert reason(decide(unsealed(roster=reference))) is expected


def after_a_key_change() -> Trust:
    """EE has new signing keys in version 2."""
    first = STATES.roster
    changed = replace(party(EE).member, signing_keys=party(EE, 2).signing.public)
    voters = list(STATES.parties.values())
    payload = successor(first, [changed, party(FI).member, party(LV).member])
    second = accept_next(first, parse_voted_roster(voted(payload, voters)), NOW)
    return Trust(second, {1: first})


def test_a_document_signed_before_a_key_change_is_still_accepted() -> None:
    trust = after_a_key_change()
    assert isinstance(decide(unsealed(), trust=trust), Admit)
    expiry = trust.current.issued_at + 7 * DAY
    late = unsealed(issued_at=expiry, expires_at=expiry + 60)
    assert isinstance(decide(late, trust=trust, now=expiry), Admit)
    assert reason(decide(late, trust=trust, now=expiry + 1)) is Reason.OLD_ROSTER


def test_new_keys_sign_under_the_new_roster_and_old_ones_under_the_old() -> None:
    trust = after_a_key_change()
    second = trust.current.reference
    new_keys, old_keys = party(EE, 2).signing, party(EE).signing

    def signed(keys: SigningKeys, roster: RosterReference) -> bytes:
        document = STATES.document(roster=roster)
        return sign(format_document(document), Kind.RECEIPT, keys)

    first = STATES.roster.reference
    assert isinstance(decide(signed(new_keys, second), trust=trust), Admit)
    assert isinstance(decide(signed(old_keys, first), trust=trust), Admit)
    assert reason(decide(signed(old_keys, second), trust=trust)) is Reason.BAD_SIGNATURE
    assert reason(decide(signed(new_keys, first), trust=trust)) is Reason.BAD_SIGNATURE


def test_a_newcomer_cannot_name_the_roster_before_it() -> None:
    four = federation(EE, FI, LV, PL)
    with_us = accept_next(
        STATES.roster,
        parse_voted_roster(
            voted(
                successor(STATES.roster, four.members()),
                [*STATES.parties.values(), party(PL)],
            )
        ),
        NOW,
    )
    trust = Trust(with_us, {1: STATES.roster})
    document = STATES.document(sender=PL, to=(FI,))
    raw = sign(format_document(document), Kind.RECEIPT, party(PL).signing)
    assert reason(decide(raw, link=PL, trust=trust)) is Reason.BAD_SIGNATURE
    assert isinstance(
        decide(
            sign(
                format_document(replace(document, roster=with_us.reference)),
                Kind.RECEIPT,
                party(PL).signing,
            ),
            link=PL,
            trust=trust,
        ),
        Admit,
    )


def test_the_checks_stand_alone() -> None:
    check_sender(EE, FI, STATES.trust)
    check_federation(STATES.id, STATES.trust)
    with pytest.raises(Refused, match=r"^own_document: our own document came back to us$") as own:
        check_sender(FI, FI, STATES.trust)
    assert own.value.reason is Reason.OWN_DOCUMENT
    with pytest.raises(Untrusted, match="PL is not on the roster"):
        check_sender(PL, FI, STATES.trust)
    with pytest.raises(Refused, match="EE is suspended by this nation"):
        check_sender(EE, FI, replace(STATES.trust, suspended=frozenset({EE})))
    with pytest.raises(
        Untrusted, match=r"^wrong_federation: the document is of another federation$"
    ):
        check_federation(FederationId("A" * 43), STATES.trust)


def test_a_nation_without_a_seat_cannot_be_verified() -> None:
    signed = parse_signed(unsealed())
    verify_by_sender(signed, Kind.RECEIPT, EE, STATES.trust)
    with pytest.raises(Untrusted, match="PL is not on the roster") as refused:
        verify_by_sender(signed, Kind.RECEIPT, PL, STATES.trust)
    assert refused.value.reason is Reason.UNKNOWN_SENDER


def test_the_named_roster_decides_whose_keys_count() -> None:
    document = STATES.document()
    signed = parse_signed(STATES.sign(document))
    check_roster(signed, Kind.ALERT, document, STATES.trust, NOW)
    for wrong in (replace(document, sender=LV), replace(document, sender=PL)):
        with pytest.raises(
            Untrusted, match=r"^bad_signature: signed with other keys than the named roster gives$"
        ) as refused:
            check_roster(signed, Kind.ALERT, wrong, STATES.trust, NOW)
        assert refused.value.reason is Reason.BAD_SIGNATURE
    with pytest.raises(Untrusted):
        check_roster(signed, Kind.MESSAGE, document, STATES.trust, NOW)


@pytest.mark.parametrize("raw", [sealed(), unsealed()], ids=["sealed", "unsealed"])
def test_a_document_for_another_is_admitted_to_be_handed_on(raw: bytes) -> None:
    handed = decide(raw, me=LV, transit=Transit(FI))
    assert handed == Admit(EE, FI, Lane.URGENT, STATES.document().id)


@pytest.mark.parametrize("raw", [sealed(), unsealed()], ids=["sealed", "unsealed"])
def test_a_document_that_was_handed_on_is_admitted_where_it_is_for(raw: bytes) -> None:
    arrived = decide(raw, link=LV, transit=Transit(FI, (LV,)))
    assert arrived == Admit(EE, FI, Lane.URGENT, STATES.document().id)
    assert reason(decide(raw, link=LV)) is Reason.WRONG_LINK
    assert reason(decide(raw, link=LV, transit=Transit(FI))) is Reason.BAD_ROUTE


def test_what_is_handed_on_is_for_whom_the_label_says() -> None:
    for raw in (sealed(), unsealed(to=(FI, LV))):
        assert reason(decide(raw, me=LV, transit=Transit(PL))) is Reason.BAD_ROUTE
    four = federation(EE, FI, LV, PL)
    document = four.document(to=(FI,))
    for raw in (four.seal(four.sign(document), document), four.sign(document, Kind.RECEIPT)):
        decision = decide(raw, me=LV, trust=four.trust, transit=Transit(PL))
        assert reason(decision) is Reason.NOT_FOR_US


def test_nothing_is_handed_on_to_or_from_a_suspended_nation() -> None:
    to, of = (Trust(STATES.roster, suspended=frozenset({each})) for each in (FI, EE))
    assert reason(decide(sealed(), me=LV, trust=to, transit=Transit(FI))) is Reason.BAD_ROUTE
    refused = reason(decide(sealed(), me=LV, trust=of, transit=Transit(FI)))
    assert refused is Reason.SUSPENDED_SENDER


@pytest.mark.parametrize("kind", sorted(SELF_PROVING_KINDS))
def test_a_self_proving_kind_is_taken_whatever_roster_it_names(kind: Kind) -> None:
    newer = RosterReference(9, "A" * 43)
    assert isinstance(decide(unsealed(kind, roster=newer)), Admit)
    assert reason(decide(unsealed(Kind.RECEIPT, roster=newer))) is Reason.NEWER_ROSTER
    forked = RosterReference(1, "A" * 43)
    assert reason(decide(unsealed(kind, roster=forked))) is Reason.FORKED_ROSTER


def test_a_self_proving_kind_under_another_roster_needs_the_keys_of_today() -> None:
    renewed = party(EE, 2)
    payload = successor(
        STATES.roster, [renewed.member, *(each for each in STATES.members() if each.nation != EE)]
    )
    parties = [*STATES.parties.values(), renewed]
    roster = accept_next(STATES.roster, parse_voted_roster(voted(payload, parties)), NOW + DAY)
    trust = Trust(roster, {1: STATES.roster})
    raw = unsealed(Kind.HEARTBEAT)
    assert reason(decide(raw, trust=trust)) is Reason.BAD_SIGNATURE
    document = STATES.document()
    renewed_raw = sign(format_document(document), Kind.HEARTBEAT, renewed.signing)
    assert isinstance(decide(renewed_raw, trust=trust), Admit)
