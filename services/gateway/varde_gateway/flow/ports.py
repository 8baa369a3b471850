"""What the flow needs of the world outside: a broker. ``broker_link`` implements it over NATS JetStream."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from varde.identifiers import Lane, Nation


class BrokerError(Exception):
    """Our own broker did not take something; ``detail`` is what a person reads beside the delivery."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BrokerUnavailable(BrokerError):
    """Not connected, or no answer in time."""


class BrokerFull(BrokerError):
    """The OUTBOX is at its limit: nothing was discarded, the new message was refused."""


@dataclass(frozen=True, slots=True)
class Carried:
    """One message from the INBOX; ``redelivered`` counts earlier deliveries of it to us."""

    raw: bytes
    lane: Lane
    sender: Nation
    redelivered: int
    acknowledge: Callable[[], Awaitable[None]]
    retry_later: Callable[[float], Awaitable[None]]


class Broker(Protocol):
    """Our nation's broker."""

    async def publish(self, subject: str, raw: bytes, message_id: str) -> None:
        """Return after the JetStream acknowledgement; ``BrokerError`` otherwise."""

    async def publish_many(
        self, messages: Sequence[tuple[str, bytes, str]]
    ) -> list[BrokerError | None]:
        """Publish ``(subject, raw, message_id)`` pipelined; one answer each, in order."""

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        """Up to ``batch`` messages of one lane, as soon as there is one; empty after ``wait_seconds``."""

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        """How many messages the recipient has not fetched and acknowledged yet."""

    def connected(self) -> bool:
        """Whether the broker answers now."""

    async def wait_connected(self) -> None:
        """Return once it does."""
