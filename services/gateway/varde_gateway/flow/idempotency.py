"""One effect per ``Idempotency-Key``: the answer is kept in the transaction that made it.

Keys are kept for 24 hours; the same key with the same request gets the first answer again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from varde.encoding import JsonObject
from varde_gateway.flow.faults import Conflict
from varde_gateway.store.tables import idempotency_table
from varde_gateway.store.transaction import Transaction

KEPT_MILLISECONDS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """A key, whose it is (user and path), and the digest of the request it came with."""

    owner: str
    key: str
    request_digest: str


def once(tx: Transaction, claim: Claim | None, act: Callable[[], JsonObject]) -> JsonObject:
    """Run ``act``, or give the answer that this key got before; ``Conflict`` where the request differs."""
    if claim is None:
        return act()
    earlier = tx.connection.execute(
        select(idempotency_table.c.request_digest, idempotency_table.c.answer).where(
            idempotency_table.c.owner == claim.owner, idempotency_table.c.key == claim.key
        )
    ).one_or_none()
    if earlier is not None:
        if earlier.request_digest != claim.request_digest:
            raise Conflict(
                "This Idempotency-Key was used with another request. Use a new key for a new request."
            )
        answer: JsonObject = json.loads(earlier.answer)
        return answer
    answer = act()
    tx.add(
        idempotency_table,
        {
            "owner": claim.owner,
            "key": claim.key,
            "request_digest": claim.request_digest,
            "answer": json.dumps(answer, ensure_ascii=False, separators=(",", ":")),
            "at": tx.now,
        },
    )
    return answer


def forget_old_answers(tx: Transaction) -> None:
    """Delete what was kept for longer than ``KEPT_MILLISECONDS``."""
    tx.connection.execute(
        delete(idempotency_table).where(idempotency_table.c.at < tx.now - KEPT_MILLISECONDS)
    )
