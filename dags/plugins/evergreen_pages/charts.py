"""Charts as inline SVG: no script, no fonts, no clock.

In: plain numbers and labels (untrusted: they are escaped). Out: `Markup`, coloured by the classes of
style.css, so that light and dark need no second drawing. Across, positions are per cent of the width and
text is in CSS pixels: a chart fits a phone and its text never shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evergreen_pages.untrusted import number, plain

LEFT, RIGHT = 12.0, 98.0  # per cent: the plotting area
TOP, ROW = 10, 26  # pixels
NAME, VALUE, FIRST = 0.0, 36.0, 38.0  # per cent: columns of the interval chart


@dataclass(frozen=True)
class Interval:
    """A dot with its whisker; low and high may be missing. `kind` is a class of style.css."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "baseline"


@dataclass(frozen=True)
class Event:
    """A vertical line at x with a short name above."""

    x: float
    label: str
    kind: str = "promotion"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    title: str
    kind: str


def spark(xs: Sequence[float], ys: Sequence[float], flags: Sequence[bool], floor: float | None) -> Markup:
    """One signal over runs: a line, a dot where it was flagged, the floor dashed. Empty below two."""
    if len(ys) < 2:
        return Markup("")
    levels = [*ys, 0.0] if floor is None else [*ys, 0.0, floor]
    low, high = min(levels), max(levels)
    span = (high - low) or 1.0
    first, last = min(xs), max(xs)
    width = (last - first) or 1.0
    places = [(1 + 98 * (x - first) / width, 33 - 30 * (y - low) / span) for x, y in zip(xs, ys, strict=True)]
    parts = []
    if floor is not None:
        level = 33 - 30 * (floor - low) / span
        parts.append(Markup('<line class="floor" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(level))
    parts.append(_stretched(places, 36))
    for (x, y), flag in zip(places, flags, strict=True):
        if flag:
            parts.append(Markup('<circle class="flagged" cx="{:.2f}%" cy="{:.1f}" r="2.6"/>').format(x, y))
    x, y = places[-1]
    parts.append(Markup('<circle class="now" cx="{:.2f}%" cy="{:.1f}" r="2.2"/>').format(x, y))
    told = f"from {number(ys[0])} to {number(ys[-1])}, flagged {sum(flags)} times"
    return _svg(parts, 36, told, "spark")


def timeline(
    points: Sequence[Point],
    lines: Sequence[Sequence[Point]],
    events: Sequence[Event],
    dates: Sequence[tuple[float, str]],
    label: str,
    height: int = 220,
) -> Markup:
    """Points and lines over time; `events` are upright lines, `dates` are written under the axis."""
    every = [*points, *(point for line in lines for point in line)]
    if not every:
        return Markup("")
    xs = [point.x for point in every] + [event.x for event in events]
    first, last = min(xs), max(xs)
    scale = ticks(min(point.y for point in every), max(point.y for point in every))
    bottom, top = height - 24, 26

    def across(x: float) -> float:
        return (
            (LEFT + RIGHT) / 2
            if last == first
            else LEFT + 2 + (RIGHT - LEFT - 4) * (x - first) / (last - first)
        )

    def up(y: float) -> float:
        return bottom - (bottom - top) * (y - scale[0]) / (scale[-1] - scale[0])

    digits = max(0, -math.floor(math.log10(scale[1] - scale[0]) + 1e-9))
    parts = [_level(up(tick), number(tick, digits)) for tick in scale]
    parts += [_event(across(event.x), event, bottom) for event in _apart(events, across)]
    for line in lines:
        if len(line) > 1:
            places = [(across(point.x), up(point.y)) for point in line]
            parts.append(_stretched(places, height, line[0].kind))
    parts += [_dot(across(point.x), up(point.y), point) for point in points]
    parts += [_text(across(x), height - 6, text, "tick middle") for x, text in dates]
    return _svg(parts, height, label, "chart")


def _apart(events: Sequence[Event], across: Callable[[float], float]) -> list[Event]:
    """Names that would lie on the one before are left out; the lines stay."""
    shown, free = [], -100.0
    for event in sorted(events, key=lambda one: one.x):
        place = across(event.x)
        named = place >= free
        shown.append(event if named else Event(event.x, "", event.kind))
        free = place + 9 if named else free
    return shown


def intervals(rows: Sequence[Interval], label: str) -> Markup:
    """Dots with whiskers on one scale, a row each."""
    known = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    if not known:
        return Markup("")
    scale = ticks(min(0.0, *known), max(known))
    height = TOP + ROW * len(rows)

    def across(value: float) -> float:
        return FIRST + (98 - FIRST) * (value - scale[0]) / (scale[-1] - scale[0])

    digits = max(0, -math.floor(math.log10(scale[1] - scale[0]) + 1e-9))
    parts = []
    for tick in scale:
        parts.append(_line(across(tick), 4, across(tick), height, "grid"))
        parts.append(_text(across(tick), height + 16, number(tick, digits), "tick middle"))
    for place, row in enumerate(rows):
        parts.append(_whisker(row, across, TOP + ROW * (place + 0.5)))
    return _svg(parts, height + 22, label, "chart")


def _whisker(row: Interval, across: Callable[[float], float], y: float) -> Markup:
    name = plain(row.label, 26)
    parts = [
        Markup("<title>{}: {} [{}, {}]</title>").format(
            plain(row.label, 60), number(row.value), number(row.low), number(row.high)
        ),
        Markup('<text class="name" x="{}%" y="{:.1f}">{}</text>').format(NAME, y + 4, name),
        Markup('<text class="value" x="{}%" y="{:.1f}">{}</text>').format(VALUE, y + 4, number(row.value)),
    ]
    if row.low is not None and row.high is not None:
        parts.append(_line(across(row.low), y, across(row.high), y, "whisker"))
    place = across(row.value)
    parts.append(Markup('<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="4.5"/>').format(place, y))
    return Markup('<g class="{}">{}</g>').format(row.kind, Markup("").join(parts))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that cover low..high."""
    if not high > low:
        low, high = low - abs(low) / 2 - 1e-3, high + abs(high) / 2 + 1e-3
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _stretched(places: Sequence[tuple[float, float]], height: int, kind: str = "") -> Markup:
    """A line in a nested picture that is stretched to the width; the stroke keeps its thickness."""
    points = " ".join(f"{x:.2f},{y:.1f}" for x, y in places)
    frame = (
        '<svg class="{}" width="100%" height="{}" viewBox="0 0 100 {}" preserveAspectRatio="none" '
        'overflow="visible"><polyline class="line" points="{}"/></svg>'
    )
    return Markup(frame).format(kind, height, height, points)


def _dot(x: float, y: float, point: Point) -> Markup:
    text = '<circle class="{}" cx="{:.2f}%" cy="{:.1f}" r="4.5"><title>{}</title></circle>'
    return Markup(text).format(point.kind, x, y, plain(point.title, 200))


def _event(x: float, event: Event, bottom: float) -> Markup:
    return _line(x, 18, x, bottom, event.kind) + _text(x, 12, event.label, "event middle")


def _level(y: float, text: str) -> Markup:
    return _line(LEFT, y, RIGHT, y, "grid") + _text(LEFT - 1.5, y + 4, text, "tick end")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    text = '<line class="{}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>'
    return Markup(text).format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.2f}%" y="{:.1f}">{}</text>').format(kind, x, y, plain(text, 40))


def _svg(parts: Sequence[Markup], height: float, label: str, kind: str) -> Markup:
    frame = '<svg class="{}" role="img" aria-label="{}" width="100%" height="{:.0f}">{}</svg>'
    return Markup(frame).format(kind, plain(label), height, Markup("").join(parts))
