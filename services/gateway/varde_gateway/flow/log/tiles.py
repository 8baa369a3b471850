"""The audit log as C2SP tlog-tiles: hashes and entries in fixed pieces, for tools that know nothing of Varde.

Protocol section 10.8 (c2sp.org/tlog-tiles v0.1.0). A tile holds up to 256 hashes of every eighth level; a bundle holds
up to 256 entries, each behind its length in two bytes.
"""

import re
from typing import Final

from sqlalchemy import Connection, select

from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import NotFound
from varde_gateway.store.tables import audit_leaves_table, audit_nodes_table
from varde_gateway.store.tree import log_size

TILE_WIDTH: Final = 256
_HEIGHT: Final = 8
_PATH: Final = re.compile(
    r"(?P<level>[0-6]|entries)/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


async def read_tile(desk: Desk, path: str) -> bytes:
    """The tile or entry bundle at ``path`` behind ``tile/``; ``NotFound`` where the log does not reach so far."""
    match = _PATH.fullmatch(path)
    if match is None or int(match["width"] or 1) >= TILE_WIDTH:
        raise NotFound("A tile is at tile/<level>/<index>[.p/<width>], or tile/entries/<index>.")
    index = int(re.sub(r"[x/]", "", match["index"]))
    width = int(match["width"] or TILE_WIDTH)
    found = await desk.ledger.read(lambda c: _read(c, match["level"], index, width))
    if found is None:
        raise NotFound("The log does not reach so far yet; ask for a partial tile.")
    return found


def _read(connection: Connection, level: str, index: int, width: int) -> bytes | None:
    first, last = index * TILE_WIDTH, index * TILE_WIDTH + width - 1
    shift = 0 if level == "entries" else int(level) * _HEIGHT
    if (last + 1) << shift > log_size(connection):
        return None
    if level == "entries":
        rows = connection.execute(
            select(audit_leaves_table.c.leaf)
            .where(audit_leaves_table.c.index.between(first, last))
            .order_by(audit_leaves_table.c.index)
        )
        leaves = [row.leaf.encode() for row in rows]
        return b"".join(len(each).to_bytes(2, "big") + each for each in leaves)
    table = audit_nodes_table if shift else audit_leaves_table
    query = select(table.c.hash).where(table.c.index.between(first, last)).order_by(table.c.index)
    if shift:
        query = query.where(audit_nodes_table.c.level == shift)
    return b"".join(row.hash for row in connection.execute(query))
