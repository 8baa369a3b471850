"""One entry of a node's audit log: what happened, when, by whom, about what; never content.

Protocol section 10.2. The leaf's bytes are hashed as they are and never re-serialised. It names its own index, so that a
moved entry shows; it is salted, so that its hash, which appears in the proofs of its neighbours, cannot be guessed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from varde.encoding import (
    MAX_MILLISECONDS,
    Json,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed, Reason
from varde.signing import Kind

MAX_LEAF_BYTES: Final = 65_535
"""What an entry of a tlog-tiles bundle may hold."""
MAX_SUBJECTS: Final = 600
SALT_BYTES: Final = 16
DOCUMENT_LABELS: Final = {
    Kind.ALERT: ("document", "digest"),
    Kind.RECEIPT: ("receipt", "receipt_digest"),
    Kind.ACKNOWLEDGEMENT: ("acknowledgement", "acknowledgement_digest"),
}
"""Under which labels an entry names the id, and the digest, of a signed document of each kind."""
_MEMBERS: Final = frozenset({"index", "kind", "at", "actor", "subjects", "detail", "salt"})


class AuditKind(StrEnum):
    """What is recorded."""

    SENT = "sent"
    RECEIVED = "received"
    RECEIPTED = "receipted"
    DISPLAYED = "displayed"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    OVERDUE = "overdue"
    REFUSED = "refused"
    SIGNED_IN = "signed_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    EXPORTED = "exported"
    ROSTER_ACCEPTED = "roster_accepted"
    PREKEYS_PUBLISHED = "prekeys_published"
    PREKEYS_ACCEPTED = "prekeys_accepted"
    PREKEYS_DELETED = "prekeys_deleted"
    SENSOR_ACCEPTED = "sensor_accepted"
    SENSOR_REFUSED = "sensor_refused"
    USER_CHANGED = "user_changed"
    SENSOR_CHANGED = "sensor_changed"
    SETTINGS_CHANGED = "settings_changed"
    SUSPENDED = "suspended"
    RESTORED = "restored"
    ROSTER_PROPOSED = "roster_proposed"
    ROSTER_VOTED = "roster_voted"
    ROSTER_FORKED = "roster_forked"
    FORWARDED = "forwarded"
    REROUTED = "rerouted"
    LINK_CHANGED = "link_changed"
    NUMBERING_CHANGED = "numbering_changed"
    CHAIN_BROKEN = "chain_broken"
    LOG_UNPROVEN = "log_unproven"
    LOG_PROVEN = "log_proven"
    LOG_FORKED = "log_forked"
    LOG_HALTED = "log_halted"
    LOG_RESUMED = "log_resumed"
    LOG_INDEX_CHANGED = "log_index_changed"
    REVIEWED = "reviewed"
    ERASED = "erased"
    ARCHIVED = "archived"
    ATTACHMENT_COMPLETE = "attachment_complete"
    ATTACHMENT_FAILED = "attachment_failed"
    BROKER_RESTARTED = "broker_restarted"


_AUDITKINDS: Final = tuple(AuditKind)


@dataclass(frozen=True, slots=True)
class AuditLeaf:
    """``at`` in Unix milliseconds; ``subjects`` are labels with an id or a digest each; 16 bytes of salt."""

    index: int
    kind: AuditKind
    at: int
    actor: str
    subjects: tuple[tuple[str, str], ...]
    detail: str
    salt: bytes


def name_document(kind: Kind, document: str, digest: str) -> tuple[tuple[str, str], ...]:
    """The subjects that bind an entry to the bytes of an alert, a receipt or an acknowledgement, not to its id alone."""
    return tuple(zip(DOCUMENT_LABELS[kind], (document, digest), strict=True))


def format_leaf(leaf: AuditLeaf) -> bytes:
    """The exact bytes that are hashed; ``Malformed`` where they are more than an entry may have."""
    raw = format_json(
        {
            "index": leaf.index,
            "kind": leaf.kind.value,
            "at": leaf.at,
            "actor": leaf.actor,
            "subjects": [[label, value] for label, value in leaf.subjects],
            "detail": leaf.detail,
            "salt": encode_base64url(leaf.salt),
        }
    )
    if len(raw) > MAX_LEAF_BYTES:
        raise Malformed(f"an audit entry of {len(raw)} bytes", Reason.OVERSIZE)
    return raw


def parse_leaf(raw: bytes) -> AuditLeaf:
    """``Malformed`` unless ``raw`` is a leaf in its one form."""
    value = exact_members(parse_json(raw, limit=MAX_LEAF_BYTES), _MEMBERS, "audit entry")
    kind = value["kind"]
    if kind not in _AUDITKINDS:
        raise Malformed("the kind of the entry is unknown", Reason.BAD_LOG)
    leaf = AuditLeaf(
        index=require_integer(value["index"], "index"),
        kind=AuditKind(str(kind)),
        at=require_integer(value["at"], "at", most=MAX_MILLISECONDS),
        actor=require_string(value["actor"], "actor"),
        subjects=tuple(
            _parse_subject(each)
            for each in require_list(value["subjects"], "subjects", most=MAX_SUBJECTS)
        ),
        detail=require_string(value["detail"], "detail", most=1000),
        salt=decode_base64url(value["salt"], length=SALT_BYTES),
    )
    if format_leaf(leaf) != raw:
        raise Malformed("the entry is not in its one form", Reason.BAD_LOG)
    return leaf


def _parse_subject(value: Json) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 -- label and value
        raise Malformed("a subject is a label and a value", Reason.BAD_LOG)
    return require_string(value[0], "label", most=32), require_string(value[1], "value")
