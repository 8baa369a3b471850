"""The roster: who belongs to the federation, with which keys, by whose votes.

Protocol section 4.3; rules of the TUF root role (TUF specification 1.0.34 section 5.3) with one vote per nation. A
roster is a payload and votes over its bytes. The threshold is computed from the number of voting members and never
read from the document. Nothing here stores anything: the caller walks the versions one by one and keeps each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from varde.document import MAX_SKEW_SECONDS, RosterReference, check_profile
from varde.encoding import (
    MAX_SECONDS,
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
    require_list,
    sha256_base64url,
)
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.identifiers import FederationId, Nation, parse_federation_id, parse_nation
from varde.keys import SigningKeys, VerifyKeys
from varde.member import Member, Standing, format_member, parse_member
from varde.signing import (
    Kind,
    SignaturePair,
    format_signatures,
    parse_signatures,
    signatures_over,
    verify_signatures,
)

MAX_ROSTER_BYTES: Final = 2 * 1024 * 1024
MAX_MEMBERS: Final = 64
MAX_VOTES: Final = 2 * MAX_MEMBERS
MIN_MEMBERS: Final = 2
MAX_ROSTER_LIFE_SECONDS: Final = 90 * 24 * 3600
GRACE_SECONDS: Final = 7 * 24 * 3600
"""How long after a newer roster a document signed under an older one is still accepted."""

_MEMBERS: Final = frozenset({"v", "fed", "version", "prev", "iat", "exp", "members"})


@dataclass(frozen=True, slots=True)
class Roster:
    """One version; ``hash`` and ``previous`` are base64url SHA-256 of payloads, times are Unix seconds."""

    federation: FederationId
    version: int
    previous: str | None
    hash: str
    issued_at: int
    expires_at: int
    members: Mapping[Nation, Member]

    @property
    def reference(self) -> RosterReference:
        """What a document says to name the roster it was signed under."""
        return RosterReference(self.version, self.hash)

    def voters(self) -> dict[Nation, VerifyKeys]:
        """The voting keys by nation; observers have none."""
        return {
            nation: member.voting_keys
            for nation, member in self.members.items()
            if member.voting_keys is not None
        }


@dataclass(frozen=True, slots=True)
class Vote:
    """One nation's two signatures over a roster payload; not verified by being here."""

    nation: Nation
    signatures: SignaturePair


@dataclass(frozen=True, slots=True)
class VotedRoster:
    """A roster as it travels: its exact payload and the votes for it."""

    payload: bytes
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a node believes now: the rosters it has accepted and the peers it has suspended for itself."""

    current: Roster
    earlier: Mapping[int, Roster] = field(default_factory=dict)
    suspended: frozenset[Nation] = frozenset()

    def roster_named(self, reference: RosterReference, now: int) -> Roster:
        """The accepted roster that a document names, or ``Untrusted``: forked, newer than ours, or too old."""
        if reference.version > self.current.version:
            raise Untrusted(
                Reason.NEWER_ROSTER,
                f"signed under roster {reference.version}; ours is {self.current.version}",
            )
        roster = (
            self.current
            if reference.version == self.current.version
            else self.earlier.get(reference.version)
        )
        if roster is None:
            raise Untrusted(Reason.OLD_ROSTER, f"roster {reference.version} is not kept any more")
        if roster.hash != reference.hash:
            raise Untrusted(
                Reason.FORKED_ROSTER,
                f"roster {reference.version} has another content at the sender",
            )
        successor = self.earlier.get(roster.version + 1, self.current)
        if roster is not self.current and now > successor.issued_at + GRACE_SECONDS:
            raise Untrusted(
                Reason.OLD_ROSTER, f"roster {reference.version} was replaced too long ago"
            )
        return roster

    def signing_keys(self, nation: Nation) -> tuple[VerifyKeys, ...]:
        """Every signing key of a nation under an accepted roster, the newest first; none for a stranger."""
        rosters = [
            self.current,
            *(self.earlier[each] for each in sorted(self.earlier, reverse=True)),
        ]
        keys = [each.members[nation].signing_keys for each in rosters if nation in each.members]
        return tuple(dict.fromkeys(keys))


def threshold(voters: int) -> int:
    """How many votes change a roster of ``voters`` members: 2 of 3, 3 of 4, 4 of 5, 19 of 27."""
    return 2 * voters // 3 + (0 if voters == 3 else 1)  # noqa: PLR2004 -- the protocol's exception


def format_roster_payload(
    *,
    federation: FederationId | None,
    version: int,
    previous: str | None,
    issued_at: int,
    expires_at: int,
    members: Iterable[Member],
) -> bytes:
    """The payload to vote on; ``federation`` and ``previous`` are None in version 1 only."""
    return format_json(
        {
            "v": 1,
            "fed": federation,
            "version": version,
            "prev": previous,
            "iat": issued_at,
            "exp": expires_at,
            "members": [
                format_member(each) for each in sorted(members, key=lambda each: each.nation)
            ],
        }
    )


def parse_roster_payload(payload: bytes) -> Roster:
    """One roster, its form, life and keys checked; nobody's vote is checked here."""
    value = exact_members(parse_json(payload, limit=MAX_ROSTER_BYTES), _MEMBERS, "roster")
    check_profile(value["v"])
    version = require_integer(value["version"], "version")
    digest = sha256_base64url(payload)
    first = version == 1
    if version < 1 or first != (value["fed"] is None) or first != (value["prev"] is None):
        raise Malformed("version 1, and no other, has neither fed nor prev", Reason.BAD_ROSTER)
    if not first:
        decode_base64url(value["prev"], length=32)
    issued_at = require_integer(value["iat"], "iat", most=MAX_SECONDS)
    expires_at = require_integer(value["exp"], "exp", most=MAX_SECONDS)
    if not 0 < expires_at - issued_at <= MAX_ROSTER_LIFE_SECONDS:
        raise Malformed("a roster lives up to 90 days", Reason.BAD_ROSTER)
    listed = [
        parse_member(each) for each in require_list(value["members"], "members", most=MAX_MEMBERS)
    ]
    members = {member.nation: member for member in listed}
    if [member.nation for member in listed] != sorted(members):
        raise Malformed("the members are not sorted, or a nation has two seats", Reason.BAD_ROSTER)
    _check_distinct(listed)
    roster = Roster(
        federation=FederationId(digest) if first else parse_federation_id(value["fed"]),
        version=version,
        previous=None if first else str(value["prev"]),
        hash=digest,
        issued_at=issued_at,
        expires_at=expires_at,
        members=members,
    )
    if len(roster.voters()) < MIN_MEMBERS:
        raise Malformed(f"a federation has at least {MIN_MEMBERS} members", Reason.BAD_ROSTER)
    return roster


def sign_vote(payload: bytes, nation: Nation, voting_keys: SigningKeys) -> JsonObject:
    """One vote as JSON: ``{"member", "signatures"}``."""
    encoded = encode_base64url(payload)
    return {
        "member": nation,
        "signatures": signatures_over(encoded, Kind.VOTE, voting_keys, member=nation),
    }


def format_vote(vote: Vote) -> JsonObject:
    """One vote as JSON, as ``sign_vote`` made it."""
    return {"member": vote.nation, "signatures": format_signatures(vote.signatures)}


def parse_vote(value: Json) -> Vote:
    """``Malformed`` unless it is a nation and two signatures; whether they are genuine is not looked at."""
    members = exact_members(value, frozenset({"member", "signatures"}), "vote")
    return Vote(parse_nation(members["member"]), parse_signatures(members["signatures"]))


def verify_vote(payload: bytes, vote: Vote, keys: VerifyKeys) -> None:
    """``Untrusted`` unless both signatures are by ``keys`` for the nation that the vote names."""
    encoded = encode_base64url(payload)
    verify_signatures(encoded, vote.signatures, Kind.VOTE, keys, member=vote.nation)


def format_voted_roster(payload: bytes, votes: Iterable[Json]) -> bytes:
    """A roster as it travels and is stored."""
    return format_json({"payload": encode_base64url(payload), "votes": [*votes]})


def parse_voted_roster(raw: bytes) -> VotedRoster:
    """``Malformed`` unless the outer form is right; a vote of a wrong form is left out, never fatal.

    One nation could otherwise block every change by spoiling its vote.
    """
    value = exact_members(
        parse_json(raw, limit=MAX_ROSTER_BYTES), frozenset({"payload", "votes"}), "voted roster"
    )
    votes: list[Vote] = []
    for each in require_list(value["votes"], "votes", most=MAX_VOTES):
        try:
            votes.append(parse_vote(each))
        except VardeError:
            continue
    return VotedRoster(decode_base64url(value["payload"]), tuple(votes))


def accept_genesis(voted: VotedRoster, fingerprint: FederationId) -> Roster:
    """The first roster: (1) the fingerprint told out of band; (2) version 1; (3) every member's vote."""
    if sha256_base64url(voted.payload) != fingerprint:  # (1)
        raise Untrusted(Reason.WRONG_FEDERATION, "this is not the genesis roster that was agreed")
    roster = parse_roster_payload(voted.payload)
    if roster.version != 1:  # (2)
        raise Untrusted(Reason.BAD_ROSTER, "a genesis roster has version 1")
    missing = roster.voters().keys() - nations_voting(voted, roster)  # (3)
    if missing:
        raise Untrusted(Reason.TOO_FEW_VOTES, f"no valid vote of {', '.join(sorted(missing))}")
    return roster


def accept_next(current: Roster, voted: VotedRoster, now: int) -> Roster:
    """The next version after ``current``, or ``Untrusted`` or ``Malformed`` saying which rule it breaks.

    (1) same federation, the next version, linked to the current payload, not older than it and not from the future;
    (2) at most one member added, removed or changed; (3) the threshold of the current members' votes with their
    current keys; (4) the threshold of the new members' votes with their new keys; (5) the member that is added or changed
    voted itself, with its new keys, or its former ones where it has no vote any more: a seat is its own to change, the
    others may only remove it, or take its vote. That a version has expired matters only to who uses it last.
    """
    roster = parse_roster_payload(voted.payload)
    _check_succession(current, roster, now)
    _check_votes(current, roster, nations_voting(voted, current), nations_voting(voted, roster))
    return roster


def could_follow(
    current: Roster, roster: Roster, old: set[Nation], new: set[Nation], now: int
) -> bool:
    """Whether the votes of ``old``, by their keys in ``current``, and ``new``, by those in ``roster``, would be enough."""
    try:
        _check_succession(current, roster, now)
        _check_votes(current, roster, old, new)
    except Untrusted:
        return False
    return True


def extend_chain(
    chain: Sequence[Roster], raws: Iterable[bytes], genesis: FederationId, now: int
) -> list[tuple[Roster, bytes]]:
    """What the voted rosters ``raws`` add to a ``chain`` that is accepted already, in order, each with its bytes.

    (1) The first of all is the one of the genesis fingerprint. (2) A payload that is in the chain adds nothing, whatever
    votes it comes with. (3) Another payload of a version that is in the chain is a fork. (4) Each further version
    follows the last by the members' votes. ``VardeError`` where one does not hold.
    """
    known = {each.version: each.hash for each in chain}
    last = chain[-1] if chain else None
    added: list[tuple[Roster, bytes]] = []
    for raw in raws:
        voted = parse_voted_roster(raw)
        if last is None:
            last = accept_genesis(voted, genesis)  # (1)
        elif sha256_base64url(voted.payload) in known.values():  # (2)
            continue
        else:
            claimed = parse_roster_payload(voted.payload)
            if claimed.version in known:  # (3)
                raise Untrusted(
                    Reason.FORKED_ROSTER, f"there are two rosters of version {claimed.version}"
                )
            last = accept_next(last, voted, now)  # (4)
        known[last.version] = last.hash
        added.append((last, raw))
    return added


def changed_members(old: Roster, new: Roster) -> set[Nation]:
    """The nations that are in one roster only, or differ between the two."""
    nations = old.members.keys() | new.members.keys()
    return {each for each in nations if old.members.get(each) != new.members.get(each)}


def nations_voting(voted: VotedRoster, roster: Roster) -> set[Nation]:
    """Whose valid votes are there, by the voting keys of ``roster``."""
    voters = roster.voters()
    encoded = encode_base64url(voted.payload)
    voting: set[Nation] = set()
    for vote in voted.votes:
        keys = voters.get(vote.nation)
        if keys is None or vote.nation in voting:
            continue
        try:
            verify_signatures(encoded, vote.signatures, Kind.VOTE, keys, member=vote.nation)
        except VardeError:
            # A spoiled vote does not count, and does not block the change either.
            continue
        voting.add(vote.nation)
    return voting


def _check_succession(current: Roster, roster: Roster, now: int) -> None:
    if roster.federation != current.federation:  # (1)
        raise Untrusted(Reason.WRONG_FEDERATION, "the roster is of another federation")
    if roster.version == current.version and roster.hash != current.hash:
        raise Untrusted(Reason.FORKED_ROSTER, f"there are two rosters {current.version}")
    if roster.version != current.version + 1:
        detail = f"version {roster.version} does not follow {current.version}"
        raise Untrusted(Reason.BAD_ROSTER, detail)
    if roster.previous != current.hash:
        raise Untrusted(Reason.FORKED_ROSTER, "the roster does not link to the current one")
    if not current.issued_at <= roster.issued_at <= now + MAX_SKEW_SECONDS:
        raise Untrusted(
            Reason.BAD_ROSTER, "the roster is older than its predecessor, or from the future"
        )
    changed = changed_members(current, roster)
    if len(changed) > 1:  # (2)
        raise Untrusted(
            Reason.BAD_ROSTER, f"more than one member changed: {', '.join(sorted(changed))}"
        )


def _check_votes(current: Roster, roster: Roster, old: set[Nation], new: set[Nation]) -> None:
    """``old`` are those who voted with their keys in ``current``, ``new`` with those in ``roster``."""
    _require_threshold(old, current)  # (3)
    _require_threshold(new, roster)  # (4)
    for nation in changed_members(current, roster) & roster.members.keys():  # (5)
        was, will_be = current.members.get(nation), roster.members[nation]
        if will_be.voting_keys is not None:
            own = nation in new
        elif was is None or was.voting_keys is None:
            own = True
        else:
            voteless = replace(was, standing=Standing.OBSERVER, voting_keys=None)
            own = nation in old or will_be == voteless
        if not own:
            raise Untrusted(Reason.TOO_FEW_VOTES, f"{nation} did not vote with its own keys")


def _require_threshold(voting: set[Nation], roster: Roster) -> None:
    needed = threshold(len(roster.voters()))
    if len(voting) < needed:
        raise Untrusted(
            Reason.TOO_FEW_VOTES, f"{len(voting)} of {needed} votes ({', '.join(sorted(voting))})"
        )


def _check_distinct(members: list[Member]) -> None:
    # Two seats with one key would be two votes of one nation; with one log name, two histories of one log.
    keys = [key for member in members for key in member.key_bytes()]
    if len(set(keys)) != len(keys):
        raise Malformed("a key occurs twice in the roster", Reason.BAD_ROSTER)
    names = [
        name for member in members for name in (member.broker, member.log_name, member.witness_name)
    ]
    if len(set(names)) != len(names):
        detail = "two members have one broker, or one log or witness name"
        raise Malformed(detail, Reason.BAD_ROSTER)
