"""The alert: one CAP 1.2 message as a frozen value, parsed from its JSON form and formatted back.

OASIS CAP-v1.2-os of 1 July 2010, sections 3.2.1 to 3.2.3 (``area`` has 3.2.4); protocol section 8 for the JSON
form: CAP's element names as members, values as strings in CAP's own lexical form, ``size`` as an integer. It does
not know XML, and it does not judge what the standard only recommends (one category and event code over
all infos, a note in an ``Error``). A message without info is allowed, as an ``Ack`` has none.
"""

from dataclasses import dataclass
from typing import Final

from varde.area import Area, parse_area
from varde.capcodes import (
    Category,
    Certainty,
    MsgType,
    ResponseType,
    Scope,
    Severity,
    Status,
    Urgency,
)
from varde.encoding import Json, JsonObject
from varde.segment import NameValue, Segment

DEFAULT_LANGUAGE: Final = "en-US"
MAX_INFOS: Final = 64
MAX_AREAS: Final = 1024
MAX_RESOURCES: Final = 64
MAX_CODES: Final = 256
MAX_PARAMETERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Resource:
    """A file that belongs to an info, by reference (``uri``) or enclosed (``deref_uri``, base64)."""

    resource_desc: str
    mime_type: str
    size: int | None = None
    uri: str | None = None
    deref_uri: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """What happens, in one language."""

    category: tuple[Category, ...]
    event: str
    urgency: Urgency
    severity: Severity
    certainty: Certainty
    language: str = DEFAULT_LANGUAGE
    response_type: tuple[ResponseType, ...] = ()
    audience: str | None = None
    event_code: tuple[NameValue, ...] = ()
    effective: str | None = None
    onset: str | None = None
    expires: str | None = None
    sender_name: str | None = None
    headline: str | None = None
    description: str | None = None
    instruction: str | None = None
    web: str | None = None
    contact: str | None = None
    parameter: tuple[NameValue, ...] = ()
    resource: tuple[Resource, ...] = ()
    area: tuple[Area, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """One CAP message. Times, references and addresses stay as they were written."""

    identifier: str
    sender: str
    sent: str
    status: Status
    msg_type: MsgType
    scope: Scope
    source: str | None = None
    restriction: str | None = None
    addresses: str | None = None
    code: tuple[str, ...] = ()
    note: str | None = None
    references: str | None = None
    incidents: str | None = None
    info: tuple[Info, ...] = ()


def parse_alert(value: Json) -> Alert:
    """The alert of one JSON value, or ``Malformed`` naming the element and the rule that it breaks."""
    segment = Segment(value, "", "3.2.1", _ALERT_KNOWN, _ALERT_REQUIRED)
    alert = Alert(
        identifier=segment.name("identifier"),
        sender=segment.name("sender"),
        sent=segment.time("sent"),
        status=segment.code("status", _STATUS),
        msg_type=segment.code("msgType", _MSG_TYPE),
        scope=segment.code("scope", _SCOPE),
        source=segment.optional_text("source"),
        restriction=segment.optional_text("restriction"),
        addresses=segment.quoted_list("addresses"),
        code=segment.texts("code", MAX_CODES),
        note=segment.optional_text("note"),
        references=segment.references("references"),
        incidents=segment.quoted_list("incidents"),
        info=segment.segments("info", MAX_INFOS, _parse_info),
    )
    if alert.scope is Scope.RESTRICTED and alert.restriction is None:
        raise segment.malformed("restriction", "is required when scope is Restricted")
    if alert.scope is Scope.PRIVATE and alert.addresses is None:
        raise segment.malformed("addresses", "is required when scope is Private")
    if alert.msg_type is not MsgType.ALERT and alert.references is None:
        rule = f"is required when msgType is {alert.msg_type.value}: it names the earlier messages"
        raise segment.malformed("references", rule)
    return alert


def format_alert(alert: Alert) -> JsonObject:
    """The JSON form, members in the order of CAP's schema; what is absent or empty is left out."""
    return _format_segment(alert, _ALERT_MEMBERS)


def _parse_info(value: Json, path: str) -> Info:
    segment = Segment(value, path, "3.2.2", _INFO_KNOWN, _INFO_REQUIRED)
    return Info(
        category=segment.code_list("category", _CATEGORY),
        event=segment.text("event"),
        urgency=segment.code("urgency", _URGENCY),
        severity=segment.code("severity", _SEVERITY),
        certainty=segment.code("certainty", _CERTAINTY),
        language=segment.language("language", DEFAULT_LANGUAGE),
        response_type=segment.code_list("responseType", _RESPONSE_TYPE),
        audience=segment.optional_text("audience"),
        event_code=segment.name_values("eventCode", MAX_CODES),
        effective=segment.optional_time("effective"),
        onset=segment.optional_time("onset"),
        expires=segment.optional_time("expires"),
        sender_name=segment.optional_text("senderName"),
        headline=segment.optional_text("headline"),
        description=segment.optional_text("description"),
        instruction=segment.optional_text("instruction"),
        web=segment.absolute_uri("web"),
        contact=segment.optional_text("contact"),
        parameter=segment.name_values("parameter", MAX_PARAMETERS),
        resource=segment.segments("resource", MAX_RESOURCES, _parse_resource),
        area=segment.segments("area", MAX_AREAS, parse_area),
    )


def _parse_resource(value: Json, path: str) -> Resource:
    segment = Segment(value, path, "3.2.3", _RESOURCE_KNOWN, ("resourceDesc", "mimeType"))
    return Resource(
        resource_desc=segment.text("resourceDesc"),
        mime_type=segment.mime_type("mimeType"),
        size=segment.integer("size"),
        uri=segment.uri("uri"),
        deref_uri=segment.base64("derefUri"),
        digest=segment.hexadecimal("digest"),
    )


def _format_segment(segment: object, members: dict[str, str]) -> JsonObject:
    formatted: JsonObject = {}
    for member, attribute in members.items():
        value = getattr(segment, attribute)
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            inner = _INNER_MEMBERS.get(member)
            formatted[member] = (
                [str(item) for item in value]
                if inner is None
                else [_format_segment(item, inner) for item in value]
            )
        else:
            formatted[member] = value if isinstance(value, int) else str(value)
    return formatted


# Member to attribute, in the order of CAP's schema.
_ALERT_MEMBERS: Final = {
    "identifier": "identifier",
    "sender": "sender",
    "sent": "sent",
    "status": "status",
    "msgType": "msg_type",
    "source": "source",
    "scope": "scope",
    "restriction": "restriction",
    "addresses": "addresses",
    "code": "code",
    "note": "note",
    "references": "references",
    "incidents": "incidents",
    "info": "info",
}
_INFO_MEMBERS: Final = {
    "language": "language",
    "category": "category",
    "event": "event",
    "responseType": "response_type",
    "urgency": "urgency",
    "severity": "severity",
    "certainty": "certainty",
    "audience": "audience",
    "eventCode": "event_code",
    "effective": "effective",
    "onset": "onset",
    "expires": "expires",
    "senderName": "sender_name",
    "headline": "headline",
    "description": "description",
    "instruction": "instruction",
    "web": "web",
    "contact": "contact",
    "parameter": "parameter",
    "resource": "resource",
    "area": "area",
}
_RESOURCE_MEMBERS: Final = {
    "resourceDesc": "resource_desc",
    "mimeType": "mime_type",
    "size": "size",
    "uri": "uri",
    "derefUri": "deref_uri",
    "digest": "digest",
}
_AREA_MEMBERS: Final = {
    "areaDesc": "area_desc",
    "polygon": "polygon",
    "circle": "circle",
    "geocode": "geocode",
    "altitude": "altitude",
    "ceiling": "ceiling",
}
_NAME_VALUE_MEMBERS: Final = {"valueName": "value_name", "value": "value"}
_INNER_MEMBERS: Final = {
    "info": _INFO_MEMBERS,
    "resource": _RESOURCE_MEMBERS,
    "area": _AREA_MEMBERS,
    "eventCode": _NAME_VALUE_MEMBERS,
    "parameter": _NAME_VALUE_MEMBERS,
    "geocode": _NAME_VALUE_MEMBERS,
}
_ALERT_KNOWN: Final = frozenset(_ALERT_MEMBERS)
_INFO_KNOWN: Final = frozenset(_INFO_MEMBERS)
_RESOURCE_KNOWN: Final = frozenset(_RESOURCE_MEMBERS)
_ALERT_REQUIRED: Final = ("identifier", "sender", "sent", "status", "msgType", "scope")
_INFO_REQUIRED: Final = ("category", "event", "urgency", "severity", "certainty")
_STATUS: Final = {code.value: code for code in Status}
_MSG_TYPE: Final = {code.value: code for code in MsgType}
_SCOPE: Final = {code.value: code for code in Scope}
_CATEGORY: Final = {code.value: code for code in Category}
_RESPONSE_TYPE: Final = {code.value: code for code in ResponseType}
_URGENCY: Final = {code.value: code for code in Urgency}
_SEVERITY: Final = {code.value: code for code in Severity}
_CERTAINTY: Final = {code.value: code for code in Certainty}
