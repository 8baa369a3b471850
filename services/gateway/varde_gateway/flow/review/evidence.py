"""The evidence of one alert: everything signed about it, and the log's proofs, as one file that needs no server to check.

Protocol section 10.7. Only what a signed checkpoint covers goes in, so that every line of the file can be proven; the
checkpoint is the one with the most cosignatures of those that cover it all. That it was taken is itself an entry.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, and_, func, or_, select

from varde.auditlog import AuditKind
from varde.bundle import (
    MAX_DOCUMENTS,
    MAX_ENTRIES,
    Claim,
    Exhibit,
    Header,
    ProvenEntry,
    checkpoint_line,
    claims_line,
    end_line,
    entry_line,
    exhibit_line,
    header_line,
    roster_line,
)
from varde.capcodes import MsgType
from varde.checkpoint import open_checkpoint
from varde.identifiers import Nation, parse_document_id, parse_nation
from varde.merkle import inclusion_proof
from varde.signing import Kind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Forbidden, NotFound
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.log.witness_report import cosigned_note, witness_names
from varde_gateway.flow.review.log_export import roster_reader
from varde_gateway.flow.review.review import Viewer, check_clearance
from varde_gateway.store.alerts import document_of_alert
from varde_gateway.store.review import withheld_among
from varde_gateway.store.tables import (
    AnyRow,
    acknowledgements_table,
    alerts_table,
    audit_leaves_table,
    audit_subjects_table,
    cosignatures_table,
    deliveries_table,
    documents_table,
    rosters_table,
)
from varde_gateway.store.tree import node_reader

_LOOKS: Final = (AuditKind.REVIEWED.value, AuditKind.EXPORTED.value)
"""Entries about who looked at the alert, not about what became of it; the whole log has them."""
_RECORDED: Final = (AuditKind.SENT.value, AuditKind.RECEIVED.value, AuditKind.ERASED.value)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of the file but the rosters, which are read one by one as they are written, up to ``roster_version``."""

    header: Header
    checkpoint: str
    exhibits: tuple[Exhibit, ...]
    entries: tuple[ProvenEntry, ...]
    claims: tuple[Claim, ...]
    left_out: int
    roster_version: int


async def gather_evidence(
    desk: Desk, viewer: Viewer, alert_id: str, sender: str | None
) -> Evidence:
    """Gather it, and log that it was taken; ``NotFound``, or ``Forbidden`` where it is above the viewer's clearance."""
    await check_clearance(desk, viewer, alert_id)
    # What was recorded before this moment is under a signed checkpoint then.
    newest = await checkpoint(desk)
    size = open_checkpoint(newest, desk.log_signer.key).size
    try:
        found = await desk.ledger.read(
            lambda c: _gather(c, desk, alert_id, sender, size=size, viewer=viewer)
        )
    except KeyError as error:
        raise Conflict(
            "The stored log is damaged: a node of its tree is missing, so that nothing can be proven from it. "
            "'varde audit export' and 'varde audit verify' name the entry."
        ) from error
    if found is None:
        raise NotFound(f"There is no alert {alert_id} at this node.")
    said = f"evidence, {len(found.exhibits)} documents, {len(found.entries)} entries"
    subjects = [("document", alert_id)]
    await desk.ledger.write(
        lambda tx: tx.audit(AuditKind.EXPORTED, viewer.username, subjects, said)
    )
    return found


async def evidence_lines(desk: Desk, evidence: Evidence) -> AsyncIterator[str]:
    """The file, in the order of its form."""
    yield header_line(evidence.header)
    for version in range(1, evidence.roster_version + 1):
        yield roster_line(await desk.ledger.read(roster_reader(version)))
    yield checkpoint_line(evidence.checkpoint)
    for exhibit in evidence.exhibits:
        yield exhibit_line(exhibit)
    yield "".join(entry_line(each) for each in evidence.entries)
    yield claims_line(evidence.claims, evidence.left_out)
    yield end_line(evidence.roster_version, len(evidence.exhibits), len(evidence.entries))


def _gather(
    connection: Connection,
    desk: Desk,
    alert_id: str,
    sender: str | None,
    *,
    size: int,
    viewer: Viewer,
) -> Evidence | None:
    query = select(alerts_table).where(alerts_table.c.id == alert_id)
    if sender is not None:
        query = query.where(alerts_table.c.sender == sender)
    alert = connection.execute(query.order_by(alerts_table.c.serial).limit(1)).one_or_none()
    if alert is None:
        return None
    successors = _successors(connection, alert)
    leaves = _leaves(connection, alert, successors, size)
    if not leaves:
        raise Conflict(
            "The log's entry about this alert is not under a signed checkpoint yet. Ask again."
        )
    if withheld_among(connection, [index for index, _, _ in leaves], viewer.clearance):
        raise Forbidden(
            "Entries of this evidence also speak of alerts above your clearance, and a proof cannot be cut. "
            "Somebody cleared for those can take it."
        )
    keys = _documents(connection, desk.nation, alert, successors, leaves)
    exhibits = [*_exhibits(connection, keys[:MAX_DOCUMENTS])]
    last = max(index for index, _, _ in leaves)
    note = _best_note(connection, desk, last, size)
    signed = open_checkpoint(note, desk.log_signer.key).size
    read = cache(node_reader(connection))
    version = connection.scalar(select(func.max(rosters_table.c.version)))
    return Evidence(
        header=Header(
            alert=parse_document_id(alert.id),
            sender=parse_nation(alert.sender),
            node=desk.nation,
            federation=desk.trust.current.federation,
        ),
        checkpoint=note,
        exhibits=tuple(exhibits),
        entries=tuple(
            ProvenEntry(index, text, tuple(inclusion_proof(index, signed, read)))
            for index, text, _ in leaves
        ),
        claims=tuple(_claims(connection, alert, desk.nation)),
        left_out=max(0, len(keys) - MAX_DOCUMENTS),
        roster_version=version or 0,
    )


def _successors(connection: Connection, alert: AnyRow) -> list[AnyRow]:
    """Updates and cancellations by the same nation that name the alert in their references."""
    rows = connection.execute(
        select(
            alerts_table.c.sender,
            alerts_table.c.id,
            alerts_table.c.refers_to,
            documents_table.c.digest,
        )
        .join(
            documents_table,
            document_of_alert(),
        )
        .where(
            alerts_table.c.sender == alert.sender,
            alerts_table.c.serial > alert.serial,
            alerts_table.c.message_type.in_((MsgType.UPDATE.value, MsgType.CANCEL.value)),
            alerts_table.c.refers_to.contains(alert.identifier, autoescape=True),
        )
        .order_by(alerts_table.c.serial)
    )
    return [row for row in rows if alert.identifier in row.refers_to.split(" ")]


def _leaves(
    connection: Connection, alert: AnyRow, successors: Sequence[AnyRow], size: int
) -> list[tuple[int, str, dict[str, Any]]]:
    """The entries about them among the first ``size``, in order; not those about another document with the same id."""
    subject, leaf = audit_subjects_table.c, audit_leaves_table.c
    about = or_(
        and_(subject.label == "document", subject.value == alert.id, leaf.kind.not_in(_LOOKS)),
        and_(
            subject.label == "document",
            subject.value.in_([each.id for each in successors]),
            leaf.kind.in_(_RECORDED),
        ),
    )
    rows = connection.execute(
        select(leaf.index, leaf.leaf)
        .join(audit_subjects_table, subject.index == leaf.index)
        .where(about, leaf.index < size)
        .distinct()
        .order_by(leaf.index)
        .limit(MAX_ENTRIES)
    )
    digests = {
        *(each.digest for each in successors),
        _digest_of(connection, alert.sender, alert.id),
    }
    found: list[tuple[int, str, dict[str, Any]]] = []
    for index, text in rows:
        value = json.loads(text)
        named = [each for label, each in value["subjects"] if label == "digest"]
        if not named or digests.intersection(named):
            found.append((index, text, value))
    return found


def _digest_of(connection: Connection, sender: str, document: str) -> str | None:
    return connection.scalar(
        select(documents_table.c.digest).where(
            documents_table.c.sender == sender, documents_table.c.id == document
        )
    )


def _documents(
    connection: Connection,
    own: Nation,
    alert: AnyRow,
    successors: Sequence[AnyRow],
    leaves: Iterable[tuple[int, str, dict[str, Any]]],
) -> list[tuple[str, str]]:
    """Sender and id of every document that goes in, the alert first; only what an entry here speaks of."""
    logged: set[str] = set()
    receipts: list[tuple[str, str]] = []
    for _, _, leaf in leaves:
        logged.update(value for _, value in leaf["subjects"])
        if ["document", alert.id] not in leaf["subjects"]:
            continue
        # An entry that it was received names the receipt that we signed for it.
        received = leaf["kind"] == AuditKind.RECEIVED
        nation = own if received else leaf["actor"].partition("/")[0]
        receipts += [(nation, value) for label, value in leaf["subjects"] if label == "receipt"]
    answers = connection.execute(
        select(acknowledgements_table.c.nation, acknowledgements_table.c.id)
        .where(
            acknowledgements_table.c.alert_sender == alert.sender,
            acknowledgements_table.c.alert_id == alert.id,
        )
        .order_by(acknowledgements_table.c.at, acknowledgements_table.c.id)
    )
    return [
        (alert.sender, alert.id),
        *((each.sender, each.id) for each in successors if each.id in logged),
        *dict.fromkeys(receipts),
        *((each.nation, each.id) for each in answers if each.id in logged),
    ]


def _exhibits(connection: Connection, keys: Iterable[tuple[str, str]]) -> Iterable[Exhibit]:
    for sender, document in keys:
        row = connection.execute(
            select(documents_table).where(
                documents_table.c.sender == sender, documents_table.c.id == document
            )
        ).one_or_none()
        if row is None:
            raise Conflict(
                f"Document {document} of {sender}, of which the log speaks, is not in the database any more: somebody has "
                "deleted it by hand. 'varde audit export' still proves the entries about it."
            )
        yield Exhibit(
            kind=Kind(row.kind),
            sender=parse_nation(row.sender),
            id=parse_document_id(row.id),
            digest=row.digest,
            raw=row.raw.decode("utf-8", "replace") or None,
        )


def _best_note(connection: Connection, desk: Desk, last: int, size: int) -> str:
    """Of our checkpoints that cover entry ``last`` the one with the most cosignatures, the newest of these."""
    names = witness_names(desk.trust.current, desk.nation)
    table = cosignatures_table.c
    best = connection.scalar(
        select(table.size)
        .where(table.size > last, table.size <= size, table.witness.in_(names))
        .group_by(table.size)
        .order_by(func.count().desc(), table.size.desc())
        .limit(1)
    )
    return cosigned_note(connection, size if best is None else best, names)


def _claims(connection: Connection, alert: AnyRow, own: Nation) -> Iterable[Claim]:
    if alert.sender != own:
        return
    rows = connection.execute(
        select(deliveries_table)
        .where(deliveries_table.c.document_id == alert.id)
        .order_by(deliveries_table.c.recipient)
    )
    for row in rows:
        yield Claim(
            to=parse_nation(row.recipient),
            state=row.state,
            moments=(
                row.queued_at,
                row.sent_at,
                row.delivered_at,
                row.displayed_at,
                row.acknowledged_at,
            ),
            via=row.via,
        )
