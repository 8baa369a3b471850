"""One link: pulling one peer's OUTBOX for ever, the urgent lane before the routine one.

What is pulled goes through ``admit``. Which links there are is decided in ``links``. Protocol section 8.1.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from varde.admission import Refuse
from varde.errors import Reason
from varde.identifiers import Lane, Nation
from varde.subjects import OUTBOX, peer_consumer, pulse_in, pulse_out
from varde_relay.admit import Carry, Judge, carry
from varde_relay.home import Home
from varde_relay.nats_link import Connection, Endpoint, LinkDown, NothingThere, keep_connected
from varde_relay.pull import Fetched, Pull
from varde_relay.state import LinkState

NOTHING_THERE_PAUSE_SECONDS: Final = 1.0
"""A peer that has just begun makes our consumer a moment later."""

NOT_STORED_PAUSE_SECONDS: Final = 0.5
MAX_PER_SECOND: Final = 1000
BURST: Final = 4096
MAX_BYTES_PER_SECOND: Final = 16 * 1024 * 1024
BURST_BYTES: Final = 64 * 1024 * 1024
"""A peer that floods us is taken in at this rate at most, so that the others' documents are opened between its own.

The bytes are counted as well: the whole INBOX is in use when many large documents are in it, however few there are.
"""

PULSE_PAUSE_SECONDS: Final = 0.2
"""A heartbeat is worth a signature's verification; a peer that floods us with them shall not have our processor."""

_log = structlog.get_logger("varde_relay.link")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a fetch asks for at once, how long it waits for the first message, and the pause between connections."""

    batch: int
    wait_seconds: float
    pause: Callable[[int], float]


class Allowance:
    """So many a second, and at once no more than a burst; the excess is waited for."""

    def __init__(self, per_second: float, burst: int) -> None:
        """The whole burst is there."""
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def take(self, count: int, now: float) -> float:
        """Take ``count``; the seconds to wait before the next are taken."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= count
        return max(0.0, -self._left / self._per_second)


class Intake:
    """What one peer may bring us: documents and bytes, each with an allowance of its own."""

    def __init__(self) -> None:
        """The whole of both is there."""
        self._documents = Allowance(MAX_PER_SECOND, BURST)
        self._bytes = Allowance(MAX_BYTES_PER_SECOND, BURST_BYTES)

    def take(self, batch: Sequence[Fetched], now: float) -> float:
        """Take a batch; the seconds to wait before the next is taken."""
        size = sum(len(each.raw) for each in batch)
        return max(self._documents.take(len(batch), now), self._bytes.take(size, now))


class Link:
    """Our side of one peer's OUTBOX."""

    def __init__(
        self,
        peer: Nation,
        endpoint: Endpoint,
        *,
        judge: Judge,
        home: Home,
        state: LinkState,
        pace: Pace,
    ) -> None:
        """Nothing happens before ``run``."""
        self._peer = peer
        self._endpoint = endpoint
        self._judge = judge
        self._home = home
        self._state = state
        self._pace = pace
        self._urgent_drained = asyncio.Event()
        self._next_pulse_at = 0.0
        self._intake = Intake()
        self._connection: Connection | None = None
        self._not_stored: dict[Lane, str] = {}

    async def run(self) -> None:
        """Keep the link up until cancelled; an error that nobody foresaw is logged and the link begins again."""
        while True:
            try:
                await keep_connected(
                    self._endpoint,
                    self._drain,
                    pause=self._pace.pause,
                    on_refusal=self._hear_refusal,
                    on_down=self._hear_down,
                )
            except Exception as error:  # noqa: BLE001 -- the outermost line of this worker
                self._hear_down(repr(error))
                _log.exception("link.failed", peer=self._peer)
                await asyncio.sleep(self._pace.pause(1))

    async def ask(self, subject: str, raw: bytes, *, timeout_seconds: float) -> bytes:
        """The peer's answer to a request of ours; ``LinkError`` where it does not come, at once while the link is down."""
        if self._connection is None:
            raise LinkDown(f"the link to {self._peer} is down")
        return await self._connection.request(subject, raw, timeout_seconds=timeout_seconds)

    async def _drain(self, connection: Connection) -> None:
        pulls = {
            lane: Pull(connection, OUTBOX, peer_consumer(self._judge.me, lane)) for lane in Lane
        }
        for pull in pulls.values():
            await pull.bind()
        await connection.subscribe(pulse_out(self._judge.me), self._hear_pulse)
        self._connection = connection
        self._hear_up()
        self._urgent_drained.clear()
        async with asyncio.TaskGroup() as lanes:
            for lane, pull in pulls.items():
                lanes.create_task(self._drain_lane(lane, pull))

    async def _hear_pulse(self, raw: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_pulse_at:
            return
        self._next_pulse_at = now + PULSE_PAUSE_SECONDS
        decision = self._judge.judge_document(raw, Lane.URGENT)
        if isinstance(decision, Refuse):
            self._state.refused[decision.reason] += 1
            self._note_error(f"heartbeat refused: {decision.reason.value}: {decision.detail}")
            return
        self._state.heard_at = self._judge.clock()
        await self._home.say(pulse_in(self._peer), raw)

    async def _drain_lane(self, lane: Lane, pull: Pull) -> None:
        while True:
            await self._home.wait_connected()
            if lane is Lane.ROUTINE:
                await self._urgent_drained.wait()
            batch = await self._fetch(lane, pull)
            self._state.heard_at = self._judge.clock()
            if lane is Lane.URGENT and batch and batch[-1].pending:
                self._urgent_drained.clear()
            if batch:
                await self._carry(lane, pull, batch)
            if lane is Lane.URGENT and not (batch and batch[-1].pending):
                self._urgent_drained.set()

    async def _fetch(self, lane: Lane, pull: Pull) -> list[Fetched]:
        # The first look at the urgent lane does not wait, so that the routine one may begin at once.
        first = lane is Lane.URGENT and not self._urgent_drained.is_set()
        try:
            return await pull.fetch(self._pace.batch, 0 if first else self._pace.wait_seconds)
        except NothingThere as error:
            self._note_error(error.detail)
            self._urgent_drained.set()
            await asyncio.sleep(NOTHING_THERE_PAUSE_SECONDS)
            return []

    async def _carry(self, lane: Lane, pull: Pull, batch: Sequence[Fetched]) -> None:
        state = self._state
        state.fetched[lane] += len(batch)
        state.lag[lane] = batch[-1].pending
        state.age_seconds[lane] = max(0.0, self._judge.clock() - batch[-1].stored_at)
        carried = await carry(batch, lane, judge=self._judge, inbox=self._home, source=pull)
        await asyncio.sleep(self._intake.take(batch, asyncio.get_running_loop().time()))
        self._count(lane, carried)
        not_stored = [each.not_stored for each in carried if each.not_stored is not None]
        self._note_not_stored(lane, not_stored[0].detail if not_stored else "")
        if not_stored:
            state.not_stored += len(not_stored)
            await asyncio.sleep(NOT_STORED_PAUSE_SECONDS)

    def _note_not_stored(self, lane: Lane, detail: str) -> None:
        # While a backlog is opened the INBOX is full again and again: one line in the log, not one per batch.
        if detail and detail != self._not_stored.get(lane):
            _log.warning("inbox.not_stored", peer=self._peer, lane=lane.value, error=detail)
        self._not_stored[lane] = detail

    def _count(self, lane: Lane, carried: Sequence[Carry]) -> None:
        refusals: dict[tuple[Reason, bool], list[Carry]] = {}
        for each in carried:
            if isinstance(each.decision, Refuse):
                kind = each.decision.reason, each.may_pass_later
                refusals.setdefault(kind, []).append(each)
            elif each.not_stored is None:
                self._state.admitted[lane] += 1
        # One line for each reason in a batch: a peer that sends rubbish shall not fill our disk with log.
        for (reason, later), refused in refusals.items():
            (self._state.delayed if later else self._state.refused)[reason] += len(refused)
            _log.warning(
                "document.delayed" if later else "document.refused",
                peer=self._peer,
                lane=lane.value,
                reason=reason.value,
                documents=len(refused),
                first_detail=str(refused[0].decision),
                first_message_id=refused[0].fetched.message_id[:128],
            )

    def _hear_up(self) -> None:
        state = self._state
        state.connected = True
        state.connected_at = state.heard_at = self._judge.clock()
        state.last_error = ""
        _log.info("link.up", peer=self._peer, url=self._endpoint.url)

    def _hear_down(self, detail: str) -> None:
        self._connection = None
        if self._state.connected:
            self._state.disconnections += 1
        self._state.connected = False
        self._note_error(detail)

    def _hear_refusal(self, detail: str) -> None:
        self._state.denied += 1
        self._note_error(detail)

    def _note_error(self, detail: str) -> None:
        # A peer that stays away is one line in the log, not one per try.
        if detail != self._state.last_error:
            self._state.last_error = detail
            _log.warning("link.trouble", peer=self._peer, url=self._endpoint.url, error=detail)
