"""What this node knows of the others: who belongs, who was heard when, what waits for whom."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from varde.encoding import Json, JsonObject
from varde.identifiers import Nation
from varde.prekeys import DatedPrekey, choose_prekey
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.links import LinkState, PeerLink
from varde_gateway.flow.roster.prekeys import own_prekeys
from varde_gateway.flow.roster.suspensions import peer_suspensions
from varde_gateway.flow.roster.trust import needs_renewal
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import deliveries_table, peers_table


async def describe_federation(desk: Desk) -> JsonObject:
    """Federation, roster and one entry per member, this node included."""
    heard, waiting = await desk.ledger.read(_peers)
    told = await desk.ledger.read(peer_suspensions)
    ours = await desk.ledger.read(lambda connection: own_prekeys(desk, connection))
    prekeys = {**desk.peer_prekeys, desk.nation: ours}
    roster = desk.trust.current
    now = desk.now()
    # One heartbeat may name any version: who says so must stand beside it.
    said = _versions_of_peers(desk)
    newest = max([roster.version, *said.values()])
    return {
        "federation": roster.federation,
        "nation": desk.nation,
        "roster": {
            "version": roster.version,
            "hash": roster.hash,
            "issued_at": rfc3339(roster.issued_at * 1000),
            "expires_at": rfc3339(roster.expires_at * 1000),
            "expired": now >= roster.expires_at,
            "renewal_due": needs_renewal(roster, now),
            "newest_seen": newest,
            "newest_seen_from": [*sorted(each for each, named in said.items() if named == newest)],
        },
        "members": [
            {
                **_describe_member(
                    desk,
                    nation,
                    prekeys.get(nation, ()),
                    heard.get(nation),
                    waiting.get(nation),
                ),
                "suspended_by": [
                    {
                        "nation": each.suspended_by,
                        "reason": each.reason,
                        "since": rfc3339(each.since * 1000),
                    }
                    for each in told
                    if each.nation == nation
                ],
            }
            for nation in sorted(roster.members)
        ],
    }


def peers_without_prekeys(desk: Desk) -> list[Nation]:
    """The peers for whom not even an alert could be sealed now."""
    now = desk.now()
    return [
        peer
        for peer in desk.peers()
        if choose_prekey(desk.peer_prekeys.get(peer, ()), now, stale_allowed=True) is None
    ]


def _versions_of_peers(desk: Desk) -> dict[Nation, int]:
    """The roster that each peer's last heartbeat names, of those that were heard."""
    now = desk.ticks()
    versions = {peer: desk.links.of(peer, now).roster_version for peer in desk.peers()}
    return {peer: version for peer, version in versions.items() if version is not None}


def _describe_member(
    desk: Desk,
    nation: Nation,
    prekeys: Sequence[DatedPrekey],
    heard: int | None,
    waiting: tuple[int, int] | None,
) -> JsonObject:
    member = desk.trust.current.members[nation]
    chosen = choose_prekey(prekeys, desk.now(), stale_allowed=True)
    count, oldest = waiting or (0, None)
    own = member.nation == desk.nation
    now = desk.ticks()
    state = None if own else desk.links.state(member.nation, now)
    link = PeerLink(since=0) if own else desk.links.of(member.nation, now)
    ways: list[Json] = [*desk.links.ways(member.nation, now)[:1]]
    hears: list[Json] = [*sorted(each for each, others in link.reaches.items() if not others)]
    described: dict[str, Json] = {
        "nation": nation,
        "name": member.name,
        "standing": member.standing.value,
        "self": own,
        "broker": member.broker,
        "suspended": nation in desk.trust.suspended,
        "state": None if state is None else state.value,
        "last_heard_at": rfc3339(max(heard or 0, link.heard_wall or 0) or None),
        "last_heartbeat_at": rfc3339(link.heard_wall),
        "path": ways if state is LinkState.CUT else [],
        "hears": hears,
        "roster_version": link.roster_version,
        "missing": sum(last - first + 1 for first, last in link.missing),
        "prekey": None if chosen is None else ("stale" if chosen.stale else "live"),
        "undelivered": count,
        "oldest_undelivered_at": rfc3339(oldest),
    }
    return described


def _peers(
    connection: Connection,
) -> tuple[dict[str, int | None], dict[str, tuple[int, int]]]:
    heard = {
        row.nation: row.last_heard_at
        for row in connection.execute(select(peers_table.c.nation, peers_table.c.last_heard_at))
    }
    waiting = {
        nation: (count, oldest)
        for nation, count, oldest in connection.execute(
            select(
                deliveries_table.c.recipient,
                func.count(),
                func.min(deliveries_table.c.queued_at),
            )
            .where(deliveries_table.c.open)
            .group_by(deliveries_table.c.recipient)
        )
    }
    return heard, waiting
