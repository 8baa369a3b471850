"""How far the numbers of one sender have come, kept between transactions: the prefix in ``peer``, the rest in ``arrival``."""

from sqlalchemy import Connection, delete, insert, select, update

from varde.heartbeat import CHAIN_START, Arrivals
from varde_gateway.store.tables import arrivals_table, peers_table


def load_arrivals(connection: Connection, sender: str) -> Arrivals:
    """What has come of this sender's numbers; nothing of a stranger's."""
    row = connection.execute(
        select(
            peers_table.c.received_from,
            peers_table.c.received_through,
            peers_table.c.received_chain,
        ).where(peers_table.c.nation == sender)
    ).one_or_none()
    if row is None:
        return Arrivals()
    above = connection.execute(
        select(arrivals_table.c.sequence, arrivals_table.c.digest).where(
            arrivals_table.c.sender == sender
        )
    )
    return Arrivals(
        row.received_from,
        row.received_through,
        row.received_chain or CHAIN_START,
        {sequence: digest for sequence, digest in above},  # noqa: C416 -- mypy knows no dict() of rows
    )


def save_arrivals(
    connection: Connection, sender: str, arrivals: Arrivals, stored_above: frozenset[int]
) -> None:
    """Keep what changed; ``stored_above`` are the numbers that the table holds."""
    connection.execute(
        update(peers_table)
        .where(peers_table.c.nation == sender)
        .values(
            received_from=arrivals.first,
            received_through=arrivals.through,
            received_chain=arrivals.chain,
        )
    )
    gone = stored_above - arrivals.above.keys()
    if gone:
        # Ranges instead of a list: after a long gap there may be thousands.
        former = delete(arrivals_table).where(arrivals_table.c.sender == sender)
        if arrivals.above:
            former = former.where(arrivals_table.c.sequence <= arrivals.through)
        connection.execute(former)
    fresh = [number for number in arrivals.above if number not in stored_above]
    if fresh:
        connection.execute(
            insert(arrivals_table),
            [
                {"sender": sender, "sequence": number, "digest": arrivals.above[number]}
                for number in fresh
            ],
        )
