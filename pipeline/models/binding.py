"""Arrays by name, as a model folder holds them, and how those of items move to another catalogue."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def moved(values: np.ndarray, place: np.ndarray, items: int) -> np.ndarray:
    """(saved items, ...) values at their `place` among so many `items`, zero elsewhere; -1: gone."""
    same = items >= len(place) and bool((place == np.arange(len(place))).all())
    if same and items == len(place):
        return values  # the same catalogue
    out = np.zeros((items, *values.shape[1:]), values.dtype)
    if same:  # with further items behind: a plain copy
        out[: len(place)] = values
        return out
    out[place[place >= 0]] = values[place >= 0]
    return out


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": np.ascontiguousarray(values) for name, values in arrays.items()}


def of_prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in arrays.items()
        if name.startswith(f"{prefix}.")
    }
