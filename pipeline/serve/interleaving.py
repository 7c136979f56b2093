"""Team-draft interleaving of two models' lists (Radlinski, Kurup & Joachims 2008).

In every round each model places its best item that is not listed yet; a coin says which of the two goes
first. Both place equally many, so of whose items people take more is the better, without any weighing.

The propensity of an item is the probability that it stands at its place, given those above it. Where the two
agree on an item nobody sees who placed it; so of the first of a round it is the mean of [it is the one's
next] and [it is the other's next], and of the second likewise if the first was both models' next, else 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


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
