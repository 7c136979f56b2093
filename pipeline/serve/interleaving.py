"""Team-draft interleaving of two models' lists (Radlinski, Kurup & Joachims 2008), and what came of it.

In every round each model places its best item that is not listed yet; a coin says which of the two goes
first. Both place equally many, so of whose items people take more is the better, without any weighing.

The propensity of an item is the probability that it stands at its place, given those above it. Where the two
agree on an item nobody sees who placed it; so of the first of a round it is the mean of [it is the one's
next] and [it is the other's next], and of the second likewise if the first was both models' next, else 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.evaluation.off_policy import Answer

INTERLEAVED = "interleaved:"  # the model of such an impression, before the challenger's version
LIST = "impression_id"
CHAMPION, CHALLENGER = "champion", "challenger"
LEAST_USERS = 30  # who took something of such a list; of fewer nothing is answered
SAMPLES, SEED = 2_000, 17


class Placed(NamedTuple):
    team: int  # 0 or 1: of which list
    place: int  # there
    propensity: float


def team_draft(one: Sequence[str], other: Sequence[str], k: int, chance: np.random.Generator) -> list[Placed]:
    """At most k places, best first, each of one of the two lists of item ids."""
    lists, listed = (one, other), set[str]()
    placed: list[Placed] = []

    def following(team: int) -> int | None:
        return next((n for n, item in enumerate(lists[team]) if item not in listed), None)

    def put(team: int, place: int, propensity: float) -> None:
        listed.add(lists[team][place])
        placed.append(Placed(team, place, propensity))

    while len(placed) < k:
        nexts = following(0), following(1)
        first = int(chance.integers(2))
        if nexts[first] is None:
            first = 1 - first
        if (place := nexts[first]) is None:
            break
        rival = nexts[1 - first]
        agreed = rival is None or lists[1 - first][rival] == lists[first][place]
        put(first, place, 1.0 if agreed else 0.5)
        if rival is None or len(placed) == k:
            continue
        nexts = following(0), following(1)
        if (place := nexts[1 - first]) is None:
            continue
        rival = nexts[first]
        known = not agreed or rival is None or lists[first][rival] == lists[1 - first][place]
        put(1 - first, place, 1.0 if known else 0.5)
    return placed


def outcome(lists: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any] | None:
    """Whose items people took from interleaved lists; None where there are none.

    `lists` as the store has them; `events`: impression_id, item_id, timestamp, positive. `difference`: items
    of the challenger taken a list, less those of the champion; its 95 % interval redraws users, all of whose
    lists go together. Of several pairs of models the newest counts.
    """
    drawn = lists[lists["model"].str.startswith(INTERLEAVED) & lists[tables.USER].notna()]
    if not len(drawn):
        return None
    newest = drawn.iloc[-1]
    drawn = drawn[(drawn["version"] == newest["version"]) & (drawn["model"] == newest["model"])]
    names = {CHAMPION: str(newest["version"]), CHALLENGER: str(newest["model"]).removeprefix(INTERLEAVED)}
    rows = [
        (number, user, place[0], place[4] == names[CHALLENGER])
        for number, user, places in zip(drawn[LIST], drawn[tables.USER], drawn["items"], strict=True)
        for place in json.loads(places)
    ]
    shown = pd.DataFrame(rows, columns=[LIST, tables.USER, tables.ITEM, CHALLENGER])
    last = events.sort_values(tables.TIME, kind="stable").drop_duplicates([LIST, tables.ITEM], keep="last")
    taken = shown.merge(last.loc[last["positive"].astype(bool), [LIST, tables.ITEM]], on=[LIST, tables.ITEM])
    of_challenger = taken[CHALLENGER].astype(bool)
    counts = {CHAMPION: int((~of_challenger).sum()), CHALLENGER: int(of_challenger.sum())}
    people = drawn.groupby(tables.USER).size()
    gain = pd.Series(np.where(of_challenger, 1, -1), index=taken[tables.USER]).groupby(level=0).sum()
    found = _difference(gain.reindex(people.index, fill_value=0).to_numpy(), people.to_numpy())
    told = _answer(found["low"], found["high"], taken[tables.USER].nunique())
    return {**names, "lists": len(drawn), "users": len(people), "taken": counts, **found, "answer": told}


def _difference(gain: np.ndarray, lists: np.ndarray) -> dict[str, float]:
    """(users,) items of the challenger taken less those of the champion; (users,) lists."""
    generator = np.random.default_rng(SEED)
    redrawn = np.empty(SAMPLES)
    for sample in range(SAMPLES):
        users = generator.integers(len(lists), size=len(lists))
        redrawn[sample] = gain[users].sum() / lists[users].sum()
    low, high = np.quantile(redrawn, (0.025, 0.975))
    ends = {"difference": gain.sum() / lists.sum(), "low": low, "high": high}
    return {name: round(float(end), 6) for name, end in ends.items()}


def _answer(low: float, high: float, users: int) -> Answer:
    if users < LEAST_USERS:
        return "investigate"
    return "better" if low > 0 else "not better" if high < 0 else "investigate"
