"""Reading the stored Merkle tree: complete nodes by level and index, O(log n) of them for any answer."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from varde.merkle import Frontier, frontier_nodes
from varde_gateway.store.tables import AuditLeafRow, AuditNodeRow


def read_nodes(
    connection: Connection, places: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """The hashes at ``(level, index)``; level 0 are the leaves. ``KeyError`` is the caller's to raise."""
    found: dict[tuple[int, int], bytes] = {}
    for level, index in places:
        if level == 0:
            query = select(AuditLeafRow.hash).where(AuditLeafRow.index == index)  # type: ignore[arg-type]
        else:
            query = select(AuditNodeRow.hash).where(
                AuditNodeRow.level == level,  # type: ignore[arg-type]
                AuditNodeRow.index == index,  # type: ignore[arg-type]
            )
        value = connection.scalar(query)
        if value is not None:
            found[level, index] = value
    return found


def load_frontier(connection: Connection, size: int) -> Frontier:
    """The right edge of the tree of ``size`` entries, from what is stored."""
    places = frontier_nodes(size)
    stored = read_nodes(connection, places)
    return Frontier(size, tuple(stored[place] for place in places))
