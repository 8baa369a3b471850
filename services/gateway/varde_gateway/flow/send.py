"""The second step: a signed document becomes a fact.

Document, deliveries, audit entry, event and the answer to the Idempotency-Key are one transaction, durable before the
caller hears 202.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import update

from varde.alert import Alert, format_alert
from varde.auditlog import AuditKind
from varde.bulletin import Bulletin, Tlp, format_bulletin
from varde.capcodes import MsgType
from varde.encoding import JsonObject, format_json
from varde.errors import Malformed
from varde.identifiers import DocumentId, Nation
from varde.signing import Kind
from varde_gateway.flow.attachments.attach import find_uploads, name_uploads
from varde_gateway.flow.compose import Composed, compose, lane_of
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Invalid
from varde_gateway.flow.idempotency import Claim, once
from varde_gateway.flow.memory.links import LinkState
from varde_gateway.flow.memory.outgoing import Job
from varde_gateway.store.tables import alerts_table, deliveries_table, documents_table
from varde_gateway.store.transaction import Transaction

_SEVERITY_ORDER = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator, a sensor or a drill asks to be sent; ``attachments`` are the ids of uploaded files."""

    to: tuple[Nation, ...]
    tlp: Tlp
    alert: Alert
    share_acknowledgements: bool = False
    attachments: tuple[str, ...] = ()


async def send_alert(
    desk: Desk,
    order: Order,
    *,
    author: str,
    document_id: DocumentId,
    claim: Claim | None,
    beside: Callable[[Transaction], None] | None = None,
) -> JsonObject:
    """Sign and record an alert, and whatever ``beside`` records with it; the answer is the body of the 202.

    ``Invalid`` where a recipient is unknown or is ourselves; ``Conflict`` where the key of ``claim`` was used with
    another request.
    """
    recipients = check_recipients(desk, order.to)
    uploads = await find_uploads(desk, order.attachments)
    bulletin = Bulletin(
        order.tlp,
        order.alert,
        order.share_acknowledgements,
        tuple(each.attachment for each in uploads),
    )
    try:
        composed = await compose(
            desk,
            Kind.ALERT,
            recipients,
            format_bulletin(bulletin),
            lane=lane_of(order.alert),
            life_seconds=desk.policy.document_life_seconds,
            document=document_id,
        )
    except Malformed as error:
        raise Invalid(f"The alert cannot be sent: {error.detail}.") from error

    def record(tx: Transaction) -> JsonObject:
        def act() -> JsonObject:
            serial = tx.event("alert", describe_alert(composed, bulletin, "sent"))
            record_document(tx, composed)
            record_alert(
                tx, desk, composed, bulletin, direction="out", author=author, serial=serial
            )
            if uploads:
                name_uploads(tx, desk.nation, composed.document.id, order.attachments)
                tx.after_commit(desk.files_to_offer.set)
            queue_deliveries(tx, desk, composed, recipients, sealed=True)
            tx.audit(
                AuditKind.SENT,
                author,
                [("document", composed.document.id), ("digest", composed.digest)],
                ",".join(recipients),
            )
            mark_superseded(tx, desk.nation, order.alert)
            if beside is not None:
                beside(tx)
            return {
                "id": composed.document.id,
                "identifier": order.alert.identifier,
                "state": "sent",
                "deliveries": [{"to": each, "state": "queued"} for each in recipients],
            }

        return once(tx, claim, act)

    return await desk.ledger.write(record)


def check_recipients(desk: Desk, to: Sequence[Nation]) -> tuple[Nation, ...]:
    """The recipients sorted, each once; ``Invalid`` naming the ones that cannot be sent to."""
    if not desk.is_member():
        raise Invalid(
            f"{desk.nation} has no seat in the federation now: nobody would take what it sends. "
            "The members vote it in with 'varde roster propose --add'."
        )
    members = desk.trust.current.members
    unknown = sorted({each for each in to if each not in members})
    if unknown:
        raise Invalid(
            f"{', '.join(unknown)} is not a member of this federation. Members: {', '.join(sorted(members))}."
        )
    recipients = tuple(sorted({*to} - {desk.nation}))
    if not recipients:
        raise Invalid("Name at least one other nation in 'to', or \"*\" for all members.")
    return recipients


def record_document(tx: Transaction, composed: Composed, via: Sequence[Nation] = ()) -> None:
    """Keep the signed bytes, and by which nations they came."""
    document = composed.document
    tx.add(
        documents_table,
        {
            "sender": document.sender,
            "id": document.id,
            "kind": composed.kind.value,
            "lane": composed.lane.value,
            "digest": composed.digest,
            "raw": composed.raw,
            "via": ",".join(via) or None,
            "issued_at": document.issued_at,
            "expires_at": document.expires_at,
            "recorded_at": tx.now,
        },
    )


def queue_deliveries(
    tx: Transaction,
    desk: Desk,
    composed: Composed,
    recipients: Sequence[Nation],
    *,
    sealed: bool,
    numbered: bool = True,
    through: Nation | None = None,
) -> None:
    """Open one delivery per recipient, numbered per recipient, and hand them to the outbox after the commit.

    ``through`` is the nation by which the document that this one answers came: the answer goes that way too, beside
    the direct link. Without it, the answer to a nation whose link is known to be cut goes by the first way there is.
    """
    document = composed.document
    sequences = {each: tx.number(each, composed.digest) for each in recipients} if numbered else {}
    tx.add(
        deliveries_table,
        *[
            {
                "document_id": document.id,
                "recipient": each,
                "lane": composed.lane.value,
                "sealed": sealed,
                "sequence": sequences.get(each),
                "state": "queued",
                "open": True,
                "attempts": 0,
                "next_attempt_at": tx.now + desk.policy.retry_seconds * 1000,
                "stale_prekey": False,
                "queued_at": tx.now,
                "overdue_noticed": composed.kind is not Kind.ALERT,
            }
            for each in recipients
        ],
    )
    jobs = [
        Job(
            document=document.id,
            recipient=each,
            kind=composed.kind,
            lane=composed.lane,
            sealed=sealed,
            sequence=sequences.get(each, 0),
            expires_at=document.expires_at,
            raw=composed.raw,
            attempt=1,
            through=through or _way_around(desk, each),
        )
        for each in recipients
    ]
    tx.after_commit(lambda: desk.outgoing.offer(jobs))


def _way_around(desk: Desk, recipient: Nation) -> Nation | None:
    if desk.links.state(recipient, desk.ticks()) is not LinkState.CUT:
        return None
    return next(iter(desk.links.ways(recipient, desk.ticks())), None)


def record_alert(
    tx: Transaction,
    desk: Desk,
    composed: Composed,
    bulletin: Bulletin,
    *,
    direction: Literal["out", "in"],
    author: str,
    serial: int,
) -> None:
    """Keep what lists and searches need."""
    alert = bulletin.alert
    severity = worst_severity(alert)
    tx.add(
        alerts_table,
        {
            "sender": composed.document.sender,
            "id": composed.document.id,
            "serial": serial,
            "direction": direction,
            "recipients": ",".join(composed.document.to),
            "identifier": alert.identifier,
            "status": alert.status.value,
            "message_type": alert.msg_type.value,
            "severity": severity,
            "headline": headline_of(alert),
            "tlp": bulletin.tlp.value,
            "state": "sent" if direction == "out" else "received",
            "answers_to_all": bulletin.share_acknowledgements,
            "deadline_at": tx.now + desk.policy.deadline_seconds[severity] * 1000,
            "author": author,
            "body": format_json(format_alert(alert)).decode(),
            "refers_to": " ".join(_referred_to(alert)),
            "recorded_at": tx.now,
        },
    )


def mark_superseded(tx: Transaction, sender: Nation, alert: Alert) -> None:
    """An update or a cancellation changes the state of what it refers to, if that is its sender's own."""
    states = {MsgType.UPDATE: "updated", MsgType.CANCEL: "cancelled"}
    state = states.get(alert.msg_type)
    if state is None:
        return
    tx.flush()
    tx.connection.execute(
        update(alerts_table)
        .where(alerts_table.c.sender == sender, alerts_table.c.identifier.in_(_referred_to(alert)))
        .where(alerts_table.c.identifier != alert.identifier, alerts_table.c.state != "erased")
        .values(state=state)
    )


def _referred_to(alert: Alert) -> list[str]:
    triples = (alert.references or "").split()
    return [each.split(",")[1] for each in triples if "," in each]


def describe_alert(composed: Composed, bulletin: Bulletin, state: str) -> JsonObject:
    """What the event stream says of an alert."""
    alert = bulletin.alert
    return {
        "id": composed.document.id,
        "from": composed.document.sender,
        "to": [*composed.document.to],
        "identifier": alert.identifier,
        "status": alert.status.value,
        "msgType": alert.msg_type.value,
        "severity": worst_severity(alert),
        "headline": headline_of(alert),
        "tlp": bulletin.tlp.value,
        "state": state,
    }


def worst_severity(alert: Alert) -> str:
    """The highest severity of any part; an alert without parts is Unknown."""
    found = {info.severity.value for info in alert.info}
    return next((each for each in _SEVERITY_ORDER if each in found), "Unknown")


def headline_of(alert: Alert) -> str:
    """The first headline, or the event, or what kind of message it is."""
    for info in alert.info:
        return info.headline or info.event
    return alert.note or f"{alert.msg_type.value} of {alert.references or alert.identifier}"
