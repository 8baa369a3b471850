"""With which settings the node runs: the digest of all at its first start, and each that is other than at the start before."""

import json
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, delete, select

from varde.auditlog import AuditKind
from varde.encoding import sha256_base64url
from varde_gateway.flow.desk import Desk
from varde_gateway.store.tables import node_facts_table
from varde_gateway.store.transaction import Transaction

_FACT: Final = "settings"
_LONGEST_VALUE: Final = 120


async def note_settings(desk: Desk, values: Mapping[str, str]) -> None:
    """Record how ``values``, by name and without secrets, differ from the last that were recorded; one entry each."""
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
                tx.audit(
                    AuditKind.SETTINGS_CHANGED, "node", subjects, f"{_short(old)} → {_short(new)}"
                )
        tx.connection.execute(delete(node_facts_table).where(node_facts_table.c.name == _FACT))
        tx.add(node_facts_table, {"name": _FACT, "value": text})

    await desk.ledger.write(record)


def _recorded(connection: Connection) -> str | None:
    return connection.execute(
        select(node_facts_table.c.value).where(node_facts_table.c.name == _FACT)
    ).scalar_one_or_none()


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
