"""Alerts for tests: one realistic CAP message as JSON, and a strategy over all of CAP 1.2."""

from functools import cache
from typing import Any

from hypothesis import strategies as st

from varde.alert import Alert, Info, Resource
from varde.area import Area
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
from varde.segment import NameValue

_POLYGON = (
    "59.3702,28.1893 59.3755,28.1921 59.3801,28.2010 59.3822,28.2127 59.3790,28.2204 59.3731,28.2242 "
    "59.3668,28.2215 59.3621,28.2148 59.3604,28.2049 59.3629,28.1951 59.3702,28.1893"
)
_GEOCODES = [
    {"valueName": "NUTS3", "value": "EE00A"},
    {"valueName": "EHAK", "value": "0511"},
]


def sample_alert(**overrides: Any) -> dict[str, Any]:
    """A border disturbance in two languages with a polygon, about 2 KiB; members of ``alert`` can be replaced."""
    alert: dict[str, Any] = {
        "identifier": "EE-2026-03-01-0007",
        "sender": "sitcen@riik.example",
        "sent": "2026-03-01T10:00:00+02:00",
        "status": "Actual",
        "msgType": "Alert",
        "source": "Narva piiripunkt, vahetuse vanem",
        "scope": "Restricted",
        "restriction": "TLP:AMBER",
        "code": ["varde:1"],
        "incidents": '"Narva jõgi 2026-03"',
        "info": [
            {
                "language": "et-EE",
                "category": ["Security", "Transport"],
                "event": "Piirirahutus",
                "responseType": ["Monitor", "Assess"],
                "urgency": "Immediate",
                "severity": "Severe",
                "certainty": "Observed",
                "eventCode": [{"valueName": "varde:domain", "value": "border-disturbance"}],
                "onset": "2026-03-01T09:40:00+02:00",
                "expires": "2026-03-01T16:00:00+02:00",
                "senderName": "Situatsioonikeskus",
                "headline": "Umbes 200 inimest koguneb Narva jõe idakaldal sadamasilla juures",
                "description": (
                    "Alates kella 9.40 koguneb Narva jõe idakaldale sadamasilla juurde umbes 200 inimest. Osa neist on "
                    "kaasa toonud redelid ja paadid. Sild on liikluseks suletud, patrullid on tugevdatud."
                ),
                "instruction": "Jälgige oma lõiku ja teatage sarnastest kogunemistest viivitamata.",
                "contact": "+372 555 0100",
                "parameter": [{"valueName": "varde:persons", "value": "200"}],
                "area": [
                    {
                        "areaDesc": "Narva linn, sadamasild",
                        "polygon": [_POLYGON],
                        "geocode": [dict(code) for code in _GEOCODES],
                    }
                ],
            },
            {
                "language": "en-GB",
                "category": ["Security", "Transport"],
                "event": "Border disturbance",
                "responseType": ["Monitor", "Assess"],
                "urgency": "Immediate",
                "severity": "Severe",
                "certainty": "Observed",
                "eventCode": [{"valueName": "varde:domain", "value": "border-disturbance"}],
                "onset": "2026-03-01T09:40:00+02:00",
                "expires": "2026-03-01T16:00:00+02:00",
                "senderName": "Situation Centre",
                "headline": "About 200 people gather on the east bank of the Narva by the harbour bridge",
                "description": (
                    "Since 9:40 about 200 people have been gathering on the east bank of the Narva by the harbour bridge. "
                    "Some of them have brought ladders and boats. The bridge is closed, patrols are reinforced."
                ),
                "instruction": "Watch your section and report similar gatherings at once.",
                "contact": "+372 555 0100",
                "area": [
                    {
                        "areaDesc": "Narva town, harbour bridge",
                        "circle": ["59.3715,28.2068 1.5"],
                        "geocode": [dict(code) for code in _GEOCODES],
                    }
                ],
            },
        ],
    }
    return alert | overrides


@cache
def texts(max_size: int = 24) -> st.SearchStrategy[str]:
    """Text as CAP carries it: any character of XML, no white space around it, not empty."""
    characters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    return (
        st.text(characters | st.sampled_from("\n\t\r<>&\"']"), min_size=1, max_size=max_size)
        .map(lambda text: text.strip(" \t\r\n"))
        .filter(bool)
    )


@cache
def times() -> st.SearchStrategy[str]:
    """Times in CAP's form with any offset."""
    moments = st.datetimes().map(lambda moment: moment.strftime("%m-%dT%H:%M:%S"))
    years = st.integers(1, 9999).map("{:04d}".format)
    offsets = st.sampled_from(["-00:00", "+00:00", "+02:00", "-05:00", "+05:45", "+14:00"])
    joined = st.builds("{}-{}{}".format, years, moments, offsets)
    return joined.filter(lambda text: "-02-29" not in text)


@cache
def polygons() -> st.SearchStrategy[str]:
    """Closed rings of at least four pairs."""
    rings = st.lists(_pairs(), min_size=3, max_size=8)
    return rings.map(lambda pairs: " ".join([*pairs, pairs[0]]))


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    """Any alert that keeps the rules of CAP 1.2."""
    scope = draw(st.sampled_from(Scope))
    msg_type = draw(st.sampled_from(MsgType))
    quoted = st.lists(_words() | _words().map('"{} x"'.format), min_size=1, max_size=3).map(
        " ".join
    )
    reference = st.builds("{},{},{}".format, _words(), _words(), times())
    references = st.lists(reference, min_size=1, max_size=3).map(" ".join)
    return Alert(
        identifier=draw(_words()),
        sender=draw(_words()),
        sent=draw(times()),
        status=draw(st.sampled_from(Status)),
        msg_type=msg_type,
        scope=scope,
        source=draw(st.none() | texts()),
        restriction=draw(texts() if scope is Scope.RESTRICTED else st.none() | texts()),
        addresses=draw(quoted if scope is Scope.PRIVATE else st.none() | quoted),
        code=draw(_tuples(texts())),
        note=draw(st.none() | texts()),
        references=draw(st.none() | references if msg_type is MsgType.ALERT else references),
        incidents=draw(st.none() | quoted),
        info=draw(_tuples(infos())),
    )


@cache
def infos() -> st.SearchStrategy[Info]:
    """Any info."""
    pairs = _tuples(st.builds(NameValue, texts(), st.just("") | texts()))
    return st.builds(
        Info,
        category=st.lists(st.sampled_from(Category), min_size=1, max_size=3).map(tuple),
        event=texts(),
        urgency=st.sampled_from(Urgency),
        severity=st.sampled_from(Severity),
        certainty=st.sampled_from(Certainty),
        language=st.sampled_from(["en-US", "et-EE", "uk", "sr-Latn-RS", "no"]),
        response_type=_tuples(st.sampled_from(ResponseType)),
        audience=st.none() | texts(),
        event_code=pairs,
        effective=st.none() | times(),
        onset=st.none() | times(),
        expires=st.none() | times(),
        sender_name=st.none() | texts(),
        headline=st.none() | texts(),
        description=st.none() | texts(200),
        instruction=st.none() | texts(),
        web=st.none() | _uris(),
        contact=st.none() | texts(),
        parameter=pairs,
        resource=_tuples(_resources()),
        area=_tuples(_areas()),
    )


@cache
def _resources() -> st.SearchStrategy[Resource]:
    return st.builds(
        Resource,
        resource_desc=texts(),
        mime_type=st.sampled_from(["image/png", "text/html; charset=utf-8", "audio/x-mp3"]),
        size=st.none() | st.integers(0, 2**53 - 1),
        uri=st.none() | _uris() | st.sampled_from(["map.png", "a/b?c#d"]),
        deref_uri=st.none() | st.sampled_from(["AA==", "AAA=", "AAAA", "+/+/AAAA"]),
        digest=st.none() | st.binary(min_size=20, max_size=20).map(bytes.hex),
    )


@st.composite
def _areas(draw: st.DrawFn) -> Area:
    heights = st.sampled_from(["0", "-3.5", "+9842.5197", ".5", "7."])
    altitude = draw(st.none() | heights)
    return Area(
        area_desc=draw(texts()),
        polygon=draw(_tuples(polygons())),
        circle=draw(_tuples(st.builds("{} {}".format, _pairs(), st.sampled_from(["0", "2.5"])))),
        geocode=draw(_tuples(st.builds(NameValue, texts(), texts()))),
        altitude=altitude,
        ceiling=None if altitude is None else draw(st.none() | heights),
    )


@cache
def _pairs() -> st.SearchStrategy[str]:
    latitudes = st.decimals(-90, 90, places=4).map("{:f}".format)
    longitudes = st.decimals(-180, 180, places=4).map("{:f}".format)
    return st.builds("{},{}".format, latitudes, longitudes)


@cache
def _words() -> st.SearchStrategy[str]:
    return st.text("abcXYZ019._:@/-čõß漢", min_size=1, max_size=16)


@cache
def _uris() -> st.SearchStrategy[str]:
    return st.sampled_from(
        [
            "https://riik.example/a?b=c&d=%C3%B5#e",
            "urn:x:y",
            "http://u:p@h.example:8080",
            "tel:+3725",
        ]
    )


def _tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=2).map(tuple)


def headlined_alert(headline: str, **overrides: Any) -> dict[str, Any]:
    """``sample_alert`` whose first info has this headline."""
    alert = sample_alert(**overrides)
    alert["info"][0]["headline"] = headline
    return alert


def routine_alert(headline: str) -> dict[str, Any]:
    """An alert that travels in the routine lane: nothing in it is severe."""
    alert = headlined_alert(headline)
    for info in alert["info"]:
        info["severity"] = "Minor"
    return alert
