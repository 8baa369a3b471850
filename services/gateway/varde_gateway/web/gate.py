"""The outermost layer of every request: the size of its body, the headers of its answer, its time, and its failure.

Plain ASGI: it costs a few microseconds.
"""

import time
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from varde_gateway.flow.faults import TooLarge
from varde_gateway.telemetry import Metrics
from varde_gateway.web.errors import INTERNAL, PROBLEMS, problem_response

_STREAMS: Final = frozenset(
    {"/v1/events", "/v1/audit/export", "/v1/attachments", "/v1/attachments/{attachment_id}"}
)
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_log = structlog.get_logger("web")


class Gate:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        larger: Mapping[tuple[str, str], int],
        metrics: Metrics,
    ) -> None:
        """Bodies of more than ``max_body_bytes`` are refused, announced or not; ``larger`` by method and path."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._larger = larger
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._pass_on(scope, receive, send_with_headers)
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise
            detail = "Something is wrong at this node; its log has the details."
            answer = problem_response(INTERNAL, detail, scope["path"])
            await answer(scope, receive, send_with_headers)
        route = getattr(scope.get("route"), "path", "none")
        if route not in _STREAMS:
            seconds = time.perf_counter() - begun
            self._metrics.requests.labels(route, str(status)).observe(seconds)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        most = self._larger.get((scope["method"], scope["path"]), self._max_body_bytes)

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(most)
            return message

        if _announces_too_much(scope, most):
            fault = _too_large(most)
            answer = problem_response(PROBLEMS[TooLarge], fault.detail, scope["path"])
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive_bounded, send)


def _announces_too_much(scope: Scope, most: int) -> bool:
    announced = Headers(scope=scope).get("content-length", "")
    return announced.isdecimal() and (len(announced) > len(str(most)) or int(announced) > most)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"A request has at most {most} bytes here.")
