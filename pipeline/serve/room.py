"""Room for items that are put while a large catalogue is in service.

To bind 100,000 items takes as long as a start, so an item that is put would wait for it. A large catalogue is
bound with some empty places behind its items, which are on no list; an item takes one at once, with its text,
categories, year and availability. What comes of a pass over all items (words, neighbours by rounded vectors,
the graph) it gets when the catalogue is bound anew, in the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.data.items import ITEM_TEXT
from pipeline.models.content import category_names, rarity
from pipeline.serve.changes import with_changes
from pipeline.serve.events import Change

if TYPE_CHECKING:
    from pipeline.serve.bound import Bound

LARGE, PLACES = 10_000, 256  # items from which on there is room, and for how many
AT_ONCE = 8  # lists wait for a tenth of a second each; many more wait for the catalogue to be bound anew
NOBODY = "\U0010ffff"  # ids of empty places begin with it: they sort behind all others
GONE = pd.Timestamp(1, unit="us", tz="UTC")


def with_room(items: pd.DataFrame) -> pd.DataFrame:
    """A large table of items with empty places behind them; a small one, bound in no time, as it is."""
    if len(items) < LARGE:
        return items
    ids = [f"{NOBODY}{number:04}" for number in range(PLACES)]
    empty = pd.DataFrame({tables.ITEM: ids, ITEM_TEXT: "", tables.CATEGORIES: [[] for _ in ids]})
    empty[tables.AVAILABLE_UNTIL] = pd.Series(GONE, empty.index).astype(tables.MOMENT)
    kinds = {name: kind for name, kind in items.dtypes.items() if name in empty}
    return pd.concat([items, empty.astype(kinds)], ignore_index=True)


def empty_places(ids: np.ndarray) -> list[int]:
    """The last first: they are taken from the end of this list."""
    return [place for place in range(len(ids) - 1, -1, -1) if str(ids[place]).startswith(NOBODY)]


def put(bound: Bound, change: Change) -> bool:
    """Take in an item, new or changed; False where there is no room."""
    world, lister = bound.world, bound.lister
    item = world.place.get(change.key)
    if item is None:
        if not world.room:
            return False
        item = world.room.pop()
    table = _described(bound, change)
    row, one = table.iloc[0], Catalogue.of(table)
    catalogue = world.model.catalogue
    catalogue.available_from[item], catalogue.available_until[item] = (
        one.available_from[0],
        one.available_until[0],
    )
    world.present.known_from(item, int(one.available_from[0]))
    lister.name(item, change.key, row[tables.TITLE], list(row[tables.CATEGORIES]))
    _as_kinds(bound, item, one)
    _as_text(bound, item, one, str(row[ITEM_TEXT]))
    world.place[change.key] = item
    return True


def _described(bound: Bound, change: Change) -> pd.DataFrame:
    """One row, as preparing makes it."""
    world = bound.world
    known = world.model.catalogue.items
    old = known.iloc[:0] if change.key not in world.place else known[known[tables.ITEM] == change.key]
    table = with_changes(old.drop(columns=ITEM_TEXT), [change])
    return world.preparation.described(table)


def _as_kinds(bound: Bound, item: int, one: Catalogue) -> None:
    kinds = bound.world.model.parts.kinds
    kinds.listed[item], kinds.weights[item] = -1, 0
    if "year" in one.items:
        kinds.year[item] = one.items["year"].to_numpy(dtype=np.float64, na_value=np.nan)[0]
    own = set(category_names(one))
    columns = np.array([place for place, name in enumerate(bound.categories) if name in own], np.int32)
    if len(columns):
        items = kinds.categories.shape[0]
        having = np.bincount(kinds.categories.indices, minlength=kinds.categories.shape[1])[columns]
        weight = rarity(having, items)
        rarest = np.argsort(-weight, kind="stable")[: kinds.listed.shape[1]]
        kinds.listed[item, : len(rarest)] = columns[rarest]
        kinds.weights[item, : len(rarest)] = weight[rarest] / np.linalg.norm(weight)


def _as_text(bound: Bound, item: int, one: Catalogue, text: str) -> None:
    part = bound.world.model.parts.text
    if part is None:
        return
    vector = bound.read(text) if text else None
    part.vectors[item] = 0 if vector is None else vector
    part.there[item] = vector is not None
    told = part.ridge.predict(part.facts.matrix(part.vectors[[item]], one))[0]
    part.expected[item], part.popularity[item] = told[:-1], told[-1]
