"""Changing the log by hand, as somebody who holds the database can: first the triggers that refuse it are taken away."""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, text

GUARDED = (
    "audit_leaf",
    "audit_node",
    "log_conflict",
    "audit_subject",
    "audit_checkpoint",
    "cosignature",
)


def tamper(database: Path, *statements: str) -> None:
    """Run statements on a copy of the database, or on a live one, past everything that the node checks."""
    connection = sqlite3.connect(database)
    for statement in (*_removals(sqlite=True), *statements):
        connection.execute(statement)
    connection.commit()
    connection.close()


def remove_guards(connection: Connection) -> None:
    """For a test that goes on with SQLAlchemy; on SQLite and PostgreSQL."""
    for statement in _removals(sqlite=connection.dialect.name == "sqlite"):
        connection.execute(text(statement))


def _removals(*, sqlite: bool) -> list[str]:
    if sqlite:
        return [
            f"DROP TRIGGER IF EXISTS {table}_no_{event}"
            for table in GUARDED
            for event in ("update", "delete", "replace")
        ]
    return [
        f"DROP TRIGGER IF EXISTS {table}_no_{event} ON {table}"
        for table in GUARDED
        for event in ("change", "truncate")
    ]
