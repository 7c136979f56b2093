"""Estimates of another model's reward: by hand, and by simulation against the truth."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluation.off_policy import (
    Estimate,
    answer,
    difference,
    doubly_robust,
    effective_sample_size,
    snips,
)

LOGS, ROWS, CONTEXTS, ACTIONS = 1_000, 800, 4, 5


def test_figures_by_hand() -> None:
    reward, new = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.2])
    logged = np.array([0.5, 0.5, 0.1])
    # Weights 1, 0.5, 2.
    assert effective_sample_size(new / logged) == pytest.approx(3.5**2 / 5.25)
    found = snips(reward, new, logged)
    assert found.value == pytest.approx(3 / 3.5)
    error = np.sqrt((1 / 7) ** 2 + (0.5 * 6 / 7) ** 2 + (2 / 7) ** 2) / 3.5 * np.sqrt(3 / 2)
    assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-5)
    predicted, expected = np.array([0.5, 0.5, 0.5]), np.array([0.4, 0.6, 0.5])
    # 0.4 + 0.5, 0.6 - 0.25, 0.5 + 1
    assert doubly_robust(reward, new, logged, predicted, expected).value == pytest.approx(2.75 / 3)
    old = np.array([0.5, 0.5, 0.1])  # the logging model itself: differences of weights 0, -0.5, 1
    apart = difference(reward, new, old, logged)
    baseline = 1 / 1.25
    assert apart.value == pytest.approx((0.5 * baseline + 1 - baseline) / 3)


def test_a_model_is_not_better_than_itself() -> None:
    logged = np.full(500, 0.3)
    found = difference(np.arange(500) % 2, logged, logged, logged)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert answer(found, logged) == "not better"


def test_rows_of_a_group_count_as_one() -> None:
    generator = np.random.default_rng(1)
    reward, logged = generator.random(200), np.full(200, 0.5)
    new = generator.random(200)
    alone = snips(reward, new, logged)
    doubled = snips(
        *(np.repeat(each, 2) for each in (reward, new, logged)), group=np.repeat(np.arange(200), 2)
    )
    assert doubled.value == pytest.approx(alone.value)
    assert doubled.high == pytest.approx(alone.high)


@pytest.mark.parametrize("logged", [0.0, -0.1, 1.5, np.nan])
def test_propensities_that_cannot_be_are_refused(logged: float) -> None:
    with pytest.raises(DataError, match="propensities"):
        snips(np.ones(2), np.full(2, 0.5), np.array([0.5, logged]))


def test_what_the_log_cannot_tell_is_looked_into() -> None:
    clear = Estimate(*(np.array(value) for value in (0.2, 0.1, 0.3, 500.0, 0.5)))
    logged = np.full(1_000, 0.5)
    assert answer(clear, logged) == "better"
    assert answer(clear, np.ones(1_000)) == "investigate"  # nothing was left to chance
    few = Estimate(clear.value, clear.low, clear.high, np.array(20.0), clear.unbalanced)
    assert answer(few, logged) == "investigate"
    missing = Estimate(clear.value, clear.low, clear.high, clear.effective, np.array(9.0))
    assert answer(missing, logged) == "investigate"  # the log lacks what the model would show
    wide = Estimate(np.array(0.0), np.array(-0.1), np.array(0.1), clear.effective, clear.unbalanced)
    assert answer(wide, logged) == "investigate"
    assert answer(wide, logged, worthwhile=0.2) == "not better"


class World:
    """Contexts at random, a softmax for each model, rewards of 0 or 1."""

    def __init__(self, seed: int, alike: bool = False) -> None:
        generator = np.random.default_rng(seed)
        self.quality = generator.uniform(0.05, 0.5, (CONTEXTS, ACTIONS))
        taste = generator.normal(size=(3, CONTEXTS, ACTIONS))
        self.logging, self.new, self.old = (_softmax(each) for each in taste)
        if alike:  # another model that earns exactly as much: the logging one moved where rewards are equal
            self.quality[:, 1] = self.quality[:, 0]
            shift = 0.5 * np.minimum(self.logging[:, 0], self.logging[:, 1])
            self.new, self.old = self.logging.copy(), self.logging.copy()
            self.new[:, 0] += shift
            self.new[:, 1] -= shift
        context = generator.integers(CONTEXTS, size=(LOGS, ROWS))
        chance = self.logging.cumsum(axis=1)[context]
        action = np.minimum((generator.random((LOGS, ROWS, 1)) > chance).sum(axis=-1), ACTIONS - 1)
        self.context, self.cell = context, (context, action)
        self.reward = (generator.random((LOGS, ROWS)) < self.quality[self.cell]).astype(float)

    def of(self, policy: np.ndarray) -> np.ndarray:
        return policy[self.cell]

    def truth(self, policy: np.ndarray) -> float:
        return float((policy * self.quality).sum(axis=1).mean())


def _softmax(values: np.ndarray) -> np.ndarray:
    chance = np.exp(0.7 * values)
    return chance / chance.sum(axis=1, keepdims=True)


def _covers(found: Estimate, truth: float) -> float:
    return float(((found.low <= truth) & (truth <= found.high)).mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_intervals_cover_the_truth(seed: int) -> None:
    world = World(seed)
    reward, logged = world.reward, world.of(world.logging)
    new, old = world.of(world.new), world.of(world.old)
    guess = np.clip(world.quality + 0.1, 0, 1)  # a model of the reward that is wrong everywhere
    expected = (world.new * guess).sum(axis=1)[world.context]
    truth = world.truth(world.new)
    assert _covers(snips(reward, new, logged), truth) >= 0.93
    assert _covers(doubly_robust(reward, new, logged, guess[world.cell], expected), truth) >= 0.93
    paired = difference(reward, new, old, logged)
    assert _covers(paired, truth - world.truth(world.old)) >= 0.93
    one, other = snips(reward, new, logged), snips(reward, old, logged)
    apart = np.hypot(one.high - one.low, other.high - other.low)  # as if they were of different rows
    assert (paired.high - paired.low).mean() < apart.mean()


def test_a_model_that_is_no_better_is_rarely_called_so() -> None:
    world = World(3, alike=True)
    logged = world.of(world.logging)
    found = difference(world.reward, world.of(world.new), world.of(world.old), logged)
    better = [
        answer(Estimate(*(np.asarray(getattr(found, name)[log]) for name in vars(found))), logged[log])
        == "better"
        for log in range(LOGS)
    ]
    assert np.mean(better) <= 0.05
