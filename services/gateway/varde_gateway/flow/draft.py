"""The step before the first: what a person, a program or a sensor wrote becomes an order to send an alert.

Strict about the bytes (one meaning only), lenient about the form of the alert (``cap.alert_from_api``), and every
refusal names the place. Nothing is recorded here.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn

from varde.alert import Alert
from varde.bulletin import Tlp, parse_tlp
from varde.encoding import MAX_INTEGER
from varde.errors import Malformed, Reason
from varde.identifiers import DocumentId, Nation, parse_nation
from varde.segment import format_cap_time
from varde_gateway.cap import alert_from_api, parse_cap_xml
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import InvalidAt, TooLarge, Unreadable
from varde_gateway.flow.send import Order

ALL_MEMBERS: Final = "*"
MAX_DEPTH: Final = 12
MAX_RECIPIENTS: Final = 64
_MAX_INTEGER_DIGITS: Final = 16
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# A backslash that is itself escaped does not begin an escape.
_NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")
_MEMBERS: Final = frozenset({"to", "tlp", "share_acknowledgements", "alert"})
_OPERATORS_MEMBERS: Final = _MEMBERS | {"attachments"}
_PATH: Final = re.compile(
    r"((?:[a-zA-Z]+(?:\[[0-9]+\])?)(?:\.[a-zA-Z]+(?:\[[0-9]+\])?)*):? ", re.ASCII
)


def parse_api_json(raw: bytes) -> dict[str, object]:
    """One JSON object as the API takes it: numbers of any kind, but each member once.

    ``Unreadable`` for anything that is not such an object, or where two readers could understand two things.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_bounded_integer,
        )
    except UnicodeDecodeError as error:
        raise Unreadable(f"The body is not UTF-8 at byte {error.start}.") from error
    except RecursionError as error:
        raise Unreadable(f"The body is nested deeper than {MAX_DEPTH}.") from error
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    if not isinstance(value, dict):
        raise Unreadable("The body is not a JSON object.")
    _check_depth(value)
    if _SURROGATE_ESCAPE.search(raw) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise Unreadable("A string in the body has a lone surrogate.")
    if b"\\u0000" in raw and _NUL_ESCAPE.search(raw):
        raise Unreadable("A string in the body has the character U+0000.")
    return value


def order_from_json(
    desk: Desk,
    value: dict[str, object],
    document: DocumentId,
    *,
    to: Sequence[Nation] | None = None,
    tlp: Tlp = Tlp.AMBER,
    with_files: bool = False,
) -> Order:
    """The order in the API's own JSON; ``to`` and ``tlp`` stand where it says nothing.

    ``with_files`` is for those who can upload: a sensor cannot.

    ``InvalidAt`` naming the member that is missing, unknown, or breaks a rule of CAP 1.2.
    """
    unknown = sorted(value.keys() - (_OPERATORS_MEMBERS if with_files else _MEMBERS))
    if unknown:
        raise InvalidAt(unknown[0][:80], f"The member {unknown[0][:80]!r} is unknown here.")
    if "alert" not in value:
        raise InvalidAt("alert", "The alert is missing.")
    share = value.get("share_acknowledgements", False)
    if not isinstance(share, bool):
        raise InvalidAt("share_acknowledgements", "share_acknowledgements is true or false.")
    if "to" in value:
        to = parse_recipients(desk, value["to"])
    elif to is None:
        raise InvalidAt("to", 'Say to whom: "to": ["FI", "LV"], or ["*"] for all members.')
    if "tlp" in value:
        tlp = parse_marking(value["tlp"])
    attachments = parse_attachment_ids(value.get("attachments", []))
    alert = _alert_from_json(desk, value["alert"], document, tlp)
    return Order(tuple(to), tlp, alert, share, attachments)


def order_from_xml(
    raw: bytes, *, to: Sequence[Nation], tlp: Tlp, attachments: tuple[str, ...] = ()
) -> Order:
    """The order to send one CAP 1.2 XML document; ``InvalidAt`` with the rule that it breaks."""
    try:
        alert = parse_cap_xml(raw)
    except Malformed as error:
        if error.reason is Reason.OVERSIZE:
            raise TooLarge(_sentence(error.detail)) from error
        raise _invalid_alert(error) from error
    return Order(tuple(to), tlp, alert, attachments=attachments)


def parse_recipients(desk: Desk, value: object) -> tuple[Nation, ...]:
    """Nations from a list of codes; ``*`` alone, or a list with it alone, is every other member not suspended by us."""
    if value in (ALL_MEMBERS, [ALL_MEMBERS]):
        return desk.trusted_peers()
    if not isinstance(value, list) or not 0 < len(value) <= MAX_RECIPIENTS:
        raise InvalidAt("to", f'to is "*" or a list of 1 to {MAX_RECIPIENTS} nation codes.')
    try:
        nations = tuple(parse_nation(each) for each in value)
    except Malformed as error:
        raise InvalidAt("to", _sentence(f"to: {error.detail}")) from error
    members = desk.trust.current.members
    for place, nation in enumerate(nations):
        if nation not in members:
            raise InvalidAt(
                f"to[{place}]",
                f"{nation} is not a member of this federation. Members: {', '.join(sorted(members))}.",
            )
        if nation in desk.trust.suspended:
            raise InvalidAt(
                f"to[{place}]",
                f"{nation} is suspended by this nation. Leave it out, or let an administrator end the suspension first.",
            )
    return nations


def parse_attachment_ids(value: object) -> tuple[str, ...]:
    """A list of ids; whether there are such files is seen when the alert is sent."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidAt("attachments", "attachments is a list of ids from POST /v1/attachments.")
    return tuple(value)


def parse_marking(value: object) -> Tlp:
    """A TLP label."""
    try:
        return parse_tlp(value if isinstance(value, str) else None)
    except Malformed as error:
        raise InvalidAt("tlp", f"tlp is one of {', '.join(Tlp)}.") from error


def _alert_from_json(desk: Desk, value: object, document: DocumentId, tlp: Tlp) -> Alert:
    try:
        return alert_from_api(
            value,
            identifier=document,
            sender=f"varde.{desk.nation.lower()}",
            sent=format_cap_time(datetime.fromtimestamp(desk.now(), UTC)),
            restriction=f"TLP:{tlp.value}",
        )
    except Malformed as error:
        raise _invalid_alert(error) from error


def _invalid_alert(error: Malformed) -> InvalidAt:
    named = _PATH.match(error.detail)
    path = "alert" if named is None or named[1] == "alert" else f"alert.{named[1]}"
    return InvalidAt(path, f"The alert is not valid CAP 1.2: {_sentence(error.detail)}")


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value] # add returns None
        raise Unreadable(f"The member {twice[:80]!r} stands twice in one object.")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise Unreadable(f"The body is not JSON: {text} is no number of JSON.")


def _bounded_integer(text: str) -> int:
    # The length is checked first: int() of a text with thousands of digits takes quadratic time.
    if len(text) > _MAX_INTEGER_DIGITS + 1 or abs(int(text)) > MAX_INTEGER:
        raise Unreadable(f"The number {text[:24]} is outside the allowed range.")
    return int(text)


def _check_depth(top: dict[str, object]) -> None:
    level: list[object] = [top]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else _items(value))
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise Unreadable(f"The body is nested deeper than {MAX_DEPTH}.")


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []
