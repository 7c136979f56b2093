"""One model in its own feedback loop: lists, choices, its own log, a retraining, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.data.histories import Catalogue, Log
from pipeline.models.ranking import Model as Ranks
from pipeline.models.ranking import popularity_order, rank_points
from pipeline.simulation.measures import of_round
from pipeline.simulation.step import Chance, State, feel, take
from pipeline.simulation.world import World, with_rows


@dataclass(frozen=True)
class Past:
    """What a model is trained on: the loop's own log, and what its own lists have shown."""

    log: Log
    shown: np.ndarray  # (items,) how often, over all rounds so far
    seed: int


class Strategy(Protocol):
    """A way to make lists that can be trained anew."""

    def train(self, past: Past, catalogue: Catalogue) -> Ranks: ...


def run(world: World, strategy: Strategy | None, seed: int, replication: int) -> list[dict[str, float]]:
    """Figures of each of the world's rounds, of which the first is served by the model before any feedback.

    Two strategies with the same seed and replication meet the same chance. None: nobody is shown a list.
    """
    state, log, items = State.of(world), world.log, len(world.catalogue)
    shown, figures = np.zeros(items, np.int64), []
    for number in range(world.rounds + 1):
        own = np.random.SeedSequence([seed, replication, number]).generate_state(1)[0] % 2**31
        here = state.here.copy()
        listed = np.full((len(world.users), world.k), -1, np.int32)
        if strategy is not None:
            model = strategy.train(Past(log, shown, int(own)), world.catalogue)
            listed[here] = lists(world, model, log, world.users[here], number)
        chance = Chance.of(world, seed, replication, number)
        taken = take(world, state, listed, number, chance)
        feel(world, state, taken, chance)
        figures.append(of_round(world, state, listed, taken, here, number))
        shown = shown + np.bincount(listed[listed >= 0], minlength=items)
        when = world.moment(number) + (taken.when * (world.length - 1)).astype(np.int64)
        log = with_rows(log, world.users[taken.user], taken.item, when, world.value)
    return figures


def lists(world: World, model: Ranks, log: Log, users: np.ndarray, number: int) -> np.ndarray:
    """(users, k) items at the beginning of a round."""
    now = np.full(len(users), world.moment(number), np.int64)
    points = log.points(users, np.full(len(users), -1, np.int32), now)
    order = popularity_order(np.bincount(log.item, minlength=len(world.catalogue)), world.catalogue.ids)
    return rank_points(model, points, world.catalogue, order, world.k)[0]
