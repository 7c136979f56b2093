import numpy as np
import pytest
import toy_log
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import metrics

LISTS = np.array([[4, 2, 7, 1], [2, 0, -1, -1], [5, 6, 1, 3]], np.int32)


def test_target_rank_counts_from_one_and_is_zero_without_a_hit() -> None:
    assert metrics.target_rank(LISTS, np.array([7, 2, 0])).tolist() == [3, 1, 0]


def test_an_unknown_target_does_not_hit_the_padding() -> None:
    assert metrics.target_rank(LISTS, np.array([-1, -1, -1])).tolist() == [0, 0, 0]


def test_accuracy_by_hand() -> None:
    found = metrics.accuracy(np.array([3, 1, 0, 6]), 5)
    np.testing.assert_allclose(found["ndcg"], [1 / 2, 1, 0, 0])  # log2(1 + 3) = 2
    np.testing.assert_allclose(found["precision"], [1 / 5, 1 / 5, 0, 0])
    np.testing.assert_allclose(found["recall"], [1, 1, 0, 0])
    np.testing.assert_allclose(found["mrr"], [1 / 3, 1, 0, 0])


def test_interval_of_a_share_is_wilsons():
    """10 of 200: centre (.05 + 1.96²/400) / (1 + 1.96²/200), as in any table."""
    assert metrics.share_interval(10, 200) == (
        pytest.approx(0.0274, abs=1e-4),
        pytest.approx(0.0896, abs=1e-4),
    )
    assert metrics.share_interval(0, 50)[0] == 0
    assert np.isnan(metrics.share_interval(0, 0)).all()


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(1, 20))
def test_accuracy_stays_in_range_and_never_falls_with_k(ranks: list[int], k: int) -> None:
    short, long = metrics.accuracy(np.array(ranks), k), metrics.accuracy(np.array(ranks), k + 1)
    for metric in metrics.ACCURACY:
        assert ((short[metric] >= 0) & (short[metric] <= 1)).all()
    for metric in ("ndcg", "recall", "mrr"):
        assert (long[metric] >= short[metric]).all()


def test_mean_is_first_over_points_then_over_users() -> None:
    user = np.array([9, 3, 9, 9])
    values = np.array([1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(metrics.group_means(values, user), [1 / 2, 1 / 3])
    assert metrics.mean_of_users(values, user) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_mean_of_users_leaves_out_points_without_a_value() -> None:
    assert metrics.mean_of_users(np.array([np.nan, 0.2, np.nan]), np.array([1, 1, 2])) == pytest.approx(0.2)
    assert np.isnan(metrics.mean_of_users(np.array([np.nan]), np.array([1])))


def test_bootstrap_of_equal_users_has_no_width() -> None:
    draws = metrics.user_bootstrap(np.full((7, 2), 0.3), 50, seed=1)
    np.testing.assert_allclose(draws, 0.3)


def test_bootstrap_interval_of_a_mean_is_close_to_its_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = metrics.interval(metrics.user_bootstrap(values, 4000, seed=1))
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.01)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_draws_are_seeded_and_shared_by_the_columns() -> None:
    values = np.random.default_rng(0).random((30, 1))
    draws = metrics.user_bootstrap(np.hstack([values, values + 0.1]), 100, seed=3)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.1)  # a paired difference of constant size
    np.testing.assert_array_equal(
        draws, metrics.user_bootstrap(np.hstack([values, values + 0.1]), 100, seed=3)
    )
    assert (draws != metrics.user_bootstrap(np.hstack([values, values + 0.1]), 100, seed=4)).any()


def test_bootstrap_in_blocks_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.models.baselines.BLOCK_BYTES", 2000)
    draws = metrics.user_bootstrap(np.eye(10), 101, seed=1)
    assert draws.shape == (101, 10)
    np.testing.assert_allclose(draws.sum(axis=1), 1)  # shares of ten draws


def test_bootstrap_of_nobody_is_nan() -> None:
    assert np.isnan(metrics.user_bootstrap(np.zeros((0, 2)), 5, seed=1)).all()
    nothing = np.zeros(0, int)
    assert np.isnan(metrics.item_bootstrap(np.zeros((0, 2)), nothing, nothing, 5, seed=1)).all()


def test_item_bootstrap_redraws_items_not_points() -> None:
    # One user; item 0 always hit (3 points), item 1 never (1 point): the weighted means are 0, 3/4 or 1.
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    draws = metrics.item_bootstrap(values, np.zeros(4, int), np.array([0, 0, 0, 1]), 400, seed=1)
    assert set(np.round(draws[:, 0], 6)) == {0, 0.75, 1}
    assert np.isclose(draws, 0.75).mean() == pytest.approx(0.5, abs=0.08)


def test_item_bootstrap_leaves_out_users_without_a_drawn_item() -> None:
    values, user, item = np.array([[1.0], [0.0]]), np.array([0, 1]), np.array([5, 6])
    draws = metrics.item_bootstrap(values, user, item, 200, seed=1)
    assert set(draws[:, 0]) == {0, 0.5, 1}


def test_coverage_counts_available_items_only() -> None:
    available = np.array([True, True, True, False])
    assert metrics.coverage(np.array([[0, 1], [1, 3]]), available) == pytest.approx(2 / 3)
    assert metrics.coverage(np.array([[0, -1]]), available) == pytest.approx(1 / 3)
    assert np.isnan(metrics.coverage(np.zeros((0, 2), int), np.zeros(4, bool)))


def test_self_information_of_counts() -> None:
    # 3 + 1 of 8 draws is one bit, 0 + 1 of 8 three.
    np.testing.assert_allclose(metrics.self_information(np.array([3, 1, 0, 0])), [1, 2, 3, 3])


def test_list_means_ignore_the_padding() -> None:
    means = metrics.list_means(np.array([[0, 1], [1, -1], [-1, -1]]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(means, [3, 4, np.nan])


def test_diversity_by_hand() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], float)
    lists = np.array([[0, 1, 2], [0, 2, 3], [0, 3, -1]])
    # Of 0, 1, 2 one pair in three is alike; item 3 has no vector.
    found = metrics.list_diversity(lists, vectors, [2, 3])
    np.testing.assert_allclose(found, [[0, 2 / 3], [1, 1], [np.nan, np.nan]])


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_diversity_equals_the_mean_over_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(8, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    listed = generator.permutation(8)[None, :6]
    chosen = vectors[listed[0]]
    cosines = [chosen[i] @ chosen[j] for i in range(6) for j in range(i)]
    assert metrics.list_diversity(listed, vectors, [2, 6])[0, 1] == pytest.approx(1 - np.mean(cosines))


def test_percentiles_count_ties_half() -> None:
    np.testing.assert_allclose(metrics.percentiles(np.array([5, 1, 1, 9])), [5 / 8, 2 / 8, 2 / 8, 7 / 8])


def test_history_means_are_nan_without_a_history() -> None:
    data = toy_log.prepared(["a", "b"], [("u", "a", 0), ("u", "b", 1)], test=[("u", "a", 9), ("v", "a", 9)])
    np.testing.assert_allclose(metrics.history_means(data.test, np.array([1.0, 4.0])), [2.5, np.nan])


def test_holm_by_hand() -> None:
    adjusted = metrics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})
    assert metrics.holm({}) == {}
