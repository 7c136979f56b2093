"""Moments in foreign columns: which unit its numbers have, what its texts say, which of them cannot be.

Numbers are read in the unit in which most of the column lies between 1991 and LATEST; the units' ranges
hardly meet there, so the column says what it is. What no unit explains is refused, never guessed.
"""

from __future__ import annotations

import re
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from pipeline.data.hints import ROUNDED, ZONE_NAME, of_digits
from pipeline.data.tables import MOMENT
from pipeline.data.time_format import TimeFormat
from pipeline.data.units import EPOCHS, UNITS, fits, likely, shown
from pipeline.data.unseen import matching, tidied
from pipeline.data.values import MISSING, as_text, pointed
from pipeline.errors import DataError

# Interactions lie between these. Fixed, since the same file gives the same tables on another day; what is
# to come today, and is not yet 2032, the column itself tells (Days). From 2033 on
# epochs in seconds would meet dates of ten digits (2034 is 2,019,686,400 s).
EARLIEST, LATEST = pd.Timestamp("1970-01-02", tz="UTC"), pd.Timestamp("2032-01-01", tz="UTC")
_INTEGER = r"[+-]?\d{1,18}|[+-]?[1-8]\d{18}"
_ZONED = r".*(?:Z|UTC|GMT|[T ]\d.*[+-]\d\d?:?(?:\d\d)?)"
_TO_ONE = "bring all to one in the source, such as dates like 2024-01-31"
_SAMPLE = 10_000  # numbers of a chunk that tell the unit
_MIXED = 0.1  # of the numbers in a second unit are no typing errors
_LEAST = 20  # rows that tell what is stray
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?"
# A leap second and the midnight at a day's end, as ISO 8601 writes them, are the beginning of what follows.
_LEAP, _MIDNIGHT = r"(?<=[T ]\d\d:\d\d):60(?:\.\d+)?", r"(?<=[T ])24:00(?::00(?:\.0+)?)?(?![\d:.])"
# What MySQL writes for no time, and what spreadsheets show of an empty cell: their day 0.
_DAY_0 = r"1900-01-00|0?1/0?0/1900|0?0[./-]0?1[./-]1900|0?0-Jan-(?:19)?00"
_NO_DATE = (
    rf"(?:0000[-/.]00[-/.]00|00?[-/.]00?[-/.]00(?:00)?|0{{8}}|0{{14}}|{_DAY_0})"
    r"(?:[T ][\d:.]+(?: ?[AP]M)?(?:Z|[+-]00:?00)?)?"
)
_ALIEN = pd.Timestamp("1800-01-01", tz="UTC")  # nobody kept a log before: another calendar


class TimeColumn:
    """Reads one column chunk by chunk; the first chunk that shows a unit binds the others."""

    def __init__(
        self,
        name: str,
        said: TimeFormat | None = None,
        latest: pd.Timestamp = LATEST,
        decimal: str | None = None,
    ) -> None:
        self.name, self.said, self.latest, self.decimal = name, said or TimeFormat(), latest, decimal
        self.unit = self.said.format if self.said.format in UNITS else None
        self._old: bool | None = None

    def read(self, column: pd.Series) -> tuple[pd.Series, pd.Series]:
        """(UTC microseconds, which cells hold something that is no moment).

        Raises DataError if the numbers' unit cannot be told, or is another than that of rows before.
        """
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            return self._zoned(column), pd.Series(False, column.index)
        if column.dtype in ("float32", "float16") and self.said.format not in ("%Y", "%Y%m", "days"):
            raise DataError(
                f"{self.name}: times as {column.dtype} have lost minutes: write float64 or integers"
            )
        text = tidied(as_text(column)).str.replace("\u2212", "-")  # the sign minus, as ISO 8601 has it
        text = text.mask(text.isin(MISSING) | _no_dates(text))
        if self.decimal:  # 44927,04
            text = pointed(text, self.decimal).fillna(text)
        moments = pd.Series(pd.NaT, column.index, dtype=MOMENT)
        integers, numbers = matching(text, _INTEGER), matching(text, _NUMBER)
        if not pd.api.types.is_numeric_dtype(column.dtype):  # a number's own text has all of its digits
            numbers &= ~matching(text, ROUNDED)
        if self.said.format and not self.unit:
            moments = self._patterned(text)
        elif numbers.any():
            self._settle(text, numbers)
            for rows, kind in ((integers, "int64"), (numbers & ~integers, "float64")):
                if rows.any():
                    moments[rows] = self._counted(text[rows].astype(kind))
        written = matching(text, r"\d{4}[-/\d].*") & ~numbers
        if written.any() and not self.said.format:
            text = _with_capitals(text)
            moments[written] = self._zoned(_from_iso(text[written]), matching(text[written], _ZONED))
        return moments, text.notna() & moments.isna()

    def outliers(self, moments: pd.Series) -> pd.Series:
        """Which moments cannot be an interaction's: 0, year 1, 2099. Old ones may be where most are old."""
        if self._old is None and moments.notna().any():
            self._old = bool(_ALIEN < moments.median() < EARLIEST)
        late = moments >= self.latest
        return late if self._old else late | (moments < EARLIEST)

    def _settle(self, text: pd.Series, numbers: pd.Series) -> None:
        """Find the unit, or see that the one known still holds."""
        if self.said.format:
            return
        text = text[numbers & ~text.isin(["0", "-1"])]  # these are writers' words for 'no time'
        asked = text.iloc[:: 1 + len(text) // _SAMPLE].astype("float64").to_numpy()
        if np.mean((asked > 1900) & (asked < 2100) & (asked % 1 != 0)) > 0.1:
            raise DataError(
                f"{self.name}: numbers like {text.iloc[-1]} are fractions of a year, which tell no day for"
                " sure: write dates in the source, like 2024-01-31"
            )
        shares, best = self._shares(asked)
        units = [name for name, share in shares.items() if share and share > 0.9 * shares[best]]
        if shares[best] >= 0.5 and len(units) == 1:
            if self.unit and self.unit != best and {self.unit, best} - set(EPOCHS):
                raise DataError(
                    f"{self.name}: numbers like {text.iloc[0]} are times in {best!r}, those before them in "
                    f"{self.unit!r}: {_TO_ONE}"
                )
            self.unit = self.unit or best
        elif not self.unit and numbers.mean() > 0.5 and len(text):
            likely = of_digits(text.iloc[:: 1 + len(text) // 100].tolist()) or units
            may_be = f"may be {' or '.join(map(repr, likely))}" if likely else "are likely times in no unit"
            start = "" if likely else "; if they count from a start of their own, add that"
            raise DataError(f"{self.name}: numbers like {text.iloc[0]} {may_be}: {self._key(*likely)}{start}")

    def _shares(self, asked: np.ndarray) -> tuple[dict[str, float], str]:
        """(unit -> the share of the numbers that are likely times in it, the best one); epochs are one.

        Raises DataError if the numbers that are no times in the best unit are times in another.
        """
        single = fits(asked)
        epoch = max(EPOCHS, key=lambda name: single[name].sum())  # writers change from s to ms: one family
        fitting = {name: fit for name, fit in single.items() if name not in EPOCHS}
        fitting[epoch] = np.logical_or.reduce([single[name] for name in EPOCHS])
        best = max(fitting, key=lambda name: fitting[name].sum())
        others = {name: fit & ~fitting[best] for name, fit in fitting.items()}
        other = max(others, key=lambda name: others[name].sum())
        if len(asked) and others[other].mean() >= _MIXED:
            one, two = shown(asked[single[best]][0], best), shown(asked[others[other]][0], other)
            raise DataError(
                f"{self.name}: some of its numbers are times in {best!r} ({one}), others in {other!r} "
                f"({two}): {_TO_ONE}"
            )
        return {name: float(fit.mean()) if len(asked) else 0.0 for name, fit in fitting.items()}, best

    def _key(self, *units: str) -> str:
        unit = repr(units[0]) if units else f"F}}, where F is one of {', '.join(UNITS)}"
        return f"write collect.files.columns.{self.name}: {{column: X, format: {unit}" + "}" * bool(units)

    def _counted(self, numbers: pd.Series) -> pd.Series:
        values, name = numbers.to_numpy(), self.unit or "s"
        unit = UNITS[name]
        micros = unit.read(values)
        if name in EPOCHS and not self.said.format:  # writers change from s to ms; the sizes do not overlap
            for other in EPOCHS.values():
                read = other.read(values)
                micros = np.where(likely(read), read, micros)
        moments = pd.Series(micros.view("datetime64[us]"), numbers.index)
        return self._zoned(moments) if unit.local else moments.dt.tz_localize("UTC")

    def _patterned(self, text: pd.Series) -> pd.Series:
        pattern, _, behind = str(self.said.format).partition("%Z")
        names: pd.Series | None = None
        if "%Z" in str(self.said.format):
            parts = text.str.extract(rf"^(.*?)({ZONE_NAME}){re.escape(behind)}$")
            text, names = parts[0], parts[1]
        zoned = "%z" in pattern
        moments = pd.to_datetime(text, format=pattern, errors="coerce", utc=zoned)
        if zoned:
            return moments.astype(MOMENT)
        local = moments.astype("datetime64[us]")
        return self._zoned(local) if names is None else self._named(local, names)

    def _named(self, local: pd.Series, names: pd.Series) -> pd.Series:
        """UTC of clocks whose zones have these names; EST and EDT are those of the column's zone."""
        moments = pd.Series(pd.NaT, local.index, dtype=MOMENT)
        for name in names[local.notna()].dropna().unique():
            rows = local[(names == name) & local.notna()]
            if name in ("UTC", "GMT"):
                moments[rows.index] = rows.dt.tz_localize("UTC").astype(MOMENT)
            elif name in available_timezones() and "/" in name:
                moments[rows.index] = _clock_of(rows, name)
            elif self.said.zone:
                for first in (True, False):  # of an hour that a clock shows twice
                    there = rows.dt.tz_localize(
                        self.said.zone, ambiguous=np.full(len(rows), first), nonexistent="NaT"
                    )
                    fits = there[there.dt.strftime("%Z") == name]
                    moments[fits.index] = fits.dt.tz_convert("UTC").astype(MOMENT)
        return moments

    def _zoned(self, moments: pd.Series, named: pd.Series | None = None) -> pd.Series:
        """UTC; what has no zone is of the column's."""
        utc = pd.to_datetime(moments, utc=True).astype(MOMENT)
        if not self.said.zone or (named is None and moments.dt.tz is not None):
            return utc
        there = _clock_of(utc.dt.tz_localize(None), self.said.zone)
        return there if named is None else there.mask(named, utc)


def _with_capitals(text: pd.Series) -> pd.Series:
    """T, Z, UTC and GMT, which ISO 8601 and RFC 3339 let writers put in small letters, too."""
    small = text.str.contains(r"\dt\d|\dz$|\d ?(?:[Uu]tc|[Gg]mt)$", regex=True).fillna(False).astype(bool)
    return text.mask(small, text.str.upper()) if small.any() else text


def _no_dates(text: pd.Series) -> pd.Series:
    """Which cells are days of 0."""
    some = text.str.startswith(("0", "1900-", "1/0")).fillna(False).astype(bool)  # few: a pattern is dear
    if some.any():
        some[some] = matching(text[some], _NO_DATE)
    return some


def _clock_of(local: pd.Series, zone: str) -> pd.Series:
    """UTC of what a clock in the zone shows. An hour that it shows twice is the first."""
    first = np.ones(len(local), dtype=bool)
    there = local.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    return there.dt.tz_convert("UTC").astype(MOMENT)


class Days:
    """How many rows each day has, chunk by chunk: which few at the end lie far from all others."""

    def __init__(self) -> None:
        self._rows = pd.Series(dtype="float64", index=pd.DatetimeIndex([], dtype=MOMENT))

    def add(self, moments: pd.Series) -> None:
        self._rows = self._rows.add(moments.dt.floor("D").value_counts(), fill_value=0)

    def end(self) -> pd.Timestamp | None:
        """From when on rows are stray; None where none is.

        Stray: at most one row in a thousand, or a single one, more than a year after all others, and after
        three times the longest gap between those.
        """
        return stray_from(self._rows.sort_index(), share=0.001, days=365, gaps=3)


def stray_from(rows: pd.Series, share: float, days: int, gaps: int) -> pd.Timestamp | None:
    """The day from which on rows are stray; None where none is. `rows`: in order of the days that have any.

    Stray: at most `share` of all, or a single one, more than `days` after all others and more than `gaps`
    times the longest gap between those (the first few left out, which may be stray as well).
    """
    until, few = rows.cumsum(), max(1.0, rows.sum() * share)
    gap = pd.Series(rows.index.diff().days, rows.index).shift(-1)  # days until the next day with rows
    longest = gap.where(until > few, 0).shift(fill_value=0).cummax()
    far = (rows.sum() - until <= few) & (gap > days) & (gap > gaps * longest)
    if rows.sum() < _LEAST or not far.any():
        return None
    end: pd.Timestamp = far.idxmax() + pd.Timedelta(days=1)
    return end


def as_moments(
    column: pd.Series, name: str = "timestamp", said: TimeFormat | None = None
) -> tuple[pd.Series, pd.Series]:
    """TimeColumn.read for a column that is there as a whole."""
    return TimeColumn(name, said).read(column)


def _from_iso(text: pd.Series) -> pd.Series:
    moments = _plain_iso(text)
    return moments.fillna(_at_ends(text[moments.isna()])) if moments.isna().any() else moments


def _plain_iso(text: pd.Series) -> pd.Series:
    if text.str.contains(r"[,/A-SU-Y]|\.\d{7}|^\d{4}-(?:\d\D|\d\d-\d(?:\D|$))|[T ]\d:", regex=True).any():
        text = (
            text.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
            .str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", r"\1-\2-\3", regex=True)
            .str.replace(r"^(\d{4})-(\d)-", r"\1-0\2-", regex=True)
            .str.replace(r"^(\d{4}-\d\d)-(\d)(\D|$)", r"\1-0\2\3", regex=True)
            .str.replace(r"([T ])(\d):", r"\g<1>0\2:", regex=True)
            .str.replace(r"(:\d\d),(\d)", r"\1.\2", regex=True)
            .str.replace(
                r"(\.\d{6})\d+", r"\1", regex=True
            )  # nanoseconds would narrow the range to 1677-2262
        )
    return pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").astype(MOMENT)


def _at_ends(text: pd.Series) -> pd.Series:
    """Cells with 23:59:60 or 24:00."""
    leap, midnight = (text.str.contains(sign, regex=True) for sign in (_LEAP, _MIDNIGHT))
    text = text.str.replace(_LEAP, ":59", regex=True).str.replace(_MIDNIGHT, "00:00", regex=True)
    later = pd.to_timedelta(leap.astype(int) + 86_400 * midnight.astype(int), unit="s")
    return (_plain_iso(text) + later).astype(MOMENT)
