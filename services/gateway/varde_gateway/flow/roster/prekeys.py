"""Prekeys, ours and the peers': made a day at a time, announced to every member, deleted for good.

The private halves stand wrapped in the database; each is deleted 48 hours after its expiry, and with it goes the
ability to open what was sealed for it.
"""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from varde.auditlog import AuditKind
from varde.identifiers import Lane, Nation, parse_nation
from varde.keys import SEED_BYTES, PrekeyPrivate
from varde.prekeys import STALE_SECONDS, DatedPrekey, Prekeys, format_prekeys, parse_prekeys
from varde.signing import Kind
from varde_gateway.flow.compose import compose
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import (
    AnyRow,
    deliveries_table,
    documents_table,
    own_prekeys_table,
    peer_prekeys_table,
)
from varde_gateway.store.transaction import Transaction

DAY_SECONDS: Final = 24 * 3600
DAYS_AHEAD: Final = 3
ANNOUNCEMENT_LIFE_SECONDS: Final = 4 * DAY_SECONDS
CHECK_SECONDS: Final = 60.0
WRAP_PURPOSE: Final = "prekey-wrap"


async def load_prekeys(desk: Desk) -> None:
    """Bring the live prekeys of both sides into memory, at start."""
    _hold(desk, await desk.ledger.read(_own_rows))
    desk.peer_prekeys = await desk.ledger.read(peer_prekeys)


async def renew_prekeys(desk: Desk, *, announce: bool = False) -> None:
    """Make what is missing for today and the two days ahead, announce it, and delete what is too old.

    Announced when there is a new prekey, when a member is there to whom the newest was never addressed, and when asked
    to ``announce``. Without a seat, not yet or not any more, a node only deletes: nobody would take its word. What another
    replica has adopted of the peers' is taken over.
    """
    await _take_over(desk)
    async with desk.renewing_prekeys:
        rows = await desk.ledger.read(_own_rows)
        _hold(desk, rows)
        now = desk.now()
        outdated = [row.kid for row in rows if row.expires_at + STALE_SECONDS < now]
        kept = [row for row in rows if row.kid not in outdated]
        if outdated:
            await desk.ledger.write(lambda tx: _delete(tx, outdated))
            _hold(desk, kept)
        if desk.is_member():
            await _announce(desk, kept, announce=announce)


async def _announce(desk: Desk, rows: Sequence[AnyRow], *, announce: bool) -> None:
    now = desk.now()
    today = now - now % DAY_SECONDS
    have = {row.not_before for row in rows}
    fresh = [
        (PrekeyPrivate(seed), seed, begin)
        for begin in (today + day * DAY_SECONDS for day in range(DAYS_AHEAD))
        if begin not in have
        for seed in (desk.random(SEED_BYTES),)
    ]
    announced = await desk.ledger.read(lambda connection: _announced_to(connection, desk.nation))
    peers = desk.trusted_peers()
    if not announce and not fresh and announced.issuperset(peers):
        return
    live = [
        *(
            DatedPrekey(desk.own_prekeys[row.kid].prekey, row.not_before, row.expires_at)
            for row in rows
            if row.expires_at > now
        ),
        *(DatedPrekey(private.prekey, begin, begin + DAY_SECONDS) for private, _, begin in fresh),
    ]
    prekeys = Prekeys(
        sequence=desk.now_ms(), keys=tuple(sorted(live, key=lambda key: key.not_before))
    )
    composed = await compose(
        desk,
        Kind.PREKEYS,
        peers,
        format_prekeys(prekeys),
        lane=Lane.URGENT,
        life_seconds=ANNOUNCEMENT_LIFE_SECONDS,
    )

    def record(tx: Transaction) -> None:
        if fresh:
            tx.connection.execute(
                insert(own_prekeys_table), [_wrapped_row(desk, *each) for each in fresh]
            )
        record_document(tx, composed)
        queue_deliveries(tx, desk, composed, peers, sealed=False, numbered=False)
        tx.audit(
            AuditKind.PREKEYS_PUBLISHED,
            "node",
            [("document", composed.document.id), ("digest", composed.digest)],
            f"sequence {prekeys.sequence}, {len(fresh)} new",
        )

    # Adopted before they are announced: a peer may seal for them before this task runs again.
    added = {private.prekey.kid: private for private, _, _ in fresh}
    desk.own_prekeys = {**desk.own_prekeys, **added}
    await desk.ledger.write(record)


def _delete(tx: Transaction, kids: Sequence[str]) -> None:
    tx.connection.execute(delete(own_prekeys_table).where(own_prekeys_table.c.kid.in_(kids)))
    subjects = [("prekey", kid) for kid in kids]
    tx.audit(AuditKind.PREKEYS_DELETED, "node", subjects, f"{len(kids)} private halves deleted")


async def run_prekeys(desk: Desk) -> None:
    """Keep the prekeys of this node live for ever."""
    await repeat("prekeys", lambda: renew_prekeys(desk), pause_seconds=CHECK_SECONDS)


def adopt_peer_prekeys(tx: Transaction, desk: Desk, nation: Nation, prekeys: Prekeys) -> None:
    """Use a peer's new prekeys from the commit on, first for what waited for them."""
    tx.connection.execute(
        update(deliveries_table)
        .where(
            deliveries_table.c.recipient == nation,
            deliveries_table.c.open,
            deliveries_table.c.state == "queued",
        )
        .values(next_attempt_at=tx.now)
    )

    def adopt() -> None:
        desk.peer_prekeys = {**desk.peer_prekeys, nation: prekeys.keys}
        desk.outgoing.wake()

    tx.after_commit(adopt)


async def _take_over(desk: Desk) -> None:
    known = desk.peer_prekeys
    stored = await desk.ledger.read(peer_prekeys)
    # What was adopted here while this was read is newer than it.
    if desk.peer_prekeys is known and stored != known:
        desk.peer_prekeys = stored
        desk.outgoing.wake()


def _hold(desk: Desk, rows: Sequence[AnyRow]) -> None:
    """Exactly these are in memory, also where another replica has made or deleted some."""
    held = desk.own_prekeys
    desk.own_prekeys = {
        row.kid: held.get(row.kid) or _unwrap(desk, row.kid, row.wrapped_seed) for row in rows
    }


def _own_rows(connection: Connection) -> Sequence[AnyRow]:
    return connection.execute(
        select(
            own_prekeys_table.c.kid,
            own_prekeys_table.c.not_before,
            own_prekeys_table.c.expires_at,
            own_prekeys_table.c.wrapped_seed,
        )
    ).all()


def own_prekeys(desk: Desk, connection: Connection) -> tuple[DatedPrekey, ...]:
    """Ours, as the peers know them."""
    return tuple(
        DatedPrekey(desk.own_prekeys[row.kid].prekey, row.not_before, row.expires_at)
        for row in _own_rows(connection)
        if row.kid in desk.own_prekeys
    )


def peer_prekeys(connection: Connection) -> dict[Nation, tuple[DatedPrekey, ...]]:
    """The newest that each peer has announced, whatever has become of it since."""
    rows = connection.execute(select(peer_prekeys_table.c.nation, peer_prekeys_table.c.body))
    return {parse_nation(row.nation): parse_prekeys(json.loads(row.body)).keys for row in rows}


def _announced_to(connection: Connection, own: Nation) -> set[str]:
    newest = connection.scalar(
        select(documents_table.c.id)
        .where(documents_table.c.sender == own, documents_table.c.kind == Kind.PREKEYS.value)
        .order_by(documents_table.c.id.desc())
        .limit(1)
    )
    rows = connection.execute(
        select(deliveries_table.c.recipient).where(deliveries_table.c.document_id == newest)
    )
    return {row.recipient for row in rows}


def _wrapped_row(desk: Desk, private: PrekeyPrivate, seed: bytes, begin: int) -> dict[str, object]:
    kid = private.prekey.kid
    return {
        "kid": kid,
        "not_before": begin,
        "expires_at": begin + DAY_SECONDS,
        "wrapped_seed": desk.wrapping.wrap(WRAP_PURPOSE, seed, kid.encode()),
    }


def _unwrap(desk: Desk, kid: str, wrapped: bytes) -> PrekeyPrivate:
    return PrekeyPrivate(desk.wrapping.unwrap(WRAP_PURPOSE, wrapped, kid.encode()))
