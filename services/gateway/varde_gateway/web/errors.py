"""The one table from what went wrong to what the caller is told: RFC 9457 problem details.

Nothing below ``web`` knows a status code. An answer never carries a stack trace or a value from inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from varde.encoding import Json, JsonObject, format_json
from varde.errors import Malformed, Refused, Untrusted, VardeError
from varde_gateway.flow.faults import (
    Conflict,
    FlowFault,
    Forbidden,
    Invalid,
    InvalidAt,
    NotFound,
    RepeatedWebhook,
    StaleWebhook,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreadable,
    UnsupportedMedia,
)
from varde_gateway.web.access import methods_at

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_PREFIX: Final = "urn:varde:problem:"
_log = structlog.get_logger("web")


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem: its ``slug`` makes the type URI."""

    slug: str
    title: str
    status: int
    headers: Mapping[str, str] | None = None


class NotAcceptable(FlowFault):
    """None of the forms that the caller takes is one that we have."""


INTERNAL: Final = Problem("internal", "This node failed", 500)
UNAVAILABLE: Final = Problem("unavailable", "This node cannot do it now", 503, {"Retry-After": "5"})
INVALID: Final = Problem("invalid-request", "The request breaks a rule", 422)
PROBLEMS: Final[dict[type[Exception], Problem]] = {
    Unreadable: Problem("unreadable-body", "The body cannot be read", 400),
    Unauthenticated: Problem(
        "unauthenticated",
        "Nobody vouches for you",
        401,
        {"WWW-Authenticate": 'Bearer realm="varde"'},
    ),
    StaleWebhook: Problem(
        "stale-webhook",
        "The message was signed too long ago",
        401,
        {"WWW-Authenticate": 'StandardWebhooks realm="varde"'},
    ),
    Forbidden: Problem("forbidden", "You may not do that", 403),
    NotFound: Problem("not-found", "There is no such thing", 404),
    NotAcceptable: Problem("not-acceptable", "None of these forms is available", 406),
    Conflict: Problem("conflict", "It does not fit what is there", 409),
    RepeatedWebhook: Problem("repeated-webhook", "The message was accepted before", 409),
    TooLarge: Problem("too-large", "The body is too large", 413),
    UnsupportedMedia: Problem("unsupported-media-type", "This kind of body is not taken", 415),
    Invalid: INVALID,
    Malformed: INVALID,
    Untrusted: Problem("untrusted", "Nobody vouches for what was sent", 422),
    TooMany: Problem("too-many-requests", "Too many requests", 429, {"Retry-After": "60"}),
    Refused: Problem("refused", "The rules forbid it", 409),
    Unavailable: UNAVAILABLE,
    OperationalError: UNAVAILABLE,
}


_OF_STATUS: Final = {
    each.status: each for kind, each in PROBLEMS.items() if kind in (NotFound, TooLarge, Unreadable)
}


def register_problems(api: FastAPI) -> None:
    """Answer everything that a route raises with its problem."""
    api.add_exception_handler(FlowFault, _answer_fault)
    api.add_exception_handler(VardeError, _answer_fault)
    api.add_exception_handler(OperationalError, _answer_database)
    api.add_exception_handler(RequestValidationError, _answer_validation)
    api.add_exception_handler(HTTPException, _answer_framework)


def problem_response(
    problem: Problem,
    detail: str,
    instance: str,
    *,
    errors: Sequence[tuple[str, str]] = (),
    more: Mapping[str, Json] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem document; ``errors`` are places and what is wrong there."""
    body: JsonObject = {
        "type": problem_type(problem),
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "instance": instance,
    }
    if errors:
        body["errors"] = [{"path": path, "message": message} for path, message in errors]
    body.update(more or {})
    return Response(
        # A detail may quote what came in: what no text can carry is written as an escape.
        format_json(_printable(body)),
        status_code=problem.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers={**(problem.headers or {}), **(headers or {})},
    )


def problem_type(problem: Problem) -> str:
    """The URI that names the kind of problem."""
    return _PREFIX + problem.slug


def problem_of(error: Exception) -> Problem:
    """The entry of the error's class or of the nearest class that it is derived from."""
    return next((PROBLEMS[each] for each in type(error).__mro__ if each in PROBLEMS), INTERNAL)


async def _answer_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlowFault | VardeError)
    more: dict[str, Json] = {}
    if isinstance(error, RepeatedWebhook):
        more["alert"] = error.alert_id
    errors = [(error.path, error.detail)] if isinstance(error, InvalidAt) else []
    return problem_response(
        problem_of(error), error.detail, request.url.path, errors=errors, more=more
    )


async def _answer_database(request: Request, error: Exception) -> Response:
    _log.error("the database does not answer", error=str(error.__cause__ or error))
    return problem_response(
        UNAVAILABLE,
        "The database does not answer. Nothing was accepted; try again.",
        request.url.path,
    )


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        (_path_of(each["loc"]), str(each["msg"]).removeprefix("Value error, "))
        for each in error.errors()[:20]
    ]
    path, message = errors[0]
    return problem_response(INVALID, f"{path}: {message}.", request.url.path, errors=errors)


async def _answer_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "There is nothing at this address; /openapi.json lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible at this address.",
    }
    problem = _OF_STATUS.get(status) or Problem(
        status.phrase.lower().replace(" ", "-"), status.phrase, status
    )
    headers = {**(error.headers or {})}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(methods_at(request.scope["route"].path_format))
    return problem_response(
        problem,
        details.get(status, f"{status.phrase}."),
        request.url.path,
        headers=headers,
    )


def _path_of(place: Sequence[int | str]) -> str:
    path = ""
    for each in place[1:] or place:
        path += f"[{each}]" if isinstance(each, int) else f".{each}"
    return path.lstrip(".")


def _printable(value: Json) -> JsonObject:
    def clean(part: Json) -> Json:
        if isinstance(part, str):
            return part.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")
        if isinstance(part, list):
            return [clean(each) for each in part]
        if isinstance(part, dict):
            return {name: clean(each) for name, each in part.items()}
        return part

    cleaned = clean(value)
    assert isinstance(cleaned, dict)
    return cleaned
