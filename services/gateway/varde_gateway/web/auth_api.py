"""Signing in, and who is signed in."""

from typing import Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from varde_gateway.flow.faults import InvalidAt, Unreadable, UnsupportedMedia
from varde_gateway.store.alerts import rfc3339
from varde_gateway.web.answers import answers, json_answer, takes
from varde_gateway.web.deps import Asking, Node, media_type_of
from varde_gateway.web.parts import address_of
from varde_gateway.web.schemas import Me, SignInForm, TokenView

FORM_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES: Final = 16 * 1024
_MAX_FIELDS: Final = 8

router = APIRouter(prefix="/v1/auth", tags=["auth"])


@router.post(
    "/token",
    summary="Sign in",
    responses=answers(200, TokenView, "A bearer token.", 401, 429),
    openapi_extra=takes(SignInForm, media_type=FORM_MEDIA_TYPE),
)
async def sign_in(request: Request, parts: Node) -> Response:
    """Name and password for a bearer token (OAuth 2.0 password grant); many failures make you wait a minute."""
    form = await _read_form(request)
    person = await parts.sign_in.sign_in(form.username, form.password, address_of(request))
    return json_answer(
        {
            "access_token": parts.tokens.issue(person),
            "token_type": "bearer",
            "expires_in": parts.tokens.life_seconds,
            "roles": [*person.roles],
        }
    )


@router.get("/me", summary="Who am I", responses=answers(200, Me, "Who is signed in."))
async def me(parts: Node, asking: Asking) -> Response:
    """Name, roles, and until when the token is good."""
    return json_answer(
        {
            "username": asking.username,
            "display_name": asking.display_name,
            "nation": parts.desk.nation,
            "roles": [*sorted(asking.roles)],
            "expires_at": rfc3339(asking.expires_at),
        }
    )


async def _read_form(request: Request) -> SignInForm:
    if media_type_of(request) != FORM_MEDIA_TYPE:
        raise UnsupportedMedia(f"Send the form as {FORM_MEDIA_TYPE}.")
    raw = await request.body()
    try:
        pairs = parse_qsl(
            raw[:_MAX_FORM_BYTES].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise Unreadable("The body is not a form in percent-encoded UTF-8.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidAt("username", "A field of the form stands twice.")
    try:
        return SignInForm.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(
            # Without the input: it holds the password.
            [
                {**each, "loc": ("body", *each["loc"])}
                for each in error.errors(include_url=False, include_input=False)
            ]
        ) from error
