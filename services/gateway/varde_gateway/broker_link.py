"""The gateway's own broker (``flow.ports.Broker``): one connection for ever, and the roster for the relay.

Streams and consumers (``broker_streams``) are made, or set right, at every connect, and at once where a publish finds
none. What a document is, is not known here, and what travels on the wire is ``broker_wire``. Protocol sections 8.1 and 8.3.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn, Self

import structlog
from nats.aio.msg import Msg

from varde.blob import (
    BlobAddress,
    BlobFault,
    PartRequest,
    format_part_request,
    parse_part_answer,
)
from varde.encoding import parse_decimal
from varde.errors import Malformed
from varde.identifiers import Lane, Nation, parse_nation
from varde.subjects import (
    BLOBS,
    BROKER_STUCK,
    OUTBOX,
    PARTS_WANTED,
    PULSES_IN,
    ROSTER_GET,
    ROSTER_UPDATE,
    blob_subject,
    peer_consumer,
    pulse_out,
)
from varde_gateway.broker_probe import streams_without_store
from varde_gateway.broker_streams import USUAL_LIMITS, BrokerLimits, make_streams, outbox_held
from varde_gateway.broker_wire import Live, NoStream, Unstored, count_in, member_in
from varde_gateway.flow.ports import BrokerError, BrokerUnavailable, Carried, Held, Outbound

LONGEST_PAUSE_SECONDS: Final = 0.8
MAX_PULSES_HELD: Final = 256
PART_SECONDS: Final = 25.0
"""A little longer than our relay waits for the peer."""

RELAY_SECONDS: Final = 3.0

_log = structlog.get_logger("broker")


class BrokerLink:
    """Our nation's broker (``flow.ports.Broker``); an async context manager that keeps the connection up."""

    def __init__(
        self,
        *,
        nation: Nation,
        url: str,
        ca_file: Path,
        nkey_file: Path,
        peers: Callable[[], Iterable[Nation]],
        limits: BrokerLimits = USUAL_LIMITS,
    ) -> None:
        """``ca_file`` is PEM, ``nkey_file`` holds a user seed; both, and ``peers``, are read at every connect."""
        self._nation = nation
        self._url = url
        self._ca_file = ca_file
        self._nkey_file = nkey_file
        self._peers = peers
        self._limits = limits
        self._roster: Callable[[bytes], Awaitable[bytes]] | None = None
        self._live: Live | None = None
        self._up = asyncio.Event()
        self._mending = asyncio.Lock()
        self._trouble = ""
        self._unstored = asyncio.Event()
        self._storing_trouble = ""
        self._pulses: asyncio.Queue[tuple[Nation, bytes]] = asyncio.Queue(MAX_PULSES_HELD)
        self._group = asyncio.TaskGroup()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._keeper = self._group.create_task(self._keep_connected())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        await self._group.__aexit__(None, None, None)

    def connected(self) -> bool:
        """Whether the broker answers now and its streams are there."""
        return self._live is not None

    async def wait_connected(self) -> None:
        """Return once it does."""
        await self._up.wait()

    async def publish_many(self, messages: Sequence[Outbound]) -> list[BrokerError | None]:
        """Publish pipelined; one answer each, in order.

        Where the stream is gone (its store was deleted under a running broker) it is made again and the rest repeated.
        """
        live = self._live
        if live is None:
            return [self._not_connected() for _ in messages]
        errors = await live.publish_many(messages)
        lost = [index for index, error in enumerate(errors) if isinstance(error, NoStream)]
        if lost:
            try:
                await self._mend(live)
            except BrokerError:
                # Each keeps its answer; who asked tries again.
                return errors
            again = await live.publish_many([messages[index] for index in lost])
            for index, error in zip(lost, again, strict=True):
                errors[index] = error
        return self._hear_unstored(errors)

    async def fetch(self, lane: Lane, batch: int, wait_seconds: float) -> list[Carried]:
        """Up to ``batch`` messages of one lane, as soon as there is one; empty after ``wait_seconds``."""
        live = self._require_live()
        try:
            return await live.fetch(lane, batch, wait_seconds)
        except NoStream:
            await self._mend(live)
            return []

    async def pulse(self, peer: Nation, raw: bytes) -> None:
        """Say a heartbeat to ``peer``; nothing where it is not listening or our broker is away."""
        if self._live is not None:
            with contextlib.suppress(BrokerError):
                await self._live.send(pulse_out(peer), raw)

    async def next_pulse(self) -> tuple[Nation, bytes]:
        """The next heartbeat that our relay heard, and at whose broker."""
        return await self._pulses.get()

    async def wait_unstored(self) -> None:
        """Return when something was published and not stored since the last return."""
        await self._unstored.wait()
        self._unstored.clear()

    async def streams_without_store(self) -> list[str]:
        """The streams that take nothing more, by trying; ``BrokerError`` where our broker is not connected."""
        return await streams_without_store(self._require_live())

    def name_storing_trouble(self, trouble: str) -> None:
        """What those whose messages are not stored are told from now on; empty when it is over."""
        self._storing_trouble = trouble

    async def ask_restart(self, streams: Sequence[str]) -> bytes:
        """What our relay says to a broker that stores nothing in ``streams``; ``BrokerError`` where it says nothing."""
        told = " ".join(streams).encode()
        return await self._require_live().ask_relay(BROKER_STUCK, told, RELAY_SECONDS)

    async def backlog(self, recipient: Nation, lane: Lane) -> int:
        """How many messages the recipient has not fetched and acknowledged yet."""
        consumer = peer_consumer(recipient, lane)
        info = await self._require_live().ask(f"CONSUMER.INFO.{OUTBOX}.{consumer}", {})
        return count_in(info, "num_pending") + count_in(info, "num_ack_pending")

    async def held(self) -> Held:
        """What waits in our OUTBOX now; ``BrokerError`` where our broker does not say."""
        return await outbox_held(self._require_live())

    async def fetch_part(self, at: Nation, blob: BlobAddress, part: int) -> bytes | BlobFault:
        """A part of a blob from the broker of ``at``, by our relay; ``BrokerError`` where that cannot be asked."""
        wanted = format_part_request(PartRequest(blob, part, at))
        try:
            answer = await self._require_live().ask_relay(PARTS_WANTED, wanted, PART_SECONDS)
            return parse_part_answer(answer)
        except NoStream:
            raise BrokerUnavailable("our relay is not connected to our broker") from None
        except Malformed as error:
            raise BrokerUnavailable("our relay's answer cannot be read") from error

    async def missing_parts(self, blob: BlobAddress, parts: int) -> list[int]:
        """Which of the parts 0 to ``parts - 1`` our stream does not have."""
        wanted: dict[str, object] = {"subjects_filter": f"blob.{blob}.*"}
        info = await self._require_live().ask(f"STREAM.INFO.{BLOBS}", wanted)
        held = member_in(member_in(info, "state"), "subjects")
        return [part for part in range(parts) if blob_subject(blob, part) not in held]

    async def drop_parts(self, blob: BlobAddress) -> None:
        """Let our stream forget a blob."""
        await self._require_live().ask(f"STREAM.PURGE.{BLOBS}", {"filter": f"blob.{blob}.*"})

    async def ensure_streams(self) -> None:
        """Make what is missing for the peers of now, and take away what was for former ones: when the roster changed."""
        if self._live is not None:
            await self._mend(self._live)

    def serve_roster(self, answer: Callable[[int], Awaitable[bytes]]) -> None:
        """Answer the relay's questions for what follows the version that it has; from the next connect on."""

        async def answer_question(question: bytes) -> bytes:
            try:
                return await answer(parse_decimal(question.decode("ascii", "replace")))
            except Malformed:
                return await answer(0)

        self._roster = answer_question

    async def announce_roster(self, raw: bytes) -> None:
        """Tell the relay at once; a relay that is not there asks when it comes back."""
        if self._live is not None:
            await self._live.send(ROSTER_UPDATE, raw)

    async def _keep_connected(self) -> NoReturn:
        failures = 0
        while True:
            live = Live()
            try:
                await live.open(self._url, self._ca_file, self._nkey_file)
                await self._make_streams(live)
                if self._roster is not None:
                    await live.answer_requests(ROSTER_GET, self._roster)
                await live.listen(PULSES_IN, self._hear_pulse)
                self._live, failures, self._trouble = live, 0, ""
                self._up.set()
                _log.info("broker connected", url=self._url)
                await live.wait_ended()
                self._hear(live.last_error or "the broker closed the connection")
            except BrokerError as error:
                self._hear(error.detail)
            except asyncio.CancelledError:
                if self._keeper is not None and self._keeper.cancelling():
                    raise
                self._hear("the broker library gave up")
            except Exception as error:  # noqa: BLE001 -- the outermost line of this worker
                self._hear(repr(error))
                _log.exception("broker link failed")
            finally:
                self._live = None
                self._up.clear()
                await live.close()
            failures += 1
            longest = min(LONGEST_PAUSE_SECONDS, 0.1 * 2 ** min(failures, 8))
            await asyncio.sleep(random.SystemRandom().uniform(longest / 2, longest))

    async def _hear_pulse(self, message: Msg) -> None:
        with contextlib.suppress(Malformed, asyncio.QueueFull):
            # Where nobody takes them, the newest are as good as lost: the next ones come soon.
            sender = parse_nation(message.subject.rpartition(".")[2])
            self._pulses.put_nowait((sender, message.data))

    async def _mend(self, live: Live) -> None:
        async with self._mending:
            await self._make_streams(live)

    async def _make_streams(self, live: Live) -> None:
        await make_streams(live, [*self._peers()], self._limits)

    def _require_live(self) -> Live:
        if self._live is None:
            raise self._not_connected()
        return self._live

    def _not_connected(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"our broker is not connected: {self._trouble or 'starting'}")

    def _hear_unstored(self, errors: list[BrokerError | None]) -> list[BrokerError | None]:
        if not any(isinstance(each, Unstored) for each in errors):
            return errors
        self._unstored.set()
        trouble = self._storing_trouble
        return [
            Unstored(trouble) if trouble and isinstance(each, Unstored) else each for each in errors
        ]

    def _hear(self, trouble: str) -> None:
        # A broker that stays away is one line in the log, not one per try.
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("broker not connected", url=self._url, detail=trouble)
