"""The roster and the suspensions through the API: proposing, voting, forks, history, and what is refused with words."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from support.desks import Office, open_office
from support.federation import EE, FI, LV, NO, Party, federation, observer, party
from support.nodes import Clock, running_node
from varde.encoding import encode_base64url
from varde.member import format_member
from varde.proposal import Ballot, Proposal, Removal, Renewal, propose_successor
from varde.roster import (
    format_voted_roster,
    parse_roster_payload,
    parse_vote,
    parse_voted_roster,
    sign_vote,
)
from varde_gateway.flow.roster.changes import record_ballot, record_proposal
from varde_gateway.store.transaction import Transaction

pytestmark = pytest.mark.asyncio
PROPOSALS = "/v1/federation/roster/proposals"
VOTES = "/v1/federation/roster/votes"
SUSPENSIONS = "/v1/federation/suspensions"


@pytest_asyncio.fixture
async def office(new_database: Callable[[], str]) -> AsyncIterator[Office]:
    """EE of three, its voting key at the node."""
    clock, founded = Clock(), federation()
    async with (
        running_node(new_database(), founded.parties[EE], founded, clock) as node,
        open_office(node, clock) as made,
    ):
        node.desk.voting_keys = (party(EE).voting,)
        yield made


async def propose(office: Office, **order: Any) -> dict[str, Any]:
    answer = await office.post(PROPOSALS, "admin", json=order)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def payload_of(office: Office, digest: str) -> bytes:
    answer = await office.get(f"{PROPOSALS}/{digest}", "auditor")
    assert answer.status_code == 200
    return parse_voted_roster(answer.content).payload


async def vote_of(office: Office, digest: str, voter: Party) -> Any:
    return sign_vote(await payload_of(office, digest), voter.nation, voter.voting)


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


async def test_a_version_is_proposed_voted_for_and_in_force_and_told_in_the_history(
    office: Office,
) -> None:
    made = await propose(office, renew=True)
    assert made["changes"] == ["no seat changes: the roster is renewed"]
    assert (made["state"], made["votes"], made["needed"]) == ("open", [], 2)
    listed = (await office.get(PROPOSALS, "auditor")).json()
    assert [each["hash"] for each in listed["items"]] == [made["hash"]]
    assert listed["forks"] == []

    voted = await office.post(VOTES, "admin", json={"hash": made["hash"]})
    assert voted.status_code == 201
    assert voted.json()["votes"] == ["EE"]
    assert voted.json()["missing"] == ["FI", "LV"]
    assert voted.json()["voted_here"]
    brought = await vote_of(office, made["hash"], party(FI))
    accepted = await office.post(VOTES, "admin", json={"hash": made["hash"], "vote": brought})
    assert accepted.json()["state"] == "accepted"
    assert accepted.json()["waits_for"] is None

    assert (await office.get(PROPOSALS, "auditor")).json()["items"] == []
    page = (await office.get("/v1/federation/roster/history?limit=1", "officer")).json()
    assert [each["version"] for each in page["items"]] == [2]
    assert page["items"][0]["votes"] == ["EE", "FI"]
    rest = (
        await office.get(f"/v1/federation/roster/history?cursor={page['next_cursor']}", "officer")
    ).json()
    assert [each["changes"] for each in rest["items"]] == [["the federation is founded"]]
    assert rest["next_cursor"] is None
    described = (await office.get("/v1/federation", "officer")).json()["roster"]
    assert (described["version"], described["newest_seen"]) == (2, 2)
    assert not described["renewal_due"]
    assert len((await office.get("/v1/federation/roster", "officer")).json()["rosters"]) == 2


async def test_each_kind_of_change_can_be_proposed(office: Office) -> None:
    changed = format_member(party(FI, 2).member)
    for order, words in (
        ({"add": format_member(party(NO).member)}, "NO (Nation NO) joins as a member"),
        ({"add": format_member(observer(NO))}, "NO (Nation NO) joins as an observer"),
        ({"replace": changed}, "new signing keys"),
        ({"remove": "LV"}, "LV (Nation LV) is removed"),
    ):
        made = await propose(office, **order)
        assert words in made["changes"][0]


async def test_a_payload_with_votes_that_was_made_elsewhere_is_taken(office: Office) -> None:
    desk = office.node.desk
    payload = propose_successor(desk.trust.current, Removal(LV), desk.now())
    votes = [sign_vote(payload, each, party(each).voting) for each in (EE, FI)]
    voted = json.loads(format_voted_roster(payload, votes))
    assert (await propose(office, voted=voted))["state"] == "accepted"
    assert desk.trust.current.members.keys() == {EE, FI}


async def test_a_vote_for_a_rival_needs_instead(office: Office) -> None:
    first, second = await propose(office, renew=True), await propose(office, remove="LV")
    await office.post(VOTES, "admin", json={"hash": first["hash"]})
    refused = await office.post(VOTES, "admin", json={"hash": second["hash"]})
    assert "instead" in problem(refused, 409)
    meant = await office.post(VOTES, "admin", json={"hash": second["hash"], "instead": True})
    assert meant.status_code == 201


async def test_a_fork_is_shown_stops_everything_and_is_settled_by_an_administrator(
    office: Office,
) -> None:
    desk = office.node.desk
    rivals = [
        propose_successor(desk.trust.current, each, desk.now()) for each in (Renewal(), Removal(LV))
    ]
    first, second = (parse_roster_payload(each) for each in rivals)
    votes = [
        [parse_vote(sign_vote(payload, each, party(each).voting)) for each in (EE, FI)]
        for payload in rivals
    ]

    def bring(tx: Transaction) -> None:
        for payload, roster, cast in zip(rivals, (first, second), votes, strict=True):
            record_proposal(tx, desk, FI, Proposal(payload, roster))
            record_ballot(tx, desk, FI, Ballot(roster.version, roster.hash, tuple(cast)))

    await desk.ledger.write(bring)
    listed = (await office.get(PROPOSALS, "auditor")).json()
    assert sorted(each["hash"] for each in listed["forks"]) == sorted([first.hash, second.hash])
    path = "/v1/federation/roster/forks/{}/follow"
    other = await office.post(path.format(second.hash), "admin")
    assert "only that one can be chosen" in problem(other, 409)
    settled = await office.post(path.format(first.hash), "admin")
    assert settled.json()["forks"] == []
    unknown = await office.post(f"/v1/federation/roster/forks/{'A' * 43}/follow", "admin")
    assert "no side of an open fork" in problem(unknown, 409)


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"renew": True, "remove": "LV"},
        {"renew": False},
        {"remove": "lv"},
        {"add": {"nation": "NO"}},
        {"voted": {"payload": "e30", "votes": []}},
        {"remove": "NO"},
        {"what": 1},
    ],
)
async def test_a_proposal_that_breaks_a_rule_is_refused_with_words(
    office: Office, order: dict[str, Any]
) -> None:
    await office.token("admin")
    rows = await office.rows()
    assert len(problem(await office.post(PROPOSALS, "admin", json=order), 422)) > 10
    assert await office.rows() == rows


async def test_a_vote_that_does_not_hold_or_has_nothing_to_be_for_is_refused(
    office: Office,
) -> None:
    made = await propose(office, renew=True)
    stranger = await vote_of(office, made["hash"], party(NO))
    wrong = await office.post(VOTES, "admin", json={"hash": made["hash"], "vote": stranger})
    assert "does not hold" in problem(wrong, 422)
    nothing = await office.post(VOTES, "admin", json={"hash": encode_base64url(bytes(32))})
    assert "no proposal" in problem(nothing, 404)
    office.node.desk.voting_keys = ()
    apart = await office.post(VOTES, "admin", json={"hash": made["hash"]})
    assert "another machine" in problem(apart, 422)


async def test_a_peer_is_suspended_shown_and_restored(office: Office) -> None:
    order = {"nation": "LV", "reason": "Its key was stolen."}
    made = await office.post(SUSPENSIONS, "admin", json=order)
    assert made.status_code == 201
    assert made.json()["suspended_by"] == "EE"
    again = await office.post(SUSPENSIONS, "admin", json=order)
    assert "already" in problem(again, 409)
    listed = (await office.get(SUSPENSIONS, "officer")).json()["items"]
    assert [(each["nation"], each["reason"]) for each in listed] == [("LV", order["reason"])]
    members = (await office.get("/v1/federation", "officer")).json()["members"]
    assert [each["nation"] for each in members if each["suspended"]] == ["LV"]
    alert = await office.post(
        "/v1/alerts", "operator", json={"to": ["LV"], "tlp": "AMBER", "alert": {}}
    )
    assert "suspended by this nation" in problem(alert, 422)

    ended = await office.call("DELETE", f"{SUSPENSIONS}/LV", "admin")
    assert ended.json()["items"] == []
    assert "not suspended" in problem(
        await office.call("DELETE", f"{SUSPENSIONS}/LV", "admin"), 404
    )
    assert "not a peer" in problem(
        await office.post(SUSPENSIONS, "admin", json={"nation": "NO", "reason": "x"}), 422
    )


async def test_an_expired_roster_is_said_loudly_and_alerts_go_on(office: Office) -> None:
    office.clock.forward(61 * 24 * 3600)
    office.tokens.clear()
    described = (await office.get("/v1/federation", "officer")).json()["roster"]
    assert described["expired"]
    assert described["renewal_due"]
    assert (await propose(office, renew=True))["state"] == "open"
