"""What numbers may count: epochs, days of spreadsheets, ticks, dates as digits; which are likely times.

Units are told apart by where a column's numbers would lie: between 1991 and LATEST their ranges hardly meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_LIKELY, _LATEST = (int(np.datetime64(day, "us").astype(np.int64)) for day in ("1991-01-01", "2032-01-01"))
NEVER = np.iinfo(np.int64).min  # microseconds; numpy's NaT
_DAY = 86_400 * 10**6  # microseconds


@dataclass(frozen=True)
class Unit:
    """What a number counts: `micros` microseconds each, since `origin`."""

    micros: float
    origin: str = "1970-01-01"
    local: bool = False  # shows a clock, whose zone may be named

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """int64 or float64 -> int64 microseconds since 1970; NEVER where that cannot hold it."""
        start = int(np.datetime64(self.origin, "us").astype(np.int64))
        big = np.abs(numbers.astype(np.float64)) * self.micros > 9e18 - abs(start)
        numbers = np.where(big, 0, numbers)
        if self.micros < 1:
            micros = numbers // round(1 / self.micros)
        elif numbers.dtype.kind == "i":
            micros = numbers * int(self.micros)
        else:
            micros = np.round(numbers * self.micros)
        return np.where(big, NEVER, micros.astype(np.int64) + start)


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
        return np.where(readable, moments.astype("int64"), NEVER)


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


def fits(values: np.ndarray) -> dict[str, np.ndarray]:
    """unit -> which of `values` are likely times in it."""
    return {name: likely(unit.read(values)) for name, unit in UNITS.items()}


def likely(micros: np.ndarray) -> np.ndarray:
    return (micros >= _LIKELY) & (micros < _LATEST)


def shown(number: float, unit: str) -> str:
    """The day that a number means: '44927.5 is 2023-01-01'."""
    micros = UNITS[unit].read(np.array([number]))
    return f"{number:.15g} is {np.datetime_as_string(micros.view('datetime64[us]'), 'D')[0]}"
