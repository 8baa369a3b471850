"""Engines for SQLite and PostgreSQL, and the migrations that bring a database up to date.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit that returned is on the disk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BUSY_MILLISECONDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Database:
    """One connection for the writer, a pool for the readers."""

    writer: Engine
    reader: Engine

    def close(self) -> None:
        """Give all connections back."""
        self.reader.dispose()
        self.writer.dispose()


def open_database(url: str, *, readers: int = 4) -> Database:
    """Engines for ``sqlite:///path`` or ``postgresql+psycopg://…``; nothing is connected yet."""
    if url.startswith("sqlite"):
        return Database(
            _sqlite(url, size=1, begin="BEGIN IMMEDIATE"), _sqlite(url, size=readers, begin="BEGIN")
        )
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
    reader = create_engine(url, pool_size=readers, max_overflow=2, pool_pre_ping=True)
    return Database(writer, reader)


def migrate(database: Database) -> None:
    """Bring the database to the newest revision, in one transaction. A newer one than we know is an error."""
    with database.writer.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        head = ScriptDirectory.from_config(config).get_current_head()
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _sqlite(url: str, *, size: int, begin: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": _BUSY_MILLISECONDS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_with(begin))
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would begin transactions late and as readers.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "secure_delete=ON",
        "cache_size=-16000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_with(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin
