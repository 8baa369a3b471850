"""Asks witnesses over HTTP (C2SP tlog-witness ``add-checkpoint``); believes nothing of what they answer.

TLS certificates are verified against the system's store, a proxy is taken from the environment. Redirects are not followed: a witness is where it was set.
"""

import ssl
from types import TracebackType
from typing import Final, Self

import httpx

from varde_gateway.flow.ports import WitnessUnreachable

TIMEOUT_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 * 1024


class WitnessClient:
    """An ``AskWitness`` with its connections; an asynchronous context manager."""

    def __init__(self) -> None:
        """Nothing is connected before the first question."""
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS,
            verify=ssl.create_default_context(),
            # Not compressed: what is limited is then what is held.
            headers={"accept-encoding": "identity", "content-type": "text/plain; charset=utf-8"},
        )

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __call__(self, url: str, request: bytes) -> tuple[int, bytes]:
        """Status and body; ``WitnessUnreachable`` where none came in time, or more than any witness has to say."""
        address = f"{url.rstrip('/')}/add-checkpoint"
        try:
            async with self._client.stream("POST", address, content=request) as answer:
                body = b""
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise WitnessUnreachable("answers more than 64 KiB")
                return answer.status_code, body
        except httpx.TimeoutException:
            raise WitnessUnreachable(f"does not answer within {TIMEOUT_SECONDS:.0f} s") from None
        except httpx.HTTPError as error:
            raise WitnessUnreachable(f"cannot be asked: {error or type(error).__name__}") from None
