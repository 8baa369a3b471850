"""Every look of an auditor is logged before its first byte goes out: here, for every route that does not do it itself.

``access`` says of each request whose look it is; a route that is added later is logged without knowing of it. Where the
look cannot be recorded, nothing is given out.
"""

from typing import Any, Final

import structlog
from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from varde_gateway.flow.review.looks import Looks
from varde_gateway.web.access import LOOK
from varde_gateway.web.errors import UNAVAILABLE, problem_response

_FIRST_ERROR: Final = 400
_log = structlog.get_logger("web")


class _NotRecordedError(Exception):
    """The database took no entry; the route's answer must not go out."""


class LooksRecorder:
    """ASGI middleware, between the gate and the routes."""

    def __init__(self, app: ASGIApp, *, looks: Looks) -> None:
        """``looks`` are those of this node."""
        self._app = app
        self._looks = looks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        # Made here, so that whatever copies the scope on the way shares it.
        state: dict[str, Any] = scope.setdefault("state", {})

        async def record_first(message: Message) -> None:
            look = state.pop(LOOK, None)
            if look is not None and message.get("status", _FIRST_ERROR) < _FIRST_ERROR:
                try:
                    await self._looks.note(look)
                except OperationalError as error:
                    raise _NotRecordedError from error
            await send(message)

        try:
            await self._app(scope, receive, record_first)
        except _NotRecordedError as error:
            _log.error("a look was not recorded", error=str(error.__cause__))
            detail = (
                "The database does not take down that you looked, so nothing is shown. Try again."
            )
            answer = problem_response(UNAVAILABLE, detail, scope["path"])
            await answer(scope, receive, send)
