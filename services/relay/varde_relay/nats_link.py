"""The relay's one adapter around nats-py: a connection that is made, used, and ends once.

It knows TLS, NKeys, subscriptions, pull requests and publish acknowledgements; it knows nothing of documents. The
library's own reconnection is not used: a connection that ends is thrown away with everything it held, and the caller
makes a new one (``keep_connected``). Protocol section 8.1.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from varde.transit import TRANSIT_HEADER
from varde_relay.cancellation import end_task, heeding_cancellation

CONNECT_TIMEOUT_SECONDS: Final = 3
CLOSE_TIMEOUT_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 0.5
PING_SECONDS: Final = 2
MAX_UNANSWERED_PINGS: Final = 2
PUBLISH_TIMEOUT_SECONDS: Final = 5.0
REQUEST_TIMEOUT_SECONDS: Final = 5.0
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""More than any broker of ours may carry: a peer's server that announces more is not believed."""

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""What the library may keep of one subscription until we have looked at it; the rest it drops."""

_MESSAGE_ID: Final = "Nats-Msg-Id"
_STATUS: Final = "Status"
_NO_RESPONDERS: Final = "503"
_STORE_FAILED: Final = 10077
"""JetStream's error code for what was not stored: at a limit of the stream (discard new), or by a fault of the disk."""
_AT_LIMIT: Final = "maximum "
_PERMISSIONS: Final = re.compile(r"permissions violation", re.IGNORECASE)


class LinkError(Exception):
    """What the broker at the other end did not do; ``detail`` is for the log."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class LinkDown(LinkError):
    """The connection has ended, or could not be made."""


class NothingThere(LinkError):
    """Connected, but the stream or the consumer does not exist."""


class StreamFull(LinkError):
    """The stream refused a message because it is at its limit."""


class NoAnswer(LinkError):
    """The broker did not answer in time, or answered with another error."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One broker and how to be somebody there. ``server_name`` is what its certificate must name."""

    url: str
    server_name: str
    ca: bytes
    reply_prefix: str
    client_name: str
    nkey_seed: str = field(repr=False)


class Inbound(NamedTuple):
    """One message to store; ``transit`` is the label of one that goes through several nations."""

    subject: str
    raw: bytes
    message_id: str
    transit: str | None = None

    def headers(self) -> dict[str, str]:
        """What stands before it on the wire."""
        label = {} if self.transit is None else {TRANSIT_HEADER: self.transit}
        return {_MESSAGE_ID: self.message_id, **label}


class Question(NamedTuple):
    """A request that somebody waits for; an ``answer`` after the connection has ended reaches nobody."""

    subject: str
    raw: bytes
    answer: Callable[[bytes], Awaitable[None]]


class _BoundedParser(Parser):
    """nats-py reads what a server announces, however much; a hostile broker would fill our memory."""

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if self.needed > MAX_MESSAGE_BYTES or len(self.buf) > 2 * MAX_MESSAGE_BYTES:
            raise nats.errors.ProtocolError


def tls_context(ca: bytes) -> ssl.SSLContext:
    """TLS 1.3 with exactly one trusted authority (DER), and the server's name checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=ca)
    return context


class Connection:
    """One live connection. Every method raises ``LinkDown`` once it has ended."""

    def __init__(self, endpoint: Endpoint, on_refusal: Callable[[str], None]) -> None:
        """Not connected yet; ``on_refusal`` hears every permission that the broker refuses us."""
        self._endpoint = endpoint
        self._on_refusal = on_refusal
        self._client = Client()
        self._client._ps = _BoundedParser(self._client)  # noqa: SLF001 -- the library has no setting for it
        self._last_error = ""
        self._ended = asyncio.Event()
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._reply_base = ""
        self._next_token = 0
        self.was_open = False

    async def open(self) -> None:
        """Connect and authenticate, or ``LinkDown``."""
        try:
            await self._connect()
            self._reply_base = self._client.new_inbox()
            await self._client.subscribe(
                f"{self._reply_base}.*",
                cb=self._take_reply,
                pending_bytes_limit=MAX_PENDING_BYTES,
            )
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            await self.close()
            raise LinkDown(self._last_error or str(error) or type(error).__name__) from error
        self.was_open = True

    async def _connect(self) -> None:
        endpoint = self._endpoint
        with heeding_cancellation():
            await self._client.connect(
                endpoint.url,
                name=endpoint.client_name,
                tls=tls_context(endpoint.ca),
                tls_hostname=endpoint.server_name,
                # TLS before the first byte of NATS: a server that offers plain text is never answered.
                tls_handshake_first=True,
                nkeys_seed_str=endpoint.nkey_seed,
                inbox_prefix=endpoint.reply_prefix,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=MAX_UNANSWERED_PINGS,
                error_cb=self._hear_error,
                closed_cb=self._hear_end,
            )

    async def close(self) -> None:
        """End the connection; what it had not sent is lost."""
        # After a failed TLS handshake the library would wait for ever for a stream that has no end.
        await end_task(asyncio.create_task(self._client.close()), CLOSE_TIMEOUT_SECONDS)
        await self._hear_end()

    async def end(self, detail: str) -> None:
        """Have whoever waits for its end hear this one; what arrives until it is closed is nobody's."""
        self._last_error = detail
        await self._hear_end()

    def is_open(self) -> bool:
        """Whether it has been opened and has not ended."""
        return self._client.is_connected and not self._ended.is_set()

    async def wait_ended(self) -> NoReturn:
        """Raise ``LinkDown`` when the connection ends."""
        while not self._ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._ended.wait()
            if not self._client.is_connected:
                # An error while it closes keeps the library from telling us that it has closed.
                await self._hear_end()
        raise LinkDown(self._last_error or "the broker closed the connection")

    async def publish_many(self, messages: Sequence[Inbound]) -> list[LinkError | None]:
        """Store each in the stream behind its subject; one answer each, in order."""
        answers = [await self._send(each.subject, each.raw, each.headers()) for each in messages]
        await asyncio.wait(answers, timeout=PUBLISH_TIMEOUT_SECONDS)
        return [_stored(answer) for answer in answers]

    async def request(
        self, subject: str, raw: bytes, *, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> bytes:
        """The answer's bytes; ``NothingThere`` where nobody listens, ``NoAnswer`` after the time-out."""
        answer = await self._send(subject, raw, None)
        await asyncio.wait([answer], timeout=timeout_seconds)
        return _answered(answer).data

    async def read_stored(self, subject: str) -> bytes:
        """A message of a stream, by its own direct-get subject; ``NothingThere`` where the stream has none."""
        answer = await self._send(subject, b"", None)
        await asyncio.wait([answer], timeout=REQUEST_TIMEOUT_SECONDS)
        message = _answered(answer)
        if message.headers and message.headers.get(_STATUS):
            raise NothingThere("the stream has no such message")
        return message.data

    async def subscribe(self, subject: str, heard: Callable[[bytes], Awaitable[None]]) -> None:
        """Call ``heard`` with each message on ``subject``, one after the other."""

        async def take(message: Msg) -> None:
            await heard(message.data)

        await self.listen(subject, take)

    async def listen(self, subject: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        """The same with the whole message; returns when the broker knows of the subscription."""
        with self._errors_named():
            await self._client.subscribe(subject, cb=take, pending_bytes_limit=MAX_PENDING_BYTES)
            await self._client.flush()

    async def serve(self, subject: str, take: Callable[[Question], Awaitable[None]]) -> None:
        """Call ``take`` with each request on ``subject``; of several relays of a nation one gets it."""

        async def hear(message: Msg) -> None:
            if message.reply:

                async def answer(raw: bytes) -> None:
                    with suppress(LinkError):
                        await self.send(message.reply, raw)

                await take(Question(message.subject, message.data, answer))

        with self._errors_named():
            await self._client.subscribe(subject, queue="relay", cb=hear)
            await self._client.flush()

    def new_reply(self) -> str:
        """A subject for replies that nobody else listens to."""
        return self._client.new_inbox()

    async def send(self, subject: str, raw: bytes, reply: str = "") -> None:
        """Publish without waiting for any answer."""
        with self._errors_named():
            await self._client.publish(subject, raw, reply=reply)

    async def _send(
        self, subject: str, raw: bytes, headers: dict[str, str] | None
    ) -> asyncio.Future[Msg]:
        token = f"{self._next_token:x}"
        self._next_token += 1
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: self._forget(token, done))
        self._replies[token] = answer
        try:
            with self._errors_named():
                await self._client.publish(
                    subject, raw, reply=f"{self._reply_base}.{token}", headers=headers
                )
        except LinkError as error:
            answer.set_exception(error)
        return answer

    def _forget(self, token: str, done: asyncio.Future[Msg]) -> None:
        self._replies.pop(token, None)
        if not done.cancelled():
            # Who asked may be gone when the connection ends; the error is not news to anybody then.
            done.exception()

    async def _take_reply(self, message: Msg) -> None:
        answer = self._replies.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _hear_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if _PERMISSIONS.search(self._last_error):
            self._on_refusal(self._last_error)

    async def _hear_end(self) -> None:
        self._ended.set()
        down = LinkDown(self._last_error or "the broker closed the connection")
        for answer in [*self._replies.values()]:
            if not answer.done():
                answer.set_exception(down)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            with heeding_cancellation():
                yield
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            detail = str(error) or type(error).__name__
            raise (NoAnswer if self.is_open() else LinkDown)(detail) from error


async def keep_connected(
    endpoint: Endpoint,
    use: Callable[[Connection], Awaitable[None]],
    *,
    pause: Callable[[int], float],
    on_refusal: Callable[[str], None],
    on_down: Callable[[str], None],
) -> NoReturn:
    """Connect, ``use`` the connection until it ends, and begin again, for ever.

    ``pause`` gives the seconds before the next try after so many failures in a row, with jitter; ``on_down`` hears
    why each connection ended or could not be made. Anything but a ``LinkError`` out of ``use`` ends the loop.
    """
    failures = 0
    while True:
        connection = Connection(endpoint, on_refusal)
        # In a task of its own: here nothing but our own waiting can be cancelled, and so no cancellation is lost.
        life = asyncio.create_task(_live(connection, use))
        try:
            await asyncio.wait({life})
        finally:
            await end_task(life)
        if life.cancelled():
            on_down("the broker library gave up")
        else:
            try:
                life.result()
            except* LinkError as errors:
                on_down(first_detail(errors))
        failures = 1 if connection.was_open else failures + 1
        await asyncio.sleep(pause(failures))


async def _live(connection: Connection, use: Callable[[Connection], Awaitable[None]]) -> NoReturn:
    try:
        await connection.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.wait_ended())
            await use(connection)
            raise LinkDown("the connection is not needed any more")
    finally:
        await connection.close()


def first_detail(errors: ExceptionGroup[LinkError]) -> str:
    """What the first of several simultaneous errors says."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _answered(answer: asyncio.Future[Msg]) -> Msg:
    if not answer.done():
        answer.cancel()
        raise NoAnswer("the broker did not answer in time")
    message = answer.result()
    if message.headers and message.headers.get(_STATUS) == _NO_RESPONDERS:
        raise NothingThere("nobody answers there")
    return message


def _stored(answer: asyncio.Future[Msg]) -> LinkError | None:
    try:
        said = json.loads(_answered(answer).data)
    except LinkError as error:
        return error
    except ValueError:
        return NoAnswer("the broker's acknowledgement is not JSON")
    refusal = said.get("error") if isinstance(said, dict) else {}
    if refusal is None:
        return None
    detail = str(refusal.get("description", "refused without a reason"))
    full = refusal.get("err_code") == _STORE_FAILED and detail.startswith(_AT_LIMIT)
    return StreamFull(detail) if full else NoAnswer(detail)
