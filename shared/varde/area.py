"""The area segment of an alert: where it applies. CAP 1.2 section 3.2.4.

Checks what the standard says of polygons, circles and heights. Whether a polygon crosses itself is not among it.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from varde.encoding import Json
from varde.segment import NameValue, Segment

MAX_SHAPES: Final = 1024
MAX_GEOCODES: Final = 4096
_SECTION: Final = "3.2.4"
_LEAST_PAIRS: Final = 4

# The WGS 84 range is part of the form, so a polygon of hundreds of points is checked by one match.
_LATITUDE: Final = r"[+-]?(?:0?(?>[0-8][0-9]|[0-9])(?:\.[0-9]{1,24})?|0?90(?:\.0{1,24})?)"
_LONGITUDE: Final = (
    r"[+-]?(?:(?>1[0-7][0-9]|0[0-9]{2}|[0-9]{1,2})(?![0-9])(?:\.[0-9]{1,24})?|180(?:\.0{1,24})?)"
)
_PAIR: Final = rf"(?>{_LATITUDE},{_LONGITUDE})"
_PAIR_ALONE: Final = re.compile(_PAIR)
_PAIRS: Final = re.compile(rf"{_PAIR}(?> {_PAIR})*+")
_CIRCLE: Final = re.compile(rf"{_PAIR} [0-9]{{1,5}}(?:\.[0-9]{{1,24}})?")


@dataclass(frozen=True, slots=True)
class Area:
    """One area; polygons, circles, altitude and ceiling (feet) in CAP's own lexical form."""

    area_desc: str
    polygon: tuple[str, ...] = ()
    circle: tuple[str, ...] = ()
    geocode: tuple[NameValue, ...] = ()
    altitude: str | None = None
    ceiling: str | None = None


def parse_area(value: Json, path: str) -> Area:
    """The area at ``path`` of an alert, or ``Malformed`` naming the rule that it breaks."""
    segment = Segment(value, path, _SECTION, _MEMBERS, ("areaDesc",))
    if segment.has("ceiling") and not segment.has("altitude"):
        raise segment.malformed("ceiling", "must not be used without altitude")
    polygons = segment.texts("polygon", MAX_SHAPES)
    for index, polygon in enumerate(polygons):
        _check_polygon(segment, f"polygon[{index}]", polygon)
    circles = segment.texts("circle", MAX_SHAPES)
    for index, circle in enumerate(circles):
        if _CIRCLE.fullmatch(circle) is None:
            rule = (
                f"{circle[:80]!r} is not 'latitude,longitude radius' with a radius of 0 km or more"
            )
            raise segment.malformed(f"circle[{index}]", rule)
    return Area(
        area_desc=segment.text("areaDesc"),
        polygon=polygons,
        circle=circles,
        geocode=segment.name_values("geocode", MAX_GEOCODES),
        altitude=segment.decimal("altitude"),
        ceiling=segment.decimal("ceiling"),
    )


def _check_polygon(segment: Segment, name: str, text: str) -> None:
    if _PAIRS.fullmatch(text) is None:
        bad = next(pair for pair in text.split(" ") if _PAIR_ALONE.fullmatch(pair) is None)
        rule = f"{bad[:80]!r} is not latitude,longitude in decimal degrees of WGS 84"
        raise segment.malformed(name, rule)
    pairs = text.split(" ")
    if len(pairs) < _LEAST_PAIRS:
        raise segment.malformed(name, f"has {len(pairs)} points where at least 4 are required")
    if pairs[0] != pairs[-1] and _degrees(pairs[0]) != _degrees(pairs[-1]):
        raise segment.malformed(name, "first and last point differ")


def _degrees(pair: str) -> list[Decimal]:
    return [Decimal(number) for number in pair.split(",")]


_MEMBERS: Final = frozenset({"areaDesc", "polygon", "circle", "geocode", "altitude", "ceiling"})
