"""A federation from nothing: the first roster of several seats, everybody's vote for it, and its fingerprint.

On one machine ``found_federation`` does all of it. Nations that are far from one another pass files instead:
``draft_genesis`` at one of them, ``add_vote`` at each, ``home.join_federation`` at each with the fingerprint that was
told from person to person. Protocol section 4.3.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from varde.encoding import (
    exact_members,
    parse_json,
    require_list,
    sha256_base64url,
)
from varde.identifiers import FederationId, Nation
from varde.keys import SigningKeys
from varde.member import Member, parse_member
from varde.roster import (
    MAX_MEMBERS,
    MAX_ROSTER_BYTES,
    MAX_ROSTER_LIFE_SECONDS,
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


def add_vote(voted: bytes, nation: Nation, voting_keys: Sequence[SigningKeys]) -> bytes:
    """The roster with this nation's vote beside the others'; ``FoundingError`` where no key is that of its seat."""
    payload = parse_voted_roster(voted).payload
    member = parse_roster_payload(payload).members.get(nation)
    wanted = None if member is None else member.voting_keys
    keys = next((each for each in voting_keys if each.public == wanted), None)
    if keys is None:
        raise FoundingError(f"{nation} has no seat in this roster with the keys of this node.")
    value = exact_members(
        parse_json(voted, limit=MAX_ROSTER_BYTES), frozenset({"payload", "votes"}), "voted roster"
    )
    others = [
        each
        for each in require_list(value["votes"], "votes", most=MAX_MEMBERS)
        if not (isinstance(each, dict) and each.get("member") == nation)
    ]
    return format_voted_roster(payload, [*others, sign_vote(payload, nation, keys)])


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
