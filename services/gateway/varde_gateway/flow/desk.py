"""What every use case works with: who we are, whom we trust, our clock, our database, our way out.

The parts that change while the node runs (trust, prekeys) are replaced whole, never edited, so that a reader sees
either the old or the new.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from varde.checkpoint import LogSigner, WitnessSigner
from varde.identifiers import DocumentId, Nation, document_id
from varde.keys import PrekeyPrivate, SigningKeys
from varde.prekeys import DatedPrekey
from varde.roster import Roster, Trust
from varde_gateway.flow.memory.budgets import Budgets
from varde_gateway.flow.memory.links import Links
from varde_gateway.flow.memory.log_talk import Logs, OutsideTalk
from varde_gateway.flow.memory.outgoing import Outgoing
from varde_gateway.flow.memory.refusals import Patience, Refusals
from varde_gateway.flow.memory.remembered import Remembered
from varde_gateway.flow.memory.storing import Storing
from varde_gateway.store.ledger import Ledger

MAX_HANDED_ON: Final = 20_000


class Wrapping(Protocol):
    """The keystore's protection of secrets that must stand in the database."""

    def wrap(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt under the key of ``purpose``."""

    def unwrap(self, purpose: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt, or raise where the row or its place was changed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What this nation has decided; durations in seconds."""

    document_life_seconds: int = 24 * 3600
    deadline_seconds: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType(
            {"Extreme": 120, "Severe": 300, "Moderate": 1800, "Minor": 7200, "Unknown": 7200}
        )
    )
    retry_seconds: int = 10
    retention_days: int | None = None
    retention_needs_archive: bool = False
    erase_by_two: bool = False


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """What the keystore holds now; ``next_message`` are keys that the members may vote for, ``voting`` may be none."""

    message: SigningKeys
    next_message: SigningKeys | None
    voting: tuple[SigningKeys, ...]


@dataclass(slots=True)
class Desk:
    """One node at work.

    ``now_ms`` gives Unix milliseconds, ``ticks`` milliseconds of a clock that never steps, ``random`` random bytes.
    ``next_keys`` will be the message keys once the roster names them; ``voting_keys`` are those that this node holds,
    none where they live on another machine; ``hold_keys`` reads the keystore again. ``handed_on`` is what was handed on
    to whom, by the digest of its bytes. ``trust_changed`` is set whenever ``trust`` was replaced, ``files_to_fetch`` and
    ``files_to_offer`` when an alert with files was recorded. ``brought_up`` is after which version, and when, a peer was
    last sent the rosters that it lacks. ``outside`` are the witnesses of our log that are not members.
    """

    nation: Nation
    keys: SigningKeys
    log_signer: LogSigner
    witness: WitnessSigner
    trust: Trust
    ledger: Ledger
    outgoing: Outgoing
    wrapping: Wrapping
    policy: Policy
    now_ms: Callable[[], int]
    ticks: Callable[[], int]
    random: Callable[[int], bytes]
    own_prekeys: Mapping[str, PrekeyPrivate] = field(default_factory=dict)
    peer_prekeys: Mapping[Nation, tuple[DatedPrekey, ...]] = field(default_factory=dict)
    renewing_prekeys: asyncio.Lock = field(default_factory=asyncio.Lock)
    links: Links = field(default_factory=Links)
    refusals: Refusals = field(default_factory=Refusals)
    patience: Patience = field(default_factory=Patience)
    budgets: Budgets = field(default_factory=Budgets)
    logs: Logs = field(default_factory=Logs)
    outside: tuple[OutsideTalk, ...] = ()
    storing: Storing = field(default_factory=Storing)
    handed_on: Remembered[tuple[str, str]] = field(
        default_factory=lambda: Remembered(MAX_HANDED_ON)
    )
    next_keys: SigningKeys | None = None
    voting_keys: tuple[SigningKeys, ...] = ()
    hold_keys: Callable[[], HeldKeys] | None = None
    trust_changed: asyncio.Event = field(default_factory=asyncio.Event)
    files_to_fetch: asyncio.Event = field(default_factory=asyncio.Event)
    files_to_offer: asyncio.Event = field(default_factory=asyncio.Event)
    brought_up: Mapping[Nation, tuple[int, int]] = field(default_factory=dict)

    def keys_under(self, roster: Roster) -> SigningKeys:
        """The message keys that our seat has in ``roster``; the present ones where it has none."""
        seat = roster.members.get(self.nation)
        if (
            self.next_keys is not None
            and seat is not None
            and seat.signing_keys == self.next_keys.public
        ):
            return self.next_keys
        return self.keys

    def is_member(self) -> bool:
        """Whether our nation is on the roster yet, and still."""
        return self.nation in self.trust.current.members

    def now(self) -> int:
        """Unix seconds, as documents use them."""
        return self.now_ms() // 1000

    def new_id(self) -> DocumentId:
        """A fresh document id."""
        return document_id(self.now_ms(), self.random(10))

    def peers(self) -> tuple[Nation, ...]:
        """Every other nation on the roster, sorted."""
        return tuple(sorted(each for each in self.trust.current.members if each != self.nation))

    def trusted_peers(self) -> tuple[Nation, ...]:
        """The peers that this nation has not suspended."""
        return tuple(each for each in self.peers() if each not in self.trust.suspended)
