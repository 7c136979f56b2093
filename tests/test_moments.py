import datetime
import re
from typing import Any

import pandas as pd
import pytest

from pipeline.data.hints import suggestions
from pipeline.data.moments import Days, TimeColumn, as_moments
from pipeline.data.tables import MOMENT
from pipeline.data.time_format import TimeFormat
from pipeline.errors import ConfigError, DataError

NOON = pd.Timestamp("2020-01-31 12:00", tz="UTC")  # 1,580,472,000 s


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
        "2020-01-31T06:00:00\u221206:00",
        "20200131T120000",
        "2020-01-31 12:00:00 UTC",
        "2020/01/31 12:00",
        "2020/1/31 12:00",
        "2020-01-31t12:00:00z",
        "2020-01-31T12:00z",
        "20200131t120000z",
        "2020-01-31 12:00 utc",
        datetime.datetime(2020, 1, 31, 12),
    ],
)
def test_every_notation_of_one_moment(cell: Any) -> None:
    for column in (pd.Series([cell]), pd.Series([cell, "2020-01-31T12:00:00Z"], dtype=object)):
        moments, bad = as_moments(column)
        assert moments.dtype == "datetime64[us, UTC]"
        assert moments.tolist() == [NOON] * len(column)
        assert not bad.any()


@pytest.mark.parametrize(
    "cell", ["1.70E+12", "1.70407E+12", "1,7E+12", "2e9", "1.7e12", "8.904670e+08", "1.704067e+12"]
)
def test_numbers_that_a_spreadsheet_rounded_are_no_moments(cell: str) -> None:
    moments, bad = as_moments(pd.Series([cell, "1704067200000"], dtype="str"))
    assert (moments.isna().tolist(), bad.tolist()) == ([True, False], [True, False])


@pytest.mark.parametrize("cell", ["1.704067200e+12", "1.7040672e12", "4.5292E+04", 1.7040672e18])
def test_exponents_with_all_digits_are_read(cell: str | float) -> None:
    moments, bad = as_moments(pd.Series([cell] * 3))
    assert moments.dt.strftime("%Y-%m-%d").tolist() == ["2024-01-01"] * 3
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
    assert bad.tolist() == [True] * 5 + [False] * 3 + [True, False]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["44927.5", "44928"], "2023-01-01 12:00"),  # Excel's days
        ([44927.25, 44930.0], "2023-01-01 06:00"),
        (["2459945.5", "2459947"], "2023-01-01"),  # Julian days
        (["19358", "19360"], "2023-01-01"),  # days since 1970
        (["20230102", "20230228"], "2023-01-02"),
        ([20230102, 20230228], "2023-01-02"),
        (["2023010209"], "2023-01-02 09:00"),
        (["202301020930"], "2023-01-02 09:30"),
        (["20230102093015"], "2023-01-02 09:30:15"),
        (["20230102093015250"], "2023-01-02 09:30:15.25"),
        (["2023", "2019"], "2023-01-01"),
        ([2023, 2019], "2023-01-01"),
        (["202302"], "2023-02-01"),
        ([638081280000000000], "2023-01-01"),  # ticks of .NET
        (["13317004800000000"], "2023-01-01"),  # WebKit
        (["133170048000000000"], "2023-01-01"),  # FILETIME
    ],
)
def test_numbers_are_read_in_the_unit_that_makes_them_likely(cells: list[Any], expected: str) -> None:
    moments, bad = as_moments(pd.Series(cells))
    assert moments[0] == pd.Timestamp(expected, tz="UTC")
    assert not bad.any()


def test_a_column_may_change_from_seconds_to_milliseconds() -> None:
    moments, _ = as_moments(pd.Series(["1580472000", "1580472000000", "1580472000000000"]))
    assert moments.tolist() == [NOON] * 3


@pytest.mark.parametrize("cells", [["1998.37", "1998.5"], [2019.001, 2020.0, 2021.75], ["2020", "2020.5"]])
def test_fractions_of_a_year_are_refused_as_that(cells: list[Any]) -> None:
    with pytest.raises(DataError, match=r"fractions of a year.*write dates in the source"):
        as_moments(pd.Series(cells))


@pytest.mark.parametrize("cells", [["1", "2", "3"], [12, 400, 9000], ["99999999"], [1e25]])
def test_numbers_that_no_unit_explains_are_refused_with_the_key(cells: list[Any]) -> None:
    with pytest.raises(DataError, match=r"collect\.files\.columns\.timestamp.*format"):
        as_moments(pd.Series(cells))


@pytest.mark.parametrize(
    ("cells", "units"),
    [
        (["1580472000", "44927.5"] * 9, ["s", "excel"]),
        (["1580472000000"] * 9 + ["45292"] * 3, ["ms", "excel"]),
        (["20240131", "1706659200"] * 9, ["%Y%m%d", "s"]),
        ([2_460_341, 45_322] * 9, ["julian", "excel"]),
    ],
)
def test_a_column_of_two_units_is_refused_with_a_day_of_each(cells: list[Any], units: list[str]) -> None:
    with pytest.raises(DataError, match=r"\d is 20\d\d-\d\d-\d\d.*\d is 20\d\d-.*bring all to one") as error:
        as_moments(pd.Series(cells))
    assert "format" not in str(error.value)  # of one would refuse the other half
    assert all(repr(unit) in str(error.value) for unit in units)


NO_DATES = ["0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00.000Z", "00/00/0000", "0.0.0000 00:00"]
NO_DATES += ["00000000", "00000000000000", "1900-01-00", "1/0/1900 0:00", "0-Jan-00"]


@pytest.mark.parametrize("said", [None, TimeFormat("%d/%m/%Y"), TimeFormat("%m/%d/%Y %H:%M")])
def test_days_of_zero_are_missing_times(said: TimeFormat | None) -> None:
    moments, bad = as_moments(pd.Series(NO_DATES), said=said)
    assert moments.isna().all()
    assert not bad.any()
    assert as_moments(pd.Series(["2024-00-31", "2024-01-00"]))[1].all()  # no dates, but no words for none


@pytest.mark.parametrize(
    "cell", ["\u200e2020-01-31 12:00", "2020-01-31\u00a012:00\ufeff", "2020-01-31T12:00\u200bZ"]
)
def test_what_nobody_sees_is_no_part_of_a_time(cell: str) -> None:
    assert as_moments(pd.Series([cell]))[0].tolist() == [NOON]


def test_single_precision_is_refused_for_it_has_lost_minutes() -> None:
    with pytest.raises(DataError, match=r"timestamp.*float32"):
        as_moments(pd.Series([1580472000, 1580472001], dtype="float32"))


def test_thousands_of_times_may_be_parted_where_params_say_so() -> None:
    moments, bad = TimeColumn("timestamp", decimal=".").read(pd.Series(["1,580,472,000", "2020-01-31T12:00"]))
    assert (moments.tolist(), bad.any()) == ([NOON] * 2, False)


def test_a_later_chunk_in_another_unit_is_refused() -> None:
    column = TimeColumn("timestamp")
    column.read(pd.Series([1580472000, 1580472001]))
    with pytest.raises(DataError, match=r"'excel'.*'s'"):
        column.read(pd.Series([44927.5, 44928.5]))


def test_outliers_are_told_where_most_moments_are_likely() -> None:
    column = TimeColumn("timestamp")
    moments, bad = column.read(
        pd.Series(["1580472000", "0", "-1", "4070908800", "9999-12-31", "0001-01-01", "2020-01-31"])
    )
    assert not bad.any()
    assert column.outliers(moments).tolist() == [False, True, True, True, True, True, False]
    persian = TimeColumn("timestamp")
    moments, _ = persian.read(pd.Series(["1402-10-11", "1402-10-12"]))
    assert persian.outliers(moments).all()
    old = TimeColumn("timestamp")
    moments, _ = old.read(pd.Series(["1850-05-01", "1851-05-01", "2099-01-01"]))
    assert old.outliers(moments).tolist() == [False, False, True]


DAILY = pd.Series(pd.date_range("2016-01-01", "2026-03-01", tz="UTC")).astype(MOMENT)


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ([], None),
        (["2031-12-31"], "2026-03-02"),
        (["2029-01-01", "2031-12-31"], "2026-03-02"),  # two of 3,713
        (["2024-03-03", "1971-05-01", "2031-12-31"], "2026-03-02"),
        (["2027-01-01"], None),  # less than a year
        (["2029-01-01"] * 9, None),  # too many: the shop was closed
    ],
)
def test_a_few_moments_long_after_all_others_are_stray(more: list[str], end: str | None) -> None:
    days = Days()
    for chunk in (pd.Series(pd.to_datetime(more, utc=True)), DAILY[2000:], DAILY[:2000]):
        days.add(chunk.astype(MOMENT))
    assert days.end() == (end and pd.Timestamp(end, tz="UTC"))


def test_where_gaps_are_long_anyhow_no_moment_is_stray() -> None:
    years, days = [f"{year}-07-01" for year in (*range(1960, 2000), 2002)], Days()
    days.add(pd.Series(pd.to_datetime(years, utc=True)).astype(MOMENT))
    assert days.end() is None
    assert Days().end() is None


@pytest.mark.parametrize(
    ("cell", "said", "expected"),
    [
        ("31/01/2020 13:00", TimeFormat("%d/%m/%Y %H:%M", "Europe/Berlin"), NOON),
        ("1/31/2020 12:00 PM", TimeFormat("%m/%d/%Y %I:%M %p"), NOON),
        ("31.01.2020 14:00 +0200", TimeFormat("%d.%m.%Y %H:%M %z", "Asia/Tokyo"), NOON),
        ("2020-01-31 07:00", TimeFormat(zone="America/New_York"), NOON),
        ("2020-01-31 12:00Z", TimeFormat(zone="America/New_York"), NOON),
        ("2020-01-31T13:00+01:00", TimeFormat(zone="America/New_York"), NOON),
        ("2020-01-31T07:00:00-5", TimeFormat(zone="Asia/Tokyo"), NOON),
        (1580472000, TimeFormat(zone="America/New_York"), NOON),
        (202001312100, TimeFormat(zone="Asia/Tokyo"), NOON),
        (12, TimeFormat("s"), pd.Timestamp("1970-01-01 00:00:12", tz="UTC")),
        ("2020-01-31", TimeFormat("%d/%m/%Y"), pd.NaT),
        ("1580472000", TimeFormat("%d/%m/%Y"), pd.NaT),
        ("2020-01-31", TimeFormat("s"), pd.NaT),
    ],
)
def test_what_params_say_of_a_column_counts(cell: Any, said: TimeFormat, expected: Any) -> None:
    moments, bad = as_moments(pd.Series([cell]), said=said.check("x"))
    assert moments.isna().all() if expected is pd.NaT else moments.tolist() == [expected]
    assert bad.tolist() == [expected is pd.NaT]


@pytest.mark.parametrize("said", [TimeFormat("seconds"), TimeFormat(zone="Europe/Berlln")])
def test_what_params_cannot_mean_is_refused(said: TimeFormat) -> None:
    with pytest.raises(ConfigError, match=r"timestamp\.(format|zone)"):
        said.check("timestamp")


def test_patterns_are_suggested_if_they_read_all() -> None:
    assert suggestions(["12/1/2010 8:26", "12/13/2010 18:26"]) == ["%m/%d/%Y %H:%M"]
    assert suggestions(["1/2/2010"])[:2] == ["%d/%m/%Y", "%m/%d/%Y"]
    assert suggestions(["soon"]) == suggestions([]) == []


def test_datetimes_of_parquet_of_any_unit_and_zone() -> None:
    for column in (
        pd.Series([NOON.tz_localize(None)]).astype("datetime64[ns]"),
        pd.Series([NOON]).dt.tz_convert("Asia/Tokyo").astype("datetime64[ms, Asia/Tokyo]"),
        pd.Series([datetime.date(2020, 1, 31)], dtype=object) ,
    ):  # fmt: skip
        assert as_moments(column)[0].dt.date.tolist() == [datetime.date(2020, 1, 31)]


@pytest.mark.parametrize(
    "cell",
    ["2016-12-31T23:59:60Z", "2016-12-31 24:00", "2016-12-31T24:00:00.000+00:00", "2016-12-31T23:59:60.5Z"],
)
def test_a_leap_second_and_the_midnight_at_a_days_end_are_the_next_day(cell: str) -> None:
    moments, bad = as_moments(pd.Series([cell, "2016-12-31T22:00:00Z", "2016-12-31T24:01:00Z"]))
    assert moments.iloc[0] == pd.Timestamp("2017-01-01", tz="UTC")
    assert bad.tolist() == [False, False, True]


@pytest.mark.parametrize("pattern", ["%Q-%m", "%Y-%m-%", "%Y-%Y", "%d/%m %H:%M"])
def test_a_pattern_that_is_none_is_refused_with_its_key(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"columns\.timestamp\.format: .*write it like"):
        TimeFormat(pattern).check("collect.files.columns.timestamp")


@pytest.mark.parametrize(
    ("pattern", "sign"),
    [
        ("%d.%m.%Y %H:%M:%S %p", "%I"),  # an hour past noon would stay in the morning
        ("%d.%m.%Y %I:%M:%S", "%p"),
        ("%d/%M/%Y", "%m"),  # all of it would be January
        ("%d/%m/%Y %H:%m", "%M"),
        ("%d %Y", "%m"),
        ("%Y-%m-%d %Z %H:%M:%S", "%Z"),
        ("%Y-%m-%d %H:%M:%S EST", "zone"),
        ("%Y-%m-%d %H:%M:%S Europe/Berlin", "zone"),
        ("%Y-%m-%d %H:%M:%S +02:00", "zone"),
    ],
)
def test_a_pattern_that_would_misread_every_cell_is_refused(pattern: str, sign: str) -> None:
    with pytest.raises(ConfigError, match=rf"columns\.timestamp\.format: .*{sign}"):
        TimeFormat(pattern).check("collect.files.columns.timestamp")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("dd/MM/yyyy HH:mm", "%d/%m/%Y %H:%M"),  # Java
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "%Y-%m-%dT%H:%M:%S.%f%z"),
        ("EEE, d MMM uuuu hh:mm:ss a", "%a, %d %b %Y %I:%M:%S %p"),
        ("M/d/yyyy h:mm:ss tt", "%m/%d/%Y %I:%M:%S %p"),  # .NET
        ("yyyyMMddHHmmss", "%Y%m%d%H%M%S"),
        ("%d/%m/%Y %H:%i:%s", "%d/%m/%Y %H:%M:%S"),  # MySQL
        ("%e. %M %Y %h:%i %p", "%d. %B %Y %I:%M %p"),
        ("%d/%c/%Y", "%d/%m/%Y"),
        ("%-d/%-m/%y %k:%M", "%d/%m/%y %H:%M"),  # C
        ("%F %T", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%dT%H:%M:%S%.3f%:z", "%Y-%m-%dT%H:%M:%S.%f%z"),  # chrono
        ("YYYY-MM-DD-HH24.MI.SS", "%Y-%m-%d-%H.%M.%S"),  # DB2
        ("DD-MON-RR HH.MI.SS.FF6 AM", "%d-%b-%y %I.%M.%S.%f %p"),  # Oracle
        ('YYYY-MM-DD"T"HH24:MI:SS', "%Y-%m-%dT%H:%M:%S"),
        ("YYYY-MM-DD HH:MM:SS", "%Y-%m-%d %H:%M:%S"),  # by hand
        ("MMMM D, YYYY [at] h:mm A", "%B %d, %Y at %I:%M %p"),  # moment
        ("TT.MM.JJJJ hh:mm", "%d.%m.%Y %H:%M"),  # a German spreadsheet
        ("02/01/2006 15:04", "%d/%m/%Y %H:%M"),  # Go
        ("%d.%m.%Y HH:mm", "%d.%m.%Y %H:%M"),
        ("unix", "s"),
        ("epoch_millis", "ms"),
    ],
)
def test_a_pattern_of_another_program_is_refused_with_ours(theirs: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=rf'columns\.timestamp\.format: .*write .*"{re.escape(ours)}"'):
        TimeFormat(theirs).check("collect.files.columns.timestamp")
    assert TimeFormat(ours).check("key")


@pytest.mark.parametrize(
    "theirs", ["quarter", "yyyy/D", "EEE MMM dd HH:mm:ss zzz yyyy", "dd/MM", "", "ISO8601"]
)
def test_what_has_no_pattern_of_ours_gets_none(theirs: str) -> None:
    with pytest.raises(ConfigError, match=r'format: .*like "%d/%m/%Y %H:%M"$'):
        TimeFormat(theirs).check("key")


@pytest.mark.parametrize(
    "said",
    [
        TimeFormat("%Y-%m-%d %H:%M:%S Europe/Berlin", "Europe/Berlin"),
        TimeFormat("%Y-%m-%d %H:%M:%S UTC"),
        TimeFormat("%Y-%m-%dT%H:%M:%S%z"),
        TimeFormat("%d %b %Y at %I:%M %p"),
        TimeFormat("%Y%j"),
        TimeFormat("%Y-%m"),
    ],
)
def test_patterns_that_read_what_they_say_are_taken(said: TimeFormat) -> None:
    assert said.check("key") == said


@pytest.mark.parametrize(
    ("cell", "zone", "utc"),
    [
        ("2023-01-02 12:00 CET", "Europe/Berlin", "2023-01-02 11:00"),
        ("2023-07-02 12:00 CEST", "Europe/Berlin", "2023-07-02 10:00"),
        ("2023-10-29 02:30 CEST", "Europe/Berlin", "2023-10-29 00:30"),  # twice in that night
        ("2023-10-29 02:30 CET", "Europe/Berlin", "2023-10-29 01:30"),
        ("2023-01-02 12:00 UTC", None, "2023-01-02 12:00"),
        ("2023-01-02 12:00 America/New_York", None, "2023-01-02 17:00"),
        ("2023-01-02 12:00 CEST", "Europe/Berlin", None),  # no such clock in winter
        ("2023-01-02 12:00 EST", None, None),
        ("2023-01-02 12:00 EST", "Europe/Berlin", None),
        ("2023-01-02 12:00", "Europe/Berlin", None),
        ("2023-01-02 12:00 Nowhere/Land", "Europe/Berlin", None),
    ],
)
def test_names_of_zones_are_read_where_a_pattern_says_so(
    cell: str, zone: str | None, utc: str | None
) -> None:
    said = TimeFormat("%Y-%m-%d %H:%M %Z", zone).check("key")
    moments, bad = TimeColumn("timestamp", said).read(pd.Series([cell, None, cell]))
    assert bad.tolist() == [utc is None, False, utc is None]
    assert moments.isna().tolist() == [utc is None, True, utc is None]
    assert utc is None or moments.iloc[0] == pd.Timestamp(utc, tz="UTC")
