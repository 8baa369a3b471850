"""Queries over attachments: what is known of each file, which alerts name it, and what is to be done about it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from varde.attachment import Attachment, format_attachment
from varde.blob import parse_blob_address
from varde.encoding import Json, JsonObject, format_json, sha256_base64url
from varde.identifiers import Nation, parse_nation
from varde_gateway.store.tables import (
    AnyRow,
    alert_attachments_table,
    alerts_table,
    attachments_table,
    documents_table,
)
from varde_gateway.store.transaction import Transaction

_attachment: Final = attachments_table.c
_link: Final = alert_attachments_table.c
_document: Final = documents_table.c


class FileState(StrEnum):
    """How much of a file is here; ``failed`` files will never come."""

    WAITING = "waiting"
    FETCHING = "fetching"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """A file beside an alert, as this node has it."""

    id: str
    attachment: Attachment
    state: FileState
    received: int
    uploaded_by: str | None
    chunk_list: bytes | None
    attempts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Mention:
    """An alert that names the file; ``expires_at`` in Unix seconds."""

    sender: Nation
    alert_id: str
    recipients: tuple[Nation, ...]
    expires_at: int
    marking: str


def reference_digest(attachment: Attachment) -> str:
    """What tells two references apart: every word of them."""
    return sha256_base64url(format_json(format_attachment(attachment)))


def insert_attachment(
    tx: Transaction,
    attachment_id: str,
    attachment: Attachment,
    state: FileState,
    *,
    uploaded_by: str | None = None,
    chunk_list: bytes | None = None,
) -> None:
    """Keep what is known of a file."""
    row = {
        "id": attachment_id,
        "reference": reference_digest(attachment),
        "name": attachment.name,
        "media_type": attachment.media_type,
        "size": attachment.size,
        "digest": attachment.digest,
        "blob": attachment.blob,
        "key": attachment.key,
        "uploaded_by": uploaded_by,
        "state": state.value,
        "received": attachment.size if state is FileState.COMPLETE else 0,
        "chunk_list": chunk_list,
        "attempts": 0,
        "next_try_at": tx.now,
        "created_at": tx.now,
    }
    tx.connection.execute(insert(attachments_table), row)


def link_attachments(tx: Transaction, sender: str, alert_id: str, ids: Sequence[str]) -> None:
    """The alert names these files, in this order."""
    if ids:
        rows = [
            {"sender": sender, "alert_id": alert_id, "position": position, "attachment_id": each}
            for position, each in enumerate(ids)
        ]
        tx.connection.execute(insert(alert_attachments_table), rows)


def find_attachments(connection: Connection, ids: Collection[str]) -> dict[str, StoredAttachment]:
    """Those of these ids that there are."""
    if not ids:
        return {}
    rows = connection.execute(select(attachments_table).where(_attachment.id.in_(ids)))
    return {row.id: _stored(row) for row in rows}


def find_by_reference(connection: Connection, attachment: Attachment) -> str | None:
    """The id of the file of which the same was said before."""
    found = connection.scalar(
        select(_attachment.id).where(_attachment.reference == reference_digest(attachment))
    )
    return None if found is None else str(found)


def due_to_fetch(connection: Connection, now: int) -> list[StoredAttachment]:
    """The files of other nations whose turn it is, the one that waits longest first."""
    rows = connection.execute(
        select(attachments_table)
        .where(
            _attachment.state.in_((FileState.WAITING, FileState.FETCHING)),
            _attachment.next_try_at <= now,
            exists().where(_link.attachment_id == _attachment.id),
        )
        .order_by(_attachment.next_try_at, _attachment.id)
        .limit(64)
    )
    return [_stored(row) for row in rows]


def next_fetch_at(connection: Connection) -> int | None:
    """When the next file is due, in Unix milliseconds; None where none is missing."""
    found = connection.scalar(
        select(func.min(_attachment.next_try_at)).where(
            _attachment.state.in_((FileState.WAITING, FileState.FETCHING))
        )
    )
    return None if found is None else int(found)


def due_to_offer(
    connection: Connection, *, alive_at: int, seen_before: int
) -> list[StoredAttachment]:
    """The whole files that peers may still want (``alive_at``, Unix seconds) and that our broker may not hold."""
    rows = connection.execute(
        select(attachments_table)
        .where(
            _attachment.state == FileState.COMPLETE,
            or_(_attachment.offered_at.is_(None), _attachment.offered_at < seen_before),
            _named_by_a_document_alive(alive_at),
        )
        .order_by(_attachment.offered_at.is_not(None), _attachment.offered_at, _attachment.id)
        .limit(64)
    )
    return [_stored(row) for row in rows]


def due_to_withdraw(connection: Connection, *, alive_at: int) -> list[StoredAttachment]:
    """The files that our broker holds and that nobody will ask for any more."""
    rows = connection.execute(
        select(attachments_table)
        .where(_attachment.offered_at.is_not(None), ~_named_by_a_document_alive(alive_at))
        .limit(64)
    )
    return [_stored(row) for row in rows]


def mentions_of(connection: Connection, attachment_id: str) -> list[Mention]:
    """The alerts that name the file, the oldest first."""
    rows = connection.execute(
        select(
            alerts_table.c.sender,
            alerts_table.c.id,
            alerts_table.c.recipients,
            alerts_table.c.tlp,
            _document.expires_at,
        )
        .join(
            alerts_table,
            and_(_link.sender == alerts_table.c.sender, _link.alert_id == alerts_table.c.id),
        )
        .join(
            documents_table, and_(_document.sender == _link.sender, _document.id == _link.alert_id)
        )
        .where(_link.attachment_id == attachment_id)
        .order_by(alerts_table.c.serial)
    )
    return [
        Mention(
            parse_nation(row.sender),
            row.id,
            tuple(parse_nation(each) for each in row.recipients.split(",")),
            row.expires_at,
            row.tlp,
        )
        for row in rows
    ]


def describe_attachments(
    connection: Connection, alerts: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[Json]]:
    """What the API says of the files of these alerts, by sender and id."""
    rows = connection.execute(
        select(attachments_table, _link.sender, _link.alert_id)
        .join(attachments_table, _attachment.id == _link.attachment_id)
        .where(tuple_(_link.sender, _link.alert_id).in_(list(alerts)))
        .order_by(_link.sender, _link.alert_id, _link.position)
    )
    described: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        described.setdefault((row.sender, row.alert_id), []).append(
            {
                **describe_file(_stored(row)),
                "state": row.state,
                "received": row.received,
                "waiting_for": row.last_error,
            }
        )
    return described


def describe_file(stored: StoredAttachment) -> JsonObject:
    """Which file it is."""
    return {
        "id": stored.id,
        "name": stored.attachment.name,
        "media_type": stored.attachment.media_type,
        "size": stored.attachment.size,
        "digest": stored.attachment.digest,
    }


def change_attachment(tx: Transaction, attachment_id: str, **values: object) -> bool:
    """Set columns of one that is not finished, or of a whole one what concerns our broker; whether it is there."""
    changed = tx.connection.execute(
        update(attachments_table).where(_attachment.id == attachment_id).values(**values)
    )
    return changed.rowcount > 0


def unsent_bytes(connection: Connection) -> int:
    """How much was uploaded and is named by no alert yet."""
    unsent = select(func.coalesce(func.sum(_attachment.size), 0)).where(~_is_named())
    return int(connection.scalar(unsent) or 0)


def delete_unnamed(tx: Transaction, before: int) -> list[str]:
    """Forget files older than ``before`` (Unix milliseconds) that no alert names, or only such as are gone; their ids."""
    gone = ~exists().where(
        alerts_table.c.sender == _link.sender, alerts_table.c.id == _link.alert_id
    )
    tx.flush()
    tx.connection.execute(delete(alert_attachments_table).where(gone))
    deleted = tx.connection.execute(
        delete(attachments_table)
        .where(_attachment.created_at < before, ~_is_named())
        .returning(_attachment.id)
    )
    return [each for (each,) in deleted]


def known_ids(connection: Connection) -> set[str]:
    """Of all files."""
    return {each for (each,) in connection.execute(select(_attachment.id))}


def _is_named() -> ColumnElement[bool]:
    return exists().where(_link.attachment_id == _attachment.id)


def _named_by_a_document_alive(at: int) -> ColumnElement[bool]:
    return exists().where(
        _link.attachment_id == _attachment.id,
        _document.sender == _link.sender,
        _document.id == _link.alert_id,
        _document.expires_at >= at,
    )


def _stored(row: AnyRow) -> StoredAttachment:
    return StoredAttachment(
        id=row.id,
        attachment=Attachment(
            name=row.name,
            media_type=row.media_type,
            size=row.size,
            digest=row.digest,
            blob=parse_blob_address(row.blob),
            key=row.key,
        ),
        state=FileState(row.state),
        received=row.received,
        uploaded_by=row.uploaded_by,
        chunk_list=row.chunk_list,
        attempts=row.attempts,
        last_error=row.last_error,
    )
