"""The roster of a running federation changes by votes, over the real flow of several nodes stepped by hand."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event, func, select

from support.federation import (
    DAY,
    EE,
    FI,
    LT,
    LV,
    NO,
    PL,
    Party,
    federation,
    party,
)
from support.nodes import Clock, carry, exchange_heartbeats, running_node, settle
from support.voters import (
    TellingBroker,
    Voter,
    World,
    alert,
    audited,
    count,
    events,
    has,
    listed,
    payload_of,
    send_raw,
    vote_by,
    world,
)
from varde.encoding import sha256_base64url
from varde.errors import Reason, Untrusted
from varde.identifiers import FederationId, Lane, Nation
from varde.member import Member
from varde.proposal import (
    Addition,
    Ballot,
    Removal,
    Renewal,
    Replacement,
    format_ballot,
    format_proposal,
    propose_successor,
)
from varde.roster import (
    GRACE_SECONDS,
    format_vote,
    parse_roster_payload,
    parse_vote,
    parse_voted_roster,
)
from varde.signing import Kind
from varde_gateway.flow.compose import compose
from varde_gateway.flow.desk import HeldKeys
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.roster.ballot_box import MAX_PROPOSALS, MAX_VOTES, read_proposal
from varde_gateway.flow.roster.changes import settle_fork, unsettled_forks
from varde_gateway.flow.roster.prekeys import renew_prekeys
from varde_gateway.flow.roster.suspensions import restore, suspend
from varde_gateway.flow.roster.trust import load_trust, rosters_after, rosters_for_relay
from varde_gateway.flow.roster.trust_followers import TrustFollower, bring_up_to_date
from varde_gateway.flow.roster.voting import (
    bring_vote,
    cast_vote,
    proposal_file,
    propose,
    put_forward,
)
from varde_gateway.store.tables import (
    deliveries_table,
    roster_proposals_table,
    roster_votes_table,
)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def three(new_database: Callable[[], str]) -> AsyncIterator[World]:
    async with world(new_database, [EE, FI, LV]) as made:
        yield made


@pytest_asyncio.fixture
async def four(new_database: Callable[[], str]) -> AsyncIterator[World]:
    """EE, FI, LV and PL, and NO that has a home but no seat yet: three votes of four change the roster."""
    async with world(new_database, [EE, FI, LV, PL], [NO]) as made:
        yield made


async def test_attack_25_a_nation_joins_by_the_votes_of_the_threshold_and_not_by_one_fewer(
    four: World,
) -> None:
    digest = await four.propose(EE, Addition(party(NO).member))
    await four.run()
    newcomer = vote_by(party(NO), await payload_of(four[EE], digest))
    await bring_vote(four[EE].node.desk, digest, newcomer, instead=False, actor="admin")
    await four.vote(EE, digest)
    await four.vote(FI, digest)
    await four.run()
    assert [each.version for each in four.voters.values()] == [1] * 5
    (shown,) = await listed(four[LV])
    assert shown["votes"] == ["EE", "FI", "NO"]
    assert shown["missing"] == ["LV", "PL"]
    assert shown["changes"] == ["NO (Nation NO) joins as a member, at tls://no.example:4222"]
    assert "2 of 3 votes" in shown["waits_for"]

    answer = await four.vote(PL, digest)
    assert answer["state"] == "accepted"
    await four.run()
    assert [each.version for each in four.voters.values()] == [2] * 5
    assert {each.roster.hash for each in four.voters.values()} == {digest}
    await four.run_again()
    there, back = await alert(four[EE], NO), await alert(four[NO], EE, PL)
    await four.run()
    assert await has(four[NO], there)
    assert await has(four[EE], back)
    assert await has(four[PL], back)


async def test_a_newcomer_needs_its_own_vote(four: World) -> None:
    digest = await four.propose(EE, Addition(party(NO).member))
    await four.run()
    for nation in (EE, FI, LV, PL):
        await four.vote(nation, digest)
    await four.run()
    assert four[EE].version == 1
    (shown,) = await listed(four[EE])
    assert "NO did not vote with its own keys" in shown["waits_for"]


async def test_before_it_has_a_seat_a_newcomer_sends_nothing(four: World) -> None:
    assert not four[NO].node.desk.own_prekeys
    with pytest.raises(Invalid, match="has no seat"):
        await alert(four[NO], EE)


async def test_a_nation_is_removed_by_the_votes_of_the_others_and_its_documents_are_refused(
    four: World,
) -> None:
    """Attacks 25 and 34: the removed member keeps sending, under the roster that still names it."""
    waiting = await alert(four[EE], PL)
    digest = await four.propose(EE, Removal(PL))
    others = (EE, FI, LV)
    await four.run(*others)
    for nation in others:
        await four.vote(nation, digest)
        await four.run(*others)
    assert four[EE].version == 2
    assert PL not in four[EE].roster.members
    desk = four[EE].node.desk
    (state,) = await desk.ledger.read(
        lambda c: c.execute(
            select(deliveries_table.c.state, deliveries_table.c.open).where(
                deliveries_table.c.document_id == waiting
            )
        ).all()
    )
    assert not state.open
    assert four[PL].version == 1
    late = await alert(four[PL], EE)
    await four[PL].node.work()
    await carry(four[PL].node, four[EE].node)
    await four.run()
    assert not await has(four[EE], late)
    assert {*four[EE].node.refused} == {Reason.UNKNOWN_SENDER}


async def test_attack_25_one_nation_alone_cannot_remove_another(three: World) -> None:
    digest = await three.propose(EE, Removal(LV))
    await three.vote(EE, digest)
    await three.run()
    assert {each.version for each in three.voters.values()} == {1}


def with_keys(nation: Nation, generation: int) -> tuple[Member, Party]:
    fresh = party(nation, generation)
    return replace(party(nation).member, signing_keys=fresh.signing.public), fresh


async def test_message_keys_change_at_the_moment_the_version_is_accepted(three: World) -> None:
    seat, fresh = with_keys(FI, 2)
    desk = three[FI].node.desk
    desk.next_keys = fresh.signing
    before = await alert(three[FI], EE, LV)
    await three[FI].node.work()
    await three.change(Replacement(seat), FI, EE)
    assert three[FI].version == 2
    assert desk.keys_under(three[FI].roster) is fresh.signing
    after = await alert(three[FI], EE, LV)
    await three.run()
    for nation in (EE, LV):
        assert await has(three[nation], before), "signed before, arrived after: the grace holds"
        assert await has(three[nation], after)
    answer = await alert(three[EE], FI)
    await three.run()
    assert await has(three[FI], answer), "its prekeys were announced again under the new keys"


async def test_keys_rotated_beside_a_running_node_are_found_before_they_are_needed(
    three: World,
) -> None:
    seat, fresh = with_keys(FI, 2)
    seat = replace(seat, voting_keys=fresh.voting.public)
    desk = three[FI].node.desk
    old = party(FI)
    desk.hold_keys = lambda: HeldKeys(old.signing, fresh.signing, (old.voting, fresh.voting))
    await three.change(Replacement(seat), FI, EE)
    assert three[EE].version == 2
    assert desk.next_keys is fresh.signing
    after = await alert(three[FI], EE)
    await three.run()
    assert await has(three[EE], after)


async def test_a_nation_whose_key_was_stolen_is_suspended_gets_new_keys_by_votes_and_is_restored(
    three: World,
) -> None:
    """The procedure of the operations handbook: nobody hears FI until its new keys are in force."""
    seat, fresh = with_keys(FI, 2)
    others = (EE, LV)
    for nation in others:
        await suspend(three[nation].node.desk, FI, "Its key was stolen.", actor="admin")
    await three.run()
    digest = await three.propose(EE, Replacement(seat))
    offline = vote_by(party(FI), await payload_of(three[EE], digest))
    await bring_vote(three[EE].node.desk, digest, offline, instead=False, actor="admin")
    await three.vote(EE, digest)
    await three.run()
    assert [three[each].version for each in (EE, FI, LV)] == [2, 1, 2]
    three[FI].node.desk.next_keys = fresh.signing
    three.clock.forward(GRACE_SECONDS + 1)
    for nation in others:
        await restore(three[nation].node.desk, FI, actor="admin")
    await three.run()
    assert three[FI].version == 2
    for voter in three.voters.values():
        await renew_prekeys(voter.node.desk)
    await three.run_again()
    there, back = await alert(three[EE], FI), await alert(three[FI], EE, LV)
    await three.run()
    assert await has(three[FI], there)
    assert await has(three[EE], back)
    assert await has(three[LV], back)


async def test_a_seat_is_not_changed_without_its_own_vote(four: World) -> None:
    digest = await four.propose(EE, Replacement(with_keys(PL, 2)[0]))
    await four.run()
    for nation in (EE, FI, LV):
        await four.vote(nation, digest)
    await four.run()
    assert four[EE].version == 1


async def test_an_address_changes_and_the_relay_is_told_only_what_is_new(three: World) -> None:
    moved = replace(party(LV).member, broker="tls://new.lv.example:4222")
    await three.change(Replacement(moved), LV, EE)
    for voter in three.voters.values():
        assert voter.roster.members[LV].broker == "tls://new.lv.example:4222"
        (told,) = voter.broker.told
        (raw,) = told["rosters"]
        assert parse_roster_payload(parse_voted_roster(raw.encode()).payload) == voter.roster
        assert voter.broker.streams == 1


async def test_the_roster_is_renewed_also_after_it_has_expired(three: World) -> None:
    three.clock.forward(61 * DAY)
    assert three.clock() // 1000 > three[EE].roster.expires_at
    for voter in three.voters.values():
        await voter.follower.follow()
    await three.run()
    during = await alert(three[EE], FI)
    await three.change(Renewal(), EE, LV)
    assert {each.version for each in three.voters.values()} == {2}
    assert three[EE].roster.expires_at == three.clock() // 1000 + 90 * DAY
    assert await has(three[FI], during), "an expired roster does not keep an alert"


async def test_attack_33_ten_versions_behind_a_node_catches_up_through_expired_ones(
    three: World,
) -> None:
    """LV was off for months: every version between has expired or gone out of grace."""
    for _ in range(10):
        three.clock.forward(10 * DAY)
        digest = await three.propose(EE, Renewal())
        await three.run(EE, FI)
        await three.vote(EE, digest)
        await three.run(EE, FI)
        await three.vote(FI, digest)
        await three.run(EE, FI)
    assert (three[EE].version, three[LV].version) == (11, 1)
    # What was queued for LV then has expired; nobody resends it by itself.
    three.clock.forward(100 * DAY)
    await three.run(EE, FI)
    three.clock.forward(11)
    assert await bring_up_to_date(three[EE].node.desk, LV, three[LV].version) == 8
    await three.run()
    assert three[LV].version == 9
    assert await bring_up_to_date(three[EE].node.desk, LV, 9) == 0, "not within ten seconds"
    three.clock.forward(11)
    assert await bring_up_to_date(three[EE].node.desk, LV, 9) == 2
    assert await bring_up_to_date(three[EE].node.desk, LV, 9) == 0
    await three.run()
    assert three[LV].version == 11
    assert three[LV].roster == three[EE].roster
    for voter in three.voters.values():
        await renew_prekeys(voter.node.desk)
    await three.run()
    told = await alert(three[LV], EE)
    await three.run()
    assert await has(three[EE], told)


async def test_attack_32_a_withheld_version_shows_in_what_the_peers_say(three: World) -> None:
    cut = [frozenset((EE, LV)), frozenset((FI, LV))]
    digest = await three.propose(EE, Renewal())
    await three.run(EE, FI)
    for nation in (EE, FI):
        if three[nation].version == 1:
            await three.vote(nation, digest)
            await three.run(EE, FI, cut=cut)
    assert (three[EE].version, three[LV].version) == (2, 1)
    # Whoever stands between drops proposals and votes, and lets the heartbeats pass.
    three[EE].node.broker.out.clear()
    three[FI].node.broker.out.clear()
    three.clock.forward(11)
    await exchange_heartbeats([each.node for each in three.voters.values()])
    link = three[LV].node.desk.links.of(EE, three.clock())
    assert link.roster_version == 2


async def test_attack_33_a_gap_in_the_chain_waits_for_what_is_missing(three: World) -> None:
    first = three[EE].roster
    second = propose_successor(first, Renewal(), three.clock() // 1000)
    third = propose_successor(parse_roster_payload(second), Renewal(), three.clock() // 1000)
    voters = [party(EE), party(FI)]
    for payload in (third, second):
        assert three[LV].version == 1
        claimed = parse_roster_payload(payload)
        votes = tuple(vote_by(each, payload) for each in voters)
        await send_raw(
            three[EE],
            Kind.VOTE,
            format_ballot(Ballot(claimed.version, claimed.hash, votes)),
            LV,
            FI,
        )
        await three.run()
        await send_raw(three[EE], Kind.ROSTER, format_proposal(payload), LV, FI)
        await three.run()
    assert (three[LV].version, three[FI].version) == (3, 3)


async def test_votes_may_come_before_their_proposal(three: World) -> None:
    payload = propose_successor(three[EE].roster, Renewal(), three.clock() // 1000)
    roster = parse_roster_payload(payload)
    votes = tuple(vote_by(party(each), payload) for each in (EE, FI))
    await send_raw(three[EE], Kind.VOTE, format_ballot(Ballot(2, roster.hash, votes)), LV)
    await three.run()
    assert await count(three[LV], roster_votes_table) == 2
    await send_raw(three[FI], Kind.ROSTER, format_proposal(payload), LV)
    await three.run()
    assert three[LV].version == 2
    assert await count(three[LV], roster_votes_table) == 0
    assert await count(three[LV], roster_proposals_table) == 0


async def test_attack_31_a_spoiled_vote_is_ignored_wherever_it_comes_from(three: World) -> None:
    """A hostile FI spoils LV's vote before LV votes, before and after the proposal is known."""
    payload = propose_successor(three[EE].roster, Renewal(), three.clock() // 1000)
    digest = parse_roster_payload(payload).hash
    genuine = format_vote(vote_by(party(LV), payload))
    other = format_vote(vote_by(party(LV), payload + b" "))
    spoiled = parse_vote({"member": "LV", "signatures": other["signatures"]})
    ballot = format_ballot(Ballot(2, digest, (spoiled,)))
    await send_raw(three[FI], Kind.VOTE, ballot, EE, LV)
    await three.run()
    await put_forward(three[EE].node.desk, payload, [], actor="admin")
    await three.run()
    await send_raw(three[FI], Kind.VOTE, ballot, EE, LV)
    await three.vote(EE, digest)
    await three.run()
    assert three[EE].version == 1
    (shown,) = await listed(three[EE])
    assert shown["votes"] == ["EE"]
    await bring_vote(three[EE].node.desk, digest, parse_vote(genuine), instead=False, actor="admin")
    await three.run()
    assert {each.version for each in three.voters.values()} == {2}


async def test_attack_29_a_vote_counts_once_however_often_it_is_given(four: World) -> None:
    digest = await four.propose(EE, Renewal())
    await four.run()
    for _ in range(4):
        await four.vote(EE, digest)
        await four.run()
    assert four[EE].version == 1
    assert (await listed(four[FI]))[0]["votes"] == ["EE"]


async def test_attack_26_two_rosters_of_one_version_with_votes_are_kept_and_neither_is_followed(
    three: World,
) -> None:
    now = three.clock() // 1000
    first = three[EE].roster
    rivals = [propose_successor(first, each, now) for each in (Renewal(), Removal(FI))]
    digests = [parse_roster_payload(each).hash for each in rivals]
    # EE and FI, hostile, vote for both; LV hears of the votes first and cannot tell which came first.
    for payload, digest in zip(rivals, digests, strict=True):
        votes = tuple(vote_by(party(each), payload) for each in (EE, LV))
        await send_raw(three[EE], Kind.VOTE, format_ballot(Ballot(2, digest, votes)), LV)
    await three.run(EE, LV)
    await send_raw(three[EE], Kind.ROSTER, format_proposal(rivals[0]), LV)
    await three.run(EE, LV)
    assert three[LV].version == 2
    await send_raw(three[EE], Kind.ROSTER, format_proposal(rivals[1]), LV)
    await three.run(EE, LV)
    assert (three[LV].version, three[LV].roster.hash) == (2, digests[0])
    (alarm,) = await events(three[LV], "roster_fork")
    assert sorted(alarm["hashes"]) == sorted(digests)
    assert len(await audited(three[LV], "roster_forked")) == 1
    forks = await three[LV].node.desk.ledger.read(unsettled_forks)
    assert sorted(each for each, _, _ in forks) == sorted(digests)

    payload = propose_successor(three[LV].roster, Renewal(), now)
    digest = parse_roster_payload(payload).hash
    await put_forward(three[LV].node.desk, payload, [], actor="admin")
    await three.vote(LV, digest)
    await bring_vote(
        three[LV].node.desk, digest, vote_by(party(EE), payload), instead=False, actor="admin"
    )
    assert three[LV].version == 2, "nothing further is accepted"

    ledger, desk = three[LV].node.desk.ledger, three[LV].node.desk
    assert not await ledger.write(lambda tx: settle_fork(tx, desk, digests[1], "admin"))
    assert await ledger.write(lambda tx: settle_fork(tx, desk, digests[0], "admin"))
    await three.run(LV)
    assert three[LV].version == 3
    assert len(await audited(three[LV], "roster_forked")) == 2


async def test_attack_26_a_fork_that_shows_before_either_is_accepted_stops_both(
    three: World,
) -> None:
    now = three.clock() // 1000
    rivals = [propose_successor(three[EE].roster, each, now) for each in (Renewal(), Removal(FI))]
    desk = three[LV].node.desk
    for payload in rivals:
        await put_forward(desk, payload, [], actor="admin")
        await bring_vote(
            desk,
            parse_roster_payload(payload).hash,
            vote_by(party(EE), payload),
            instead=False,
            actor="admin",
        )
    # Both become decisive in one step.
    desk.voting_keys = (party(LV).voting,)
    digests = [parse_roster_payload(each).hash for each in rivals]
    from_both = [vote_by(party(LV), each) for each in rivals]

    def both(tx: Any) -> None:
        for digest, vote in zip(digests, from_both, strict=True):
            tx.connection.execute(
                roster_votes_table.insert(),
                {
                    "hash": digest,
                    "nation": "LV",
                    "key": party(LV).voting.public.ed25519_kid,
                    "carried_by": "LV",
                    "version": 2,
                    "vote": json.dumps(format_vote(vote)),
                    "received_at": tx.now,
                },
            )

    await desk.ledger.write(both)
    await three[LV].follower.follow()
    assert three[LV].version == 1
    assert len(await desk.ledger.read(unsettled_forks)) == 2
    assert {each["state"] for each in await listed(three[LV])} == {"forked"}
    assert await desk.ledger.write(lambda tx: settle_fork(tx, desk, digests[1], "admin"))
    await three.run(LV)
    assert (three[LV].version, three[LV].roster.hash) == (2, digests[1])


async def test_a_second_vote_for_a_rival_needs_to_be_meant(three: World) -> None:
    first = await three.propose(EE, Renewal())
    second = await three.propose(EE, Removal(FI))
    await three.vote(EE, first)
    with pytest.raises(Conflict, match="instead"):
        await three.vote(EE, second)
    offline = vote_by(party(EE), await payload_of(three[EE], second))
    desk = three[EE].node.desk
    with pytest.raises(Conflict, match="instead"):
        await bring_vote(desk, second, offline, instead=False, actor="admin")
    answer = await three.vote(EE, second, instead=True)
    assert answer["voted_here"]


async def test_a_member_cannot_fill_the_tables_nor_push_out_what_others_brought(
    three: World,
) -> None:
    digest = await three.propose(EE, Renewal())
    await three.run()
    now = three.clock() // 1000
    base = three[EE].roster
    for number in range(MAX_PROPOSALS + 3):
        payload = propose_successor(base, Renewal(), now + number + 1)
        await send_raw(three[FI], Kind.ROSTER, format_proposal(payload), LV)
        if number == 0:
            # Also what EE proposed, under its own name, to have it pushed out with the rest.
            await send_raw(
                three[FI], Kind.ROSTER, format_proposal(await payload_of(three[EE], digest)), LV
            )
    await three.run()
    by_nation = await three[LV].node.desk.ledger.read(
        lambda c: dict(
            c.execute(
                select(roster_proposals_table.c.proposed_by, func.count()).group_by(
                    roster_proposals_table.c.proposed_by
                )
            ).all()
        )
    )
    assert by_nation == {"EE": 1, "FI": MAX_PROPOSALS}
    assert digest in {each["hash"] for each in await listed(three[LV])}
    signatures = format_vote(vote_by(party(FI), b"anything"))["signatures"]
    strangers = [f"X{number:02d}" for number in range(32)]
    votes = tuple(parse_vote({"member": each, "signatures": signatures}) for each in strangers)
    for number in range(MAX_VOTES // len(votes) + 2):
        unknown = sha256_base64url(b"%d" % number)
        await send_raw(three[FI], Kind.VOTE, format_ballot(Ballot(3, unknown, votes)), LV)
    await three.run()
    assert await count(three[LV], roster_votes_table) == MAX_VOTES
    far = propose_successor(replace(base, version=base.version + 80), Renewal(), now)
    await send_raw(three[FI], Kind.ROSTER, format_proposal(far), LV)
    await three.run()
    assert parse_roster_payload(far).hash not in {each["hash"] for each in await listed(three[LV])}


@asynccontextmanager
async def payloads_read(voter: Voter) -> AsyncIterator[list[str]]:
    """The statements that look for a stored proposal to take it into memory."""
    engine, found = voter.node.desk.ledger._writer, []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("SELECT") and "roster_proposal.payload" in statement:
            found.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_what_lacks_votes_is_not_read_again_with_every_document(three: World) -> None:
    """Large proposals of a hostile FI, told over and over, and votes for nothing: no work for the writer of LV."""
    now, base = three.clock() // 1000, three[EE].roster
    payloads = [propose_successor(base, Renewal(), now + each) for each in range(8)]
    for payload in payloads:
        await send_raw(three[FI], Kind.ROSTER, format_proposal(payload), LV)
    await three.run()
    assert await count(three[LV], roster_proposals_table) == len(payloads)
    parsed = read_proposal.cache_info().misses
    async with payloads_read(three[LV]) as read:
        for number, payload in enumerate(payloads):
            for carrier in (FI, EE):
                await send_raw(three[carrier], Kind.ROSTER, format_proposal(payload), LV)
            digest = sha256_base64url(b"%d" % number)
            stranger = vote_by(party(NO, number + 1), payload)
            await send_raw(three[FI], Kind.VOTE, format_ballot(Ballot(2, digest, (stranger,))), LV)
        await settle([each.node for each in three.voters.values()])
    assert len(read) == len(payloads), "what the strangers' votes are for, which is not there"
    assert len(await audited(three[LV], "roster_proposed")) == len(payloads)
    assert read_proposal.cache_info().misses == parsed
    # A vote that may count is verified, and the one proposal read for it; the spoiled ones are not kept.
    async with payloads_read(three[LV]) as read:
        for payload in payloads:
            digest = parse_roster_payload(payload).hash
            votes = (vote_by(party(FI), payload), vote_by(party(LV, 2), payload))
            await send_raw(three[FI], Kind.VOTE, format_ballot(Ballot(2, digest, votes)), LV)
        await settle([each.node for each in three.voters.values()])
    assert len(read) == len(payloads)
    assert read_proposal.cache_info().misses == parsed
    assert [each["votes"] for each in await listed(three[LV])] == [["FI"]] * len(payloads)


async def test_what_lacks_votes_has_nobody_write_while_it_waits(four: World) -> None:
    digest = await four.propose(EE, Addition(party(NO).member))
    await four.run()
    for nation in (EE, FI, LV, PL):
        await four.vote(nation, digest)
    await four.run()
    assert (await listed(four[FI]))[0]["missing"] == ["NO"]
    commits = four[FI].node.desk.ledger.commits
    for _ in range(5):
        await four[FI].follower.follow()
    assert four[FI].node.desk.ledger.commits == commits


async def test_early_votes_are_verified_when_their_proposal_comes(three: World) -> None:
    payload = propose_successor(three[EE].roster, Renewal(), three.clock() // 1000)
    digest = parse_roster_payload(payload).hash
    spoiled = (vote_by(party(LV), payload + b" "),)
    await send_raw(three[FI], Kind.VOTE, format_ballot(Ballot(2, digest, spoiled)), LV)
    genuine = (vote_by(party(EE), payload),)
    await send_raw(three[EE], Kind.VOTE, format_ballot(Ballot(2, digest, genuine)), LV)
    await three.run()
    assert await count(three[LV], roster_votes_table) == 2
    await send_raw(three[FI], Kind.ROSTER, format_proposal(payload), LV)
    await three.run()
    assert three[LV].version == 1
    assert await count(three[LV], roster_votes_table) == 1
    await three.vote(LV, digest)
    assert three[LV].version == 2


async def test_a_vote_whose_header_is_no_header_stops_nothing_else(three: World) -> None:
    payload = propose_successor(three[EE].roster, Renewal(), three.clock() // 1000)
    digest = parse_roster_payload(payload).hash
    genuine = vote_by(party(FI), payload)
    ed25519 = replace(genuine.signatures.ed25519, protected="!")
    without = replace(genuine, signatures=replace(genuine.signatures, ed25519=ed25519))
    await send_raw(three[FI], Kind.VOTE, format_ballot(Ballot(2, digest, (genuine, without))), LV)
    beside = await alert(three[EE], LV)
    await three.run()
    assert await has(three[LV], beside)
    assert await count(three[LV], roster_votes_table) == 1


async def test_a_crash_between_the_last_vote_and_its_effect_changes_nothing(
    new_database: Callable[[], str],
) -> None:
    """What is committed is found again at the next start: the vote with its version, or neither."""
    clock, url = Clock(), new_database()
    founded = federation()
    async with running_node(url, party(LV), founded, clock) as node:
        payload = propose_successor(node.desk.trust.current, Renewal(), clock() // 1000)
        votes = [vote_by(party(each), payload) for each in (EE, FI)]
        await put_forward(node.desk, payload, votes, actor="admin")
        assert node.desk.trust.current.version == 2
        raw = await rosters_for_relay(node.desk.ledger)
    async with running_node(url, party(LV), founded, clock) as again:
        assert again.desk.trust.current.version == 2
        assert again.desk.trust.earlier.keys() == {1}
        assert await rosters_for_relay(again.desk.ledger) == raw
        trust = await load_trust(again.desk.ledger, founded.id, [], clock() // 1000)
        assert trust == again.desk.trust


async def test_a_version_dated_ahead_waits_for_the_clock(three: World) -> None:
    soon = three.clock() // 1000 + 900
    payload = propose_successor(three[EE].roster, Renewal(), soon)
    votes = [vote_by(party(each), payload) for each in (EE, FI)]
    await put_forward(three[LV].node.desk, payload, votes, actor="admin")
    assert three[LV].version == 1
    three.clock.forward(901)
    await three[LV].follower.follow()
    assert three[LV].version == 2


async def test_another_replica_takes_over_what_was_accepted_and_suspended(
    new_database: Callable[[], str],
) -> None:
    clock, url = Clock(), new_database()
    founded = federation()
    async with running_node(url, party(LV), founded, clock) as one:
        payload = propose_successor(one.desk.trust.current, Renewal(), clock() // 1000)
        desk = replace(one.desk)
        other = TrustFollower(desk, broker := TellingBroker())
        votes = [vote_by(party(each), payload) for each in (EE, FI)]
        await put_forward(one.desk, payload, votes, actor="admin")
        assert desk.trust.current.version == 1
        await other.follow()
        assert desk.trust.current.version == 2
        assert len(broker.told) == 1


async def test_what_the_voter_sends_on_reaches_whom_the_proposer_does_not(four: World) -> None:
    cut = [frozenset((EE, LV)), frozenset((EE, PL))]
    digest = await four.propose(EE, Addition(party(NO).member))
    newcomer = vote_by(party(NO), await payload_of(four[EE], digest))
    await bring_vote(four[EE].node.desk, digest, newcomer, instead=False, actor="admin")
    await four.vote(EE, digest)
    await four.run(cut=cut)
    assert await listed(four[PL]) == []
    await four.vote(FI, digest)
    await four.run(cut=cut)
    (shown,) = await listed(four[PL])
    assert shown["votes"] == ["EE", "FI", "NO"]
    await four.vote(LV, digest)
    await four.run(cut=cut)
    assert [four[each].version for each in (EE, FI, LV, PL)] == [1, 2, 2, 2]
    # EE's heartbeat shows FI that it is behind.
    assert await bring_up_to_date(four[FI].node.desk, EE, 1) == 1
    await four.run(cut=cut)
    assert four[EE].version == 2


async def test_a_vote_made_on_another_machine_is_brought_back_as_a_file(three: World) -> None:
    desk = three[FI].node.desk
    desk.voting_keys = ()
    digest = await three.propose(EE, Renewal())
    await three.run()
    with pytest.raises(Invalid, match="another machine"):
        await three.vote(FI, digest)
    sheet: Any = await desk.ledger.read(lambda c: proposal_file(c, desk, digest))
    proposal = parse_voted_roster(json.dumps(sheet).encode())
    made_offline = vote_by(party(FI), proposal.payload)
    await bring_vote(desk, digest, made_offline, instead=False, actor="admin")
    await three.vote(EE, digest)
    await three.run()
    assert {each.version for each in three.voters.values()} == {2}


async def test_what_does_not_follow_or_does_not_hold_is_refused_with_words(three: World) -> None:
    desk = three[EE].node.desk
    payload = propose_successor(three[EE].roster, Renewal(), desk.now())
    for wrong in (
        put_forward(desk, b"{}", [], actor="admin"),
        put_forward(desk, payload, [vote_by(party(LT), payload)], actor="admin"),
        propose(desk, Removal(NO), actor="admin"),
    ):
        with pytest.raises(Invalid):
            await wrong
    later = propose_successor(parse_roster_payload(payload), Renewal(), desk.now())
    with pytest.raises(Conflict, match="does not follow"):
        await put_forward(desk, later, [], actor="admin")
    with pytest.raises(NotFound):
        await cast_vote(desk, "A" * 43, instead=False, actor="admin")


async def test_prekeys_signed_with_replaced_keys_are_not_taken(three: World) -> None:
    """Whoever stole FI's former keys may still date a document back, but not choose what others seal for."""
    seat, fresh = with_keys(FI, 2)
    three[FI].node.desk.next_keys = fresh.signing
    thief = replace(three[FI].node.desk, outgoing=three[FI].node.desk.outgoing)
    await three.change(Replacement(seat), FI, EE)
    genuine = three[EE].node.desk.peer_prekeys[FI]
    thief.next_keys = None
    from_before = await compose(
        thief,
        Kind.PREKEYS,
        [EE],
        {"seq": thief.now_ms() + DAY * 1000, "keys": []},
        lane=Lane.URGENT,
        life_seconds=3600,
    )
    assert from_before.document.roster.version == 1
    assert three.clock() // 1000 < three[EE].roster.issued_at + GRACE_SECONDS
    three[FI].node.broker.out.setdefault(
        (EE, Lane.URGENT), three[FI].node.broker.out[EE, Lane.URGENT]
    )
    three[FI].node.broker.out[EE, Lane.URGENT].append((from_before.raw, None))
    await three.run()
    assert three[EE].node.desk.peer_prekeys[FI] == genuine


async def test_attack_35_a_first_start_with_a_wrong_fingerprint_is_refused(
    new_database: Callable[[], str],
) -> None:
    founded = federation()
    async with running_node(new_database(), party(EE), founded, Clock()) as node:
        rows = await node.desk.ledger.read(rosters_after)
    wrong = replace(founded, roster=replace(founded.roster, federation=FederationId("A" * 43)))
    with pytest.raises(Untrusted) as refused:
        async with running_node(new_database(), party(EE), wrong, Clock()):
            raise AssertionError("it must not start")
    assert refused.value.reason is Reason.WRONG_FEDERATION
    assert [row.raw for row in rows] == [founded.founding]
