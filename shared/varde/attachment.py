"""A file that travels beside a document: its reference in the signed body, and the sealing of its chunks.

Protocol section 6.6. Every attachment has a content key of its own, never used for another one, which stands in the
reference: whoever can open the document can open the file, and nobody else. Each chunk is sealed as in STREAM (Hoang, Reyhanitabar, Rogaway, Vizár
2015): place and end are part of the nonce, so that chunks cannot be dropped, swapped, repeated or cut off.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from varde.blob import (
    HASH_BYTES,
    MAX_ATTACHMENT_BYTES,
    MAX_CHUNKS,
    BlobAddress,
    chunk_count,
    parse_blob_address,
)
from varde.encoding import (
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import FederationId

MAX_ATTACHMENTS: Final = 16
MAX_NAME: Final = 128
MAX_MEDIA_TYPE: Final = 127
KEY_BYTES: Final = 32
_NONCE_PREFIX: Final = bytes(7)
_MORE: Final = b"\x00"
_LAST: Final = b"\x01"
_MEMBERS: Final = frozenset({"name", "media_type", "size", "digest", "blob", "chunks", "key"})
# RFC 6838 section 4.2, in lower case and without parameters.
_MEDIA_TYPE: Final = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What the document says of a file; ``digest`` is of the whole plaintext, ``blob`` where its sealed parts are."""

    name: str
    media_type: str
    size: int
    digest: str
    blob: BlobAddress
    key: bytes = field(repr=False)

    @property
    def chunks(self) -> int:
        """How many chunks it has; the size says so."""
        return chunk_count(self.size)


def format_attachment(attachment: Attachment) -> JsonObject:
    """The reference to sign."""
    return {
        "name": attachment.name,
        "media_type": attachment.media_type,
        "size": attachment.size,
        "digest": attachment.digest,
        "blob": attachment.blob,
        "chunks": attachment.chunks,
        "key": encode_base64url(attachment.key),
    }


def parse_attachment(value: Json) -> Attachment:
    """``Malformed`` unless it has the one form."""
    members = exact_members(value, _MEMBERS, "attachment")
    size = require_integer(members["size"], "size", most=MAX_ATTACHMENT_BYTES)
    if require_integer(members["chunks"], "chunks", most=MAX_CHUNKS) != chunk_count(size):
        raise Malformed("the number of chunks does not follow from the size")
    return Attachment(
        name=parse_file_name(members["name"]),
        media_type=parse_media_type(members["media_type"]),
        size=size,
        digest=encode_base64url(decode_base64url(members["digest"], length=HASH_BYTES)),
        blob=parse_blob_address(members["blob"]),
        key=decode_base64url(members["key"], length=KEY_BYTES),
    )


def parse_attachments(value: Json) -> tuple[Attachment, ...]:
    """The attachments of a body, in order; none twice."""
    found = tuple(
        parse_attachment(each) for each in require_list(value, "attachments", most=MAX_ATTACHMENTS)
    )
    if len({each.blob for each in found}) != len(found):
        raise Malformed("an attachment stands twice in one document")
    return found


def parse_file_name(value: Json) -> str:
    """A name that can be shown and that no file system reads as a way to another folder."""
    name = require_string(value, "name of an attachment", most=MAX_NAME)
    if not name.isprintable() or name.strip(" .") != name or not name or {"/", "\\"} & {*name}:
        raise Malformed(
            f"name of an attachment: 1 to {MAX_NAME} printable characters, without / and \\, "
            "and neither a space nor a full stop at the beginning or the end"
        )
    return name


def parse_media_type(value: Json) -> str:
    """``type/subtype`` in lower case, without parameters."""
    text = require_string(value, "media type of an attachment", most=MAX_MEDIA_TYPE)
    if _MEDIA_TYPE.fullmatch(text) is None:
        raise Malformed("media type of an attachment: not type/subtype in lower case")
    return text


class ChunkCipher:
    """Seals and opens the chunks of one attachment, in any order."""

    def __init__(self, key: bytes, federation: FederationId) -> None:
        """``key`` (32 bytes) is fresh and random for each attachment: it must never seal two different files."""
        if len(key) != KEY_BYTES:
            raise ValueError("a content key has 32 bytes")
        self._cipher = AESGCM(key)
        self._bound = b"varde-attachment/1\x00" + federation.encode()

    def seal(self, plaintext: bytes, index: int, *, last: bool) -> bytes:
        """The sealed chunk of this index, from 0."""
        return self._cipher.encrypt(_nonce(index, last), plaintext, self._bound)

    def open(self, sealed: bytes, index: int, *, last: bool) -> bytes:
        """The plaintext of the chunk; ``Untrusted`` as ``BAD_CIPHERTEXT`` where it is another chunk, or was changed."""
        try:
            return self._cipher.decrypt(_nonce(index, last), sealed, self._bound)
        except InvalidTag as error:
            raise Untrusted(
                Reason.BAD_CIPHERTEXT, f"chunk {index} of an attachment does not decrypt"
            ) from error


def _nonce(index: int, last: bool) -> bytes:
    return _NONCE_PREFIX + index.to_bytes(4, "big") + (_LAST if last else _MORE)
