"""The fifth step: a document that verifies becomes a fact here, exactly once.

Runs inside the inbox's transaction. ``(sender, id)`` is unique: what came before is receipted again and otherwise
changes nothing. Each kind has its own recording; the body was read, and refused where malformed, before.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from sqlalchemy import bindparam, case, func, insert, null, select, update

from varde.acknowledgement import Acknowledgement, parse_acknowledgement
from varde.auditlog import AuditKind, name_document
from varde.bulletin import Bulletin, parse_bulletin
from varde.document import Document
from varde.encoding import JsonObject, format_json
from varde.errors import Malformed, Reason
from varde.identifiers import Lane, Nation
from varde.opening import Opened, Rejection
from varde.prekeys import Prekeys, format_prekeys, parse_prekeys
from varde.proposal import (
    Ballot,
    Proposal,
    Restoration,
    RosterWord,
    Suspension,
    parse_ballot,
    parse_roster_word,
)
from varde.receipt import Receipt, Stage, parse_receipt
from varde.signing import Kind
from varde_gateway.flow.attachments.attach import record_received
from varde_gateway.flow.compose import Composed
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.refusals import refuse_within
from varde_gateway.flow.roster.changes import record_ballot, record_proposal
from varde_gateway.flow.roster.prekeys import adopt_peer_prekeys
from varde_gateway.flow.roster.suspensions import record_peer_suspension
from varde_gateway.flow.send import (
    describe_alert,
    mark_superseded,
    record_alert,
    record_document,
)
from varde_gateway.store.alerts import document_of_alert, rfc3339
from varde_gateway.store.tables import (
    acknowledgements_table,
    alerts_table,
    deliveries_table,
    documents_table,
    peer_prekeys_table,
    peers_table,
)
from varde_gateway.store.transaction import Transaction

_KNOWN_DIGEST: Final = select(documents_table.c.digest).where(
    documents_table.c.sender == bindparam("key_sender"),
    documents_table.c.id == bindparam("key_id"),
)

Body: TypeAlias = Bulletin | Acknowledgement | Receipt | Prekeys | RosterWord | Ballot


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified document and its body, read."""

    opened: Opened
    body: Body


def read_body(opened: Opened) -> Body:
    """The body by kind; ``Malformed`` or ``Untrusted`` where it breaks its rules."""
    body = opened.document.body
    match opened.kind:
        case Kind.ALERT:
            return parse_bulletin(body)
        case Kind.ACKNOWLEDGEMENT:
            return parse_acknowledgement(body)
        case Kind.RECEIPT:
            return parse_receipt(body)
        case Kind.PREKEYS:
            return parse_prekeys(body)
        case Kind.ROSTER:
            return _read_roster_word(opened)
        case Kind.VOTE:
            return parse_ballot(body)
        case _:
            raise Malformed(f"this node does not take in a {opened.kind.value}", Reason.WRONG_KIND)


def record_accepted(
    tx: Transaction,
    desk: Desk,
    accepted: Accepted,
    recorded: dict[tuple[Nation, str], str],
    via: Sequence[Nation] = (),
    *,
    receipt: Sequence[tuple[str, str]] = (),
) -> None:
    """Record the document, its audit entry and its effect, unless it was recorded before.

    ``recorded`` are the digests that this step has recorded already, by sender and id; ``via`` the nations that handed
    the document on; ``receipt`` the subjects that name the receipt which we have signed for it.
    """
    opened, body = accepted.opened, accepted.body
    document = opened.document
    key = (document.sender, document.id)
    known = recorded.get(key) or tx.connection.scalar(
        _KNOWN_DIGEST, {"key_sender": document.sender, "key_id": document.id}
    )
    if known == opened.digest:
        return
    if known is not None:
        subjects = [("document", document.id), ("digest", opened.digest)]
        useless = Rejection(Reason.REPLAYED, "the id was used for another document", None)
        refuse_within(tx, desk.refusals, document.sender, useless, subjects)
        return
    recorded[key] = opened.digest
    lane = opened.header.lane if opened.header is not None else Lane.URGENT
    composed = Composed(opened.kind, lane, document, opened.raw, opened.digest)
    record_document(tx, composed, via)
    match body:
        case Bulletin():
            _record_alert(tx, desk, composed, body, via=via, receipt=receipt)
        case Acknowledgement():
            _record_acknowledgement(tx, desk, composed, body)
        case Receipt():
            _record_receipt(tx, desk, composed, body)
        case Prekeys():
            _record_prekeys(tx, desk, composed, body)
        case Proposal():
            record_proposal(tx, desk, document.sender, body)
        case Ballot():
            record_ballot(tx, desk, document.sender, body)
        case Suspension() | Restoration():
            record_peer_suspension(tx, document.sender, body)
        case _:
            assert_never(body)


def way_in_words(via: Sequence[Nation]) -> str:
    """How an audit entry names the way; nothing for the direct link."""
    return f" via {','.join(via)}" if via else ""


def record_heard(tx: Transaction, nations: Collection[Nation]) -> None:
    """These peers have just proved that they live."""
    tx.connection.execute(
        update(peers_table).where(peers_table.c.nation.in_(nations)).values(last_heard_at=tx.now)
    )


def _read_roster_word(opened: Opened) -> RosterWord:
    word = parse_roster_word(opened.document.body)
    sealed = opened.header is not None
    if isinstance(word, Proposal) == sealed:
        # What one nation thinks of another is not for those on the way; a proposal must reach whoever has no prekey.
        raise Malformed("a proposal travels unsealed, a suspension sealed")
    return word


def _record_alert(
    tx: Transaction,
    desk: Desk,
    composed: Composed,
    bulletin: Bulletin,
    *,
    via: Sequence[Nation],
    receipt: Sequence[tuple[str, str]],
) -> None:
    sender = composed.document.sender
    serial = tx.event("alert", describe_alert(composed, bulletin, "received"))
    record_alert(tx, desk, composed, bulletin, direction="in", author=sender, serial=serial)
    if bulletin.attachments:
        record_received(tx, desk, sender, composed.document.id, bulletin.attachments)
        tx.after_commit(desk.files_to_fetch.set)
    tx.audit(
        AuditKind.RECEIVED,
        sender,
        [*name_document(Kind.ALERT, composed.document.id, composed.digest), *receipt],
        f"{sender} to {','.join(composed.document.to)}{way_in_words(via)}",
    )
    mark_superseded(tx, sender, bulletin.alert)


def _record_acknowledgement(
    tx: Transaction, desk: Desk, composed: Composed, acknowledgement: Acknowledgement
) -> None:
    nation = composed.document.sender
    alert = tx.connection.execute(
        select(alerts_table.c.sender, alerts_table.c.recipients)
        .join(
            documents_table,
            document_of_alert(),
        )
        .where(
            alerts_table.c.id == acknowledgement.document,
            documents_table.c.digest == acknowledgement.digest,
        )
    ).one_or_none()
    subjects = [
        *name_document(Kind.ALERT, acknowledgement.document, acknowledgement.digest),
        *name_document(Kind.ACKNOWLEDGEMENT, composed.document.id, composed.digest),
    ]
    if alert is None or nation not in alert.recipients.split(","):
        words = "acknowledgement of an alert that was not sent to it"
        refuse_within(tx, desk.refusals, nation, Rejection(Reason.BAD_BODY, words, None), subjects)
        return
    record_acknowledgement_row(tx, composed, acknowledgement, alert.sender)
    tx.audit(
        AuditKind.ACKNOWLEDGED,
        f"{nation}/{acknowledgement.officer}",
        subjects,
        acknowledgement.response.value,
    )
    if alert.sender == desk.nation:
        _advance(
            tx, [acknowledgement.document], nation, "acknowledged", evidence=composed.document.id
        )


def record_acknowledgement_row(
    tx: Transaction, composed: Composed, acknowledgement: Acknowledgement, alert_sender: str
) -> JsonObject:
    """Keep an officer's answer and announce it; returns what the API says of it."""
    tx.add(
        acknowledgements_table,
        {
            "nation": composed.document.sender,
            "id": composed.document.id,
            "alert_sender": alert_sender,
            "alert_id": acknowledgement.document,
            "officer": acknowledgement.officer,
            "response": acknowledgement.response.value,
            "note": acknowledgement.note,
            "at": acknowledgement.at,
        },
    )
    described: JsonObject = {
        "id": composed.document.id,
        "alert": acknowledgement.document,
        "nation": composed.document.sender,
        "officer": acknowledgement.officer,
        "response": acknowledgement.response.value,
        "note": acknowledgement.note,
        "at": rfc3339(acknowledgement.at),
    }
    tx.event("acknowledgement", {**described, "alert_from": alert_sender})
    return described


def _record_receipt(tx: Transaction, desk: Desk, composed: Composed, receipt: Receipt) -> None:
    nation = composed.document.sender
    ids = [each.id for each in receipt.documents]
    kinds = {
        row.id: row
        for row in tx.connection.execute(
            select(documents_table.c.id, documents_table.c.digest, documents_table.c.kind).where(
                documents_table.c.sender == desk.nation, documents_table.c.id.in_(ids)
            )
        )
    }
    genuine = [
        each.id
        for each in receipt.documents
        if each.id in kinds and kinds[each.id].digest == each.digest
    ]
    tx.audit(
        AuditKind.RECEIPTED if receipt.stage is Stage.DELIVERED else AuditKind.DISPLAYED,
        nation,
        [
            *name_document(Kind.RECEIPT, composed.document.id, composed.digest),
            *(("document", each) for each in genuine),
        ],
        f"{receipt.stage.value}, {len(genuine)} of {len(ids)} known"
        + way_in_words(max((each.via for each in receipt.documents), key=len)),
    )
    moved: set[str] = set()
    ways = {each.id: each.via for each in receipt.documents}
    for via in sorted({ways[each] for each in genuine}):
        on_this_way = [each for each in genuine if ways[each] == via]
        moved |= _advance(
            tx, on_this_way, nation, receipt.stage.value, evidence=composed.document.id, via=via
        )
    for each in genuine:
        if each in moved and kinds[each].kind == Kind.ALERT.value:
            tx.event("delivery", {"id": each, "to": nation, "state": receipt.stage.value})


_ORDER = ("queued", "sent", "delivered", "displayed", "acknowledged")


def _advance(
    tx: Transaction,
    documents: Sequence[str],
    nation: str,
    state: str,
    *,
    evidence: str,
    via: Sequence[Nation] = (),
) -> set[str]:
    """Move deliveries forward, never backwards; any word of the recipient proves that it has the document."""
    earlier = _ORDER[: _ORDER.index(state)]
    reached = {
        "delivered": deliveries_table.c.delivered_at,
        "displayed": deliveries_table.c.displayed_at,
        "acknowledged": deliveries_table.c.acknowledged_at,
    }
    values: dict[str, object] = {
        column.key: case((column.is_(None), tx.now), else_=column)
        for name, column in reached.items()
        if name in ("delivered", state)
    }
    # The record of the sending may come after the receipt; it then puts the exact moment here.
    values["sent_at"] = func.coalesce(deliveries_table.c.sent_at, tx.now)
    values["state"] = case(
        (deliveries_table.c.state.in_((*earlier, "failed")), state), else_=deliveries_table.c.state
    )
    if state == "delivered":
        # The first receipt stands: a document that came again by another way is the same document.
        receipted = deliveries_table.c.receipt_id.is_not(None)
        values["receipt_id"] = case((receipted, deliveries_table.c.receipt_id), else_=evidence)
        values["via"] = case(
            (receipted, deliveries_table.c.via), else_=",".join(via) if via else null()
        )
    moved = tx.connection.execute(
        update(deliveries_table)
        .where(
            deliveries_table.c.document_id.in_(documents), deliveries_table.c.recipient == nation
        )
        .values(open=False, last_error=None, **values)
        .returning(deliveries_table.c.document_id)
    )
    return {document for (document,) in moved}


def _record_prekeys(tx: Transaction, desk: Desk, composed: Composed, prekeys: Prekeys) -> None:
    nation = composed.document.sender
    known = tx.connection.scalar(
        select(peer_prekeys_table.c.sequence).where(peer_prekeys_table.c.nation == nation)
    )
    subjects = [("document", composed.document.id), ("digest", composed.digest)]
    useless = None
    if _signed_by_former_keys(desk, composed.document):
        words = "prekeys signed with keys that were replaced"
        useless = Rejection(Reason.OLD_ROSTER, words, None)
    elif known is not None and prekeys.sequence <= known:
        words = f"prekeys {prekeys.sequence} do not follow {known}"
        useless = Rejection(Reason.REPLAYED, words, None)
    if useless is not None:
        refuse_within(tx, desk.refusals, nation, useless, subjects)
        return
    row = {
        "nation": nation,
        "sequence": prekeys.sequence,
        "body": format_json(format_prekeys(prekeys)).decode(),
        "received_at": tx.now,
    }
    if known is None:
        tx.connection.execute(insert(peer_prekeys_table), row)
    else:
        tx.connection.execute(
            update(peer_prekeys_table).where(peer_prekeys_table.c.nation == nation).values(**row)
        )
    tx.audit(AuditKind.PREKEYS_ACCEPTED, nation, subjects, f"sequence {prekeys.sequence}")
    adopt_peer_prekeys(tx, desk, Nation(nation), prekeys)


def _signed_by_former_keys(desk: Desk, document: Document) -> bool:
    # The grace of an old roster is for what was on the way. A stolen key must not choose what others seal for.
    former = desk.trust.earlier.get(document.roster.version)
    seat = desk.trust.current.members.get(document.sender)
    if former is None or seat is None:
        return False
    was = former.members.get(document.sender)
    return was is None or was.signing_keys != seat.signing_keys
