"""Which of several forms a caller prefers (RFC 9110 section 12.5.1)."""

import re
from collections.abc import Sequence
from typing import Final

from varde_gateway.web.errors import NotAcceptable

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}"
_RANGE: Final = re.compile(rf"[ \t]*({_WORD}/{_WORD})[ \t]*((?:;.*)?)", re.ASCII)
_QUALITY: Final = re.compile(r";\s*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.ASCII)


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """The offered media type of the highest quality, the earlier of equals; ``NotAcceptable`` where none will do."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [found for each in accept.split(",") if (found := _parse_range(each)) is not None]
    qualities = [_quality(media_type, ranges) for media_type in offered]
    best = max(qualities)
    if best == 0:
        raise NotAcceptable(f"This is available as {', '.join(offered)}.")
    return offered[qualities.index(best)]


def _parse_range(text: str) -> tuple[str, float] | None:
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    quality = _QUALITY.search(found[2])
    return found[1].lower(), 1.0 if quality is None else float(quality[1])


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    # The most specific range that fits decides: type/subtype, then type/*, then */*.
    for form in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        for pattern, quality in ranges:
            if pattern == form:
                return quality
    return 0.0
