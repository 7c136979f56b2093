"""Charts: positions by hand, gaps for what is missing, nothing drawn from nothing."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from pipeline.charts import (
    Dot,
    Interval,
    Series,
    bar_chart,
    interval_chart,
    line_chart,
    scatter_chart,
    ticks,
)


def drawn(svg: str, tag: str, attribute: str, kind: str = "") -> list[float]:
    """Values of an attribute, in per cent or pixels, of the elements with this tag and class."""
    found = [one for one in ElementTree.fromstring(svg).iter(tag) if kind in one.get("class", "")]
    return [float(one.get(attribute, "").rstrip("%")) for one in found]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 0.4, [0, 0.1, 0.2, 0.3, 0.4]),
        (-3, 11, [-5, 0, 5, 10, 15]),
        (0.0123, 0.0187, [0.012, 0.014, 0.016, 0.018, 0.02]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0, 1e-12, 1e9])
def test_ticks_around_a_single_value(value: float) -> None:
    found = ticks(value, value)
    assert found[0] <= value <= found[-1]
    assert 2 <= len(found) <= 8


def test_interval_chart_places_dot_and_whisker_on_the_scale() -> None:
    svg = interval_chart([Interval("a", 0.2, 0.1, 0.4), Interval("b", 0.0)], label="two models")
    # The scale runs from 0 at 34 % to 0.4 at 98 %.
    assert drawn(svg, "circle", "cx") == [66.0, 34.0]
    assert drawn(svg, "line", "x1", "whisker") == [50.0]
    assert drawn(svg, "line", "x2", "whisker") == [98.0]
    assert 'aria-label="two models"' in svg


def test_interval_chart_marks_the_reference() -> None:
    svg = interval_chart([Interval("a", 0.2, 0.1, 0.3)], label="difference", reference=0.0)
    assert drawn(svg, "line", "x1", "reference") == [34.0]


def test_interval_chart_leaves_out_what_has_no_value() -> None:
    svg = interval_chart([Interval("a", None), Interval("b", float("nan")), Interval("c", 1.0)], label="x")
    assert len(drawn(svg, "circle", "cx")) == 1
    assert interval_chart([Interval("a", None)], label="x") == ""


def test_line_chart_thins_long_series_to_means() -> None:
    svg = line_chart([Series("loss", [float(n % 2) for n in range(1000)], range(1000))], label="x", most=100)
    points = re.search(r'<polyline class="line" points="([^"]*)"', svg)
    assert points
    heights = {point.split(",")[1] for point in points[1].split()}
    assert len(points[1].split()) == 100
    assert len(heights) == 1  # every neighbourhood of ten has the mean one half


def test_line_chart_skips_missing_points_and_orders_by_x() -> None:
    svg = line_chart([Series("loss", [1.0, None, 0.0, float("inf")], [2, 1, 0, 3])], label="x")
    assert drawn(svg, "circle", "cx") == [15.0, 97.0]
    assert drawn(svg, "circle", "cy") == [136.0, 12.0]


def test_line_chart_draws_one_point_and_a_band() -> None:
    one = line_chart([Series("loss", [0.5], [7])], label="x")
    assert drawn(one, "circle", "cx") == [56.0]
    band = line_chart(
        [Series("a", [1.0, 2.0], low=[0.5, 1.5], high=[1.5, None])], label="x", groups=["w1", "w2"]
    )
    assert len(list(ElementTree.fromstring(band).iter("polygon"))) == 1
    assert "w2" in band


def test_line_chart_of_nothing_is_empty() -> None:
    assert line_chart([], label="x") == line_chart([Series("a", [None, float("nan")])], label="x") == ""


def test_bar_chart_starts_at_zero_and_leaves_gaps() -> None:
    svg = bar_chart(["0", "1–4"], [Series("a", [0.2, None]), Series("b", [0.4, 0.1])], label="x", height=100)
    # 0.4 is 12 px from the top, 0 is 22 px above the bottom: 66 px.
    assert drawn(svg, "rect", "height") == [33.0, 66.0, 16.5]
    assert drawn(svg, "rect", "y") == [45.0, 12.0, 61.5]


def test_bar_chart_draws_negative_values_below_zero() -> None:
    svg = bar_chart(["a"], [Series("x", [-1.0], low=[-2.0], high=[1.0])], label="x")
    zero = drawn(svg, "rect", "y")[0]
    assert drawn(svg, "rect", "height")[0] > 0
    assert drawn(svg, "line", "y2", "whisker")[0] < zero < drawn(svg, "line", "y1", "whisker")[0]


def test_bar_chart_of_nothing_is_empty() -> None:
    assert bar_chart([], [], label="x") == bar_chart(["a"], [Series("x", [None])], label="x") == ""


def test_labels_are_escaped() -> None:
    bad = '"><script>alert(1)</script>'
    series = [Series(bad, [1.0, 2.0], kind="baseline")]
    for svg in (
        interval_chart([Interval(bad, 1.0)], label=bad),
        line_chart(series, label=bad, groups=[bad, bad], x_label=bad),
        bar_chart([bad, bad], series, label=bad, notes=[bad, bad]),
    ):
        assert "<script" not in svg
        assert {one.tag for one in ElementTree.fromstring(svg).iter()} <= {
            *("svg", "g", "line", "circle", "rect", "text", "title", "polyline", "polygon")
        }


def test_names_of_dots_never_lie_on_each_other() -> None:
    dots = [Dot(f"dot {number}", number / 100, 0.5) for number in range(4)] + [Dot("far", 1, 0.9)]
    found = re.findall(r'class="name" x="([\d.]+)%" y="([\d.]+)"', scatter_chart(dots, label="crowded"))
    levels = sorted(float(y) for x, y in found if float(x) < 50)
    assert len(levels) == 4
    assert min(upper - lower for lower, upper in itertools.pairwise(levels)) >= 13


def test_a_dot_without_a_number_is_left_out_and_its_name_is_escaped() -> None:
    chart = scatter_chart([Dot("<b>", 1, 2), Dot("gone", None, 2), Dot("nan", 1, math.nan)], label="some")
    assert "&lt;b&gt;" in chart
    assert "gone" not in chart
    assert "nan" not in chart
    assert not scatter_chart([], label="none")
