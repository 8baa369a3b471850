"""How this node comes from one roster version to the next: proposals and votes are kept until they are enough.

Nothing here decides by itself: ``varde.roster.accept_next`` counts the votes, and a version is accepted in the same
transaction that recorded the last thing it needed, so that a crash leaves either none of it or all. What a member brings
is bounded per member. Two rosters of one version that both have the members' votes are a fork: both are kept as
evidence, and nothing further is accepted until a person has settled it. Protocol section 4.3.
"""

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from varde.auditlog import AuditKind
from varde.encoding import format_json, parse_json
from varde.errors import VardeError
from varde.identifiers import Nation
from varde.proposal import Ballot, Proposal, describe_successor
from varde.roster import (
    Roster,
    Vote,
    VotedRoster,
    accept_next,
    format_vote,
    format_voted_roster,
    parse_roster_payload,
    parse_vote,
    parse_voted_roster,
    verify_vote,
)
from varde.signing import claimed_key
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.rosters import follow_rosters, newest_roster, store_roster
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

MAX_PROPOSALS: Final = 16
MAX_VOTES: Final = 1024
"""Of each nation that brings them. Where it brings more, those of the farthest versions go, then the oldest."""

_MAX_VOTE_CHARACTERS: Final = 16 * 1024
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
    known = tx.connection.scalars(
        select(roster_proposals_table.c.proposed_by).where(
            roster_proposals_table.c.hash == roster.hash
        )
    ).all()
    if carrier not in known:
        tx.connection.execute(
            insert(roster_proposals_table),
            {
                "hash": roster.hash,
                "proposed_by": carrier,
                "version": roster.version,
                "payload": proposal.payload,
                "received_at": tx.now,
            },
        )
        _trim_proposals(tx, carrier)
    if not known:
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
    advance(tx, desk)


def record_ballot(
    tx: Transaction, desk: Desk, carrier: Nation, ballot: Ballot, actor: str | None = None
) -> None:
    """Keep the votes that ``carrier`` brought, except the spoiled ones, and go as far as the votes allow.

    A vote may come before what it is for; then it is verified when it is counted.
    """
    current = newest_roster(tx.connection, desk.trust)
    if not _is_wanted(current, ballot.version, ballot.hash):
        return
    proposal = find_proposal(tx.connection, ballot.hash)
    base = _base_of(tx.connection, current, ballot.version)
    kept: list[Nation] = []
    for vote in ballot.votes:
        if proposal is not None and base is not None and not is_valid(proposal, base, vote):
            _log.warning(
                "spoiled vote ignored", member=vote.nation, carrier=carrier, hash=ballot.hash
            )
            continue
        if _keep_vote(tx, carrier, ballot, vote):
            kept.append(vote.nation)
    if not kept:
        return
    _trim_votes(tx, carrier)
    tx.audit(
        AuditKind.ROSTER_VOTED,
        actor or carrier,
        [("roster", str(ballot.version)), ("digest", ballot.hash)],
        f"votes of {','.join(sorted(kept))}",
    )
    tx.event(
        "roster_vote",
        {"version": ballot.version, "hash": ballot.hash, "votes": [*sorted(kept)], "from": carrier},
    )
    advance(tx, desk)


def advance(tx: Transaction, desk: Desk) -> None:
    """Accept version after version while exactly one follows with the votes that it needs."""
    now = tx.now // 1000
    accepted: list[Roster] = []
    current = newest_roster(tx.connection, desk.trust)
    _look_for_late_fork(tx, current, now)
    while not unsettled_forks(tx.connection):
        following = _followers(tx.connection, current, current.version + 1, now)
        if not following:
            break
        if len(following) > 1:
            _record_fork(tx, following)
            break
        ((roster, raw),) = following
        _accept(tx, current, roster, raw)
        accepted.append(roster)
        current = roster
        _look_for_late_fork(tx, current, now)
    if accepted:

        def adopt() -> None:
            adopt_rosters(desk, accepted)

        tx.after_commit(adopt)


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


def find_proposal(connection: Connection, digest: str) -> Proposal | None:
    """The proposal of this hash, if somebody brought it."""
    payload = connection.scalar(
        select(roster_proposals_table.c.payload)
        .where(roster_proposals_table.c.hash == digest)
        .limit(1)
    )
    return None if payload is None else Proposal(payload, parse_roster_payload(payload))


def next_proposals(connection: Connection, current: Roster) -> list[Proposal]:
    """What may become the version after ``current``."""
    return _proposals_of(connection, current.version + 1)


def valid_votes(connection: Connection, proposal: Proposal, base: Roster) -> list[Vote]:
    """The votes for a proposal that count after ``base``, each voter's key once."""
    rows = connection.execute(
        select(roster_votes_table.c.nation, roster_votes_table.c.key, roster_votes_table.c.vote)
        .where(roster_votes_table.c.hash == proposal.roster.hash)
        .order_by(roster_votes_table.c.nation, roster_votes_table.c.received_at)
    )
    valid: dict[tuple[str, str], Vote] = {}
    for row in rows:
        if (row.nation, row.key) not in valid:
            vote = parse_vote(parse_json(row.vote.encode(), limit=_MAX_VOTE_CHARACTERS))
            if is_valid(proposal, base, vote):
                valid[row.nation, row.key] = vote
    return [*valid.values()]


def is_valid(proposal: Proposal, base: Roster, vote: Vote) -> bool:
    """Whether a vote is by a key that its nation has in ``base``, or in the roster that it is for."""
    seats = (base.members.get(vote.nation), proposal.roster.members.get(vote.nation))
    for keys in {seat.voting_keys for seat in seats if seat is not None}:
        if keys is not None:
            try:
                verify_vote(proposal.payload, vote, keys)
            except VardeError:
                continue
            return True
    return False


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


def _base_of(connection: Connection, current: Roster, version: int) -> Roster | None:
    """The roster that a version follows, where we have it."""
    if version == current.version + 1:
        return current
    if version == current.version:
        raw = connection.scalar(
            select(rosters_table.c.raw).where(rosters_table.c.version == version - 1)
        )
        return None if raw is None else parse_roster_payload(parse_voted_roster(raw).payload)
    return None


def _keep_vote(tx: Transaction, carrier: Nation, ballot: Ballot, vote: Vote) -> bool:
    key = claimed_key(vote.signatures)
    this = and_(
        roster_votes_table.c.hash == ballot.hash,
        roster_votes_table.c.nation == vote.nation,
        roster_votes_table.c.key == key,
        roster_votes_table.c.carried_by == carrier,
    )
    if tx.connection.execute(select(roster_votes_table.c.key).where(this)).first() is not None:
        return False
    tx.connection.execute(
        insert(roster_votes_table),
        {
            "hash": ballot.hash,
            "nation": vote.nation,
            "key": key,
            "carried_by": carrier,
            "version": ballot.version,
            "vote": format_json(format_vote(vote)).decode(),
            "received_at": tx.now,
        },
    )
    return True


def _trim_proposals(tx: Transaction, carrier: Nation) -> None:
    table = roster_proposals_table
    beyond = tx.connection.scalars(
        select(table.c.hash)
        .where(table.c.proposed_by == carrier)
        .order_by(table.c.version, table.c.received_at.desc())
        .offset(MAX_PROPOSALS)
        .limit(MAX_PROPOSALS)
    ).all()
    if beyond:
        tx.connection.execute(
            delete(table).where(table.c.proposed_by == carrier, table.c.hash.in_(beyond))
        )
        _log.warning("proposals dropped", carrier=carrier, dropped=len(beyond))


def _trim_votes(tx: Transaction, carrier: Nation) -> None:
    table = roster_votes_table
    beyond = tx.connection.execute(
        select(table.c.hash, table.c.nation, table.c.key)
        .where(table.c.carried_by == carrier)
        .order_by(table.c.version, table.c.received_at.desc())
        .offset(MAX_VOTES)
        .limit(MAX_VOTES)
    ).all()
    for row in beyond:
        tx.connection.execute(
            delete(table).where(
                table.c.carried_by == carrier,
                table.c.hash == row.hash,
                table.c.nation == row.nation,
                table.c.key == row.key,
            )
        )
    if beyond:
        _log.warning("votes dropped", carrier=carrier, dropped=len(beyond))


def _proposals_of(connection: Connection, version: int) -> list[Proposal]:
    table = roster_proposals_table
    rows = connection.execute(
        select(table.c.hash, table.c.payload).where(table.c.version == version)
    )
    payloads = {row.hash: row.payload for row in rows}
    return [Proposal(each, parse_roster_payload(each)) for _, each in sorted(payloads.items())]


def _followers(
    connection: Connection, base: Roster, version: int, now: int
) -> list[tuple[Roster, bytes]]:
    """Every roster of this version that follows ``base`` with the votes that it needs."""
    following: list[tuple[Roster, bytes]] = []
    for proposal in _proposals_of(connection, version):
        payload = proposal.payload
        votes = valid_votes(connection, proposal, base)
        try:
            roster = accept_next(base, VotedRoster(payload, tuple(votes)), now)
        except VardeError as error:
            _log.debug("proposal waits", hash=proposal.roster.hash, reason=error.reason.value)
            continue
        raw = format_voted_roster(payload, [format_vote(each) for each in votes])
        following.append((roster, raw))
    return following


def _look_for_late_fork(tx: Transaction, current: Roster, now: int) -> None:
    table = roster_proposals_table
    query = select(table.c.hash).where(table.c.version == current.version).limit(1)
    if tx.connection.execute(query).first() is None:
        return
    base = _base_of(tx.connection, current, current.version)
    if base is None:
        return
    rivals = _followers(tx.connection, base, current.version, now)
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
