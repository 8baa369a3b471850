"""``varde audit export --home``: the log as it stands in the database of a node that does not run, or must not any more.

The export holds the entries alone. Whether searches at the node found them as they are is said beside it.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from varde.identifiers import parse_federation_id, parse_nation
from varde_gateway.cli.database_checks import check_index
from varde_gateway.cli.doctor import check_roster
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.finding import Level
from varde_gateway.flow.review.log_export import LogOwner, stored_lines
from varde_gateway.settings import GatewaySettings, SettingsError, load_settings
from varde_gateway.store.database import open_database

T = TypeVar("T")
_SQLITE = "sqlite:///"


class _Stored:
    """A ``Reading`` of one engine, in the calling thread: nobody else waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def read(self, query: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return query(connection)


def export_stored(home: Path, out: Path) -> str:
    """Write the log of the node in ``home`` to ``out``; how much that was, in words. Ends the command where it cannot."""
    try:
        settings = load_settings(home)
    except SettingsError as error:
        fail(Exit.USAGE, str(error))
    owner = _owner(settings)
    place = settings.database_url.removeprefix(_SQLITE)
    if settings.database_url.startswith(_SQLITE) and not Path(place).is_file():
        fail(Exit.USAGE, f"there is no database at {place}.")
    database = open_database(settings.database_url, readers=1)
    draft = out.with_name(f".{out.name}.part")
    try:
        asyncio.run(_write(owner, _Stored(database.reader), draft))
        for finding in check_index(database):
            if finding.level is not Level.OK:
                print(f"{finding.check}: {finding.text}", file=sys.stderr)
    except SQLAlchemyError as error:
        fail(Exit.FAILED, f"the database cannot be read: {error.__cause__ or error}")
    except OSError as error:
        fail(Exit.USAGE, f"{error.filename} cannot be written: {error.strerror}.")
    finally:
        database.close()
    draft.replace(out)
    return f"{out.stat().st_size} bytes"


def _owner(settings: GatewaySettings) -> LogOwner:
    # From the files beside the database: the keys shall not come from what is to be examined.
    roster, finding = check_roster(settings, int(time.time()))  # noqa: TID251 -- a command is an edge
    nation = parse_nation(settings.nation)
    seat = None if roster is None else roster.members.get(nation)
    if seat is None:
        fail(Exit.FAILED, f"the log's keys are not known: {finding.text}.")
    return LogOwner(nation, parse_federation_id(settings.genesis), seat.log)


async def _write(owner: LogOwner, stored: _Stored, out: Path) -> None:
    with out.open("w", encoding="utf-8", newline="") as file:
        async for text in stored_lines(owner, stored):
            file.write(text)
