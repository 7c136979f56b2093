"""The statistics of the drift check: by hand, against enumeration, and their error rates."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from pipeline.drift import statistics, texts


def one(*cells: float) -> np.ndarray:
    return np.array([cells], dtype=float)


def test_distances_by_hand() -> None:
    assert statistics.total_variation(one(1, 1, 2), one(2, 2, 0)) == pytest.approx(
        [1 / 2]
    )  # .25 .25 .5, .5 .5 0
    assert statistics.gap(one(1, 1, 2), one(2, 2, 0)) == pytest.approx([1 / 2])  # .25 .5 1, .5 1 1
    assert statistics.shift(one(2, 0, 2), one(6, 12, 3)) == pytest.approx(
        [(1 + 16) ** 0.5]
    )  # means (1, 0), (2, 4)
    assert statistics.absent(one(1, 0, 0), one(3, 1, 4)) == pytest.approx([5 / 8])
    assert statistics.log_ratio(one(1.5, 2), one(7.5, 2)) == pytest.approx([log(4)])
    assert statistics.mean_differences(one(1, 2, 3, 4), one(3, 4, 1, 4))[0] == pytest.approx([1 / 4, -1 / 2])
    assert statistics.rise(one(1, 2, 3, 4), one(3, 4, 1, 4)) == pytest.approx([1 / 4])
    assert statistics.change(one(1, 2, 3, 4), one(3, 4, 1, 4)) == pytest.approx([1 / 2])


def test_a_side_without_weight_divides_by_nothing() -> None:
    for statistic in (
        statistics.total_variation,
        statistics.gap,
        statistics.shift,
        statistics.absent,
        statistics.rise,
    ):
        assert np.isfinite(statistic(one(0, 0), one(1, 1))).all()


@given(st.lists(st.floats(0, 100), min_size=8, max_size=8))
def test_shares_stay_within_0_and_1_and_equal_sides_are_equal(cells: list[float]) -> None:
    old, new = one(*cells[:4]), one(*cells[4:])
    for statistic in (statistics.total_variation, statistics.gap, statistics.absent):
        assert 0 <= statistic(old, new)[0] <= 1 + 1e-9
    for statistic in (
        statistics.total_variation,
        statistics.gap,
        statistics.shift,
        statistics.rise,
        statistics.change,
        statistics.log_ratio,
    ):
        assert statistic(old, old)[0] == pytest.approx(0)


def test_the_p_value_is_that_of_all_permutations() -> None:
    """5 of 9 blocks: 126 ways, all of which the draws meet in proportion."""
    values = np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5])
    current = np.arange(9) >= 4
    part = statistics.Part(np.stack([values, np.ones(9)], axis=1), statistics.change)

    def distance(chosen: tuple[int, ...]) -> float:
        side = np.isin(np.arange(9), chosen)
        return abs(values[side].mean() - values[~side].mean())

    every = [distance(chosen) for chosen in combinations(range(9), 5)]
    exact = np.mean(np.array(every) >= distance((4, 5, 6, 7, 8)) - 1e-9)
    tested = statistics.permutation_tests(current, {"x": part}, 20_000, 1)["x"]
    assert tested.statistic == pytest.approx(27 / 5 - 9 / 4)
    assert tested.p_value == pytest.approx(exact, abs=0.015)
    assert tested.reference.tolist() == [9, 4]
    assert tested.current.tolist() == [27, 5]
    assert tested.excess == pytest.approx(tested.statistic - np.median(every), abs=0.15)


def test_sparse_and_dense_sums_and_any_company_give_the_same() -> None:
    generator = np.random.default_rng(3)
    sums, current = generator.poisson(1.0, (40, 6)).astype(float), np.arange(40) >= 25
    dense = statistics.Part(sums, statistics.total_variation)
    alone = statistics.permutation_tests(current, {"a": dense}, 299, 5)["a"]
    both = statistics.permutation_tests(
        current, {"a": statistics.Part(sp.csr_matrix(sums), statistics.total_variation), "b": dense}, 299, 5
    )
    assert (alone.statistic, alone.p_value) == pytest.approx((both["a"].statistic, both["a"].p_value))
    assert both["a"].p_value == both["b"].p_value


def test_a_surely_large_p_value_ends_early_and_a_side_must_have_a_block() -> None:
    sums = np.ones((20, 2))
    tested = statistics.permutation_tests(
        np.arange(20) >= 9, {"x": statistics.Part(sums, statistics.change)}, 10**9, 1
    )["x"]
    assert tested.p_value == 1
    with pytest.raises(ValueError, match="without a block"):
        statistics.permutation_tests(
            np.ones(3, bool), {"x": statistics.Part(np.ones((3, 2)), statistics.change)}, 99, 1
        )


def test_equal_sides_are_called_different_as_rarely_as_promised() -> None:
    generator = np.random.default_rng(11)
    found = []
    for repeat in range(300):
        sums = generator.dirichlet(np.full(5, 0.3), 60) * 20  # users with tastes of their own
        part = statistics.Part(sums, statistics.total_variation)
        tested = statistics.permutation_tests(np.arange(60) >= 40, {"x": part}, 199, repeat)
        found.append(tested["x"].p_value <= 0.05)
    assert np.mean(found) <= 0.08  # 0.05 and three standard errors


def test_neighbouring_days_that_are_alike_inflate() -> None:
    assert statistics.inflation(np.ones(100), 10) == 1
    generator = np.random.default_rng(2)
    steps = generator.normal(size=5000)
    assert statistics.inflation(steps, 10) == pytest.approx(1, abs=0.2)
    smooth = np.convolve(steps, np.ones(5), "valid")  # r_k = 1 - k / 5
    wanted = 1 + 2 * sum((1 - k / 10) * (1 - k / 5) for k in range(1, 5))
    assert statistics.inflation(smooth, 10) == pytest.approx(wanted, rel=0.15)


def test_user_difference_is_a_mean_over_users() -> None:
    old = np.array([0, 0, 1]), np.array([1.0, 0.0, 0.0])  # user 0: 1/2, user 1: 0
    new = np.array([1, 2, 2]), np.array([1.0, 1.0, 0.0])  # user 1: 1, user 2: 1/2
    found = statistics.user_difference(old, new, 500, 1)
    assert (found.reference, found.current, found.value) == pytest.approx((1 / 4, 3 / 4, 1 / 2))
    assert found.low <= found.value <= found.high
    assert 0 < found.p_value <= 1


def test_a_clear_loss_has_an_interval_below_zero() -> None:
    users = np.arange(80)
    found = statistics.user_difference(
        (users, np.full(80, 0.4)), (users + 80, np.tile([0.0, 0.2], 40)), 500, 1
    )
    assert found.value == pytest.approx(-0.3)
    assert found.high < 0
    assert found.p_value < 0.01


def test_the_classifier_is_out_of_fold_and_finds_a_difference() -> None:
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(300, 20))
    current = np.arange(2000) >= 1000
    user = np.arange(2000) // 10
    fold, weight = user % texts.FOLDS, np.ones(2000)
    same = generator.integers(0, 300, 2000)
    ranks = texts.ranks(documents, same, fold, current, weight)
    assert abs(ranks[current].mean() - ranks[~current].mean()) < 0.04
    order = np.argsort(documents[:, 0])  # the current side takes documents with a large first coordinate
    moved = np.where(current, order[150 + same // 2], same)
    ranks = texts.ranks(documents, moved, fold, current, weight)
    assert ranks[current].mean() - ranks[~current].mean() > 0.2  # area under ROC: .75 at best


def test_the_difference_of_mean_ranks_is_the_area_under_roc() -> None:
    score, side = np.array([1.0, 2, 2, 3, 5]), np.array([False, False, True, True, True])
    ranks = texts.weighted_ranks(score, np.ones(5))
    wins = [(1 if b > a else 0.5 if b == a else 0) for a in score[~side] for b in score[side]]
    assert ranks[side].mean() - ranks[~side].mean() + 0.5 == pytest.approx(np.mean(wins))


def test_vectors_are_reduced_without_losing_what_has_none() -> None:
    vectors = np.zeros((5, 100))
    vectors[1:, :3] = np.random.default_rng(1).normal(size=(4, 3))
    found = texts.reduced(vectors)
    assert found.shape == (5, texts.WIDTH)
    assert not found[0].any()
    assert np.linalg.norm(found[1] - found[2]) == pytest.approx(np.linalg.norm(vectors[1] - vectors[2]))
    assert not texts.reduced(np.zeros((3, 4))).any()


def test_words_become_vectors_and_none_become_zero() -> None:
    found = texts.words_to_vectors(["red fish", "red fish", "blue bird sings", ""], 1)
    assert found[0] == pytest.approx(found[1])
    assert not found[3].any()
    assert not texts.words_to_vectors(["", ""], 1).any()
