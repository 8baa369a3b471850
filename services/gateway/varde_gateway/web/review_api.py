"""The review: search the log, follow one alert, count, export, keep queries; and retention: archive and erase."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from varde.auditlog import AuditKind
from varde.encoding import parse_decimal
from varde.errors import Malformed
from varde_gateway.flow.faults import InvalidAt
from varde_gateway.flow.review.archive import archive_lines, begin_archive
from varde_gateway.flow.review.erasure import erase_alert
from varde_gateway.flow.review.review import (
    Viewer,
    begin_export,
    delete_query,
    list_queries,
    save_query,
    search,
)
from varde_gateway.flow.review.statistics import statistics
from varde_gateway.flow.review.timeline import message_trail
from varde_gateway.store.review import EntryFilter, Order, Place
from varde_gateway.web.answers import answers, json_answer, takes, text_answers
from varde_gateway.web.auth import Identity
from varde_gateway.web.deps import (
    JSON_MEDIA_TYPE,
    Asking,
    CursorText,
    Limit,
    Node,
    format_cursor,
    parse_cursor,
    read_body,
)
from varde_gateway.web.moments import Moment, parse_moment
from varde_gateway.web.negotiate import choose_media_type
from varde_gateway.web.node_schemas import AuditPage
from varde_gateway.web.review_schemas import (
    QUERY_NAME,
    SEARCHED,
    ErasureOrder,
    ErasureView,
    QueryList,
    QueryOrder,
    QueryView,
    StatisticsView,
    TrailView,
)
from varde_gateway.web.schemas import NATION, UUID7

router = APIRouter(tags=["review"])

CSV_MEDIA_TYPE: Final = "text/csv"
JSONL_MEDIA_TYPE: Final = "application/jsonl"
_FORMS: Final = {"json": JSON_MEDIA_TYPE, "csv": CSV_MEDIA_TYPE, "jsonl": JSONL_MEDIA_TYPE}
_EXPORTED: Final[dict[str, Any]] = {
    CSV_MEDIA_TYPE: {
        "schema": {"type": "string"},
        "example": "index,at,kind,actor,subjects,detail,hash,withheld\r\n",
    },
    JSONL_MEDIA_TYPE: {"schema": {"type": "string"}, "example": '{"index":17,"kind":"sent"}\n'},
}
Text160 = Annotated[str | None, Query(min_length=1, max_length=160, pattern=SEARCHED)]
Begin = Annotated[Moment | None, Query(alias="from", description="At this time or later.")]
Until = Annotated[Moment | None, Query(description="Before this time.")]
AlertId = Annotated[str, Path(pattern=UUID7, description="The same at every node.")]
QueryName = Annotated[str, Path(pattern=QUERY_NAME)]


@router.get(
    "/v1/audit/entries",
    summary="Search the log",
    response_class=Response,
    responses={
        **answers(200, AuditPage, "A page of entries.", 406),
        200: {
            "model": AuditPage,
            "description": "A page of entries; or all that are found, as CSV or JSON Lines.",
            "content": _EXPORTED,
        },
    },
)
async def entries(
    *,
    parts: Node,
    asking: Asking,
    limit: Limit = 50,
    cursor: CursorText = None,
    kind: Annotated[
        list[AuditKind] | None, Query(max_length=64, description="One of these; may be repeated.")
    ] = None,
    actor: Text160 = None,
    subject: Text160 = None,
    alert: Annotated[
        str | None, Query(pattern=UUID7, description="About the alert of this id.")
    ] = None,
    nation: Annotated[
        str | None, Query(pattern=NATION, description="By this nation, or naming it.")
    ] = None,
    text: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=160,
            pattern=SEARCHED,
            description="Somewhere in the detail or the subjects; upper and lower case of A to Z are the same.",
        ),
    ] = None,
    begin: Begin = None,
    until: Until = None,
    order: Annotated[Order, Query(description="Which entries come first.")] = Order.OLDEST,
    form: Annotated[
        Literal["json", "csv", "jsonl"] | None,
        Query(
            alias="format",
            description="`csv` and `jsonl` give everything that is found, without pages; it wins over `Accept`.",
        ),
    ] = None,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Who did what when. That you looked is recorded; what you may not see is there, withheld.

    A cursor belongs to the log as it was at the first page: what is appended meanwhile is not in the pages that follow.
    """
    media_type = _FORMS[form] if form else choose_media_type(accept, [*_FORMS.values()])
    wanted = EntryFilter(
        kinds=tuple(dict.fromkeys(kind or ())),
        actor=actor,
        subject=subject,
        alert=alert,
        nation=nation,
        text=text,
        from_ms=parse_moment("from", begin),
        until_ms=parse_moment("until", until),
    )
    viewer = _viewer(asking)
    if media_type != JSON_MEDIA_TYPE:
        csv = media_type == CSV_MEDIA_TYPE
        lines = await begin_export(
            parts.desk, viewer, wanted, order=order, form="csv" if csv else "jsonl"
        )
        return StreamingResponse(
            lines,
            media_type=f"{CSV_MEDIA_TYPE}; charset=utf-8; header=present" if csv else media_type,
        )
    page = await search(
        parts.desk, viewer, wanted, order=order, limit=limit, place=_parse_place(cursor)
    )
    following = page.following
    return json_answer(
        {
            "items": [*page.items],
            "next_cursor": format_cursor(f"{following.after}-{following.size}")
            if following
            else None,
        }
    )


@router.get(
    "/v1/audit/statistics",
    summary="Count and measure",
    responses=answers(200, StatisticsView, "Figures of the time asked for, or of all time."),
)
async def figures(
    parts: Node, asking: Asking, begin: Begin = None, until: Until = None
) -> Response:
    """Entries by kind, alerts, delays per nation, refusals, answers. That you looked is recorded."""
    found = await statistics(
        parts.desk,
        _viewer(asking),
        parse_moment("from", begin),
        parse_moment("until", until),
    )
    return json_answer(found)


@router.get(
    "/v1/alerts/{alert_id}/trail",
    summary="Follow one alert across nodes",
    responses=answers(200, TrailView, "Everything that this node knows of its way.", 404),
)
async def trail(parts: Node, asking: Asking, alert_id: AlertId) -> Response:
    """One timeline of our entries and of what other nations signed; each time says whose clock it is from."""
    return json_answer(await message_trail(parts.desk, _viewer(asking), alert_id))


@router.get(
    "/v1/audit/queries",
    summary="List your saved queries",
    responses=answers(200, QueryList, "All of them, by name."),
)
async def saved_queries(parts: Node, asking: Asking) -> Response:
    """Filters that you keep; nobody else sees them."""
    items = await list_queries(parts.desk, asking.username)
    return json_answer({"items": [*items], "next_cursor": None})


@router.post(
    "/v1/audit/queries",
    status_code=201,
    summary="Save a query",
    responses=answers(201, QueryView, "It is kept; one of the same name is replaced.", 409),
    openapi_extra=takes(QueryOrder),
)
async def save(request: Request, parts: Node, asking: Asking) -> Response:
    """Keep a filter under a name."""
    order = await read_body(request, QueryOrder)
    parse_moment("filter.from", order.filter.begin)
    parse_moment("filter.until", order.filter.until)
    saved = await save_query(
        parts.desk, asking.username, order.name, order.filter.model_dump(mode="json", by_alias=True)
    )
    return json_answer(saved, 201)


@router.delete(
    "/v1/audit/queries/{name}",
    summary="Delete a saved query",
    responses=answers(200, QueryView, "It is gone; this is what it was.", 404),
)
async def forget(parts: Node, asking: Asking, name: QueryName) -> Response:
    """Only your own."""
    return json_answer(await delete_query(parts.desk, asking.username, name))


@router.get(
    "/v1/audit/archive",
    summary="Take an archive",
    response_class=StreamingResponse,
    responses=text_answers(
        "The log as `/v1/audit/export` gives it, then one line per document; the digests of both are logged.",
        '{"varde":"audit-log","v":1}\n',
        404,
        media_type=JSONL_MEDIA_TYPE,
    ),
)
async def archive(
    parts: Node,
    asking: Asking,
    until: Annotated[
        Moment, Query(description="The newest checkpoint that was signed before this time ends it.")
    ],
) -> StreamingResponse:
    """Everything up to a checkpoint, with the signed documents, for cold storage."""
    until_ms = parse_moment("until", until)
    assert until_ms is not None
    viewer = _viewer(asking)
    begun = await begin_archive(parts.desk, viewer, until_ms)
    return StreamingResponse(archive_lines(parts.desk, viewer, begun), media_type=JSONL_MEDIA_TYPE)


@router.post(
    "/v1/alerts/{alert_id}/erase",
    summary="Erase the content of an alert",
    responses=answers(200, ErasureView, "Erased, or asked for.", 404, 409),
    openapi_extra=takes(ErasureOrder),
)
async def erase(
    *,
    request: Request,
    parts: Node,
    asking: Asking,
    alert_id: AlertId,
    sender: Annotated[
        str | None,
        Query(alias="from", pattern=NATION, description="Whose, should two have used one id."),
    ] = None,
) -> Response:
    """The words go, the log stays. An alert that is still on its way is not erased (409)."""
    order = await read_body(request, ErasureOrder)
    return json_answer(
        await erase_alert(parts.desk, alert_id, sender, order.reason, actor=asking.username)
    )


def _viewer(asking: Identity) -> Viewer:
    return Viewer(asking.username, asking.clearance)


def _parse_place(cursor: str | None) -> Place | None:
    position = parse_cursor(cursor)
    if position is None:
        return None
    after, _, size = position.partition("-")
    try:
        return Place(parse_decimal(after), parse_decimal(size))
    except Malformed as error:
        raise InvalidAt("cursor", "The cursor is not one that this node gave out.") from error
