"""The alarm for an index of the log that somebody has changed by hand: searches, trails and evidence would lie by it.

At the start and once a day the whole log is gone through in the background, a few entries at a time: nothing waits for
it. What is found goes into the log and the event stream, and so into the metric of events, at every round until the
database is mended.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from varde.auditlog import AuditKind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.worker import repeat
from varde_gateway.store.log_index import IndexFinding, checks
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.tree import log_size

BATCH: Final = 200
PAUSE_SECONDS: Final = 0.1
"""Between two batches, so that the check takes a tenth of a core and no alert is slower for it."""

AGAIN_SECONDS: Final = 24 * 3600.0
MAX_TOLD: Final = 20
"""How many findings of one round are told one by one."""

_log = structlog.get_logger("index-check")


async def run_index_check(desk: Desk) -> None:
    """Check for ever."""
    await repeat("index-check", lambda: check_index(desk), pause_seconds=AGAIN_SECONDS)


async def check_index(
    desk: Desk, *, batch: int = BATCH, pause_seconds: float = PAUSE_SECONDS
) -> int:
    """Go through the log as it is now; how many faults there are."""
    found = 0
    for check in checks(await desk.ledger.read(log_size), batch):
        findings = await desk.ledger.read(check)
        told = findings[: max(MAX_TOLD - found, 0)]
        if told:
            await _tell(desk, told)
        found += len(findings)
        await asyncio.sleep(pause_seconds)
    if found > MAX_TOLD:
        said = f"{found} faults in all: 'varde doctor' names them"
        await desk.ledger.write(lambda tx: _record(tx, None, said))
    return found


async def _tell(desk: Desk, findings: Sequence[IndexFinding]) -> None:
    def record(tx: Transaction) -> None:
        for each in findings:
            _record(tx, each, str(each))

    await desk.ledger.write(record)
    for each in findings:
        _log.error("the index of the log was changed", entry=each.entry, fault=each.fault.value)


def _record(tx: Transaction, finding: IndexFinding | None, said: str) -> None:
    subjects = [] if finding is None else [("entry", str(finding.entry))]
    tx.audit(AuditKind.LOG_INDEX_CHANGED, "node", subjects, said)
    entry, fault = (None, None) if finding is None else (finding.entry, finding.fault.value)
    tx.event("log_index_changed", {"entry": entry, "fault": fault, "detail": said})
