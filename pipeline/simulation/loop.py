"""One model in its own feedback loop: lists, choices, its own log, a retraining, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.data.histories import Catalogue, Log
from pipeline.evaluation.exploration import Draws
from pipeline.models.ranking import Model as Ranks
from pipeline.models.ranking import popularity_order, rank_points
from pipeline.simulation import exploring
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


def run(
    world: World, strategy: Strategy | None, seed: int, replication: int, draws: Draws | None = None
) -> list[dict[str, float]]:
    """Figures of each of the world's rounds, of which the first is served by the model before any feedback.

    Two strategies with the same seed and replication meet the same chance. None: nobody is shown a list.
    `draws`: what the last places of every list are drawn by; None: lists hold the best alone.
    """
    state, log, items = State.of(world), world.log, len(world.catalogue)
    shown, figures = np.zeros(items, np.int64), []
    for number in range(world.rounds + 1):
        own = np.random.SeedSequence([seed, replication, number]).generate_state(1)[0] % 2**31
        here = state.here.copy()
        listed = np.full((len(world.users), world.k), -1, np.int32)
        if strategy is not None:
            model = strategy.train(Past(log, shown, int(own)), world.catalogue)
            noise = None if draws is None else exploring.noise_of(world, seed, replication, number)[here]
            listed[here] = lists(world, model, log, world.users[here], number, draws, noise)
        chance = Chance.of(world, seed, replication, number)
        taken = take(world, state, listed, number, chance)
        feel(world, state, taken, chance)
        figures.append(of_round(world, state, listed, taken, here, number))
        if draws is not None:
            figures[-1][exploring.TAKEN] = exploring.taken_a_place(listed, taken)
        shown = shown + np.bincount(listed[listed >= 0], minlength=items)
        when = world.moment(number) + (taken.when * (world.length - 1)).astype(np.int64)
        log = with_rows(log, world.users[taken.user], taken.item, when, world.value)
    return figures


def lists(
    world: World,
    model: Ranks,
    log: Log,
    users: np.ndarray,
    number: int,
    draws: Draws | None = None,
    noise: np.ndarray | None = None,
) -> np.ndarray:
    """(users, k) items at the beginning of a round. `noise`: (users, items), which `draws` ask for."""
    now = np.full(len(users), world.moment(number), np.int64)
    points = log.points(users, np.full(len(users), -1, np.int32), now)
    order = popularity_order(np.bincount(log.item, minlength=len(world.catalogue)), world.catalogue.ids)
    if draws is not None and noise is not None:
        return exploring.explored(world, model, draws, points, order, noise)
    return rank_points(model, points, world.catalogue, order, world.k)[0]
