"""Which links there are: one per peer of the current roster that is not suspended, following every change.

A link that is down, slow or hostile does not touch the others. Protocol section 8.1.
"""

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import structlog

from varde.identifiers import Nation
from varde.roster import Trust
from varde.subjects import reply_prefix
from varde_relay.access import peers
from varde_relay.admit import Judge
from varde_relay.book import RosterBook
from varde_relay.home import Home
from varde_relay.link import Link, Pace
from varde_relay.nats_link import Endpoint, LinkDown
from varde_relay.state import LinkState, RelayState

_log = structlog.get_logger("varde_relay.links")


def peer_endpoints(
    trust: Trust, me: Nation, nkey_seed: str, overrides: Mapping[str, str]
) -> dict[Nation, Endpoint]:
    """How to reach each peer: its address and authority from the roster, or our own address for it.

    With our own address (a tunnel, a private line) the certificate must still name the host of the roster.
    """
    endpoints: dict[Nation, Endpoint] = {}
    for peer in peers(trust, me):
        member = trust.current.members[peer]
        endpoints[peer] = Endpoint(
            url=overrides.get(peer, member.broker),
            server_name=host_of(member.broker),
            ca=member.ca,
            reply_prefix=reply_prefix(me),
            client_name=f"varde relay {me}",
            nkey_seed=nkey_seed,
        )
    return endpoints


def host_of(url: str) -> str:
    """The host of ``tls://host:port``, an IPv6 address without its brackets."""
    return urlsplit(url).hostname or ""


class Links:
    """Begins and ends links as the roster and the suspensions say."""

    def __init__(
        self,
        me: Nation,
        book: RosterBook,
        home: Home,
        state: RelayState,
        *,
        nkey_seed: str,
        overrides: Mapping[str, str],
        pace: Pace,
        clock: Callable[[], float],
    ) -> None:
        """Nothing happens before ``run``."""
        self._me = me
        self._book = book
        self._home = home
        self._state = state
        self._nkey_seed = nkey_seed
        self._overrides = overrides
        self._pace = pace
        self._clock = clock
        self._running: dict[Nation, tuple[Endpoint, Link, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Follow the roster until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._follow(await self._book.next_trust(), group)

    async def ask(self, peer: Nation, subject: str, raw: bytes, *, timeout_seconds: float) -> bytes:
        """The answer of ``peer`` over its link; ``LinkError`` where there is no link, or no answer."""
        running = self._running.get(peer)
        if running is None:
            raise LinkDown(f"there is no link to {peer}")
        return await running[1].ask(subject, raw, timeout_seconds=timeout_seconds)

    async def _follow(self, trust: Trust, group: asyncio.TaskGroup) -> None:
        wanted = peer_endpoints(trust, self._me, self._nkey_seed, self._overrides)
        for peer, (endpoint, _, task) in [*self._running.items()]:
            if wanted.get(peer) != endpoint:
                task.cancel()
                await asyncio.wait([task])
                del self._running[peer], self._state.links[peer]
                _log.info("link.ended", peer=peer)
        for peer, endpoint in wanted.items():
            if peer not in self._running:
                link = self._make(peer, endpoint)
                self._running[peer] = (endpoint, link, group.create_task(link.run()))
                _log.info("link.begun", peer=peer, url=endpoint.url)

    def _make(self, peer: Nation, endpoint: Endpoint) -> Link:
        state = self._state.links.setdefault(peer, LinkState())
        judge = Judge(self._me, peer, self._book.trust, self._clock)
        return Link(peer, endpoint, judge=judge, home=self._home, state=state, pace=self._pace)
