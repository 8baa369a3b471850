"""Whole files are offered to the peers by our own broker, for as long as they may want them; and then forgotten.

The broker may lose what it had, so it is looked at again. Alerts go before parts. Protocol section 8.5.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from varde.blob import LIST_PART, check_chunk, open_chunk_list
from varde.errors import Untrusted
from varde.subjects import blob_subject
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.ports import Broker, BrokerError, Outbound
from varde_gateway.flow.worker import repeat
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.attachments import (
    FileState,
    StoredAttachment,
    change_attachment,
    delete_unnamed,
    due_to_offer,
    due_to_withdraw,
    known_ids,
)

OFFERED_AT_ONCE: Final = 4
IDLE_SECONDS: Final = 5
LOOK_AGAIN_SECONDS: Final = 60
GRACE_SECONDS: Final = 24 * 3600
"""How long after its document has expired a file is still offered and asked for."""

UNNAMED_KEPT_SECONDS: Final = 24 * 3600
FORGET_SECONDS: Final = 600.0
_ALERTS_FIRST_SECONDS: Final = 0.05
_MOST_PAUSES: Final = 20

_log = structlog.get_logger("attachments")


async def run_offering(desk: Desk, broker: Broker, files: AttachmentFiles) -> None:
    """Keep what peers may want in our broker, for ever; it may lose what it had."""

    async def one_round() -> None:
        await broker.wait_connected()
        await offer_due(desk, broker, files)
        await wait_for_work(desk.files_to_offer, IDLE_SECONDS)

    await repeat("attachments offered", one_round, pause_seconds=0)


async def run_forgetting_files(desk: Desk, files: AttachmentFiles) -> None:
    """Delete what no alert names any more, for ever."""
    await repeat(
        "attachments forgotten",
        lambda: forget_files(desk, files),
        pause_seconds=FORGET_SECONDS,
    )


async def offer_due(desk: Desk, broker: Broker, files: AttachmentFiles) -> None:
    """Give our broker what it lacks of the files that peers may want, and take away what none will."""
    alive_at = desk.now() - GRACE_SECONDS
    seen_before = desk.now_ms() - LOOK_AGAIN_SECONDS * 1000
    for stored in await desk.ledger.read(
        lambda connection: due_to_offer(connection, alive_at=alive_at, seen_before=seen_before)
    ):
        try:
            await _offer(desk, broker, files, stored)
        except BrokerError as error:
            await _note_not_offered(desk, stored, error.detail)
        except (OSError, Untrusted):
            await _note_not_offered(desk, stored, "missing or damaged on this node's disk")
            if stored.uploaded_by is None:
                # The folder was lost, or an older copy of it restored: others have the file.
                await _change(desk, stored.id, state=FileState.WAITING.value, received=0)
                desk.files_to_fetch.set()
        else:
            await _change(desk, stored.id, last_error=None, offered_at=desk.now_ms())
    for stored in await desk.ledger.read(
        lambda connection: due_to_withdraw(connection, alive_at=alive_at)
    ):
        try:
            await broker.drop_parts(stored.attachment.blob)
        except BrokerError as error:
            await _note_not_offered(desk, stored, error.detail)
        else:
            await _change(desk, stored.id, offered_at=None)


async def forget_files(desk: Desk, files: AttachmentFiles) -> None:
    """Delete uploads that were not sent for a day, files of alerts that are gone, and what a crash left on the disk."""
    before = desk.now_ms() - UNNAMED_KEPT_SECONDS * 1000
    for each in await desk.ledger.write(lambda tx: delete_unnamed(tx, before)):
        await asyncio.to_thread(files.delete, each)
    # An upload that is under way has a file and no row; one that has stood still for so long is none.
    stood_still = desk.now_ms() / 1000 - FORGET_SECONDS
    left = await asyncio.to_thread(files.untouched_since, stood_still)
    for each in left - await desk.ledger.read(known_ids):
        await asyncio.to_thread(files.delete, each)


async def let_alerts_pass(desk: Desk) -> None:
    """Wait while deliveries wait to be taken, up to a second."""
    # Not for ever: files must come through a flood of alerts too.
    for _ in range(_MOST_PAUSES):
        if not desk.outgoing.busy():
            return
        await asyncio.sleep(_ALERTS_FIRST_SECONDS)


async def wait_for_work(event: asyncio.Event, seconds: float) -> None:
    """Return when ``event`` is set, or was set since the last time, or after so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


async def _offer(
    desk: Desk, broker: Broker, files: AttachmentFiles, stored: StoredAttachment
) -> None:
    attachment = stored.attachment
    missing = await broker.missing_parts(attachment.blob, attachment.chunks + 1)
    for at in range(0, len(missing), OFFERED_AT_ONCE):
        await let_alerts_pass(desk)
        messages = [
            Outbound(
                blob_subject(attachment.blob, part),
                await asyncio.to_thread(_read_part, files, stored, part),
                # Also after a store was lost within the window for duplicates, a part is a new message.
                f"{attachment.blob}.{part}.{desk.now_ms()}",
            )
            for part in missing[at : at + OFFERED_AT_ONCE]
        ]
        for error in await broker.publish_many(messages):
            if error is not None:
                raise error


def _read_part(files: AttachmentFiles, stored: StoredAttachment, part: int) -> bytes:
    assert stored.chunk_list is not None
    if part == LIST_PART:
        return stored.chunk_list
    attachment = stored.attachment
    sealed = files.read_chunk(stored.id, part - 1)
    # A part that our disk has changed would make the peers believe that we cheat.
    hashes = open_chunk_list(stored.chunk_list, attachment.blob, attachment.chunks)
    check_chunk(sealed, hashes, part - 1)
    return sealed


async def _note_not_offered(desk: Desk, stored: StoredAttachment, detail: str) -> None:
    if detail != stored.last_error:
        _log.warning("attachment not offered", attachment=stored.id, detail=detail)
        await _change(desk, stored.id, last_error=detail[:300])


async def _change(desk: Desk, attachment_id: str, **values: object) -> None:
    await desk.ledger.write(lambda tx: change_attachment(tx, attachment_id, **values))
