"""What ``varde doctor`` says of audit logs: whether ours is halted, and what is held against any other."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import func, select

from varde_gateway.cli.finding import Finding, Level
from varde_gateway.flow.log.fork_evidence import held_against
from varde_gateway.flow.log.history import HALTED_FACT
from varde_gateway.store.database import Database
from varde_gateway.store.tables import node_facts_table

_HALTED: Final = (
    "Restore the newest database there is and start the gateway: it goes on by itself where that one continues what was "
    "signed. docs/operations.md says what is left where there is none."
)
_UNPROVEN: Final = (
    "It is not cosigned meanwhile. Ask that nation whether its node was restored or cannot hear this one; the log settles it "
    "by itself once it gives the proof. Both checkpoints: varde audit witnesses."
)
_FORKED: Final = (
    "It is not cosigned any more. Both signed checkpoints are kept as evidence (varde audit witnesses); its nation begins a "
    "new log under new keys, by a vote, or is suspended."
)


def check_logs(database: Database) -> Iterator[Finding]:
    """Nothing where there is nothing to say."""
    halted = select(func.count()).where(node_facts_table.c.name == HALTED_FACT)
    with database.reader.connect() as connection:
        if connection.execute(halted).scalar_one():
            text = "a peer holds a checkpoint of our log that it does not continue: it is signed no more"
            yield Finding("log", Level.FAIL, text, _HALTED)
        unproven, forked = held_against(connection)
    for origin, pairs in unproven.items():
        text = f"{origin} owes {pairs} proofs of what it has signed"
        yield Finding("other logs", Level.WARN, text, _UNPROVEN)
    for origin, pairs in forked.items():
        text = f"{origin} has signed two histories ({pairs} pairs of checkpoints)"
        yield Finding("other logs", Level.WARN, text, _FORKED)
