"""What people made of the lists that a service showed them, from its event store.

A reaction is an event that names the list (`impression_id`) and an item on it; of several to one item the
last counts. Shares are null where nothing was shown that they could be of.

lists, items_shown   how many lists, and places on them
click_through        share of lists of which an item was taken: a success by preprocess.positive
likes                of the listed items that people reacted to, the share taken
returns_7_days       of the days on which a person was shown a list, those after which the person came again,
                     on another day within 7; only days that lie 7 days before the newest moment of the store
coverage             different items shown, of those in the catalogue
diversity            1 - mean cosine of the categories of a list's items, mean over lists: 0 all alike
interleaved          of lists drawn from champion and challenger in turns, whose items were taken
                     (interleaving.py)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue
from pipeline.models.content import category_matrix
from pipeline.models.preparation import successes
from pipeline.params import Params
from pipeline.serve.events import default_url
from pipeline.serve.interleaving import outcome
from pipeline.sources._feedback import opened

RETURN_DAYS = 7
LIST = "impression_id"


def command(root: Path, days: int) -> dict[str, Any]:
    """The newest `days` of the project's store, in all and by version of the model. Raises DataError."""
    params = Params.load(root / "params.yaml")
    with opened(params.collect.feedback or default_url(root)) as store:
        lists, events = store.lists(), store.reactions()
    items = tables.read_parquet(root / "data/raw/items.parquet")
    events["positive"] = successes(events, params.preprocess.positive)
    return satisfaction(lists, events, Catalogue.of(items), days)


def satisfaction(
    lists: pd.DataFrame, events: pd.DataFrame, catalogue: Catalogue, days: int | None = None
) -> dict[str, Any]:
    """`lists`: impression_id, timestamp, user_id, version, items (JSON as the store has it); `events`:
    user_id, item_id, timestamp, impression_id, positive. Times are microseconds."""
    newest = int(
        max(lists[tables.TIME].max() if len(lists) else 0, events[tables.TIME].max() if len(events) else 0)
    )
    active = _active_days(lists, events)
    if days is not None:
        lists = lists[lists[tables.TIME] > newest - days * MICROSECONDS_A_DAY]
    shown = _shown(lists)
    matrix = category_matrix(catalogue)

    def of(part: pd.DataFrame) -> dict[str, Any]:
        mine = shown[shown[LIST].isin(part[LIST])]
        places = catalogue.index(mine[tables.ITEM])
        return {
            "lists": len(part),
            "items_shown": len(mine),
            **_reactions(mine, events, len(part)),
            "returns_7_days": _returns(part, active, newest),
            "coverage": _share(len(np.unique(places[places >= 0])), len(catalogue)),
            "diversity": _diversity(mine[LIST], places, matrix),
        }

    by_version = {str(version): of(part) for version, part in lists.groupby("version")}
    return {
        "days": days,
        **of(lists),
        "by_version": by_version,
        "interleaved": outcome(lists, events),
    }


def _shown(lists: pd.DataFrame) -> pd.DataFrame:
    """impression_id, item_id of every place."""
    rows = [
        (number, place[0])
        for number, items in zip(lists[LIST], lists["items"], strict=True)
        for place in json.loads(items)
    ]
    return pd.DataFrame(rows, columns=[LIST, tables.ITEM], dtype="str")


def _reactions(shown: pd.DataFrame, events: pd.DataFrame, lists: int) -> dict[str, float | None]:
    last = events.sort_values(tables.TIME, kind="stable").drop_duplicates([LIST, tables.ITEM], keep="last")
    met = shown.drop_duplicates().merge(last[[LIST, tables.ITEM, "positive"]], on=[LIST, tables.ITEM])
    taken = met[met["positive"].astype(bool)]
    return {"click_through": _share(taken[LIST].nunique(), lists), "likes": _share(len(taken), len(met))}


def _active_days(lists: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """user_id, day, next: every day on which a person was shown a list or did something, and the next one."""
    parts = [frame[[tables.USER, tables.TIME]].dropna() for frame in (lists, events)]
    every = pd.concat(parts, ignore_index=True)
    every["day"] = every[tables.TIME] // MICROSECONDS_A_DAY
    days = every[[tables.USER, "day"]].drop_duplicates().sort_values([tables.USER, "day"], ignore_index=True)
    return days.assign(next=days.groupby(tables.USER)["day"].shift(-1))


def _returns(lists: pd.DataFrame, active: pd.DataFrame, newest: int) -> float | None:
    shown = lists[[tables.USER, tables.TIME]].dropna()
    shown = shown.assign(day=shown[tables.TIME] // MICROSECONDS_A_DAY)[[tables.USER, "day"]].drop_duplicates()
    shown = shown[shown["day"] + RETURN_DAYS <= newest // MICROSECONDS_A_DAY]
    met = shown.merge(active, on=[tables.USER, "day"])
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
