"""What travels about a roster, and how the next version is drafted."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
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
    seed,
    voted,
)
from varde.encoding import Json, JsonObject, encode_base64url, format_json, sha256_base64url
from varde.envelope import MAX_ENVELOPE_BYTES
from varde.errors import Malformed, Reason, Refused, Untrusted, VardeError
from varde.identifiers import FederationId, Nation, parse_nation
from varde.member import Member
from varde.proposal import (
    MAX_BALLOT,
    MAX_REASON,
    Addition,
    Ballot,
    Change,
    Proposal,
    Removal,
    Renewal,
    Replacement,
    Restoration,
    Suspension,
    describe_successor,
    format_ballot,
    format_proposal,
    format_restoration,
    format_suspension,
    parse_ballot,
    parse_roster_word,
    propose_successor,
    split_ballot,
    usable_voting_keys,
)
from varde.roster import (
    MAX_ROSTER_LIFE_SECONDS,
    Roster,
    Vote,
    accept_next,
    extend_chain,
    format_roster_payload,
    format_vote,
    parse_roster_payload,
    parse_vote,
    parse_voted_roster,
    sign_vote,
    verify_vote,
)
from varde.signing import (
    MAX_ROSTER_PAYLOAD_BYTES,
    MAX_SIGNED_ROSTER_BYTES,
    Kind,
    claimed_key,
    sign,
)

STATES = federation()
FIRST = STATES.roster
RENEWED = propose_successor(FIRST, Renewal(), NOW)
DIGEST = sha256_base64url(RENEWED)


def vote_of(nation: Nation, payload: bytes = RENEWED) -> Vote:
    return parse_vote(sign_vote(payload, nation, party(nation).voting))


def drafted(change: Change) -> Roster:
    return parse_roster_payload(propose_successor(FIRST, change, NOW))


def refused(body: JsonObject) -> VardeError:
    with pytest.raises(VardeError) as error:
        parse_roster_word(body)
    return error.value


def test_a_proposal_carries_the_exact_bytes_that_are_voted_on() -> None:
    word = parse_roster_word(json.loads(format_json(format_proposal(RENEWED))))
    assert word == Proposal(RENEWED, parse_roster_payload(RENEWED))


nations = st.sampled_from([EE, FI, LV, NO])
seconds = st.integers(0, 2**40).map(lambda each: each % 253_402_300_799)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=MAX_REASON)


@given(nations, texts, seconds)
def test_a_suspension_parses_to_itself(nation: Nation, reason: str, since: int) -> None:
    word = Suspension(nation, reason, since)
    assert parse_roster_word(json.loads(format_json(format_suspension(word)))) == word


@given(nations, seconds)
def test_a_restoration_parses_to_itself(nation: Nation, since: int) -> None:
    word = Restoration(nation, since)
    assert parse_roster_word(format_restoration(word)) == word


@settings(deadline=None)
@given(st.lists(nations, min_size=1, max_size=4), st.integers(0, 2**53 - 1))
def test_a_ballot_parses_to_itself(voters: list[Nation], version: int) -> None:
    ballot = Ballot(version, DIGEST, tuple(vote_of(each) for each in voters))
    assert parse_ballot(json.loads(format_json(format_ballot(ballot)))) == ballot


json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.sampled_from(
    ["roster", "suspended", "restored", "reason", "since", "version", "hash", "votes"]
)


@given(st.dictionaries(members, json_values, max_size=4))
def test_any_body_parses_or_is_refused(body: JsonObject) -> None:
    for parse in (parse_roster_word, parse_ballot):
        try:
            parse(body)
        except VardeError:
            continue


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"roster": RENEWED.decode(), "since": 1},
        {"roster": 7},
        {"roster": "{}"},
        {"suspended": "FI", "since": 1},
        {"suspended": "FI", "reason": "x" * (MAX_REASON + 1), "since": 1},
        {"suspended": "fi", "reason": "", "since": 1},
        {"suspended": "FI", "reason": "", "since": -1},
        {"restored": "FI"},
        {"restored": "FI", "reason": "", "since": 1},
    ],
)
def test_a_word_about_the_roster_with_other_members_is_refused(body: JsonObject) -> None:
    assert isinstance(refused(body), Malformed)


def test_a_proposal_with_a_weak_key_is_refused_before_anybody_votes() -> None:
    value = json.loads(RENEWED)
    value["members"][0]["signing"]["Ed25519"] = encode_base64url(bytes(32))
    assert refused(format_proposal(format_json(value))).reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"votes": []},
        {"votes": [format_vote(vote_of(EE))] * (MAX_BALLOT + 1)},
        {"votes": [{"member": "EE"}]},
        {"hash": "x"},
        {"version": -1},
        {"also": 1},
    ],
)
def test_a_ballot_of_another_form_is_refused(changes: JsonObject) -> None:
    body = format_ballot(Ballot(2, DIGEST, (vote_of(EE),)))
    with pytest.raises(Malformed):
        parse_ballot(body | changes)


def test_many_votes_travel_in_as_many_ballots_as_they_need() -> None:
    votes = [vote_of(EE)] * (2 * MAX_BALLOT + 1)
    assert [len(each.votes) for each in split_ballot(2, DIGEST, votes)] == [
        MAX_BALLOT,
        MAX_BALLOT,
        1,
    ]
    assert split_ballot(2, DIGEST, []) == []


def test_a_renewal_lives_ninety_days_from_now_and_changes_nothing_else() -> None:
    renewed = drafted(Renewal())
    assert (renewed.issued_at, renewed.expires_at) == (NOW, NOW + MAX_ROSTER_LIFE_SECONDS)
    assert (renewed.version, renewed.previous) == (2, FIRST.hash)
    assert renewed.members == FIRST.members
    assert describe_successor(FIRST, renewed) == ["no seat changes: the roster is renewed"]


def test_a_successor_is_never_dated_before_its_predecessor() -> None:
    early = parse_roster_payload(propose_successor(FIRST, Renewal(), FIRST.issued_at - DAY))
    assert early.issued_at == FIRST.issued_at


def test_a_nation_or_an_observer_joins() -> None:
    joined = drafted(Addition(party(NO).member))
    assert joined.members.keys() == {EE, FI, LV, NO}
    assert describe_successor(FIRST, joined) == [
        "NO (Nation NO) joins as a member, at tls://no.example:4222"
    ]
    watching = drafted(Addition(observer(PL)))
    assert describe_successor(FIRST, watching) == [
        "PL (Nation PL) joins as an observer without a vote, at tls://pl.example:4222"
    ]


def test_a_nation_leaves() -> None:
    left = drafted(Removal(LV))
    assert left.members.keys() == {EE, FI}
    assert describe_successor(FIRST, left) == ["LV (Nation LV) is removed"]


def test_what_a_seat_changes_is_said_in_words() -> None:
    seat, other = party(FI).member, party(FI, 2).member
    moved = drafted(Replacement(replace(seat, broker="tls://new.example:4222", name="Suomi")))
    assert describe_successor(FIRST, moved) == [
        "FI: name Nation FI becomes Suomi; broker tls://fi.example:4222 becomes tls://new.example:4222"
    ]
    (said,) = describe_successor(FIRST, drafted(Replacement(other)))
    for words in ("new signing keys", "new voting keys", "new relay key", "certificate authority"):
        assert words in said
    assert "audit log" in said


@pytest.mark.parametrize(
    "change",
    [
        Addition(party(FI).member),
        Replacement(party(NO).member),
        Replacement(party(FI).member),
        Removal(NO),
    ],
)
def test_a_change_that_changes_nothing_or_names_a_wrong_seat_is_refused(change: Change) -> None:
    with pytest.raises(Refused):
        propose_successor(FIRST, change, NOW)


def test_what_would_be_no_roster_is_not_proposed() -> None:
    twice = replace(party(NO).member, relay=party(EE).member.relay)
    with pytest.raises(Malformed):
        propose_successor(FIRST, Addition(twice), NOW)
    two = replace(FIRST, members={each: FIRST.members[each] for each in (EE, FI)})
    with pytest.raises(Malformed, match="at least 2"):
        propose_successor(two, Removal(FI), NOW)


def test_a_proposal_that_everybody_votes_for_is_the_next_version() -> None:
    raw = voted(RENEWED, STATES.parties.values())
    assert accept_next(FIRST, parse_voted_roster(raw), NOW).version == 2


def test_the_voting_keys_that_count_are_those_of_the_old_or_the_new_seat() -> None:
    old, new = party(FI).voting, party(FI, 2).voting
    changed = drafted(Replacement(replace(party(FI).member, voting_keys=new.public)))
    held = [old, new, party(EE).voting]
    assert usable_voting_keys(FI, FIRST, changed, held) == [old, new]
    assert usable_voting_keys(FI, FIRST, drafted(Renewal()), held) == [old]
    assert usable_voting_keys(NO, FIRST, drafted(Addition(party(NO).member)), [party(NO).voting])
    assert usable_voting_keys(NO, FIRST, drafted(Renewal()), held) == []


def test_a_vote_verifies_by_its_key_for_its_bytes_alone() -> None:
    vote = vote_of(EE)
    verify_vote(RENEWED, vote, party(EE).voting.public)
    assert claimed_key(vote.signatures) == party(EE).voting.public.ed25519_kid
    for payload, keys in ((RENEWED + b" ", party(EE).voting), (RENEWED, party(FI).voting)):
        with pytest.raises(Untrusted):
            verify_vote(payload, vote, keys.public)


def test_a_roster_document_may_be_twice_as_large_as_any_other() -> None:
    large = bytes(MAX_ROSTER_PAYLOAD_BYTES)
    assert sign(large, Kind.ROSTER, party(EE).signing)
    for payload, kind in ((large + b"x", Kind.ROSTER), (large, Kind.VOTE)):
        with pytest.raises(Malformed) as error:
            sign(payload, kind, party(EE).signing)
        assert error.value.reason is Reason.OVERSIZE


def test_a_proposal_of_64_seats_fits_into_a_document_and_a_message() -> None:
    nations = [parse_nation(first + second) for first in "ABCDEFGH" for second in "ABCDEFGH"]
    certificate = seed("certificate") * 20  # 640 bytes; one of P-256 has some 450
    payload = format_roster_payload(
        federation=STATES.id,
        version=2,
        previous=STATES.roster.hash,
        issued_at=NOW,
        expires_at=NOW + DAY,
        members=[
            replace(party(each).member, ca=certificate + each.encode(), name="N" * 48)
            for each in nations
        ],
    )
    assert len(parse_roster_payload(payload).members) == 64
    document = sign(format_json({"roster": payload.decode()}), Kind.ROSTER, party(EE).signing)
    assert len(document) <= MAX_SIGNED_ROSTER_BYTES < MAX_ENVELOPE_BYTES < 1024 * 1024


def chain_of(length: int) -> tuple[list[Roster], list[bytes]]:
    rosters, raws = [FIRST], [STATES.founding]
    for _ in range(length - 1):
        payload = propose_successor(rosters[-1], Renewal(), NOW)
        raws.append(voted(payload, STATES.parties.values()))
        rosters.append(accept_next(rosters[-1], parse_voted_roster(raws[-1]), NOW))
    return rosters, raws


def test_a_chain_is_walked_from_the_genesis_fingerprint_and_extended_by_what_is_new() -> None:
    rosters, raws = chain_of(4)
    assert [each for each, _ in extend_chain([], raws, STATES.id, NOW)] == rosters
    assert extend_chain(rosters[:2], raws, STATES.id, NOW) == [
        *zip(rosters[2:], raws[2:], strict=True)
    ]
    assert extend_chain(rosters, raws, STATES.id, NOW) == []


def test_attack_26_and_33_a_gap_a_fork_or_another_genesis_stops_the_walk() -> None:
    rosters, raws = chain_of(4)
    for given_raws, reason in (
        ([raws[0], raws[2]], Reason.BAD_ROSTER),
        (raws[1:], Reason.WRONG_FEDERATION),
    ):
        with pytest.raises(Untrusted) as error:
            extend_chain([], given_raws, STATES.id, NOW)
        assert error.value.reason is reason
    rival = voted(propose_successor(FIRST, Removal(LV), NOW), STATES.parties.values())
    with pytest.raises(Untrusted) as error:
        extend_chain(rosters, [rival], STATES.id, NOW)
    assert error.value.reason is Reason.FORKED_ROSTER


def test_attack_35_a_chain_of_another_federation_does_not_begin() -> None:
    _, raws = chain_of(2)
    with pytest.raises(Untrusted) as error:
        extend_chain([], raws, FederationId("A" * 43), NOW)
    assert error.value.reason is Reason.WRONG_FEDERATION


def test_a_member_without_standing_of_its_own_is_described_when_it_changes() -> None:
    watching: Member = observer(FI)
    (said,) = describe_successor(FIRST, drafted(Replacement(watching)))
    assert "standing member becomes observer" in said
