"""The two edges at which alerts come in: CAP 1.2 XML, and JSON as people and programs write it.

Both normalise to the one strict form and leave every rule to ``varde.alert``. XML goes out as well. Signatures in
the XML (the standard allows an enveloped ``ds:Signature``) are dropped and not verified: what vouches for an alert
in Varde is the sending nation's signed document, and who may hand XML in is decided before this module.
CAP 1.1 is refused; it is not converted.
"""

import math
import re
import threading
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final

from lxml import etree

from varde.alert import Alert, format_alert, parse_alert
from varde.capcodes import Scope
from varde.encoding import Json, JsonObject
from varde.errors import Malformed, Reason

MAX_CAP_BYTES: Final = 256 * 1024
CAP_NAMESPACE: Final = "urn:oasis:names:tc:emergency:cap:1.2"

_CAP: Final = f"{{{CAP_NAMESPACE}}}"
_OLDER_CAP: Final = {
    "urn:oasis:names:tc:emergency:cap:1.1": "1.1",
    "http://www.incident.com/cap/1.0": "1.0",
}
_SIGNATURE: Final = "{http://www.w3.org/2000/09/xmldsig#}Signature"
_SCHEMA_INSTANCE: Final = "{http://www.w3.org/2001/XMLSchema-instance}"
_XML_SPACE: Final = " \t\r\n"
_XML_SPACES: Final = re.compile(r"[ \t\r\n]+")
# What may stand before the root element. Atomic groups: an attacker's prolog is read once.
_PROLOG_WITH_DOCTYPE: Final = re.compile(
    rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?>[ \t\r\n]+|<\?.*?\?>|<!--.*?-->)*+<![dD]", re.DOTALL
)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")

_PAIRS: Final = frozenset({"eventCode", "parameter", "geocode"})
_STRUCTURES: Final = frozenset({"info", "resource", "area"})
_LISTS: Final = frozenset({"code", "category", "responseType", "polygon", "circle"})
_NUMBERS: Final = frozenset({"altitude", "ceiling"})
_SPACED: Final = frozenset({"polygon", "circle", "references", "addresses", "incidents"})
# Empty, any other element says the same as when it is left out, and many services publish it so.
_KEPT_EMPTY: Final = frozenset(
    {
        *("identifier", "sender", "sent", "status", "msgType", "scope"),
        *("event", "urgency", "severity", "certainty"),
        *("areaDesc", "resourceDesc", "mimeType", "valueName", "value"),
    }
)

_schema_lock: Final = threading.Lock()


def parse_cap_xml(raw: bytes) -> Alert:
    """The alert in one CAP 1.2 XML document, in whatever encoding it declares.

    1. At most ``MAX_CAP_BYTES``.
    2. No document type, so no entities but XML's own five and no default attributes.
    3. Well-formed XML, read without network, external files or unlimited depth.
    4. The root is ``alert`` of CAP 1.2.
    5. Only elements of CAP 1.2; comments, processing instructions, ``xsi`` hints, the signature and empty optional
       elements are dropped, text is trimmed.
    6. The rules of the standard (``parse_alert``).
    7. The schema: order and number of elements, no attributes.
    """
    if len(raw) > MAX_CAP_BYTES:  # (1)
        raise Malformed(
            f"the CAP document has {len(raw)} bytes where at most {MAX_CAP_BYTES} are allowed; send large "
            "files as attachments or by uri",
            Reason.OVERSIZE,
        )
    # Without the zero bytes, UTF-16 and UTF-32 read as ASCII here.
    if _PROLOG_WITH_DOCTYPE.match(raw.replace(b"\0", b"")):  # (2)
        raise _bad(
            "the document has a DOCTYPE, which is refused: CAP has none, and it opens XML attacks"
        )
    root = _parse_xml(raw)  # (3)
    _check_root(root)  # (4)
    for signature in root.findall(_SIGNATURE):
        root.remove(signature)
    alert = parse_alert(_read_structure(root, "alert"))  # (5) (6)
    _check_schema(root)  # (7)
    return alert


def format_cap_xml(alert: Alert) -> bytes:
    """The alert as CAP 1.2 XML in UTF-8, elements in the schema's order."""
    root = etree.fromstring(f'<alert xmlns="{CAP_NAMESPACE}"/>')
    _write_structure(root, format_alert(alert))
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def alert_from_api(
    value: object, *, identifier: str, sender: str, sent: str, restriction: str
) -> Alert:
    """The alert in JSON that a person or a program wrote, completed and brought to the strict form.

    Where a list is expected, one value will do; ``eventCode``, ``parameter`` and ``geocode`` may be objects of name
    to value or values; numbers may stand for numbers in text; a polygon may be a list of ``[lat, lon]`` pairs; null
    and empty optional members are left out. ``identifier``, ``sender`` and ``sent`` are used where the value has
    none. ``msgType`` is Alert and ``scope`` Restricted where not said, and ``restriction`` is the text of a Restricted
    alert that has none. ``status`` is never guessed: an exercise must not become real, nor the other way round.
    """
    if not isinstance(value, dict):
        raise _bad("alert: is not an object of CAP's elements")
    alert = _normal_structure(value)
    alert.setdefault("identifier", identifier)
    alert.setdefault("sender", sender)
    alert.setdefault("sent", sent)
    alert.setdefault("msgType", "Alert")
    if "status" not in alert:
        raise _bad(
            'status: is missing and never guessed; say "status": "Actual", "Exercise", "System" or "Test"'
        )
    if alert.setdefault("scope", Scope.RESTRICTED.value) == Scope.RESTRICTED.value:
        alert.setdefault("restriction", restriction)
    return parse_alert(alert)


def _parse_xml(raw: bytes) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, LookupError) as error:
        raise _bad(f"not well-formed XML: {str(error)[:300]}") from error
    # The second look is for encodings in which the prolog does not read as ASCII, such as UTF-7.
    if root.getroottree().docinfo.internalDTD is not None:
        raise _bad(
            "the document has a DOCTYPE, which is refused: CAP has none, and it opens XML attacks"
        )
    return root


def _check_root(root: etree._Element) -> None:
    name = etree.QName(root)
    if name.namespace in _OLDER_CAP:
        raise _bad(
            f"this is CAP {_OLDER_CAP[name.namespace]}; Varde takes CAP 1.2 (namespace {CAP_NAMESPACE})"
        )
    if root.tag != f"{_CAP}alert":
        raise _bad(
            f"the root element is {name.localname[:80]!r} of namespace {str(name.namespace)[:120]!r} where "
            f"'alert' of {CAP_NAMESPACE!r} is required"
        )


def _read_structure(element: etree._Element, path: str) -> JsonObject:
    members: JsonObject = {}
    _drop_schema_hints(element)
    for child in list(element):
        if not isinstance(child.tag, str) or not child.tag.startswith(_CAP):
            raise _bad(f"{_at(child)} {str(child.tag)[:120]!r} in {path} is no element of CAP 1.2")
        name = child.tag[len(_CAP) :]
        value = _read_element(child, name)
        if value is None:
            element.remove(child)
        elif name in _LISTS or name in _PAIRS or name in _STRUCTURES:
            items = members.setdefault(name, [])
            assert isinstance(items, list)
            items.append(value)
        elif name in members:
            raise _bad(f"{_at(child)} {name!r} stands twice in one {path}")
        else:
            members[name] = value
    return members


def _read_element(element: etree._Element, name: str) -> Json:
    if name in _STRUCTURES or name in _PAIRS:
        structure = _read_structure(element, name)
        empty_pair = name in _PAIRS and not any(structure.values())
        return None if empty_pair else structure
    if len(element):
        raise _bad(f"{_at(element)} {name!r} takes text and has elements inside")
    _drop_schema_hints(element)
    text = _normal_text(name, element.text or "")
    if not text and name not in _KEPT_EMPTY:
        return None
    return _normal_size(text) if name == "size" else text


def _drop_schema_hints(element: etree._Element) -> None:
    # libxml2 would follow xsi:schemaLocation when it validates, and so read a file or an address of the sender's choice.
    for name in element.attrib:
        if str(name).startswith(_SCHEMA_INSTANCE):
            del element.attrib[name]


def _check_schema(root: etree._Element) -> None:
    # A schema object keeps the errors of its last use, so one thread at a time.
    with _schema_lock:
        try:
            _load_schema().assertValid(root)
        except etree.DocumentInvalid as error:
            message = str(error).replace(_CAP, "")
            raise _bad(f"{message[:400]} (CAP 1.2 section 3.4, the schema)") from error


@cache
def _load_schema() -> etree.XMLSchema:
    schema = files("varde_gateway").joinpath("cap12.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(schema))


def _write_structure(element: etree._Element, members: JsonObject) -> None:
    for name, value in members.items():
        for item in value if isinstance(value, list) else (value,):
            child = etree.SubElement(element, f"{_CAP}{name}")
            if isinstance(item, dict):
                _write_structure(child, item)
            else:
                child.text = str(item)


def _normal_structure(value: dict[object, object]) -> JsonObject:
    members: JsonObject = {}
    for key, given in value.items():
        name = str(key)
        if given is None or given in ([], {}) or (given == "" and name not in _KEPT_EMPTY):
            continue
        if name in _STRUCTURES:
            members[name] = [_normal_inner(item) for item in _as_list(given)]
        elif name in _PAIRS:
            members[name] = [pair for item in _as_list(given) for pair in _normal_pairs(item)]
        elif name == "polygon":
            members[name] = [_normal_polygon(item) for item in _polygons(given)]
        elif name in _LISTS:
            members[name] = [_normal_value(name, item) for item in _as_list(given)]
        else:
            members[name] = _normal_value(name, given)
    return members


def _normal_inner(value: object) -> Json:
    return _normal_structure(value) if isinstance(value, dict) else str(value)[:80]


def _normal_value(name: str, value: object) -> Json:
    if isinstance(value, str):
        text = _normal_text(name, value)
        return _normal_size(text) if name == "size" else text
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value) if name in _NUMBERS or name == "value" else value
    if isinstance(value, float):
        return _format_number(value)
    # A list or an object where text belongs: the strict form refuses what is left of it, by name.
    return []


def _normal_text(name: str, text: str) -> str:
    trimmed = text.strip(_XML_SPACE)
    if name == "derefUri":
        return _XML_SPACES.sub("", trimmed)
    return _XML_SPACES.sub(" ", trimmed) if name in _SPACED else trimmed


def _normal_size(text: str) -> int | str:
    return int(text) if _INTEGER.fullmatch(text) else text


def _normal_pairs(value: object) -> Iterable[Json]:
    if not isinstance(value, dict):
        return [str(value)[:80]]
    if value.keys() <= {"valueName", "value"}:
        return [{str(name): _normal_value("value", item) for name, item in value.items()}]
    return [
        {"valueName": str(name).strip(_XML_SPACE), "value": _normal_value("value", item)}
        for name, given in value.items()
        for item in _as_list(given)
    ]


def _polygons(value: object) -> list[object]:
    # [[lat, lon], …] is one polygon, [[[lat, lon], …], …] are several.
    if isinstance(value, list) and isinstance(value[0], list):
        return value if value[0] and isinstance(value[0][0], list) else [value]
    return _as_list(value)


def _normal_polygon(value: object) -> Json:
    if not isinstance(value, list):
        return _normal_value("polygon", value)
    return " ".join(",".join(_format_number(number) for number in _as_list(pair)) for pair in value)


def _format_number(number: object) -> str:
    # Never an exponent: 1e-05 is written 0.00001.
    if isinstance(number, float) and math.isfinite(number):
        return format(Decimal(repr(number)), "f")
    return str(number)[:40]


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _at(element: etree._Element) -> str:
    return f"line {element.sourceline}:"


def _bad(detail: str) -> Malformed:
    return Malformed(detail, Reason.BAD_BODY)
