"""How routes answer, and how they tell the OpenAPI document so.

Answers are written straight from what the flow returns: validating our own words again would cost more than signing
them. That they fit the models is tested, over the whole document.
"""

from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel

from varde.encoding import JsonObject, format_json
from varde_gateway.web.deps import JSON_MEDIA_TYPE

CAP_MEDIA_TYPE: Final = "application/cap+xml"
TEXT_MEDIA_TYPE: Final = "text/plain; charset=utf-8"
Documented = dict[int | str, dict[str, Any]]


def json_answer(
    value: JsonObject, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer."""
    return Response(
        format_json(value), status_code=status, media_type=JSON_MEDIA_TYPE, headers=headers
    )


def text_answer(text: str) -> Response:
    """A plain text answer."""
    return Response(text, media_type=TEXT_MEDIA_TYPE)


def answers(status: int, model: type[BaseModel], description: str, *problems: int) -> Documented:
    """What a route may answer; the problems that every such route has are added by ``openapi``."""
    documented: Documented = {status: {"model": model, "description": description}}
    return documented | {each: {} for each in problems}


def text_answers(
    description: str, example: str, *problems: int, media_type: str = "text/plain"
) -> Documented:
    """The same for a route that answers text."""
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    documented: Documented = {200: {"description": description, "content": content}}
    return documented | {each: {} for each in problems}


def takes(
    model: type[BaseModel], *, media_type: str = JSON_MEDIA_TYPE, xml: bool = False
) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads its body itself."""
    content: dict[str, Any] = {
        media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    }
    if xml:
        content[CAP_MEDIA_TYPE] = {
            "schema": {"type": "string", "format": "binary", "description": "CAP 1.2 XML."}
        }
    return {"requestBody": {"required": True, "content": content}}
