"""Under what a search finds an audit entry: its subjects, and the nations it speaks of in its actor, subjects and detail.

Digests stand in the entry alone: they fall anywhere, so that an index of them slows every append as the log grows, and
whatever has a digest has an id as well.

Only the details that this node itself words are read; a reason that a person wrote is never taken apart. What is found in
an entry must stay what it was: ``log_index`` makes it again for every entry of the log, and a difference is an alarm.
"""

import re
from collections.abc import Sequence
from typing import Final

from varde.auditlog import AuditKind, AuditLeaf

_NATION: Final = re.compile(r"[A-Z]{2}|[A-Z][A-Z0-9]{2,7}", re.ASCII)
_WORD: Final = re.compile(r"(?<![A-Za-z0-9_-])(?:[A-Z]{2}|[A-Z][A-Z0-9]{2,7})(?![A-Za-z0-9_-])")
_NAMING: Final = frozenset(
    {
        AuditKind.SENT,
        AuditKind.RECEIVED,
        AuditKind.RECEIPTED,
        AuditKind.DISPLAYED,
        AuditKind.FORWARDED,
        AuditKind.REROUTED,
        AuditKind.OVERDUE,
        AuditKind.FAILED,
        AuditKind.LINK_CHANGED,
        AuditKind.NUMBERING_CHANGED,
        AuditKind.CHAIN_BROKEN,
    }
)
LABEL: Final = "nation"
_DIGESTS: Final = frozenset({"digest", "receipt_digest", "acknowledgement_digest"})


def subjects_of(leaf: AuditLeaf) -> tuple[tuple[str, str], ...]:
    """The rows of ``audit_subject``, as label and value, each once."""
    mentions = nations_of(leaf.kind, leaf.actor, leaf.subjects, leaf.detail)
    named = (each for each in leaf.subjects if each[0] not in _DIGESTS)
    return tuple(dict.fromkeys((*named, *((LABEL, each) for each in mentions))))


def nations_of(
    kind: AuditKind, actor: str, subjects: Sequence[tuple[str, str]], detail: str
) -> tuple[str, ...]:
    """Each nation once, as they are met; ``FI/officer.fi`` is FI's."""
    found = [value for label, value in subjects if label == LABEL]
    nation = actor.partition("/")[0]
    if _NATION.fullmatch(nation) is not None:
        found.append(nation)
    if kind in _NAMING:
        found += _WORD.findall(detail)
    return tuple(dict.fromkeys(found))
