"""People: list, let in, for how long, shut out."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from varde.bulletin import Tlp
from varde.encoding import JsonObject
from varde_gateway.flow.faults import NotFound
from varde_gateway.flow.people.users import NewUser, Role, create_users, disable_user, extend_user
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.users import User, find_user, list_users
from varde_gateway.web.answers import answers, json_answer, takes
from varde_gateway.web.deps import (
    Asking,
    CursorText,
    Limit,
    Node,
    format_cursor,
    parse_cursor,
    read_body,
)
from varde_gateway.web.moments import parse_moment
from varde_gateway.web.schemas import USERNAME, UserEnd, UserOrder, UserPage, UserView

router = APIRouter(prefix="/v1/users", tags=["users"])

Username = Annotated[str, Path(pattern=USERNAME)]


@router.get("", summary="List users", responses=answers(200, UserPage, "A page of users."))
async def list_page(parts: Node, limit: Limit = 50, cursor: CursorText = None) -> Response:
    """Everybody who may sign in, or might once, by name."""
    after = parse_cursor(cursor)
    users, following = await parts.desk.ledger.read(
        lambda connection: list_users(connection, limit=limit, after=after)
    )
    items = [_describe(each) for each in users]
    return json_answer({"items": [*items], "next_cursor": format_cursor(following)})


@router.post(
    "",
    status_code=201,
    summary="Let somebody in",
    responses=answers(201, UserView, "They can sign in now.", 409),
    openapi_extra=takes(UserOrder),
)
async def create(request: Request, parts: Node, asking: Asking) -> Response:
    """A new user with at least one role."""
    order = await read_body(request, UserOrder)
    new = NewUser(
        order.username,
        order.display_name,
        order.password,
        tuple(Role(each) for each in order.roles),
        Tlp(order.clearance.upper()),
        parse_moment("valid_until", order.valid_until),
    )
    (user,) = await create_users(parts.desk, [new], actor=asking.username)
    return json_answer(_describe(user), 201)


@router.get(
    "/{username}", summary="Read a user", responses=answers(200, UserView, "The user.", 404)
)
async def read(parts: Node, username: Username) -> Response:
    """One user."""
    user = await parts.desk.ledger.read(lambda connection: find_user(connection, username))
    if user is None:
        raise NotFound(f"There is no user {username}.")
    return json_answer(_describe(user))


@router.post(
    "/{username}/disable",
    summary="Shut a user out",
    responses=answers(200, UserView, "They are out; their tokens are void.", 404, 409),
)
async def disable(parts: Node, asking: Asking, username: Username) -> Response:
    """From now on the user's tokens are void and signing in is refused."""
    user = await disable_user(
        parts.desk, parts.standings, username, disabled=True, actor=asking.username
    )
    return json_answer(_describe(user))


@router.post(
    "/{username}/enable",
    summary="Let a user in again",
    responses=answers(200, UserView, "They can sign in again.", 404),
)
async def enable(parts: Node, asking: Asking, username: Username) -> Response:
    """The user may sign in again; tokens of before stay void."""
    user = await disable_user(
        parts.desk, parts.standings, username, disabled=False, actor=asking.username
    )
    return json_answer(_describe(user))


@router.post(
    "/{username}/extend",
    summary="Give a user another end of access",
    responses=answers(200, UserView, "Their access ends then.", 404),
    openapi_extra=takes(UserEnd),
)
async def extend(request: Request, parts: Node, asking: Asking, username: Username) -> Response:
    """Later or earlier than before, but not in the past: to end access now, disable the user."""
    order = await read_body(request, UserEnd)
    end = parse_moment("valid_until", order.valid_until)
    user = await extend_user(
        parts.desk, parts.standings, username, valid_until=end, actor=asking.username
    )
    return json_answer(_describe(user))


def _describe(user: User) -> JsonObject:
    return {
        "username": user.username,
        "display_name": user.display_name,
        "roles": [*user.roles],
        "disabled": user.disabled,
        "clearance": user.clearance.lower(),
        "valid_until": rfc3339(user.valid_until),
        "created_at": rfc3339(user.created_at),
    }
