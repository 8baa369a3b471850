"""The roster by vote: what may be voted on, votes, the versions so far; and the suspensions of this nation."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from varde.encoding import Json, JsonObject, format_json
from varde.identifiers import parse_nation
from varde.member import parse_member
from varde.proposal import Addition, Change, Removal, Renewal, Replacement
from varde.roster import parse_vote, parse_voted_roster
from varde_gateway.flow.faults import Conflict
from varde_gateway.flow.roster.changes import settle_fork
from varde_gateway.flow.roster.history import describe_history
from varde_gateway.flow.roster.suspensions import (
    own_suspensions,
    peer_suspensions,
    restore,
    suspend,
)
from varde_gateway.flow.roster.voting import (
    bring_vote,
    cast_vote,
    describe_forks,
    describe_proposals,
    proposal_file,
    propose,
    put_forward,
)
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.ledger import Ledger
from varde_gateway.web.answers import answers, json_answer, takes
from varde_gateway.web.deps import (
    Asking,
    CursorText,
    Limit,
    Node,
    format_cursor,
    parse_number_cursor,
    read_body,
)
from varde_gateway.web.roster_schemas import (
    DIGEST,
    ProposalOrder,
    ProposalPage,
    ProposalView,
    RosterFile,
    RosterHistory,
    SuspensionOrder,
    SuspensionPage,
    SuspensionView,
    VoteOrder,
)
from varde_gateway.web.schemas import NATION

router = APIRouter(prefix="/v1/federation", tags=["federation"])

DigestPath = Annotated[str, Path(pattern=DIGEST)]
NationPath = Annotated[str, Path(pattern=NATION)]


@router.get(
    "/roster/history",
    summary="The versions so far",
    responses=answers(200, RosterHistory, "A page of versions, the newest first."),
)
async def history(parts: Node, limit: Limit = 50, cursor: CursorText = None) -> Response:
    """Every version that this node has accepted, what it changed, and by whose votes."""
    before = parse_number_cursor(cursor)
    items, following = await parts.desk.ledger.read(
        lambda connection: describe_history(connection, limit=limit, before=before)
    )
    return json_answer({"items": [*items], "next_cursor": format_cursor(following)})


@router.get(
    "/roster/proposals",
    summary="What may be voted on",
    responses=answers(200, ProposalPage, "Proposals, the newest first."),
)
async def list_proposals(parts: Node) -> Response:
    """Each with what it changes, the votes so far, and what it still needs."""
    desk = parts.desk
    found = await desk.ledger.read(lambda connection: describe_proposals(connection, desk))
    forks = await desk.ledger.read(describe_forks)
    return json_answer({"items": [*found], "next_cursor": None, "forks": [*forks]})


@router.post(
    "/roster/proposals",
    status_code=201,
    summary="Propose the next version",
    responses=answers(201, ProposalView, "Proposed to every peer; it counts no vote yet.", 409),
    openapi_extra=takes(ProposalOrder),
)
async def propose_version(request: Request, parts: Node, asking: Asking) -> Response:
    """One change, or a payload with votes that was made on another machine. Proposing is not voting."""
    order = await read_body(request, ProposalOrder)
    if order.voted is not None:
        raw = format_json(order.voted.model_dump(mode="json"))
        voted = parse_voted_roster(raw)
        described = await put_forward(parts.desk, voted.payload, voted.votes, actor=asking.username)
    else:
        described = await propose(parts.desk, _change(order), actor=asking.username)
    return json_answer(described, 201)


@router.get(
    "/roster/proposals/{digest}",
    summary="Download a proposal",
    responses=answers(200, RosterFile, "The payload and the votes so far.", 404),
)
async def download_proposal(parts: Node, digest: DigestPath) -> Response:
    """The file for a vote on another machine: `varde roster vote`."""
    desk = parts.desk
    return json_answer(
        await desk.ledger.read(lambda connection: proposal_file(connection, desk, digest))
    )


@router.post(
    "/roster/votes",
    status_code=201,
    summary="Vote",
    responses=answers(201, ProposalView, "The vote is on its way to every peer.", 404, 409),
    openapi_extra=takes(VoteOrder),
)
async def vote(request: Request, parts: Node, asking: Asking) -> Response:
    """With this node's voting key, or a vote that was made elsewhere.

    The version is in force at this node as soon as it has the votes that it needs.
    """
    order = await read_body(request, VoteOrder)
    actor = asking.username
    if order.vote is None:
        described = await cast_vote(parts.desk, order.hash, instead=order.instead, actor=actor)
    else:
        made = parse_vote(_json(order.vote))
        described = await bring_vote(
            parts.desk, order.hash, made, instead=order.instead, actor=actor
        )
    return json_answer(described, 201)


@router.post(
    "/roster/forks/{digest}/follow",
    summary="Settle a fork",
    responses=answers(200, ProposalPage, "This roster is followed, the other one is not.", 409),
)
async def follow_fork(parts: Node, asking: Asking, digest: DigestPath) -> Response:
    """Go on with one of two rosters of a version, as the nations agreed from person to person."""
    desk = parts.desk
    settled = await desk.ledger.write(lambda tx: settle_fork(tx, desk, digest, asking.username))
    if not settled:
        raise Conflict(
            f"{digest} is no side of an open fork that this node can follow. Where a version is in force here already, "
            f"only that one can be chosen."
        )
    return await list_proposals(parts)


@router.get(
    "/suspensions",
    summary="Who is not trusted by whom",
    responses=answers(200, SuspensionPage, "Suspensions of this nation and of its peers."),
)
async def list_suspensions(parts: Node) -> Response:
    """What this nation decided, and what the others told us of theirs."""
    nation = parts.desk.nation
    return json_answer(
        {"items": await _suspensions(parts.desk.ledger, nation), "next_cursor": None}
    )


@router.post(
    "/suspensions",
    status_code=201,
    summary="Suspend a peer",
    responses=answers(201, SuspensionView, "Nothing of it is accepted from now on.", 409),
    openapi_extra=takes(SuspensionOrder),
)
async def suspend_peer(request: Request, parts: Node, asking: Asking) -> Response:
    """For this nation alone, at once; the other peers are told. Only the members' votes remove a nation for all."""
    order = await read_body(request, SuspensionOrder)
    made = await suspend(
        parts.desk, parse_nation(order.nation), order.reason, actor=asking.username
    )
    described: JsonObject = {
        "nation": made.nation,
        "suspended_by": parts.desk.nation,
        "reason": made.reason,
        "since": rfc3339(made.since),
    }
    return json_answer(described, 201)


@router.delete(
    "/suspensions/{nation}",
    summary="End a suspension",
    responses=answers(
        200, SuspensionPage, "It is trusted again, and gets what waited for it.", 404
    ),
)
async def restore_peer(parts: Node, asking: Asking, nation: NationPath) -> Response:
    """The peers are told."""
    await restore(parts.desk, parse_nation(nation), actor=asking.username)
    return await list_suspensions(parts)


async def _suspensions(ledger: Ledger, own: str) -> list[Json]:
    ours = await ledger.read(own_suspensions)
    theirs = await ledger.read(peer_suspensions)
    listed: list[Json] = [
        {
            "nation": each.nation,
            "suspended_by": own,
            "reason": each.reason,
            "since": rfc3339(each.since),
        }
        for each in ours
    ]
    listed += [
        {
            "nation": each.nation,
            "suspended_by": each.suspended_by,
            "reason": each.reason,
            "since": rfc3339(each.since * 1000),
        }
        for each in theirs
    ]
    return listed


def _change(order: ProposalOrder) -> Change:
    if order.add is not None:
        return Addition(parse_member(_json(order.add)))
    if order.replace is not None:
        return Replacement(parse_member(_json(order.replace)))
    if order.remove is not None:
        return Removal(parse_nation(order.remove))
    return Renewal()


def _json(value: object) -> Json:
    # What pydantic read as JSON is JSON; numbers of any kind in it are refused by the core's parsers.
    return value  # type: ignore[return-value]
