"""The step beside the first: a file is taken in, sealed chunk by chunk, to be named by an alert later; and read again.

Nothing of a file is ever whole in memory, and nothing but sealed chunks is on the disk. How files come from other
nations is ``fetch``.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from varde.attachment import (
    KEY_BYTES,
    MAX_ATTACHMENTS,
    Attachment,
    ChunkCipher,
    parse_file_name,
    parse_media_type,
)
from varde.blob import (
    CHUNK_BYTES,
    MAX_ATTACHMENT_BYTES,
    blob_address,
    check_chunk,
    format_chunk_list,
    hash_chunk,
)
from varde.encoding import JsonObject, encode_base64url
from varde.errors import Malformed, Untrusted
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import (
    Conflict,
    Invalid,
    InvalidAt,
    NotFound,
    TooLarge,
    TooMany,
    Unavailable,
)
from varde_gateway.flow.idempotency import Claim, once
from varde_gateway.flow.review.review import Viewer, check_clearance
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.attachments import (
    FileState,
    StoredAttachment,
    describe_file,
    find_attachments,
    find_by_reference,
    insert_attachment,
    link_attachments,
    mentions_of,
    unsent_bytes,
)
from varde_gateway.store.review import allowed_markings
from varde_gateway.store.transaction import Transaction

MAX_UNSENT_BYTES: Final = 2 * 1024**3
RESERVED_BYTES: Final = 256 * 1024**2
"""What is left free on the disk whatever others send us: the database must be able to go on."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """What an upload says of itself, checked."""

    name: str
    media_type: str


def describe_upload(name: str, media_type: str) -> NewFile:
    """``InvalidAt`` where the name or the media type cannot stand in a signed document."""
    try:
        checked = parse_file_name(name)
    except Malformed as error:
        raise InvalidAt("name", f"{error.detail[:1].upper()}{error.detail[1:]}.") from error
    try:
        return NewFile(checked, parse_media_type(media_type.lower()))
    except Malformed as error:
        raise InvalidAt("Content-Type", "Send a Content-Type such as application/pdf.") from error


async def store_upload(
    desk: Desk,
    files: AttachmentFiles,
    new: NewFile,
    content: AsyncIterable[bytes],
    *,
    uploaded_by: str,
    key: tuple[str, str] | None,
) -> JsonObject:
    """Seal and keep a file; the answer is the body of the 201. ``key`` is an Idempotency-Key and whose it is.

    ``TooLarge``, ``TooMany`` where too much waits to be sent, ``Unavailable`` where the disk is full.
    """
    if await desk.ledger.read(unsent_bytes) >= MAX_UNSENT_BYTES:
        raise TooMany("Too many files wait to be sent. Send them, or wait a day: then they go.")
    if files.free_bytes() < RESERVED_BYTES:
        raise Unavailable("This node's disk is nearly full. An administrator must make room.")
    attachment_id = desk.new_id()
    try:
        attachment, chunk_list = await _seal_to_disk(desk, files, attachment_id, new, content)
        claim = None if key is None else Claim(*key, _claimed(attachment))

        def record(tx: Transaction) -> JsonObject:
            def act() -> JsonObject:
                insert_attachment(
                    tx,
                    attachment_id,
                    attachment,
                    FileState.COMPLETE,
                    uploaded_by=uploaded_by,
                    chunk_list=chunk_list,
                )
                return describe_file(
                    find_attachments(tx.connection, [attachment_id])[attachment_id]
                )

            return once(tx, claim, act)

        answer = await desk.ledger.write(record)
    except BaseException:
        await asyncio.to_thread(files.delete, attachment_id)
        raise
    if answer["id"] != attachment_id:
        await asyncio.to_thread(files.delete, attachment_id)
    return answer


async def find_uploads(desk: Desk, ids: Sequence[str]) -> list[StoredAttachment]:
    """The files of ours that an alert shall name; ``InvalidAt`` naming the one that it cannot."""
    if len(ids) > MAX_ATTACHMENTS:
        raise InvalidAt("attachments", f"An alert has at most {MAX_ATTACHMENTS} attachments.")
    if not ids:
        # Of most alerts: a question to the database costs as much as two signatures.
        return []
    found = await desk.ledger.read(lambda connection: find_attachments(connection, ids))
    for place, each in enumerate(ids):
        if each not in found or found[each].uploaded_by is None:
            raise InvalidAt(
                f"attachments[{place}]",
                f"No file was uploaded here as {each[:48]!r}, or it waited for more than a day. "
                "Upload it with POST /v1/attachments.",
            )
        if each in ids[:place]:
            raise InvalidAt(f"attachments[{place}]", "This file is named twice.")
    return [found[each] for each in ids]


def name_uploads(tx: Transaction, sender: str, alert_id: str, ids: Sequence[str]) -> None:
    """The alert that is recorded names these files; ``Invalid`` where one was forgotten since it was looked for."""
    if len(find_attachments(tx.connection, ids)) < len(ids):
        raise Invalid("An attachment was deleted at this moment. Upload it again.")
    link_attachments(tx, sender, alert_id, ids)


def record_received(
    tx: Transaction, desk: Desk, sender: str, alert_id: str, attachments: Sequence[Attachment]
) -> None:
    """The alert that came names these files, which are to be fetched unless they are here already."""
    ids: list[str] = []
    for attachment in attachments:
        known = find_by_reference(tx.connection, attachment)
        if known is None:
            known = desk.new_id()
            insert_attachment(tx, known, attachment, FileState.WAITING)
        ids.append(known)
    link_attachments(tx, sender, alert_id, ids)


async def find_file(desk: Desk, viewer: Viewer, attachment_id: str) -> StoredAttachment:
    """The whole file of this id; ``NotFound``, ``Forbidden``, or ``Conflict`` while it is on its way.

    Who may see one of the alerts that name it may see it; before it is sent, who uploaded it.
    """
    found, mentions = await desk.ledger.read(
        lambda c: (find_attachments(c, [attachment_id]), mentions_of(c, attachment_id))
    )
    stored = found.get(attachment_id)
    if stored is None or not (mentions or stored.uploaded_by == viewer.username):
        raise NotFound(f"There is no attachment {attachment_id} at this node.")
    allowed = allowed_markings(viewer.clearance)
    if mentions and all(each.marking not in allowed for each in mentions):
        await check_clearance(desk, viewer, mentions[0].alert_id)
    if stored.state is not FileState.COMPLETE:
        raise Conflict(
            f"The file is {stored.state.value}: {stored.received} of {stored.attachment.size} bytes are here."
        )
    return stored


async def read_file(
    desk: Desk, files: AttachmentFiles, stored: StoredAttachment
) -> AsyncIterator[bytes]:
    """The plaintext in pieces; ``Unavailable`` at once where the file is not on the disk any more, or was changed."""
    reader = _FileReader(desk, files, stored)
    try:
        first = await asyncio.to_thread(reader.read, 0)
    except (OSError, Untrusted) as error:
        raise Unavailable(
            "The file on this node's disk is missing or damaged. Restore the folder 'attachments' from a backup."
        ) from error
    return _pieces(reader, first)


def plaintext_digest(
    desk: Desk, files: AttachmentFiles, stored: StoredAttachment, hashes: Sequence[bytes]
) -> str:
    """Read the whole file. Blocks.

    ``Untrusted`` as ``BAD_BLOB`` where the disk has changed a chunk, as ``BAD_CIPHERTEXT`` where its sender sealed it wrongly.
    """
    reader = _FileReader(desk, files, stored)
    digest = hashlib.sha256()
    for index in range(stored.attachment.chunks):
        sealed = files.read_chunk(stored.id, index)
        check_chunk(sealed, hashes, index)
        digest.update(reader.open(sealed, index))
    return encode_base64url(digest.digest())


class _FileReader:
    def __init__(self, desk: Desk, files: AttachmentFiles, stored: StoredAttachment) -> None:
        self._files = files
        self._id = stored.id
        self._cipher = ChunkCipher(stored.attachment.key, desk.trust.current.federation)
        self.chunks = stored.attachment.chunks

    def read(self, index: int) -> bytes:
        return self.open(self._files.read_chunk(self._id, index), index)

    def open(self, sealed: bytes, index: int) -> bytes:
        return self._cipher.open(sealed, index, last=index == self.chunks - 1)


async def _pieces(reader: _FileReader, first: bytes) -> AsyncIterator[bytes]:
    yield first
    for index in range(1, reader.chunks):
        yield await asyncio.to_thread(reader.read, index)


async def _seal_to_disk(
    desk: Desk,
    files: AttachmentFiles,
    attachment_id: str,
    new: NewFile,
    content: AsyncIterable[bytes],
) -> tuple[Attachment, bytes]:
    key = desk.random(KEY_BYTES)
    cipher = ChunkCipher(key, desk.trust.current.federation)
    digest, size, hashes = hashlib.sha256(), 0, list[bytes]()

    def seal_next(plaintext: bytes, last: bool) -> None:
        digest.update(plaintext)
        sealed = cipher.seal(plaintext, len(hashes), last=last)
        files.write_chunk(attachment_id, len(hashes), sealed)
        hashes.append(hash_chunk(sealed))

    waiting = bytearray()
    try:
        async for piece in content:
            size += len(piece)
            if size > MAX_ATTACHMENT_BYTES:
                raise TooLarge(f"An attachment has at most {MAX_ATTACHMENT_BYTES} bytes.")
            waiting += piece
            # One byte more than a chunk is waited for: only the last chunk is sealed as the last.
            while len(waiting) > CHUNK_BYTES:
                await asyncio.to_thread(seal_next, bytes(waiting[:CHUNK_BYTES]), False)
                del waiting[:CHUNK_BYTES]
        await asyncio.to_thread(seal_next, bytes(waiting), True)
        await asyncio.to_thread(files.finish, attachment_id)
    except OSError as error:
        raise Unavailable(
            f"This node cannot keep the file ({error.strerror}). An administrator must look at its disk."
        ) from error
    chunk_list = format_chunk_list(hashes)
    attachment = Attachment(
        name=new.name,
        media_type=new.media_type,
        size=size,
        digest=encode_base64url(digest.digest()),
        blob=blob_address(chunk_list),
        key=key,
    )
    return attachment, chunk_list


def _claimed(attachment: Attachment) -> str:
    # Name and type need no separator that they could contain: the digest has one length.
    said = f"{attachment.digest}{attachment.media_type}\n{attachment.name}"
    return encode_base64url(hashlib.sha256(said.encode()).digest())
