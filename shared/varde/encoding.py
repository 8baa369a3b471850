"""One strict encoding for each kind of value: JSON, base64url, base64, decimal numbers.

Protocol section 2. Everything here takes hostile bytes; what does not match the one allowed form raises
``Malformed``. Nothing here knows what the values mean.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final, NoReturn, TypeAlias

from varde.errors import Malformed, Reason

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, "Json"]

MAX_DEPTH: Final = 8
MAX_INTEGER: Final = 2**53 - 1
MAX_SECONDS: Final = 253_402_300_799
"""The last second of the year 9999: no calendar that shows a later time would work."""
MAX_MILLISECONDS: Final = MAX_SECONDS * 1000 + 999
_MAX_INTEGER_DIGITS: Final = 16
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# Base64url to base64; what belongs to base64 alone becomes a character that no decoder takes.
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/***")
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


def parse_json(raw: bytes, *, limit: int) -> JsonObject:
    """Parse one JSON object from at most ``limit`` bytes of UTF-8.

    Refused, each as ``Malformed``: duplicate members, floats, NaN and infinities, integers of magnitude 2^53 or
    more, lone surrogates, U+0000 (databases cannot keep it: such a document could be received and never recorded), a
    byte-order mark, anything enclosed in more than ``MAX_DEPTH`` containers, and any top value that is not an object.
    """
    if len(raw) > limit:
        raise Malformed(f"{len(raw)} bytes where at most {limit} are allowed", Reason.OVERSIZE)
    try:
        text = raw.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise Malformed(f"nested deeper than {MAX_DEPTH}") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at character {error.pos}") from error
    if not isinstance(value, dict):
        raise Malformed("the top value is not an object")
    _check_depth(value)
    if "\\u" in text:
        _check_escapes(text, value)
    return value


def format_json(value: Mapping[str, Json]) -> bytes:
    """Compact JSON in the order given; the bytes are signed as they are, so no canonical form is needed.

    ``Malformed`` where a string has a lone surrogate or U+0000, which no reader would take.
    """
    text = _ENCODER.encode(value)
    _check_no_nul(text)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed("a string has a lone surrogate") from error


def encode_base64url(raw: bytes) -> str:
    """RFC 4648 section 5 without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_base64url(text: Json, *, length: int | None = None) -> bytes:
    """The bytes of unpadded base64url in its one canonical form; ``length`` in bytes where it is fixed."""
    if not isinstance(text, str):
        raise Malformed("not a string of base64url")
    try:
        standard = text.encode("ascii").translate(_TO_BASE64)
        raw = binascii.a2b_base64(standard + b"=" * (-len(text) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Malformed("not base64url without padding") from error
    odd_characters = len(text) % 4
    if odd_characters and encode_base64url(raw[1 - odd_characters :]) != text[-odd_characters:]:
        raise Malformed("base64url with non-zero trailing bits")
    if length is not None and len(raw) != length:
        raise Malformed(f"{len(raw)} bytes where {length} are required")
    return raw


def encode_base64(raw: bytes) -> str:
    """RFC 4648 section 4 with padding, as C2SP notes use it."""
    return base64.b64encode(raw).decode("ascii")


def decode_base64(text: str, *, length: int | None = None) -> bytes:
    """The bytes of padded base64 in its one canonical form."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Malformed("not base64") from error
    if encode_base64(raw) != text:
        raise Malformed("base64 in a non-canonical form")
    if length is not None and len(raw) != length:
        raise Malformed(f"{len(raw)} bytes where {length} are required")
    return raw


def parse_decimal(text: str) -> int:
    """A decimal number 0 to 2^53-1: no sign, no leading zero, no space, ASCII digits only."""
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_INTEGER:
        raise Malformed("not a decimal number")
    return int(text)


def sha256_base64url(raw: bytes) -> str:
    """The digest form that documents use to name one another."""
    return encode_base64url(hashlib.sha256(raw).digest())


def exact_members(value: Json, members: frozenset[str], what: str) -> JsonObject:
    """``value`` as an object with exactly ``members``, or ``Malformed`` naming what is missing or unknown."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    if value.keys() != members:
        missing = ", ".join(sorted(members - value.keys()))
        unknown = ", ".join(sorted(value.keys() - members))
        raise Malformed(f"{what}: missing [{missing}], unknown [{unknown[:200]!r}]")
    return value


def require_string(value: Json, what: str, *, most: int = 256) -> str:
    """``value`` as a string of at most ``most`` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise Malformed(f"{what} is not a string of at most {most} characters")
    return value


def require_integer(value: Json, what: str, *, most: int = MAX_INTEGER) -> int:
    """``value`` as a non-negative integer of at most ``most``; a JSON true is not one."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Malformed(f"{what} is not an integer from 0 to {most}")
    return value


def require_list(value: Json, what: str, *, most: int) -> list[Json]:
    """``value`` as a list of at most ``most`` items."""
    if not isinstance(value, list) or len(value) > most:
        raise Malformed(f"{what} is not a list of at most {most} items")
    return value


def _object_without_duplicates(pairs: list[tuple[str, Json]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("an object has the same member twice")
    return value


def _refuse_number(text: str) -> NoReturn:
    raise Malformed(f"number {text[:24]} is not an integer")


def _bounded_integer(text: str) -> int:
    # The length is checked first: int() of a text with thousands of digits takes quadratic time.
    if len(text) > _MAX_INTEGER_DIGITS + 1 or abs(int(text)) > MAX_INTEGER:
        raise Malformed(f"number {text[:24]} is outside the allowed range")
    return int(text)


def _check_depth(top: JsonObject) -> None:
    level: list[Json] = [top]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else _items(value))
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise Malformed(f"nested deeper than {MAX_DEPTH}")


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _check_no_nul(text: str) -> None:
    # A backslash that is itself escaped does not begin an escape.
    if "\\u0000" in text.replace("\\\\", ""):
        raise Malformed("a string has the character U+0000")


def _check_escapes(text: str, top: JsonObject) -> None:
    _check_no_nul(text)
    if _SURROGATE_ESCAPE.search(text):
        format_json(top)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_float=_refuse_number,
    parse_constant=_refuse_number,
    parse_int=_bounded_integer,
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
