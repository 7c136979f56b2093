"""What is compared of two sets of interactions, signal by signal: sums a block, and the outcome in words.

In: rows of the reference and of a window, the items table, a vector an item where there is one. Out: signals
that `pipeline.drift.statistics.permutation_tests` can test, or the reason why one cannot be.
A block is one user's rows on one side; its rows weigh at most as much as `rows_per_user` rows. Whatever a
signal learns from the data (bins, rare items, axes) it learns from both sides together, so that permuting the
sides stays fair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.drift import statistics, texts
from pipeline.drift.reference import user_hash
from pipeline.drift.windows import MICROSECONDS_A_DAY, NEW_ITEM, NEW_USER, microseconds

HARD = ("schema", "missing", "quality")
SOFT = (
    "volume",
    "events",
    "values",
    "user_activity",
    "new_users",
    "new_items",
    "item_popularity",
    "categories",
    "text",
    "embedding",
    "scores",
    "coverage",
    "list_popularity",
)
NAMES = HARD + SOFT
BINS = 50  # of values
RARE_BLOCKS = 5  # an item in fewer blocks is counted among the rare ones
LEAST_TEXTS, MOST_TEXTS = 100, 20_000  # rows with a text of their own, a side, for a classifier of them


@dataclass(frozen=True)
class Finding:
    """What a signal says: `effect` is compared with the floor, `value` is shown, `fact` is for people."""

    value: float
    effect: float
    fact: str


@dataclass(frozen=True)
class Signal:
    name: str
    part: statistics.Part
    judge: Callable[[statistics.Tested], Finding]


class Sides:
    """Rows of both sides over blocks and items."""

    def __init__(self, reference: pd.DataFrame, current: pd.DataFrame, rows_per_user: int) -> None:
        self.rows = pd.concat([reference, current], ignore_index=True)
        self.current = np.arange(len(self.rows)) >= len(reference)
        self.user, self.users = pd.factorize(self.rows[tables.USER])
        self.block, self.block_current = blocks_of(self.user, self.current)
        self.weight = np.minimum(1.0, rows_per_user / np.bincount(self.block))[self.block]
        self.item, self.item_ids = pd.factorize(self.rows[tables.ITEM], sort=True)

    @property
    def blocks(self) -> int:
        return len(self.block_current)

    @cached_property
    def fold(self) -> np.ndarray:
        """(rows,) of a user's rows on both sides together."""
        return (user_hash(self.users) % np.uint64(texts.FOLDS)).astype(np.int64)[self.user]

    @cached_property
    def items(self) -> sp.csr_matrix:
        """(blocks, items) weights."""
        return self.sums(self.item, len(self.item_ids))

    def sums(self, column: np.ndarray, columns: int, weight: np.ndarray | None = None) -> sp.csr_matrix:
        """(blocks, columns): each row adds its weight to its block's `column`; -1: to none."""
        weight = self.weight if weight is None else weight
        chosen = column >= 0
        cells = (weight[chosen], (self.block[chosen], column[chosen]))
        return sp.csr_matrix(cells, shape=(self.blocks, columns))

    def mean(self, values: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """(blocks, 2) weighted sum of `values` and weight, of the `rows` (bool) alone if given."""
        weight = self.weight if rows is None else self.weight * rows
        known = np.where(weight > 0, values, 0.0)
        return np.stack(
            [np.bincount(self.block, each, minlength=self.blocks) for each in (weight * known, weight)],
            axis=1,
        )


def blocks_of(user: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) user and side -> (rows,) block, (blocks,) bool: a block of the current side."""
    block, names = pd.factorize(user.astype(np.int64) * 2 + current)
    return block, (names % 2).astype(bool)


# The rows alone --------------------------------------------------------------------------------------------


def missing(sides: Sides, items: pd.DataFrame | None) -> Signal | str:
    """Empty cells of `value` and `text`, and of the title, text and categories of the rows' items."""
    empty = {name: sides.rows[name].isna().to_numpy() for name in (tables.VALUE, tables.TEXT)}
    if items is not None:
        place = pd.Index(items[tables.ITEM]).get_indexer(pd.Index(sides.item_ids))
        for name in (tables.TITLE, tables.TEXT, tables.CATEGORIES):
            if name in items:
                lacks = np.r_[_empty(items[name]), True]  # the last: items without a row in the table
                empty[f"item's {name}"] = lacks[place][sides.item]
    # A column that the reference does not have cannot come to lack more.
    empty = {name: cells for name, cells in empty.items() if not cells[~sides.current].all()}
    if not empty:
        return "no column can be empty"
    names = list(empty)

    def judge(tested: statistics.Tested) -> Finding:
        rises = statistics.mean_differences(tested.reference[None], tested.current[None])[0]
        worst = int(rises.argmax())
        old, new = (_share(side, worst) for side in (tested.reference, tested.current))
        fact = f"Rows without {names[worst]}: {percent(new)} (reference {percent(old)})"
        return Finding(tested.statistic, tested.statistic, fact)

    columns = np.concatenate([sides.mean(cells.astype(float)) for cells in empty.values()], axis=1)
    return Signal("missing", statistics.Part(columns, statistics.rise), judge)


def events(sides: Sides) -> Signal:
    code, names = pd.factorize(sides.rows[tables.EVENT], sort=True)
    return _mix("events", "The mix of events", sides.sums(code, len(names)), list(map(str, names)))


def values(sides: Sides) -> Signal | str:
    """Distribution of the values that there are, in bins of both sides' quantiles."""
    value = sides.rows[tables.VALUE].to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(value)
    if not (known & sides.current).any() or not (known & ~sides.current).any():
        return "no values on a side"
    if value[known].min() == value[known].max():
        return "all values are equal"
    pairs = sides.mean(np.where(known, value, 0.0), known)
    old, new = (_share(pairs[side].sum(axis=0), 0) for side in (~sides.block_current, sides.block_current))

    def judge(tested: statistics.Tested) -> Finding:
        fact = f"Mean value {new:.3g} (reference {old:.3g}), {apart(tested.excess)}"
        return Finding(tested.excess, tested.excess, fact)

    bounds = edges(value[known])
    code = np.where(known, np.searchsorted(bounds, np.where(known, value, 0.0), side="left"), -1)
    return Signal("values", statistics.Part(sides.sums(code, len(bounds) + 1), statistics.gap), judge)


def user_activity(sides: Sides, rows_per_user: int) -> Signal:
    """Rows of a user on a day (UTC) on which there are any, in bins 1, 2, 3-4, 5-8, ..."""
    day = microseconds(sides.rows[tables.TIME]) // MICROSECONDS_A_DAY
    _, cell = np.unique(np.stack([sides.block, day]), axis=1, return_inverse=True)
    count = np.bincount(cell.ravel())
    block = np.empty(len(count), np.int64)
    block[cell.ravel()] = sides.block
    weight = np.minimum(1.0, rows_per_user / np.bincount(block, minlength=sides.blocks))[block]
    code = np.ceil(np.log2(count)).astype(np.int64)
    sums = sp.csr_matrix((weight, (block, code)), shape=(sides.blocks, code.max() + 1))
    new_side = sides.block_current[block]
    old, new = (np.average(count[side], weights=weight[side]) for side in (~new_side, new_side))

    def judge(tested: statistics.Tested) -> Finding:
        fact = f"Rows of a user on an active day: {new:.1f} (reference {old:.1f}), {apart(tested.excess)}"
        return Finding(tested.excess, tested.excess, fact)

    return Signal("user_activity", statistics.Part(sums, statistics.gap), judge)


def new_users(sides: Sides) -> Signal | str:
    if NEW_USER not in sides.rows or sides.rows[NEW_USER].isna().any():
        return "it is not known when users were first met"
    return _new(sides, "new_users", NEW_USER, "Share of rows of new users")


def new_items(sides: Sides) -> Signal:
    """Rows of items not met before their window, or where that is unknown, of items the reference lacks."""
    if NEW_ITEM in sides.rows and not sides.rows[NEW_ITEM].isna().any():
        return _new(sides, "new_items", NEW_ITEM, "Share of rows of new items")

    def judge(tested: statistics.Tested) -> Finding:
        fact = (
            f"Share of rows of items that the reference lacks {percent(tested.statistic)} "
            f"(of random halves {percent(tested.median)})"
        )
        return Finding(tested.excess, tested.excess, fact)

    return Signal("new_items", statistics.Part(sides.items, statistics.absent), judge)


def item_popularity(sides: Sides) -> Signal:
    """Shares of the items; those in few blocks of both sides together are one."""
    often = np.flatnonzero(sides.items.getnnz(axis=0) >= RARE_BLOCKS)
    total = np.asarray(sides.items.sum(axis=1)).ravel()
    kept = sides.items[:, often]
    rest = np.maximum(total - np.asarray(kept.sum(axis=1)).ravel(), 0)
    names = [f"item {name}" for name in sides.item_ids[often]]
    sums = sp.hstack([kept, sp.csr_matrix(rest[:, None])], format="csr")
    return _mix("item_popularity", "What is taken", sums, [*names, "rare items"])


def _new(sides: Sides, name: str, column: str, what: str) -> Signal:
    def judge(tested: statistics.Tested) -> Finding:
        old, new = (_share(side, 0) for side in (tested.reference, tested.current))
        return Finding(new - old, abs(new - old), f"{what} {percent(new)} (reference {percent(old)})")

    return Signal(
        name, statistics.Part(sides.mean(sides.rows[column].to_numpy(dtype=float)), statistics.change), judge
    )


def _mix(name: str, what: str, sums: sp.csr_matrix, names: list[str]) -> Signal:
    """Total variation over named columns; the sentence names the one that moved most."""

    def judge(tested: statistics.Tested) -> Finding:
        old, new = (side / max(side.sum(), 1e-12) for side in (tested.reference, tested.current))
        most = int(np.abs(new - old).argmax())
        fact = (
            f"{what} {differs(tested.excess)}; most: {names[most]} "
            f"{percent(new[most])} (reference {percent(old[most])})"
        )
        return Finding(tested.excess, tested.excess, fact)

    return Signal(name, statistics.Part(sums, statistics.total_variation), judge)


# With the items table --------------------------------------------------------------------------------------


def categories(sides: Sides, items: pd.DataFrame | None) -> Signal | str:
    """Shares of the categories, an item's weight divided among its own; items without any are one more."""
    if items is None or tables.CATEGORIES not in items:
        return "no categories of items"
    listed = (
        items.drop_duplicates(tables.ITEM).set_index(tables.ITEM)[tables.CATEGORIES].reindex(sides.item_ids)
    )
    exploded = listed.reset_index(drop=True).explode().dropna()
    if not len(exploded):
        return "no categories of items"
    code, names = pd.factorize(exploded, sort=True)
    item = exploded.index.to_numpy()
    count = np.bincount(item, minlength=len(sides.item_ids))
    without = np.flatnonzero(count == 0)
    cells = np.r_[1 / count[item], np.ones(len(without))]
    places = (np.r_[item, without], np.r_[code, np.full(len(without), len(names))])
    matrix = sp.csr_matrix((cells, places), shape=(len(sides.item_ids), len(names) + 1))
    names = [*map(str, names), "no category"]
    return _mix("categories", "The mix of categories", (sides.items @ matrix).tocsr(), names)


def text(sides: Sides, vectors: np.ndarray | None, seed: int) -> Signal | str:
    """Texts of the rows' items (as `vectors`, in the order of item_ids) and the rows' own."""
    channels = {}
    if vectors is not None:
        channels["the items' texts"] = texts.reduced(vectors), sides.item, sides.weight
    own = sides.rows[tables.TEXT].fillna("").astype(str)
    has = (own.str.strip() != "").to_numpy(dtype=bool)
    has = has & _few_users(sides, has, MOST_TEXTS)
    if min((has & side).sum() for side in (sides.current, ~sides.current)) >= LEAST_TEXTS:
        document, distinct = pd.factorize(own.where(has, ""))
        drawn = texts.reduced(texts.words_to_vectors(list(distinct), seed))
        channels["the rows' texts"] = drawn, document, sides.weight * has
    filled = {name: each for name, each in channels.items() if each[0].any()}
    if not filled:
        return "no texts"
    areas = {name: _area(sides, *each) for name, each in filled.items()}
    parts = [_whitened_sums(sides, *each) for each in filled.values()]
    ends = np.cumsum([part.shape[1] for part in parts])

    def statistic(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
        pairs = zip(*(np.split(side, ends[:-1], axis=1) for side in (reference, current)), strict=True)
        return np.max([statistics.shift(*pair) for pair in pairs], axis=0)

    def judge(tested: statistics.Tested) -> Finding:
        best = max(areas, key=lambda name: areas[name])
        fact = f"A classifier tells {best} from the reference's with {areas[best]:.2f} (guessing: .50)"
        return Finding(areas[best] - 0.5, areas[best] - 0.5, fact)

    return Signal("text", statistics.Part(np.concatenate(parts, axis=1), statistic), judge)


def _area(sides: Sides, vectors: np.ndarray, document: np.ndarray, weight: np.ndarray) -> float:
    """Under the ROC curve of the out-of-fold classifier, over rows whose document has a vector."""
    weight = weight * has_vector(vectors)[document]
    ranks = texts.ranks(vectors, document, sides.fold, sides.current, weight)
    means = [statistics.weighted_mean(ranks[side], weight[side]) for side in (~sides.current, sides.current)]
    return 0.5 + means[1] - means[0]


def _whitened_sums(sides: Sides, vectors: np.ndarray, document: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(blocks, d + 1): sums of whitened vectors, and the weight of rows that have one."""
    counts = sides.sums(document, len(vectors), weight)
    white = texts.whitened(vectors, np.asarray(counts.sum(axis=0)).ravel())
    return np.asarray(counts @ np.concatenate([white, has_vector(vectors)[:, None]], axis=1))


def embedding(sides: Sides, vectors: np.ndarray | None) -> Signal | str:
    """Shift of the mean item vector: centred, in units of the root mean square length."""
    if vectors is None or not (has := has_vector(vectors)).any():
        return "no vectors of items"
    centred = np.where(has[:, None], vectors - vectors[has].mean(axis=0), 0)
    length = np.sqrt(np.square(centred[has]).sum(axis=1).mean())
    columns = np.concatenate([centred / max(length, 1e-12), has[:, None]], axis=1)

    def judge(tested: statistics.Tested) -> Finding:
        fact = f"The mean item vector moved by {tested.excess:.3f} of the vectors' spread more than by chance"
        return Finding(tested.excess, tested.excess, fact)

    return Signal("embedding", statistics.Part(np.asarray(sides.items @ columns), statistics.shift), judge)


def has_vector(vectors: np.ndarray) -> np.ndarray:
    """(items,) bool: not a zero row."""
    return np.asarray(vectors.any(axis=1), dtype=bool)


def _few_users(sides: Sides, rows: np.ndarray, most: int) -> np.ndarray:
    """(rows,) bool: users in the order of their hash, on each side as many as have `most` of these rows."""
    order = np.argsort(user_hash(sides.users), kind="stable")
    kept = np.zeros(len(rows), bool)
    for side in (sides.current, ~sides.current):
        counts = np.bincount(sides.user[rows & side], minlength=len(sides.users))
        within = np.zeros(len(counts), bool)
        within[order] = np.cumsum(counts[order]) <= most
        kept |= side & within[sides.user]
    return kept


# Words and figures -----------------------------------------------------------------------------------------


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if abs(share) < 0.0995 else f"{100 * share:.0f} %"


def apart(excess: float) -> str:
    """How far two distributions are apart beyond what random halves of the same rows are."""
    if excess <= 0:
        return "distributions no further apart than random halves"
    return f"distributions {points(excess)} further apart than random halves"


def differs(excess: float) -> str:
    if excess <= 0:
        return "does not differ more than by chance"
    return f"differs by {points(excess)} more than by chance"


def points(share: float) -> str:
    """Of a share's difference."""
    return f"{100 * share:.1f} points"


def _share(side: np.ndarray, pair: int) -> float:
    return float(side[2 * pair] / side[2 * pair + 1]) if side[2 * pair + 1] > 0 else 0.0


def edges(values: np.ndarray) -> np.ndarray:
    """Right edges of all bins but the last: a bin a distinct value, or BINS bins of equal counts."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return distinct[:-1]
    return np.unique(np.quantile(values, np.arange(1, BINS) / BINS))


def _empty(column: pd.Series) -> np.ndarray:
    if column.name == tables.CATEGORIES:
        return np.array([not isinstance(cell, list) or not cell for cell in column], dtype=bool)
    return (column.isna() | (column.astype("str").str.strip() == "")).to_numpy(dtype=bool)
