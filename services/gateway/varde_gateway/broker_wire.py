"""One connection to our own broker: TLS, the key, requests, publish acknowledgements, pulling the INBOX.

The only module of the gateway that imports nats. A connection is made, used and ended once: the library's own
reconnection is not used, so that nothing is published later than its caller was told. Protocol section 8.1.
"""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from varde.errors import Malformed
from varde.identifiers import Lane, parse_nation
from varde.subjects import INBOX, PART_ANSWERS, gateway_consumer
from varde.transit import TRANSIT_HEADER, format_transit, parse_transit
from varde_gateway.cancellation import end_task, heeding_cancellation
from varde_gateway.flow.ports import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    Carried,
    Outbound,
)

CONNECT_TIMEOUT_SECONDS: Final = 3
WATCH_SECONDS: Final = 0.5
CLOSE_TIMEOUT_SECONDS: Final = 0.5
PING_SECONDS: Final = 2
MAX_UNANSWERED_PINGS: Final = 2
ANSWER_TIMEOUT_SECONDS: Final = 5.0
FETCH_GRACE_SECONDS: Final = 2.0
MAX_FETCH_BYTES: Final = 8 * 1024 * 1024

_NANOSECONDS: Final = 1_000_000_000
_STORE_FAILED: Final = 10077
"""JetStream's error code for what was not stored: at a limit of the stream (discard new), or by a fault of the disk."""
_AT_LIMIT: Final = "maximum "

_REPLY: Final = re.compile(
    r"\$JS\.ACK\.(?:[^.]+\.[^.]+\.)?[^.]+\.[^.]+"
    r"\.(?P<deliveries>[0-9]{1,19})\.[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(?:\.[^.]+)?",
    re.ASCII,
)
_log = structlog.get_logger("broker")


class NoStream(BrokerUnavailable):
    """Connected, but the stream or consumer is gone."""


class Unstored(BrokerUnavailable):
    """Connected, but a message was not stored: no answer in time, or a fault of the store. No limit was reached."""


class Live:
    """One connection, made, used and ended once."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.last_error = ""
        self._pulls: dict[Lane, _Pull] = {}
        self._client = Client()
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._reply_base = ""
        self._parts_base = ""
        self._next_token = 0

    async def open(self, url: str, ca_file: Path, nkey_file: Path) -> None:
        """Connect and authenticate, or ``BrokerUnavailable``."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_verify_locations(ca_file)
            with heeding_cancellation():
                await self._client.connect(
                    url,
                    name="varde gateway",
                    tls=context,
                    tls_hostname=urlsplit(url).hostname,
                    # TLS before the first byte of NATS: a server that offers plain text is never answered.
                    tls_handshake_first=True,
                    nkeys_seed=str(nkey_file),
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT_SECONDS,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=MAX_UNANSWERED_PINGS,
                    error_cb=self._hear_error,
                    closed_cb=self._hear_end,
                )
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            raise BrokerUnavailable(self.last_error or str(error) or repr(error)) from error
        self._reply_base = self._client.new_inbox()
        await self.listen(f"{self._reply_base}.*", self._take_reply)
        # Our relay may not answer on an inbox of ours: other answers come there.
        self._parts_base = f"{PART_ANSWERS}.{self._reply_base.rpartition('.')[2]}"
        await self.listen(f"{self._parts_base}.*", self._take_reply)
        for lane in Lane:
            self._pulls[lane] = _Pull(self, lane, self._client.new_inbox())
            await self.listen(f"{self._pulls[lane].inbox}.*", self._pulls[lane].take)

    async def wait_ended(self) -> None:
        """Return when the connection has ended."""
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self.ended.wait()
            if not self._client.is_connected:
                # An error while it closes keeps the library from telling us that it has closed.
                await self._hear_end()

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        """Up to ``batch`` messages of the INBOX; ``NoStream`` where it is gone."""
        messages = await self._pulls[lane].fetch(batch, wait_seconds)
        carried = [await _carried(self, lane, each) for each in messages]
        return [each for each in carried if each is not None]

    async def close(self) -> None:
        """End it; what it had not sent is lost."""
        # After a failed TLS handshake the library would wait for ever for a stream that has no end.
        await end_task(asyncio.create_task(self._client.close()), CLOSE_TIMEOUT_SECONDS)
        await self._hear_end()

    async def answer_requests(
        self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        """Answer each request on ``subject`` with what ``answer`` makes of it."""

        async def take(question: Msg) -> None:
            if not question.reply:
                return
            try:
                await self.send(question.reply, await answer(question.data))
            except BrokerError as error:
                _log.warning("a request is not answered", subject=subject, detail=error.detail)

        await self.listen(subject, take)

    async def listen(self, subject: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Call ``take`` with each message on ``subject``, one after the other."""
        try:
            with heeding_cancellation():
                await self._client.subscribe(subject, cb=take)
                await self._client.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BrokerUnavailable(str(error) or repr(error)) from error

    async def send(self, subject: str, raw: bytes, reply: str = "") -> None:
        """Publish without waiting for an answer."""
        try:
            with heeding_cancellation():
                await self._client.publish(subject, raw, reply=reply)
        except (nats.errors.Error, OSError) as error:
            raise BrokerUnavailable(str(error) or repr(error)) from error

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        """Publish, wait for the acknowledgements, one answer each."""
        answers = [await self._request(each.subject, each.raw, _headers(each)) for each in messages]
        if answers:
            await asyncio.wait(answers, timeout=ANSWER_TIMEOUT_SECONDS)
        return [_error_of(answer) for answer in answers]

    async def store(self, subject: str, raw: bytes, timeout_seconds: float) -> int:
        """Store one message without an identifier; its sequence number in the stream."""
        answer = await self._request(subject, raw, None)
        await asyncio.wait([answer], timeout=timeout_seconds)
        return count_in(_acknowledged(answer), "seq")

    async def ask(self, call: str, body: dict[str, object]) -> dict[str, object]:
        """One call of the JetStream API; its answer, with the ``error`` member where there is one."""
        answer = await self._request(f"$JS.API.{call}", json.dumps(body).encode(), None)
        await asyncio.wait([answer], timeout=ANSWER_TIMEOUT_SECONDS)
        return _read(answer)

    async def ask_relay(self, subject: str, raw: bytes, timeout_seconds: float) -> bytes:
        """Our relay's answer; ``NoStream`` where it does not listen, ``BrokerUnavailable`` after the time-out."""
        answer = await self._request(subject, raw, None, self._parts_base)
        await asyncio.wait([answer], timeout=timeout_seconds)
        return _answered(answer).data

    async def _request(
        self, subject: str, raw: bytes, headers: dict[str, str] | None, base: str = ""
    ) -> asyncio.Future[Msg]:
        token = f"{self._next_token:x}"
        self._next_token += 1
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: self._forget(token, done))
        self._replies[token] = answer
        try:
            reply = f"{base or self._reply_base}.{token}"
            with heeding_cancellation():
                await self._client.publish(subject, raw, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            answer.set_exception(BrokerUnavailable(str(error) or repr(error)))
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
        self.last_error = str(error) or repr(error)
        _log.debug("broker error", detail=self.last_error)

    async def _hear_end(self) -> None:
        self.ended.set()
        for answer in [*self._replies.values()]:
            if not answer.done():
                answer.set_exception(BrokerUnavailable("the connection to our broker ended"))
        for pull in self._pulls.values():
            pull.wake.set()


class _Pull:
    """The gateway's durable consumer of one lane: one standing request, answered the moment something is stored."""

    def __init__(self, live: Live, lane: Lane, inbox: str) -> None:
        self.inbox = inbox
        self.wake = asyncio.Event()
        self._live = live
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{INBOX}.{gateway_consumer(lane)}"
        self._arrived: list[Msg] = []
        self._request = 0

    async def take(self, message: Msg) -> None:
        self._arrived.append(message)
        self.wake.set()

    async def fetch(self, batch: int, wait_seconds: float) -> list[Msg]:
        """A long poll of one shot: what is there at once, else the first that comes; see nats-server's ``no_wait``."""
        self._request += 1
        reply = f"{self.inbox}.{self._request:x}"
        wanted = {
            "batch": batch,
            "max_bytes": MAX_FETCH_BYTES,
            "no_wait": True,
            "expires": int(wait_seconds * _NANOSECONDS),
        }
        await self._live.send(self._subject, json.dumps(wanted).encode(), reply)
        fetched: list[Msg] = []
        try:
            async with asyncio.timeout(wait_seconds + FETCH_GRACE_SECONDS):
                while len(fetched) < batch:
                    arrived, self._arrived = self._arrived, []
                    fetched.extend(each for each in arrived if each.reply)
                    if any(_ends(each, reply) for each in arrived):
                        break
                    if not arrived:
                        if self._live.ended.is_set():
                            raise BrokerUnavailable("the connection to our broker ended")
                        self.wake.clear()
                        await self.wake.wait()
        except TimeoutError:
            # The request was lost, as when the consumer was made anew; the next fetch asks again.
            pass
        return fetched


def _headers(message: Outbound) -> dict[str, str]:
    headers = {"Nats-Msg-Id": message.message_id}
    if message.transit is not None:
        headers[TRANSIT_HEADER] = format_transit(message.transit)
    return headers


def _ends(message: Msg, reply: str) -> bool:
    if message.reply or message.subject != reply:
        return False
    headers = message.headers or {}
    status, detail = headers.get("Status", ""), headers.get("Description", "")
    if status == "503" or (status == "409" and "deleted" in detail.lower()):
        raise NoStream(detail or "our INBOX consumer is gone")
    return status != "100"


async def _carried(live: Live, lane: Lane, message: Msg) -> Carried | None:
    async def answer(verb: bytes) -> None:
        try:
            await live.send(message.reply, verb)
        except BrokerUnavailable:
            # The broker gives it again, and the database knows that it was here.
            _log.info("acknowledgement lost with the connection")

    async def acknowledge() -> None:
        await answer(b"+ACK")

    async def retry_later(seconds: float) -> None:
        await answer(f'-NAK {{"delay": {int(seconds * _NANOSECONDS)}}}'.encode())

    match = _REPLY.fullmatch(message.reply)
    label = (message.headers or {}).get(TRANSIT_HEADER)
    try:
        link = parse_nation(message.subject.rpartition(".")[2])
        transit = None if label is None else parse_transit(label)
    except Malformed:
        # Only our own relay may write there, so this is a broken relay; it shall not block the lane.
        _log.error("a message that our relay cannot have written", subject=message.subject[:64])
        await answer(b"+TERM")
        return None
    redelivered = int(match["deliveries"]) - 1 if match else 0
    return Carried(message.data, lane, link, redelivered, acknowledge, retry_later, transit)


def _answered(answer: asyncio.Future[Msg]) -> Msg:
    if not answer.done():
        answer.cancel()
        raise BrokerUnavailable("our broker did not answer in time")
    message = answer.result()
    if (message.headers or {}).get("Status") == "503":
        raise NoStream("the broker has no such stream")
    return message


def _read(answer: asyncio.Future[Msg]) -> dict[str, object]:
    said = json.loads(_answered(answer).data)
    if not isinstance(said, dict):
        raise BrokerUnavailable("our broker's answer is not an object")
    return said


def _error_of(answer: asyncio.Future[Msg]) -> BrokerError | None:
    try:
        _acknowledged(answer)
    except BrokerError as error:
        return error
    return None


def _acknowledged(answer: asyncio.Future[Msg]) -> dict[str, object]:
    if not answer.done():
        answer.cancel()
        raise Unstored("our broker did not answer in time")
    said = _read(answer)
    if "error" not in said:
        return said
    detail = error_text(said)
    if error_code(said) != _STORE_FAILED:
        raise BrokerUnavailable(detail)
    raise BrokerFull(detail) if detail.startswith(_AT_LIMIT) else Unstored(detail)


def error_code(said: dict[str, object]) -> int:
    return count_in(member_in(said, "error"), "err_code")


def error_text(said: dict[str, object]) -> str:
    return str(member_in(said, "error").get("description", "no reason given"))


def count_in(said: dict[str, object], member: str) -> int:
    value = said.get(member)
    return value if isinstance(value, int) else 0


def member_in(said: dict[str, object], member: str) -> dict[str, object]:
    value = said.get(member)
    return value if isinstance(value, dict) else {}
