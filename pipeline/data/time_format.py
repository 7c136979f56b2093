"""What collect.files.columns says of a column of times, and patterns that would misread it.

Patterns are those of Python's strptime; those of other programs are refused with theirs in ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import pandas as pd

from pipeline.data.foreign_patterns import ALIEN, ours
from pipeline.data.units import UNITS
from pipeline.errors import ConfigError


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
            likely = self._in_ours()
            what = (
                f'is not in our signs: write "{likely}", if that is meant'
                if likely
                else f'is none of {names}, nor like "%d/%m/%Y %H:%M"'
            )
            raise ConfigError(f"{key}.format: {self.format!r} {what}")
        if self.format is not None and self.format not in UNITS:
            self._check_pattern(self.format, key)
        try:
            ZoneInfo(self.zone or "UTC")
        except (KeyError, ValueError, OSError):
            raise ConfigError(f"{key}.zone: no zone {self.zone!r}; write it like Europe/Berlin") from None
        return self

    def _check_pattern(self, pattern: str, key: str) -> None:
        like = f'write it like "{self._in_ours() or "%d/%m/%Y %H:%M"}"'
        if fault := _misreads(pattern, self.zone):
            raise ConfigError(f"{key}.format: {pattern!r} {fault}; {like}")
        try:
            pd.to_datetime(pd.Series(["x"]), format=pattern.partition("%Z")[0], errors="coerce")
        except (ValueError, re.error) as error:
            raise ConfigError(f"{key}.format: {error}; {like}") from None
        if not re.search("%[YyGcx]", pattern):
            raise ConfigError(f"{key}.format: {pattern!r} names no year; {like}")

    def _in_ours(self) -> str | None:
        """What a pattern of another program would be here, if that reads times."""
        likely = ours(str(self.format))
        if likely is None or likely == self.format:
            return None
        reads = re.search("%[Yy]", likely) and not _misreads(likely, self.zone or "UTC")
        return likely if reads or likely in UNITS else None


def _misreads(pattern: str, zone: str | None) -> str | None:
    """Why a pattern would read every cell as another moment, silently."""
    signs = re.findall("%[A-Za-z]", pattern.replace("%%", ""))
    there = set(signs)
    if twice := sorted(sign for sign in there if signs.count(sign) > 1):
        return f"has {twice[0]} twice: months are %m, minutes %M"
    if not re.fullmatch("[^%]*", pattern.partition("%Z")[2]):
        return "has %Z before its end, where a zone's name is read"
    if "%c" in there and len(there) > 1:
        return "has %c, which is a whole time: months are %m"
    if there & {"%M", "%S"} and not there & {"%H", "%I"}:
        return "has minutes or seconds without hours: months are %m"
    if "%d" in there and not there & {"%m", "%b", "%B"}:
        return "has a day without a month: months are %m, minutes %M"
    if ("%I" in there) != ("%p" in there):
        return "needs %I with %p, for 1 to 12 o'clock, or %H without it, for 0 to 23"
    literal = re.sub("%.", " ", pattern)
    if alien := ALIEN.search(literal):
        return f"has {alien[0]}, which stands for itself here"
    named = re.search(r"\b(?!UTC|GMT)[A-Z]{3,5}\b|\b[A-Z][a-z]+/[A-Z][A-Za-z_]+|[+-]\d\d:?\d\d\s*$", literal)
    if named and zone is None and "%z" not in there:
        return f"does not read {named[0].strip()!r}: say which zone that is, like `zone: Europe/Berlin`"
    return None
