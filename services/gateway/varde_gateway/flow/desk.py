"""What every use case works with: who we are, whom we trust, our clock, our database, our way out.

The parts that change while the node runs (trust, prekeys) are replaced whole, never edited, so that a reader sees
either the old or the new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from varde.checkpoint import LogSigner
from varde.identifiers import DocumentId, Nation, document_id
from varde.keys import PrekeyPrivate, SigningKeys
from varde.prekeys import DatedPrekey
from varde.roster import Trust
from varde_gateway.flow.outgoing import Outgoing
from varde_gateway.store.ledger import Ledger


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


@dataclass(slots=True)
class Desk:
    """One node at work. ``now_ms`` gives Unix milliseconds, ``random`` that many random bytes."""

    nation: Nation
    keys: SigningKeys
    log_signer: LogSigner
    trust: Trust
    ledger: Ledger
    outgoing: Outgoing
    wrapping: Wrapping
    policy: Policy
    now_ms: Callable[[], int]
    random: Callable[[int], bytes]
    own_prekeys: Mapping[str, PrekeyPrivate] = field(default_factory=dict)
    peer_prekeys: Mapping[Nation, tuple[DatedPrekey, ...]] = field(default_factory=dict)

    def now(self) -> int:
        """Unix seconds, as documents use them."""
        return self.now_ms() // 1000

    def new_id(self) -> DocumentId:
        """A fresh document id."""
        return document_id(self.now_ms(), self.random(10))

    def peers(self) -> tuple[Nation, ...]:
        """Every other nation on the roster, sorted."""
        return tuple(sorted(each for each in self.trust.current.members if each != self.nation))
