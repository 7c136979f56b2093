"""What people made of the lists that a service showed them.

A reaction is an event that names the list (`impression_id`) and an item on it; of several to one item the
last counts. Shares are null where nothing was shown that they could be of.

lists, items_shown   how many lists, and places on them
click_through        share of lists of which an item was taken: a success by preprocess.positive
likes                of the listed items that people reacted to, the share taken
returns_7_days       of the days on which a person was shown a list, those after which the person came again,
                     on another day within 7; only days that lie 7 days before the newest moment known
coverage             different items shown, of those in the catalogue
diversity            1 - mean cosine of the categories of a list's items, mean over lists: 0 all alike
interleaved          of lists drawn from champion and challenger in turns, whose items were taken
                     (interleaved.py)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue
from pipeline.data.impressions import LIST
from pipeline.evaluation.interleaved import outcome
from pipeline.models.content import category_matrix

RETURN_DAYS = 7


def satisfaction(
    shown: pd.DataFrame, active: pd.DataFrame, catalogue: Catalogue, days: int | None = None
) -> dict[str, Any]:
    """The newest `days`, in all and by version of the champion.

    `shown`: impressions (pipeline/data/impressions.py) with `positive`, whether the reaction is a success;
    `active`: user_id and timestamp of whatever people did.
    """
    shown = shown.assign(day=_day(shown))
    done = pd.concat([shown, active.assign(day=_day(active))])[[tables.USER, "day"]].dropna()
    newest = int(max(shown["day"].max(), done["day"].max())) if len(done) or len(shown) else 0
    moments = pd.concat([shown[tables.TIME], active[tables.TIME]])
    returning = _next_days(done)
    if days is not None:
        shown = shown[shown[tables.TIME] > moments.max() - pd.Timedelta(days=days)]
    matrix = category_matrix(catalogue)

    def of(part: pd.DataFrame) -> dict[str, Any]:
        lists, places = part[LIST].nunique(), catalogue.index(part[tables.ITEM])
        reacted, taken = part[tables.EVENT].notna(), part["positive"]
        return {
            "lists": lists,
            "items_shown": len(part),
            "click_through": _share(part.loc[taken, LIST].nunique(), lists),
            "likes": _share(int(taken.sum()), int(reacted.sum())),
            "returns_7_days": _returns(part, returning, newest),
            "coverage": _share(len(np.unique(places[places >= 0])), len(catalogue)),
            "diversity": _diversity(part[LIST], places, matrix),
        }

    by_version = {str(version): of(part) for version, part in shown.groupby("version")}
    return {"days": days, **of(shown), "by_version": by_version, "interleaved": outcome(shown)}


def _day(frame: pd.DataFrame) -> pd.Series:
    return frame[tables.TIME].astype(tables.MOMENT).astype("int64") // MICROSECONDS_A_DAY


def _next_days(done: pd.DataFrame) -> pd.DataFrame:
    """user_id, day, next: every day on which a person was shown a list or did something, and the next one."""
    days = done.drop_duplicates().sort_values([tables.USER, "day"], ignore_index=True)
    return days.assign(next=days.groupby(tables.USER)["day"].shift(-1))


def _returns(part: pd.DataFrame, returning: pd.DataFrame, newest: int) -> float | None:
    shown = part[[tables.USER, "day"]].dropna().drop_duplicates()
    shown = shown[shown["day"] + RETURN_DAYS <= newest]
    met = shown.merge(returning, on=[tables.USER, "day"])
    return _share(int((met["next"] <= met["day"] + RETURN_DAYS).sum()), len(met))


def _diversity(lists: pd.Series, places: np.ndarray, categories: sp.csr_matrix) -> float | None:
    """Mean over lists with two items or more that have categories; of unit vectors v the mean cosine of
    pairs is (|sum of v|^2 - n) / (n (n - 1))."""
    known = places >= 0
    number, place = pd.factorize(lists)[0][known], places[known]
    vectors = categories[place].astype(np.float64)
    sizes = np.asarray(vectors.sum(axis=1)).ravel()
    there = np.flatnonzero(sizes > 0)
    if not len(there):
        return None
    unit = sp.diags_array(1 / np.sqrt(sizes[there])) @ vectors[there]
    gather = sp.csr_matrix((np.ones(len(there)), (number[there], np.arange(len(there)))))
    total, count = gather @ unit, np.asarray(gather.sum(axis=1)).ravel()
    squared = np.asarray(total.multiply(total).sum(axis=1)).ravel()
    several = count > 1
    if not several.any():
        return None
    cosine = (squared - count)[several] / (count * (count - 1))[several]
    return round(float(1 - cosine.mean()), 6)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
