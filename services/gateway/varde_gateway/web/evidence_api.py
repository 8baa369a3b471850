"""The evidence of one alert as a file to take away."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from varde_gateway.flow.review.evidence import evidence_lines, gather_evidence
from varde_gateway.flow.review.review import Viewer
from varde_gateway.web.alerts_api import AlertId, Sender
from varde_gateway.web.answers import text_answers
from varde_gateway.web.deps import Asking, Node

router = APIRouter(prefix="/v1/alerts", tags=["audit"])


@router.get(
    "/{alert_id}/evidence",
    summary="Take the evidence of an alert",
    response_class=StreamingResponse,
    responses=text_answers(
        "JSON Lines for `varde audit verify`.",
        '{"varde":"alert-evidence","v":1}\n',
        404,
        409,
        media_type="application/jsonl",
    ),
)
async def evidence(
    parts: Node, asking: Asking, alert_id: AlertId, sender: Sender = None
) -> StreamingResponse:
    """Everything signed about the alert with the log's proofs, to be checked offline; that it was taken is recorded."""
    viewer = Viewer(asking.username, asking.clearance)
    found = await gather_evidence(parts.desk, viewer, alert_id, sender)
    name = f"evidence-{parts.desk.nation}-{alert_id}.jsonl"
    return StreamingResponse(
        evidence_lines(parts.desk, found),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
