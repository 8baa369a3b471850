"""Pulling from a durable consumer: one standing request, answered the moment something is stored.

The second half of the adapter around nats-py. Requests are long polls of one shot (``no_wait`` with ``expires``): the
broker answers at once with what there is, up to a batch, or waits for the first message. Protocol section 8.1.
"""

import asyncio
import json
import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from nats.aio.msg import Msg

from varde.transit import TRANSIT_HEADER
from varde_relay.nats_link import Connection, NoAnswer, NothingThere

MAX_FETCH_BYTES: Final = 4 * 1024 * 1024
MAX_ARRIVED_BYTES: Final = 4 * MAX_FETCH_BYTES
"""What is asked for arrives before it is asked for again. A broker that sends much more than that wants our memory."""

MESSAGE_COST_BYTES: Final = 1024
"""An empty message takes room, too."""

FETCH_GRACE_SECONDS: Final = 2.0
"""How much later than asked for a broker's "nothing" may come before the request counts as lost."""

_NANOSECONDS: Final = 1_000_000_000
_REPLY: Final = re.compile(
    r"\$JS\.ACK\.(?:[^.]+\.[^.]+\.)?[^.]+\.[^.]+"
    r"\.(?P<deliveries>[0-9]{1,19})\.[0-9]{1,19}\.[0-9]{1,19}"
    r"\.(?P<stored_at>[0-9]{1,19})\.(?P<pending>[0-9]{1,19})(?:\.[^.]+)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One message of a stream; ``pending`` counts those behind it, ``stored_at`` is Unix seconds at its broker.

    ``transit`` is the label of one that goes through several nations.
    """

    raw: bytes
    message_id: str
    pending: int
    deliveries: int
    stored_at: float
    reply: str
    transit: str | None = None


class Pull:
    """One durable consumer over one connection; one fetch at a time."""

    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        """Call ``bind`` before the first fetch."""
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.new_reply()
        self._request = 0
        self._arrived: deque[Msg] = deque()
        self._arrived_bytes = 0
        self._wake = asyncio.Event()

    async def bind(self) -> None:
        """Listen for what the broker will send."""
        await self._connection.listen(f"{self._inbox}.*", self._take)

    async def fetch(self, batch: int, wait_seconds: float) -> list[Fetched]:
        """Up to ``batch`` messages as soon as there is one; an empty list after ``wait_seconds`` without any.

        With ``wait_seconds`` 0 only what is there now. ``NothingThere`` where the consumer does not exist.
        """
        self._request += 1
        reply = f"{self._inbox}.{self._request:x}"
        wanted: dict[str, int | bool] = {
            "batch": batch,
            "max_bytes": MAX_FETCH_BYTES,
            "no_wait": True,
        }
        if wait_seconds > 0:
            wanted["expires"] = int(wait_seconds * _NANOSECONDS)
        await self._connection.send(self._subject, json.dumps(wanted).encode(), reply)
        fetched: list[Fetched] = []
        try:
            async with asyncio.timeout(wait_seconds + FETCH_GRACE_SECONDS):
                while len(fetched) < batch:
                    message = await self._next()
                    if message.reply:
                        fetched.append(_parse(message))
                    elif message.subject == reply and _ends_request(message):
                        break
        except TimeoutError:
            # The request was lost: the consumer was made anew, or the broker refused the subject (see on_refusal).
            pass
        return fetched

    async def acknowledge(self, fetched: Fetched) -> None:
        """The broker may forget it."""
        await self._connection.send(fetched.reply, b"+ACK")

    async def retry_later(self, fetched: Fetched, seconds: float) -> None:
        """The broker gives it again after ``seconds``."""
        delay = json.dumps({"delay": int(seconds * _NANOSECONDS)})
        await self._connection.send(fetched.reply, f"-NAK {delay}".encode())

    async def give_up(self, fetched: Fetched, reason: str) -> None:
        """The broker shall never give it again."""
        await self._connection.send(fetched.reply, f"+TERM {reason}".encode())

    async def _take(self, message: Msg) -> None:
        if self._arrived_bytes + _size(message) > MAX_ARRIVED_BYTES:
            await self._connection.end("the broker sends more than it was asked for")
            return
        self._arrived.append(message)
        self._arrived_bytes += _size(message)
        self._wake.set()

    async def _next(self) -> Msg:
        while not self._arrived:
            self._wake.clear()
            await self._wake.wait()
        message = self._arrived.popleft()
        self._arrived_bytes -= _size(message)
        return message


def _size(message: Msg) -> int:
    headers = message.headers or {}
    return MESSAGE_COST_BYTES + len(message.data) + sum(map(len, (*headers, *headers.values())))


def _ends_request(message: Msg) -> bool:
    headers = message.headers or {}
    status, detail = headers.get("Status", ""), headers.get("Description", "")
    if status == "503" or (status == "409" and "deleted" in detail.lower()):
        # The description of a 503 names the subject of the request only.
        raise NothingThere(detail if status == "409" else "it has made no consumer for us yet")
    # 100 is an idle heartbeat. 404, 408 and every other 409 end the request: nothing (more) to send.
    return status != "100"


def _parse(message: Msg) -> Fetched:
    match = _REPLY.fullmatch(message.reply)
    if match is None:
        raise NoAnswer("the broker sent a message that is not from a stream")
    headers = message.headers or {}
    return Fetched(
        raw=message.data,
        message_id=headers.get("Nats-Msg-Id", ""),
        transit=headers.get(TRANSIT_HEADER),
        pending=int(match["pending"]),
        deliveries=int(match["deliveries"]),
        stored_at=int(match["stored_at"]) / _NANOSECONDS,
        reply=message.reply,
    )
