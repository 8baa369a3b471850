"""What an auditor reads without a search is a look as well: one entry for each thing, once a minute at the most.

Whoever asks again for the very same within the minute (a page that shows the links, a program that polls) writes nothing
more. Memory only: after a restart, and at each other replica, the minute begins anew.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from varde.auditlog import AuditKind
from varde.encoding import sha256_base64url
from varde_gateway.flow.desk import Desk

SAME_LOOK_MS: Final = 60_000
_MAX_KEPT: Final = 4096
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Look:
    """Who reads what: the path with its ``parts`` by name, and the parameters behind it."""

    username: str
    path: str
    parts: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, str], ...]


class Looks:
    """The looks of the last minute."""

    def __init__(self, desk: Desk) -> None:
        """Nobody has looked yet."""
        self._desk = desk
        self._until: dict[Look, int] = {}

    async def note(self, look: Look) -> None:
        """Log it unless it is the same look as one within the minute before; durable when it returns."""
        now = self._desk.ticks()
        if now < self._until.get(look, now):
            return
        await self._desk.ledger.write(
            lambda tx: tx.audit(AuditKind.REVIEWED, look.username, _subjects(look), _said(look))
        )
        if len(self._until) >= _MAX_KEPT:
            self._until = _live(self._until, now)
        self._until[look] = now + SAME_LOOK_MS


def _live(until: Mapping[Look, int], now: int) -> dict[Look, int]:
    live = {look: ends_at for look, ends_at in until.items() if now < ends_at}
    # So many different looks within a minute: to forget them costs entries, never one that is missing.
    return live if len(live) < _MAX_KEPT else {}


def _said(look: Look) -> str:
    # Only numbers are written down, such as which entry was to be proven: a word may be content.
    numbers = [
        f"{name} {value}" for name, value in look.parameters if _NUMBER.fullmatch(value) is not None
    ]
    return ", ".join([f"read {look.path}", *numbers])


def _subjects(look: Look) -> list[tuple[str, str]]:
    subjects = [*look.parts]
    if look.parameters:
        asked = "\n".join(f"{name}={value}" for name, value in sorted(look.parameters))
        subjects.append(("query", sha256_base64url(asked.encode())))
    return subjects
