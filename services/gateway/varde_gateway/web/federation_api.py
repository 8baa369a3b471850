"""The federation as this node knows it, and the roster by whose votes it stands."""

import json

from fastapi import APIRouter, Response

from varde_gateway.flow.roster.federation import describe_federation
from varde_gateway.flow.roster.trust import rosters_after
from varde_gateway.web.answers import answers, json_answer
from varde_gateway.web.deps import Node
from varde_gateway.web.node_schemas import FederationView, RosterView

router = APIRouter(prefix="/v1/federation", tags=["federation"])


@router.get(
    "",
    summary="The members",
    responses=answers(200, FederationView, "The federation as this node knows it."),
)
async def federation(parts: Node) -> Response:
    """Who belongs, who was heard when, what waits for whom."""
    return json_answer(await describe_federation(parts.desk))


@router.get(
    "/roster",
    summary="The roster",
    responses=answers(200, RosterView, "Every voted roster in order."),
)
async def roster(parts: Node) -> Response:
    """Every version with its votes, byte for byte as it was voted for, to be verified from the genesis fingerprint."""
    rows = await parts.desk.ledger.read(rosters_after)
    return json_answer(
        {
            "rosters": [json.loads(row.raw) for row in rows],
            "suspended": [*sorted(parts.desk.trust.suspended)],
        }
    )
