"""A policy for places left to chance: learned where there is something to learn, and told truly."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.evaluation.exploration import (
    COLUMNS,
    FEATURES,
    FLOOR,
    PLACES,
    described,
    drawn,
    learned,
    teaches,
    worths,
)
from pipeline.evaluation.learned import Explored, Learned, earned, learn
from pipeline.evaluation.off_policy import answer

POOL, USERS, LISTS = 20, 150, 1_000


def made(seed: int, lists: int, preference: float) -> tuple[Explored, np.ndarray]:
    """(a log of plain draws, (lists, POOL) with which chance each item is taken): users take what is fresh
    (the last column) by so much more."""
    chance = np.random.default_rng(seed)
    columns = described(chance.normal(size=(lists, POOL)), chance.normal(size=(lists, POOL, len(FEATURES))))
    plain = worths(columns[:, :, 0])
    user = chance.integers(USERS, size=lists)
    ready = chance.normal(0, 0.5, USERS)[user]
    taste = 1 / (1 + np.exp(-(preference * columns[:, :, -1] - 1.5 + ready[:, None])))
    place, logged = np.zeros((lists, PLACES), np.int64), np.zeros((lists, PLACES))
    for row in range(lists):
        place[row], logged[row] = drawn(plain[row], chance)
    reward = (chance.random(place.shape) < np.take_along_axis(taste, place, axis=1)).astype(float)
    names = np.array([f"u{each}" for each in user], object)
    return Explored(columns, plain, place, logged, reward, names), taste


def truth(found: Learned, log: Explored, taste: np.ndarray) -> float:
    """Gain a place, of the lists that judge: with the true chances nothing is left to correct."""
    own = np.array([not teaches(user) for user in log.user])
    log, taste = log.at(own), taste[own]
    sure = Explored(
        log.columns, log.plain, log.place, log.logged, np.take_along_axis(taste, log.place, axis=1), log.user
    )
    gain = (
        earned(sure, learned(found.weights, log.columns, log.plain > 0), taste)[0]
        - earned(sure, log.plain, taste)[0]
    )
    return float(gain.mean() / PLACES)


def test_chances_of_a_policy_sum_to_one_keep_a_floor_and_are_what_is_drawn() -> None:
    chance = np.random.default_rng(1)
    columns, there = chance.normal(size=(5, len(COLUMNS))), np.array([True, True, True, True, False])
    worth = learned((3.0, -2.0, 1.0, 3.0), columns, there)
    assert worth.sum() == pytest.approx(1)
    assert worth[4] == 0
    assert (worth[:4] >= FLOOR / 4).all()
    seen = [drawn(worth, chance) for _ in range(8_000)]
    told = {tuple(rows): float(np.prod(chances)) for rows, chances in seen}
    assert set(told) == set(permutations(range(4), PLACES))
    assert sum(told.values()) == pytest.approx(1)
    for rows, expected in told.items():
        share = sum(tuple(each) == rows for each, _ in seen) / len(seen)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / len(seen)))


def test_the_estimate_is_without_bias_whatever_the_model_of_the_reward() -> None:
    """Over every pair that two places can hold, weighted by its chance, it is what the policy earns."""
    chance = np.random.default_rng(2)
    columns, taste = chance.normal(size=(1, 5, len(COLUMNS))), chance.random((1, 5))
    plain, new = worths(columns[:, :, 0]), learned((1.0, 0.0, 0.0, 2.0), columns, np.ones((1, 5), bool))
    for predicted in (np.zeros((1, 5)), chance.random((1, 5))):
        mean = by_hand = 0.0
        for first, second in permutations(range(5), 2):
            logged = [
                plain[0, w] / (plain.sum() - left) for w, left in ((first, 0), (second, plain[0, first]))
            ]
            place, reward = np.array([[first, second]]), taste[:, [first, second]]
            log = Explored(columns, plain, place, np.array([logged]), reward, np.array(["u"], object))
            mean += np.prod(logged) * float(earned(log, new, predicted)[0][0])
            by_hand += new[0, first] * new[0, second] / (1 - new[0, first]) * reward.sum()
        assert mean == pytest.approx(by_hand)


def test_too_few_lists_teach_nothing() -> None:
    assert learn(made(1, 40, 1.0)[0]) is None


def assert_covers(count: int, logs: int) -> None:
    """In 93 of 100 at least: of so few logs what is not surely fewer, or a rounding decides."""
    assert binomtest(count, logs, 0.93, alternative="less").pvalue > 0.01


@pytest.mark.parametrize("logs", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_a_planted_preference_is_found_and_told_truly(logs: int) -> None:
    better = covered = 0
    for seed in range(logs):
        log, taste = made(seed, LISTS, 1.0)
        found = learn(log)
        assert found is not None
        better += answer(found.gain, log.logged) == "better"
        covered += found.gain.low <= truth(found, log, taste) <= found.gain.high
        assert found.weights[-1] > 0.2
    assert better >= (0.7 * logs if logs > 100 else 1)
    assert covered >= 1
    assert_covers(covered, logs)


@pytest.mark.slow
def test_without_a_preference_a_policy_is_rarely_called_better() -> None:
    better = covered = 0
    for seed in range(200):
        log, taste = made(10_000 + seed, LISTS, 0.0)
        found = learn(log)
        assert found is not None
        better += answer(found.gain, log.logged) == "better"
        covered += found.gain.low <= truth(found, log, taste) <= found.gain.high
    assert better <= 0.05 * 200
    assert_covers(covered, 200)
