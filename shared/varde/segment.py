"""One object of a CAP document in JSON and the lexical form of each kind of element in it.

A ``Segment`` is the standard's alert, info, resource or area while it is being read: it knows its path, so that
every refusal names the element and the rule. It does not know which elements a segment has (``alert``, ``area``).

Each value has one form here: text without white space around it, lists separated by single spaces, no empty
list or text where leaving the member out says the same. The edges (XML, HTTP) normalise; this refuses.
All expressions are linear: groups that repeat are atomic or possessive.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

from varde.encoding import MAX_INTEGER, Json, JsonObject
from varde.errors import Malformed, Reason

Code = TypeVar("Code", bound=StrEnum)
Item = TypeVar("Item")

MAX_TEXT: Final = 256 * 1024
MAX_NAME: Final = 512
_MAX_URI: Final = 8192

# What XML 1.0 cannot carry (production 2), so that every alert can also be written as XML.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_XML_SPACE: Final = " \t\r\n"
_NAME: Final = re.compile(r"[^\s,<&\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]+")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00)"
)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{1,8}+(?:-[A-Za-z0-9]{1,8}+){0,8}+")
_QUOTED_LIST: Final = re.compile(r'(?>"[^"\t\r\n]+"|[^\s"]+)(?> (?:"[^"\t\r\n]+"|[^\s"]+))*+')
_BARE: Final = r"""(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2}|[\u00a1-\ud7ff\ue000-\ufffd])"""
_RELATIVE: Final = rf"(?:{_BARE}|[/:@])*+(?:\?(?:{_BARE}|[/:@?])*+)?(?:#(?:{_BARE}|[/:@?])*+)?"
# An authority, or a path that does not look like one (RFC 3986 section 3).
# An authority, or a path that does not look like one (RFC 3986 section 3).
_ABSOLUTE_URI: Final = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.\-]*+:"
    rf"(?://(?:(?>(?:{_BARE}|:)*@))?{_BARE}*+(?::[0-9]{{1,5}})?(?![^/?#])|(?!//)){_RELATIVE}"
)
# Without a scheme the first segment has no colon (RFC 3986 section 4.2).
_ANY_URI: Final = re.compile(rf"{_ABSOLUTE_URI.pattern}|(?=.)(?!//)(?:{_BARE}|@)*+(?!:){_RELATIVE}")
_MIME_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+\-]{1,127}/[A-Za-z0-9!#$&^_.+\-]{1,127}(?: ?;[ -~]{1,256})?"
)
_BASE64: Final = re.compile(r"(?=.)(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){1,64}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]{1,16}(?:\.[0-9]{0,16})?|\.[0-9]{1,16})")
_NAME_VALUE_MEMBERS: Final = frozenset({"valueName", "value"})
_REFERENCE_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class NameValue:
    """A ``valueName`` and ``value`` pair: an event code, a parameter or a geocode. The value may be empty."""

    value_name: str
    value: str


class Segment:
    """One JSON object with known members, read element by element."""

    __slots__ = ("_members", "_path", "_section")

    def __init__(
        self, value: Json, path: str, section: str, known: frozenset[str], required: tuple[str, ...]
    ) -> None:
        self._path = f"{path}." if path else ""
        self._section = section
        if type(value) is not dict:
            raise _malformed(path or "alert", "is not an object", section)
        self._members: JsonObject = value
        if not value.keys() <= known:
            unknown = ", ".join(sorted(value.keys() - known))[:200]
            raise _malformed(
                path or "alert", f"has members that CAP does not know: {unknown}", section
            )
        for name in required:
            if name not in value:
                raise self.malformed(name, "is required")

    def malformed(self, name: str, rule: str) -> Malformed:
        """The refusal of element ``name`` for ``rule``, with the standard's section."""
        return _malformed(f"{self._path}{name}", rule, self._section)

    def has(self, name: str) -> bool:
        """Whether the element is there."""
        return name in self._members

    def text(self, name: str) -> str:
        """Required text: not empty, not in white space, only characters that XML can carry."""
        return self._text(name, self._members[name])

    def optional_text(self, name: str) -> str | None:
        """The same where it may be left out."""
        return self._text(name, self._members[name]) if name in self._members else None

    def name(self, name: str) -> str:
        """An identifier or sender: no white space, comma, ``<`` or ``&``."""
        value = self._members[name]
        if type(value) is not str or len(value) > MAX_NAME or _NAME.fullmatch(value) is None:
            rule = f"must be 1 to {MAX_NAME} characters without spaces, commas, < and &"
            raise self.malformed(name, rule)
        return value

    def code(self, name: str, codes: Mapping[str, Code]) -> Code:
        """One value of a code list."""
        return self._code(name, self._members[name], codes)

    def code_list(self, name: str, codes: Mapping[str, Code]) -> tuple[Code, ...]:
        """Several values of a code list."""
        return tuple(
            self._code(f"{name}[{index}]", value, codes)
            for index, value in enumerate(self._list(name, len(codes)))
        )

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(
            self._text(f"{name}[{index}]", value)
            for index, value in enumerate(self._list(name, most))
        )

    def segments(
        self, name: str, most: int, parse: Callable[[Json, str], Item]
    ) -> tuple[Item, ...]:
        """A list of inner segments, each read by ``parse`` with its own path."""
        return tuple(
            parse(value, f"{self._path}{name}[{index}]")
            for index, value in enumerate(self._list(name, most))
        )

    def name_values(self, name: str, most: int) -> tuple[NameValue, ...]:
        """A list of ``valueName`` and ``value`` pairs."""
        return tuple(
            self._name_value(f"{name}[{index}]", value)
            for index, value in enumerate(self._list(name, most))
        )

    def time(self, name: str) -> str:
        """A required time in CAP's form (section 3.3.2), kept as it was written."""
        return self._time(name, self._members[name])

    def optional_time(self, name: str) -> str | None:
        """The same where it may be left out."""
        return self._time(name, self._members[name]) if name in self._members else None

    def references(self, name: str) -> str | None:
        """Messages named as ``sender,identifier,sent``, separated by spaces."""
        text = self.optional_text(name)
        if text is None:
            return None
        for reference in text.split(" "):
            parts = reference.split(",")
            if len(parts) != _REFERENCE_PARTS or not all(map(_NAME.fullmatch, parts)):
                rule = f"{reference[:80]!r} is not of the form sender,identifier,sent"
                raise self.malformed(name, rule)
            self._time(name, parts[2])
        return text

    def quoted_list(self, name: str) -> str | None:
        """Names separated by spaces; a name with white space in it stands in double quotes."""
        text = self.optional_text(name)
        if text is not None and _QUOTED_LIST.fullmatch(text) is None:
            rule = "must be names separated by single spaces, in double quotes where a name has a space"
            raise self.malformed(name, rule)
        return text

    def language(self, name: str, default: str) -> str:
        """A language tag (RFC 5646), or the standard's default."""
        if name not in self._members:
            return default
        return self._matching(name, _LANGUAGE, "is not a language tag such as et-EE", MAX_NAME)

    def absolute_uri(self, name: str) -> str | None:
        """A full URI."""
        if name not in self._members:
            return None
        return self._matching(name, _ABSOLUTE_URI, "is not a full, absolute URI", _MAX_URI)

    def uri(self, name: str) -> str | None:
        """A full URI, or a relative one that names the content of ``derefUri``."""
        if name not in self._members:
            return None
        return self._matching(name, _ANY_URI, "is not a URI", _MAX_URI)

    def mime_type(self, name: str) -> str:
        """A content type and sub-type (RFC 2046)."""
        rule = "is not a content type such as image/png"
        return self._matching(name, _MIME_TYPE, rule, MAX_NAME)

    def base64(self, name: str) -> str | None:
        """Base64 with padding and without line breaks."""
        if name not in self._members:
            return None
        rule = "is not base64 with padding and without line breaks"
        return self._matching(name, _BASE64, rule, MAX_TEXT)

    def hexadecimal(self, name: str) -> str | None:
        """A digest in hexadecimal; the standard's SHA-1 has 40 digits, services also publish longer ones."""
        if name not in self._members:
            return None
        return self._matching(name, _HEX, "is not a digest in hexadecimal", MAX_NAME)

    def decimal(self, name: str) -> str | None:
        """A decimal number (XML Schema), kept as it was written."""
        if name not in self._members:
            return None
        return self._matching(name, _DECIMAL, "is not a decimal number", MAX_NAME)

    def integer(self, name: str) -> int | None:
        """A number of bytes."""
        if name not in self._members:
            return None
        value = self._members[name]
        # type() and not isinstance: JSON's true is no number.
        if type(value) is not int or not 0 <= value <= MAX_INTEGER:
            raise self.malformed(name, "is not a non-negative integer")
        return value

    def _list(self, name: str, most: int) -> list[Json]:
        if name not in self._members:
            return []
        value = self._members[name]
        if type(value) is list and 0 < len(value) <= most:
            return value
        raise self.malformed(name, f"is not a list of 1 to {most} items")

    def _text(self, name: str, value: Json) -> str:
        if type(value) is not str:
            raise self.malformed(name, "is not a string")
        if not value:
            raise self.malformed(name, "is empty")
        if value[0] in _XML_SPACE or value[-1] in _XML_SPACE:
            raise self.malformed(name, "begins or ends with white space")
        return self._clean(name, value)

    def _clean(self, name: str, value: str) -> str:
        if len(value) > MAX_TEXT:
            raise self.malformed(name, f"is longer than {MAX_TEXT} characters")
        if _NOT_XML.search(value) is not None:
            raise self.malformed(name, "has a control character or another that XML cannot carry")
        return value

    def _code(self, name: str, value: Json, codes: Mapping[str, Code]) -> Code:
        code = codes.get(value) if type(value) is str else None
        if code is None:
            raise self.malformed(name, f"{str(value)[:40]!r} is not one of {', '.join(codes)}")
        return code

    def _name_value(self, name: str, pair: Json) -> NameValue:
        if type(pair) is not dict or pair.keys() != _NAME_VALUE_MEMBERS:
            raise self.malformed(name, "is not an object of exactly valueName and value")
        value = pair["value"]
        if value == "":
            return NameValue(self._text(f"{name}.valueName", pair["valueName"]), "")
        return NameValue(
            self._text(f"{name}.valueName", pair["valueName"]), self._text(f"{name}.value", value)
        )

    def _time(self, name: str, value: Json) -> str:
        if type(value) is not str or _TIME.fullmatch(value) is None:
            rule = (
                f"{str(value)[:40]!r} is not a time of the form YYYY-MM-DDThh:mm:ss+hh:mm; UTC is "
                "written -00:00, never Z, and there are no fractions of a second"
            )
            raise self.malformed(name, rule)
        try:
            datetime.fromisoformat(value)
        except ValueError as error:
            raise self.malformed(name, f"{value!r} is not a date and time that exists") from error
        return value

    def _matching(self, name: str, form: re.Pattern[str], rule: str, most: int) -> str:
        value = self._members[name]
        if type(value) is not str or len(value) > most or form.fullmatch(value) is None:
            raise self.malformed(name, f"{str(value)[:80]!r} {rule}")
        return value


def parse_cap_time(text: str) -> datetime:
    """The instant of a time that a parsed alert carries."""
    return datetime.fromisoformat(text)


def format_cap_time(instant: datetime) -> str:
    """An aware ``instant`` in CAP's form, in UTC (which CAP writes ``-00:00``), whole seconds."""
    return f"{instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}-00:00"


def _malformed(where: str, rule: str, section: str) -> Malformed:
    return Malformed(f"{where}: {rule} (CAP 1.2 section {section})", Reason.BAD_BODY)
