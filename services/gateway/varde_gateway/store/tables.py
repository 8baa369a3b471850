"""Every table of a node, one class each. Times are Unix milliseconds unless the name says otherwise.

What is said twice in different words would drift apart, so a document's bytes are kept once, in ``document.raw``, as
they were signed; the ``alert`` row beside it holds only what lists and searches need.
"""

from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row whose columns the query names; attributes are untyped."""

# SQLite gives rowids only to INTEGER keys, PostgreSQL needs 64 bits.
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")


class DocumentRow(SQLModel, table=True):
    """A signed document, ours or received; ``(sender, id)`` is what makes a redelivery one visible effect.

    ``via`` are the nations that handed it on, comma-separated; null where it came over the direct link.
    """

    __tablename__ = "document"
    __table_args__ = (Index("document_by_received", "recorded_at"),)

    sender: str = Field(primary_key=True, max_length=8)
    id: str = Field(primary_key=True, max_length=36)
    kind: str = Field(max_length=16)
    lane: str = Field(max_length=8)
    digest: str = Field(max_length=43, index=True)
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    via: str | None = Field(default=None, max_length=64)
    issued_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)
    recorded_at: int = Field(sa_type=BigInteger)


class AlertRow(SQLModel, table=True):
    """What lists and searches need of an alert document; ``body`` is the CAP as JSON.

    ``refers_to`` are the identifiers of what an update or cancellation refers to, with a space between.
    """

    __tablename__ = "alert"
    __table_args__ = (Index("alert_by_id", "id"), Index("alert_by_recorded", "recorded_at"))

    sender: str = Field(primary_key=True, max_length=8)
    id: str = Field(primary_key=True, max_length=36)
    serial: int = Field(sa_type=BigInteger, unique=True)
    direction: str = Field(max_length=8)
    recipients: str = Field(max_length=600)
    identifier: str = Field(max_length=512, index=True)
    status: str = Field(max_length=8)
    message_type: str = Field(max_length=8)
    severity: str = Field(max_length=8)
    headline: str = Field(sa_column=Column(Text, nullable=False))
    tlp: str = Field(max_length=16)
    state: str = Field(max_length=16)
    answers_to_all: bool
    deadline_at: int = Field(sa_type=BigInteger)
    displayed_at: int | None = Field(default=None, sa_type=BigInteger)
    author: str = Field(max_length=128)
    body: str = Field(sa_column=Column(Text, nullable=False))
    refers_to: str = Field(sa_column=Column(Text, nullable=False, server_default=""))
    recorded_at: int = Field(sa_type=BigInteger)


class DeliveryRow(SQLModel, table=True):
    """One document of ours to one recipient; open until the recipient's signed receipt is here."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("recipient", "sequence"),
        Index("delivery_due", "open", "next_attempt_at"),
        Index("delivery_unanswered", "overdue_noticed", "acknowledged_at"),
        Index("delivery_by_queued", "queued_at"),
    )

    document_id: str = Field(primary_key=True, max_length=36)
    recipient: str = Field(primary_key=True, max_length=8)
    lane: str = Field(max_length=8)
    sealed: bool
    sequence: int | None = Field(default=None, sa_type=BigInteger)
    state: str = Field(max_length=16)
    open: bool
    attempts: int = 0
    next_attempt_at: int = Field(sa_type=BigInteger)
    last_error: str | None = Field(default=None, max_length=300)
    stale_prekey: bool = False
    via: str | None = Field(default=None, max_length=64)
    rerouted_at: int | None = Field(default=None, sa_type=BigInteger)
    reroutings: int = 0
    queued_at: int = Field(sa_type=BigInteger)
    sent_at: int | None = Field(default=None, sa_type=BigInteger)
    delivered_at: int | None = Field(default=None, sa_type=BigInteger)
    displayed_at: int | None = Field(default=None, sa_type=BigInteger)
    acknowledged_at: int | None = Field(default=None, sa_type=BigInteger)
    receipt_id: str | None = Field(default=None, max_length=36)
    overdue_noticed: bool = False


class AcknowledgementRow(SQLModel, table=True):
    """An officer's answer to an alert, ours or a peer's; the signed document is in ``document``."""

    __tablename__ = "acknowledgement"
    __table_args__ = (Index("acknowledgement_of_alert", "alert_sender", "alert_id"),)

    nation: str = Field(primary_key=True, max_length=8)
    id: str = Field(primary_key=True, max_length=36)
    alert_sender: str = Field(max_length=8)
    alert_id: str = Field(max_length=36)
    officer: str = Field(max_length=128)
    response: str = Field(max_length=16)
    note: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_type=BigInteger)


class EventRow(SQLModel, table=True):
    """What the event stream sends; the key is its ``Last-Event-ID``."""

    __tablename__ = "event"

    id: int = Field(sa_type=BigInteger, primary_key=True)
    kind: str = Field(max_length=32)
    at: int = Field(sa_type=BigInteger)
    data: str = Field(sa_column=Column(Text, nullable=False))


class IdempotencyRow(SQLModel, table=True):
    """The answer already given for an ``Idempotency-Key`` of one user on one path."""

    __tablename__ = "idempotency"

    owner: str = Field(primary_key=True, max_length=160)
    key: str = Field(primary_key=True, max_length=255)
    request_digest: str = Field(max_length=43)
    answer: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_type=BigInteger, index=True)


class UserRow(SQLModel, table=True):
    """A person who signs in; ``roles`` is a comma-separated list.

    ``clearance`` is the highest TLP marking whose content they see; after ``valid_until`` they are let in no more.
    """

    __tablename__ = "user_account"

    username: str = Field(primary_key=True, max_length=64)
    display_name: str = Field(max_length=128)
    password_hash: str = Field(max_length=256)
    roles: str = Field(max_length=128)
    disabled: bool = False
    tokens_valid_from: int = Field(default=0, sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)
    clearance: str = Field(default="RED", max_length=16)
    valid_until: int | None = Field(default=None, sa_type=BigInteger)
    expiry_noticed: bool = False


class SavedQueryRow(SQLModel, table=True):
    """A filter of audit entries that its owner comes back to; ``filter`` is JSON."""

    __tablename__ = "saved_query"

    owner: str = Field(primary_key=True, max_length=64)
    name: str = Field(primary_key=True, max_length=64)
    filter: str = Field(sa_column=Column(Text, nullable=False))
    saved_at: int = Field(sa_type=BigInteger)


class ErasureRow(SQLModel, table=True):
    """An alert whose content was erased under law, or shall be as soon as a second administrator says so too."""

    __tablename__ = "erasure"

    sender: str = Field(primary_key=True, max_length=8)
    alert_id: str = Field(primary_key=True, max_length=36)
    reason: str = Field(max_length=160)
    asked_by: str = Field(max_length=64)
    asked_at: int = Field(sa_type=BigInteger)
    confirmed_by: str | None = Field(default=None, max_length=64)
    erased_at: int | None = Field(default=None, sa_type=BigInteger)


class ArchiveRow(SQLModel, table=True):
    """A copy of the log and its documents that was taken away whole; what was recorded up to ``through`` is in it."""

    __tablename__ = "archive"

    log_digest: str = Field(primary_key=True, max_length=43)
    documents_digest: str = Field(primary_key=True, max_length=43)
    size: int = Field(sa_type=BigInteger)
    through: int = Field(sa_type=BigInteger)
    taken_by: str = Field(max_length=64)
    at: int = Field(sa_type=BigInteger)


class SensorRow(SQLModel, table=True):
    """A machine that posts to its webhook; the secret is wrapped by the keystore."""

    __tablename__ = "sensor"

    id: str = Field(primary_key=True, max_length=64)
    name: str = Field(max_length=128)
    wrapped_secret: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    recipients: str = Field(max_length=600)
    tlp: str = Field(max_length=16)
    disabled: bool = False
    created_at: int = Field(sa_type=BigInteger)


class SensorPostRow(SQLModel, table=True):
    """A webhook message that was accepted; the same ``webhook-id`` is not accepted twice."""

    __tablename__ = "sensor_post"

    sensor: str = Field(primary_key=True, max_length=64)
    webhook_id: str = Field(primary_key=True, max_length=128)
    body_digest: str = Field(max_length=43)
    alert_id: str = Field(max_length=36)
    at: int = Field(sa_type=BigInteger, index=True)


class OwnPrekeyRow(SQLModel, table=True):
    """The private half of one of our prekeys, wrapped; the row is deleted 48 h after its expiry (seconds)."""

    __tablename__ = "own_prekey"

    kid: str = Field(primary_key=True, max_length=43)
    not_before: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)
    wrapped_seed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class PeerPrekeysRow(SQLModel, table=True):
    """A peer's newest prekeys body; a lower sequence never replaces it."""

    __tablename__ = "peer_prekeys"

    nation: str = Field(primary_key=True, max_length=8)
    sequence: int = Field(sa_type=BigInteger)
    body: str = Field(sa_column=Column(Text, nullable=False))
    received_at: int = Field(sa_type=BigInteger)


class RosterRow(SQLModel, table=True):
    """Every roster version that this node has accepted, as it travelled with its votes."""

    __tablename__ = "roster"

    version: int = Field(primary_key=True)
    hash: str = Field(max_length=43)
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    accepted_at: int = Field(sa_type=BigInteger)


class RosterProposalRow(SQLModel, table=True):
    """A roster that may become the next version, once for each nation that brought it: none can push out another's."""

    __tablename__ = "roster_proposal"
    __table_args__ = (Index("roster_proposal_by_version", "version"),)

    hash: str = Field(primary_key=True, max_length=43)
    proposed_by: str = Field(primary_key=True, max_length=8)
    version: int = Field(sa_type=BigInteger)
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    received_at: int = Field(sa_type=BigInteger)


class RosterVoteRow(SQLModel, table=True):
    """A vote that was brought, once for each of the voter's keys and each nation that brought it; it may be spoiled."""

    __tablename__ = "roster_vote"
    __table_args__ = (Index("roster_vote_by_version", "version"),)

    hash: str = Field(primary_key=True, max_length=43)
    nation: str = Field(primary_key=True, max_length=8)
    key: str = Field(primary_key=True, max_length=43)
    carried_by: str = Field(primary_key=True, max_length=8)
    version: int = Field(sa_type=BigInteger)
    vote: str = Field(sa_column=Column(Text, nullable=False))
    received_at: int = Field(sa_type=BigInteger)


class RosterForkRow(SQLModel, table=True):
    """Evidence: one of two rosters of a version that both have the members' votes, as it would travel."""

    __tablename__ = "roster_fork"

    hash: str = Field(primary_key=True, max_length=43)
    version: int = Field(sa_type=BigInteger)
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    seen_at: int = Field(sa_type=BigInteger)
    settled_at: int | None = Field(default=None, sa_type=BigInteger)


class PeerSuspensionRow(SQLModel, table=True):
    """The last that another nation told us of a suspension by it; ``since`` in Unix seconds, as it said."""

    __tablename__ = "peer_suspension"

    suspended_by: str = Field(primary_key=True, max_length=8)
    nation: str = Field(primary_key=True, max_length=8)
    active: bool
    reason: str = Field(max_length=500)
    since: int = Field(sa_type=BigInteger)


class SuspensionRow(SQLModel, table=True):
    """A peer that this nation does not trust for now."""

    __tablename__ = "suspension"

    nation: str = Field(primary_key=True, max_length=8)
    reason: str = Field(max_length=500)
    since: int = Field(sa_type=BigInteger)


class PeerRow(SQLModel, table=True):
    """A peer: when it was last heard, what we have numbered for it, and what of its numbers has come.

    ``sent_chain`` covers ``sent_from`` to ``next_sequence - 1``, ``received_chain`` covers ``received_from`` to
    ``received_through``; null is the chain of nothing.
    """

    __tablename__ = "peer"

    nation: str = Field(primary_key=True, max_length=8)
    next_sequence: int = Field(default=1, sa_type=BigInteger)
    sent_from: int = Field(default=1, sa_type=BigInteger)
    sent_chain: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    received_from: int = Field(default=1, sa_type=BigInteger)
    received_through: int = Field(default=0, sa_type=BigInteger)
    received_chain: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    last_heard_at: int | None = Field(default=None, sa_type=BigInteger)


class ArrivalRow(SQLModel, table=True):
    """A document that came before one with a lower number, which is still missing."""

    __tablename__ = "arrival"

    sender: str = Field(primary_key=True, max_length=8)
    sequence: int = Field(
        sa_column=Column("sequence", BigInteger, primary_key=True, autoincrement=False)
    )
    digest: str = Field(max_length=43)


class AuditLeafRow(SQLModel, table=True):
    """One entry of the audit log: the exact leaf and its hash."""

    __tablename__ = "audit_leaf"
    __table_args__ = (
        Index("audit_leaf_by_kind", "kind", "index"),
        Index("audit_leaf_by_time", "at", "kind", "index"),
        Index("audit_leaf_by_actor", "actor", "index"),
    )

    index: int = Field(sa_column=Column("index", _SERIAL, primary_key=True, autoincrement=False))
    kind: str = Field(max_length=32)
    at: int = Field(sa_type=BigInteger)
    actor: str = Field(max_length=160)
    leaf: str = Field(sa_column=Column(Text, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AuditSubjectRow(SQLModel, table=True):
    """Which document, user or nation an entry is about, for search; nations also where only its detail names them."""

    __tablename__ = "audit_subject"
    __table_args__ = (Index("audit_subject_by_value", "value", "label", "index"),)

    index: int = Field(sa_column=Column("index", _SERIAL, primary_key=True, autoincrement=False))
    label: str = Field(primary_key=True, max_length=32)
    value: str = Field(primary_key=True, max_length=160)


class AuditNodeRow(SQLModel, table=True):
    """A complete interior node of the tree; level 0 are the leaf hashes, in ``audit_leaf``."""

    __tablename__ = "audit_node"

    level: int = Field(primary_key=True)
    index: int = Field(sa_column=Column("index", BigInteger, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class CheckpointRow(SQLModel, table=True):
    """A checkpoint that this node has signed, as a signed note."""

    __tablename__ = "audit_checkpoint"

    size: int = Field(sa_column=Column("size", BigInteger, primary_key=True, autoincrement=False))
    note: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_type=BigInteger)


class WitnessedRow(SQLModel, table=True):
    """The newest checkpoint of another log that was found to continue the ones before; we cosign from here on."""

    __tablename__ = "witnessed"

    origin: str = Field(primary_key=True, max_length=255)
    size: int = Field(sa_type=BigInteger)
    note: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_type=BigInteger)


class CosignatureRow(SQLModel, table=True):
    """A witness's signature line under one of our checkpoints."""

    __tablename__ = "cosignature"

    size: int = Field(sa_column=Column("size", BigInteger, primary_key=True, autoincrement=False))
    witness: str = Field(primary_key=True, max_length=255)
    line: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_type=BigInteger)


class LogConflictRow(SQLModel, table=True):
    """Two checkpoints that one log has signed and that do not belong to one history: evidence, never deleted."""

    __tablename__ = "log_conflict"

    digest: str = Field(primary_key=True, max_length=43)
    origin: str = Field(max_length=255, index=True)
    first_note: str = Field(sa_column=Column(Text, nullable=False))
    second_note: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(max_length=300)
    at: int = Field(sa_type=BigInteger)


class LogUnprovenRow(SQLModel, table=True):
    """A state of a log, as somebody has seen it, that the log has not proven to belong to what it shows us; until it does."""

    __tablename__ = "log_unproven"

    origin: str = Field(primary_key=True, max_length=255)
    size: int = Field(sa_column=Column("size", BigInteger, primary_key=True, autoincrement=False))
    seen_by: str = Field(max_length=16)
    first_note: str = Field(sa_column=Column(Text, nullable=False))
    second_note: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(max_length=300)
    at: int = Field(sa_type=BigInteger)


class AttachmentRow(SQLModel, table=True):
    """A file beside an alert, ours or received; its sealed chunks are a file of this name, and the key opens them.

    ``reference`` is the digest of what the signed body says of it: two alerts that say the same have one row.
    ``received`` counts bytes of the file; ``offered_at`` is when our broker was seen to hold it for the peers.
    """

    __tablename__ = "attachment"
    __table_args__ = (Index("attachment_due", "state", "next_try_at"),)

    id: str = Field(primary_key=True, max_length=36)
    reference: str = Field(max_length=43, unique=True)
    name: str = Field(max_length=128)
    media_type: str = Field(max_length=127)
    size: int = Field(sa_type=BigInteger)
    digest: str = Field(max_length=43)
    blob: str = Field(max_length=43)
    key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    uploaded_by: str | None = Field(default=None, max_length=64)
    state: str = Field(max_length=16)
    received: int = Field(default=0, sa_type=BigInteger)
    chunk_list: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    attempts: int = 0
    next_try_at: int = Field(sa_type=BigInteger)
    last_error: str | None = Field(default=None, max_length=300)
    offered_at: int | None = Field(default=None, sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)


class AlertAttachmentRow(SQLModel, table=True):
    """Which files an alert names, in its order."""

    __tablename__ = "alert_attachment"

    sender: str = Field(primary_key=True, max_length=8)
    alert_id: str = Field(primary_key=True, max_length=36)
    position: int = Field(primary_key=True)
    attachment_id: str = Field(max_length=36, index=True)


class NodeFactRow(SQLModel, table=True):
    """Small facts about this node itself, such as when it was founded."""

    __tablename__ = "node_fact"

    name: str = Field(primary_key=True, max_length=64)
    value: str = Field(sa_column=Column(Text, nullable=False))


def _table(row: type[SQLModel]) -> Table:
    table = row.__table__  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return table


documents_table = _table(DocumentRow)
alerts_table = _table(AlertRow)
deliveries_table = _table(DeliveryRow)
acknowledgements_table = _table(AcknowledgementRow)
events_table = _table(EventRow)
idempotency_table = _table(IdempotencyRow)
users_table = _table(UserRow)
saved_queries_table = _table(SavedQueryRow)
erasures_table = _table(ErasureRow)
archives_table = _table(ArchiveRow)
sensors_table = _table(SensorRow)
sensor_posts_table = _table(SensorPostRow)
own_prekeys_table = _table(OwnPrekeyRow)
peer_prekeys_table = _table(PeerPrekeysRow)
rosters_table = _table(RosterRow)
roster_proposals_table = _table(RosterProposalRow)
roster_votes_table = _table(RosterVoteRow)
roster_forks_table = _table(RosterForkRow)
suspensions_table = _table(SuspensionRow)
peer_suspensions_table = _table(PeerSuspensionRow)
peers_table = _table(PeerRow)
arrivals_table = _table(ArrivalRow)
audit_leaves_table = _table(AuditLeafRow)
audit_subjects_table = _table(AuditSubjectRow)
audit_nodes_table = _table(AuditNodeRow)
checkpoints_table = _table(CheckpointRow)
witnessed_table = _table(WitnessedRow)
cosignatures_table = _table(CosignatureRow)
log_conflicts_table = _table(LogConflictRow)
log_unproven_table = _table(LogUnprovenRow)
attachments_table = _table(AttachmentRow)
alert_attachments_table = _table(AlertAttachmentRow)
node_facts_table = _table(NodeFactRow)
