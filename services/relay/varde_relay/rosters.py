"""The relay's own verified copy of the roster chain, from the genesis fingerprint to the newest version it was told.

The gateway tells, the relay verifies: a gateway that was taken over cannot make this relay believe in a peer that the
members did not vote for. Suspensions are our own nation's word and are taken as told. Protocol sections 4.3 and 8.3.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from varde.encoding import (
    exact_members,
    format_json,
    parse_json,
    require_list,
    require_string,
)
from varde.identifiers import FederationId, Nation, parse_nation
from varde.roster import (
    MAX_MEMBERS,
    MAX_ROSTER_BYTES,
    Roster,
    Trust,
    extend_chain,
)
from varde_relay.broker_files import write_whole

MAX_ANNOUNCEMENT_BYTES: Final = 2 * 1024 * 1024
MAX_CACHE_BYTES: Final = 256 * 1024 * 1024
MAX_ROSTERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the gateway tells: voted rosters in order of version, all or those after a version, and the suspended."""

    rosters: tuple[str, ...]
    suspended: frozenset[Nation]


@dataclass(frozen=True, slots=True)
class Chain:
    """Every accepted version in order, as text and as value."""

    texts: tuple[str, ...]
    rosters: tuple[Roster, ...]
    suspended: frozenset[Nation]

    @property
    def trust(self) -> Trust:
        """What ``varde`` decides by."""
        *earlier, current = self.rosters
        return Trust(current, {each.version: each for each in earlier}, self.suspended)


def parse_announcement(raw: bytes, *, limit: int = MAX_ANNOUNCEMENT_BYTES) -> Announcement:
    """``Malformed`` unless ``raw`` is ``{"rosters": [text], "suspended": [nation]}``."""
    value = exact_members(
        parse_json(raw, limit=limit), frozenset({"rosters", "suspended"}), "roster announcement"
    )
    return Announcement(
        rosters=tuple(
            require_string(each, "roster", most=MAX_ROSTER_BYTES)
            for each in require_list(value["rosters"], "rosters", most=MAX_ROSTERS)
        ),
        suspended=frozenset(
            parse_nation(each)
            for each in require_list(value["suspended"], "suspended", most=MAX_MEMBERS)
        ),
    )


def format_announcement(announcement: Announcement) -> bytes:
    """The inverse of ``parse_announcement``."""
    return format_json(
        {"rosters": [*announcement.rosters], "suspended": [*sorted(announcement.suspended)]}
    )


def extend(
    chain: Chain | None, announcement: Announcement, genesis: FederationId, now: int
) -> Chain | None:
    """The chain after an announcement; ``VardeError`` where a roster in it breaks a rule. None before the first.

    What is older than ours takes nothing away; suspensions are replaced.
    """
    texts = chain.texts if chain else ()
    rosters = chain.rosters if chain else ()
    unread = (text.encode() for text in announcement.rosters if text not in texts)
    added = extend_chain(rosters, unread, genesis, now)
    if not (rosters or added):
        return None
    return Chain(
        (*texts, *(raw.decode() for _, raw in added)),
        (*rosters, *(roster for roster, _ in added)),
        announcement.suspended,
    )


def read_cache(path: Path, genesis: FederationId, now: int) -> Chain | None:
    """The chain that was verified before, verified again; None where there is no file yet."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    return extend(None, parse_announcement(raw, limit=MAX_CACHE_BYTES), genesis, now)


def write_cache(path: Path, chain: Chain) -> None:
    """Keep the chain for a start without a gateway."""
    write_whole(path, format_announcement(Announcement(chain.texts, chain.suspended)).decode())
