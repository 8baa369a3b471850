"""A sealed attachment as those see it who have no key to it: numbered parts, each checked as it comes, and who asks for them.

Protocol section 8.5. Part 0 is the list of the chunks' hashes and makes the address; parts 1 to n are the sealed
chunks. Keys, names and what is inside are ``attachment``, which the relay never imports.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

from varde.encoding import (
    Json,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
)
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import Nation, parse_nation

CHUNK_BYTES: Final = 128 * 1024
TAG_BYTES: Final = 16
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES
MAX_ATTACHMENT_BYTES: Final = 50 * 1024 * 1024
MAX_CHUNKS: Final = MAX_ATTACHMENT_BYTES // CHUNK_BYTES
LIST_PART: Final = 0
"""The part that is the list of hashes; chunks are the parts from 1 on."""

HASH_BYTES: Final = 32
_ADDRESS_PREFIX: Final = b"varde-blob/1\x00"
_MAX_REQUEST_BYTES: Final = 256
_HERE: Final = b"\x00"
_FAULT: Final = b"\x01"

BlobAddress = NewType("BlobAddress", str)
"""The digest of the list of chunk hashes; made by ``blob_address`` and ``parse_blob_address`` only."""


class BlobFault(StrEnum):
    """Why a part did not come."""

    BAD_REQUEST = "bad_request"
    NOT_HERE = "not_here"
    LINK_DOWN = "link_down"
    NO_ANSWER = "no_answer"
    BUSY = "busy"


_FAULTS: Final = {each.value.encode(): each for each in BlobFault}


@dataclass(frozen=True, slots=True)
class PartRequest:
    """One part of one blob; to a relay of our own with the nation ``at`` whose broker it shall ask."""

    blob: BlobAddress
    part: int
    at: Nation | None = None


def chunk_count(size: int) -> int:
    """How many chunks a file of ``size`` bytes has; an empty one has one, which is empty."""
    return max(1, -(-size // CHUNK_BYTES))


def chunk_size(size: int, index: int) -> int:
    """How many bytes of the file are in the chunk of this index, from 0."""
    return min(CHUNK_BYTES, size - index * CHUNK_BYTES)


def hash_chunk(sealed: bytes) -> bytes:
    """What the list says of a sealed chunk."""
    return hashlib.sha256(sealed).digest()


def format_chunk_list(hashes: Sequence[bytes]) -> bytes:
    """Part 0: the hashes in order, nothing between them."""
    return b"".join(hashes)


def blob_address(chunk_list: bytes) -> BlobAddress:
    """The address that part 0 gives its blob."""
    return BlobAddress(encode_base64url(hashlib.sha256(_ADDRESS_PREFIX + chunk_list).digest()))


def parse_blob_address(value: Json) -> BlobAddress:
    """43 characters of base64url, or ``Malformed``: nothing that a broker would read as a pattern or as two tokens."""
    return BlobAddress(encode_base64url(decode_base64url(value, length=HASH_BYTES)))


def open_chunk_list(raw: bytes, address: BlobAddress, chunks: int) -> tuple[bytes, ...]:
    """The hashes of the chunks; ``Untrusted`` as ``BAD_BLOB`` unless ``raw`` is what the address names."""
    if len(raw) != chunks * HASH_BYTES or blob_address(raw) != address:
        raise Untrusted(Reason.BAD_BLOB, "the list of chunks is not the one that the address names")
    return tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))


def check_chunk(sealed: bytes, hashes: Sequence[bytes], index: int) -> None:
    """``Untrusted`` as ``BAD_BLOB`` unless it is the sealed chunk of this index, from 0."""
    if hash_chunk(sealed) != hashes[index]:
        raise Untrusted(Reason.BAD_BLOB, f"chunk {index} is not the one that was sealed")


def format_part_request(request: PartRequest) -> bytes:
    """``{"blob", "part"}``, and ``"from"`` where our own relay is asked."""
    asked: dict[str, Json] = {"blob": request.blob, "part": request.part}
    if request.at is not None:
        asked = {"from": request.at, **asked}
    return format_json(asked)


def parse_part_request(raw: bytes, *, at_home: bool) -> PartRequest:
    """``Malformed`` for any other form; ``at_home`` is where ``from`` stands."""
    members = frozenset({"from", "blob", "part"} if at_home else {"blob", "part"})
    asked = exact_members(parse_json(raw, limit=_MAX_REQUEST_BYTES), members, "request for a part")
    return PartRequest(
        blob=parse_blob_address(asked["blob"]),
        part=require_integer(asked["part"], "part", most=MAX_CHUNKS),
        at=parse_nation(asked["from"]) if at_home else None,
    )


def format_part_answer(answer: bytes | BlobFault) -> bytes:
    """The part behind a zero byte, or the word of a fault behind a one."""
    if isinstance(answer, BlobFault):
        return _FAULT + answer.value.encode()
    return _HERE + answer


def parse_part_answer(raw: bytes) -> bytes | BlobFault:
    """What ``format_part_answer`` wrote, or ``Malformed``; the part itself is not believed yet."""
    kind, answer = raw[:1], raw[1:]
    if kind == _HERE and len(answer) <= SEALED_CHUNK_BYTES:
        return answer
    fault = _FAULTS.get(answer) if kind == _FAULT else None
    if fault is None:
        raise Malformed("this is no answer to a request for a part")
    return fault
