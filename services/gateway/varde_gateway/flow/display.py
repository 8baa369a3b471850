"""An officer's screen showed an alert: recorded once, and told to the sender by a signed receipt."""

from sqlalchemy import select, update

from varde.auditlog import AuditKind, name_document
from varde.document import MAX_LIFE_SECONDS
from varde.identifiers import Lane, Nation, parse_document_id
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind
from varde_gateway.flow.compose import compose
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.send import queue_deliveries, record_document
from varde_gateway.store.alerts import document_of_alert
from varde_gateway.store.tables import alerts_table, documents_table
from varde_gateway.store.transaction import Transaction


async def note_displayed(desk: Desk, sender: Nation, alert_id: str, officer: str) -> None:
    """Record the first display of a received alert; later ones, and displays of our own alerts, change nothing."""
    if sender == desk.nation:
        return
    digest = await desk.ledger.read(
        lambda connection: connection.scalar(
            select(documents_table.c.digest)
            .join(
                alerts_table,
                document_of_alert(),
            )
            .where(
                alerts_table.c.sender == sender,
                alerts_table.c.id == alert_id,
                alerts_table.c.displayed_at.is_(None),
                alerts_table.c.state != "erased",
            )
        )
    )
    if digest is None:
        return
    shown = Receipted(parse_document_id(alert_id), digest, desk.now_ms())
    receipt = await compose(
        desk,
        Kind.RECEIPT,
        [sender],
        format_receipt(Receipt(Stage.DISPLAYED, (shown,))),
        lane=Lane.URGENT,
        life_seconds=MAX_LIFE_SECONDS,
    )

    def record(tx: Transaction) -> None:
        first = tx.connection.execute(
            update(alerts_table)
            .where(
                alerts_table.c.sender == sender,
                alerts_table.c.id == alert_id,
                alerts_table.c.displayed_at.is_(None),
            )
            .values(displayed_at=tx.now)
        )
        if not first.rowcount:
            return
        record_document(tx, receipt)
        queue_deliveries(tx, desk, receipt, [sender], sealed=False, numbered=False)
        subjects = [
            *name_document(Kind.ALERT, alert_id, digest),
            *name_document(Kind.RECEIPT, receipt.document.id, receipt.digest),
        ]
        tx.audit(AuditKind.DISPLAYED, f"{desk.nation}/{officer}", subjects)
        tx.event("displayed", {"id": alert_id, "from": sender, "officer": officer})

    await desk.ledger.write(record)
