"""The pulse of a node: who is there, what has come through, and what is missing.

Every ten seconds each peer is told how far we have sent and received, and a peer that is not heard is called every two.
Of a way that we did not have before it is told within two.
What a peer says is missing is published again from the database; what of a peer's has not come by its second heartbeat is
asked for (``numbers``). Heartbeats are kept nowhere; what follows from them is recorded. Protocol section 6.5.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, func, select, update

from varde.auditlog import AuditKind
from varde.errors import Malformed, VardeError
from varde.exchange import LogWord
from varde.heartbeat import (
    CHAIN_START,
    HEARTBEAT_LIFE_SECONDS,
    HEARTBEAT_SECONDS,
    Heartbeat,
    Received,
    Sent,
    format_heartbeat,
    parse_heartbeat,
)
from varde.identifiers import Lane, Nation
from varde.opening import Rejection, open_document
from varde.signing import Kind
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.log.witnessing import listen, note_spoken, speak
from varde_gateway.flow.memory.links import LinkState, PeerLink
from varde_gateway.flow.memory.refusals import record_flood, record_refusal
from varde_gateway.flow.numbers import follow_numbers
from varde_gateway.flow.ports import Broker
from varde_gateway.flow.worker import repeat
from varde_gateway.store.tables import arrivals_table, peers_table
from varde_gateway.store.transaction import Transaction

CHECK_SECONDS: Final = 0.5
CALLING_SECONDS: Final = 2

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
        note_spoken(desk, peer, words[peer], link.said)
        link.void = ()
        link.spoke_at = now
        live = desk.links.state(peer, now) is LinkState.LIVE
        link.beat_at = now + 1000 * (HEARTBEAT_SECONDS if live else CALLING_SECONDS)
        await broker.pulse(peer, raw)


async def hear(desk: Desk, link: Nation, raw: bytes) -> None:
    """Take in one heartbeat that came from the broker of ``link``.

    (1) it opens as any document; (2) it is a heartbeat of that nation; (3) it is newer than its last one; (4) its numbers
    can be true. Then what it says is followed.
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
    if not peer.is_news(heartbeat.sequence):  # (3)
        return
    try:
        await follow_numbers(desk, link, peer, heartbeat)  # (4)
    except Malformed as error:
        await _refuse(desk, link, Rejection(error.reason, error.detail, None))
        return
    peer.note(heartbeat.sequence, desk.now_ms())
    peer.roster_version = opened.document.roster.version
    desk.links.take_word(link, heartbeat.reaches, desk.peers(), desk.ticks())
    await listen(desk, link, heartbeat.log, heartbeat.sequence)


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
