"""Charts as inline SVG: no script, no fonts, no clock.

In: plain numbers and labels (untrusted: they are escaped). Out: `Markup`, one <svg> a call, coloured by the
classes of templates/style.css, so that light, dark and print need no second drawing. Horizontal positions are
percentages and text is in CSS pixels: a chart fits any width and its text never shrinks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from pipeline.pages import finite, number, plain

LEFT, RIGHT = 13.0, 99.0  # per cent: the plotting area of line and bar charts, tick labels to its left
ROW, TOP, BOTTOM = 26, 12, 34  # pixels
NAME_WIDTH, NAME_HEIGHT = 16.0, 13.0  # a dot's name: per cent, pixels


@dataclass(frozen=True)
class Interval:
    """A dot with its whisker; any of the numbers may be missing. `kind` is a class of style.css."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = "baseline"


@dataclass(frozen=True)
class Series:
    """Values in the order of x (line chart) or of the groups (bar chart); missing ones leave a gap."""

    label: str
    y: Sequence[float | None]
    x: Sequence[float] = ()
    low: Sequence[float | None] = field(default=())
    high: Sequence[float | None] = field(default=())
    kind: str = "challenger"
    joined: bool = True
    """False: dots alone, without a line through them."""


@dataclass(frozen=True)
class Dot:
    """A named point; it is left out if either number is missing. `kind` is a class of style.css."""

    label: str
    x: float | None
    y: float | None
    kind: str = "baseline"


@dataclass(frozen=True)
class Event:
    """An upright line at x with a short name above."""

    x: float
    label: str


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that cover low..high."""
    if not high > low:
        low, high = low - abs(low) / 2 - 1e-3, high + abs(high) / 2 + 1e-3
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def interval_chart(rows: Sequence[Interval], *, label: str, reference: float | None = None) -> Markup:
    """Dots with whiskers, one row each, on one scale; `reference` draws an upright line (no difference)."""
    shown = [row for row in rows if finite(row.value) is not None]
    if not shown:
        return Markup("")
    ends = [finite(end) for row in shown for end in (row.value, row.low, row.high, reference)]
    scale = _Scale([end for end in ends if end is not None], 34.0, 98.0)
    height = TOP + ROW * len(shown)
    parts = [_upright(scale.at(tick), height, scale.text(tick)) for tick in scale.ticks]
    if reference is not None:
        parts.append(_line(scale.at(reference), 4, scale.at(reference), height, "reference"))
    for place, row in enumerate(shown):
        parts.append(_whisker_row(row, scale, TOP + ROW * (place + 0.5)))
    return _svg(parts, height + 22, label)


def _whisker_row(row: Interval, scale: "_Scale", y: float) -> Markup:
    low, high = finite(row.low), finite(row.high)
    known = low is not None and high is not None
    span = f" [{number(low)}, {number(high)}]" if known else ""
    parts = [
        Markup("<title>{}: {}{}</title>").format(plain(row.label, 60), number(row.value), span),
        _line(0, y + 13, 100, y + 13, "grid"),
        Markup('<text class="name" x="0" y="{:.1f}">{}</text>').format(y + 4, plain(row.label, 24)),
        Markup('<text class="value wide" x="32%" y="{:.1f}">{}</text>').format(y + 4, number(row.value)),
    ]
    if low is not None and high is not None:
        parts.append(_line(scale.at(low), y, scale.at(high), y, "whisker"))
    dot = '<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="4.5"/>'
    parts.append(Markup(dot).format(scale.at(float(row.value or 0)), y))
    return Markup('<g class="{}">{}</g>').format(row.kind, Markup("").join(parts))


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    height: int = 170,
    groups: Sequence[str] = (),
    x_label: str = "",
    x_marks: Sequence[tuple[float, str]] = (),
    events: Sequence[Event] = (),
    most: int = 240,
) -> Markup:
    """Lines over a shared x; `groups` names the x positions 0, 1, ... where x is no number.

    Longer series are thinned to the means of at most `most` neighbourhoods. `low`/`high` draw a band.
    `x_marks` are written under the axis instead of its ends, e.g. dates; `events` are upright lines.
    """
    lines = [line for line in (_points(one, most) for one in series) if line.y]
    if not lines:
        return Markup("")
    values = [v for line in lines for v in (*line.y, *line.low, *line.high) if v is not None]
    top = TOP + (16 if events else 0)  # room for the events' names
    scale = _Scale(values, height - BOTTOM, top)
    xs = [x for line in lines for x in line.x] + [event.x for event in events]
    across = _Across(min(xs), max(xs), len(groups))
    parts = [_level(scale.at(tick), scale.text(tick)) for tick in scale.ticks]
    parts += _uprights(events, across, height - BOTTOM)
    parts += [_path(line, scale, across, height) for line in lines if line.joined]
    for line in lines:
        if len(line.y) <= 24 or not line.joined:
            parts += [_mark(line, place, scale, across) for place in range(len(line.y))]
    marks = [(float(x), name) for x, name in enumerate(groups)] or list(x_marks)
    marks = marks or [(x, number(x, 0)) for x in across.ends()]
    parts += [_below(across.at(x), height - 16, text) for x, text in marks]
    if x_label:
        parts.append(_below((LEFT + RIGHT) / 2, height - 2, x_label))
    return _svg(parts, height, label)


def _points(series: Series, most: int) -> Series:
    """Finite points in order of x, thinned, everything as floats."""
    bounds = (series.low or [None] * len(series.y), series.high or [None] * len(series.y))
    places = series.x or range(len(series.y))
    table = [
        (float(x), y, finite(low), finite(high))
        for x, y, low, high in zip(places, map(finite, series.y), *bounds, strict=True)
        if y is not None and finite(x) is not None
    ]
    table.sort(key=lambda row: row[0])
    size = -(-len(table) // most) or 1
    chunks = [table[begin : begin + size] for begin in range(0, len(table), size)]
    x, y, low, high = ([_mean([row[c] for row in chunk]) for chunk in chunks] for c in range(4))
    return Series(series.label, y, [v or 0.0 for v in x], low, high, series.kind, series.joined)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _path(line: Series, scale: "_Scale", across: "_Across", height: int) -> Markup:
    """Path and band in a nested picture that is stretched to the width; the stroke keeps its thickness."""
    place = [100 * (across.at(x) - LEFT) / (RIGHT - LEFT) for x in line.x]
    parts = []
    band = [(p, lo, hi) for p, lo, hi in zip(place, line.low, line.high, strict=True) if None not in (lo, hi)]
    if band:
        upper = [f"{p:.2f},{scale.at(hi or 0):.1f}" for p, _, hi in band]
        lower = [f"{p:.2f},{scale.at(lo or 0):.1f}" for p, lo, _ in reversed(band)]
        parts.append(Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower)))
    points = " ".join(f"{p:.2f},{scale.at(y or 0):.1f}" for p, y in zip(place, line.y, strict=True))
    parts.append(Markup('<polyline class="line" points="{}"/>').format(points))
    return _stretched(line.kind, LEFT, RIGHT - LEFT, height, Markup("").join(parts))


def _stretched(kind: str, left: float, width: float, height: int, inner: Markup) -> Markup:
    frame = (
        '<svg class="{}" x="{}%" y="0" width="{}%" height="{}" viewBox="0 0 100 {}" '
        'preserveAspectRatio="none" overflow="visible">{}</svg>'
    )
    return Markup(frame).format(kind, left, width, height, height, inner)


def _mark(line: Series, place: int, scale: "_Scale", across: "_Across") -> Markup:
    dot = '<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="{}"><title>{}: {}</title></circle>'
    y, radius = line.y[place], 2.6 if line.joined else 4.5
    where = (across.at(line.x[place]), scale.at(y or 0), radius)
    inner = Markup(dot).format(*where, plain(line.label, 60), number(y))
    return Markup('<g class="{}">{}</g>').format(line.kind, inner)


def _uprights(events: Sequence[Event], across: "_Across", bottom: float) -> list[Markup]:
    """Names that would lie on the one before are left out; the lines stay."""
    parts, free = [], -100.0
    for event in sorted(events, key=lambda one: one.x):
        x = across.at(event.x)
        parts.append(_line(x, 18, x, bottom, "event"))
        if x >= free:
            parts.append(_below(x, 12, event.label))
            free = x + 9  # per cent: the width of a version's name
    return parts


def spark_line(
    xs: Sequence[float], ys: Sequence[float], flags: Sequence[bool], *, label: str, floor: float | None = None
) -> Markup:
    """One signal over time, without axes: a dot where it was flagged, the floor dashed. Empty below two."""
    if len(ys) < 2:
        return Markup("")
    levels = [*ys, 0.0] if floor is None else [*ys, 0.0, floor]
    low, high, height = min(levels), max(levels), 36
    left, right = min(xs), max(xs)
    across = [1 + 98 * (x - left) / ((right - left) or 1.0) for x in xs]
    down = [33 - 30 * (y - low) / ((high - low) or 1.0) for y in (*ys, 0.0 if floor is None else floor)]
    parts = [] if floor is None else [_line(0, down[-1], 100, down[-1], "floor")]
    points = " ".join(f"{x:.2f},{y:.1f}" for x, y in zip(across, down, strict=False))
    parts.append(
        _stretched("", 0, 100, height, Markup('<polyline class="line" points="{}"/>').format(points))
    )
    dot = Markup('<circle class="{}" cx="{:.2f}%" cy="{:.1f}" r="2.6"/>')
    parts += [dot.format("flag", x, y) for x, y, flag in zip(across, down, flags, strict=False) if flag]
    parts.append(dot.format("now", across[-1], down[len(ys) - 1]))
    return _svg(parts, height, label, "chart spark")


def bar_chart(
    groups: Sequence[str],
    series: Sequence[Series],
    *,
    label: str,
    notes: Sequence[str] = (),
    height: int = 210,
) -> Markup:
    """Grouped bars from zero, whiskers where `low` and `high` are given; `notes` stand under the groups."""
    values = [finite(v) for one in series for v in (*one.y, *one.low, *one.high)]
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    bottom = BOTTOM if notes else BOTTOM - 12
    scale = _Scale([*known, 0.0], height - bottom, TOP)
    across = _Across(0, len(groups) - 1, len(groups))
    parts = [_level(scale.at(tick), scale.text(tick)) for tick in scale.ticks]
    width = 0.76 * across.step / max(1, len(series))
    for place, group in enumerate(groups):
        for shift, one in enumerate(series):
            left = across.at(place) + width * (shift - len(series) / 2)
            parts.append(_bar(one, place, group, left, width, scale))
        parts.append(_below(across.at(place), height - bottom + 15, group))
        if notes:
            parts.append(_below(across.at(place), height - bottom + 30, notes[place], "note"))
    return _svg(parts, height, label)


def _bar(one: Series, place: int, group: str, left: float, width: float, scale: "_Scale") -> Markup:
    value = finite(one.y[place])
    if value is None:
        return Markup("")
    low = finite(one.low[place]) if one.low else None
    high = finite(one.high[place]) if one.high else None
    upper, lower = sorted((scale.at(value), scale.at(0)))
    parts = [
        Markup("<title>{}, {}: {}</title>").format(plain(one.label, 60), plain(group, 40), number(value)),
        Markup('<rect class="bar" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}"/>').format(
            left + 0.06 * width, upper, 0.88 * width, max(lower - upper, 0.5)
        ),
    ]
    if low is not None and high is not None:
        middle = left + width / 2
        parts.append(_line(middle, scale.at(low), middle, scale.at(high), "whisker"))
    return Markup('<g class="{}">{}</g>').format(one.kind, Markup("").join(parts))


def scatter_chart(
    dots: Sequence[Dot], line: Series | None = None, *, label: str, height: int = 300, x_label: str = ""
) -> Markup:
    """Named dots, and a line behind them. A name that would lie on another one moves down."""
    known = [(finite(dot.x), finite(dot.y), dot) for dot in dots]
    shown = sorted(
        ((x, y, dot) for x, y, dot in known if x is not None and y is not None), key=lambda one: -one[1]
    )
    if not shown:
        return Markup("")
    behind = _points(line, 240) if line else Series("", ())
    scale = _Scale([*(y for _, y, _ in shown), *(y or 0.0 for y in behind.y)], height - BOTTOM, TOP)
    xs = [*(x for x, _, _ in shown), *behind.x]
    last = ticks(min(xs), max(xs))
    # The right quarter is for names.
    across = _Across(last[0], last[-1] + (last[-1] - last[0]) / 3, 0)
    parts = [_level(scale.at(tick), scale.text(tick)) for tick in scale.ticks]
    if behind.y:
        parts.append(_path(behind, scale, across, height))
    places = [(across.at(x), scale.at(y)) for x, y, _ in shown]
    names: list[tuple[float, float]] = []
    for (left, at), (_, _, dot) in zip(places, shown, strict=True):
        top = at
        while _covers(left, top, names, places):
            top += 1
        names.append((left, top))
        parts.append(_named_dot(dot, left, at, top))
    parts += [_below(across.at(x), height - 16, f"{x:g}") for x in last]
    if x_label:
        parts.append(_below((LEFT + RIGHT) / 2, height - 2, x_label))
    return _svg(parts, height, label)


def _covers(
    left: float, top: float, names: Sequence[tuple[float, float]], dots: Sequence[tuple[float, float]]
) -> bool:
    """Whether a name that begins at (left, top) would lie on another name, or on a dot to its right."""
    return any(abs(left - x) < NAME_WIDTH and abs(top - y) < NAME_HEIGHT for x, y in names) or any(
        0 < x - left < NAME_WIDTH and abs(top - y) < NAME_HEIGHT for x, y in dots
    )


def _named_dot(dot: Dot, left: float, at: float, name_at: float) -> Markup:
    name = plain(dot.label, 30)
    text = (
        '<g class="{}"><title>{}: {} at {}</title><circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="4.5"/>'
        '<text class="name" x="{:.2f}%" y="{:.1f}" dx="9">{}</text></g>'
    )
    values = (dot.kind, name, number(dot.y), number(dot.x, 1), left, at, left, name_at + 4, name)
    return Markup(text).format(*values)


class _Scale:
    """Values to positions (pixels down, or per cent across), on round ticks."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        self.ticks = ticks(min(values), max(values))
        self.start, self.stop = start, stop
        step = self.ticks[1] - self.ticks[0]
        self.digits = max(0, -math.floor(math.log10(step) + 1e-9))

    def at(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + (self.stop - self.start) * share

    def text(self, tick: float) -> str:
        return number(tick, self.digits)


class _Across:
    """x to per cent of the width: between the two ends, or the middle of one of `groups` equal columns."""

    def __init__(self, first: float, last: float, groups: int) -> None:
        self.first, self.last, self.groups = first, last, groups
        self.step = (RIGHT - LEFT) / groups if groups else 0.0

    def at(self, x: float) -> float:
        if self.groups:
            return LEFT + self.step * (x + 0.5)
        if self.last == self.first:
            return (LEFT + RIGHT) / 2
        return LEFT + 2 + (RIGHT - LEFT - 4) * (x - self.first) / (self.last - self.first)

    def ends(self) -> list[float]:
        return sorted({self.first, self.last})


def _svg(parts: Sequence[Markup], height: float, label: str, kind: str = "chart") -> Markup:
    frame = '<svg class="{}" role="img" aria-label="{}" width="100%" height="{:.0f}">{}</svg>'
    return Markup(frame).format(kind, plain(label), height, Markup("").join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    text = '<line class="{}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>'
    return Markup(text).format(kind, x1, y1, x2, y2)


def _upright(x: float, height: float, text: str) -> Markup:
    return _line(x, 4, x, height, "grid") + _below(x, height + 16, text)


def _level(y: float, text: str) -> Markup:
    tick = Markup('<text class="tick end" x="{}%" y="{:.1f}">{}</text>').format(LEFT - 1.5, y + 4, text)
    return _line(LEFT, y, RIGHT, y, "grid") + tick


def _below(x: float, y: float, text: str, kind: str = "tick") -> Markup:
    label = '<text class="{} middle" x="{:.2f}%" y="{:.1f}">{}</text>'
    return Markup(label).format(kind, x, y, plain(text, 40))
