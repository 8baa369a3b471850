"""Ends our own broker where it answers and stores nothing any more, so that it is started again and stores.

nats-server (seen with 2.15.1) keeps the failed write of a full disk: that stream takes nothing more until the server is
started anew, long after there is room again, and a publish is not even refused, it has no answer. What the relay gives to
the INBOX it sees itself; of the other streams the gateway tells it. Only the relay has the broker's pid file and store.
Whoever runs the broker starts it again: ``varde up``, or systemd. Protocol section 8.1.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import structlog

from varde.subjects import BROKER_RESTARTED, BROKER_STUCK, INBOX
from varde_relay.broker_files import BrokerNotSignalled, end_broker
from varde_relay.home import Home
from varde_relay.nats_link import Question
from varde_relay.state import RelayState

LOOK_SECONDS: Final = 3.0
STUCK_AFTER_SECONDS: Final = 15.0
"""A broker that is only slow has answered by then."""

ALONE_AFTER_SECONDS: Final = 45.0
"""The gateway tries the INBOX, too, and writes a restart into its audit log: only where it is away the relay does not wait."""

TOLD_HOLDS_SECONDS: Final = 15.0
"""The gateway says it again every few seconds while it lasts."""

ROOM_BYTES: Final = 4 * 1024 * 1024
"""With less the broker would stand still again at once."""

FIRST_PAUSE_SECONDS: Final = 20.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
"""Between two restarts, twice as long after each that did not help: each one ends all connections of the peers."""

MAX_STREAMS_BYTES: Final = 200

_log = structlog.get_logger("varde_relay.keeper")


class Keeper:
    """Watches over our own broker's storing."""

    def __init__(
        self,
        home: Home,
        state: RelayState,
        *,
        store_dir: Path,
        pid_file: Path,
        may_restart: bool,
        clock: Callable[[], float],
    ) -> None:
        """Hears the gateway from the next connection of ``home`` on; ``clock`` never steps, as the event loop's."""
        self._state = state
        self._store_dir = store_dir
        self._pid_file = pid_file
        self._may_restart = may_restart
        self._clock = clock
        self._restarted_at: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        home.serve(BROKER_STUCK, self._hear_gateway)

    async def run(self) -> NoReturn:
        """Look every few seconds."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            since = self._state.unstored_since
            alone = since is not None and self._clock() - since >= ALONE_AFTER_SECONDS
            self.look(may_end=alone)

    def look(self, *, may_end: bool) -> bool:
        """Say what is wrong, and end the broker where that helps and it was not done a moment ago; whether it was."""
        state, now = self._state, self._clock()
        streams = self._stuck(now)
        if not streams:
            state.broker_trouble = ""
            return False
        obstacle = self._obstacle(now) or ("" if may_end else "it needs a restart")
        if not obstacle:
            try:
                end_broker(self._pid_file)
            except BrokerNotSignalled as error:
                obstacle = f"it cannot be restarted from here ({error}): restart it"
        said = obstacle or "it is being restarted"
        trouble = f"stores nothing in {', '.join(streams)}: {said}"
        if trouble != state.broker_trouble:
            _log.error("broker.stuck", streams=streams, detail=said)
        state.broker_trouble = trouble
        if obstacle:
            return False
        since = None if self._restarted_at is None else now - self._restarted_at
        again_soon = since is not None and since < 2 * self._pause
        self._pause = (
            min(LONGEST_PAUSE_SECONDS, 2 * self._pause) if again_soon else FIRST_PAUSE_SECONDS
        )
        self._restarted_at = now
        _log.warning("broker.restarted", streams=streams)
        return True

    def _stuck(self, now: float) -> tuple[str, ...]:
        state = self._state
        streams: set[str] = set()
        if state.told_stuck_at is not None and now - state.told_stuck_at < TOLD_HOLDS_SECONDS:
            streams.update(state.stuck_streams)
        if state.unstored_since is not None and now - state.unstored_since >= STUCK_AFTER_SECONDS:
            streams.add(INBOX)
        return tuple(sorted(streams))

    def _obstacle(self, now: float) -> str:
        try:
            disk = os.statvfs(self._store_dir)
        except OSError as error:
            return f"its store cannot be seen from here ({error}): restart it"
        if disk.f_bavail * disk.f_frsize < ROOM_BYTES or (disk.f_files and not disk.f_favail):
            return f"its disk is full; free space at {self._store_dir}"
        if not self._may_restart:
            return "restart it (restart_stuck is off in relay.toml)"
        if self._restarted_at is not None and now - self._restarted_at < self._pause:
            ago = int(now - self._restarted_at)
            return f"it was restarted {ago} s ago already, and will be again; see its log"
        return ""

    async def _hear_gateway(self, question: Question) -> None:
        told = question.raw[:MAX_STREAMS_BYTES].decode("ascii", "replace")
        self._state.told_stuck_at = self._clock()
        self._state.stuck_streams = tuple(told.split())
        restarted = self.look(may_end=True)
        await question.answer(
            BROKER_RESTARTED
            if restarted
            else self._state.broker_trouble.partition(": ")[2].encode()
        )
