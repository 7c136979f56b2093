"""Do interactions find their items? Ids in two notations ('007' and '7') join nothing, and nothing fails.

In: `rows_of` (item_id -> its interactions) and the ids of the table of items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.data import tables
from pipeline.errors import DataError

QUOTED = r"^(['\"`])(.*)\1$"
NOTATIONS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "without the quotes around them": lambda ids: ids.str.replace(QUOTED, r"\2", regex=True),
    "without leading zeros": lambda ids: ids.str.lstrip("0"),
    "without a final .0": lambda ids: ids.str.replace(r"\.0+$", "", regex=True),
    "in one case": lambda ids: ids.str.casefold(),
    "without blanks, signs and case": lambda ids: ids.str.casefold().str.replace(r"\W", "", regex=True),
}


def rows_of_items(interactions: Path) -> pd.Series:
    """item_id -> rows, of a folder of partitions, read batch by batch."""
    total = pd.Series(dtype="int64")
    for batch in ds.dataset(interactions, format="parquet").to_batches(columns=[tables.ITEM]):
        counts = pc.value_counts(batch.column(0))
        rows_of = pd.Series(counts.field("counts").to_pylist(), counts.field("values").to_pylist())
        total = total.add(rows_of, fill_value=0)
    return total.astype("int64")


def joined_share(rows_of: pd.Series, table: pd.Series) -> float:
    """Of the interactions, those whose item the table has."""
    return float(rows_of[rows_of.index.isin(table)].sum()) / float(rows_of.sum())


def likely_cause(rows_of: pd.Series, table: pd.Series) -> tuple[str | None, float]:
    """(the notation in which most rows would find their item, their share) if it helps much, else None."""
    ours, theirs = rows_of.index.to_series().astype("str"), table.astype("str")
    best: tuple[str | None, float] = (None, joined_share(rows_of, table))
    for name, notation in NOTATIONS.items():
        matching = notation(ours).isin(notation(theirs)).to_numpy()
        joined = float(rows_of[matching].sum()) / float(rows_of.sum())
        if joined > best[1] + 0.1:
            best = (name, joined)
    return best


def enforce(rows_of: pd.Series, table: pd.Series, least: float) -> float:
    """The joined share. Raises DataError with examples and the likely cause if it is below `least`."""
    share = joined_share(rows_of, table)
    if share >= least:
        return share
    cause, joined = likely_cause(rows_of, table)
    stranger, unused = rows_of.index[~rows_of.index.isin(table)][0], table[~table.isin(rows_of.index)].head(1)
    examples = ", ".join([f"{stranger!r} in the interactions", *(f"{name!r} there" for name in unused)])
    remedy = (
        f"{cause} it would be {joined:.1%}: bring both to one notation"
        if cause
        else "name the column that holds the same ids in collect.files.columns.items.item_id"
    )
    raise DataError(
        f"items: {share:.1%} of the interactions are of items that the table of items has "
        f"(collect.min_joined_share is {least:g}), for example {examples}; {remedy}"
    )
