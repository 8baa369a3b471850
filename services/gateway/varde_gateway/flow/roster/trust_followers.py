"""What follows from a change of trust: our broker, our relay, our prekeys, and those who lack what we have.

The change itself is made when it was committed, elsewhere; here a worker makes the rest true, and looks now and then
whether another replica of this gateway, or the clock, has changed something. A node that is behind is sent what it lacks,
version by version. Protocol sections 4.3 and 8.3.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from varde.identifiers import Lane, Nation
from varde.member import Member
from varde.proposal import Proposal, format_ballot, format_proposal, split_ballot
from varde.roster import (
    Roster,
    Trust,
    changed_members,
    parse_voted_roster,
)
from varde.signing import Kind
from varde_gateway.flow.compose import Composed, compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.roster.ballot_box import next_proposals
from varde_gateway.flow.roster.changes import adopt_rosters, advance, can_advance
from varde_gateway.flow.roster.own_keys import look_for_keys
from varde_gateway.flow.roster.prekeys import renew_prekeys
from varde_gateway.flow.roster.trust import (
    needs_renewal,
    read_stored,
    rosters_after,
    rosters_for_relay,
    suspended_nations,
)
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import AnyRow
from varde_gateway.store.transaction import Transaction

LOOK_SECONDS: Final = 5.0
VERSIONS_AT_ONCE: Final = 8
PAUSE_MS: Final = 10_000
REPEAT_MS: Final = 600_000
"""A peer that stays at one version has what it lacks on its way, or cannot use it."""

CATCHING_UP_LIFE_SECONDS: Final = 24 * 3600
WARNING_MS: Final = 3600 * 1000

_log = structlog.get_logger("trust")


class RosterBroker(Protocol):
    """What this needs of our broker."""

    async def ensure_streams(self) -> None:
        """Make what is missing for the peers of now, and take away what was for former ones."""

    async def announce_roster(self, raw: bytes) -> None:
        """Tell the relay at once."""


async def run_trust_followers(desk: Desk, broker: RosterBroker) -> None:
    """Follow every change of trust for ever."""
    follower = TrustFollower(desk, broker)

    async def one_round() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await desk.trust_changed.wait()
        desk.trust_changed.clear()
        await follower.follow()

    await follower.follow()
    await repeat("trust", one_round, pause_seconds=0)


class TrustFollower:
    """Remembers what was followed last."""

    def __init__(self, desk: Desk, broker: RosterBroker) -> None:
        """Begins with the trust of now, which the relay and the broker ask for at their own start."""
        self._desk = desk
        self._broker = broker
        self._followed = desk.trust
        self._warned_at = 0

    async def follow(self) -> None:
        """Make everything true that follows from the trust of now."""
        desk = self._desk
        await look_at_database(desk)
        self._warn_of_age()
        await self._help_those_behind()
        before, trust = self._followed, desk.trust
        if trust is before:
            return
        await self._broker.ensure_streams()
        # The relay verifies for itself; where it lacks more than this, it asks.
        after = min(before.current.version, trust.current.version)
        await self._broker.announce_roster(await rosters_for_relay(desk.ledger, after))
        changed = _seat(before, desk.nation) != _seat(trust, desk.nation)
        await renew_prekeys(desk, announce=changed)
        for nation, lacks in sorted(_who_may_lack(before, trust).items()):
            if nation != desk.nation:
                await bring_up_to_date(desk, nation, max(trust.current.version - lacks, 1))
        self._followed = trust

    async def _help_those_behind(self) -> None:
        desk = self._desk
        for peer in desk.trusted_peers():
            version = desk.links.of(peer, desk.ticks()).roster_version
            if version is not None and version < desk.trust.current.version:
                await bring_up_to_date(desk, peer, version)

    def _warn_of_age(self) -> None:
        desk, roster = self._desk, self._desk.trust.current
        now_ms = desk.now_ms()
        if now_ms - self._warned_at < WARNING_MS:
            return
        if desk.now() >= roster.expires_at:
            _log.error(
                "the roster has expired: alerts go on, but the members must vote for its renewal",
                version=roster.version,
            )
            self._warned_at = now_ms
        elif needs_renewal(roster, desk.now()):
            _log.warning(
                "the roster is older than 30 days: propose its renewal", version=roster.version
            )
            self._warned_at = now_ms


async def look_at_database(desk: Desk) -> None:
    """Take over what another replica accepted or suspended, and accept what only waited for the clock."""
    rows, suspended = await desk.ledger.read(lambda connection: _newer(connection, desk.trust))
    if rows:
        adopt_rosters(desk, [_roster_of(row) for row in rows])
    if suspended != desk.trust.suspended:
        desk.trust = replace(desk.trust, suspended=suspended)
    await look_for_keys(desk, desk.trust.current)
    proposals, ready = await desk.ledger.read(lambda connection: _waiting(connection, desk))
    for each in proposals:
        await look_for_keys(desk, each.roster)
    if ready:
        await desk.ledger.write(lambda tx: advance(tx, desk))


async def bring_up_to_date(desk: Desk, nation: Nation, from_version: int) -> int:
    """Queue for ``nation`` the rosters after ``from_version`` with their votes, at most eight; how many were queued.

    Not more often than every ten seconds, and what was queued already only after ten minutes again.
    """
    now = desk.now_ms()
    told_version, told_at = desk.brought_up.get(nation, (-1, 0))
    pause = REPEAT_MS if told_version >= from_version else PAUSE_MS
    if (
        from_version >= desk.trust.current.version
        or nation not in desk.trusted_peers()
        or (told_at and now - told_at < pause)
        or not desk.is_member()
    ):
        return 0
    rows = await desk.ledger.read(
        lambda connection: rosters_after(connection, max(from_version, 1), VERSIONS_AT_ONCE)
    )
    documents = await asyncio.to_thread(
        lambda: [document for row in rows for document in _compose_version(desk, nation, row)]
    )

    def record(tx: Transaction) -> None:
        for each in documents:
            record_document(tx, each)
            queue_deliveries(tx, desk, each, [nation], sealed=False, numbered=False)

    await desk.ledger.write(record)
    desk.brought_up = {**desk.brought_up, nation: (from_version, now)}
    _log.info("rosters queued", nation=nation, after=from_version, versions=len(rows))
    return len(rows)


def _who_may_lack(before: Trust, trust: Trust) -> dict[Nation, int]:
    """Whom the change concerns so that its own heartbeats cannot ask, and how many of the newest versions to send it.

    We would refuse what a nation signs with the keys that it had before.
    """
    changed = changed_members(before.current, trust.current) & trust.current.members.keys()
    again = before.suspended - trust.suspended
    return {**dict.fromkeys(changed, 1), **dict.fromkeys(again, VERSIONS_AT_ONCE)}


def _compose_version(desk: Desk, nation: Nation, row: AnyRow) -> list[Composed]:
    voted = parse_voted_roster(row.raw)
    bodies = [(Kind.ROSTER, format_proposal(voted.payload))]
    bodies += [
        (Kind.VOTE, format_ballot(each))
        for each in split_ballot(row.version, row.hash, voted.votes)
    ]
    return [
        compose_now(
            desk,
            kind,
            [nation],
            body,
            lane=Lane.URGENT,
            life_seconds=CATCHING_UP_LIFE_SECONDS,
        )
        for kind, body in bodies
    ]


def _newer(connection: Connection, trust: Trust) -> tuple[list[AnyRow], frozenset[Nation]]:
    rows = rosters_after(connection, trust.current.version)
    return [*rows], suspended_nations(connection)


def _waiting(connection: Connection, desk: Desk) -> tuple[list[Proposal], bool]:
    trust = desk.trust
    return next_proposals(connection, trust.current), can_advance(connection, trust, desk.now())


def _roster_of(row: AnyRow) -> Roster:
    # Verified by the replica that stored it, and again at the next start.
    return read_stored(row.raw)


def _seat(trust: Trust, nation: Nation) -> Member | None:
    return trust.current.members.get(nation)
