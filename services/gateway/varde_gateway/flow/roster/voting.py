"""What a nation does about the roster: propose a change, vote for it, bring a vote that was made elsewhere.

Whoever votes also sends on the proposal and the votes that it knows, so that a proposer that is cut off from some, or
speaks to some only, keeps nobody from voting. Counting is ``changes``. Protocol section 4.3.
"""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from varde.document import MAX_LIFE_SECONDS
from varde.encoding import Json, JsonObject, parse_json
from varde.errors import Malformed, Refused, Untrusted, VardeError
from varde.identifiers import Lane, Nation
from varde.proposal import (
    Change,
    Proposal,
    describe_successor,
    format_ballot,
    format_proposal,
    propose_successor,
    split_ballot,
    usable_voting_keys,
)
from varde.roster import (
    Roster,
    Vote,
    VotedRoster,
    accept_next,
    changed_members,
    format_vote,
    format_voted_roster,
    nations_voting,
    parse_roster_payload,
    parse_vote,
    parse_voted_roster,
    sign_vote,
    threshold,
)
from varde.signing import Kind
from varde_gateway.flow.compose import Composed, compose_now
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.roster.ballot_box import find_proposal, is_valid, valid_votes
from varde_gateway.flow.roster.changes import record_ballot, record_proposal, unsettled_forks
from varde_gateway.flow.roster.own_keys import look_for_keys
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    roster_proposals_table,
    roster_votes_table,
    rosters_table,
)
from varde_gateway.store.transaction import Transaction


async def propose(desk: Desk, change: Change, *, actor: str) -> JsonObject:
    """Propose the next version with one change to everybody; ``Invalid`` where the change is none."""
    try:
        payload = propose_successor(desk.trust.current, change, desk.now())
    except (Malformed, Refused, Untrusted) as error:
        raise Invalid(f"This cannot be proposed: {error.detail}.") from error
    return await put_forward(desk, payload, [], actor=actor)


async def put_forward(
    desk: Desk, payload: bytes, votes: Sequence[Vote], *, actor: str
) -> JsonObject:
    """Propose a payload that was made elsewhere, with the votes that came with it.

    ``Invalid`` where it breaks a rule of the roster, ``Conflict`` where it does not follow the version in force.
    """
    try:
        proposal = Proposal(payload, parse_roster_payload(payload))
    except VardeError as error:
        raise Invalid(f"This is no roster: {error.detail}.") from error
    _check_follows(desk.trust.current, proposal.roster)
    _check_votes(proposal, desk.trust.current, votes)
    documents = await asyncio.to_thread(_compose, desk, proposal, votes)

    def record(tx: Transaction) -> JsonObject:
        _queue(tx, desk, documents)
        record_proposal(tx, desk, desk.nation, proposal, actor=actor)
        for ballot in split_ballot(proposal.roster.version, proposal.roster.hash, votes):
            record_ballot(tx, desk, desk.nation, ballot, actor=actor)
        return _describe_or_accepted(tx.connection, desk, proposal)

    return await desk.ledger.write(record)


async def cast_vote(desk: Desk, digest: str, *, instead: bool, actor: str) -> JsonObject:
    """Vote with the keys that this node holds; ``Conflict`` where it has voted for a rival, unless ``instead`` of it.

    ``NotFound`` for an unknown proposal, ``Invalid`` where the voting key is on another machine.
    """
    current = desk.trust.current
    proposal = await _require_proposal(desk, digest)
    _check_follows(current, proposal.roster)
    await look_for_keys(desk, proposal.roster)
    keys = usable_voting_keys(desk.nation, current, proposal.roster, desk.voting_keys)
    if not keys:
        raise Invalid(
            f"This node holds no voting key of {desk.nation} for this roster. Where the key lives on another machine: "
            f"download the proposal, vote there with 'varde roster vote', and bring the vote back."
        )
    votes = await asyncio.to_thread(
        lambda: [parse_vote(sign_vote(proposal.payload, desk.nation, each)) for each in keys]
    )
    return await _bring(desk, proposal, votes, instead=instead, actor=actor)


async def bring_vote(
    desk: Desk, digest: str, vote: Vote, *, instead: bool, actor: str
) -> JsonObject:
    """Take a vote that was made on another machine, by our nation or by a newcomer, and send it to everybody."""
    proposal = await _require_proposal(desk, digest)
    _check_follows(desk.trust.current, proposal.roster)
    _check_votes(proposal, desk.trust.current, [vote])
    return await _bring(desk, proposal, [vote], instead=instead, actor=actor)


def describe_proposals(connection: Connection, desk: Desk) -> list[JsonObject]:
    """Every proposal that may become the next version, the newest first."""
    rows = connection.execute(
        select(
            roster_proposals_table.c.hash,
            func.max(roster_proposals_table.c.received_at).label("newest"),
        )
        .where(roster_proposals_table.c.version > desk.trust.current.version)
        .group_by(roster_proposals_table.c.hash)
        .order_by(func.max(roster_proposals_table.c.received_at).desc())
    ).all()
    found = [find_proposal(connection, row.hash) for row in rows]
    return [_describe(connection, desk, each) for each in found if each is not None]


def describe_forks(connection: Connection) -> list[JsonObject]:
    """Each side of a fork that nobody has settled."""
    return [
        {"version": version, "hash": digest} for digest, version, _ in unsettled_forks(connection)
    ]


def proposal_file(connection: Connection, desk: Desk, digest: str) -> JsonObject:
    """The proposal with the votes so far, as it goes to another machine to be voted on; ``NotFound``."""
    proposal = find_proposal(connection, digest)
    if proposal is None:
        raise NotFound(f"There is no proposal {digest}. 'varde roster show' lists them.")
    votes = valid_votes(connection, proposal, desk.trust.current)
    raw = format_voted_roster(proposal.payload, [format_vote(each) for each in votes])
    return parse_json(raw, limit=len(raw))


async def _require_proposal(desk: Desk, digest: str) -> Proposal:
    proposal = await desk.ledger.read(lambda connection: find_proposal(connection, digest))
    if proposal is None:
        raise NotFound(f"There is no proposal {digest}. 'varde roster show' lists them.")
    return proposal


async def _bring(
    desk: Desk, proposal: Proposal, votes: Sequence[Vote], *, instead: bool, actor: str
) -> JsonObject:
    version, digest = proposal.roster.version, proposal.roster.hash
    base = desk.trust.current
    known = await desk.ledger.read(lambda connection: valid_votes(connection, proposal, base))
    together = [*votes, *(each for each in known if each.nation not in {v.nation for v in votes})]
    documents = await asyncio.to_thread(_compose, desk, proposal, together)

    def record(tx: Transaction) -> JsonObject:
        rival = _own_vote_for_rival(tx.connection, desk.nation, version, digest)
        if rival is not None and not instead and any(v.nation == desk.nation for v in votes):
            raise Conflict(
                f"{desk.nation} has voted for another roster {version} ({rival}). Two rosters with everybody's votes "
                f"would stop every further change. Say 'instead' to vote for this one all the same."
            )
        _queue(tx, desk, documents)
        for ballot in split_ballot(version, digest, votes):
            record_ballot(tx, desk, desk.nation, ballot, actor=actor)
        return _describe_or_accepted(tx.connection, desk, proposal)

    return await desk.ledger.write(record)


def _compose(desk: Desk, proposal: Proposal, votes: Sequence[Vote]) -> list[Composed]:
    """The proposal, and the votes, for every peer; nothing where there is none, or where we have no seat."""
    peers = desk.trusted_peers()
    if not peers or not desk.is_member():
        return []
    roster = proposal.roster
    bodies = [(Kind.ROSTER, format_proposal(proposal.payload))]
    bodies += [
        (Kind.VOTE, format_ballot(each))
        for each in split_ballot(roster.version, roster.hash, votes)
    ]
    return [
        compose_now(desk, kind, peers, body, lane=Lane.URGENT, life_seconds=MAX_LIFE_SECONDS)
        for kind, body in bodies
    ]


def _queue(tx: Transaction, desk: Desk, documents: Sequence[Composed]) -> None:
    for each in documents:
        record_document(tx, each)
        queue_deliveries(tx, desk, each, each.document.to, sealed=False, numbered=False)


def _check_follows(current: Roster, roster: Roster) -> None:
    if roster.federation != current.federation:
        raise Invalid("This roster is of another federation.")
    if roster.version != current.version + 1 or roster.previous != current.hash:
        raise Conflict(
            f"This roster {roster.version} does not follow the version {current.version} in force. "
            f"Propose the change again."
        )
    if len(changed_members(current, roster)) > 1:
        raise Invalid("One version changes one seat. Propose the changes one after the other.")


def _check_votes(proposal: Proposal, base: Roster, votes: Sequence[Vote]) -> None:
    for vote in votes:
        if not is_valid(proposal, base, vote):
            raise Invalid(
                f"The vote of {vote.nation} does not hold: it is for other bytes, or not by the voting key of that seat."
            )


def _own_vote_for_rival(
    connection: Connection, nation: Nation, version: int, digest: str
) -> str | None:
    return connection.scalar(
        select(roster_votes_table.c.hash)
        .where(
            roster_votes_table.c.nation == nation,
            roster_votes_table.c.carried_by == nation,
            roster_votes_table.c.version == version,
            roster_votes_table.c.hash != digest,
        )
        .limit(1)
    )


def _describe_or_accepted(connection: Connection, desk: Desk, proposal: Proposal) -> JsonObject:
    accepted = connection.scalar(
        select(rosters_table.c.raw).where(rosters_table.c.hash == proposal.roster.hash)
    )
    if accepted is None:
        return _describe(connection, desk, proposal)
    return _in_full(desk, proposal, parse_voted_roster(accepted).votes, "accepted")


def _describe(connection: Connection, desk: Desk, proposal: Proposal) -> JsonObject:
    current, roster = desk.trust.current, proposal.roster
    if roster.version != current.version + 1:
        # The versions between are on their way; who may vote is not known yet.
        return _in_full(desk, proposal, [], "ahead")
    forked = any(digest == roster.hash for digest, _, _ in unsettled_forks(connection))
    votes = valid_votes(connection, proposal, current)
    return _in_full(desk, proposal, votes, "forked" if forked else "open")


def _in_full(desk: Desk, proposal: Proposal, votes: Sequence[Vote], state: str) -> JsonObject:
    current, roster = desk.trust.current, proposal.roster
    voted = VotedRoster(proposal.payload, tuple(votes))
    voting = nations_voting(voted, current) | nations_voting(voted, roster)
    voters = current.voters().keys() | roster.voters().keys()
    changes: list[Json] = [*describe_successor(current, roster)]
    return {
        "hash": roster.hash,
        "version": roster.version,
        "state": state,
        "issued_at": rfc3339(roster.issued_at * 1000),
        "expires_at": rfc3339(roster.expires_at * 1000),
        "changes": changes,
        "votes": [*sorted(voting)],
        "missing": [*sorted(voters - voting)],
        "needed": max(threshold(len(current.voters())), threshold(len(roster.voters()))),
        "waits_for": None if state == "accepted" else _what_lacks(current, voted, desk.now()),
        "voted_here": desk.nation in voting,
    }


def _what_lacks(current: Roster, voted: VotedRoster, now: int) -> str | None:
    try:
        accept_next(current, voted, now)
    except VardeError as error:
        return error.detail
    return None
