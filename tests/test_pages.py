"""Numbers and untrusted texts as they stand on a page."""

import math
from typing import Any

import pytest
from jinja2 import UndefinedError

from pipeline.pages import moment, number, page, plain, show, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (1234.5, "1,234.500"),
        (-0.5, "−0.500"),
        (-0.0001, "0.000"),
        (True, "–"),
        ("1", "–"),
    ],
)
def test_number_has_three_decimals_and_a_true_minus(value: Any, text: str) -> None:
    assert number(value) == text


def test_signed_number_has_no_signed_zero() -> None:
    assert [number(value, sign=True) for value in (0.01, -0.01, 0.0, -0.0001)] == [
        "+0.010",
        "−0.010",
        "0.000",
        "0.000",
    ]


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, [], {}])
def test_unknown_number_is_a_dash(value: Any) -> None:
    assert number(value) == "–"


def test_plain_keeps_one_line_within_the_limit() -> None:
    assert plain("a\r\n\tb   c\x0b d") == "a b c d"
    assert plain("x" * 10, 10) == "x" * 10
    assert plain("x" * 11, 10) == "x" * 9 + "…"
    assert plain("\u202e\ufeff\x07") == ""


def test_moment_is_cut_to_the_minute() -> None:
    assert moment("1998-04-22T23:10:38+00:00") == "1998-04-22 23:10"
    assert moment("1998-04-22") == "1998-04-22"
    assert (moment(None), moment("soon")) == ("–", "soon")


def test_show_writes_settings_of_any_type() -> None:
    assert (
        show({"half_life": 25, "weights": [0.5, 1e-6], "log": True})
        == "half life 25, weights 0.5, 1e-06, log yes"
    )
    assert (show(None), show(""), show(math.nan), show("007")) == ("–", "–", "–", "007")
    assert words("frozen_text") == "frozen text"


def test_missing_value_of_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        page("base.html")
