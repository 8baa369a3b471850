"""A federation from nothing: the first roster of several seats, everybody's vote for it, and its fingerprint.

On one machine ``found_federation`` does all of it. Nations that are far from one another pass files instead:
``draft_genesis`` at one of them, ``add_vote`` at each, ``home.join_federation`` at each with the fingerprint that was
told from person to person. Protocol section 4.3.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from varde.encoding import (
    Json,
    exact_members,
    format_json,
    parse_json,
    require_list,
    sha256_base64url,
)
from varde.errors import Malformed
from varde.identifiers import FederationId, Nation, parse_nation
from varde.keys import SigningKeys
from varde.member import Member, parse_member
from varde.proposal import (
    Addition,
    Change,
    Removal,
    Renewal,
    Replacement,
    propose_successor,
)
from varde.roster import (
    MAX_ROSTER_BYTES,
    MAX_ROSTER_LIFE_SECONDS,
    MAX_VOTES,
    format_roster_payload,
    format_voted_roster,
    nations_voting,
    parse_roster_payload,
    parse_voted_roster,
    sign_vote,
)
from varde_gateway.founding.home import (
    FoundedNode,
    FoundingError,
    NodePlan,
    found_node,
    join_federation,
)

MAX_MEMBER_BYTES: Final = 64 * 1024
MAX_CHAIN_BYTES: Final = 256 * 1024 * 1024
MAX_VERSIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class FoundedFederation:
    """All nodes, ready to start, and the fingerprint that names the federation."""

    fingerprint: FederationId
    nodes: tuple[FoundedNode, ...]


def found_federation(
    plans: Sequence[NodePlan],
    *,
    sensors: tuple[str, ...],
    now: datetime,
    random: Callable[[int], bytes],
) -> FoundedFederation:
    """Make every home, let every nation vote for all seats, and put the voted roster into every home."""
    nodes = tuple(
        found_node(plan, passphrase=None, sensors=sensors, now=now, random=random) for plan in plans
    )
    voted = draft_genesis((node.member for node in nodes), now)
    for node in nodes:
        voted = add_vote(voted, node.plan.nation, node.keyring.voting)
    fingerprint = fingerprint_of(voted)
    for node in nodes:
        join_federation(node.plan.home, node.plan.nation, voted, fingerprint)
    return FoundedFederation(fingerprint, nodes)


def draft_genesis(members: Iterable[Member], now: datetime) -> bytes:
    """The first roster without any vote, valid for the longest time that the protocol allows."""
    issued_at = int(now.timestamp())
    payload = format_roster_payload(
        federation=None,
        version=1,
        previous=None,
        issued_at=issued_at,
        expires_at=issued_at + MAX_ROSTER_LIFE_SECONDS,
        members=members,
    )
    parse_roster_payload(payload)
    return format_voted_roster(payload, [])


def draft_successor(chain: Sequence[bytes], change: Change, now: int) -> bytes:
    """The next version after a chain that somebody exported, without any vote; ``VardeError`` where the change is none.

    Nothing is trusted by it: whoever votes verifies what it follows.
    """
    current = parse_roster_payload(parse_voted_roster(chain[-1]).payload)
    return format_voted_roster(propose_successor(current, change, now), [])


def change_from(order: Mapping[str, object]) -> Change:
    """The change that a proposal names, in the form of the API; ``Malformed`` where it carries a payload instead."""
    match order:
        case {"add": dict(seat)}:
            return Addition(parse_member(seat))
        case {"replace": dict(seat)}:
            return Replacement(parse_member(seat))
        case {"remove": str(nation)}:
            return Removal(parse_nation(nation))
        case {"renew": True}:
            return Renewal()
        case _:
            raise Malformed("a file that was made already cannot be drafted again")


def read_chain(raw: bytes) -> list[bytes]:
    """The voted rosters of an exported chain, in order; ``Malformed`` where it has another form."""
    value = parse_json(raw, limit=MAX_CHAIN_BYTES)
    listed = require_list(value.get("rosters"), "rosters", most=MAX_VERSIONS)
    chain = [each.encode() if isinstance(each, str) else _format(each) for each in listed]
    if not chain:
        raise Malformed("there is no roster in the file")
    return chain


def keys_to_vote_with(
    payload: bytes, nation: Nation, held: Sequence[SigningKeys]
) -> list[SigningKeys]:
    """Which of a nation's voting keys must sign: its seat's, and beside a next one the present one as well.

    A nation that is removed votes with its present key. ``FoundingError`` where its seat names a key that is not held.
    """
    seat = parse_roster_payload(payload).members.get(nation)
    if seat is None:
        return [*held[:1]]
    own = [each for each in held if each.public == seat.voting_keys]
    if not own:
        raise FoundingError(f"The seat of {nation} in this roster has another voting key.")
    return own if own[0] is held[0] else [held[0], *own]


def add_vote(voted: bytes, nation: Nation, voting_keys: Sequence[SigningKeys]) -> bytes:
    """The roster with this nation's vote beside the others'; ``FoundingError`` where no key is that of its seat."""
    payload = parse_voted_roster(voted).payload
    roster = parse_roster_payload(payload)
    member = roster.members.get(nation)
    wanted = None if member is None else member.voting_keys
    if roster.version == 1 and wanted not in [each.public for each in voting_keys]:
        raise FoundingError(f"{nation} has no seat in this roster with the keys of this node.")
    value = exact_members(
        parse_json(voted, limit=MAX_ROSTER_BYTES), frozenset({"payload", "votes"}), "voted roster"
    )
    others = [
        each
        for each in require_list(value["votes"], "votes", most=MAX_VOTES)
        if not (isinstance(each, dict) and each.get("member") == nation)
    ]
    own = [sign_vote(payload, nation, each) for each in voting_keys]
    return format_voted_roster(payload, [*others, *own])


def fingerprint_of(voted: bytes) -> FederationId:
    """What the members read to one another: base64url SHA-256 of the first roster's payload."""
    return FederationId(sha256_base64url(parse_voted_roster(voted).payload))


def missing_votes(voted: bytes) -> list[Nation]:
    """Who has not voted validly yet."""
    parsed = parse_voted_roster(voted)
    roster = parse_roster_payload(parsed.payload)
    return sorted(roster.voters().keys() - nations_voting(parsed, roster))


def read_member(raw: bytes) -> Member:
    """The seat in a ``member.json`` that another nation handed over."""
    return parse_member(parse_json(raw, limit=MAX_MEMBER_BYTES))


def _format(value: Json) -> bytes:
    if not isinstance(value, dict):
        raise Malformed("a roster in the file is not an object")
    return format_json(value)
