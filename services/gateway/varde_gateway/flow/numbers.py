"""What follows from the numbers in a peer's heartbeat: gaps close, documents are sent again, a numbering begins anew.

What it says of its own numbers is held against what has come; what it says of ours, against what we have numbered. Its
word may be wrong, by an older copy of a database or on purpose: it never has us send everything at once, nor change a
numbering more often than once a minute. Protocol section 6.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)

from varde.auditlog import AuditKind
from varde.errors import Malformed
from varde.heartbeat import HEARTBEAT_SECONDS, MAX_AHEAD, MAX_VOID, Arrivals, Heartbeat, Void
from varde.identifiers import Nation
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.links import PeerLink
from varde_gateway.store.numbering import load_arrivals
from varde_gateway.store.tables import deliveries_table, documents_table, peers_table
from varde_gateway.store.transaction import Transaction

NUMBERING_PAUSE_MS: Final = 60_000
"""Between two changes of one peer's numbering that we follow, between two of ours for it, and between two alarms about its
chain: each is an entry of the audit log, and the first two use up numbers. One of each is what an older copy of a database
needs, also where both sides were given one; what comes sooner is followed a minute later."""

MAX_SENT_AGAIN: Final = 512
SENT_AGAIN_AT_ONCE: Final = 50
"""Of what a peer may have lost, and as many more each second."""


async def follow_numbers(desk: Desk, nation: Nation, peer: PeerLink, heartbeat: Heartbeat) -> None:
    """Do what the numbers of a peer's newest heartbeat ask for; ``Malformed`` where they cannot be true."""
    now = desk.ticks()
    arrivals, sent_from, next_sequence = await desk.ledger.read(lambda c: _state(c, nation))
    answer = _Answer(
        nation,
        heartbeat,
        sent_from,
        next_sequence,
        may_follow=_is_over(peer.followed_at, now),
        may_begin=_is_over(peer.began_at, now),
    )
    if answer.ahead(arrivals) > MAX_AHEAD:
        raise Malformed(f"its numbers are ahead of what we know by more than {MAX_AHEAD}")
    if not answer.renumbered:
        peer.renumbered = None
    if answer.needed(arrivals, peer.renumbered):
        if answer.follows(arrivals):
            peer.followed_at = now
        if answer.begins:
            peer.began_at = now
        arrivals, void = await desk.ledger.write(
            lambda tx: _record_answer(tx, desk, answer, peer.renumbered)
        )
        peer.void = void
        peer.renumbered = answer.beginnings if answer.renumbered else None
        desk.outgoing.wake()
    agrees = arrivals.agrees(heartbeat.sent)
    if not agrees and not peer.chain_broken and _is_over(peer.broken_at, now):
        arrivals = await desk.ledger.write(lambda tx: _record_broken_chain(tx, nation, heartbeat))
        peer.chain_broken = True
        peer.broken_at = now
    elif agrees and arrivals.through == heartbeat.sent.through:
        peer.chain_broken = False
    # What was sent before the heartbeat before this one has had its time to come.
    peer.missing = () if peer.sent_through is None else arrivals.gaps(peer.sent_through)
    if peer.missing or peer.void:
        peer.beat_at = min(peer.beat_at, now)
    peer.sent_through = heartbeat.sent.through


def _is_over(last: int | None, now: int) -> bool:
    return last is None or now - last >= NUMBERING_PAUSE_MS


@dataclass(frozen=True, slots=True)
class _Answer:
    """``may_follow`` and ``may_begin``: whether the last change of the peer's numbering, and of ours, is long enough ago."""

    nation: Nation
    heartbeat: Heartbeat
    sent_from: int
    next_sequence: int
    may_follow: bool
    may_begin: bool

    def ahead(self, arrivals: Arrivals) -> int:
        """How far the numbers that it names, of ours or its own, are beyond those that we know."""
        sent, received = self.heartbeat.sent, self.heartbeat.received
        own = [sent.first, sent.through, *(each.sequence for each in self.heartbeat.void)]
        of_ours = max(received.highest, received.first) - self.next_sequence
        return max(of_ours, max(own) - arrivals.through)

    @property
    def rolled_back(self) -> bool:
        """The peer has seen numbers of ours that we do not know: our database is an older copy."""
        received = self.heartbeat.received
        return received.highest >= self.next_sequence or received.first > self.sent_from

    @property
    def beginnings(self) -> tuple[int, int]:
        """Where our numbering begins as the peer knows it, and where it does from now on."""
        received = self.heartbeat.received
        anew = max(received.highest + 1, received.first, self.next_sequence)
        return received.first, anew if self.rolled_back else self.sent_from

    @property
    def renumbered(self) -> bool:
        """The peer does not follow our numbering yet, so that its numbers do not say what it has."""
        known, ours = self.beginnings
        return known != ours

    @property
    def begins(self) -> bool:
        """Whether we number anew now."""
        return self.rolled_back and self.may_begin

    def follows(self, arrivals: Arrivals) -> bool:
        """Whether we follow a new numbering of the peer now."""
        return self.may_follow and self.heartbeat.sent.first > arrivals.first

    @property
    def voids(self) -> tuple[Void, ...]:
        """What will never come of the numbers that the peer has given: of others it can say nothing."""
        sent = self.heartbeat.sent
        return tuple(
            each for each in self.heartbeat.void if sent.first <= each.sequence <= sent.through
        )

    def needed(self, arrivals: Arrivals, done: tuple[int, int] | None) -> bool:
        """Whether anything of what the peer says must be recorded; ``done`` is the change of numbering that was."""
        return bool(
            self.begins
            or (self.renumbered and self.beginnings != done)
            or self.heartbeat.received.missing
            or self.follows(arrivals)
            or any(arrivals.takes(each.sequence) for each in self.voids)
        )


def _state(connection: Connection, nation: Nation) -> tuple[Arrivals, int, int]:
    row = connection.execute(
        select(peers_table.c.sent_from, peers_table.c.next_sequence).where(
            peers_table.c.nation == nation
        )
    ).one_or_none()
    first, following = (1, 1) if row is None else row
    return load_arrivals(connection, nation), first, following


def _record_answer(
    tx: Transaction, desk: Desk, answer: _Answer, done: tuple[int, int] | None
) -> tuple[Arrivals, tuple[Void, ...]]:
    nation, heartbeat = answer.nation, answer.heartbeat
    arrivals = tx.arrivals(nation)
    if answer.may_follow and arrivals.follow(heartbeat.sent.first):
        detail = (
            f"{nation} numbers anew from {heartbeat.sent.first}; what it sent before may be lost"
        )
        tx.audit(AuditKind.NUMBERING_CHANGED, nation, [], detail)
        tx.event("numbering", {"nation": nation, "detail": detail})
    for each in answer.voids:
        arrivals.arrive(each.sequence, each.digest)
    if answer.begins:
        _, first = answer.beginnings
        tx.begin_again(nation, first)
        detail = (
            f"{nation} has seen number {first - 1}, ours ended at {answer.next_sequence - 1}: "
            f"numbering anew from {first}"
        )
        tx.audit(AuditKind.NUMBERING_CHANGED, "node", [], detail)
        tx.event("numbering", {"nation": nation, "detail": detail})
    if answer.renumbered and answer.beginnings != done:
        _send_all_again(tx, desk, nation, below=max(answer.beginnings))
    return arrivals, _send_again(tx, desk, nation, heartbeat.received.missing)


def _send_all_again(tx: Transaction, desk: Desk, nation: Nation, *, below: int) -> None:
    # The peer will not ask for numbers from before the new beginning, and one of them may stand for two documents, one
    # of which an older copy has forgotten. What is there already is receipted once more and changes nothing.
    living = (
        documents_table.c.sender == desk.nation,
        documents_table.c.expires_at * 1000 > tx.now,
        deliveries_table.c.sequence < below,
        deliveries_table.c.open.is_(False),
    )
    _open_again(tx, nation, living)


def _open_again(tx: Transaction, nation: Nation, which: Sequence[ColumnElement[bool]]) -> None:
    # A few at once, the newest first: the history of a day must not stand before what is sent now, nor may a peer that
    # names a wrong number in every heartbeat have us do nothing else.
    newest_first = func.row_number().over(order_by=documents_table.c.recorded_at.desc()) - 1
    ranked = (
        select(deliveries_table.c.document_id, newest_first.label("place"))
        .join(documents_table, documents_table.c.id == deliveries_table.c.document_id)
        .where(deliveries_table.c.recipient == nation, *which)
        .subquery()
    )
    # PostgreSQL would take it for an integer of 32 bits, as what is added is.
    following = literal(tx.now, BigInteger) + ranked.c.place // SENT_AGAIN_AT_ONCE * 1000
    tx.connection.execute(
        update(deliveries_table)
        .where(
            deliveries_table.c.recipient == nation,
            deliveries_table.c.document_id == ranked.c.document_id,
        )
        .values(open=True, next_attempt_at=following)
    )


def _send_again(
    tx: Transaction, desk: Desk, nation: Nation, missing: Sequence[tuple[int, int]]
) -> tuple[Void, ...]:
    if not missing:
        return ()
    rows = tx.connection.execute(
        select(
            deliveries_table.c.document_id,
            deliveries_table.c.sequence,
            documents_table.c.digest,
            documents_table.c.expires_at,
        )
        .join(documents_table, documents_table.c.id == deliveries_table.c.document_id)
        .where(
            documents_table.c.sender == desk.nation,
            deliveries_table.c.recipient == nation,
            or_(*(deliveries_table.c.sequence.between(*each) for each in missing)),
        )
        .order_by(deliveries_table.c.sequence)
        .limit(MAX_SENT_AGAIN)
    ).all()
    expired = [row for row in rows if row.expires_at * 1000 <= tx.now]
    wanted = [row.document_id for row in rows if row.expires_at * 1000 > tx.now]
    if wanted:
        # Also what has a receipt: the peer may have lost it since, as with an older copy of its database.
        soon = deliveries_table.c.next_attempt_at <= tx.now + HEARTBEAT_SECONDS * 1000
        _open_again(
            tx,
            nation,
            (
                documents_table.c.sender == desk.nation,
                deliveries_table.c.document_id.in_(wanted),
                not_(and_(deliveries_table.c.open, soon)),
            ),
        )
    return tuple(Void(row.sequence, row.digest) for row in expired[:MAX_VOID])


def _record_broken_chain(tx: Transaction, nation: Nation, heartbeat: Heartbeat) -> Arrivals:
    # Both sides may have restored older copies, and one number stands for two documents: all is asked for again, and what
    # is here already changes nothing. Where the chains differ again after that, it was no accident; the alarm stands.
    sent = heartbeat.sent
    arrivals = tx.arrivals(nation)
    arrivals.forget()
    detail = f"the documents {sent.first} to {sent.through} of {nation} are not those that came"
    tx.audit(AuditKind.CHAIN_BROKEN, nation, [], detail)
    tx.event("chain_broken", {"nation": nation, "detail": detail})
    return arrivals
