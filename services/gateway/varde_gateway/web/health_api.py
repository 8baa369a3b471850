"""Whether the node lives and can work, and what it counts. Without authentication."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from varde.encoding import JsonObject, require_integer, require_list
from varde.roster import MAX_MEMBERS
from varde_gateway.flow.roster.federation import describe_federation, peers_without_prekeys
from varde_gateway.web.answers import answers, json_answer, text_answers
from varde_gateway.web.deps import Node
from varde_gateway.web.node_schemas import Live, Ready

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Does it live", responses=answers(200, Live, "It does."))
async def live(parts: Node) -> Response:
    """The process answers; says nothing of what it needs."""
    return json_answer({"status": "live", "nation": parts.desk.nation})


@router.get(
    "/health/ready",
    summary="Can it work",
    responses={
        **answers(200, Ready, "It can."),
        503: {"model": Ready, "description": "Something that it needs is away."},
    },
)
async def ready(parts: Node) -> Response:
    """Whether the database answers, and the broker answers and stores. Without the broker alerts are still accepted, and wait."""
    checks: JsonObject = {
        "database": await _check_database(parts),
        "broker": _check_broker(parts),
    }
    works = all(each == "ok" for each in checks.values())
    answer: JsonObject = {
        "status": "ready" if works else "not ready",
        "checks": checks,
        "without_prekeys_of": [*peers_without_prekeys(parts.desk)],
    }
    return json_answer(answer, 200 if works else 503)


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses=text_answers("Prometheus text.", 'varde_events_total{kind="alert"} 3.0\n'),
)
async def metrics(parts: Node) -> Response:
    """For Prometheus."""
    federation = await describe_federation(parts.desk)
    for member in require_list(federation["members"], "members", most=MAX_MEMBERS):
        assert isinstance(member, dict)
        undelivered = require_integer(member["undelivered"], "undelivered")
        parts.metrics.open_deliveries.labels(member["nation"]).set(undelivered)
    stores = parts.broker.connected() and not parts.desk.storing.trouble
    parts.metrics.broker_stores.set(float(stores))
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _check_broker(parts: Node) -> str:
    if not parts.broker.connected():
        return "not connected"
    return parts.desk.storing.trouble or "ok"


async def _check_database(parts: Node) -> str:
    try:
        await parts.desk.ledger.read(lambda connection: connection.scalar(select(1)))
    except OperationalError:
        return "does not answer"
    return "ok"
