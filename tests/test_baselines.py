from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import toy_log
from constant import ConstantScorer

from pipeline.data.histories import History, Prepared
from pipeline.models import baselines

# Two tastes: users of even number take items of even number, odd ones odd; each leaves one of its own out.
CHECKERBOARD = np.array(
    [
        [float(item % 2 == user % 2 and item != (2 * user + user % 2) % 12) for item in range(12)]
        for user in range(24)
    ]
)


def random_matrix(users: int, items: int) -> sp.csr_matrix:
    dense = np.random.default_rng(users).random((users, items)) < 0.3
    dense[:, 0] = False  # an item nobody met
    return sp.csr_matrix(dense.astype(np.float32))


def steck(matrix: sp.csr_matrix, regularisation: float) -> np.ndarray:
    """Equation 8, word for word."""
    x = matrix.toarray().astype(float)
    p = np.linalg.inv(x.T @ x + regularisation * np.eye(x.shape[1]))
    return np.eye(x.shape[1]) - p / np.diag(p)


def taste() -> Prepared:
    rows = [(f"u{u:02d}", f"i{i:02d}", float(i)) for u in range(24) for i in range(12) if CHECKERBOARD[u, i]]
    return toy_log.prepared([f"i{item:02d}" for item in range(12)], rows)


# Popularity


def test_popularity_counts_users_with_a_success_in_the_given_rows() -> None:
    train = [("u", "a", 0), ("u", "a", 1), ("v", "a", 2), ("v", "b", 3), ("w", "c", 4)]
    data = toy_log.prepared(
        list("abcd"), train, [("u", "d", 5)], [("v", "d", 6)], disliked=[("v", "b", 3)], unfit=["w"]
    )
    assert baselines.popularity(data.log, baselines.train_rows(data.log), 4).tolist() == [2, 0, 0, 0]


def test_train_rows_leave_out_other_windows_and_users_with_few_rows() -> None:
    data = toy_log.prepared(
        list("ab"),
        [("u", "a", 0), ("u", "b", 1), ("w", "a", 2)],
        [("u", "a", 3)],
        disliked=[("u", "b", 1)],
        unfit=["w"],
    )
    assert baselines.train_rows(data.log).sum() == 2
    assert baselines.train_rows(data.log, positives_only=True).sum() == 1


def test_recent_popularity_halves_with_every_half_life() -> None:
    train = [("u", "a", 0), ("u", "a", 8), ("v", "b", 4), ("w", "b", 10), ("w", "c", 10)]
    data = toy_log.prepared(list("abc"), train, disliked=[("w", "c", 10)])
    counts = baselines.recent_popularity(data.log, baselines.train_rows(data.log), 3, half_life_days=2)
    # Ages in days at the newest row: a 2 (the repeat at 10 counts no more), b 6 and 0.
    np.testing.assert_allclose(counts, [1 / 2, 1 / 8 + 1, 0])


def test_the_clock_of_recent_popularity_can_be_set() -> None:
    data = toy_log.prepared(["a"], [("u", "a", 0)])
    rows = baselines.train_rows(data.log)
    np.testing.assert_allclose(baselines.recent_popularity(data.log, rows, 1, 3, toy_log.at(6)), [1 / 4])


def test_popularity_of_no_rows_is_zero() -> None:
    data = toy_log.prepared(["a"], [("u", "a", 0)], unfit=["u"])
    assert baselines.popularity(data.log, baselines.train_rows(data.log), 1).tolist() == [0]


def test_interactions_are_zero_or_one() -> None:
    data = toy_log.prepared(list("ab"), [("u", "a", 0), ("u", "a", 1), ("v", "b", 1)])
    matrix = baselines.interactions(data.log, baselines.train_rows(data.log), 2)
    assert matrix.toarray().tolist() == [[1, 0], [0, 1]]


# EASE


@pytest.mark.parametrize("users", [9, 40], ids=["fewer users than items", "more users than items"])
def test_ease_is_equation_8(users: int) -> None:
    matrix = random_matrix(users, 15)
    found = baselines.ease(matrix, 3.0)
    kept = found.kept
    np.testing.assert_allclose(found.matrix, steck(matrix[:, kept], 3.0), atol=1e-5)
    assert (np.diag(found.matrix) == 0).all()
    assert found.matrix.dtype == np.float32


def test_ease_keeps_the_items_with_most_users() -> None:
    matrix = sp.csr_matrix(np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 1, 0]], np.float32))
    found = baselines.ease(matrix, 1.0, max_items=2)
    assert found.kept.tolist() == [1, 3]
    scores = found.score(sp.csr_matrix(np.array([[0, 1, 0, 0], [1, 0, 1, 0]], np.float32)))
    assert np.isnan(scores[0]).tolist() == [True, False, True, False]
    assert np.isnan(scores[1]).all()  # nothing of the history is known


def test_ease_of_nothing_scores_nothing() -> None:
    found = baselines.ease(sp.csr_matrix((3, 4), dtype=np.float32), 1.0)
    assert np.isnan(found.score(sp.csr_matrix(np.ones((2, 4), np.float32)))).all()


def test_pruning_keeps_the_largest_of_each_column(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.array([[0, 5, 1], [-3, 0, 1], [2, -6, 0], [1, 1, 1]], np.float32)
    wanted = [[0, 5, 1], [-3, 0, 1], [2, -6, 0], [0, 0, 0]]
    assert baselines.prune(dense, 2).toarray().tolist() == wanted
    monkeypatch.setattr(baselines, "BLOCK_BYTES", 1)  # a column at a time
    assert baselines.prune(sp.csr_matrix(dense), 2).toarray().tolist() == wanted
    assert baselines.prune(dense, 9).toarray().tolist() == dense.tolist()


# Item-kNN


def test_item_knn_is_the_shrunk_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]], np.float32))
    found = baselines.item_knn(matrix, 9, shrinkage=1.0)
    both, left, right = 2 / (np.sqrt(12) + 1), 1 / (np.sqrt(8) + 1), 1 / (np.sqrt(6) + 1)
    wanted = [[0, both, left], [both, 0, right], [left, right, 0]]
    np.testing.assert_allclose(found.matrix.toarray(), wanted, atol=1e-6)
    monkeypatch.setattr(baselines, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(baselines.item_knn(matrix, 9, 1.0).matrix.toarray(), wanted, atol=1e-6)


def test_item_knn_keeps_the_nearest_of_each_column() -> None:
    found = baselines.item_knn(random_matrix(40, 15), 3, 0.0)
    assert (found.matrix.getnnz(axis=0) <= 3).all()
    assert len(found.kept) == 14


# What they learn


def learners() -> dict[str, Callable[[sp.csr_matrix], Callable[[sp.csr_matrix], np.ndarray]]]:
    return {
        "ease": lambda x: baselines.ease(x, 1.0).score,
        "item_knn": lambda x: baselines.item_knn(x, 10, 0.0).score,
        "ials": lambda x: baselines.ials(x, 2, 0.1, 10.0, seed=1).score,
    }


@pytest.mark.parametrize("name", learners())
def test_the_left_out_item_of_a_users_taste_comes_first(name: str) -> None:
    data = taste()
    matrix = baselines.interactions(data.log, baselines.train_rows(data.log), 12)
    scorer = baselines.HistoryScorer(name, 12, learners()[name](matrix), np.inf)
    users = np.arange(24, dtype=np.int32)
    points = data.log.points(users, np.full(24, -1, np.int32), np.full(24, toy_log.at(99)))
    scores = np.where(CHECKERBOARD > 0, -np.inf, scorer.score(points))
    left_out = [(2 * user + user % 2) % 12 for user in range(24)]
    assert scores.argmax(axis=1).tolist() == left_out


@pytest.mark.parametrize("name", learners())
def test_scores_are_missing_without_history_and_for_unknown_items(name: str) -> None:
    data = toy_log.prepared(
        [*(f"i{item:02d}" for item in range(12)), "new"],
        [(f"u{u:02d}", f"i{i:02d}", float(i)) for u in range(24) for i in range(12) if CHECKERBOARD[u, i]],
        test=[("stranger", "i00", 50), ("u00", "new", 50), ("stranger", "new", 60)],
    )
    matrix = baselines.interactions(data.log, baselines.train_rows(data.log), 13)
    scores = baselines.HistoryScorer(name, 13, learners()[name](matrix), 5.0).score(data.test)
    assert np.isnan(scores).all(axis=1).tolist() == [True, False, False]
    assert np.isnan(scores[1:, 12]).all()
    assert not np.isnan(scores[1:, :12]).any()


@pytest.mark.parametrize("name", learners())
def test_scores_do_not_depend_on_the_other_points_of_a_chunk(name: str) -> None:
    data = taste()
    matrix = baselines.interactions(data.log, baselines.train_rows(data.log), 12)
    scorer = baselines.HistoryScorer(name, 12, learners()[name](matrix), 2.0)
    users = np.arange(24, dtype=np.int32)
    points = data.log.points(users, np.full(24, -1, np.int32), np.full(24, toy_log.at(8)))
    apart = np.vstack([scorer.score(chunk) for chunk in points.chunks(5)])
    np.testing.assert_allclose(scorer.score(points), apart, rtol=1e-5, atol=1e-6)


# iALS


def test_ials_repeats_with_its_seed_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, found = random_matrix(30, 20), []
    for cores in (1, 1, 3):
        monkeypatch.setattr(baselines, "processors", lambda cores=cores: cores)
        found.append(baselines.ials(matrix, 8, 1.0, 5.0, seed=4).vectors)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[0] != baselines.ials(matrix, 8, 1.0, 5.0, seed=5).vectors).any()


@pytest.mark.parametrize("factors", [3, 9], ids=["fewer than the history's items", "more"])
def test_fold_in_solves_the_weighted_least_squares(factors: int) -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=(12, factors)).astype(np.float32)
    weights = np.array(
        [[0, 1, 0, 0.5, 0, 0.25, 1, 0.1, 0.7, 0, 0, 0], [1, 0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]]
    )
    model = baselines.Factors(y, np.ones(12, bool), regularisation=0.7, alpha=4.0)
    scores = model.score(sp.csr_matrix(weights.astype(np.float32)))
    for own, found in zip(weights, scores, strict=True):
        confidence, wanted = np.diag(1 + 4 * own), (own > 0).astype(float)
        user = np.linalg.solve(y.T @ confidence @ y + 0.7 * np.eye(factors), y.T @ confidence @ wanted)
        np.testing.assert_allclose(found, y @ user, rtol=1e-4, atol=1e-5)
    both = np.flatnonzero(weights.any(axis=0))  # what is asked at once is as what is asked alone
    at_once = model.folded(both, weights[:, both].astype(np.float32)) @ y.T
    np.testing.assert_allclose(at_once, scores, rtol=1e-4, atol=1e-5)


# Histories


def test_newer_items_weigh_more_and_disliked_ones_as_told() -> None:
    data = toy_log.prepared(
        list("abc"),
        [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)],
        test=[("u", "a", 9)],
        disliked=[("u", "b", 1)],
    )
    seen = []
    baselines.HistoryScorer(
        "s", 3, lambda weights: seen.append(weights.toarray()) or weights, 1.0, 0.4
    ).score(data.test)
    np.testing.assert_allclose(seen[0], [[1 / 4, 0.4 / 2, 1]])


def test_weights_far_below_the_largest_are_left_out() -> None:
    point, item = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 2], np.int32)
    weight = np.array([[1, 0.5, 0.009, 0.001, 0.0005]], np.float32)
    kept = History((3, 3), point, item, weight).without_small(0.01)
    assert (kept.matrix(0).toarray() > 0).tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    none = History((2, 3), point[:0], item[:0], weight[:, :0])
    assert none.without_small(0.01).matrix(0).nnz == 0


def test_a_constant_scorer_says_the_same_at_every_point() -> None:
    data = toy_log.prepared(list("ab"), [("u", "a", 0)], test=[("u", "b", 1), ("v", "b", 2)])
    scores = ConstantScorer("popularity", np.array([1.0, 0.0])).score(data.test)
    assert scores.tolist() == [[1, 0], [1, 0]]
    assert scores.dtype == np.float32


def test_item_knn_is_the_same_however_few_items_are_fitted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    matrix = sp.csr_matrix((generator.random((30, 25)) < 0.2).astype(np.float32))
    whole = baselines.item_knn(matrix, 4, 2.0)
    monkeypatch.setattr(baselines, "BLOCK_BYTES", 12 * 60)
    parts = baselines.item_knn(matrix, 4, 2.0)
    np.testing.assert_array_equal(whole.matrix.toarray(), parts.matrix.toarray())
    assert [(part.start, part.stop) for part in baselines.spans(np.array([9, 2, 3, 4, 1]), 5)] == [
        (0, 1),
        (1, 3),
        (3, 5),
    ]
