"""Who has cosigned our log and how far, what we have seen of the others' logs, and the evidence against any of them."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, Table, func, select

from varde.checkpoint import witness_majority
from varde.encoding import Json, JsonObject
from varde.identifiers import Nation
from varde.roster import Roster
from varde_gateway.flow.desk import Desk
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import (
    AnyRow,
    checkpoints_table,
    cosignatures_table,
    log_conflicts_table,
    log_unproven_table,
    witnessed_table,
)
from varde_gateway.store.tree import log_size

MAX_PAIRS: Final = 100


async def describe_witnesses(desk: Desk) -> JsonObject:
    """Our log and its witnesses, the others' logs, and the contradictions that were found."""
    return await desk.ledger.read(lambda connection: _describe(connection, desk))


async def witnessed_checkpoint(desk: Desk) -> str | None:
    """The newest checkpoint that a majority of the others has cosigned, all lines under it; None before the first."""
    names = [*witness_names(desk.trust.current, desk.nation), *outside_names(desk)]

    def read(connection: Connection) -> str | None:
        size = witnessed_size(connection, desk.trust.current, desk.nation)
        return None if size is None else cosigned_note(connection, size, names)

    return await desk.ledger.read(read)


def witnessed_size(connection: Connection, roster: Roster, own: Nation) -> int | None:
    """Up to which entry our log is witnessed: what a majority of the other members has cosigned."""
    names = witness_names(roster, own)
    size: int | None = connection.scalar(
        select(cosignatures_table.c.size)
        .where(cosignatures_table.c.witness.in_(names))
        .group_by(cosignatures_table.c.size)
        .having(func.count() >= witness_majority(len(names) + 1))
        .order_by(cosignatures_table.c.size.desc())
        .limit(1)
    )
    return size


def cosigned_note(connection: Connection, size: int, names: Collection[str]) -> str:
    """Our checkpoint of this size with the lines of these witnesses under it."""
    note = connection.scalar(
        select(checkpoints_table.c.note).where(checkpoints_table.c.size == size)
    )
    lines = connection.execute(
        select(cosignatures_table.c.line)
        .where(cosignatures_table.c.size == size, cosignatures_table.c.witness.in_(names))
        .order_by(cosignatures_table.c.witness)
    )
    return f"{note}{''.join(row.line for row in lines)}"


def witness_names(roster: Roster, own: Nation) -> dict[str, Nation]:
    """The other voting members, by the names under which they cosign."""
    return {
        member.witness_name: nation
        for nation, member in roster.members.items()
        if nation != own and member.voting_keys is not None
    }


def outside_names(desk: Desk) -> list[str]:
    """The names of the witnesses that are not members."""
    return [talk.key.name for talk in desk.outside]


def _newest_of(connection: Connection, names: Collection[str]) -> dict[str, AnyRow]:
    return {
        row.witness: row
        for row in connection.execute(
            select(cosignatures_table.c.witness, cosignatures_table.c.size, cosignatures_table.c.at)
            .where(cosignatures_table.c.witness.in_(names))
            .order_by(cosignatures_table.c.size)
        )
    }


def _describe(connection: Connection, desk: Desk) -> JsonObject:
    names = witness_names(desk.trust.current, desk.nation)
    newest = _newest_of(connection, names)
    needed = witness_majority(len(names) + 1)
    sizes = sorted((row.size for row in newest.values()), reverse=True)
    witnesses: list[Json] = [
        {
            "nation": nation,
            "witness": name,
            "size": newest[name].size if name in newest else None,
            "at": rfc3339(newest[name].at) if name in newest else None,
            "trouble": desk.logs.of(nation).refusal or None,
        }
        for name, nation in sorted(names.items(), key=lambda each: each[1])
    ]
    owners = {member.log_name: nation for nation, member in desk.trust.current.members.items()}
    return {
        "log": {
            "origin": desk.log_signer.key.name,
            "entries": log_size(connection),
            "signed": connection.scalar(select(func.max(checkpoints_table.c.size))) or 0,
            "witnessed": sizes[needed - 1] if len(sizes) >= needed else None,
            "needed": needed,
            "halted": desk.logs.halted or None,
        },
        "witnesses": witnesses,
        "outside": _describe_outside(connection, desk),
        "logs": _describe_logs(connection, owners),
        "unproven": _describe_pairs(connection, owners, log_unproven_table),
        "conflicts": _describe_pairs(connection, owners, log_conflicts_table),
    }


def _describe_outside(connection: Connection, desk: Desk) -> list[Json]:
    newest = _newest_of(connection, outside_names(desk))
    return [
        {
            "witness": talk.key.name,
            "url": talk.url,
            "size": newest[talk.key.name].size if talk.key.name in newest else None,
            "at": rfc3339(newest[talk.key.name].at) if talk.key.name in newest else None,
            "trouble": talk.trouble or None,
        }
        for talk in desk.outside
    ]


def _describe_logs(connection: Connection, owners: dict[str, Nation]) -> list[Json]:
    return [
        {
            "nation": owners.get(row.origin),
            "origin": row.origin,
            "size": row.size,
            "at": rfc3339(row.at),
        }
        for row in connection.execute(select(witnessed_table).order_by(witnessed_table.c.origin))
    ]


def _describe_pairs(connection: Connection, owners: dict[str, Nation], table: Table) -> list[Json]:
    columns = table.c
    return [
        {
            "nation": owners.get(row.origin),
            "origin": row.origin,
            "detail": row.detail,
            "at": rfc3339(row.at),
            "checkpoints": [row.first_note, row.second_note],
        }
        for row in connection.execute(
            select(
                columns.origin, columns.detail, columns.at, columns.first_note, columns.second_note
            )
            .order_by(columns.at)
            .limit(MAX_PAIRS)
        )
    ]
