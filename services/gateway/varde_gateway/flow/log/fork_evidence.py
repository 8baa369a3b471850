"""What is kept against another log: states that it has not proven, until it does, and pairs that convict it, for ever.

Both end our cosignatures. What is unproven accuses nobody yet: the log may be cut off from us, or know itself that it has
lost history. Protocol section 10.6.
"""

from typing import Final

from sqlalchemy import Connection, Table, delete, func, insert, select

from varde.auditlog import AuditKind
from varde.checkpoint import parse_checkpoint
from varde.encoding import sha256_base64url
from varde.note import parse_note
from varde_gateway.flow.memory.log_talk import Claim
from varde_gateway.store.tables import (
    AnyRow,
    log_conflicts_table,
    log_unproven_table,
    witnessed_table,
)
from varde_gateway.store.transaction import Transaction

MAX_CONFLICTS: Final = 16
"""How many pairs are kept of one log: one convicts it, and it could go on signing for ever."""


def stored_note(connection: Connection, origin: str) -> str | None:
    """The newest checkpoint that was found to continue the ones before."""
    note: str | None = connection.scalar(
        select(witnessed_table.c.note).where(witnessed_table.c.origin == origin)
    )
    return note


def is_convicted(connection: Connection, origin: str) -> bool:
    """Whether this log has signed two histories."""
    return _conflicts(connection, origin) > 0


def owes_proofs(connection: Connection, origin: str) -> bool:
    """Whether this log was asked in vain to prove a state that it has signed."""
    count = select(func.count()).where(log_unproven_table.c.origin == origin)
    return connection.execute(count).scalar_one() > 0


def unproven(connection: Connection) -> list[AnyRow]:
    """All that any log owes."""
    return [*connection.execute(select(log_unproven_table).order_by(log_unproven_table.c.at))]


def held_against(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
    """How many states each log, by its origin, owes proofs of, and how many pairs convict it."""
    return _by_origin(connection, log_unproven_table), _by_origin(connection, log_conflicts_table)


def evidence_notes(connection: Connection) -> list[tuple[str, str]]:
    """Origin and note of both sides of every finding, so that whoever has seen either can find it out himself."""
    notes: list[tuple[str, str]] = []
    for table in (log_conflicts_table, log_unproven_table):
        for row in connection.execute(
            select(table.c.origin, table.c.first_note, table.c.second_note)
        ):
            notes += [(row.origin, row.first_note), (row.origin, row.second_note)]
    return notes


def record_conflict(tx: Transaction, nation: str, first: str, second: str, detail: str) -> None:
    """Keep both checkpoints of ``nation`` for ever and raise the alarm, once for each pair; what it owed is settled so."""
    # Of what was signed: the same two states come with other lines each time they are signed or carried.
    texts = sorted(parse_note(each).text for each in (first, second))
    digest = sha256_base64url("\0".join(texts).encode())
    origin = parse_checkpoint(parse_note(first).text).origin
    known = tx.connection.scalar(
        select(log_conflicts_table.c.digest).where(log_conflicts_table.c.digest == digest)
    )
    if known is not None or _conflicts(tx.connection, origin) >= MAX_CONFLICTS:
        return
    tx.connection.execute(
        insert(log_conflicts_table),
        {
            "digest": digest,
            "origin": origin,
            "first_note": first,
            "second_note": second,
            "detail": detail,
            "at": tx.now,
        },
    )
    tx.connection.execute(delete(log_unproven_table).where(log_unproven_table.c.origin == origin))
    tx.audit(AuditKind.LOG_FORKED, nation, [("conflict", digest)], detail)
    tx.event("log_forked", {"nation": nation, "detail": detail, "conflict": digest})


def keep_unproven(tx: Transaction, nation: str, claim: Claim, second: str, detail: str) -> None:
    """Keep both checkpoints until the log of ``nation`` proves the first, and tell it."""
    state = claim.shown.checkpoint
    table = log_unproven_table.c
    place = (table.origin == state.origin, table.size == state.size)
    if tx.connection.scalar(select(table.size).where(*place)) is not None:
        return
    tx.connection.execute(
        insert(log_unproven_table),
        {
            "origin": state.origin,
            "size": state.size,
            "seen_by": claim.by,
            "first_note": claim.shown.note,
            "second_note": second,
            "detail": detail,
            "at": tx.now,
        },
    )
    tx.audit(AuditKind.LOG_UNPROVEN, nation, [], detail)
    tx.event("log_unproven", {"nation": nation, "detail": detail})


def forget_unproven(tx: Transaction, nation: str, origin: str, size: int) -> None:
    """The log of ``nation`` has proven its state of this size after all."""
    table = log_unproven_table.c
    gone = tx.connection.execute(
        delete(log_unproven_table).where(table.origin == origin, table.size == size)
    )
    if gone.rowcount:
        detail = f"{size} entries belong to the history that we know"
        tx.audit(AuditKind.LOG_PROVEN, nation, [], detail)
        tx.event("log_proven", {"nation": nation, "detail": detail})


def _conflicts(connection: Connection, origin: str) -> int:
    count = select(func.count()).where(log_conflicts_table.c.origin == origin)
    return connection.execute(count).scalar_one()


def _by_origin(connection: Connection, table: Table) -> dict[str, int]:
    origin = table.c.origin
    rows = connection.execute(select(origin, func.count()).group_by(origin).order_by(origin))
    return {row[0]: row[1] for row in rows}
