"""Moments in foreign columns: which unit its numbers have, what its texts say, which of them cannot be.

Numbers are read in the unit in which most of the column lies between 1991 and LATEST; the units' ranges
hardly meet there, so the column says what it is. What no unit explains is refused, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd

from pipeline.data.hints import ROUNDED, ZONE_NAME, of_digits
from pipeline.data.tables import MOMENT
from pipeline.data.values import MISSING, as_text, pointed
from pipeline.errors import ConfigError, DataError

# Interactions lie between these. Fixed, since the same file gives the same tables on another day; what is
# to come today, and is not yet 2032, the column itself tells (Days). From 2033 on
# epochs in seconds would meet dates of ten digits (2034 is 2,019,686,400 s).
EARLIEST, LATEST = pd.Timestamp("1970-01-02", tz="UTC"), pd.Timestamp("2032-01-01", tz="UTC")
_LIKELY, _LATEST = (int(np.datetime64(day, "us").astype(np.int64)) for day in ("1991-01-01", "2032-01-01"))
_NEVER = np.iinfo(np.int64).min  # microseconds; numpy's NaT
_DAY = 86_400 * 10**6  # microseconds
_INTEGER = r"[+-]?\d{1,18}|[+-]?[1-8]\d{18}"
_ZONED = r".*(?:Z|UTC|GMT|[T ]\d.*[+-]\d\d:?(?:\d\d)?)"
_SAMPLE = 10_000  # numbers of a chunk that tell the unit
_LEAST, _FEW, _YEAR = 20, 0.001, 365  # rows that tell what is stray, the share that may be, and days
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?"
# A leap second and the midnight at a day's end, as ISO 8601 writes them, are the beginning of what follows.
_LEAP, _MIDNIGHT = r"(?<=[T ]\d\d:\d\d):60(?:\.\d+)?", r"(?<=[T ])24:00(?::00(?:\.0+)?)?(?![\d:.])"
_ALIEN = pd.Timestamp("1800-01-01", tz="UTC")  # nobody kept a log before: another calendar


@dataclass(frozen=True)
class Unit:
    """What a number counts: `micros` microseconds each, since `origin`."""

    micros: float
    origin: str = "1970-01-01"
    local: bool = False  # shows a clock, whose zone may be named

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """int64 or float64 -> int64 microseconds since 1970; _NEVER where that cannot hold it."""
        start = int(np.datetime64(self.origin, "us").astype(np.int64))
        big = np.abs(numbers.astype(np.float64)) * self.micros > 9e18 - abs(start)
        numbers = np.where(big, 0, numbers)
        if self.micros < 1:
            micros = numbers // round(1 / self.micros)
        elif numbers.dtype.kind == "i":
            micros = numbers * int(self.micros)
        else:
            micros = np.round(numbers * self.micros)
        return np.where(big, _NEVER, micros.astype(np.int64) + start)


@dataclass(frozen=True)
class Digits:
    """A date written as one number: 20230131."""

    pattern: str
    local: bool = True

    def read(self, numbers: np.ndarray) -> np.ndarray:
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 10**18)
        text = pd.Series(np.where(whole, numbers, 0).astype(np.int64).astype(str))
        moments = pd.to_datetime(text, format=self.pattern, errors="coerce").astype("datetime64[us]")
        # strptime reads fewer digits, too ("%Y%m%d" takes 202311 for the 1st of January)
        length = len(pd.Timestamp("2001-11-11 11:11:11.111").strftime(self.pattern)) - 3 * (
            "%f" in self.pattern
        )
        readable = moments.notna() & (text.str.len() == length)
        return np.where(readable, moments.astype("int64"), _NEVER)


EPOCHS = {"s": Unit(1e6), "ms": Unit(1e3), "us": Unit(1), "ns": Unit(1e-3)}
UNITS: dict[str, Unit | Digits] = {
    **EPOCHS,
    "days": Unit(_DAY, local=True),
    "julian": Unit(_DAY, "-4713-11-24T12:00"),  # of astronomers, and SQLite
    "excel": Unit(_DAY, "1899-12-30", local=True),
    "ticks": Unit(0.1, "0001-01-01"),  # of .NET
    "filetime": Unit(0.1, "1601-01-01"),  # of Windows
    "webkit": Unit(1, "1601-01-01"),  # of browsers
    **{
        pattern: Digits(pattern)
        for pattern in ("%Y", "%Y%m", "%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M%S%f")
    },
}


@dataclass(frozen=True)
class TimeFormat:
    """What collect.files.columns says of a column of times."""

    format: str | None = None
    """A name of UNITS, or a pattern like "%d/%m/%Y %H:%M"; None: to be seen from the column."""
    zone: str | None = None
    """Of times that name none; None: UTC."""

    def check(self, key: str) -> TimeFormat:
        """Itself. Raises ConfigError naming `key`."""
        if self.format is not None and self.format not in UNITS and "%" not in self.format:
            names = ", ".join(name for name in UNITS if "%" not in name)
            raise ConfigError(f'{key}.format: {self.format!r} is none of {names}, nor like "%d/%m/%Y %H:%M"')
        if self.format is not None and self.format not in UNITS:
            self._check_pattern(self.format, key)
        try:
            ZoneInfo(self.zone or "UTC")
        except (KeyError, ValueError, OSError):
            raise ConfigError(f"{key}.zone: no zone {self.zone!r}; write it like Europe/Berlin") from None
        return self

    def _check_pattern(self, pattern: str, key: str) -> None:
        like = 'write it like "%d/%m/%Y %H:%M"'
        if fault := _misreads(pattern, self.zone):
            raise ConfigError(f"{key}.format: {pattern!r} {fault}; {like}")
        try:
            pd.to_datetime(pd.Series(["x"]), format=pattern.partition("%Z")[0], errors="coerce")
        except (ValueError, re.error) as error:
            raise ConfigError(f"{key}.format: {error}; {like}") from None
        if not re.search("%[YyGcx]", pattern):
            raise ConfigError(f"{key}.format: {pattern!r} names no year; {like}")


def _misreads(pattern: str, zone: str | None) -> str | None:
    """Why a pattern would read every cell as another moment, silently."""
    signs = re.findall("%[A-Za-z]", pattern.replace("%%", ""))
    there = set(signs)
    if twice := sorted(sign for sign in there if signs.count(sign) > 1):
        return f"has {twice[0]} twice: months are %m, minutes %M"
    if not re.fullmatch("[^%]*", pattern.partition("%Z")[2]):
        return "has %Z before its end, where a zone's name is read"
    if there & {"%M", "%S"} and not there & {"%H", "%I"}:
        return "has minutes or seconds without hours: months are %m"
    if "%d" in there and not there & {"%m", "%b", "%B"}:
        return "has a day without a month: months are %m, minutes %M"
    if ("%I" in there) != ("%p" in there):
        return "needs %I with %p, for 1 to 12 o'clock, or %H without it, for 0 to 23"
    literal = re.sub("%.", " ", pattern)
    named = re.search(r"\b(?!UTC|GMT)[A-Z]{3,5}\b|\b[A-Z][a-z]+/[A-Z][A-Za-z_]+|[+-]\d\d:?\d\d\s*$", literal)
    if named and zone is None and "%z" not in there:
        return f"does not read {named[0].strip()!r}: say which zone that is, like `zone: Europe/Berlin`"
    return None


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
        text = as_text(column).str.strip().str.replace("\u2212", "-")  # the sign minus, as ISO 8601 has it
        text = text.mask(text.isin(MISSING))
        if self.decimal:  # 44927,04
            text = pointed(text, self.decimal).fillna(text)
        moments = pd.Series(pd.NaT, column.index, dtype=MOMENT)
        integers, numbers = _is(text, _INTEGER), _is(text, _NUMBER)
        if not pd.api.types.is_numeric_dtype(column.dtype):  # a number's own text has all of its digits
            numbers &= ~_is(text, ROUNDED)
        if self.said.format and not self.unit:
            moments = self._patterned(text)
        elif numbers.any():
            self._settle(text, numbers)
            for rows, kind in ((integers, "int64"), (numbers & ~integers, "float64")):
                if rows.any():
                    moments[rows] = self._counted(text[rows].astype(kind))
        written = _is(text, r"\d{4}[-/\d].*") & ~numbers
        if written.any() and not self.said.format:
            moments[written] = self._zoned(_from_iso(text[written]), _is(text[written], _ZONED))
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
        shares = _shares(asked)
        epoch = max(EPOCHS, key=lambda name: shares[name])  # writers change from s to ms: one family
        shares[epoch] = sum(shares.pop(name) for name in EPOCHS)
        best = max(shares, key=lambda name: shares[name])
        units = [name for name, share in shares.items() if share and share > 0.9 * shares[best]]
        if shares[best] >= 0.5 and len(units) == 1:
            if self.unit and self.unit != best and {self.unit, best} - set(EPOCHS):
                raise DataError(
                    f"{self.name}: numbers like {text.iloc[0]} are times in {best!r}, those before them in "
                    f"{self.unit!r}: bring them to one, or {self._key(best)}"
                )
            self.unit = self.unit or best
        elif not self.unit and numbers.mean() > 0.5 and len(text):
            likely = of_digits(text.iloc[:: 1 + len(text) // 100].tolist()) or units
            may_be = f"may be {' or '.join(map(repr, likely))}" if likely else "are likely times in no unit"
            start = "" if likely else "; if they count from a start of their own, add that"
            raise DataError(f"{self.name}: numbers like {text.iloc[0]} {may_be}: {self._key(*likely)}{start}")

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
                micros = np.where(_likely(read), read, micros)
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
        three times the longest gap between those (the first few left out, which may be stray as well).
        """
        rows = self._rows.sort_index()
        until, few = rows.cumsum(), max(1.0, rows.sum() * _FEW)
        gap = pd.Series(rows.index.diff().days, rows.index).shift(-1)  # days until the next day with rows
        longest = gap.where(until > few, 0).shift(fill_value=0).cummax()
        far = (rows.sum() - until <= few) & (gap > _YEAR) & (gap > 3 * longest)
        if rows.sum() < _LEAST or not far.any():
            return None
        end: pd.Timestamp = far.idxmax() + pd.Timedelta(days=1)
        return end


def as_moments(
    column: pd.Series, name: str = "timestamp", said: TimeFormat | None = None
) -> tuple[pd.Series, pd.Series]:
    """TimeColumn.read for a column that is there as a whole."""
    return TimeColumn(name, said).read(column)


def _shares(values: np.ndarray) -> dict[str, float]:
    """unit -> the share of `values` that are likely times in it."""
    if not len(values):
        return dict.fromkeys(UNITS, 0.0)
    return {name: float(_likely(unit.read(values)).mean()) for name, unit in UNITS.items()}


def _likely(micros: np.ndarray) -> np.ndarray:
    return (micros >= _LIKELY) & (micros < _LATEST)


def _is(text: pd.Series, pattern: str) -> pd.Series:
    return text.str.fullmatch(pattern).fillna(False).astype(bool)


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
