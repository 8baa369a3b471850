"""The rosters that this node has accepted, and the suspensions it has decided: trust, loaded at start.

The files that ``init`` wrote are read once; from then on the database is the truth. Every version is verified again
at every start, from the genesis fingerprint that was told out of band.
"""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from varde.auditlog import AuditKind
from varde.encoding import format_json
from varde.errors import Reason, Untrusted
from varde.identifiers import FederationId, Nation, parse_nation
from varde.roster import Roster, Trust, accept_genesis, accept_next, parse_voted_roster
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.tables import peers_table, rosters_table, suspensions_table
from varde_gateway.store.transaction import Transaction


async def load_trust(
    ledger: Ledger, genesis: FederationId, founding: Sequence[bytes], now: int
) -> Trust:
    """Verify the stored chain, or the ``founding`` voted rosters at the first start, which are then stored."""
    stored = await ledger.read(_stored)
    raws = stored or list(founding)
    chain = verify_chain(raws, genesis, now)
    if not stored:
        await ledger.write(lambda tx: _store(tx, raws, chain))
    suspended = await ledger.read(_suspended)
    return Trust(
        current=chain[-1],
        earlier={roster.version: roster for roster in chain[:-1]},
        suspended=suspended,
    )


def verify_chain(raws: Sequence[bytes], genesis: FederationId, now: int) -> list[Roster]:
    """Every version in order; ``Untrusted`` or ``Malformed`` where a step does not hold."""
    if not raws:
        raise Untrusted(Reason.BAD_ROSTER, "there is no roster; run 'varde init' or restore one")
    chain = [accept_genesis(parse_voted_roster(raws[0]), genesis)]
    for raw in raws[1:]:
        chain.append(accept_next(chain[-1], parse_voted_roster(raw), now))
    return chain


async def rosters_for_relay(ledger: Ledger) -> bytes:
    """What the relay asks for: every voted roster in order, and whom this nation has suspended."""
    raws = await ledger.read(_stored)
    suspended = await ledger.read(_suspended)
    return format_json(
        {"rosters": [raw.decode() for raw in raws], "suspended": [*sorted(suspended)]}
    )


def read_rosters_file(raw: bytes) -> list[bytes]:
    """The voted rosters of a node home's ``rosters.json``."""
    return [text.encode() for text in json.loads(raw)["rosters"]]


def _stored(connection: Connection) -> list[bytes]:
    return [
        row.raw
        for row in connection.execute(select(rosters_table.c.raw).order_by(rosters_table.c.version))
    ]


def _suspended(connection: Connection) -> frozenset[Nation]:
    rows = connection.execute(select(suspensions_table.c.nation))
    return frozenset(parse_nation(row.nation) for row in rows)


def _store(tx: Transaction, raws: Sequence[bytes], chain: Sequence[Roster]) -> None:
    for raw, roster in zip(raws, chain, strict=True):
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
    tx.connection.execute(
        insert(peers_table),
        [{"nation": nation, "next_sequence": 1} for nation in sorted(chain[-1].members)],
    )
