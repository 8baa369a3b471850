"""The event stream: what happens at this node, as it happens. Server-sent events, resumable."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from varde.encoding import MAX_INTEGER, format_json, parse_decimal
from varde.errors import Malformed
from varde_gateway.flow.faults import InvalidAt, Unauthenticated
from varde_gateway.flow.review.review import events_for
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.transaction import Event
from varde_gateway.web.deps import Node
from varde_gateway.web.parts import Parts

router = APIRouter(prefix="/v1/events", tags=["events"])

_EXAMPLE = (
    'id: 42\nevent: alert\ndata: {"id":"019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b","from":"EE"}\n\n'
)

# OpenAPI 3.2 section 4.14.4: the schema of one event.
_EVENT_SCHEMA: Final = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@router.get(
    "",
    summary="Follow the events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events without end, until the token expires or the node stops; a comment each second "
            "where nothing happens.",
            "content": {"text/event-stream": {"itemSchema": _EVENT_SCHEMA, "example": _EXAMPLE}},
        }
    },
)
async def follow(
    *,
    request: Request,
    parts: Node,
    after: Annotated[
        int | None,
        Query(
            ge=0, le=MAX_INTEGER, description="The id of the last event seen; now where not said."
        ),
    ] = None,
    wait: Annotated[
        bool, Query(description="With `false` the stream ends when nothing new is there.")
    ] = True,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="What a browser sends; it wins over `after`."),
    ] = None,
) -> StreamingResponse:
    """Server-sent events with `id`, `event` and `data` (JSON with `at`); go on with `Last-Event-ID` after a break."""
    if last_event_id is not None:
        try:
            after = parse_decimal(last_event_id)
        except Malformed as error:
            raise InvalidAt("Last-Event-ID", "Last-Event-ID is the number of an event.") from error
    lines = _stream(parts, request.headers.get("authorization"), after, wait)
    return StreamingResponse(
        lines, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _stream(
    parts: Parts, authorization: str | None, after: int | None, wait: bool
) -> AsyncIterator[bytes]:
    # The first bytes at once, so that a client knows that it is connected before anything happens.
    yield b": varde\n\n"
    async with aclosing(parts.feed.follow(after)) as batches:
        async for events in batches:
            if parts.closing.is_set() or not (events or wait):
                return
            try:
                identity = await parts.tokens.identify(authorization)
            except Unauthenticated:
                return
            shown = await events_for(parts.desk, identity.clearance, events)
            yield b"".join(format_event(event) for event in shown) or b":\n\n"


def format_event(event: Event) -> bytes:
    """One event as the standard writes it; JSON has no line breaks."""
    data = format_json({"at": rfc3339(event.at), **event.data})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), data)
