"""How this node comes from one roster version to the next: when the proposals and votes that were brought are enough.

Nothing here decides by itself: ``varde.roster.accept_next`` counts the votes, and a version is accepted in the same
transaction that recorded the last thing it needed, so that a crash leaves either none of it or all. Two rosters of one
version that both have the members' votes are a fork: both are kept as evidence, and nothing further is accepted until a
person has settled it. What is kept, and for how long, is in ``ballot_box``. Protocol section 4.3.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

import structlog
from sqlalchemy import Connection, delete, insert, or_, select, update

from varde.auditlog import AuditKind
from varde.errors import VardeError
from varde.identifiers import Nation
from varde.proposal import Ballot, Proposal, describe_successor
from varde.roster import (
    Roster,
    Trust,
    VotedRoster,
    accept_next,
    format_vote,
    format_voted_roster,
    parse_roster_payload,
    parse_voted_roster,
)
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.roster.ballot_box import (
    carriers_of,
    decisive_proposals,
    drop_spoiled_votes,
    find_proposal,
    fresh_votes,
    is_valid,
    keep_proposal,
    keep_votes,
)
from varde_gateway.flow.roster.trust import follow_rosters, newest_roster, read_stored, store_roster
from varde_gateway.store.tables import (
    deliveries_table,
    peer_prekeys_table,
    roster_forks_table,
    roster_proposals_table,
    roster_votes_table,
    rosters_table,
)
from varde_gateway.store.transaction import Transaction

MAX_AHEAD: Final = 64
"""How many versions ahead of ours a proposal or a vote is kept."""

_LEFT: Final = "the nation has left the federation"
_log = structlog.get_logger("roster")


def record_proposal(
    tx: Transaction, desk: Desk, carrier: Nation, proposal: Proposal, actor: str | None = None
) -> None:
    """Keep a proposal that ``carrier`` brought, and go as far as the votes allow."""
    current = newest_roster(tx.connection, desk.trust)
    roster = proposal.roster
    if roster.federation != current.federation:
        _log.warning("proposal of another federation", carrier=carrier, hash=roster.hash)
        return
    if not _is_wanted(current, roster.version, roster.hash):
        return
    known = carriers_of(tx.connection, roster.hash)
    if carrier in known:
        return
    keep_proposal(tx, carrier, proposal)
    if known:
        return
    tx.audit(
        AuditKind.ROSTER_PROPOSED,
        actor or carrier,
        [("roster", str(roster.version)), ("digest", roster.hash)],
        _in_words(current, roster),
    )
    tx.event(
        "roster_proposal",
        {"version": roster.version, "hash": roster.hash, "from": carrier},
    )
    # It may name new keys of ours, which the worker then looks for.
    tx.after_commit(desk.trust_changed.set)
    base = _base_of(tx.connection, desk.trust, current, roster.version)
    if base is not None:
        drop_spoiled_votes(tx, proposal, base)
        advance(tx, desk)


def record_ballot(
    tx: Transaction, desk: Desk, carrier: Nation, ballot: Ballot, actor: str | None = None
) -> None:
    """Keep the votes that ``carrier`` brought, up to the first that is spoiled, and go as far as the votes allow.

    A vote may come before what it is for; then it is verified when that comes.
    """
    current = newest_roster(tx.connection, desk.trust)
    if not _is_wanted(current, ballot.version, ballot.hash):
        return
    votes = fresh_votes(tx.connection, carrier, ballot)
    base = _base_of(tx.connection, desk.trust, current, ballot.version) if votes else None
    proposal = None if base is None else find_proposal(tx.connection, ballot.hash)
    if base is not None and proposal is not None:
        held = [*takewhile(lambda each: is_valid(proposal, base, each[1]), votes)]
        if len(held) < len(votes):
            _log.warning("spoiled vote ignored", carrier=carrier, hash=ballot.hash)
        votes = held
    if not votes:
        return
    keep_votes(tx, carrier, ballot, votes)
    kept = sorted({vote.nation for _, vote in votes})
    tx.audit(
        AuditKind.ROSTER_VOTED,
        actor or carrier,
        [("roster", str(ballot.version)), ("digest", ballot.hash)],
        f"votes of {','.join(kept)}",
    )
    tx.event(
        "roster_vote",
        {"version": ballot.version, "hash": ballot.hash, "votes": [*kept], "from": carrier},
    )
    if proposal is not None:
        advance(tx, desk)


def advance(tx: Transaction, desk: Desk) -> None:
    """Accept version after version while exactly one follows with the votes that it needs."""
    now = tx.now // 1000
    accepted: list[Roster] = []
    current = newest_roster(tx.connection, desk.trust)
    base = _base_of_rivals(tx.connection, desk.trust, current)
    while True:
        if base is not None:
            _look_for_late_fork(tx, base, current, now)
        if unsettled_forks(tx.connection):
            break
        following = _followers(tx, current, decisive_proposals(tx.connection, current, now), now)
        if not following:
            break
        if len(following) > 1:
            _record_fork(tx, following)
            break
        ((roster, raw),) = following
        _accept(tx, current, roster, raw)
        accepted.append(roster)
        base, current = current, roster
    if accepted:

        def adopt() -> None:
            adopt_rosters(desk, accepted)

        tx.after_commit(adopt)


def can_advance(connection: Connection, trust: Trust, now: int) -> bool:
    """Whether ``advance`` would find anything to do, if the stored votes are what they claim to be."""
    base = _base_of_rivals(connection, trust, trust.current)
    if base is not None and _rivals(connection, base, now):
        return True
    return not unsettled_forks(connection) and bool(
        decisive_proposals(connection, trust.current, now)
    )


def adopt_rosters(desk: Desk, accepted: Sequence[Roster]) -> None:
    """Decide by these further versions from now on; on the event loop, after they were committed."""
    before = desk.trust.current.members
    desk.trust = follow_rosters(desk.trust, accepted)
    after = desk.trust.current.members
    desk.peer_prekeys = {
        nation: keys
        for nation, keys in desk.peer_prekeys.items()
        if nation in after
        and (nation not in before or before[nation].signing_keys == after[nation].signing_keys)
    }
    desk.trust_changed.set()


def settle_fork(tx: Transaction, desk: Desk, digest: str, actor: str) -> bool:
    """Go on with this one of two rosters of a version, as people agreed; False where there is no such choice.

    Where the version was accepted before the fork was seen, only that roster can be chosen: no node goes back.
    """
    forks = unsettled_forks(tx.connection)
    chosen = next((raw for each, _, raw in forks if each == digest), None)
    if chosen is None:
        return False
    current = newest_roster(tx.connection, desk.trust)
    version = parse_roster_payload(parse_voted_roster(chosen).payload).version
    if version == current.version and digest != current.hash:
        return False
    rejected = [each for each, _, _ in forks if each != digest]
    for table in (roster_proposals_table, roster_votes_table):
        tx.connection.execute(delete(table).where(table.c.hash.in_(rejected)))
    tx.connection.execute(
        update(roster_forks_table)
        .where(roster_forks_table.c.settled_at.is_(None))
        .values(settled_at=tx.now)
    )
    tx.audit(
        AuditKind.ROSTER_FORKED,
        actor,
        [("roster", str(version)), ("digest", digest)],
        "settled: this one is followed",
    )
    advance(tx, desk)
    return True


def unsettled_forks(connection: Connection) -> list[tuple[str, int, bytes]]:
    """Hash, version and voted roster of each side of a fork that no person has settled."""
    rows = connection.execute(
        select(
            roster_forks_table.c.hash, roster_forks_table.c.version, roster_forks_table.c.raw
        ).where(roster_forks_table.c.settled_at.is_(None))
    )
    return [(row.hash, row.version, row.raw) for row in rows]


def _is_wanted(current: Roster, version: int, digest: str) -> bool:
    # Another roster of the current version may still turn out to be a fork; an older one can change nothing.
    return digest != current.hash and current.version <= version <= current.version + MAX_AHEAD


def _base_of(connection: Connection, trust: Trust, current: Roster, version: int) -> Roster | None:
    """The roster that a version follows, where we have it."""
    if version == current.version + 1:
        return current
    if version != current.version:
        return None
    if current is trust.current:
        return trust.earlier.get(version - 1)
    raw = connection.scalar(
        select(rosters_table.c.raw).where(rosters_table.c.version == version - 1)
    )
    return None if raw is None else read_stored(raw)


def _base_of_rivals(connection: Connection, trust: Trust, current: Roster) -> Roster | None:
    """What the current version follows, where there are others that may follow it as well."""
    table = roster_proposals_table
    query = select(table.c.hash).where(table.c.version == current.version).limit(1)
    if connection.execute(query).first() is None:
        return None
    return _base_of(connection, trust, current, current.version)


def _followers(
    tx: Transaction, base: Roster, proposals: Sequence[Proposal], now: int
) -> list[tuple[Roster, bytes]]:
    """Those of the proposals that follow ``base`` with the votes that they need."""
    following: list[tuple[Roster, bytes]] = []
    for proposal in proposals:
        payload = proposal.payload
        votes = drop_spoiled_votes(tx, proposal, base)
        try:
            roster = accept_next(base, VotedRoster(payload, tuple(votes)), now)
        except VardeError as error:
            _log.debug("proposal waits", hash=proposal.roster.hash, reason=error.reason.value)
            continue
        raw = format_voted_roster(payload, [format_vote(each) for each in votes])
        following.append((roster, raw))
    return following


def _rivals(connection: Connection, base: Roster, now: int) -> list[Proposal]:
    """What may follow ``base`` beside the version that does, and is no evidence of a fork yet."""
    known = connection.scalars(select(roster_forks_table.c.hash)).all()
    return decisive_proposals(connection, base, now, but=known)


def _look_for_late_fork(tx: Transaction, base: Roster, current: Roster, now: int) -> None:
    rivals = _followers(tx, base, _rivals(tx.connection, base, now), now)
    if rivals:
        raw = tx.connection.scalar(
            select(rosters_table.c.raw).where(rosters_table.c.version == current.version)
        )
        assert raw is not None
        _record_fork(tx, [(current, raw), *rivals])


def _record_fork(tx: Transaction, sides: Sequence[tuple[Roster, bytes]]) -> None:
    known = set(tx.connection.scalars(select(roster_forks_table.c.hash)))
    fresh = [(roster, raw) for roster, raw in sides if roster.hash not in known]
    if not fresh:
        return
    version = fresh[0][0].version
    tx.connection.execute(
        insert(roster_forks_table),
        [
            {"hash": roster.hash, "version": version, "raw": raw, "seen_at": tx.now}
            for roster, raw in fresh
        ],
    )
    tx.audit(
        AuditKind.ROSTER_FORKED,
        "node",
        [("roster", str(version)), *(("digest", roster.hash) for roster, _ in sides)],
        "two rosters of one version have the members' votes; neither is followed further",
    )
    tx.event("roster_fork", {"version": version, "hashes": [roster.hash for roster, _ in sides]})
    _log.error("roster fork", version=version, hashes=[roster.hash for roster, _ in sides])


def _accept(tx: Transaction, current: Roster, roster: Roster, raw: bytes) -> None:
    store_roster(tx, roster, raw)
    for nation, seat in current.members.items():
        now_there = roster.members.get(nation)
        if now_there is None:
            _let_go(tx, nation)
        if now_there is None or now_there.signing_keys != seat.signing_keys:
            # Whoever stole the former keys may have announced prekeys of his own.
            tx.connection.execute(
                delete(peer_prekeys_table).where(peer_prekeys_table.c.nation == nation)
            )
    for table in (roster_proposals_table, roster_votes_table):
        # The rivals of the accepted one stay until the next version: their votes may still show a fork.
        tx.connection.execute(
            delete(table).where(
                or_(
                    table.c.version < roster.version,
                    table.c.hash == roster.hash,
                )
            )
        )
    changes = describe_successor(current, roster)
    tx.event(
        "roster",
        {
            "version": roster.version,
            "hash": roster.hash,
            "members": [*sorted(roster.members)],
            "changes": [*changes],
        },
    )
    _log.info("roster accepted", version=roster.version, changes=changes)


def _let_go(tx: Transaction, nation: Nation) -> None:
    """Nothing waits any more for a nation that was removed."""
    tx.flush()
    tx.connection.execute(
        update(deliveries_table)
        .where(deliveries_table.c.recipient == nation, deliveries_table.c.open)
        .values(open=False, state="failed", last_error=_LEFT)
    )


def _in_words(current: Roster, roster: Roster) -> str:
    if roster.version != current.version + 1:
        return f"version {roster.version}"
    return "; ".join(describe_successor(current, roster))
