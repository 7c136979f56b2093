"""Do interactions find their items? Ids in two notations ('007' and '7') join nothing, and nothing fails.

In: `rows_of` (item_id -> its interactions) and the ids of the table of items.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.data import tables
from pipeline.errors import DataError

QUOTED = re.compile(r"""=?(["'`])(.*)\1|'(.*)""")  # "7", ="007" and '007, as spreadsheets want text


def _where(odd: str, change: Callable[[str], str]) -> Callable[[pd.Series], pd.Series]:
    """The change where an id has such a sign; most have none."""

    def notation(ids: pd.Series) -> pd.Series:
        some = ids[ids.str.contains(odd)]
        return ids.mask(ids.index.isin(some.index), some.map(change)) if len(some) else ids

    return notation


NOTATIONS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "without the quotes around them": _where(
        "[\"'`]", lambda name: QUOTED.sub(r"\2\3", name) if QUOTED.fullmatch(name) else name
    ),
    "with signs instead of %20 or &amp;": _where("[%&]", lambda name: html.unescape(unquote(name))),
    "in one width of letters": _where(r"[^\x00-\x7f]", lambda name: unicodedata.normalize("NFKC", name)),
    "once UTF-8 is not read as cp1252": _where(r"[^\x00-\x7f]", lambda name: read_once(name)),
    "without leading zeros": lambda ids: ids.str.lstrip("0"),
    "without a final .0": lambda ids: ids.str.replace(r"\.0+$", "", regex=True),
    "in one case": lambda ids: ids.str.casefold(),
    "without blanks, signs and case": lambda ids: ids.str.casefold().str.replace(r"\W", "", regex=True),
    "by what follows their last sign": lambda ids: ids.str.replace(r"^.*[\W_](?=.)", "", regex=True),
}


LISTED = ";|, "  # signs that may part the ids of a list in one cell


def read_once(text: str) -> str:
    """Text of UTF-8 that was read as cp1252 ('cafÃ©'), as it was meant; any other as it is."""
    try:
        return text.encode("cp1252").decode()
    except UnicodeError:
        return text


def listing(rows_of: pd.Series, known: pd.Index) -> tuple[str, float, list[str]]:
    """(the sign that parts most ids which are lists of `known` ones, their share of the rows, examples)."""
    best: tuple[str, float, list[str]] = (LISTED[0], 0.0, [])
    ids, single = rows_of.index.to_series().astype("str"), set(known)
    for sign in LISTED:
        lists = ids[ids.str.contains(sign, regex=False)]
        whole = lists[[all(part.strip() in single for part in name.split(sign)) for name in lists]]
        share = float(rows_of[whole.to_numpy()].sum()) / float(rows_of.sum())
        if share > best[1]:
            best = (sign, share, whole.head(3).tolist())
    return best


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


def remedy(rows_of: pd.Series, items: pd.DataFrame) -> str:
    """What would join more rows: the other column, rows instead of lists, or one notation; or what to do."""
    table = items[tables.ITEM]
    cause, joined = likely_cause(rows_of, table)
    sign, listed, _ = listing(rows_of, pd.Index(table))
    shares = {
        name: joined_share(rows_of, items[name].dropna())
        for name in items
        if name != tables.ITEM and pd.api.types.is_string_dtype(items[name].dtype)
    }
    other = max(shares, key=lambda name: shares[name], default=None)
    if other is not None and shares[other] > max(joined, 0.5):
        return (
            f"its column {other} has {shares[other]:.1%}: write collect.files.columns.items.item_id: {other}"
        )
    if listed > max(0.9 * (joined - joined_share(rows_of, table)), 0.01):
        return f"{listed:.1%} are lists of ids with {sign!r} between: write a row for each of them"
    if cause:
        return f"{cause} it would be {joined:.1%}: bring both to one notation"
    return "name the column that holds the same ids in collect.files.columns.items.item_id"


def enforce(rows_of: pd.Series, items: pd.DataFrame, least: float) -> float:
    """The joined share. Raises DataError with examples and the likely cause if it is below `least`."""
    table = items[tables.ITEM]
    share = joined_share(rows_of, table)
    if share >= least:
        return share
    stranger, unused = rows_of.index[~rows_of.index.isin(table)][0], table[~table.isin(rows_of.index)].head(1)
    examples = ", ".join([f"{stranger!r} in the interactions", *(f"{name!r} there" for name in unused)])
    raise DataError(
        f"items: {share:.1%} of the interactions are of items that the table of items has "
        f"(collect.min_joined_share is {least:g}), for example {examples}; "
        f"{remedy(rows_of, items)}"
    )
