"""What the flow needs of the world outside: a broker, and a way to ask witnesses that are not members.

``broker_link`` implements the one over NATS JetStream, ``witness_client`` the other over HTTP.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from varde.blob import BlobAddress, BlobFault
from varde.identifiers import Lane, Nation
from varde.transit import Transit


class BrokerError(Exception):
    """Our own broker did not take something; ``detail`` is what a person reads beside the delivery."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BrokerUnavailable(BrokerError):
    """Not connected, or no answer in time."""


class BrokerFull(BrokerError):
    """The OUTBOX is at its limit: nothing was discarded, the new message was refused."""


class Outbound(NamedTuple):
    """One message for a peer to fetch; ``transit`` labels one that is for another nation than that peer."""

    subject: str
    raw: bytes
    message_id: str
    transit: Transit | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """One message from the INBOX, fetched from the OUTBOX of ``link``; ``redelivered`` counts earlier deliveries to us.

    ``transit`` is None where it came straight from its sender.
    """

    raw: bytes
    lane: Lane
    link: Nation
    redelivered: int
    acknowledge: Callable[[], Awaitable[None]]
    retry_later: Callable[[float], Awaitable[None]]
    transit: Transit | None = None

    @property
    def via(self) -> tuple[Nation, ...]:
        """The nations that handed it on, in order."""
        return () if self.transit is None else self.transit.hops


@dataclass(frozen=True, slots=True)
class Held:
    """What our OUTBOX holds: how many messages by subject, and how many bytes of those for which it has room."""

    messages: Mapping[str, int]
    taken: int
    room: int


class Broker(Protocol):
    """Our nation's broker."""

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        """Publish pipelined and wait for the JetStream acknowledgements; one answer each, in order, and never an error."""

    async def pulse(self, peer: Nation, raw: bytes) -> None:
        """Say a heartbeat to ``peer``; nothing where it is not listening or our broker is away."""

    async def next_pulse(self) -> tuple[Nation, bytes]:
        """The next heartbeat that our relay heard, and at whose broker."""

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        """Up to ``batch`` messages of one lane, as soon as there is one; empty after ``wait_seconds``."""

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        """How many messages the recipient has not fetched and acknowledged yet."""

    async def held(self) -> Held:
        """What waits in our OUTBOX now; ``BrokerError`` where our broker does not say."""

    async def fetch_part(self, at: Nation, blob: BlobAddress, part: int) -> bytes | BlobFault:
        """A part of a blob from the broker of ``at``, over our relay's link; not judged yet."""

    async def missing_parts(self, blob: BlobAddress, parts: int) -> list[int]:
        """Which of the parts 0 to ``parts - 1`` our own broker does not hold for the peers."""

    async def drop_parts(self, blob: BlobAddress) -> None:
        """Our broker need not hold them any more."""

    def connected(self) -> bool:
        """Whether the broker answers now."""

    async def wait_connected(self) -> None:
        """Return once it does."""


class WitnessUnreachable(Exception):
    """A witness gave no answer that could be used; ``detail`` is what a person reads beside it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class AskWitness(Protocol):
    """Sends the body of C2SP tlog-witness ``add-checkpoint`` to the witness at ``url``."""

    async def __call__(self, url: str, request: bytes) -> tuple[int, bytes]:
        """The HTTP status and the body of the answer; ``WitnessUnreachable`` where there is none."""
