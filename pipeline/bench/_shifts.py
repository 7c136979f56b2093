"""Changes of the world that a drift check has to find, planted in both windows of a case.

In: rows of two windows (column `window`), the world. Out: the changed rows, and the items table.
Sizes are such that someone who runs a shop would want to know, and well above the floors of params.yaml.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.bench._cases import Shift, World
from pipeline.data import tables
from pipeline.drift import windows

NEW_SHARE = 0.3  # of the items taken
CHANGED_USERS = 1 / 3
TASTE_SHARE = 0.1  # of the rows: how much the other taste is taken by everybody
OTHER_LANGUAGE = 1 / 2  # of the users
INFLATED, FACTOR = 1 / 2, 1.5  # of the rows, by the next higher grade; amounts by this factor
GRADES = 50  # more different values than that are amounts
MISSING = 0.2  # of the rows
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TURNED = str.maketrans(ALPHABET, ALPHABET[13:] + ALPHABET[:13])

Changed = tuple[pd.DataFrame, pd.DataFrame]


def new_catalogue(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """A share of the items taken gives way to new ones, each described like some other item."""
    taken = rows[tables.ITEM].unique()
    replaced = taken[generator.random(len(taken)) < NEW_SHARE]
    names = pd.Series([f"new-{item}" for item in replaced], replaced, dtype="str")
    described = world.items.iloc[generator.integers(0, len(world.items), len(replaced))]
    items = pd.concat([world.items, described.assign(**{tables.ITEM: names.to_numpy()})], ignore_index=True)
    renamed = rows[tables.ITEM].map(names)
    rows = rows.assign(**{tables.ITEM: renamed.fillna(rows[tables.ITEM])})
    first = rows.groupby(tables.ITEM)[tables.TIME].transform("min")
    return rows.assign(**{windows.ITEM_SINCE: rows[windows.ITEM_SINCE].where(renamed.isna(), first)}), items


def taste_change(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """A third of the users take, from now on, what one category (else, some tenth of the items) holds."""
    wanted = _taste(world, generator)
    changed = _some_users(rows, CHANGED_USERS, generator)
    drawn = generator.choice(len(wanted), changed.sum(), p=wanted.to_numpy() / wanted.sum())
    item = rows[tables.ITEM].to_numpy(dtype=object).copy()
    item[changed] = wanted.index.to_numpy(dtype=object)[drawn]
    since = world.rows.drop_duplicates(tables.ITEM).set_index(tables.ITEM)[windows.ITEM_SINCE]
    rows = rows.assign(**{tables.ITEM: pd.Series(item, rows.index, dtype="str")})
    return rows.assign(
        **{windows.ITEM_SINCE: rows[windows.ITEM_SINCE].where(~changed, rows[tables.ITEM].map(since))}
    ), world.items


def _taste(world: World, generator: np.random.Generator) -> pd.Series:
    """Item -> rows, of the items that the other taste is for."""
    counts = world.rows[tables.ITEM].value_counts()
    exploded = world.items[[tables.ITEM, tables.CATEGORIES]].explode(tables.CATEGORIES).dropna()
    weight = exploded[tables.ITEM].map(counts).fillna(0).groupby(exploded[tables.CATEGORIES]).sum() / len(
        world.rows
    )
    if len(weight) > 1:
        nearest = (weight - TASTE_SHARE).abs().sort_values(kind="stable").index[:3]
        chosen = exploded.loc[exploded[tables.CATEGORIES] == generator.choice(nearest), tables.ITEM]
        return counts[counts.index.isin(chosen)]
    return counts[generator.random(len(counts)) < TASTE_SHARE]


def doubled_volume(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """Nothing to change: the windows have twice as many users as the reference."""
    return rows, world.items


def other_language(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """Half of the users write in a language of other words (letters turned by 13)."""
    changed = _some_users(rows, OTHER_LANGUAGE, generator)
    text = rows[tables.TEXT].where(~changed, rows[tables.TEXT].str.translate(TURNED))
    return rows.assign(**{tables.TEXT: text}), world.items


def value_inflation(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """Half of the values rise: grades by one step, amounts by half."""
    value = rows[tables.VALUE].to_numpy(dtype=float)
    grades = np.unique(world.rows[tables.VALUE].dropna())
    if len(grades) <= GRADES:
        place = np.minimum(np.searchsorted(grades, value, side="right"), len(grades) - 1)
        risen = np.where(np.isnan(value), np.nan, grades[place])
    else:
        risen = FACTOR * value
    chosen = generator.random(len(rows)) < INFLATED
    return rows.assign(**{tables.VALUE: np.where(chosen, risen, value)}), world.items


def missing_values(rows: pd.DataFrame, world: World, generator: np.random.Generator) -> Changed:
    """A fifth of the values get lost."""
    lost = generator.random(len(rows)) < MISSING
    return rows.assign(**{tables.VALUE: rows[tables.VALUE].where(~lost)}), world.items


def _some_users(rows: pd.DataFrame, share: float, generator: np.random.Generator) -> np.ndarray:
    """(rows,) bool: rows of that share of the users."""
    code, users = pd.factorize(rows[tables.USER])
    return (generator.permutation(len(users)) < share * len(users))[code]


SHIFTS = (
    Shift("new_catalogue", new_catalogue),
    Shift("taste_change", taste_change),
    Shift("doubled_volume", doubled_volume, sizes=(1, 2, 2)),
    Shift("other_language", other_language, needs=tables.TITLE, own_texts=True),
    Shift("value_inflation", value_inflation, needs=tables.VALUE),
    Shift("missing_values", missing_values, needs=tables.VALUE),
)
