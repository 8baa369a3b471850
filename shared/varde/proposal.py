"""How a roster changes: what a proposal, a vote and a word about a suspension say, and how a proposal is made.

Protocol section 4.3. A proposal holds the exact payload that is voted on, and proves nothing by itself: what makes it a
version are the votes, which ``roster.accept_next`` counts. Proposals and votes travel unsealed, for they must reach a
nation whose prekeys are not here; a suspension is one nation's opinion of another, and travels sealed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from varde.encoding import (
    MAX_SECONDS,
    Json,
    JsonObject,
    decode_base64url,
    exact_members,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed, Reason, Refused
from varde.identifiers import Nation, parse_nation
from varde.keys import SigningKeys
from varde.member import Member, Standing
from varde.note import format_vkey
from varde.roster import (
    MAX_ROSTER_LIFE_SECONDS,
    Roster,
    Vote,
    changed_members,
    format_roster_payload,
    format_vote,
    parse_roster_payload,
    parse_vote,
)
from varde.signing import MAX_ROSTER_PAYLOAD_BYTES

MAX_BALLOT: Final = 32
MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Proposal:
    """A roster to vote on; ``payload`` are the exact bytes."""

    payload: bytes
    roster: Roster


@dataclass(frozen=True, slots=True)
class Suspension:
    """The sender has stopped to trust ``nation`` for itself; ``since`` in Unix seconds."""

    nation: Nation
    reason: str
    since: int


@dataclass(frozen=True, slots=True)
class Restoration:
    """The sender trusts ``nation`` again."""

    nation: Nation
    since: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """Votes for one payload, given by its version and hash; not verified by being here."""

    version: int
    hash: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Addition:
    """A nation or an observer joins."""

    member: Member


@dataclass(frozen=True, slots=True)
class Replacement:
    """A seat changes: its keys, its address, its name, its standing."""

    member: Member


@dataclass(frozen=True, slots=True)
class Removal:
    """A seat goes."""

    nation: Nation


@dataclass(frozen=True, slots=True)
class Renewal:
    """Nothing changes but the dates."""


RosterWord: TypeAlias = Proposal | Suspension | Restoration
Change: TypeAlias = Addition | Replacement | Removal | Renewal


def format_proposal(payload: bytes) -> JsonObject:
    """The body of a proposal."""
    return {"roster": payload.decode()}


def format_suspension(suspension: Suspension) -> JsonObject:
    """The body that tells a suspension."""
    return {
        "suspended": suspension.nation,
        "reason": suspension.reason,
        "since": suspension.since,
    }


def format_restoration(restoration: Restoration) -> JsonObject:
    """The body that takes a suspension back."""
    return {"restored": restoration.nation, "since": restoration.since}


def parse_roster_word(body: JsonObject) -> RosterWord:
    """The body of a ``roster`` document, one of its three forms; ``Malformed`` or ``Untrusted`` as its roster is."""
    if "roster" in body:
        members = exact_members(body, frozenset({"roster"}), "proposal")
        payload = require_string(
            members["roster"], "roster", most=MAX_ROSTER_PAYLOAD_BYTES
        ).encode()
        return Proposal(payload, parse_roster_payload(payload))
    if "suspended" in body:
        members = exact_members(body, frozenset({"suspended", "reason", "since"}), "suspension")
        return Suspension(
            parse_nation(members["suspended"]),
            require_string(members["reason"], "reason", most=MAX_REASON),
            require_integer(members["since"], "since", most=MAX_SECONDS),
        )
    members = exact_members(body, frozenset({"restored", "since"}), "restoration")
    return Restoration(
        parse_nation(members["restored"]),
        require_integer(members["since"], "since", most=MAX_SECONDS),
    )


def format_ballot(ballot: Ballot) -> JsonObject:
    """The body of a vote."""
    return {
        "version": ballot.version,
        "hash": ballot.hash,
        "votes": [format_vote(each) for each in ballot.votes],
    }


def parse_ballot(body: Json) -> Ballot:
    """``Malformed`` unless the body has the one form, with 1 to 32 votes."""
    members = exact_members(body, frozenset({"version", "hash", "votes"}), "vote")
    decode_base64url(members["hash"], length=32)
    votes = require_list(members["votes"], "votes", most=MAX_BALLOT)
    if not votes:
        raise Malformed("there is no vote in it")
    return Ballot(
        version=require_integer(members["version"], "version"),
        hash=str(members["hash"]),
        votes=tuple(parse_vote(each) for each in votes),
    )


def split_ballot(version: int, digest: str, votes: Sequence[Vote]) -> list[Ballot]:
    """All these votes in as many bodies as they need."""
    return [
        Ballot(version, digest, tuple(votes[start : start + MAX_BALLOT]))
        for start in range(0, len(votes), MAX_BALLOT)
    ]


def propose_successor(current: Roster, change: Change, now: int) -> bytes:
    """The payload of the version after ``current`` with one ``change``, for 90 days from ``now`` (Unix seconds).

    ``Refused`` where the change changes nothing or names a wrong seat; ``VardeError`` where its result is no roster.
    """
    issued_at = max(now, current.issued_at)
    payload = format_roster_payload(
        federation=current.federation,
        version=current.version + 1,
        previous=current.hash,
        issued_at=issued_at,
        expires_at=issued_at + MAX_ROSTER_LIFE_SECONDS,
        members=_members_after(current, change),
    )
    parse_roster_payload(payload)
    return payload


def describe_successor(current: Roster, following: Roster) -> list[str]:
    """What ``following`` changes, in words for the person who votes."""
    changed = sorted(changed_members(current, following))
    said = [
        _describe_seat(each, current.members.get(each), following.members.get(each))
        for each in changed
    ]
    return said or ["no seat changes: the roster is renewed"]


def usable_voting_keys(
    nation: Nation, current: Roster, following: Roster, held: Iterable[SigningKeys]
) -> list[SigningKeys]:
    """Those of the keys that a nation ``held`` whose vote for ``following`` counts: its seat's, old or new."""
    seats = (roster.members.get(nation) for roster in (current, following))
    wanted = [seat.voting_keys for seat in seats if seat is not None]
    return [each for each in held if each.public in wanted]


def _members_after(current: Roster, change: Change) -> list[Member]:
    members = dict(current.members)
    if isinstance(change, Removal):
        _require_seat(current, change.nation)
        del members[change.nation]
    elif isinstance(change, Addition):
        if change.member.nation in members:
            raise Refused(
                Reason.POLICY, f"{change.member.nation} has a seat already; replace it instead"
            )
        members[change.member.nation] = change.member
    elif isinstance(change, Replacement):
        _require_seat(current, change.member.nation)
        if members[change.member.nation] == change.member:
            raise Refused(Reason.POLICY, f"the seat of {change.member.nation} is like that already")
        members[change.member.nation] = change.member
    return [*members.values()]


def _require_seat(current: Roster, nation: Nation) -> None:
    if nation not in current.members:
        raise Refused(
            Reason.POLICY,
            f"{nation} has no seat; the members are {', '.join(sorted(current.members))}",
        )


def _describe_seat(nation: Nation, old: Member | None, new: Member | None) -> str:
    if new is None:
        return f"{nation} ({old.name if old is not None else nation}) is removed"
    if old is None:
        seat = "an observer without a vote" if new.standing is Standing.OBSERVER else "a member"
        return f"{nation} ({new.name}) joins as {seat}, at {new.broker}"
    return f"{nation}: {'; '.join(_differences(old, new))}"


def _differences(old: Member, new: Member) -> list[str]:
    shown = (
        ("name", old.name, new.name),
        ("standing", old.standing.value, new.standing.value),
        ("broker", old.broker, new.broker),
        ("audit log", format_vkey(old.log.ed25519), format_vkey(new.log.ed25519)),
        ("witness", old.witness, new.witness),
    )
    said = [f"{what} {before} becomes {after}" for what, before, after in shown if before != after]
    hidden = (
        ("ML-DSA-44 key of the audit log", old.log.ml_dsa_44, new.log.ml_dsa_44),
        ("signing keys", old.signing_keys, new.signing_keys),
        ("voting keys", old.voting_keys, new.voting_keys),
        ("relay key", old.relay, new.relay),
        ("certificate authority", old.ca, new.ca),
    )
    return [*said, *(f"new {what}" for what, before, after in hidden if before != after)]
