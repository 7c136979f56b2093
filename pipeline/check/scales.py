"""Values in two units: cents and then euros, five stars and then ten, seconds in one file, hours in another.

In: kept rows of each event, counted by part (a file, a day) and by size, twenty bins to a factor of ten. The
parts in order (days in time, files by their middle value) are cut where both sides differ most: a finding or
none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.documents.finding import Finding

LEAST, LEAST_SHARE = 50, 0.02  # values of either side
FACTOR = 10  # between all three quartiles of two units
ENDS, ABOVE = (1, 5, 10, 100), 0.2  # of scales of ratings; values of the longer one beyond the shorter
BINS = 20  # of a factor of ten
_GROUP = [tables.EVENT, "part", "bin"]
_MOST = 1_000_000  # counts that wait to be added up


class Scales:
    """Counts values by file and by day while their rows pass."""

    def __init__(self) -> None:
        self._counts: dict[str, list[pd.DataFrame]] = {"file": [], "day": []}

    def add(self, rows: pd.DataFrame, places: pd.Series | None) -> None:
        """`rows`: as collect keeps them; `places` of theirs, FILE:ROW, where the source tells."""
        sizes = rows[tables.VALUE].abs()
        sizes = sizes[sizes > 0]
        if sizes.empty:
            return
        day = rows[tables.TIME].loc[sizes.index].dt.floor("D")
        file = "" if places is None else places.loc[sizes.index].astype("str").str.rpartition(":")[0]
        bins = np.floor(np.log10(sizes) * BINS).astype(int)
        halves = (2 * sizes % 1 == 0).astype(int)
        counted = pd.DataFrame({tables.EVENT: rows[tables.EVENT], "bin": bins, "largest": sizes, "rows": 1})
        counted = counted.loc[sizes.index].assign(halves=halves)
        for kind, part in (("file", file), ("day", day)):
            self._counts[kind].append(_summed(counted.assign(part=part)))
            if sum(map(len, self._counts[kind])) > _MOST:
                self._counts[kind] = [_summed(pd.concat(self._counts[kind]))]

    def findings(self) -> list[Finding]:
        """One at most: the same in its files and in time is one fault."""
        for kind, counts in self._counts.items():
            for event, rows in _summed(pd.concat(counts)).groupby(tables.EVENT) if counts else ():
                if finding := _of_event(str(event), rows, by_time=kind == "day"):
                    return [finding]
        return []


def _summed(rows: pd.DataFrame) -> pd.DataFrame:
    sums = {"rows": ("rows", "sum"), "largest": ("largest", "max"), "halves": ("halves", "sum")}
    return rows.groupby(_GROUP, as_index=False).agg(**sums)


def _of_event(event: str, rows: pd.DataFrame, by_time: bool) -> Finding | None:
    table = rows.pivot_table(index="part", columns="bin", values="rows", aggfunc="sum", fill_value=0)
    largest = rows.groupby("part")["largest"].max()
    if not by_time:
        order = pd.DataFrame({"middle": _quantile(table.to_numpy(), 0.5), "largest": largest})
        table = table.loc[order.sort_values(["middle", "largest"], kind="stable").index]
    sizes, bins, ends = table.to_numpy(), table.columns.to_numpy(), largest[table.index].to_numpy()
    stars = rows["halves"].sum() == rows["rows"].sum()  # whole numbers and halves alone
    cut, are_units = _cut(sizes, bins, ends, stars)
    if cut is None:
        return None
    parts = [(table.index[:cut], sizes[:cut], ends[:cut]), (table.index[cut:], sizes[cut:], ends[cut:])]
    names = [_name(part, number, by_time) for number, (part, _, _) in enumerate(parts)]
    halfway = [bins[_quantile(size.sum(axis=0)[None], 0.5)[0]] + 0.5 for _, size, _ in parts]
    middles = [float(10 ** (place / BINS)) for place in halfway]
    ratio, what = max(middles) / min(middles), f" of {event!r}" if event else ""
    small, large = sorted(range(2), key=lambda number: middles[number])
    return Finding(
        kind="two_scales",
        severity="warning",
        text=f"values{what} are some {ratio:,.0f} times as large {names[large]} as {names[small]}: two units?"
        if are_units
        else f"values{what} end at {parts[0][2].max():g} {names[0]} and at {parts[1][2].max():g} {names[1]}: "
        "two scales?",
        figure=ratio,
        unit="times",
        examples=[
            f"{name}: {size.sum():,} values, the middle one some {middle:.2g}, the largest {end.max():g}"
            for name, (_, size, end), middle in zip(names, parts, middles, strict=True)
        ],
        key="collect.files.columns.value",
        remedy="bring them to one unit in the source, if they are in two",
    )


def _cut(sizes: np.ndarray, bins: np.ndarray, ends: np.ndarray, stars: bool) -> tuple[int | None, bool]:
    """(the part from which on values are in another unit, whether by a factor; else two scales of stars).

    `sizes`: (parts, bins) values; `ends`: (parts,) the largest of each.
    """
    low = sizes.cumsum(axis=0)[:-1]  # (cuts, bins): what stands before each cut
    high = sizes.sum(axis=0) - low
    least = max(LEAST, LEAST_SHARE * sizes.sum())
    enough = (low.sum(axis=1) >= least) & (high.sum(axis=1) >= least)
    steps = np.array([bins[_quantile(high, q)] - bins[_quantile(low, q)] for q in (0.25, 0.5, 0.75)])
    factor = BINS * np.log10(FACTOR)
    units = enough & ((steps >= factor).all(axis=0) | (steps <= -factor).all(axis=0))
    before, after = np.maximum.accumulate(ends)[:-1], np.maximum.accumulate(ends[::-1])[::-1][1:]
    scales = enough & np.isin(before, ENDS) & np.isin(after, ENDS) & (before != after) & stars
    shorter = np.floor(np.log10(np.minimum(before, after)) * BINS)  # (cuts,): its last bin
    longer = np.where((after > before)[:, None], high, low)
    scales &= (longer * (bins > shorter[:, None])).sum(axis=1) >= ABOVE * longer.sum(axis=1)
    if not (units | scales).any():
        return None, False
    apart = np.abs(_shares(low) - _shares(high)).max(axis=1)  # Kolmogorov and Smirnov's distance
    cut = int(np.where(units | scales, apart, -1).argmax())
    return cut + 1, bool(units[cut])


def _name(parts: pd.Index, number: int, by_time: bool) -> str:
    """Of the first or the second side of a cut."""
    if by_time:
        day = (parts[0] if number else parts[-1] + pd.Timedelta(days=1)).date()
        return f"from {day} on" if number else f"before {day}"
    return f"in {parts[0]}" + (f" and {len(parts) - 1} more" if len(parts) > 1 else "")


def _shares(counts: np.ndarray) -> np.ndarray:
    """(parts, bins): the share of values up to each bin."""
    return counts.cumsum(axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _quantile(counts: np.ndarray, share: float) -> np.ndarray:
    """(parts,): the place of the bin that holds this quantile."""
    return (_shares(counts) >= share).argmax(axis=1)
