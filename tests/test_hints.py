"""Cells that cannot be read: the advice names the notation, and what it says to do works."""

import re

import pandas as pd
import pytest

from pipeline.data import hints
from pipeline.data.moments import as_moments
from pipeline.data.time_format import TimeFormat
from pipeline.errors import DataError

MIDNIGHT = "2024-01-31"


@pytest.mark.parametrize(
    "cell",
    [
        "31/01/2024",
        "31. January 2024",
        "Jan 31 2024",
        "24-01-31",
        "2024-01-31 12:00:00 AM",
        "2024-031",
        "2024-W05-3",
        "2024年01月31日",
        "Timestamp('2024-01-31 00:00:00')",
        "2024-01-31T00:00:00+00:00[Etc/UTC]",
        "Wed Jan 31 2024 00:00:00 GMT+0000 (UTC)",
        "2024-01-31 00:00:00 EST",
        "2024-01-31 00:00:00 +0000 UTC",  # Go
        "31-JAN-24 12.00.00.000000 AM",  # Oracle
        "31JAN2024:00:00:00",  # SAS
        "Jan 31 2024 12:00AM",  # SQL Server
        "[31/Jan/2024:00:00:00 +0000]",
        "20240131_000000",
        "January 31, 2024 at 12:00 AM",
        "2024-01-31 12 AM",
    ],
)
def test_the_pattern_that_is_advised_reads_the_times(cell: str) -> None:
    advice = hints.of("unreadable_timestamp", [cell] * 3, "timestamp") or ""
    patterns = re.findall('"([^"]+)"', advice)
    assert "collect.files.columns.timestamp" in advice
    zone = "America/New_York" if cell.endswith("EST") else None
    assert ("zone: Z" in advice) == (zone is not None)
    said = [TimeFormat(pattern, zone).check("key") for pattern in patterns]
    read = [as_moments(pd.Series([cell]), said=one)[0][0] for one in said]
    assert pd.Timestamp(MIDNIGHT, tz=zone or "UTC") in read


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["2024Q1", "2024Q2"], "quarters"),
        (["2024-W05", "2024-W06"], "%G-W%V-%u"),
        (["1. März 2024", "2. Mai 2024"], "English"),
        (["2024-01-31 10:00 EST", "2024-07-31 10:00 EDT"], '%H:%M %Z" and Z like America/New_York'),
        (["2024-01-31 10:00 Europe/Berlin", "2024-07-31 10:00 Europe/Paris"], 'F is "%Y-%m-%d %H:%M %Z"'),
        (["2024-01-31 10:00 UTC+2"], "+02:00"),
        (["10:15", "10:16:30"], "{date: D, time: X}"),
        (["3 days ago"], "export dates"),
        (["۲۰۲۴-۰۱-۳۱"], "script"),
        (["1704067200,5"], "decimal"),
        (["1,704,067,200"], "decimal"),
        (["/Date(1704067200000)/"], "number alone"),
        (["1.70E+12"], "spreadsheet"),
        (["@1704067200"], "number alone"),
        (["1704067200000ms"], "number alone"),
        (["65920080abcdef1234567890"], "another column"),
        (["令和6年1月31日"], "2024-01-31"),
        (["########"], "narrow"),
        (["2024-00-00", "2024-05-00 10:00"], "day is 0"),
        (["2024-01-31 3:15 p.m."], "%p"),
        (["2024-01-31 10:15 ص"], "%p"),
        (["2024-01-31 下午3:15"], "%p"),
        (["timestamp"], "header"),
        (["'2024-01-31'", "'2024-02-01'"], "single quotes"),
        (["0x65b98b80"], "2024-01-31"),
        (['{"_seconds": 1706659200, "_nanoseconds": 0}'], "X._seconds"),
        (['{"$date": {"$numberLong": "1706659200000"}}'], "X.$date.$numberLong"),
        (["Mar-24", "Apr-24"], '"%b-%y"'),
        (["31/01/2024"] * 9 + ["soon"], '"%d/%m/%Y"'),
    ],
)
def test_notations_that_no_pattern_reads_are_named(cells: list[str], said: str) -> None:
    assert said in (hints.of("unreadable_timestamp", cells, "timestamp") or "")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["no", "yes"], '["yes"]'),
        (["★", "★★★"], '["★★★"]'),
        (["12%", "7.5 %"], "12 for 12%"),
        (["4/5", "3/5"], "4 for 4/5"),
        (["$3.50", "$4"], "3.50 for $3.50"),
        (["4 stars"], "4 for 4 stars"),
        (["(3.50)", "3.50-"], "-3.50"),
        (["00:03:20"], "seconds"),
        (["3,50"], 'decimal to ","'),
        (["1,234.50"], 'decimal to "."'),
        (["۴"], "script"),
        (["Infinity"], "infinite"),
        (["[3]"], "lists"),
        (['{"$numberDecimal": "3.5"}'], "value: X.$numberDecimal"),
    ],
)
def test_values_that_are_no_numbers_get_a_remedy_of_their_kind(cells: list[str], said: str) -> None:
    assert said in (hints.of("value_not_a_number", cells, "value") or "")


def test_lists_of_ids_are_to_be_written_as_rows() -> None:
    assert "row for each" in (hints.of("item_id_is_a_list_or_object", ['["a", "b"]'], "item_id") or "")
    assert "item_id: COLUMN.sku" in (hints.of("item_id_is_a_list_or_object", ['{"sku": 1}'], "item_id") or "")


@pytest.mark.parametrize("by", ["by_a_spreadsheet", "as_a_float"])
def test_ids_that_lost_digits_are_to_be_written_as_text(by: str) -> None:
    assert "as text" in (hints.of(f"user_id_rounded_{by}", [], "user_id") or "")


@pytest.mark.parametrize(
    ("cells", "pattern"),
    [
        (["240131", "231231"], "%y%m%d"),
        (["31012024", "01122023"], "%d%m%Y"),
        (["2024031", "2023365"], "%Y%j"),
        (["2401311200", "2312310000"], "%y%m%d%H%M"),
    ],
)
def test_dates_as_digits_that_are_not_taken_for_granted_are_proposed(cells: list[str], pattern: str) -> None:
    with pytest.raises(DataError, match=f"format: '{pattern}'"):
        as_moments(pd.Series(cells * 10))
    moments, bad = as_moments(pd.Series(cells), said=TimeFormat(pattern))
    assert not bad.any()
    assert moments[0].year == 2024


@pytest.mark.parametrize(("cell", "said"), [("1402-10-11", "Persian"), ("2567-01-31", "Buddhist")])
def test_years_of_another_calendar_are_named(cell: str, said: str) -> None:
    assert said in (hints.of("implausible_timestamp", [cell], "timestamp") or "")


def test_days_before_months_behind_the_year_are_said_of_the_cells_that_were_read_too() -> None:
    advice = hints.of("unreadable_timestamp", ["2024-13-01", "2024-25-12"], "timestamp", partly=True) or ""
    assert 'format: "%Y-%d-%m"' in advice
    assert "misread" in advice


def test_days_of_zero_are_named_as_no_times() -> None:
    assert "0000-00-00, is no time" in (hints.of("no_timestamp", ["0000-00-00"], "timestamp") or "")
    assert hints.of("no_timestamp", [float("nan")], "timestamp") is None  # type: ignore[list-item]


def test_times_in_another_unit_than_the_others_are_named_with_a_day() -> None:
    advice = hints.of("implausible_timestamp", ["44927.5", "44928"], "timestamp") or ""
    assert "'excel' they would be times (44927.5 is 2023-01-01): bring all to one" in advice
    assert hints.of("implausible_timestamp", ["0", "-1", "4070908800"], "timestamp") is None


def test_a_pattern_for_some_rows_alone_is_no_setting_for_all() -> None:
    """Excel makes dates of 1/3/2024 and leaves 13/3/2024 as text: a format would refuse the former."""
    advice = hints.of("unreadable_timestamp", ["13/3/2024", "14/3/2024"], "timestamp", partly=True) or ""
    assert "%d/%m/%Y" in advice
    assert "swapped" in advice
    assert "format: F" not in advice


@pytest.mark.parametrize("reason", ["header_again", "misplaced_quote", "unclosed_quote"])
def test_rows_that_cannot_be_parsed_have_a_step_of_their_own(reason: str) -> None:
    assert hints.of(reason, [], "X")
