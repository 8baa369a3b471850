"""The first step: words become a signed document.

What is composed here is only in memory; ``send`` makes it a fact. Signing takes about a millisecond of CPU, so it is
done in a thread.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from varde.alert import Alert
from varde.capcodes import Severity, Urgency
from varde.document import Document, format_document
from varde.encoding import JsonObject, sha256_base64url
from varde.identifiers import DocumentId, Lane, Nation
from varde.signing import Kind, sign
from varde_gateway.flow.desk import Desk

_URGENT_SEVERITY = frozenset({Severity.EXTREME, Severity.SEVERE})
_URGENT_URGENCY = frozenset({Urgency.IMMEDIATE, Urgency.EXPECTED})


@dataclass(frozen=True, slots=True)
class Composed:
    """A signed document that is not recorded yet."""

    kind: Kind
    lane: Lane
    document: Document
    raw: bytes
    digest: str


async def compose(
    desk: Desk,
    kind: Kind,
    to: Sequence[Nation],
    body: JsonObject,
    *,
    lane: Lane,
    life_seconds: int,
    document: DocumentId | None = None,
) -> Composed:
    """``compose_now`` in a thread."""
    return await asyncio.to_thread(
        compose_now, desk, kind, to, body, lane=lane, life_seconds=life_seconds, document=document
    )


def compose_now(
    desk: Desk,
    kind: Kind,
    to: Sequence[Nation],
    body: JsonObject,
    *,
    lane: Lane,
    life_seconds: int,
    document: DocumentId | None = None,
) -> Composed:
    """Sign ``body`` for ``to``; the id is new unless the caller had to name it already."""
    now = desk.now()
    # Once: the trust may be replaced meanwhile, and the keys must be those of the roster that is named.
    roster = desk.trust.current
    unsigned = Document(
        federation=roster.federation,
        id=document or desk.new_id(),
        sender=desk.nation,
        to=tuple(sorted(to)),
        issued_at=now,
        expires_at=now + life_seconds,
        roster=roster.reference,
        body=body,
    )
    raw = sign(format_document(unsigned), kind, desk.keys_under(roster))
    return Composed(kind, lane, unsigned, raw, sha256_base64url(raw))


def lane_of(alert: Alert) -> Lane:
    """Urgent where any part is Severe or Extreme and Immediate or Expected; retractions ride with what they retract.

    An exercise takes the same lane as the real thing: it must measure what the real thing would meet.
    """
    urgent = any(
        info.severity in _URGENT_SEVERITY and info.urgency in _URGENT_URGENCY for info in alert.info
    )
    return Lane.URGENT if urgent or not alert.info else Lane.ROUTINE
