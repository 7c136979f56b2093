"""One round of the users: what they take from their lists and beside them, and what it does to them.

Rule: all chance of a round comes from numbers that depend on seed, replication, round, user and item alone,
so that two loops differ in nothing but their lists (common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.models.text import unit
from pipeline.simulation.choice import NEVER, in_the_mood, shares, utilities
from pipeline.simulation.world import World

MOST_HAZARD = 0.5


@dataclass
class State:
    """Of the users of one loop; changes from round to round."""

    vectors: np.ndarray  # (n, factors) tastes
    met: np.ndarray  # (n, items) bool
    satisfaction: np.ndarray  # (n,) deviations of utility; 0: as expected
    here: np.ndarray  # (n,) bool: has not left
    expected: np.ndarray  # (n,) mean utility of what a user would have taken at the start without a list
    spread: np.ndarray  # (n,) its deviation

    @classmethod
    def of(cls, world: World) -> State:
        n, items = len(world.users), len(world.catalogue)
        met = np.zeros((n, items), bool)
        place = np.full(len(world.log.indptr) - 1, -1)
        place[world.users] = np.arange(n)
        own = place[world.log.user]
        met[own[own >= 0], world.log.item[own >= 0]] = True
        utility = utilities(world.choice, world.tastes.scores(world.tastes.users), world.appeal, met)
        utility[:, ~world.available(0)] = NEVER
        chance = shares(utility)
        mean = (chance * utility).sum(axis=1)
        spread = np.sqrt((chance * (utility - mean[:, None]) ** 2).sum(axis=1))
        return cls(
            world.tastes.users.copy(),
            met,
            np.zeros(n),
            np.ones(n, bool),
            mean,
            np.maximum(spread, 1e-6),
        )


@dataclass(frozen=True)
class Taken:
    """The choices of a round, user by user, in order of time."""

    user: np.ndarray  # (choices,) place among world.users
    item: np.ndarray
    listed: np.ndarray  # bool: from the list
    known: np.ndarray  # bool: met before the round
    when: np.ndarray  # share of the round that had passed
    utility: np.ndarray  # without the mood of the round


@dataclass(frozen=True)
class Chance:
    """All that is random in a round."""

    wants: np.ndarray  # (n,) how many choices
    from_list: np.ndarray  # (n,) how many of them from the list, as far as it reaches
    noise: np.ndarray  # without repeats: (n, items) Gumbel; with: (choices,) uniform, user by user
    of_slots: np.ndarray  # (n, k) uniform, where repeats count
    moods: np.ndarray  # (n,) uniform
    leaves: np.ndarray  # (n,) uniform

    @classmethod
    def of(cls, world: World, seed: int, replication: int, number: int) -> Chance:
        generator = np.random.default_rng([seed, replication, number, 7])
        wants = generator.poisson(world.rate)
        from_list = generator.binomial(wants, world.behaviour.adoption)
        moods, leaves = generator.random((2, len(world.users)))
        if world.log.repeats:
            slots = generator.random((len(world.users), world.k))
            return cls(wants, from_list, generator.random(int(wants.sum())), slots, moods, leaves)
        shape = (len(world.users), len(world.catalogue))
        noise = -np.log(generator.standard_exponential(shape, dtype=np.float32) + np.float32(1e-30))
        return cls(wants, from_list, noise, np.zeros((0, 0)), moods, leaves)


def take(world: World, state: State, listed: np.ndarray, number: int, chance: Chance) -> Taken:
    """The choices of a round; `listed`: (n, k) items, -1 for none. `state.met` learns of them.

    First among the list, where a place also has to be looked at, then among everything that is on offer.
    """
    lasting = utilities(world.choice, world.tastes.scores(state.vectors), world.appeal, state.met)
    lasting[:, ~world.available(number)] = NEVER
    utility = in_the_mood(world.choice, lasting, unit(world.tastes.items), chance.moods)
    n, k = listed.shape
    slots = np.where(listed >= 0, utility[np.arange(n)[:, None], np.maximum(listed, 0)], NEVER)
    slots = slots - world.behaviour.examination * np.log(np.arange(1, k + 1))
    wants = np.where(state.here, chance.wants, 0)
    pick = _again if world.log.repeats else _once
    user, item, from_list = pick(utility, slots, listed, wants, chance)
    # The order within a round is that of the items: the same whichever list an item came from.
    order = np.lexsort((item, user))
    user, item, from_list = user[order], item[order], from_list[order]
    count = np.bincount(user, minlength=n)
    place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    known = state.met[user, item]
    state.met[user, item] = True
    return Taken(user, item, from_list, known, (place + 0.5) / count[user], lasting[user, item])


Picked = tuple[np.ndarray, np.ndarray, np.ndarray]  # user, item, from the list


def _once(
    utility: np.ndarray, slots: np.ndarray, listed: np.ndarray, wants: np.ndarray, chance: Chance
) -> Picked:
    """Each item at most once: those of the greatest utility + Gumbel noise, whose chances are the logit's."""
    rows, k = np.arange(len(listed))[:, None], listed.shape[1]
    loud = slots + np.where(listed >= 0, chance.noise[rows, np.maximum(listed, 0)], 0)
    ranked = np.argsort(-loud, axis=1, kind="stable")
    possible = np.take_along_axis(slots, ranked, axis=1) > NEVER / 2
    picks = possible & (np.arange(k) < np.minimum(chance.from_list, wants)[:, None])
    user, place = np.nonzero(picks)
    item = listed[user, ranked[user, place]]
    keys = utility + chance.noise
    keys[user, item] = NEVER
    beside, other = _greatest(keys, wants - picks.sum(axis=1))
    from_list = np.arange(len(user) + len(beside)) < len(user)
    return np.r_[user, beside], np.r_[item, other], from_list


def _greatest(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of each row's `wanted` greatest keys that can be taken."""
    most = min(int(wanted.max(initial=0)), keys.shape[1])
    if not most:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    best = np.argpartition(-keys, most - 1, axis=1)[:, :most]
    value = np.take_along_axis(keys, best, axis=1)
    inner = np.argsort(-value, axis=1, kind="stable")
    best, value = np.take_along_axis(best, inner, axis=1), np.take_along_axis(value, inner, axis=1)
    row, place = np.nonzero((np.arange(most) < wanted[:, None]) & (value > NEVER / 2))
    return row, best[row, place]


def _again(
    utility: np.ndarray, slots: np.ndarray, listed: np.ndarray, wants: np.ndarray, chance: Chance
) -> Picked:
    """Beside the list any item any number of times: each choice is a draw of its own.

    Of a list an item is taken once: those of the greatest utility + Gumbel noise.
    """
    user = np.repeat(np.arange(len(listed)), chance.wants)
    place = np.arange(len(user)) - np.repeat(np.cumsum(chance.wants) - chance.wants, chance.wants)
    loud = slots - np.log(-np.log(np.clip(chance.of_slots, 1e-12, 1 - 1e-12)))
    ranked = np.argsort(-loud, axis=1, kind="stable")
    reach = (slots > NEVER / 2).sum(axis=1)
    from_list = place < np.minimum(chance.from_list, reach)[user]
    acts = wants[user] > 0
    item = np.zeros(len(user), np.int64)
    lists = np.flatnonzero(acts & from_list)
    item[lists] = listed[user[lists], ranked[user[lists], place[lists]]]
    beside = np.flatnonzero(acts & ~from_list)
    levels = np.cumsum(shares(utility), axis=1, dtype=np.float64)
    for one in np.unique(user[beside]):
        draws = beside[user[beside] == one]
        item[draws] = np.searchsorted(levels[one], chance.noise[draws] * levels[one, -1], side="right")
    item = np.minimum(item, utility.shape[1] - 1)
    return user[acts], item[acts], from_list[acts]


def feel(world: World, state: State, taken: Taken, chance: Chance) -> None:
    """What the round does to the users: satisfaction, taste, and who leaves."""
    how, n = world.behaviour, len(world.users)
    count = np.bincount(taken.user, minlength=n)
    acted = count > 0
    surprise = (taken.utility - state.expected[taken.user]) / state.spread[taken.user]
    mean = np.bincount(taken.user, surprise, minlength=n)[acted] / count[acted]
    state.satisfaction[acted] += how.memory * (mean - state.satisfaction[acted])
    towards = np.zeros_like(state.vectors, dtype=np.float64)
    np.add.at(towards, taken.user, world.tastes.items[taken.item])
    state.vectors[acted] = _moved(state.vectors[acted], towards[acted], how.drift)
    hazard = np.minimum(how.churn * np.exp(-how.sensitivity * state.satisfaction), MOST_HAZARD)
    state.here &= ~(chance.leaves < hazard)


def _moved(vectors: np.ndarray, towards: np.ndarray, share: float) -> np.ndarray:
    """Directions moved by a share of the way; lengths stay, as do users whose items say nothing."""
    size, goal = (np.linalg.norm(array, axis=1, keepdims=True) for array in (vectors, towards))
    moved = (1 - share) * vectors / np.maximum(size, 1e-12) + share * towards / np.maximum(goal, 1e-12)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    known = (size > 0) & (goal > 0) & (length > 1e-6)
    return np.where(known, size * moved / np.maximum(length, 1e-12), vectors).astype(np.float32)
