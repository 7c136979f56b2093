"""Cases for the drift check whose answer is known: two windows that come from where the reference comes from.

In: a folder like data/raw. Out: `Case`: a reference and current rows in which exactly two windows close;
where nothing is changed, a champion too, fitted on what came before (with one, more signals can raise a false
alarm; without one, a change has to be found in the rows).
Rule: the users of one stretch of time are dealt into groups at random; the first is the reference, the second
and third become the windows: their rows are moved later by whole weeks, so that the clock's hour and weekday
stay. So nothing but chance tells the sides apart, and it is the chance of drawing users, not rows. `Shift`s
(pipeline/bench/_shifts.py) then change both windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data import items as catalogue_of
from pipeline.data import tables
from pipeline.data.histories import Catalogue, make_log
from pipeline.drift import texts
from pipeline.drift.champion import Champion
from pipeline.drift.reference import Reference
from pipeline.drift.windows import ITEM_SINCE, USER_BEFORE, USER_SINCE, as_window, with_since
from pipeline.errors import DataError
from pipeline.models.preparation import successes
from pipeline.models.recommender import Recommender
from pipeline.params import DetectDrift, Params
from pipeline.training.recipe import light

ANCHORS = (0.3, 0.4, 0.5, 0.6)  # shares of the rows that a champion knows
SPARE = 1.15  # times the least rows and users, so that a random group rarely falls short
WIDEST = 6  # times the fewest users: the longest stretch
TRIES = 50
WEEK = pd.Timedelta(days=7)

Change = Callable[[pd.DataFrame, "World", np.random.Generator], tuple[pd.DataFrame, pd.DataFrame]]


@dataclass(frozen=True)
class Shift:
    """`change`: rows of both windows -> the changed rows and the items table that goes with them."""

    name: str
    change: Change
    needs: str | None = None  # a column of rows (value) or items (title) without which there is no such shift
    sizes: tuple[int, int, int] = (1, 1, 1)  # of the groups
    own_texts: bool = False  # rows of both sides say something


@dataclass(frozen=True)
class Case:
    reference: Reference
    current: pd.DataFrame
    windows: tuple[pd.DataFrame, pd.DataFrame]
    items: pd.DataFrame
    settings: DetectDrift
    champion: Champion | None


@dataclass
class World:
    """All rows and items of a data set, and the champions fitted on its beginnings."""

    rows: pd.DataFrame  # by time; with positive, user_since, item_since
    items: pd.DataFrame
    params: Params
    catalogue: Catalogue
    vectors: np.ndarray  # (items of the catalogue, d) of their words
    users: np.ndarray
    models: dict[float, Recommender] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, params: Params) -> World:
        """Raises DataError if the tables are not there."""
        rows = tables.read_parquet(folder / "interactions", "interactions")
        items = tables.read_parquet(folder / "items.parquet", "items")
        return cls.of(rows, items, params)

    @classmethod
    def of(cls, rows: pd.DataFrame, items: pd.DataFrame, params: Params) -> World:
        rows = rows.sort_values(tables.TIME, kind="stable", ignore_index=True)[tables.INTERACTIONS]
        rows = with_since(rows.assign(positive=successes(rows, params.preprocess.positive)))
        seen = rows.groupby(tables.ITEM, as_index=False)[tables.TIME].min()
        table = catalogue_of.complete(items, seen.rename(columns={tables.TIME: catalogue_of.FIRST_SEEN}))
        catalogue = Catalogue.of(table)
        vectors = texts.words_to_vectors(texts.item_texts(catalogue.items), params.seed)
        users = np.unique(rows[tables.USER].to_numpy(dtype=object))
        return cls(rows, table, params, catalogue, vectors, users)

    def case(self, number: int, shift: Shift | None = None) -> Case:
        """The same number gives the same case. Raises DataError if the data are too small for any."""
        generator = np.random.default_rng([self.params.seed, number])
        anchor = ANCHORS[number % len(ANCHORS)]
        sizes = shift.sizes if shift else (1, 1, 1)
        known, groups = self._deal(anchor, sizes, generator)
        days = (max(g[tables.TIME].max() for g in groups) - known[tables.TIME].iloc[-1]) / pd.Timedelta(
            days=1
        )
        step = 2 * WEEK * math.ceil(1.05 * days / 7 + 1)
        reference, items = groups[0], self.items
        windows = pd.concat(
            [
                later(each, step * place, known[tables.TIME].iloc[-1])
                for place, each in enumerate(groups[1:], 1)
            ],
            keys=[0, 1],
            names=["window", None],
        ).reset_index("window")
        if shift is not None:
            if shift.own_texts:
                reference = reference.assign(**{tables.TEXT: self.words(reference)})
                windows = windows.assign(**{tables.TEXT: self.words(windows)})
            windows, items = shift.change(windows, self, generator)
        windows = windows.assign(positive=successes(windows, self.params.preprocess.positive))
        rows = windows.drop(columns="window").sort_values(tables.TIME, kind="stable", ignore_index=True)
        asked = self._champion(anchor, known, reference, rows) if shift is None else None
        closing = rows.tail(1).assign(**{tables.TIME: rows[tables.TIME].iloc[-1] + step})
        return Case(
            reference=Reference(as_window(reference).rows, None),
            current=pd.concat([rows, closing], ignore_index=True),
            windows=tuple(windows[windows["window"] == place] for place in (0, 1)),
            items=items,
            settings=self.params.detect_drift.model_copy(update={"window_days": 1.01 * days}),
            champion=asked,
        )

    def words(self, rows: pd.DataFrame) -> pd.Series:
        """What someone might have typed to find the row's item: its title."""
        titles = self.items.drop_duplicates(tables.ITEM).set_index(tables.ITEM)[tables.TITLE]
        return rows[tables.ITEM].map(titles).astype("str").str.lower()

    def _deal(
        self, anchor: float, sizes: tuple[int, int, int], generator: np.random.Generator
    ) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
        """(rows that the champion knows, the three groups of the stretch that follows)."""
        settings, parts = self.params.detect_drift, sum(sizes)
        at = self.rows[tables.TIME].iloc[int(anchor * len(self.rows))]
        known, after = self.rows[self.rows[tables.TIME] < at], self.rows[self.rows[tables.TIME] >= at]
        met = (~after[tables.USER].duplicated()).cumsum().to_numpy()
        fewest = SPARE * parts * settings.min_users
        wanted = fewest * math.exp(generator.uniform(0, math.log(WIDEST)))
        least_rows = SPARE * parts * settings.min_rows
        for _ in range(TRIES):
            stop = max(int(np.searchsorted(met, min(wanted, met[-1]))) + 1, math.ceil(least_rows))
            stretch = after[after[tables.TIME] <= after[tables.TIME].iloc[min(stop, len(after)) - 1]]
            groups = _groups(stretch, sizes, generator)
            if all(
                len(g) >= settings.min_rows and g[tables.USER].nunique() >= settings.min_users for g in groups
            ):
                return known, groups
            wanted, least_rows = 1.1 * wanted, 1.1 * least_rows
        raise DataError(
            f"interactions: after the first {100 * anchor:.0f} % of the rows there are not {parts} groups of "
            f"{settings.min_users} users and {settings.min_rows} rows: take larger data, or smaller windows"
        )

    def _champion(
        self, anchor: float, known: pd.DataFrame, reference: pd.DataFrame, rows: pd.DataFrame
    ) -> Champion:
        """Asked about its own test window, which is the reference's, and about the windows."""
        everything = pd.concat([known, reference, rows], ignore_index=True)
        users = np.unique(everything[tables.USER].to_numpy(dtype=object))
        repeats = self.params.preprocess.repeats == "include"
        log = make_log([everything.assign(fit=True)], self.catalogue, users, repeats)
        fit_end = known[tables.TIME].iloc[-1]
        if anchor not in self.models:
            fitted = log.time <= fit_end.value // 1000
            self.models[anchor] = light(log, fitted, self.catalogue, None, self.params.seed)
        return Champion(
            model=self.models[anchor].over(log),
            catalogue=self.catalogue,
            log=log,
            vectors=self.vectors,
            fit_end=fit_end,
            promoted_as_of=reference[tables.TIME].max(),
            version="bench",
            max_points_per_user=self.params.preprocess.max_points_per_user,
        )


def _groups(
    stretch: pd.DataFrame, sizes: tuple[int, int, int], generator: np.random.Generator
) -> list[pd.DataFrame]:
    code, users = pd.factorize(stretch[tables.USER])
    bounds = np.cumsum(sizes)[:-1] * len(users) // sum(sizes)
    group = np.searchsorted(bounds, generator.permutation(len(users)), side="right")[code]
    return [stretch[group == place].reset_index(drop=True) for place in range(len(sizes))]


def later(rows: pd.DataFrame, step: pd.Timedelta, after: pd.Timestamp) -> pd.DataFrame:
    """Moved by `step`; who was first met `after` that moment is met as much later."""
    moved = {name: rows[name] + step for name in (tables.TIME, USER_BEFORE)}
    for name in (USER_SINCE, ITEM_SINCE):
        moved[name] = rows[name].where(rows[name] <= after, rows[name] + step)
    return rows.assign(**moved)
