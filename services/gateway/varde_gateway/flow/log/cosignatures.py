"""Cosignatures under our own checkpoints, one a checkpoint and witness, never changed. Whoever keeps one has verified it."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, insert, select

from varde_gateway.flow.desk import Desk
from varde_gateway.store.tables import cosignatures_table
from varde_gateway.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What ``witness`` says of our checkpoint of ``size`` entries: its signature ``line``, made ``at`` Unix milliseconds."""

    size: int
    witness: str
    line: str
    at: int


async def keep_cosignature(desk: Desk, kept: Cosignature) -> None:
    """Keep it durably, unless there is one of the same witness under the same checkpoint: the earliest says the most."""
    table = cosignatures_table
    this = (table.c.size == kept.size, table.c.witness == kept.witness)

    def keep(tx: Transaction) -> None:
        if tx.connection.scalar(select(table.c.size).where(*this)) is None:
            tx.connection.execute(insert(table), asdict(kept))

    await desk.ledger.write(keep)


def newest_cosigned(connection: Connection, witness: str) -> int:
    """The size of our newest checkpoint that this witness has cosigned, 0 where none."""
    size: int | None = connection.scalar(
        select(func.max(cosignatures_table.c.size)).where(cosignatures_table.c.witness == witness)
    )
    return size or 0
