"""A node's sign of life to one peer: how far it has sent, how far it has received, what it misses, whom it reaches.

Protocol section 6.5. What is sealed for a peer is numbered from 1 without a gap, and the digests of those documents
form a chain, so that a document which is suppressed or lost shows as a gap within two heartbeats and is asked for again.
Heartbeats travel signed and unsealed, and are not kept.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from varde.encoding import (
    MAX_MILLISECONDS,
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    require_integer,
    require_list,
)
from varde.errors import Malformed
from varde.exchange import LogWord, format_log_word, parse_log_word
from varde.identifiers import Nation, parse_nation
from varde.transit import MAX_HOPS

HEARTBEAT_SECONDS: Final = 10
HEARTBEAT_LIFE_SECONDS: Final = 60
MAX_AHEAD: Final = 2**32
"""How far a number may be ahead of what is known: no older copy of a database has forgotten more documents, and who names
a greater one would use up the numbers of two nations for ever."""

MAX_ABOVE: Final = 16_384
"""How many numbers above a gap are kept: of a busy sender those of a minute, while a gap is asked for after two heartbeats.
What is not kept is asked for again."""

MAX_RANGES: Final = 64
MAX_VOID: Final = 64
MAX_REACHED: Final = 64
CHAIN_START: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender has numbered for this peer: ``first`` to ``through``, and the chain over exactly these.

    ``through`` is ``first - 1`` where nothing was. ``first`` is 1 unless the sender lost its numbering (an older copy
    of its database was restored) and began again behind all that the peer has seen.
    """

    first: int
    through: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """What has arrived of the peer's numbers: all from ``first`` to ``through``, none above ``highest``, and the gaps to fill.

    ``first`` is where the peer's numbering begins as far as we know; another than the peer's own says that one of the two
    has restored an older copy of its database.
    """

    first: int
    through: int
    highest: int
    missing: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Void:
    """A number that will never come, since its document has expired, and the digest that closes its gap."""

    sequence: int
    digest: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The body; ``sequence`` grows with every heartbeat of a node (Unix milliseconds serve).

    ``reaches`` are the nations that the sender hears, 0, or to which it knows a way through 1 or 2 others, without us.
    """

    sequence: int
    sent: Sent
    received: Received
    void: tuple[Void, ...]
    reaches: Mapping[Nation, int]
    log: LogWord = field(default_factory=LogWord)


class Arrivals:
    """What one sender's numbers look like here: a prefix without a gap and its chain, and single ones above it.

    ``above`` are the digests by number of those that came before one that is still missing.
    """

    __slots__ = ("above", "chain", "first", "through")

    def __init__(
        self,
        first: int = 1,
        through: int = 0,
        chain: bytes = CHAIN_START,
        above: Mapping[int, str] | None = None,
    ) -> None:
        """Nothing has arrived yet, or what was kept of it."""
        self.first = first
        self.through = through
        self.chain = chain
        self.above = dict(above or {})

    @property
    def highest(self) -> int:
        """The greatest number that was ever seen."""
        return max(self.above, default=self.through)

    def arrive(self, sequence: int, digest: str) -> None:
        """Note a document, where it ``takes`` it."""
        if self.takes(sequence):
            self.above[sequence] = digest
            self._fold()

    def takes(self, sequence: int) -> bool:
        """Whether the number would be noted.

        Not one that is here already, nor one beyond ``MAX_AHEAD``, nor any but the next where there is no room above the gap.
        """
        fresh = 0 < sequence - self.through <= MAX_AHEAD and sequence not in self.above
        return fresh and (len(self.above) < MAX_ABOVE or sequence == self.through + 1)

    def follow(self, first: int) -> bool:
        """Begin again at ``first`` where the sender did; whether it had to."""
        if first <= self.first:
            return False
        self.first, self.through, self.chain = first, first - 1, CHAIN_START
        self.above = {number: digest for number, digest in self.above.items() if number >= first}
        self._fold()
        return True

    def forget(self) -> None:
        """Take nothing for granted of what has come, so that all of it is asked for again."""
        self.through, self.chain, self.above = self.first - 1, CHAIN_START, {}

    def agrees(self, sent: Sent) -> bool:
        """Whether the sender's chain is ours; where the two are not at the same number, nothing can be said."""
        same_place = (sent.first, sent.through) == (self.first, self.through)
        return not same_place or sent.chain == self.chain

    def gaps(self, through: int) -> tuple[tuple[int, int], ...]:
        """The numbers up to ``through`` that have not come, as ranges, the lowest 64 of them."""
        ranges: list[tuple[int, int]] = []
        begin = self.through + 1
        present = [number for number in sorted(self.above) if number <= through]
        for number in [*present, through + 1]:
            if begin < number and len(ranges) < MAX_RANGES:
                ranges.append((begin, number - 1))
            begin = number + 1
        return tuple(ranges)

    def _fold(self) -> None:
        while (digest := self.above.pop(self.through + 1, None)) is not None:
            self.through += 1
            self.chain = advance_chain(self.chain, digest)


def advance_chain(chain: bytes, digest: str) -> bytes:
    """The chain after one more document: SHA-256 of the chain so far and the document's digest (base64url)."""
    return hashlib.sha256(chain + decode_base64url(digest, length=32)).digest()


def format_heartbeat(heartbeat: Heartbeat) -> JsonObject:
    """The body to sign."""
    sent, received = heartbeat.sent, heartbeat.received
    return {
        "seq": heartbeat.sequence,
        "sent": {
            "first": sent.first,
            "through": sent.through,
            "chain": encode_base64url(sent.chain),
        },
        "received": {
            "first": received.first,
            "through": received.through,
            "highest": received.highest,
            "missing": [[first, last] for first, last in received.missing],
        },
        "void": [{"seq": each.sequence, "digest": each.digest} for each in heartbeat.void],
        "reaches": [[nation, others] for nation, others in sorted(heartbeat.reaches.items())],
        "log": format_log_word(heartbeat.log),
    }


def parse_heartbeat(body: Json) -> Heartbeat:
    """``Malformed`` unless the body has the one form."""
    members = exact_members(
        body, frozenset({"seq", "sent", "received", "void", "reaches", "log"}), "heartbeat"
    )
    reaches = [
        _parse_reach(each) for each in require_list(members["reaches"], "reaches", most=MAX_REACHED)
    ]
    if any(a[0] >= b[0] for a, b in pairwise(reaches)):
        raise Malformed("the nations that are reached are not sorted, each once")
    return Heartbeat(
        sequence=require_integer(members["seq"], "seq", most=MAX_MILLISECONDS),
        sent=_parse_sent(members["sent"]),
        received=_parse_received(members["received"]),
        void=tuple(
            _parse_void(each) for each in require_list(members["void"], "void", most=MAX_VOID)
        ),
        reaches=dict(reaches),
        log=parse_log_word(members["log"]),
    )


def _parse_sent(value: Json) -> Sent:
    members = exact_members(value, frozenset({"first", "through", "chain"}), "sent")
    first = require_integer(members["first"], "first")
    through = require_integer(members["through"], "through")
    if first < 1 or through < first - 1:
        raise Malformed("what was sent is not a range of numbers")
    return Sent(first, through, decode_base64url(members["chain"], length=32))


def _parse_received(value: Json) -> Received:
    members = exact_members(
        value, frozenset({"first", "through", "highest", "missing"}), "received"
    )
    first = require_integer(members["first"], "first")
    through = require_integer(members["through"], "through")
    highest = require_integer(members["highest"], "highest")
    missing = tuple(
        _parse_range(each) for each in require_list(members["missing"], "missing", most=MAX_RANGES)
    )
    ends = [(0, through), *missing]
    if not 1 <= first <= through + 1 <= highest + 1 or any(a[1] >= b[0] for a, b in pairwise(ends)):
        raise Malformed("what was received is not in order")
    return Received(first, through, highest, missing)


def _parse_range(value: Json) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 -- first and last
        raise Malformed("a range is not two numbers")
    first, last = (require_integer(each, "number") for each in value)
    if last < first:
        raise Malformed("a range ends before it begins")
    return first, last


def _parse_reach(value: Json) -> tuple[Nation, int]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 -- nation and number
        raise Malformed("a nation that is reached is not a nation and a number")
    return parse_nation(value[0]), require_integer(value[1], "others", most=MAX_HOPS - 1)


def _parse_void(value: Json) -> Void:
    members = exact_members(value, frozenset({"seq", "digest"}), "void")
    decode_base64url(members["digest"], length=32)
    return Void(require_integer(members["seq"], "seq"), str(members["digest"]))
