"""The roster's form, and what a node believes from it: which roster a document may name, and for how long."""

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
    NO,
    NOW,
    PL,
    federation,
    observer,
    party,
    successor,
    voted,
)
from varde.document import RosterReference
from varde.encoding import MAX_SECONDS, Json, encode_base64url, format_json, sha256_base64url
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.member import Member
from varde.roster import (
    GRACE_SECONDS,
    MAX_MEMBERS,
    MAX_ROSTER_BYTES,
    Roster,
    Trust,
    accept_next,
    changed_members,
    format_roster_payload,
    format_voted_roster,
    nations_voting,
    parse_roster_payload,
    parse_voted_roster,
    sign_vote,
)

STATES = federation()
FIRST = STATES.roster
MEMBERS = STATES.members()
SECOND_PAYLOAD = successor(FIRST, MEMBERS)
SECOND = accept_next(FIRST, parse_voted_roster(voted(SECOND_PAYLOAD, STATES.parties.values())), NOW)
THIRD_PAYLOAD = successor(SECOND, MEMBERS)
THIRD = accept_next(
    SECOND, parse_voted_roster(voted(THIRD_PAYLOAD, STATES.parties.values())), NOW + DAY
)
TRUST = Trust(THIRD, {1: FIRST, 2: SECOND})


def refusal(payload: bytes) -> VardeError:
    with pytest.raises(VardeError) as refused:
        parse_roster_payload(payload)
    return refused.value


def with_values(**changes: Json) -> VardeError:
    return refusal(format_json(json.loads(SECOND_PAYLOAD) | changes))


def not_named(trust: Trust, reference: RosterReference, now: int = NOW) -> Reason:
    with pytest.raises(Untrusted) as refused:
        trust.roster_named(reference, now)
    return refused.value.reason


@given(
    st.integers(2, 2**53 - 1),
    st.integers(0, MAX_SECONDS - 90 * DAY),
    st.integers(1, 90 * DAY),
    st.sets(st.sampled_from([EE, FI, LV, NO, PL]), min_size=2),
)
def test_a_roster_parses_to_itself(version: int, start: int, life: int, nations: set[str]) -> None:
    members = [party(each).member for each in nations]
    payload = format_roster_payload(
        federation=FIRST.federation,
        version=version,
        previous=FIRST.hash,
        issued_at=start,
        expires_at=start + life,
        members=members,
    )
    assert parse_roster_payload(payload) == Roster(
        federation=FIRST.federation,
        version=version,
        previous=FIRST.hash,
        hash=sha256_base64url(payload),
        issued_at=start,
        expires_at=start + life,
        members={each.nation: each for each in members},
    )


@given(st.binary(max_size=60))
def test_any_bytes_are_malformed(raw: bytes) -> None:
    for parse in (parse_roster_payload, parse_voted_roster):
        with pytest.raises(Malformed):
            parse(raw)


def test_the_form_is_that_of_the_protocol() -> None:
    value = json.loads(SECOND_PAYLOAD)
    assert list(value) == ["v", "fed", "version", "prev", "iat", "exp", "members"]
    assert value["fed"] == value["prev"] == FIRST.hash
    assert [each["nation"] for each in value["members"]] == ["EE", "FI", "LV"]
    assert FIRST.federation == FIRST.hash
    genesis = parse_roster_payload(parse_voted_roster(STATES.founding).payload)
    assert genesis == FIRST
    assert genesis.previous is None
    assert SECOND.reference == RosterReference(2, sha256_base64url(SECOND_PAYLOAD))


def test_members_are_written_in_order() -> None:
    payload = successor(FIRST, reversed(MEMBERS))
    assert payload == SECOND_PAYLOAD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, Reason.WRONG_PROFILE),
        ({"version": 0}, Reason.BAD_ROSTER),
        ({"version": 1}, Reason.BAD_ROSTER),
        ({"version": 1, "fed": None}, Reason.BAD_ROSTER),
        ({"version": 1, "prev": None}, Reason.BAD_ROSTER),
        ({"fed": None}, Reason.BAD_ROSTER),
        ({"prev": None}, Reason.BAD_ROSTER),
        ({"fed": None, "prev": None}, Reason.BAD_ROSTER),
        ({"version": "2"}, Reason.MALFORMED),
        ({"fed": "A"}, Reason.MALFORMED),
        ({"prev": "A"}, Reason.MALFORMED),
        ({"prev": "AAAA"}, Reason.MALFORMED),
        ({"iat": -1}, Reason.MALFORMED),
        ({"exp": MAX_SECONDS + 1}, Reason.MALFORMED),
        ({"iat": MAX_SECONDS + 1}, Reason.MALFORMED),
        ({"members": {}}, Reason.MALFORMED),
        ({"members": []}, Reason.BAD_ROSTER),
        ({"members": [1]}, Reason.MALFORMED),
        ({"x": 1}, Reason.MALFORMED),
    ],
    ids=repr,
)
def test_another_form_is_refused(change: dict[str, Json], reason: Reason) -> None:
    assert with_values(**change).reason is reason


def test_members_out_of_order_are_refused() -> None:
    members = json.loads(SECOND_PAYLOAD)["members"]
    assert with_values(members=[members[1], members[0], members[2]]).reason is Reason.BAD_ROSTER


def test_a_federation_has_at_least_two_voting_members() -> None:
    one = successor(FIRST, [party(EE).member, observer(FI), observer(LV)])
    assert refusal(one).reason is Reason.BAD_ROSTER
    two = successor(FIRST, [party(EE).member, party(FI).member, observer(LV)])
    assert parse_roster_payload(two).voters().keys() == {EE, FI}


def test_more_than_64_seats_are_refused() -> None:
    members: list[Json] = [json.loads(SECOND_PAYLOAD)["members"][0]] * (MAX_MEMBERS + 1)
    assert with_values(members=members).reason is Reason.MALFORMED


def test_an_oversize_roster_is_refused() -> None:
    assert refusal(b" " * (MAX_ROSTER_BYTES + 1)).reason is Reason.OVERSIZE
    with pytest.raises(Malformed) as refused:
        parse_voted_roster(b" " * (MAX_ROSTER_BYTES + 1))
    assert refused.value.reason is Reason.OVERSIZE


def test_a_voted_roster_keeps_payload_and_votes() -> None:
    raw = format_voted_roster(
        SECOND_PAYLOAD, [sign_vote(SECOND_PAYLOAD, each, party(each).voting) for each in (FI, EE)]
    )
    assert list(json.loads(raw)) == ["payload", "votes"]
    parsed = parse_voted_roster(raw)
    assert parsed.payload == SECOND_PAYLOAD
    assert [each.nation for each in parsed.votes] == [FI, EE]
    assert nations_voting(parsed, FIRST) == {EE, FI}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"payload": "", "votes": [], "x": 1},
        {"payload": "!", "votes": []},
        {"payload": "", "votes": {}},
    ],
)
def test_another_form_of_a_voted_roster_is_refused(value: dict[str, Json]) -> None:
    with pytest.raises(Malformed):
        parse_voted_roster(format_json(value))


def test_what_changed_is_named_by_nation() -> None:
    moved = replace(party(LV).member, broker="tls://new.example:1")
    seats: list[Member] = [party(EE).member, moved, party(NO).member]
    other = parse_roster_payload(successor(FIRST, seats))
    assert changed_members(FIRST, other) == {FI, LV, NO}
    assert changed_members(FIRST, SECOND) == set()


def test_the_current_roster_may_be_named_whenever() -> None:
    assert TRUST.roster_named(THIRD.reference, NOW) is THIRD
    assert TRUST.roster_named(THIRD.reference, NOW + 1000 * DAY) is THIRD


def test_an_earlier_roster_may_be_named_for_seven_days_after_its_successor() -> None:
    for roster, following in ((FIRST, SECOND), (SECOND, THIRD)):
        last = following.issued_at + GRACE_SECONDS
        assert TRUST.roster_named(roster.reference, last) is roster
        assert not_named(TRUST, roster.reference, last + 1) is Reason.OLD_ROSTER
    assert GRACE_SECONDS == 7 * DAY


def test_a_roster_that_is_not_kept_is_old() -> None:
    assert not_named(Trust(THIRD, {2: SECOND}), FIRST.reference) is Reason.OLD_ROSTER
    assert not_named(TRUST, RosterReference(0, FIRST.hash)) is Reason.OLD_ROSTER


def test_a_newer_roster_is_newer() -> None:
    assert not_named(TRUST, RosterReference(4, THIRD.hash)) is Reason.NEWER_ROSTER


def test_another_content_under_a_known_version_is_a_fork() -> None:
    for version in (1, 2, 3):
        assert not_named(TRUST, RosterReference(version, "A" * 43)) is Reason.FORKED_ROSTER


def test_the_signing_keys_of_a_nation_are_the_newest_first_and_each_once() -> None:
    changed = replace(party(EE).member, signing_keys=party(EE, 2).signing.public)
    payload = successor(THIRD, [changed, party(FI).member, party(LV).member])
    fourth = accept_next(
        THIRD, parse_voted_roster(voted(payload, STATES.parties.values())), NOW + 3 * DAY
    )
    trust = Trust(fourth, {1: FIRST, 2: SECOND, 3: THIRD})
    assert trust.signing_keys(EE) == (party(EE, 2).signing.public, party(EE).signing.public)
    assert trust.signing_keys(FI) == (party(FI).signing.public,)
    again = replace(changed, signing_keys=party(EE, 3).signing.public)
    payload = successor(fourth, [again, party(FI).member, party(LV).member])
    fifth = accept_next(
        fourth, parse_voted_roster(voted(payload, STATES.parties.values())), NOW + 4 * DAY
    )
    trust = Trust(fifth, {1: FIRST, 3: THIRD, 4: fourth})
    assert trust.signing_keys(EE) == tuple(
        party(EE, generation).signing.public for generation in (3, 2, 1)
    )
    assert trust.signing_keys(PL) == ()


def test_a_roster_payload_travels_byte_for_byte() -> None:
    raw = voted(SECOND_PAYLOAD, [])
    assert json.loads(raw) == {"payload": encode_base64url(SECOND_PAYLOAD), "votes": []}
