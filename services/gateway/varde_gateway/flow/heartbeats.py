"""The pulse of a node: who is there, what has come through, and what is missing.

Every ten seconds each peer is told how far we have sent and received, and a peer that is not heard is called every two.
Of a way that we did not have before it is told within two.
What a peer says is missing is published again from the database; what of a peer's has not come by its second heartbeat is
asked for. Heartbeats are kept nowhere; what follows from them is recorded. Protocol section 6.5.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
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
from varde.errors import Reason, VardeError
from varde.exchange import LogWord
from varde.heartbeat import (
    CHAIN_START,
    HEARTBEAT_LIFE_SECONDS,
    HEARTBEAT_SECONDS,
    MAX_AHEAD,
    MAX_VOID,
    Arrivals,
    Heartbeat,
    Received,
    Sent,
    Void,
    format_heartbeat,
    parse_heartbeat,
)
from varde.identifiers import Lane, Nation
from varde.opening import Opened, Rejection, open_document
from varde.signing import Kind
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.links import LinkState, PeerLink
from varde_gateway.flow.ports import Broker
from varde_gateway.flow.refusals import record_flood, record_refusal
from varde_gateway.flow.witnessing import listen, speak
from varde_gateway.flow.worker import repeat
from varde_gateway.store.numbering import load_arrivals
from varde_gateway.store.tables import (
    arrivals_table,
    deliveries_table,
    documents_table,
    peers_table,
)
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 0.5
CALLING_SECONDS: Final = 2
MAX_SENT_AGAIN: Final = 512
SENT_AGAIN_AT_ONCE: Final = 50
"""Of what a peer may have lost, and as many more each second."""

_log = structlog.get_logger("heartbeats")


async def run_heartbeats(desk: Desk, broker: Broker) -> None:
    """Beat, and watch the peers, for ever."""

    async def one_round() -> None:
        await beat(desk, broker)
        await watch_links(desk)

    await repeat("heartbeats", one_round, pause_seconds=CHECK_SECONDS)


async def run_hearing(desk: Desk, broker: Broker) -> None:
    """Take the peers' heartbeats for ever."""

    async def one_round() -> None:
        link, raw = await broker.next_pulse()
        await hear(desk, link, raw)

    await repeat("hearing", one_round, pause_seconds=0)


async def beat(desk: Desk, broker: Broker) -> None:
    """Say a heartbeat to every peer whose turn it is."""
    now = desk.ticks()
    desk.links.keep(desk.peers())
    desk.links.hasten_news(desk.trusted_peers(), now)
    due = [peer for peer in desk.trusted_peers() if desk.links.of(peer, now).beat_at <= now]
    if not due:
        return
    numbers = await desk.ledger.read(lambda connection: _numbers(connection, due))
    words = await speak(desk, [*numbers])
    raws = await asyncio.to_thread(_compose, desk, numbers, words)
    for peer, raw in raws.items():
        link = desk.links.of(peer, now)
        link.void = ()
        link.spoke_at = now
        live = desk.links.state(peer, now) is LinkState.LIVE
        link.beat_at = now + 1000 * (HEARTBEAT_SECONDS if live else CALLING_SECONDS)
        await broker.pulse(peer, raw)


async def hear(desk: Desk, link: Nation, raw: bytes) -> None:
    """Take in one heartbeat that came from the broker of ``link``.

    (1) it opens as any document; (2) it is a heartbeat of that nation; (3) it is newer than its last one. Then what it
    says is followed: numbers that will never come are closed, what it misses is sent again, gaps are asked for.
    """
    opened = await asyncio.to_thread(
        open_document,
        raw,
        me=desk.nation,
        trust=desk.trust,
        prekeys=desk.own_prekeys,
        now=desk.now(),
    )
    if isinstance(opened, Rejection):  # (1)
        await _refuse(desk, link, opened)
        return
    try:
        heartbeat = parse_heartbeat(opened.document.body)
    except VardeError as error:
        await _refuse(desk, link, Rejection(error.reason, error.detail, None))
        return
    if opened.kind is not Kind.HEARTBEAT or opened.document.sender != link:  # (2)
        _log.warning("a pulse that is no heartbeat of its link", link=link)
        return
    peer = desk.links.of(link, desk.ticks())
    if heartbeat.sequence <= peer.sequence:  # (3)
        return
    if await _follow(desk, link, peer, opened, heartbeat):
        await listen(desk, link, heartbeat.log)


async def watch_links(desk: Desk) -> None:
    """Record every peer that fell silent, was cut off, or is heard again, and what was refused in masses."""
    for nation, reasons in desk.refusals.ended(desk.now_ms()).items():
        await desk.ledger.write(lambda tx, n=nation, r=reasons: record_flood(tx, n, r))  # type: ignore[misc] # the defaults bind the loop's values
    now = desk.ticks()
    changed: list[tuple[Nation, PeerLink, LinkState]] = []
    for peer in desk.peers():
        link = desk.links.of(peer, now)
        state = desk.links.state(peer, now)
        if state is not link.told and state is not LinkState.LATE:
            changed.append((peer, link, state))
    if not changed:
        return
    await desk.ledger.write(lambda tx: _record_states(tx, changed))
    for _, link, state in changed:
        link.told = state


@dataclass(frozen=True, slots=True)
class _Numbers:
    sent: Sent
    received_from: int
    received_through: int
    received_highest: int


def _numbers(connection: Connection, peers: Sequence[Nation]) -> dict[Nation, _Numbers]:
    above = {
        row.sender: row.highest
        for row in connection.execute(
            select(
                arrivals_table.c.sender, func.max(arrivals_table.c.sequence).label("highest")
            ).group_by(arrivals_table.c.sender)
        )
    }
    return {
        Nation(row.nation): _Numbers(
            Sent(row.sent_from, row.next_sequence - 1, row.sent_chain or CHAIN_START),
            row.received_from,
            row.received_through,
            max(row.received_through, above.get(row.nation, 0)),
        )
        for row in connection.execute(select(peers_table).where(peers_table.c.nation.in_(peers)))
    }


def _compose(
    desk: Desk, numbers: Mapping[Nation, _Numbers], words: Mapping[Nation, LogWord]
) -> dict[Nation, bytes]:
    return {peer: _compose_one(desk, peer, each, words[peer]) for peer, each in numbers.items()}


def _compose_one(desk: Desk, peer: Nation, numbers: _Numbers, word: LogWord) -> bytes:
    now = desk.now_ms()
    link = desk.links.of(peer, desk.ticks())
    # Our clock may be set back; the peer would take no heartbeat until it has caught up.
    link.said = max(now, link.said + 1)
    reaches = desk.links.reaches(desk.ticks(), without=peer)
    link.promised = frozenset(reaches)
    heartbeat = Heartbeat(
        sequence=link.said,
        sent=numbers.sent,
        received=Received(
            numbers.received_from,
            numbers.received_through,
            numbers.received_highest,
            tuple(each for each in link.missing if each[0] > numbers.received_through),
        ),
        void=link.void,
        reaches={each: others for each, others in reaches.items() if each != desk.nation},
        log=word,
    )
    return compose_now(
        desk,
        Kind.HEARTBEAT,
        [peer],
        format_heartbeat(heartbeat),
        lane=Lane.URGENT,
        life_seconds=HEARTBEAT_LIFE_SECONDS,
    ).raw


async def _follow(
    desk: Desk, nation: Nation, peer: PeerLink, opened: Opened, heartbeat: Heartbeat
) -> bool:
    """Whether what it says can be true."""
    now = desk.now_ms()
    arrivals, sent_from, next_sequence = await desk.ledger.read(lambda c: _state(c, nation))
    answer = _Answer(nation, heartbeat, sent_from, next_sequence)
    if answer.ahead(arrivals) > MAX_AHEAD:
        detail = f"its numbers are ahead of what we know by more than {MAX_AHEAD}"
        await _refuse(desk, nation, Rejection(Reason.MALFORMED, detail, None))
        return False
    if not answer.renumbered:
        peer.renumbered = None
    if answer.needed(arrivals, peer.renumbered):
        arrivals, void = await desk.ledger.write(
            lambda tx: _record_answer(tx, desk, answer, peer.renumbered)
        )
        peer.void = void
        peer.renumbered = answer.beginnings if answer.renumbered else None
        desk.outgoing.wake()
    agrees = arrivals.agrees(heartbeat.sent)
    if not agrees and not peer.chain_broken:
        arrivals = await desk.ledger.write(lambda tx: _record_broken_chain(tx, nation, heartbeat))
        peer.chain_broken = True
    elif agrees and arrivals.through == heartbeat.sent.through:
        peer.chain_broken = False
    # What was sent before the heartbeat before this one has had its time to come.
    peer.missing = () if peer.sent_through is None else arrivals.gaps(peer.sent_through)
    if peer.missing or peer.void:
        peer.beat_at = min(peer.beat_at, desk.ticks())
    peer.sent_through = heartbeat.sent.through
    # Nor shall a peer whose clock was ahead be unheard after it was set right.
    peer.sequence = min(heartbeat.sequence, now)
    desk.links.take_word(nation, heartbeat.reaches, desk.ticks())
    peer.roster_version = opened.document.roster.version
    peer.heard_wall = now
    return True


@dataclass(frozen=True, slots=True)
class _Answer:
    nation: Nation
    heartbeat: Heartbeat
    sent_from: int
    next_sequence: int

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

    def needed(self, arrivals: Arrivals, done: tuple[int, int] | None) -> bool:
        """Whether anything of what the peer says must be recorded; ``done`` is the change of numbering that was."""
        return bool(
            self.rolled_back
            or (self.renumbered and self.beginnings != done)
            or self.heartbeat.received.missing
            or self.heartbeat.sent.first > arrivals.first
            or any(each.sequence > arrivals.through for each in self.heartbeat.void)
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
    if arrivals.follow(heartbeat.sent.first):
        detail = (
            f"{nation} numbers anew from {heartbeat.sent.first}; what it sent before may be lost"
        )
        tx.audit(AuditKind.NUMBERING_CHANGED, nation, [], detail)
        tx.event("numbering", {"nation": nation, "detail": detail})
    for each in heartbeat.void:
        arrivals.arrive(each.sequence, each.digest)
    if answer.rolled_back:
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


def _record_states(tx: Transaction, changed: Sequence[tuple[Nation, PeerLink, LinkState]]) -> None:
    for nation, link, state in changed:
        tx.audit(AuditKind.LINK_CHANGED, "node", [], f"{nation} is {state.value}")
        tx.event("link", {"nation": nation, "state": state.value})
        if state is LinkState.LIVE:
            tx.connection.execute(
                update(peers_table)
                .where(peers_table.c.nation == nation)
                .values(last_heard_at=link.heard_wall)
            )


async def _refuse(desk: Desk, link: Nation, rejection: Rejection) -> None:
    if desk.refusals.note(link, rejection, desk.now_ms()):
        await desk.ledger.write(lambda tx: record_refusal(tx, link, rejection))
