"""What the entries of a log prove of the signed documents in a file: which they record, and which they erased.

Protocol sections 10.2 and 10.7. An entry counts for a document by id *and* digest, and for the nation that it names as
its sender: else two nations together could exchange a document afterwards. That an entry stands in the tree is proven before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from varde.auditlog import DOCUMENT_LABELS, MAX_LEAF_BYTES, AuditKind
from varde.bundle import Exhibit, Header, ProvenEntry
from varde.encoding import (
    MAX_MILLISECONDS,
    JsonObject,
    exact_members,
    parse_json,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed, Reason, Untrusted
from varde.signing import Kind

_LEAF: Final = frozenset({"index", "kind", "at", "actor", "subjects", "detail", "salt"})
_MAX_SUBJECTS: Final = 600
_KIND_OF: Final = {label: kind for kind, (label, _) in DOCUMENT_LABELS.items()}
_OWN: Final = frozenset({(AuditKind.SENT, Kind.ALERT), (AuditKind.RECEIVED, Kind.RECEIPT)})
"""Entries that record a document of the node itself; all others record one of the nation that is their actor."""
_RECORDING: Final = _OWN | {
    (AuditKind.RECEIVED, Kind.ALERT),
    (AuditKind.RECEIPTED, Kind.RECEIPT),
    (AuditKind.DISPLAYED, Kind.RECEIPT),
    (AuditKind.ACKNOWLEDGED, Kind.ACKNOWLEDGEMENT),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it was read; ``at`` in Unix milliseconds."""

    index: int
    kind: str
    at: int
    actor: str
    subjects: tuple[tuple[str, str], ...]


class Records:
    """Entries that are proven, found by the documents of the file that they are about."""

    def __init__(self, header: Header, exhibits: Iterable[Exhibit]) -> None:
        """``header`` and ``exhibits`` of the file; no entry yet."""
        self._node, self._alert = header.node, header.alert
        self._digests: dict[tuple[Kind, str], set[str]] = {}
        for each in exhibits:
            self._digests.setdefault((each.kind, each.id), set()).add(each.digest)
        self._recorded: dict[tuple[Kind, str, str, str], list[Entry]] = {}
        self._erased: dict[tuple[Kind, str, str], Entry] = {}

    def take(self, entry: Entry) -> str:
        """Remember an entry; the first document of the file that it speaks of, in words.

        ``Untrusted`` where it speaks of none of them, or of one with another digest.
        """
        named = [*self._named(entry)]
        for kind, document, digest in named:
            if digest is not None and digest not in self._digests[kind, document]:
                detail = f"it speaks of another {kind.value} with this id: the digests differ"
                raise Untrusted(Reason.BAD_LOG, detail)
        if not named:
            raise Untrusted(Reason.BAD_LOG, "it speaks of no document of this file")
        about_alert = ("document", self._alert) in entry.subjects
        for kind, document, digest in named:
            if digest is None:
                continue
            if (entry.kind, kind) in _RECORDING and (kind is Kind.ALERT or about_alert):
                own = (entry.kind, kind) in _OWN
                sender = self._node if own else entry.actor.partition("/")[0]
                key = kind, document, digest, sender
                self._recorded.setdefault(key, []).append(entry)
            if entry.kind == AuditKind.ERASED:
                self._erased[kind, document, digest] = entry
        kind, document, _ = named[0]
        return f"{kind.value} {document}"

    def of(self, exhibit: Exhibit) -> list[Entry]:
        """The entries that record this very document, in order."""
        key = exhibit.kind, exhibit.id, exhibit.digest, exhibit.sender
        return self._recorded.get(key, [])

    def erasure_of(self, exhibit: Exhibit, alert_digest: str) -> Entry | None:
        """The entry by which it was erased: one about it or, for an answer that was there before, one about the alert."""
        found = self._erased.get((exhibit.kind, exhibit.id, exhibit.digest))
        if found is None and exhibit.kind is Kind.ACKNOWLEDGEMENT:
            whole = self._erased.get((Kind.ALERT, self._alert, alert_digest))
            recorded = self.of(exhibit)
            if whole is not None and recorded and recorded[0].index < whole.index:
                found = whole
        return found

    def _named(self, entry: Entry) -> Iterator[tuple[Kind, str, str | None]]:
        digests = dict(entry.subjects)
        for label, value in dict.fromkeys(entry.subjects):
            kind = _KIND_OF.get(label)
            if kind is not None and (kind, value) in self._digests:
                yield kind, value, digests.get(DOCUMENT_LABELS[kind][1])


def read_entry(proven: ProvenEntry) -> Entry:
    """The entry in a line of the file; ``Malformed`` where it is none, or names another index than its line."""
    # Newer nodes may log newer kinds: the kind is read as a word.
    raw = proven.leaf.encode()
    leaf: JsonObject = exact_members(parse_json(raw, limit=MAX_LEAF_BYTES), _LEAF, "the entry")
    if require_integer(leaf["index"], "index") != proven.index:
        raise Malformed("the entry names another index than its line")
    subjects: list[tuple[str, str]] = []
    for each in require_list(leaf["subjects"], "subjects", most=_MAX_SUBJECTS):
        if not isinstance(each, list) or len(each) != 2:  # noqa: PLR2004 -- label and value
            raise Malformed("a subject is a label and a value")
        subjects.append((require_string(each[0], "label"), require_string(each[1], "value")))
    return Entry(
        index=proven.index,
        kind=require_string(leaf["kind"], "kind"),
        at=require_integer(leaf["at"], "at", most=MAX_MILLISECONDS),
        actor=require_string(leaf["actor"], "actor"),
        subjects=tuple(subjects),
    )
