"""Sizes that the environment asks of a bench: EVERGREEN_BENCH_POINTS and its like."""

from __future__ import annotations

import os

from pipeline.errors import ConfigError


def number_of(name: str, default: int) -> int:
    """Of EVERGREEN_BENCH_<name>, where it is set. Raises ConfigError for what is no number of 1 or more."""
    variable = f"EVERGREEN_BENCH_{name}"
    given = os.environ.get(variable, "").strip()
    if not given:
        return default
    if not (given.isascii() and given.isdecimal()) or int(given) < 1:
        raise ConfigError(f"{variable}: {given!r} is no whole number of 1 or more: write one, or unset it")
    return int(given)
