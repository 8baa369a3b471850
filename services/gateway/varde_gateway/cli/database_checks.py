"""What ``varde doctor`` checks in the home's database: prekeys, witnesses outside the federation, the logs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from varde.identifiers import Nation
from varde.note import parse_vkey
from varde.prekeys import STALE_SECONDS, choose_prekey
from varde.roster import Roster
from varde_gateway.cli.finding import Finding, Level
from varde_gateway.cli.log_checks import check_logs
from varde_gateway.flow.roster.prekeys import peer_prekeys
from varde_gateway.flow.roster.suspensions import own_suspensions
from varde_gateway.settings import GatewaySettings
from varde_gateway.store.database import Database, open_database
from varde_gateway.store.log_index import IndexFinding, checks
from varde_gateway.store.tables import cosignatures_table, own_prekeys_table
from varde_gateway.store.tree import log_size

WITNESS_WARNING_SECONDS: Final = 3600
MAX_NAMED: Final = 20
"""How many faults of the log's index are named; how many more there are is said."""

_SQLITE: Final = "sqlite:///"
_BATCH: Final = 2000
_CHANGED: Final = (
    "Somebody has changed the database by hand, and searches, trails and evidence go by what was changed. 'varde audit export "
    "--home' and 'varde audit verify' say whether the entries themselves are whole. Restore the newest database before that."
)


def check_database(
    settings: GatewaySettings, roster: Roster | None, nation: Nation, now: int
) -> Iterator[Finding]:
    """Every check of it; ``now`` in Unix seconds."""
    yield check_prekeys(settings, now)
    if roster is not None:
        yield from check_peer_prekeys(settings.database_url, roster, nation, now)
    yield from check_outside_witnesses(settings, now)
    if _is_there(settings.database_url):
        database = open_database(settings.database_url, readers=1)
        try:
            yield from check_index(database)
            yield from check_logs(database)
        except SQLAlchemyError:
            # What is wrong with the database is said of our own prekeys.
            return
        finally:
            database.close()


def check_prekeys(settings: GatewaySettings, now: int) -> Finding:
    """Peers can seal for us only while a prekey of ours lives."""
    column = own_prekeys_table.c.expires_at
    if _is_there(settings.database_url):
        database = open_database(settings.database_url, readers=1)
        try:
            with database.reader.connect() as connection:
                live = [*connection.scalars(select(column).where(column > now))]
        except SQLAlchemyError as error:
            return Finding(
                "prekeys",
                Level.FAIL,
                f"the database does not answer: {type(error).__name__}",
                "Check 'database_url' in node.toml.",
            )
        finally:
            database.close()
        if live:
            return Finding(
                "prekeys",
                Level.OK,
                f"{len(live)} live, the last for {(max(live) - now) // 3600} hours",
            )
    return Finding(
        "prekeys",
        Level.WARN,
        "none is live: peers wait to seal for this node",
        "The gateway makes and announces them when it starts.",
    )


def check_peer_prekeys(
    database_url: str, roster: Roster, own: Nation, now: int
) -> Iterator[Finding]:
    """Each peer for which only an alert, or nothing, can be sealed now; it alone can announce new prekeys."""
    database = open_database(database_url, readers=1)
    try:
        with database.reader.connect() as connection:
            known = peer_prekeys(connection)
            suspended = {each.nation for each in own_suspensions(connection)}
    except SQLAlchemyError:
        # What is wrong with the database is said of our own prekeys.
        return
    finally:
        database.close()
    live: list[Nation] = []
    for peer in sorted({*roster.members} - {own} - suspended):
        chosen = choose_prekey(known.get(peer, ()), now, stale_allowed=True)
        if chosen is not None and not chosen.stale:
            live.append(peer)
            continue
        begun = [each.expires_at for each in known.get(peer, ()) if each.expires_at <= now]
        what = f"expired {(now - max(begun)) // 3600} hours ago" if begun else "has announced none"
        waits = "whatever is for it waits, alerts too"
        if chosen is not None:
            hours = (max(begun) + STALE_SECONDS - now) // 3600
            waits = f"alerts are sealed for it for {hours} hours more, everything else waits"
        advice = (
            f"{peer} announces its prekeys when its node is back, and what waits goes then. How it is heard: varde roster "
            f"show. Where it is silent, call {peer}; where it is live, its gateway's log says what is wrong."
        )
        yield Finding("peer prekeys", Level.WARN, f"{peer}: {what}; {waits}", advice)
    if live:
        yield Finding("peer prekeys", Level.OK, f"live: {', '.join(live)}")


def check_outside_witnesses(settings: GatewaySettings, now: int) -> Iterator[Finding]:
    """Each witness that is not a member has cosigned lately."""
    if not settings.outside_witnesses:
        return
    names = [parse_vkey(each.key).name for each in settings.outside_witnesses]
    query = (
        select(cosignatures_table.c.witness, func.max(cosignatures_table.c.at))
        .where(cosignatures_table.c.witness.in_(names))
        .group_by(cosignatures_table.c.witness)
    )
    database = open_database(settings.database_url, readers=1)
    try:
        with database.reader.connect() as connection:
            newest = {name: at // 1000 for name, at in connection.execute(query)}
    except SQLAlchemyError:
        newest = {}
    finally:
        database.close()
    for name in names:
        age = now - newest.get(name, 0)
        if age < WITNESS_WARNING_SECONDS:
            yield Finding("witness", Level.OK, f"{name} cosigned {max(age, 0) // 60} minutes ago")
            continue
        what = (
            f"last cosigned {age // 3600} hours ago" if name in newest else "has cosigned nothing"
        )
        advice = "Why: varde audit witnesses, or the gateway's log."
        yield Finding("witness", Level.WARN, f"{name} {what}", advice)


def check_index(database: Database) -> Iterator[Finding]:
    """What searches of the log go by is what its entries say; each fault is named with its entry."""
    size, findings = _index_faults(database.reader)
    for each in findings[:MAX_NAMED]:
        yield Finding("log index", Level.FAIL, str(each), _CHANGED)
    if len(findings) > MAX_NAMED:
        more = f"{len(findings) - MAX_NAMED} more faults"
        yield Finding("log index", Level.FAIL, more, _CHANGED)
    if not findings:
        yield Finding("log index", Level.OK, f"searches find the {size} entries as they are")


def _index_faults(engine: Engine) -> tuple[int, list[IndexFinding]]:
    with engine.connect() as connection:
        size = log_size(connection)
    findings: list[IndexFinding] = []
    for check in checks(size, _BATCH):
        # A transaction each: one for all would keep SQLite's write-ahead file growing while the node runs.
        with engine.connect() as connection:
            findings += check(connection)
    return size, findings


def _is_there(database_url: str) -> bool:
    place = database_url.removeprefix(_SQLITE)
    return not database_url.startswith(_SQLITE) or Path(place).is_file()
