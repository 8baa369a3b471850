"""The roster in use: takes what the gateway tells, and makes everything that follows from it true.

Verified here, in a thread; then the cache, the broker's access list and the links follow, in this order. Protocol
sections 8.1 and 8.3.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import structlog

from varde.errors import VardeError
from varde.identifiers import FederationId, Nation
from varde.roster import Trust
from varde_relay.access import LocalUsers, access_config
from varde_relay.broker_files import BrokerNotSignalled, reload_broker, write_if_changed
from varde_relay.rosters import Chain, extend, parse_announcement, read_cache, write_cache
from varde_relay.state import RelayState

RELOAD_AGAIN_SECONDS: Final = (0.3, 2.0)
"""nats-server (seen with 2.15.1) binds what a new account imports only at the next reload after the one that made it."""

_log = structlog.get_logger("varde_relay.roster")


class NoRoster(Exception):
    """No roster has been verified yet."""


class RosterBook:
    """One nation's view of the roster; ``cache``, ``access_file`` and ``pid_file`` are absolute."""

    def __init__(
        self,
        me: Nation,
        genesis: FederationId,
        local: LocalUsers,
        state: RelayState,
        *,
        cache: Path,
        access_file: Path,
        pid_file: Path,
        clock: Callable[[], float],
    ) -> None:
        """Empty before ``load``."""
        self._me = me
        self._genesis = genesis
        self._local = local
        self._state = state
        self._cache = cache
        self._access_file = access_file
        self._pid_file = pid_file
        self._clock = clock
        self._chain: Chain | None = None
        self._trust: Trust | None = None
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._reloaded = asyncio.Event()

    @property
    def version(self) -> int:
        """The newest verified version; 0 before the first."""
        return 0 if self._trust is None else self._trust.current.version

    def trust(self) -> Trust:
        """What to decide by now, or ``NoRoster``."""
        if self._trust is None:
            raise NoRoster("no roster has been verified yet")
        return self._trust

    async def next_trust(self) -> Trust:
        """The newest, once it is another than the one returned before."""
        await self._changed.wait()
        self._changed.clear()
        return self.trust()

    async def run(self) -> NoReturn:
        """Let the broker read a changed access list again, for ever: the first time does not suffice."""
        while True:
            await self._reloaded.wait()
            self._reloaded.clear()
            for pause in RELOAD_AGAIN_SECONDS:
                await asyncio.sleep(pause)
                await asyncio.to_thread(self._reload)

    async def load(self) -> None:
        """Begin with what was verified before; a cache that does not verify is as good as none, and said aloud."""
        if self._pid_file.exists():
            # We may have ended between two reloads.
            self._reloaded.set()
        try:
            chain = await asyncio.to_thread(read_cache, self._cache, self._genesis, self._now())
        except VardeError as error:
            _log.error("roster.cache_refused", reason=error.reason.value, detail=error.detail)
            return
        if chain is not None:
            await self._use(chain)

    async def take(self, raw: bytes) -> None:
        """Verify an announcement of the gateway and follow it; a wrong one is logged and changes nothing."""
        async with self._taking:
            try:
                chain = await asyncio.to_thread(self._extended, raw)
            except VardeError as error:
                _log.error("roster.refused", reason=error.reason.value, detail=error.detail)
                return
            if chain is not None and chain != self._chain:
                await asyncio.to_thread(write_cache, self._cache, chain)
                await self._use(chain)

    def _extended(self, raw: bytes) -> Chain | None:
        return extend(self._chain, parse_announcement(raw), self._genesis, self._now())

    async def _use(self, chain: Chain) -> None:
        trust = chain.trust
        self._chain, self._trust = chain, trust
        self._state.roster_version = trust.current.version
        self._state.roster_expires_at = trust.current.expires_at
        _log.info(
            "roster.used",
            version=trust.current.version,
            members=sorted(trust.current.members),
            suspended=sorted(trust.suspended),
        )
        if self._now() > trust.current.expires_at:
            _log.error("roster.expired", version=trust.current.version)
        if await asyncio.to_thread(self._follow_access, trust):
            self._reloaded.set()
        self._changed.set()

    def _follow_access(self, trust: Trust) -> bool:
        text = access_config(trust, self._me, self._local)
        if not write_if_changed(self._access_file, text):
            return False
        if not self._reload():
            return False
        _log.info("access.reloaded", version=trust.current.version)
        return True

    def _reload(self) -> bool:
        try:
            reload_broker(self._pid_file)
        except BrokerNotSignalled as error:
            # At the first start there is no broker yet; it reads the file when it begins.
            _log.warning("access.not_reloaded", error=str(error))
            return False
        return True

    def _now(self) -> int:
        return int(self._clock())
