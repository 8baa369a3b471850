"""With which settings the node runs: the digest of all at its first start, and each that is other than at the start before.

Nothing of a value is lost: where the old and the new one are more than the detail of an entry holds, they have entries of
their own, in pieces.
"""

import json
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, delete, select

from varde.auditlog import AuditKind
from varde.encoding import sha256_base64url
from varde_gateway.flow.desk import Desk
from varde_gateway.store.tables import node_facts_table
from varde_gateway.store.transaction import MAX_TEXT, Transaction

_FACT: Final = "settings"
_PIECE: Final = 120


async def note_settings(desk: Desk, values: Mapping[str, str]) -> None:
    """Record how ``values``, by name and without secrets, differ from the last that were recorded."""
    text = json.dumps(dict(values), ensure_ascii=False, sort_keys=True)
    if await desk.ledger.read(_recorded) == text:
        return

    def record(tx: Transaction) -> None:
        raw = _recorded(tx.connection)
        digest = ("settings", sha256_base64url(text.encode()))
        if raw is None:
            begins = f"begins with {len(values)} settings"
            tx.audit(AuditKind.SETTINGS_CHANGED, "node", [digest], begins)
        former: dict[str, str] = dict(values) if raw is None else json.loads(raw)
        for name in sorted(former.keys() | values.keys()):
            old, new = former.get(name), values.get(name)
            if old != new:
                subjects = [("setting", name), digest]
                for said in _in_words(old, new):
                    tx.audit(AuditKind.SETTINGS_CHANGED, "node", subjects, said)
        tx.connection.execute(delete(node_facts_table).where(node_facts_table.c.name == _FACT))
        tx.add(node_facts_table, {"name": _FACT, "value": text})

    await desk.ledger.write(record)


def _recorded(connection: Connection) -> str | None:
    return connection.execute(
        select(node_facts_table.c.value).where(node_facts_table.c.name == _FACT)
    ).scalar_one_or_none()


def _in_words(old: str | None, new: str | None) -> list[str]:
    former, now = ("not set" if each is None else each for each in (old, new))
    together = f"{former} → {now}"
    if len(together) <= MAX_TEXT:
        return [together]
    return [*_pieces("old", former), *_pieces("new", now)]


def _pieces(which: str, value: str) -> list[str]:
    parts = [value[begin : begin + _PIECE] for begin in range(0, len(value) or 1, _PIECE)]
    return [f"{which}, {number} of {len(parts)}: {part}" for number, part in enumerate(parts, 1)]
