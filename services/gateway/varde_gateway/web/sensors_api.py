"""Sensors, and the webhooks that they post to."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from varde.bulletin import parse_tlp
from varde.encoding import JsonObject
from varde_gateway.flow.faults import NotFound
from varde_gateway.flow.people.sense import Post
from varde_gateway.flow.people.sensors import (
    NewSensor,
    disable_sensor,
    register_sensor,
    rotate_secret,
)
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.sensors import Sensor, find_sensor, list_sensors
from varde_gateway.web.alert_schemas import AlertAccepted, WebhookOrder
from varde_gateway.web.answers import answers, json_answer, takes
from varde_gateway.web.deps import (
    Asking,
    CursorText,
    Limit,
    Node,
    format_cursor,
    media_type_of,
    parse_cursor,
    read_body,
)
from varde_gateway.web.parts import address_of
from varde_gateway.web.schemas import (
    SENSOR_ID,
    SensorOrder,
    SensorPage,
    SensorView,
    SensorWithSecret,
)

router = APIRouter(tags=["sensors"])

SensorId = Annotated[str, Path(pattern=SENSOR_ID)]


@router.post(
    "/v1/hooks/{sensor_id}",
    status_code=202,
    summary="Post a sensor's reading",
    responses=answers(202, AlertAccepted, "It is an alert now, on its way.", 401, 403, 409, 429),
    openapi_extra=takes(WebhookOrder, xml=True),
)
async def hook(
    *,
    request: Request,
    parts: Node,
    sensor_id: Annotated[str, Path(max_length=64)],
    webhook_id: Annotated[
        str,
        Header(max_length=128, description="Unique per message; without a full stop."),
    ] = "",
    webhook_timestamp: Annotated[
        str, Header(max_length=12, description="Unix seconds, within five minutes of now.")
    ] = "",
    webhook_signature: Annotated[
        str,
        Header(
            max_length=1024,
            description="`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; several parted by spaces.",
        ),
    ] = "",
) -> Response:
    """A message signed by Standard Webhooks becomes an alert, once.

    CAP 1.2 XML, or JSON; recipients and marking that the body does not say are the sensor's own. A message that was
    accepted before is answered 409 with the id of its alert.
    """
    accepted = await parts.sense.accept(
        Post(
            sensor=sensor_id,
            webhook_id=webhook_id,
            timestamp=webhook_timestamp,
            signatures=webhook_signature,
            media_type=media_type_of(request),
            raw=await request.body(),
            address=address_of(request),
        )
    )
    return json_answer(accepted, 202)


@router.get(
    "/v1/sensors", summary="List sensors", responses=answers(200, SensorPage, "A page of sensors.")
)
async def list_page(parts: Node, limit: Limit = 50, cursor: CursorText = None) -> Response:
    """Every machine that may post, or might once, by id."""
    after = parse_cursor(cursor)
    sensors, following = await parts.desk.ledger.read(
        lambda connection: list_sensors(connection, limit=limit, after=after)
    )
    items = [_describe(each) for each in sensors]
    return json_answer({"items": [*items], "next_cursor": format_cursor(following)})


@router.post(
    "/v1/sensors",
    status_code=201,
    summary="Register a sensor",
    responses=answers(
        201, SensorWithSecret, "It can post now. The secret is shown this once.", 409
    ),
    openapi_extra=takes(SensorOrder),
)
async def register(request: Request, parts: Node, asking: Asking) -> Response:
    """A new sensor; its recipients and marking stand where its messages say nothing."""
    order = await read_body(request, SensorOrder)
    new = NewSensor(order.id, order.name, tuple(order.to), parse_tlp(order.tlp))
    sensor, secret = await register_sensor(parts.desk, new, actor=asking.username)
    return json_answer({**_describe(sensor), "secret": secret}, 201)


@router.get(
    "/v1/sensors/{sensor_id}",
    summary="Read a sensor",
    responses=answers(200, SensorView, "The sensor.", 404),
)
async def read(parts: Node, sensor_id: SensorId) -> Response:
    """One sensor, without its secret."""
    sensor = await parts.desk.ledger.read(lambda connection: find_sensor(connection, sensor_id))
    if sensor is None:
        raise NotFound(f"There is no sensor {sensor_id}.")
    return json_answer(_describe(sensor))


@router.post(
    "/v1/sensors/{sensor_id}/rotate",
    summary="Give a sensor a new secret",
    responses=answers(200, SensorWithSecret, "The new secret, shown this once.", 404),
)
async def rotate(parts: Node, asking: Asking, sensor_id: SensorId) -> Response:
    """The former secret is void at once."""
    sensor, secret = await rotate_secret(parts.desk, sensor_id, actor=asking.username)
    return json_answer({**_describe(sensor), "secret": secret})


@router.post(
    "/v1/sensors/{sensor_id}/disable",
    summary="Take no posts any more",
    responses=answers(200, SensorView, "Its posts are refused.", 404),
)
async def disable(parts: Node, asking: Asking, sensor_id: SensorId) -> Response:
    """Posts of this sensor are refused from now on."""
    sensor = await disable_sensor(parts.desk, sensor_id, disabled=True, actor=asking.username)
    return json_answer(_describe(sensor))


@router.post(
    "/v1/sensors/{sensor_id}/enable",
    summary="Take posts again",
    responses=answers(200, SensorView, "Its posts are taken.", 404),
)
async def enable(parts: Node, asking: Asking, sensor_id: SensorId) -> Response:
    """Posts of this sensor are taken again."""
    sensor = await disable_sensor(parts.desk, sensor_id, disabled=False, actor=asking.username)
    return json_answer(_describe(sensor))


def _describe(sensor: Sensor) -> JsonObject:
    return {
        "id": sensor.id,
        "name": sensor.name,
        "to": [*sensor.recipients],
        "tlp": sensor.tlp,
        "disabled": sensor.disabled,
        "created_at": rfc3339(sensor.created_at),
        "hook": f"/v1/hooks/{sensor.id}",
    }
