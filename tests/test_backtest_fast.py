"""The fast scorer: it learns a known taste, looks at nothing but its rows, and repeats itself."""

import dataclasses

import numpy as np
import pytest

from pipeline.backtest import fast
from pipeline.data.histories import Prepared
from pipeline.models.baselines import train_rows
from tests.toy_log import catalogue, prepared

ITEMS = [f"i{number:02d}" for number in range(12)]


def clusters(users: int = 100, seed: int = 0) -> Prepared:
    """Two tastes: even users take even items, odd users odd ones, each in an order of its own."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        own = generator.permutation(np.arange(user % 2, 12, 2))[:5]
        rows += [(f"u{user:03d}", ITEMS[item], user + place / 10) for place, item in enumerate(own)]
    rows.sort(key=lambda row: row[2])
    return prepared(ITEMS, rows[: 4 * users], test=rows[4 * users :])


def fit(data: Prepared, vectors: np.ndarray | None = None, seed: int = 17) -> fast.FastScorer:
    return fast.fit_fast(data.log, train_rows(data.log), data.catalogue, vectors, seed)


def test_items_of_the_users_own_cluster_come_first() -> None:
    data = clusters()
    points = data.test[np.flatnonzero(data.test.lengths > 1)]
    scores = fit(data).score(points)
    own = (np.arange(12)[None, :] % 2) == (points.target[:, None] % 2)
    assert scores.shape == (len(points), 12)
    assert scores.dtype == np.float32
    assert (scores.max(axis=1, where=own, initial=-99) > scores.max(axis=1, where=~own, initial=-99)).all()


def test_the_same_seed_gives_the_same_scores_and_another_seed_others() -> None:
    data = clusters()
    one, again, other = (fit(data, seed=seed).score(data.test) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_rows_outside_the_mask_change_nothing_but_the_points_own_history() -> None:
    data = clusters()
    log = data.log
    shuffled = log.item.copy()
    outside = ~train_rows(log)
    shuffled[outside] = (shuffled[outside] + 1) % 12
    changed = dataclasses.replace(data, log=dataclasses.replace(log, item=shuffled))
    assert fit(data).weights == fit(changed).weights


def test_vectors_place_an_item_that_nobody_has_touched() -> None:
    data = clusters()
    items = catalogue([*ITEMS, "new_even", "new_odd"])
    data = prepared(items, *_rows(data))
    vectors = np.array([[1.0, 0.0] if n % 2 == 0 else [0.0, 1.0] for n in range(14)], np.float32)
    points = data.test[np.flatnonzero(data.test.lengths > 1)]
    scores = fit(data, vectors).score(points)
    even = points.target % 2 == 0
    assert (scores[even, 12] > scores[even, 13]).all()
    assert (scores[~even, 13] > scores[~even, 12]).all()


def _rows(data: Prepared) -> tuple[list[tuple[str, str, float]], list, list[tuple[str, str, float]]]:
    from tests.toy_log import at

    log = data.log
    rows = [
        (data.user_ids[u], ITEMS[i], (t - at(0)) / 86_400_000_000)
        for u, i, t in zip(log.user, log.item, log.time, strict=True)
    ]
    train = sorted((row for row, w in zip(rows, log.window, strict=True) if w == 0), key=lambda row: row[2])
    test = sorted((row for row, w in zip(rows, log.window, strict=True) if w == 2), key=lambda row: row[2])
    return train, [], test


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_too_few_rows_to_learn_from_still_give_finite_scores(rows: int) -> None:
    data = clusters()
    mask = np.zeros(len(data.log), bool)
    mask[:rows] = True
    scorer = fast.fit_fast(data.log, mask, data.catalogue, None, 17)
    assert scorer.weights["ease"] == 1
    assert np.isfinite(scorer.score(data.test)).all()


def test_the_gradient_is_that_of_the_loss() -> None:
    generator = np.random.default_rng(3)
    features = generator.normal(size=(5, 4, 3)).astype(np.float32)
    offset = np.zeros((5, 4), np.float32)
    weight, at = np.full(5, 0.2), generator.normal(size=3)
    _, gradient = fast._loss(at, features, offset, weight)
    for place in range(3):
        step = np.zeros(3)
        step[place] = 1e-2
        up, down = (fast._loss(at + sign * step, features, offset, weight)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((up - down) / 2e-2, abs=1e-3)
