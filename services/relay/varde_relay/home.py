"""Our own broker, seen from the relay: the INBOX it writes to, and the gateway it asks for the roster.

Protocol sections 8.1 and 8.3.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from varde.subjects import ROSTER_GET, ROSTER_UPDATE
from varde_relay.book import RosterBook
from varde_relay.nats_link import (
    Connection,
    Endpoint,
    Inbound,
    LinkDown,
    LinkError,
    NoAnswer,
    Question,
    StreamFull,
    keep_connected,
)
from varde_relay.state import RelayState

ASK_AGAIN_SECONDS: Final = 1.0
"""While the gateway is away; the relay goes on with the roster it has verified before."""

REFRESH_SECONDS: Final = 60.0
"""An update may be lost (it is not stored anywhere), so the relay asks now and then."""

_log = structlog.get_logger("varde_relay.home")


class Home:
    """The connection to our own broker, kept for ever."""

    def __init__(
        self,
        endpoint: Endpoint,
        state: RelayState,
        *,
        pause: Callable[[int], float],
        book: RosterBook,
    ) -> None:
        """``book`` gets each answer and update of the gateway, and verifies it."""
        self._endpoint = endpoint
        self._state = state
        self._pause = pause
        self._book = book
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._told = asyncio.Event()
        self._served: dict[str, Callable[[Question], Awaitable[None]]] = {}

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        while True:
            try:
                await keep_connected(
                    self._endpoint,
                    self._serve,
                    pause=self._pause,
                    on_refusal=self._hear_trouble,
                    on_down=self._hear_down,
                )
            except Exception as error:  # noqa: BLE001 -- the outermost line of this worker
                self._hear_down(repr(error))
                _log.exception("home.failed")
                await asyncio.sleep(self._pause(1))

    def serve(self, subject: str, take: Callable[[Question], Awaitable[None]]) -> None:
        """Answer requests on ``subject``, from the next connection on; ``take`` must not wait for anybody."""
        self._served[subject] = take

    async def read_stored(self, subject: str) -> bytes:
        """A message of one of our broker's streams; ``LinkDown`` when not connected."""
        if self._connection is None:
            raise LinkDown("our own broker is not connected")
        return await self._connection.read_stored(subject)

    async def wait_connected(self) -> None:
        """Return once documents can be stored."""
        await self._up.wait()

    async def publish_many(self, messages: Sequence[Inbound]) -> list[LinkError | None]:
        """Store each; one answer each, in order, ``LinkDown`` when not connected."""
        if self._connection is None:
            return [LinkDown("our own broker is not connected") for _ in messages]
        begun = asyncio.get_running_loop().time()
        answers = await self._connection.publish_many(messages)
        if answers and all(isinstance(each, NoAnswer) for each in answers):
            self._state.unstored_since = self._state.unstored_since or begun
        elif any(each is None or isinstance(each, StreamFull) for each in answers):
            self._state.unstored_since = None
        return answers

    async def say(self, subject: str, raw: bytes) -> None:
        """Tell the gateway something that nobody keeps; nothing when not connected."""
        if self._connection is not None:
            with suppress(LinkError):
                await self._connection.send(subject, raw)

    async def _serve(self, connection: Connection) -> None:
        await connection.subscribe(ROSTER_UPDATE, self._hear_update)
        for subject, take in self._served.items():
            await connection.serve(subject, take)
        self._connection = connection
        self._state.home_connected = True
        self._state.home_error = ""
        self._up.set()
        _log.info("home.up", url=self._endpoint.url)
        while True:
            self._told.clear()
            known = self._book.version
            try:
                # The version that we have: the gateway need not tell what we know.
                await self._book.take(await connection.request(ROSTER_GET, str(known).encode()))
            except LinkDown:
                raise
            except LinkError as error:
                _log.info("roster.gateway_silent", error=error.detail)
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                continue
            if self._book.version == known:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_SECONDS):
                        await self._told.wait()

    async def _hear_update(self, raw: bytes) -> None:
        await self._book.take(raw)
        # What was told may begin behind a version that we lack: the next question closes the gap.
        self._told.set()

    def _hear_down(self, detail: str) -> None:
        self._connection = None
        self._state.home_connected = False
        self._state.forget_stuck()
        self._up.clear()
        self._hear_trouble(detail)

    def _hear_trouble(self, detail: str) -> None:
        if detail != self._state.home_error:
            self._state.home_error = detail
            _log.warning("home.trouble", url=self._endpoint.url, error=detail)
