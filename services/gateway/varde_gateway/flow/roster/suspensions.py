"""One nation stops to trust a peer for itself, at once, and says so to the others; and what others say of theirs.

A suspension needs nobody's consent and binds nobody else: only the members' votes remove a nation for all. The peer's
documents are refused from the commit on; the relay ends its connection when it hears of it. Protocol section 4.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, insert, select, update

from varde.auditlog import AuditKind
from varde.document import MAX_LIFE_SECONDS
from varde.encoding import JsonObject
from varde.identifiers import Lane, Nation
from varde.proposal import Restoration, Suspension, format_restoration, format_suspension
from varde.signing import Kind
from varde_gateway.flow.compose import Composed, compose
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.store.tables import (
    deliveries_table,
    peer_suspensions_table,
    suspensions_table,
)
from varde_gateway.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class OwnSuspension:
    """A peer that this nation does not trust for now; ``since`` in Unix milliseconds."""

    nation: Nation
    reason: str
    since: int


@dataclass(frozen=True, slots=True)
class PeerSuspension:
    """What ``suspended_by`` told us; ``since`` in Unix seconds."""

    suspended_by: Nation
    nation: Nation
    reason: str
    since: int


async def suspend(desk: Desk, nation: Nation, reason: str, *, actor: str) -> OwnSuspension:
    """Trust ``nation`` no more from now on, and tell the others why.

    ``Invalid`` where it is no peer, ``Conflict`` where it is suspended already.
    """
    if nation not in desk.peers():
        raise Invalid(
            f"{nation} is not a peer of this nation. Peers: {', '.join(desk.peers()) or 'none'}."
        )
    word = Suspension(nation, reason, desk.now())
    others = [each for each in desk.trusted_peers() if each != nation]
    notice = await _compose(desk, others, format_suspension(word))

    def record(tx: Transaction) -> OwnSuspension:
        known = select(suspensions_table.c.nation).where(suspensions_table.c.nation == nation)
        if tx.connection.execute(known).first() is not None:
            raise Conflict(f"{nation} is suspended already. End that suspension first.")
        row = {"nation": nation, "reason": reason, "since": tx.now}
        tx.connection.execute(insert(suspensions_table), row)
        tx.audit(AuditKind.SUSPENDED, actor, [("nation", nation)], reason)
        tx.event("suspension", {"nation": nation, "by": desk.nation, "reason": reason})
        _queue(tx, desk, notice)
        tx.after_commit(lambda: _trust_without(desk, nation))
        return OwnSuspension(nation, reason, tx.now)

    return await desk.ledger.write(record)


async def restore(desk: Desk, nation: Nation, *, actor: str) -> None:
    """Trust ``nation`` again, send what waited for it, and tell the others; ``NotFound`` where it is not suspended."""
    word = Restoration(nation, desk.now())
    others = [each for each in desk.trusted_peers() if each != nation]
    notice = await _compose(desk, others, format_restoration(word))

    def record(tx: Transaction) -> None:
        gone = tx.connection.execute(
            delete(suspensions_table).where(suspensions_table.c.nation == nation)
        )
        if not gone.rowcount:
            raise NotFound(f"{nation} is not suspended by this nation.")
        tx.connection.execute(
            update(deliveries_table)
            .where(deliveries_table.c.recipient == nation, deliveries_table.c.open)
            .values(next_attempt_at=tx.now)
        )
        tx.audit(AuditKind.RESTORED, actor, [("nation", nation)])
        tx.event("restoration", {"nation": nation, "by": desk.nation})
        _queue(tx, desk, notice)
        tx.after_commit(lambda: _trust_again(desk, nation))

    await desk.ledger.write(record)


def record_peer_suspension(tx: Transaction, sender: Nation, word: Suspension | Restoration) -> None:
    """Keep what ``sender`` says of ``word.nation``; an older word than the last one changes nothing."""
    table = peer_suspensions_table
    this = (table.c.suspended_by == sender, table.c.nation == word.nation)
    since = tx.connection.scalar(select(table.c.since).where(*this))
    if since is not None and word.since < since:
        return
    suspended = isinstance(word, Suspension)
    reason = word.reason if isinstance(word, Suspension) else ""
    row = {"active": suspended, "reason": reason, "since": word.since}
    if since is None:
        tx.connection.execute(insert(table), {"suspended_by": sender, "nation": word.nation, **row})
    else:
        tx.connection.execute(update(table).where(*this).values(**row))
    tx.audit(
        AuditKind.SUSPENDED if suspended else AuditKind.RESTORED,
        sender,
        [("nation", word.nation)],
        reason,
    )
    told: JsonObject = {"nation": word.nation, "by": sender}
    if suspended:
        tx.event("suspension", {**told, "reason": reason})
    else:
        tx.event("restoration", told)


def own_suspensions(connection: Connection) -> list[OwnSuspension]:
    """Whom this nation has suspended, and why."""
    table = suspensions_table
    rows = connection.execute(
        select(table.c.nation, table.c.reason, table.c.since).order_by(table.c.nation)
    )
    return [OwnSuspension(Nation(row.nation), row.reason, row.since) for row in rows]


def peer_suspensions(connection: Connection) -> list[PeerSuspension]:
    """Who is suspended by which other nation, as they told us."""
    table = peer_suspensions_table
    rows = connection.execute(
        select(table.c.suspended_by, table.c.nation, table.c.reason, table.c.since)
        .where(table.c.active)
        .order_by(table.c.nation, table.c.suspended_by)
    )
    return [
        PeerSuspension(Nation(row.suspended_by), Nation(row.nation), row.reason, row.since)
        for row in rows
    ]


async def _compose(desk: Desk, others: Sequence[Nation], body: JsonObject) -> Composed | None:
    if not others or not desk.is_member():
        return None
    return await compose(
        desk, Kind.ROSTER, others, body, lane=Lane.URGENT, life_seconds=MAX_LIFE_SECONDS
    )


def _queue(tx: Transaction, desk: Desk, notice: Composed | None) -> None:
    if notice is not None:
        record_document(tx, notice)
        queue_deliveries(tx, desk, notice, notice.document.to, sealed=True)


def _trust_without(desk: Desk, nation: Nation) -> None:
    desk.trust = replace(desk.trust, suspended=desk.trust.suspended | {nation})
    desk.trust_changed.set()


def _trust_again(desk: Desk, nation: Nation) -> None:
    desk.trust = replace(desk.trust, suspended=desk.trust.suspended - {nation})
    desk.trust_changed.set()
    desk.outgoing.wake()
