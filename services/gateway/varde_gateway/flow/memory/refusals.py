"""What was refused is written down, but a peer that floods us with rubbish shall not fill our disk.

Of each link the first refusals of a minute are recorded one by one; the rest are counted, and the count is recorded when
the minute is over. Memory only: what is lost with the process is at most the count of one minute.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from varde.auditlog import AuditKind
from varde.errors import Reason
from varde.identifiers import Nation
from varde.opening import Rejection
from varde_gateway.store.transaction import MAX_TEXT, Transaction

ONE_BY_ONE: Final = 30
WINDOW_MS: Final = 60_000
RETRY_SECONDS: Final = 5.0
"""How long what may still be made good waits before it is tried again."""

MAX_WAITING: Final = 64
"""Per link, and for as long as one waits: far less than the broker leaves unanswered, 4096 in all."""


@dataclass(slots=True)
class _Window:
    ends_at: int
    recorded: int = 0
    unrecorded: Counter[Reason] = field(default_factory=Counter)


class Refusals:
    """One window of a minute per link, while there is something to refuse."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._windows: dict[Nation, _Window] = {}

    def note(self, link: Nation, rejection: Rejection, now: int) -> bool:
        """Count a refusal; whether it shall be recorded by itself."""
        window = self._windows.setdefault(link, _Window(now + WINDOW_MS))
        if window.recorded < ONE_BY_ONE:
            window.recorded += 1
            return True
        window.unrecorded[rejection.reason] += 1
        return False

    def room(self, link: Nation) -> int:
        """How many more would be recorded one by one."""
        return ONE_BY_ONE - self._windows[link].recorded if link in self._windows else ONE_BY_ONE

    def ended(self, now: int) -> dict[Nation, Counter[Reason]]:
        """What was only counted in the windows that are over; each is told once."""
        over = {link for link, window in self._windows.items() if window.ends_at <= now}
        told = {link: self._windows.pop(link).unrecorded for link in over}
        return {link: reasons for link, reasons in told.items() if reasons}


class Patience:
    """How many documents of each link may wait in our INBOX for time to make them good, or to be handed on.

    The broker gives nobody anything more while too much is unanswered: one member could fill that room with documents from
    the future, and silence all others. Who is refused loses nothing: the sender publishes again what has no receipt.
    """

    def __init__(self) -> None:
        """Nothing waits yet."""
        self._windows: dict[Nation, tuple[int, int]] = {}

    def allows(self, link: Nation, now: int) -> bool:
        """Whether one more may wait from ``now`` on."""
        ends_at, waiting = self._windows.get(link, (0, 0))
        if ends_at <= now:
            ends_at, waiting = now + int(RETRY_SECONDS * 1000), 0
        if waiting >= MAX_WAITING:
            return False
        self._windows[link] = ends_at, waiting + 1
        return True


def record_refusal(tx: Transaction, link: Nation, rejection: Rejection) -> None:
    """Audit and announce what was not accepted; the sender learns nothing but the missing receipt."""
    header = rejection.header
    subjects = [("document", header.id)] if header is not None else []
    reason = rejection.reason.value
    said = f"{reason}: {rejection.detail}"[:MAX_TEXT]
    tx.audit(AuditKind.REFUSED, link, subjects, said)
    tx.event(
        "refused", {"from": link, "reason": reason, "detail": said.removeprefix(f"{reason}: ")}
    )


@dataclass(frozen=True, slots=True)
class _Noting:
    """Counts a refusal when the transaction that found it is committed."""

    refusals: Refusals
    link: Nation
    rejection: Rejection
    now: int

    def __call__(self) -> None:
        self.refusals.note(self.link, self.rejection, self.now)


def refuse_within(
    tx: Transaction,
    refusals: Refusals,
    link: Nation,
    rejection: Rejection,
    subjects: Sequence[tuple[str, str]],
) -> None:
    """Audit what verified and is of no use, or have it only counted, as with any other refusal of ``link``."""
    before = sum(isinstance(each, _Noting) and each.link == link for each in tx.callbacks)
    if before < refusals.room(link):
        tx.audit(AuditKind.REFUSED, link, subjects, f"{rejection.reason.value}: {rejection.detail}")
    tx.after_commit(_Noting(refusals, link, rejection, tx.now))


def record_flood(tx: Transaction, link: Nation, reasons: Counter[Reason]) -> None:
    """Audit and announce what was only counted."""
    total = sum(reasons.values())
    most = ", ".join(f"{count} {reason.value}" for reason, count in reasons.most_common(3))
    detail = f"{total} more documents refused within a minute: {most}"
    tx.audit(AuditKind.REFUSED, link, [], detail)
    tx.event("refused", {"from": link, "reason": Reason.POLICY.value, "detail": detail})
