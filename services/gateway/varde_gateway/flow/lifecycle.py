"""Updating and cancelling an alert of our own: a new alert document that refers to the old one.

Both go to everybody who got the original. Cancelling needs one person only and may be done with a word.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from varde.alert import Alert, parse_alert
from varde.bulletin import parse_tlp
from varde.capcodes import MsgType
from varde.encoding import JsonObject
from varde.errors import Malformed
from varde.identifiers import parse_nation
from varde.segment import format_cap_time
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.idempotency import Claim
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.store.tables import AnyRow, alerts_table

_FINAL_STATES = frozenset({"updated", "cancelled", "erased"})


async def update_alert(
    desk: Desk,
    alert_id: str,
    changes: JsonObject,
    *,
    author: str,
    claim: Claim | None,
    attachments: tuple[str, ...] = (),
) -> JsonObject:
    """Send an Update of our alert; ``changes`` are CAP members that replace those of the original.

    ``NotFound``, ``Conflict`` where it was already updated or cancelled, ``Invalid`` where the result breaks CAP.
    """
    original = await _own_alert(desk, alert_id)
    fixed = {"identifier", "sender", "sent", "msgType", "references"} & changes.keys()
    if fixed:
        raise Invalid(
            f"{', '.join(sorted(fixed))} of an update follow from the original; leave them out."
        )
    try:
        merged = parse_alert({**json.loads(original.body), **changes})
    except Malformed as error:
        raise Invalid(f"The update is not a valid CAP 1.2 alert: {error.detail}.") from error
    return await _send_successor(
        desk,
        original,
        merged,
        MsgType.UPDATE,
        author=author,
        claim=claim,
        attachments=attachments,
    )


async def cancel_alert(
    desk: Desk, alert_id: str, note: str, *, author: str, claim: Claim | None
) -> JsonObject:
    """Send a Cancel of our alert, with the reason as its note."""
    original = await _own_alert(desk, alert_id)
    cancelled = replace(parse_alert(json.loads(original.body)), note=note or None)
    return await _send_successor(
        desk, original, cancelled, MsgType.CANCEL, author=author, claim=claim
    )


async def _send_successor(
    desk: Desk,
    original: AnyRow,
    alert: Alert,
    message_type: MsgType,
    *,
    author: str,
    claim: Claim | None,
    attachments: tuple[str, ...] = (),
) -> JsonObject:
    former = parse_alert(json.loads(original.body))
    reference = f"{former.sender},{former.identifier},{former.sent}"
    references = f"{former.references} {reference}" if former.references else reference
    document_id = desk.new_id()
    successor = replace(
        alert,
        identifier=document_id,
        sent=format_cap_time(datetime.fromtimestamp(desk.now(), UTC)),
        msg_type=message_type,
        references=references,
    )
    order = Order(
        to=tuple(parse_nation(each) for each in original.recipients.split(",")),
        tlp=parse_tlp(original.tlp),
        alert=successor,
        share_acknowledgements=original.answers_to_all,
        attachments=attachments,
    )
    return await send_alert(desk, order, author=author, document_id=document_id, claim=claim)


async def _own_alert(desk: Desk, alert_id: str) -> AnyRow:
    row = await desk.ledger.read(lambda connection: _find(connection, desk.nation, alert_id))
    if row is None:
        raise NotFound(f"This node has sent no alert {alert_id}.")
    if row.state in _FINAL_STATES:
        raise Conflict(
            f"This alert is already {row.state}; work with its successor, or send a new one."
        )
    return row


def _find(connection: Connection, own: str, alert_id: str) -> AnyRow | None:
    return connection.execute(
        select(alerts_table).where(alerts_table.c.sender == own, alerts_table.c.id == alert_id)
    ).one_or_none()
