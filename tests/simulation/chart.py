"""Bars of counted parts as an SVG, readable on white and on dark pages: it brings its own background and its own scale."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 860
LEFT, RIGHT = 140, 30
BAR, GAP, GROUP_GAP = 26, 12, 16
HEAD, FOOT = 104, 58
TICK = 50
INK, PALE_INK, GRID = "#1a202c", "#4a5568", "#cbd5e0"
CHARACTER = 7.5
"""About as wide as a digit is drawn."""


class Part(NamedTuple):
    """What a colour stands for; ``ink`` is that of the numbers on it."""

    name: str
    colour: str
    ink: str


class Bar(NamedTuple):
    """One bar; those of one group stand together."""

    group: str
    label: str
    counts: Sequence[int]


def draw_bars(
    title: str, subtitle: str, axis: str, parts: Sequence[Part], bars: Sequence[Bar]
) -> str:
    """The whole picture; every bar has a count for each part, in the same order."""
    most = max(sum(each.counts) for each in bars)
    scale = (WIDTH - LEFT - RIGHT) / most
    tops = _tops(bars)
    bottom = tops[-1] + BAR + 6
    height = bottom + FOOT
    drawn = [
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 32, title, size=18, weight="bold"),
        _text(20, 54, subtitle, ink=PALE_INK),
        *_legend(parts),
        *_scale(most, scale, bottom, axis),
    ]
    group = ""
    for top, bar in zip(tops, bars, strict=True):
        if bar.group != group:
            group = bar.group
            drawn.append(_text(20, top + 18, group, weight="bold"))
        drawn.append(_text(LEFT - 8, top + 18, bar.label, anchor="end", ink=PALE_INK))
        drawn += _bar(bar, parts, top, scale)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="13">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>\n"
    )


def _tops(bars: Sequence[Bar]) -> list[int]:
    tops: list[int] = []
    top, group = HEAD, bars[0].group
    for each in bars:
        top += GROUP_GAP if each.group != group else 0
        tops.append(top)
        top, group = top + BAR + GAP, each.group
    return tops


def _legend(parts: Sequence[Part]) -> list[str]:
    drawn: list[str] = []
    at = 20.0
    for part in parts:
        drawn.append(f'<rect x="{at:.1f}" y="70" width="13" height="13" fill="{part.colour}"/>')
        drawn.append(_text(at + 19, 81, part.name))
        at += 19 + len(part.name) * 6.6 + 24
    return drawn


def _scale(most: int, scale: float, bottom: int, axis: str) -> list[str]:
    drawn: list[str] = []
    marks = [each for each in range(0, most, TICK) if most - each >= TICK / 2]
    for mark in [*marks, most]:
        x = LEFT + mark * scale
        drawn.append(f'<path d="M{x:.1f} {HEAD - 6}V{bottom}" stroke="{GRID}"/>')
        drawn.append(_text(x, bottom + 18, str(mark), anchor="middle", ink=PALE_INK))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 40, axis, anchor="middle"))
    return drawn


def _bar(bar: Bar, parts: Sequence[Part], top: int, scale: float) -> list[str]:
    drawn: list[str] = []
    at, outside = float(LEFT), -1.0
    for part, count in zip(parts, bar.counts, strict=True):
        width = count * scale
        if not count:
            continue
        drawn.append(
            f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{part.colour}" '
            f'stroke="#ffffff"/>'
        )
        middle, needed = at + width / 2, len(str(count)) * CHARACTER + 4
        if width >= needed:
            drawn.append(_text(middle, top + 18, str(count), anchor="middle", ink=part.ink))
        else:
            # Above the bar where it does not fit on its segment, and beside the one before it where that one does not either.
            outside = max(middle, outside + needed)
            drawn.append(_text(outside, top - 1, str(count), anchor="middle", size=10))
        at += width
    return drawn


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    ink: str = INK,
    size: int = 13,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" font-size="{size}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )
