"""The rosters that this node has accepted, and the suspensions it has decided: trust, loaded at start.

The files that ``init`` wrote are read once; from then on the database is the truth. Every version is verified again
at every start, from the genesis fingerprint that was told out of band. How a version comes to be accepted is in
``changes``.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from sqlalchemy import Connection, insert, select

from varde.auditlog import AuditKind
from varde.encoding import format_json
from varde.errors import Reason, Untrusted
from varde.identifiers import FederationId, Nation, parse_nation
from varde.roster import Roster, Trust, extend_chain, parse_roster_payload, parse_voted_roster
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.tables import AnyRow, peers_table, rosters_table, suspensions_table
from varde_gateway.store.transaction import Transaction

MAX_TOLD_BYTES: Final = 900 * 1024
"""What fits in one message of a broker; what does not, the relay asks for next."""


RENEWAL_SECONDS: Final = 30 * 24 * 3600


async def load_trust(
    ledger: Ledger, genesis: FederationId, founding: Sequence[bytes], now: int
) -> Trust:
    """Verify the stored chain, or the ``founding`` voted rosters at the first start, which are then stored."""
    stored = [row.raw for row in await ledger.read(rosters_after)]
    chain = extend_chain([], stored or founding, genesis, now)
    if not chain:
        raise Untrusted(Reason.BAD_ROSTER, "there is no roster; run 'varde init' or restore one")
    if not stored:
        await ledger.write(lambda tx: _store(tx, chain))
    suspended = await ledger.read(suspended_nations)
    *earlier, current = (roster for roster, _ in chain)
    return Trust(current, {each.version: each for each in earlier}, suspended)


def follow_rosters(trust: Trust, accepted: Sequence[Roster]) -> Trust:
    """The trust after these further versions, which were verified; what it knows already changes nothing."""
    for roster in accepted:
        if roster.version > trust.current.version:
            earlier = {**trust.earlier, trust.current.version: trust.current}
            trust = replace(trust, current=roster, earlier=earlier)
    return trust


def needs_renewal(roster: Roster, now: int) -> bool:
    """Whether a version is so old that the members should vote for the next one."""
    return now - roster.issued_at >= RENEWAL_SECONDS


def newest_roster(connection: Connection, trust: Trust) -> Roster:
    """The newest version of the database: within a transaction it may be newer than the trust in memory."""
    row = connection.execute(
        select(rosters_table.c.version, rosters_table.c.raw)
        .order_by(rosters_table.c.version.desc())
        .limit(1)
    ).one()
    if row.version == trust.current.version:
        return trust.current
    return read_stored(row.raw)


@lru_cache(maxsize=8)
def read_stored(raw: bytes) -> Roster:
    """A voted roster that was verified when it was stored, parsed once."""
    return parse_roster_payload(parse_voted_roster(raw).payload)


async def rosters_for_relay(ledger: Ledger, after: int = 0) -> bytes:
    """What the relay asks for: the voted rosters after a version in order, and whom this nation has suspended.

    Not more than a message of the broker holds; the relay asks again from where it is then.
    """
    rows = await ledger.read(lambda connection: rosters_after(connection, after))
    told: list[str] = []
    size = 0
    for row in rows:
        size += len(row.raw) + len(row.raw) // 16
        if told and size > MAX_TOLD_BYTES:
            break
        told.append(row.raw.decode())
    suspended = await ledger.read(suspended_nations)
    return format_json({"rosters": [*told], "suspended": [*sorted(suspended)]})


def read_rosters_file(raw: bytes) -> list[bytes]:
    """The voted rosters of a node home's ``rosters.json``."""
    return [text.encode() for text in json.loads(raw)["rosters"]]


def rosters_after(
    connection: Connection, after: int = 0, most: int | None = None
) -> Sequence[AnyRow]:
    """``version``, ``hash``, ``raw`` and ``accepted_at`` of every accepted version after ``after``, in order."""
    return connection.execute(
        select(
            rosters_table.c.version,
            rosters_table.c.hash,
            rosters_table.c.raw,
            rosters_table.c.accepted_at,
        )
        .where(rosters_table.c.version > after)
        .order_by(rosters_table.c.version)
        .limit(most)
    ).all()


def suspended_nations(connection: Connection) -> frozenset[Nation]:
    """Whom this nation does not trust for now."""
    rows = connection.execute(select(suspensions_table.c.nation))
    return frozenset(parse_nation(row.nation) for row in rows)


def store_roster(tx: Transaction, roster: Roster, raw: bytes) -> None:
    """Keep an accepted version, and a row for every peer that is new in it."""
    tx.connection.execute(
        insert(rosters_table),
        {
            "version": roster.version,
            "hash": roster.hash,
            "raw": raw,
            "accepted_at": tx.now,
        },
    )
    tx.audit(
        AuditKind.ROSTER_ACCEPTED,
        "node",
        [("roster", str(roster.version)), ("digest", roster.hash)],
        ",".join(sorted(roster.members)),
    )
    known = {row.nation for row in tx.connection.execute(select(peers_table.c.nation))}
    fresh = [{"nation": each, "next_sequence": 1} for each in sorted(roster.members.keys() - known)]
    if fresh:
        tx.connection.execute(insert(peers_table), fresh)


def _store(tx: Transaction, chain: Sequence[tuple[Roster, bytes]]) -> None:
    for roster, raw in chain:
        store_roster(tx, roster, raw)
