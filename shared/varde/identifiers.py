"""Names that only their parser makes: nation, document id, federation id, lane.

Protocol section 3.
"""

import re
from enum import StrEnum
from typing import Final, NewType

from varde.encoding import Json, decode_base64url
from varde.errors import Malformed

Nation = NewType("Nation", str)
DocumentId = NewType("DocumentId", str)
FederationId = NewType("FederationId", str)

_NATION: Final = re.compile(r"[A-Z]{2}|[A-Z][A-Z0-9]{2,7}", re.ASCII)
_UUID7: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
_UUID7_MAX_MILLISECONDS: Final = 2**48
_UUID7_RANDOM_BYTES: Final = 10


class Lane(StrEnum):
    """Urgent overtakes routine everywhere."""

    URGENT = "urgent"
    ROUTINE = "routine"


_LANES: Final = tuple(Lane)


def parse_nation(value: Json) -> Nation:
    """An ISO 3166-1 alpha-2 code in capitals, or an organisation code of 3 to 8 capitals and digits."""
    if not isinstance(value, str) or _NATION.fullmatch(value) is None:
        raise Malformed(
            f"{str(value)[:24]!r} is not a nation code such as EE, or an organisation code such as NATO"
        )
    return Nation(value)


def parse_document_id(value: Json) -> DocumentId:
    """A UUID version 7 in lower case with hyphens (RFC 9562 section 5.7)."""
    if not isinstance(value, str) or _UUID7.fullmatch(value) is None:
        raise Malformed(f"{str(value)[:48]!r} is not a UUIDv7 in lower case")
    return DocumentId(value)


def document_id(milliseconds: int, random: bytes) -> DocumentId:
    """The UUIDv7 of a Unix time in milliseconds and 10 random bytes, of which 74 bits are used."""
    if not 0 <= milliseconds < _UUID7_MAX_MILLISECONDS or len(random) != _UUID7_RANDOM_BYTES:
        raise ValueError("a UUIDv7 takes a 48-bit time and 10 random bytes")
    tail = int.from_bytes(random, "big")
    high = 0x7000 | (tail >> 68) & 0x0FFF
    low = 0x8000_0000_0000_0000 | tail & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{milliseconds:012x}{high:04x}{low:016x}"
    return DocumentId(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")


def parse_federation_id(value: Json) -> FederationId:
    """base64url SHA-256 of the first roster's payload bytes."""
    decode_base64url(value, length=32)
    return FederationId(str(value))


def parse_lane(value: Json) -> Lane:
    """``urgent`` or ``routine``."""
    if not isinstance(value, str) or value not in _LANES:
        raise Malformed(f"{str(value)[:24]!r} is not a lane")
    return Lane(value)
