"""What a minority of members, or whoever carries a roster, can try; each attack has its named refusal."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from support.federation import (
    DAY,
    EE,
    FI,
    LT,
    LV,
    NO,
    NOW,
    PL,
    Federation,
    Party,
    ed25519_public,
    federation,
    log_signer,
    nkey,
    observer,
    party,
    successor,
    vkey,
    voted,
)
from varde.checkpoint import LogKey
from varde.encoding import (
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    format_json,
    sha256_base64url,
)
from varde.errors import Reason, VardeError
from varde.identifiers import FederationId, Nation
from varde.member import Member, format_member
from varde.note import format_vkey
from varde.roster import (
    MAX_ROSTER_LIFE_SECONDS,
    MAX_VOTES,
    Roster,
    Trust,
    accept_genesis,
    accept_next,
    could_follow,
    format_roster_payload,
    format_voted_roster,
    nations_voting,
    parse_roster_payload,
    parse_voted_roster,
    sign_vote,
    threshold,
)
from varde.signing import Kind, sign, signatures_over

LATER = NOW + 30 * DAY


@pytest.fixture
def four() -> Federation:
    """EE, FI, LV, PL: three votes of four change the roster."""
    return federation(EE, FI, LV, PL)


def without(states: Federation, *gone: Nation) -> list[Member]:
    return [each for each in states.members() if each.nation not in gone]


def parties(*nations: Nation) -> list[Party]:
    return [party(each) for each in nations]


def verdict(current: Roster, raw: bytes, now: int = LATER) -> str:
    """``accepted``, or the reason why not."""
    try:
        accept_next(current, parse_voted_roster(raw), now)
    except VardeError as error:
        return error.reason
    return "accepted"


def genesis_verdict(payload: bytes, voters: Iterable[Party]) -> str:
    fingerprint = FederationId(sha256_base64url(payload))
    try:
        accept_genesis(parse_voted_roster(voted(payload, voters)), fingerprint)
    except VardeError as error:
        return error.reason
    return "accepted"


def first_payload(members: Iterable[Member], **changes: object) -> bytes:
    values: dict[str, object] = {
        "federation": None,
        "version": 1,
        "previous": None,
        "issued_at": NOW,
        "expires_at": NOW + DAY,
        "members": members,
    }
    return format_roster_payload(**(values | changes))


def test_the_threshold_admits_and_removes(four: Federation) -> None:
    assert verdict(
        four.roster, voted(successor(four.roster, without(four, PL)), parties(EE, FI, LV))
    ) == ("accepted")
    joined = [*four.members(), party(NO).member]
    raw = voted(successor(four.roster, joined), parties(EE, FI, LV, NO))
    assert verdict(four.roster, raw) == "accepted"


def test_attack_25_one_nation_cannot_remove_another(four: Federation) -> None:
    raw = voted(successor(four.roster, without(four, PL)), parties(EE))
    assert verdict(four.roster, raw) is Reason.TOO_FEW_VOTES


def test_attack_25_one_vote_less_than_the_threshold_is_too_few(four: Federation) -> None:
    raw = voted(successor(four.roster, without(four, PL)), parties(EE, FI))
    assert verdict(four.roster, raw) is Reason.TOO_FEW_VOTES


def test_attack_25_a_newcomer_does_not_count_for_the_old_side(four: Federation) -> None:
    joined = [*four.members(), party(NO).member]
    raw = voted(successor(four.roster, joined), parties(EE, FI, NO))
    assert verdict(four.roster, raw) is Reason.TOO_FEW_VOTES


def test_attack_25_the_removed_do_not_count_for_the_new_side(four: Federation) -> None:
    """LV and PL with EE are three of the old four, but without PL only two of the new three (which suffices)."""
    raw = voted(successor(four.roster, without(four, PL)), parties(EE, LV, PL))
    assert verdict(four.roster, raw) == "accepted"
    five = federation(EE, FI, LV, LT, PL)
    raw = voted(successor(five.roster, without(five, PL)), parties(EE, LV, FI, PL))
    assert verdict(five.roster, raw) == "accepted"
    grown = [*five.members(), party(NO).member]
    raw = voted(successor(five.roster, grown), parties(EE, FI, LV, LT))
    assert verdict(five.roster, raw) is Reason.TOO_FEW_VOTES


def test_attack_25_a_newcomer_must_vote_for_its_own_keys(four: Federation) -> None:
    joined = [*four.members(), party(NO).member]
    raw = voted(successor(four.roster, joined), parties(EE, FI, LV, PL))
    assert verdict(four.roster, raw) is Reason.TOO_FEW_VOTES


@pytest.mark.parametrize(
    "change",
    [
        {"signing_keys": party(PL, 2).signing.public},
        {"voting_keys": party(PL, 2).voting.public},
        {"broker": "tls://elsewhere.example:4222"},
        {"relay": party(PL, 2).member.relay},
        {"ca": b"another"},
        {"log": party(PL, 2).member.log},
    ],
    ids=lambda change: next(iter(change)),
)
def test_attack_25_the_others_cannot_change_a_members_keys_or_addresses(
    four: Federation, change: dict[str, object]
) -> None:
    hijacked = replace(party(PL).member, **change)
    payload = successor(four.roster, [*without(four, PL), hijacked])
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV))) is Reason.TOO_FEW_VOTES


def test_a_member_changes_its_own_keys_with_its_own_vote(four: Federation) -> None:
    changed = replace(party(PL).member, signing_keys=party(PL, 2).signing.public)
    payload = successor(four.roster, [*without(four, PL), changed])
    assert verdict(four.roster, voted(payload, parties(EE, FI, PL))) == "accepted"


def test_a_member_that_lost_its_voting_keys_votes_with_the_new_ones(four: Federation) -> None:
    changed = replace(party(PL).member, voting_keys=party(PL, 2).voting.public)
    payload = successor(four.roster, [*without(four, PL), changed])
    raw = voted(payload, [*parties(EE, FI, LV), party(PL, 2)])
    assert verdict(four.roster, raw) == "accepted"


def test_a_member_can_become_an_observer_without_its_vote(four: Federation) -> None:
    payload = successor(four.roster, [*without(four, PL), observer(PL)])
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV))) == "accepted"


@pytest.mark.parametrize(
    "change",
    [
        {"signing_keys": party(PL, 2).signing.public},
        {"broker": "tls://elsewhere.example:4222"},
        {"relay": party(PL, 2).member.relay},
        {"ca": b"another"},
        {"log": party(PL, 2).member.log},
        {"name": "Another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_attack_25_whose_vote_is_taken_away_keeps_its_keys_and_addresses(
    four: Federation, change: dict[str, object]
) -> None:
    hijacked = replace(observer(PL), **change)
    payload = successor(four.roster, [*without(four, PL), hijacked])
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV))) is Reason.TOO_FEW_VOTES
    another = [*parties(EE, FI, LV), party(PL, 2)]
    assert verdict(four.roster, voted(payload, another)) is Reason.TOO_FEW_VOTES
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV, PL))) == "accepted"


def test_the_seat_of_an_observer_is_changed_by_the_members(four: Federation) -> None:
    seats = [*without(four, PL), observer(PL)]
    raw = voted(successor(four.roster, seats), parties(EE, FI, LV))
    second = accept_next(four.roster, parse_voted_roster(raw), LATER)
    moved = replace(observer(PL), broker="tls://elsewhere.example:4222")
    payload = successor(second, [*without(four, PL), moved])
    assert verdict(second, voted(payload, parties(EE, FI, LV))) == "accepted"
    assert verdict(second, voted(payload, parties(EE, PL))) is Reason.TOO_FEW_VOTES


def test_what_could_follow_depends_on_who_is_said_to_have_voted(four: Federation) -> None:
    """No signature is looked at, so that what lacks votes costs none."""
    renewed = parse_roster_payload(successor(four.roster, four.members()))
    joined = parse_roster_payload(successor(four.roster, [*four.members(), party(NO).member]))
    three = {EE, FI, LV}
    assert could_follow(four.roster, renewed, three, three, LATER)
    assert not could_follow(four.roster, renewed, {EE, FI}, three, LATER)
    assert not could_follow(four.roster, renewed, three, {EE, FI}, LATER)
    assert not could_follow(four.roster, renewed, three, three, NOW - 30 * DAY)
    assert not could_follow(four.roster, joined, three, {*three, PL}, LATER)
    assert could_follow(four.roster, joined, three, {*three, NO}, LATER)
    assert not could_follow(renewed, renewed, three, three, LATER)


def test_attack_26_a_skipped_version_is_refused(four: Federation) -> None:
    payload = successor(four.roster, four.members(), version=3)
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV, PL))) is Reason.BAD_ROSTER


def test_attack_26_a_rollback_is_refused(four: Federation) -> None:
    payload = successor(four.roster, four.members())
    second = accept_next(
        four.roster, parse_voted_roster(voted(payload, parties(EE, FI, LV))), LATER
    )
    assert verdict(second, voted(payload, parties(EE, FI, LV))) is Reason.BAD_ROSTER
    third = successor(second, four.members())
    newest = accept_next(second, parse_voted_roster(voted(third, parties(EE, FI, LV))), LATER)
    assert verdict(newest, voted(payload, parties(EE, FI, LV))) is Reason.BAD_ROSTER


def test_attack_26_the_same_version_with_other_content_is_a_fork(four: Federation) -> None:
    payload = successor(four.roster, four.members())
    second = accept_next(
        four.roster, parse_voted_roster(voted(payload, parties(EE, FI, LV))), LATER
    )
    other = successor(four.roster, without(four, PL))
    assert verdict(second, voted(other, parties(EE, FI, LV))) is Reason.FORKED_ROSTER


def test_attack_26_a_wrong_link_to_the_previous_version_is_a_fork(four: Federation) -> None:
    payload = successor(four.roster, four.members(), previous="A" * 43)
    assert verdict(four.roster, voted(payload, parties(EE, FI, LV, PL))) is Reason.FORKED_ROSTER


def test_attack_27_a_life_over_90_days_is_refused(four: Federation) -> None:
    issued_at = four.roster.issued_at + 1
    longest = issued_at + MAX_ROSTER_LIFE_SECONDS
    for expires_at, expected in (
        (longest, "accepted"),
        (longest + 1, Reason.BAD_ROSTER),
        (issued_at, Reason.BAD_ROSTER),
        (issued_at + 1, "accepted"),
    ):
        payload = successor(four.roster, four.members(), issued_at=issued_at, expires_at=expires_at)
        assert verdict(four.roster, voted(payload, parties(EE, FI, LV))) == expected


def test_attack_27_a_threshold_in_the_document_is_refused(four: Federation) -> None:
    value = json.loads(successor(four.roster, without(four, PL))) | {"threshold": 1}
    assert verdict(four.roster, voted(format_json(value), parties(EE))) is Reason.MALFORMED


def test_attack_27_an_expired_version_in_the_chain_does_not_stop_whoever_was_away(
    four: Federation,
) -> None:
    payload = successor(four.roster, four.members(), expires_at=four.roster.issued_at + 2 * DAY)
    raw = voted(payload, parties(EE, FI, LV))
    assert verdict(four.roster, raw, now=NOW + 80 * DAY) == "accepted"


def test_attack_27_a_roster_from_the_future_or_older_than_its_predecessor_is_refused(
    four: Federation,
) -> None:
    start = four.roster.issued_at
    for issued_at, expected in (
        (NOW + 300, "accepted"),
        (NOW + 301, Reason.BAD_ROSTER),
        (start, "accepted"),
        (start - 1, Reason.BAD_ROSTER),
    ):
        payload = successor(four.roster, four.members(), issued_at=issued_at, expires_at=NOW + DAY)
        assert verdict(four.roster, voted(payload, parties(EE, FI, LV)), now=NOW) == expected


def log_of(**publics: bytes) -> LogKey:
    """The log key of FI, one half exchanged."""
    log = party(FI).member.log
    changed = {name: replace(getattr(log, name), public=public) for name, public in publics.items()}
    return replace(log, **changed)


@pytest.mark.parametrize(
    "shared",
    [
        {"signing_keys": party(EE).signing.public},
        {"voting_keys": party(EE).voting.public},
        {"signing_keys": party(EE).voting.public},
        {"signing_keys": party(FI).voting.public},
        {
            "signing_keys": replace(
                party(FI).signing.public, ml_dsa_65=party(EE).signing.public.ml_dsa_65
            )
        },
        {
            "signing_keys": replace(
                party(FI).signing.public, ed25519=party(EE).signing.public.ed25519
            )
        },
        {"ca": party(EE).member.ca},
        {"relay": party(EE).member.relay},
        {"relay": nkey(party(EE).signing.public.ed25519)},
        {"relay": nkey(party(FI).signing.public.ed25519)},
        {"log": log_of(ed25519=ed25519_public("EE 1 log"))},
        {"log": log_of(ml_dsa_44=party(EE).member.log.ml_dsa_44.public)},
        {"log": log_of(ed25519=party(EE).voting.public.ed25519)},
        {"log": log_signer("varde.example/ee", "FI 1 log").key},
        {"broker": party(EE).member.broker},
    ],
)
def test_attack_28_a_key_a_broker_or_a_log_name_that_occurs_twice_is_refused(
    shared: dict[str, object],
) -> None:
    members = [party(EE).member, replace(party(FI).member, **shared), party(LV).member]
    assert genesis_verdict(first_payload(members), parties(EE, FI, LV)) is Reason.BAD_ROSTER


def test_attack_28_two_seats_of_one_nation_are_refused() -> None:
    members = [party(EE).member, party(EE, 2).member, party(FI).member]
    assert genesis_verdict(first_payload(members), parties(EE, FI)) is Reason.BAD_ROSTER


@pytest.mark.parametrize("keys", ["signing", "voting"])
@pytest.mark.parametrize("low_order", [bytes(32), bytes([1]) + bytes(31), b"\xec" + b"\xff" * 31])
def test_attack_28_a_low_order_key_is_refused(keys: str, low_order: bytes) -> None:
    value = json.loads(first_payload([party(EE).member, party(FI).member]))
    value["members"][0][keys]["Ed25519"] = encode_base64url(low_order)
    assert genesis_verdict(format_json(value), parties(EE, FI)) is Reason.BAD_KEY


@pytest.mark.parametrize(
    "change",
    [
        {"relay": nkey(bytes([1]) + bytes(31))},
        {
            "log": {
                "Ed25519": vkey("varde.example/ee", bytes([1]) + bytes(31)),
                "ML-DSA-44": format_vkey(party(EE).member.log.ml_dsa_44),
            }
        },
    ],
    ids=["relay", "log"],
)
def test_attack_28_a_low_order_relay_or_log_key_is_refused(change: dict[str, object]) -> None:
    value = json.loads(first_payload([party(EE).member, party(FI).member]))
    value["members"][0] |= change
    assert genesis_verdict(format_json(value), parties(EE, FI)) is Reason.BAD_KEY


def test_attack_29_two_votes_of_one_nation_count_once(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    raw = voted(payload, parties(EE, EE, EE, FI, FI))
    assert nations_voting(parse_voted_roster(raw), four.roster) == {EE, FI}
    assert verdict(four.roster, raw) is Reason.TOO_FEW_VOTES


def spoiled(payload: bytes, each: Party, half: int) -> JsonObject:
    vote = sign_vote(payload, each.nation, each.voting)
    signatures = vote["signatures"]
    assert isinstance(signatures, list)
    damaged = signatures[half]
    assert isinstance(damaged, dict)
    damaged["signature"] = encode_base64url(bytes(len(decode_base64url(damaged["signature"]))))
    return vote


@pytest.mark.parametrize("half", [0, 1])
def test_attack_29_a_vote_with_one_good_signature_does_not_count(
    four: Federation, half: int
) -> None:
    payload = successor(four.roster, without(four, PL))
    votes: list[Json] = [spoiled(payload, party(each), half) for each in (EE, FI, LV)]
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_29_a_vote_without_its_post_quantum_half_does_not_count(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    votes: list[Json] = []
    for each in parties(EE, FI, LV):
        vote = sign_vote(payload, each.nation, each.voting)
        votes.append(vote | {"signatures": vote["signatures"][:1]})
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_29_a_relabelled_vote_does_not_count(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    vote = sign_vote(payload, EE, party(EE).voting)
    votes: list[Json] = [vote | {"member": each} for each in (EE, FI, LV)]
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_29_a_signature_that_names_another_member_does_not_count(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    votes: list[Json] = [
        {
            "member": each.nation,
            "signatures": signatures_over(
                encode_base64url(payload), Kind.VOTE, each.voting, member=member
            ),
        }
        for each, member in ((party(EE), FI), (party(FI), None), (party(LV), EE))
    ]
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


@pytest.mark.parametrize("kind", [Kind.ALERT, Kind.ROSTER])
def test_attack_29_a_document_signature_is_not_a_vote(four: Federation, kind: Kind) -> None:
    payload = successor(four.roster, without(four, PL))
    for keys in ("voting", "signing"):
        votes: list[Json] = [
            {
                "member": each.nation,
                "signatures": json.loads(sign(payload, kind, getattr(each, keys)))["signatures"],
            }
            for each in parties(EE, FI, LV)
        ]
        assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_29_a_message_key_does_not_vote(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    votes: list[Json] = [sign_vote(payload, each, party(each).signing) for each in (EE, FI, LV)]
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_29_a_vote_for_another_payload_does_not_count(four: Federation) -> None:
    other = successor(four.roster, four.members())
    payload = successor(four.roster, without(four, PL))
    votes: list[Json] = [sign_vote(other, each, party(each).voting) for each in (EE, FI, LV)]
    assert verdict(four.roster, format_voted_roster(payload, votes)) is Reason.TOO_FEW_VOTES


def test_attack_30_two_changes_at_once_are_refused(four: Federation) -> None:
    members = [*without(four, PL), party(NO).member]
    raw = voted(successor(four.roster, members), parties(EE, FI, LV, NO))
    assert verdict(four.roster, raw) is Reason.BAD_ROSTER


def test_attack_30_a_roster_of_another_federation_is_refused(four: Federation) -> None:
    payload = successor(four.roster, four.members(), federation=federation().id)
    raw = voted(payload, parties(EE, FI, LV, PL))
    assert verdict(four.roster, raw) is Reason.WRONG_FEDERATION


def test_attack_30_a_stranger_and_an_observer_have_no_vote(four: Federation) -> None:
    members = [*without(four, PL), observer(PL)]
    payload = first_payload(members)
    states = Federation(
        four.parties,
        b"",
        accept_genesis(
            parse_voted_roster(voted(payload, parties(EE, FI, LV))),
            FederationId(sha256_base64url(payload)),
        ),
    )
    renewed = successor(states.roster, states.members(), issued_at=NOW + 1)
    assert verdict(states.roster, voted(renewed, parties(EE, PL, NO))) is Reason.TOO_FEW_VOTES
    assert verdict(states.roster, voted(renewed, parties(EE, FI, NO))) == "accepted"


def test_attack_31_a_spoiled_vote_does_not_block_a_change(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    good: list[Json] = [sign_vote(payload, each, party(each).voting) for each in (EE, FI, LV)]
    junk: list[Json] = [
        7,
        {"member": "PL"},
        {"member": "pl", "signatures": []},
        {"member": "PL", "signatures": "x"},
        spoiled(payload, party(PL), 0),
        spoiled(payload, party(EE), 1),
        *(spoiled(payload, party(NO), 1) for _ in range(3)),
    ]
    assert verdict(four.roster, format_voted_roster(payload, [*junk, *good])) == "accepted"


def test_attack_31_votes_without_end_are_refused(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    assert (
        verdict(four.roster, format_voted_roster(payload, [7] * MAX_VOTES)) is Reason.TOO_FEW_VOTES
    )
    assert (
        verdict(four.roster, format_voted_roster(payload, [7] * (MAX_VOTES + 1)))
        is Reason.MALFORMED
    )


def test_attack_32_a_withheld_version_shows_in_what_the_others_send(four: Federation) -> None:
    payload = successor(four.roster, four.members())
    second = accept_next(
        four.roster, parse_voted_roster(voted(payload, parties(EE, FI, LV))), LATER
    )
    with pytest.raises(VardeError) as refused:
        four.trust.roster_named(second.reference, NOW)
    assert refused.value.reason is Reason.NEWER_ROSTER


def test_attack_33_whoever_was_away_walks_every_version_and_a_gap_stops_it(
    four: Federation,
) -> None:
    chain, raws = [four.roster], []
    for _ in range(4):
        payload = successor(chain[-1], four.members())
        raws.append(voted(payload, parties(EE, FI, LV)))
        chain.append(accept_next(chain[-1], parse_voted_roster(raws[-1]), LATER))
    current = four.roster
    for raw in raws:
        current = accept_next(current, parse_voted_roster(raw), LATER)
    assert current == chain[-1]
    assert verdict(four.roster, raws[1]) is Reason.BAD_ROSTER


def test_attack_34_a_removed_member_is_an_unknown_sender(four: Federation) -> None:
    payload = successor(four.roster, without(four, PL))
    second = accept_next(
        four.roster, parse_voted_roster(voted(payload, parties(EE, FI, LV))), LATER
    )
    late = four.document(sender=PL, to=(FI,))
    opening = four.open(four.seal(four.sign(late), late), trust=Trust(second, {1: four.roster}))
    assert getattr(opening, "reason", None) is Reason.UNKNOWN_SENDER


def test_attack_35_a_wrong_genesis_fingerprint_is_refused(four: Federation) -> None:
    with pytest.raises(VardeError) as refused:
        accept_genesis(parse_voted_roster(four.founding), federation().id)
    assert refused.value.reason is Reason.WRONG_FEDERATION


def test_attack_35_a_genesis_without_every_vote_is_refused() -> None:
    payload = first_payload([party(each).member for each in (EE, FI, LV, PL)])
    assert genesis_verdict(payload, parties(EE, FI, LV, PL)) == "accepted"
    assert genesis_verdict(payload, parties(EE, FI, LV)) is Reason.TOO_FEW_VOTES


def test_attack_35_a_later_version_is_no_genesis(four: Federation) -> None:
    payload = successor(four.roster, four.members())
    assert genesis_verdict(payload, parties(EE, FI, LV, PL)) is Reason.BAD_ROSTER


@pytest.mark.parametrize(
    ("voters", "needed"), [(2, 2), (3, 2), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (27, 19)]
)
def test_the_threshold_is_computed_from_the_number_of_members(voters: int, needed: int) -> None:
    assert threshold(voters) == needed


def test_the_hash_of_a_roster_is_that_of_its_bytes(four: Federation) -> None:
    payload = successor(four.roster, four.members())
    assert parse_roster_payload(payload).hash == sha256_base64url(payload)
    assert format_member(four.members()[0])["nation"] == "EE"
