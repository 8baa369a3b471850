"""The last step: a duty officer answers, and the answer goes back signed.

It goes to the sender, and to every recipient where the sender asked for that.
"""

from sqlalchemy import Connection, select

from varde.acknowledgement import Acknowledgement, Response, format_acknowledgement
from varde.auditlog import AuditKind, name_document
from varde.document import MAX_LIFE_SECONDS
from varde.encoding import JsonObject
from varde.identifiers import Lane, Nation, parse_document_id
from varde.signing import Kind
from varde_gateway.flow.accept import record_acknowledgement_row
from varde_gateway.flow.compose import compose
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, NotFound
from varde_gateway.flow.idempotency import Claim, once
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.store.alerts import document_of_alert
from varde_gateway.store.tables import AnyRow, alerts_table, documents_table
from varde_gateway.store.transaction import Transaction


async def acknowledge(
    desk: Desk,
    alert_id: str,
    sender: Nation | None,
    *,
    officer: str,
    response: Response,
    note: str,
    claim: Claim | None,
) -> JsonObject:
    """Answer an alert that this nation received.

    ``NotFound`` where it is not here; ``Conflict`` where it is our own. Answering twice is allowed: the first
    answer stays, the next is added (an officer may go from ``acknowledged`` to ``actioning``).
    """
    alert = await desk.ledger.read(lambda connection: _find(connection, alert_id, sender))
    if alert is None:
        raise NotFound(f"There is no alert {alert_id} at this node.")
    if alert.sender == desk.nation:
        raise Conflict("This alert is our own; the nations that received it acknowledge it.")
    if alert.state == "erased":
        raise Conflict("The content of this alert was erased; there is nothing left to answer.")
    answered = Acknowledgement(
        document=parse_document_id(alert.id),
        digest=alert.digest,
        officer=officer,
        response=response,
        note=note,
        at=desk.now_ms(),
    )
    everybody = {Nation(each) for each in alert.recipients.split(",")} | {Nation(alert.sender)}
    to = everybody if alert.answers_to_all else {Nation(alert.sender)}
    recipients = sorted((to & desk.trust.current.members.keys()) - {desk.nation})
    composed = await compose(
        desk,
        Kind.ACKNOWLEDGEMENT,
        recipients,
        format_acknowledgement(answered),
        lane=Lane.URGENT,
        life_seconds=MAX_LIFE_SECONDS,
    )

    def record(tx: Transaction) -> JsonObject:
        def act() -> JsonObject:
            record_document(tx, composed)
            queue_deliveries(tx, desk, composed, recipients, sealed=True)
            tx.audit(
                AuditKind.ACKNOWLEDGED,
                f"{desk.nation}/{officer}",
                [
                    *name_document(Kind.ALERT, alert.id, alert.digest),
                    *name_document(Kind.ACKNOWLEDGEMENT, composed.document.id, composed.digest),
                ],
                response.value,
            )
            return record_acknowledgement_row(tx, composed, answered, alert.sender)

        return once(tx, claim, act)

    return await desk.ledger.write(record)


def _find(connection: Connection, alert_id: str, sender: Nation | None) -> AnyRow | None:
    query = (
        select(
            alerts_table.c.id,
            alerts_table.c.sender,
            alerts_table.c.recipients,
            alerts_table.c.state,
            alerts_table.c.answers_to_all,
            documents_table.c.digest,
        )
        .join(
            documents_table,
            document_of_alert(),
        )
        .where(alerts_table.c.id == alert_id)
        .order_by(alerts_table.c.serial)
        .limit(1)
    )
    if sender is not None:
        query = query.where(alerts_table.c.sender == sender)
    return connection.execute(query).one_or_none()
