"""Reading the stored Merkle tree: complete nodes by level and index, O(log n) of them for any answer."""

from collections.abc import Callable

from sqlalchemy import Connection, func, select

from varde.merkle import Frontier, Place, frontier_nodes
from varde_gateway.store.tables import audit_leaves_table, audit_nodes_table


def log_size(connection: Connection) -> int:
    """How many entries the audit log has; they are numbered from 0 without a gap."""
    newest = func.coalesce(func.max(audit_leaves_table.c.index), -1)
    size: int = connection.execute(select(newest)).scalar_one() + 1
    return size


def node_reader(connection: Connection) -> Callable[[Place], bytes]:
    """A function that gives the hash of a complete node; ``KeyError`` where it is not stored."""

    def read(place: Place) -> bytes:
        level, index = place
        if level == 0:
            query = select(audit_leaves_table.c.hash).where(audit_leaves_table.c.index == index)
        else:
            query = select(audit_nodes_table.c.hash).where(
                audit_nodes_table.c.level == level, audit_nodes_table.c.index == index
            )
        value: bytes | None = connection.scalar(query)
        if value is None:
            raise KeyError(place)
        return value

    return read


def load_frontier(connection: Connection, size: int) -> Frontier:
    """The right edge of the tree of ``size`` entries, from what is stored."""
    read = node_reader(connection)
    return Frontier(size, tuple(read(place) for place in frontier_nodes(size)))
