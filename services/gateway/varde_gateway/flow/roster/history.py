"""The versions that this node has accepted, as people read them: what each changed, and by whose votes."""

from sqlalchemy import Connection, select

from varde.encoding import Json, JsonObject
from varde.proposal import describe_successor
from varde.roster import Roster, nations_voting, parse_roster_payload, parse_voted_roster
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import AnyRow, rosters_table


def describe_history(
    connection: Connection, *, limit: int, before: int | None
) -> tuple[list[JsonObject], int | None]:
    """Up to ``limit`` versions before ``before``, the newest first, and the version to go on from, None at the end."""
    query = select(rosters_table).order_by(rosters_table.c.version.desc())
    if before is not None:
        query = query.where(rosters_table.c.version < before)
    # One more than is shown: what a version changed is seen from its predecessor.
    rows = connection.execute(query.limit(limit + 1)).all()
    rosters = [_roster_of(row) for row in rows]
    earlier: list[Roster | None] = [*rosters[1:], None]
    items = [
        _describe(row, roster, predecessor)
        for row, roster, predecessor in zip(rows, rosters, earlier, strict=True)
    ]
    return items[:limit], rows[limit - 1].version if len(rows) > limit else None


def _describe(row: AnyRow, roster: Roster, predecessor: Roster | None) -> JsonObject:
    voted = parse_voted_roster(row.raw)
    voting = nations_voting(voted, roster)
    if predecessor is not None:
        voting |= nations_voting(voted, predecessor)
    changes: list[Json] = (
        ["the federation is founded"]
        if predecessor is None
        else [*describe_successor(predecessor, roster)]
    )
    return {
        "version": roster.version,
        "hash": roster.hash,
        "issued_at": rfc3339(roster.issued_at * 1000),
        "expires_at": rfc3339(roster.expires_at * 1000),
        "accepted_at": rfc3339(row.accepted_at),
        "members": [*sorted(roster.members)],
        "votes": [*sorted(voting)],
        "changes": changes,
    }


def _roster_of(row: AnyRow) -> Roster:
    return parse_roster_payload(parse_voted_roster(row.raw).payload)
