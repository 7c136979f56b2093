import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.values import as_ids, as_lists, as_moments, as_numbers, as_text, as_typed

NOON = pd.Timestamp("2020-01-31 12:00", tz="UTC")  # 1,580,472,000 s


def cells(column: pd.Series) -> list[Any]:
    return [None if pd.isna(cell) else cell for cell in column]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pd.Series(["007", " 7 ", "1.0", "", None, "nan", "NULL"]),
            ["007", "7", "1.0", None, None, None, None],
        ),
        (pd.Series([12345.0, 0.5, None]), ["12345", "0.5", None]),
        (pd.Series([7, 9007199254740993], dtype="int64"), ["7", "9007199254740993"]),
        (pd.Series([9007199254740993, None], dtype="Int64"), ["9007199254740993", None]),
        (pd.Series([7, "007", 7.0, Decimal(7), True, b"x", None], dtype=object), None),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([], dtype=object), []),
    ],
)
def test_ids_are_text_as_they_stand(column: pd.Series, expected: list[Any] | None) -> None:
    ids = as_ids(column)
    assert ids.dtype == "str"
    assert cells(ids) == (["7", "007", "7", "7", "True", "x", None] if expected is None else expected)


def test_text_is_not_touched_and_empty_is_missing() -> None:
    assert cells(as_text(pd.Series([" a\x00b ", "", None, "nan"]))) == [" a\x00b ", None, None, "nan"]
    assert cells(as_text(pd.Series([["a", 1], {"b": 2}], dtype=object))) == ['["a", 1]', '{"b": 2}']


def test_numbers_are_finite_or_bad_or_missing() -> None:
    numbers, bad = as_numbers(pd.Series(["4.5", " -1e3 ", "", "NA", None, "x", "inf", "1,5"]))
    assert cells(numbers) == [4.5, -1000.0, None, None, None, None, None, None]
    assert bad.tolist() == [False] * 5 + [True] * 3
    for truth in ([True, False], ["true", "False"]):
        numbers, bad = as_numbers(pd.Series(truth))
        assert numbers.tolist() == [1.0, 0.0]
        assert not bad.any()
    assert as_numbers(pd.Series([np.inf, np.nan]))[1].tolist() == [True, False]


@pytest.mark.parametrize(
    "cell",
    [
        1_580_472_000,
        1_580_472_000_000,
        1_580_472_000_000_000,
        1_580_472_000_000_000_000,
        1580472000.0,
        "1580472000",
        "1580472000.0",
        "1.580472e9",
        " 1580472000000 ",
        "2020-01-31T12:00:00Z",
        "2020-01-31 12:00",
        "2020-01-31T12:00:00.000",
        "2020-01-31T12:00:00.000000999Z",
        "2020-01-31T12:00:00,000",
        "2020-01-31T14:00:00+02:00",
        "2020-01-31T06:00:00 -0600",
        "20200131T120000",
        "2020-01-31 12:00:00 UTC",
        "2020/01/31 12:00",
        "2020/1/31 12:00",
        datetime.datetime(2020, 1, 31, 12),
    ],
)
def test_every_notation_of_one_moment(cell: Any) -> None:
    for column in (pd.Series([cell]), pd.Series([cell, "2020-01-31T12:00:00Z"], dtype=object)):
        moments, bad = as_moments(column)
        assert moments.dtype == "datetime64[us, UTC]"
        assert moments.tolist() == [NOON] * len(column)
        assert not bad.any()


def test_rows_may_differ_in_notation() -> None:
    column = pd.Series(
        ["2020-01-31", "1580472000", "2020-01-31T13:00:00+01:00", "2020/1/1 8:26", "1580472000.5"]
    )
    moments, bad = as_moments(column)
    expected = ["2020-01-31", NOON, NOON, "2020-01-01 08:26", "2020-01-31 12:00:00.5"]
    assert moments.tolist() == [pd.Timestamp(moment) if isinstance(moment, pd.Timestamp) else
                                pd.Timestamp(moment, tz="UTC") for moment in expected]  # fmt: skip
    assert not bad.any()


def test_what_is_no_moment_is_told_from_what_is_missing() -> None:
    column = pd.Series(["now", "today", "soon", "2020-13-01", "12/1/2010 8:26", "", None, "nan", "1e99", "-"])
    moments, bad = as_moments(column)
    assert moments.isna().all()
    assert bad.tolist() == [True] * 5 + [False] * 3 + [True] * 2


def test_far_moments_keep_their_place() -> None:
    moments, _ = as_moments(pd.Series(["9999-12-31", "0001-01-01", "1960-01-01", "-1"]))
    assert [moment.year for moment in moments] == [9999, 1, 1960, 1969]


def test_eight_digits_are_days_only_if_most_are() -> None:
    days, bad = as_moments(pd.Series(["20200131", "20200229", "20201399"]))
    assert days.tolist()[:2] == [pd.Timestamp("2020-01-31", tz="UTC"), pd.Timestamp("2020-02-29", tz="UTC")]
    assert bad.tolist() == [False, False, True]
    seconds, _ = as_moments(pd.Series([20200131, 20200199, 20200299]))
    assert [moment.year for moment in seconds] == [1970] * 3


def test_datetimes_of_parquet_of_any_unit_and_zone() -> None:
    for column in (
        pd.Series([NOON.tz_localize(None)]).astype("datetime64[ns]"),
        pd.Series([NOON]).dt.tz_convert("Asia/Tokyo").astype("datetime64[ms, Asia/Tokyo]"),
        pd.Series([datetime.date(2020, 1, 31)], dtype=object) ,
    ):  # fmt: skip
        assert as_moments(column)[0].dt.date.tolist() == [datetime.date(2020, 1, 31)]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Comedy|Drama", ["Comedy", "Drama"]),
        (" Comedy | | Comedy ", ["Comedy"]),
        ("", []),
        (None, []),
        (["a", ["b", None], "a"], ["a", "b"]),
        (np.array(["a", "b"], dtype=object), ["a", "b"]),
        ('["a|b", "c"]', ["a|b", "c"]),
        ("['a', 'b']", ["a", "b"]),
        ("[not a list]", ["[not a list]"]),
        (7, ["7"]),
    ],
)
def test_lists(cell: Any, expected: list[str]) -> None:
    column = pd.Series([None, None], dtype=object)
    column[0] = cell
    assert as_lists(column).tolist() == [expected, []]


def test_typed_columns_are_numbers_only_if_every_cell_is_one() -> None:
    assert as_typed(pd.Series(["1", "", "-2"])).dtype == "Int64"
    assert as_typed(pd.Series(["1", "2.5"])).tolist() == [1.0, 2.5]
    assert as_typed(pd.Series(["0114709", "1"])).tolist() == ["0114709", "1"]
    assert as_typed(pd.Series(["1", "x"])).dtype == "str"
    assert as_typed(pd.Series(["", ""])).isna().all()
