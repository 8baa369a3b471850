"""Alerts: send, list, read, answer, update, cancel."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response

from varde.acknowledgement import Response as OfficersResponse
from varde.alert import parse_alert
from varde.encoding import JsonObject
from varde.identifiers import Nation
from varde_gateway.cap import format_cap_xml
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.display import note_displayed
from varde_gateway.flow.draft import (
    order_from_json,
    order_from_xml,
    parse_attachment_ids,
    parse_marking,
    parse_recipients,
)
from varde_gateway.flow.faults import InvalidAt, NotFound, UnsupportedMedia
from varde_gateway.flow.lifecycle import cancel_alert, update_alert
from varde_gateway.flow.people.users import Role
from varde_gateway.flow.review.review import Viewer, check_clearance, record_look
from varde_gateway.flow.send import send_alert
from varde_gateway.store.alerts import find_alert, list_alerts
from varde_gateway.store.review import allowed_markings
from varde_gateway.web.alert_schemas import (
    AcknowledgementOrder,
    AcknowledgementView,
    AlertAccepted,
    AlertOrder,
    AlertPage,
    AlertView,
    CancelOrder,
    UpdateOrder,
)
from varde_gateway.web.answers import CAP_MEDIA_TYPE, answers, json_answer, takes
from varde_gateway.web.deps import (
    JSON_MEDIA_TYPE,
    Asking,
    CursorText,
    IdempotencyKey,
    Limit,
    Node,
    format_cursor,
    media_type_of,
    parse_number_cursor,
    read_body,
    read_claim,
    read_json,
)
from varde_gateway.web.negotiate import choose_media_type
from varde_gateway.web.parts import Parts
from varde_gateway.web.schemas import NATION, UUID7

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])

AlertId = Annotated[str, Path(pattern=UUID7, description="The same at every node.")]
Sender = Annotated[
    str | None,
    Query(alias="from", pattern=NATION, description="Which nation's, should two have used one id."),
]
_XML_MEDIA_TYPES: Final = frozenset({CAP_MEDIA_TYPE, "application/xml", "text/xml"})
_ACCEPTED: Final = "Signed, recorded and on its way; it is not lost any more."
_CAP_XML: Final[dict[str, Any]] = {
    CAP_MEDIA_TYPE: {"schema": {"type": "string", "description": "CAP 1.2 XML."}}
}


@router.post(
    "",
    status_code=202,
    summary="Send an alert",
    responses=answers(202, AlertAccepted, _ACCEPTED, 409),
    openapi_extra=takes(AlertOrder, xml=True),
)
async def send(
    *,
    request: Request,
    parts: Node,
    asking: Asking,
    key: IdempotencyKey = None,
    to: Annotated[
        str | None,
        Query(
            max_length=600,
            description="With XML: nations parted by commas, or `*`.",
            examples=["FI,LV"],
        ),
    ] = None,
    tlp: Annotated[
        Literal["CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED"] | None,
        Query(description="With XML: the TLP 2.0 marking; AMBER where not said."),
    ] = None,
    attachment: Annotated[
        list[str] | None,
        Query(
            max_length=16,
            description="With XML: the id of an uploaded file; may stand several times.",
        ),
    ] = None,
) -> Response:
    """Sign an alert, record it with its deliveries, and answer.

    As JSON with recipients and marking in the body, or as CAP 1.2 XML with them in the query.
    """
    document_id = parts.desk.new_id()
    if media_type_of(request) in _XML_MEDIA_TYPES:
        raw = await request.body()
        order = order_from_xml(
            raw,
            to=_recipients(parts, to),
            tlp=parse_marking(tlp or "AMBER"),
            attachments=parse_attachment_ids(attachment or []),
        )
    elif media_type_of(request) == JSON_MEDIA_TYPE:
        value = await read_json(request)
        order = order_from_json(parts.desk, value, document_id, with_files=True)
    else:
        raise UnsupportedMedia(
            f"Send an alert as {JSON_MEDIA_TYPE} or as CAP 1.2 XML ({CAP_MEDIA_TYPE})."
        )
    accepted = await send_alert(
        parts.desk,
        order,
        author=asking.username,
        document_id=document_id,
        claim=await read_claim(request, asking, key),
    )
    return _accepted(accepted)


@router.get(
    "",
    summary="List alerts, newest first",
    responses=answers(200, AlertPage, "A page of alerts."),
)
async def list_page(
    *,
    parts: Node,
    asking: Asking,
    limit: Limit = 50,
    cursor: CursorText = None,
    direction: Annotated[
        Literal["in", "out"] | None, Query(description="Received, or our own.")
    ] = None,
    state: Annotated[
        Literal["sent", "received", "updated", "cancelled", "erased"] | None, Query()
    ] = None,
) -> Response:
    """What this node has sent and received, with deliveries and answers; without what is above your clearance."""
    before = parse_number_cursor(cursor)
    now = parts.desk.now_ms()
    items, following = await parts.desk.ledger.read(
        lambda connection: list_alerts(
            connection,
            limit=limit,
            before_serial=before,
            direction=direction,
            state=state,
            now_ms=now,
            markings=allowed_markings(asking.clearance),
        )
    )
    if Role.AUDITOR in asking.roles:
        viewer = Viewer(asking.username, asking.clearance)
        await record_look(parts.desk, viewer, f"alerts, {len(items)} listed", [])
    return json_answer({"items": [*items], "next_cursor": format_cursor(following)})


@router.get(
    "/{alert_id}",
    summary="Read an alert",
    responses={
        **answers(200, AlertView, "The alert as this node has it.", 404, 406),
        200: {
            "model": AlertView,
            "description": "The alert as this node has it, or its CAP 1.2 XML.",
            "content": _CAP_XML,
        },
    },
)
async def read(
    parts: Node,
    asking: Asking,
    alert_id: AlertId,
    sender: Sender = None,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """One alert with its deliveries and answers; `Accept: application/cap+xml` gives the CAP XML.

    When an officer reads a received alert for the first time, its sender is told that it was displayed.
    """
    form = choose_media_type(accept, (JSON_MEDIA_TYPE, CAP_MEDIA_TYPE))
    viewer = Viewer(asking.username, asking.clearance)
    await check_clearance(parts.desk, viewer, alert_id)
    alert = await _find(parts, alert_id, sender)
    if Role.AUDITOR in asking.roles:
        await record_look(parts.desk, viewer, "alert", [("document", alert_id)])
    if (
        Role.OFFICER in asking.roles
        and alert["direction"] == "in"
        and alert["displayed_at"] is None
    ):
        await note_displayed(parts.desk, Nation(str(alert["from"])), alert_id, asking.username)
        alert = await _find(parts, alert_id, sender)
    if form == CAP_MEDIA_TYPE:
        if alert["alert"] is None:
            raise NotFound(f"The content of alert {alert_id} was erased; only its facts are left.")
        return Response(format_cap_xml(parse_alert(alert["alert"])), media_type=CAP_MEDIA_TYPE)
    return json_answer(alert)


@router.post(
    "/{alert_id}/acknowledgements",
    status_code=201,
    summary="Answer a received alert",
    responses=answers(201, AcknowledgementView, "Signed, and on its way to the sender.", 404, 409),
    openapi_extra=takes(AcknowledgementOrder),
)
async def answer(
    *,
    request: Request,
    parts: Node,
    asking: Asking,
    alert_id: AlertId,
    key: IdempotencyKey = None,
    sender: Sender = None,
) -> Response:
    """An officer's answer; the first one stays, further ones are added."""
    order = await read_body(request, AcknowledgementOrder)
    answered = await acknowledge(
        parts.desk,
        alert_id,
        None if sender is None else Nation(sender),
        officer=asking.username,
        response=OfficersResponse(order.response),
        note=order.note,
        claim=await read_claim(request, asking, key),
    )
    return json_answer(answered, 201)


@router.post(
    "/{alert_id}/update",
    status_code=202,
    summary="Update an alert of our own",
    responses=answers(202, AlertAccepted, _ACCEPTED, 404, 409),
    openapi_extra=takes(UpdateOrder),
)
async def update(
    request: Request, parts: Node, asking: Asking, alert_id: AlertId, key: IdempotencyKey = None
) -> Response:
    """Send an Update to everybody who got the original."""
    order = await read_body(request, UpdateOrder)
    updated = await update_alert(
        parts.desk,
        alert_id,
        order.alert,
        attachments=tuple(order.attachments),
        author=asking.username,
        claim=await read_claim(request, asking, key),
    )
    return _accepted(updated)


@router.post(
    "/{alert_id}/cancel",
    status_code=202,
    summary="Cancel an alert of our own",
    responses=answers(202, AlertAccepted, _ACCEPTED, 404, 409),
    openapi_extra=takes(CancelOrder),
)
async def cancel(
    request: Request, parts: Node, asking: Asking, alert_id: AlertId, key: IdempotencyKey = None
) -> Response:
    """Send a Cancel to everybody who got the original; one person is enough."""
    order = await read_body(request, CancelOrder)
    cancelled = await cancel_alert(
        parts.desk,
        alert_id,
        order.note,
        author=asking.username,
        claim=await read_claim(request, asking, key),
    )
    return _accepted(cancelled)


def _accepted(accepted: JsonObject) -> Response:
    return json_answer(accepted, 202, {"Location": f"/v1/alerts/{accepted['id']}"})


def _recipients(parts: Parts, to: str | None) -> tuple[Nation, ...]:
    if to is None:
        raise InvalidAt("to", "With CAP XML, say to whom in the query: ?to=FI,LV or ?to=*.")
    return parse_recipients(parts.desk, [each.strip() for each in to.split(",")])


async def _find(parts: Parts, alert_id: str, sender: str | None) -> JsonObject:
    now = parts.desk.now_ms()
    alert = await parts.desk.ledger.read(
        lambda connection: find_alert(connection, alert_id, sender, now)
    )
    if alert is None:
        raise NotFound(f"There is no alert {alert_id} at this node.")
    return alert
