"""The proposals and votes that members have brought: kept until a version follows from them, verified, and bounded.

Whoever brings one need not be who made it. What is kept is counted for each nation that brings it, so that none can push
out what another brought, and nobody has the writer do much: a proposal is read once, a vote is verified once where what
it is for is known, and of what a nation brings nothing is verified after the first vote of it that is spoiled. Counting is
``changes``. Protocol section 4.3.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final

import structlog
from sqlalchemy import Connection, delete, distinct, func, insert, select

from varde.encoding import format_json, parse_json
from varde.errors import VardeError
from varde.identifiers import Nation, parse_nation
from varde.proposal import Ballot, Proposal
from varde.roster import (
    Roster,
    Vote,
    could_follow,
    format_vote,
    parse_roster_payload,
    parse_vote,
    threshold,
    verify_vote,
)
from varde.signing import claimed_key
from varde_gateway.store.tables import roster_proposals_table, roster_votes_table
from varde_gateway.store.transaction import Transaction

MAX_PROPOSALS: Final = 16
MAX_VOTES: Final = 1024
"""Of each nation that brings them. Where it brings more, those of the farthest versions go, then the oldest."""

_MAX_VOTE_CHARACTERS: Final = 16 * 1024
_MAX_READ: Final = 32
_log = structlog.get_logger("roster")


@lru_cache(maxsize=_MAX_READ)
def read_proposal(payload: bytes) -> Proposal:
    """A payload that was kept, parsed once: one of many seats takes as long as hundreds of other documents."""
    return Proposal(payload, parse_roster_payload(payload))


def find_proposal(connection: Connection, digest: str) -> Proposal | None:
    """The proposal of this hash, if somebody brought it."""
    payload = connection.scalar(
        select(roster_proposals_table.c.payload)
        .where(roster_proposals_table.c.hash == digest)
        .limit(1)
    )
    return None if payload is None else read_proposal(payload)


def next_proposals(connection: Connection, current: Roster) -> list[Proposal]:
    """What may become the version after ``current``."""
    table = roster_proposals_table
    rows = connection.execute(
        select(table.c.hash, table.c.payload).where(table.c.version == current.version + 1)
    )
    payloads = {row.hash: row.payload for row in rows}
    return [read_proposal(each) for _, each in sorted(payloads.items())]


def decisive_proposals(
    connection: Connection, base: Roster, now: int, *, but: Collection[str] = ()
) -> list[Proposal]:
    """The proposals to follow ``base`` that have enough votes if all are what they claim to be; none of the hashes ``but``."""
    proposals, votes = roster_proposals_table, roster_votes_table
    here = select(proposals.c.hash).where(
        proposals.c.version == base.version + 1, proposals.c.hash.not_in(but)
    )
    voters = base.voters()
    enough = connection.scalars(
        select(votes.c.hash)
        .where(votes.c.hash.in_(here), votes.c.nation.in_([*voters]))
        .group_by(votes.c.hash)
        .having(func.count(distinct(votes.c.nation)) >= threshold(len(voters)))
        .order_by(votes.c.hash)
    ).all()
    found = [find_proposal(connection, digest) for digest in enough]
    return [
        each for each in found if each is not None and _could_follow(connection, base, each, now)
    ]


def valid_votes(connection: Connection, proposal: Proposal, base: Roster) -> list[Vote]:
    """The votes for a proposal that count after ``base``, each voter's key once."""
    valid, _ = _weigh(connection, proposal, base)
    return valid


def drop_spoiled_votes(tx: Transaction, proposal: Proposal, base: Roster) -> list[Vote]:
    """The votes for a proposal that count; whoever brought a spoiled one has brought nothing for it."""
    valid, spoilers = _weigh(tx.connection, proposal, base)
    if spoilers:
        table = roster_votes_table
        tx.connection.execute(
            delete(table).where(
                table.c.hash == proposal.roster.hash, table.c.carried_by.in_(spoilers)
            )
        )
        _log.warning("spoiled votes dropped", carriers=spoilers, hash=proposal.roster.hash)
    return valid


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


def carriers_of(connection: Connection, digest: str) -> set[str]:
    """Who has brought this proposal."""
    query = select(roster_proposals_table.c.proposed_by).where(
        roster_proposals_table.c.hash == digest
    )
    return {*connection.scalars(query)}


def keep_proposal(tx: Transaction, carrier: Nation, proposal: Proposal) -> None:
    """Keep what ``carrier`` has not brought before."""
    table = roster_proposals_table
    tx.connection.execute(
        insert(table),
        {
            "hash": proposal.roster.hash,
            "proposed_by": carrier,
            "version": proposal.roster.version,
            "payload": proposal.payload,
            "received_at": tx.now,
        },
    )
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


def fresh_votes(connection: Connection, carrier: Nation, ballot: Ballot) -> list[tuple[str, Vote]]:
    """The votes that ``carrier`` has not brought before, each with the key that it claims, up to the first that claims none."""
    table = roster_votes_table
    known = {
        (row.nation, row.key)
        for row in connection.execute(
            select(table.c.nation, table.c.key).where(
                table.c.hash == ballot.hash, table.c.carried_by == carrier
            )
        )
    }
    fresh: list[tuple[str, Vote]] = []
    for vote in ballot.votes:
        try:
            key = claimed_key(vote.signatures)
        except VardeError:
            break
        if (vote.nation, key) not in known:
            known.add((vote.nation, key))
            fresh.append((key, vote))
    return fresh


def keep_votes(
    tx: Transaction, carrier: Nation, ballot: Ballot, votes: Sequence[tuple[str, Vote]]
) -> None:
    """Keep votes, each given with the key that it claims."""
    table = roster_votes_table
    tx.connection.execute(
        insert(table),
        [
            {
                "hash": ballot.hash,
                "nation": vote.nation,
                "key": key,
                "carried_by": carrier,
                "version": ballot.version,
                "vote": format_json(format_vote(vote)).decode(),
                "received_at": tx.now,
            }
            for key, vote in votes
        ],
    )
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


def _could_follow(connection: Connection, base: Roster, proposal: Proposal, now: int) -> bool:
    table = roster_votes_table
    claimed = {
        (row.nation, row.key)
        for row in connection.execute(
            select(table.c.nation, table.c.key).where(table.c.hash == proposal.roster.hash)
        )
    }
    old, new = (
        {nation for nation, keys in each.voters().items() if (nation, keys.ed25519_kid) in claimed}
        for each in (base, proposal.roster)
    )
    return could_follow(base, proposal.roster, old, new, now)


def _weigh(
    connection: Connection, proposal: Proposal, base: Roster
) -> tuple[list[Vote], list[Nation]]:
    """The votes that count, and who has brought a spoiled one."""
    table = roster_votes_table
    rows = connection.execute(
        select(table.c.nation, table.c.key, table.c.carried_by, table.c.vote)
        .where(table.c.hash == proposal.roster.hash)
        .order_by(table.c.carried_by, table.c.received_at, table.c.nation, table.c.key)
    )
    valid: dict[tuple[str, str], Vote] = {}
    spoilers: list[Nation] = []
    for row in rows:
        if (row.nation, row.key) in valid or row.carried_by in spoilers:
            continue
        vote = parse_vote(parse_json(row.vote.encode(), limit=_MAX_VOTE_CHARACTERS))
        if is_valid(proposal, base, vote):
            valid[row.nation, row.key] = vote
        else:
            spoilers.append(parse_nation(row.carried_by))
    return [vote for _, vote in sorted(valid.items())], spoilers
