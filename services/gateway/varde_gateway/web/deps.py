"""What routes declare that they need, and how a request is read: who asks, the body, the key, the page."""

import re
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from varde.encoding import decode_base64url, encode_base64url, sha256_base64url
from varde.errors import Malformed
from varde_gateway.flow.draft import parse_api_json
from varde_gateway.flow.faults import InvalidAt, Unauthenticated, UnsupportedMedia
from varde_gateway.flow.idempotency import Claim
from varde_gateway.web.access import admit
from varde_gateway.web.auth import Identity
from varde_gateway.web.parts import Parts, parts_of

BodyT = TypeVar("BodyT", bound=BaseModel)

JSON_MEDIA_TYPE: Final = "application/json"
IDEMPOTENCY_KEY: Final = r"^[!-~]{1,255}$"
_CURSOR: Final = re.compile(r"[0-9]{1,19}|[a-z0-9._-]{1,64}", re.ASCII)


async def _signed_in(identity: Annotated[Identity | None, Depends(admit)]) -> Identity:
    if identity is None:
        raise Unauthenticated("Nobody is signed in.")
    return identity


Asking = Annotated[Identity, Depends(_signed_in)]


async def _parts(request: Request) -> Parts:
    # A plain function would be run in a thread of its own for every request.
    return parts_of(request)


Node = Annotated[Parts, Depends(_parts)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY,
        description="The same key with the same request within 24 hours gets the first answer again.",
        examples=["2b0c1f0e-order-17"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at the most.")]
CursorText = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=120,
        description="The `next_cursor` of the page before; nothing else has a meaning here.",
    ),
]


def media_type_of(request: Request) -> str:
    """The media type of the body without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request) -> dict[str, object]:
    """The body as one JSON object, each member once."""
    if media_type_of(request) != JSON_MEDIA_TYPE:
        raise UnsupportedMedia(f"Send the body as {JSON_MEDIA_TYPE}.")
    return parse_api_json(await request.body())


async def read_body(request: Request, model: type[BodyT]) -> BodyT:
    """The body as ``model``; what does not fit is answered with the place and the rule."""
    value = await read_json(request)
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        ) from error


async def read_claim(request: Request, identity: Identity, key: str | None) -> Claim | None:
    """The claim of an ``Idempotency-Key``: whose it is, and which exact request it stands for."""
    if key is None:
        return None
    request_bytes = await request.body() + b"\0" + request.url.query.encode()
    return Claim(f"{identity.username} {request.url.path}", key, sha256_base64url(request_bytes))


def format_cursor(position: int | str | None) -> str | None:
    """Where the next page begins, as the caller gives it back."""
    return None if position is None else encode_base64url(str(position).encode())


def parse_cursor(cursor: str | None) -> str | None:
    """What ``format_cursor`` made a cursor of; ``InvalidAt`` for anything else."""
    if cursor is None:
        return None
    try:
        position = decode_base64url(cursor).decode("ascii")
    except (Malformed, UnicodeDecodeError) as error:
        raise InvalidAt("cursor", "The cursor is not one that this node gave out.") from error
    if _CURSOR.fullmatch(position) is None:
        raise InvalidAt("cursor", "The cursor is not one that this node gave out.")
    return position


def parse_number_cursor(cursor: str | None) -> int | None:
    """The number in a cursor."""
    position = parse_cursor(cursor)
    if position is None:
        return None
    if not position.isdecimal() or int(position) >= 1 << 63:
        raise InvalidAt("cursor", "The cursor is not one that this node gave out.")
    return int(position)
