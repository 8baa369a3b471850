"""Reading the stored Merkle tree: complete nodes by level and index, O(log n) of them for any answer."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, and_, func, or_, select

from varde.merkle import HASH_BYTES, Frontier, Place, frontier_nodes
from varde_gateway.store.tables import audit_leaves_table, audit_nodes_table

T = TypeVar("T")


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


def read_ahead(connection: Connection, act: Callable[[Callable[[Place], bytes]], T]) -> T:
    """What ``act`` makes of the hashes that it reads, with two statements in all; ``KeyError`` as ``node_reader``.

    ``act`` runs twice, the first time on hashes of nothing but zeros, to learn which it asks for: they may not steer it.
    """
    wanted: set[Place] = set()

    def note_down(place: Place) -> bytes:
        wanted.add(place)
        return bytes(HASH_BYTES)

    act(note_down)
    leaves, nodes = audit_leaves_table.c, audit_nodes_table.c
    indices = [index for level, index in wanted if level == 0]
    places: dict[int, list[int]] = {}
    for level, index in wanted:
        if level > 0:
            places.setdefault(level, []).append(index)
    found: dict[Place, bytes] = {}
    if indices:
        query = select(leaves.index, leaves.hash).where(leaves.index.in_(indices))
        found |= {(0, index): digest for index, digest in connection.execute(query)}
    if places:
        inner = select(nodes.level, nodes.index, nodes.hash)
        # By level: SQLite looks through the whole table for pairs in a list.
        of_each = (and_(nodes.level == level, nodes.index.in_(at)) for level, at in places.items())
        rows = connection.execute(inner.where(or_(*of_each)))
        found |= {(level, index): digest for level, index, digest in rows}
    return act(found.__getitem__)


def load_frontier(connection: Connection, size: int) -> Frontier:
    """The right edge of the tree of ``size`` entries, from what is stored."""
    places = frontier_nodes(size)
    return read_ahead(
        connection, lambda read: Frontier(size, tuple(read(place) for place in places))
    )
