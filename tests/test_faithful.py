"""Reasons against the scores: taking out what a reason names, in worlds where the cause is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from summing import ITEMS, ROWS, USERS, Summing, moments

from pipeline.bench import reasons as bench
from pipeline.data.histories import Points
from pipeline.evaluation.faithful import Listed, faithfulness, without
from pipeline.models.asked import Asked
from pipeline.models.baselines import ItemMatrix


@pytest.fixture(scope="module")
def points() -> Points:
    return moments()


def test_the_true_cause_is_told_from_chance_and_the_wrong_one_too(points: Points) -> None:
    found, lied = (faithfulness(Summing(honest), points, 200, 1) for honest in (True, False))  # type: ignore[arg-type]
    assert found["users"] == USERS
    assert found["named"] > found["other"]
    assert found["low"] > 0
    assert lied["high"] < 0
    assert lied["items"] == USERS * 10


def test_where_no_reason_names_an_item_there_is_no_figure(points: Points) -> None:
    for model, asked in ((Summing(None), points), (Summing(True), points[:0])):
        found = faithfulness(model, asked, 20, 1)  # type: ignore[arg-type]
        assert (found["items"], found["users"]) == (0, 0)
        assert np.isnan(found["difference"])


def test_a_score_without_an_item_is_that_of_a_history_without_it(points: Points) -> None:
    model = Summing(True)
    listed = Listed.of(model, points[3:4])  # type: ignore[arg-type]
    gone = listed.newest[[0, 2]]
    rest = np.setdiff1d(listed.newest, gone)
    sums = model.weights[rest].sum(axis=0)
    expected = (sums - sums.mean())[listed.items[0, listed.top]]
    assert listed.without(gone[None])[0] == pytest.approx(expected, abs=1e-5)
    assert listed.without(np.array([[-1, -1]]))[0] == pytest.approx(listed.score, abs=1e-5)


def test_histories_without_items_keep_the_order_and_the_rest_of_the_rows(points: Points) -> None:
    some = points[np.array([2, 2, 7])]
    second = some.log.item[some.start + 1]
    removed = np.stack([second, np.full(3, -1)], axis=1)
    removed[1] = -1
    found = without(some, removed)
    assert found.lengths.tolist() == [ROWS - 1, ROWS, ROWS - 1]
    before, after = (each.rows() for each in (some, found))
    kept = np.array(
        [row != start + 1 for row, start in zip(before[1], np.repeat(some.start, ROWS), strict=True)]
    )
    kept[ROWS : 2 * ROWS] = True
    for name in ("item", "time", "positive"):
        assert (
            getattr(found.log, name)[after[1]].tolist() == getattr(some.log, name)[before[1][kept]].tolist()
        )


@pytest.mark.parametrize("sparse", [False, True])
def test_parts_of_a_history_add_up_to_the_score(points: Points, sparse: bool) -> None:
    kept = np.array([0, 1, 3, 4, 6, 7, 9, 10, 11], np.int32)
    matrix = np.random.default_rng(4).normal(size=(len(kept), len(kept))).astype(np.float32)
    model = ItemMatrix(ITEMS, kept, sp.csr_matrix(matrix) if sparse else matrix)
    asked = Asked(points[4:5], ITEMS)
    items = np.arange(ITEMS, dtype=np.int32)
    parts = model.parts(asked.weights[5], items)
    assert parts.shape == (ROWS, ITEMS)
    assert parts.sum(axis=0) == pytest.approx(model.pair_scores(asked.history, items[None])[1, 0], abs=1e-5)


def test_the_bench_takes_out_the_greatest_parts_first(points: Points) -> None:
    model = Summing(True)
    listed = Listed.of(model, points[:1])  # type: ignore[arg-type]
    apart = model.weights - model.weights.mean(axis=1, keepdims=True)
    parts = apart[listed.newest][:, listed.items[0, listed.top]]
    falls = bench._falls(listed, listed.newest, parts)
    expected = [np.cumsum(-np.sort(-parts, axis=0), axis=0)[step - 1].mean() for step in bench.STEPS]
    assert falls == pytest.approx(expected, abs=1e-5)
    assert (falls >= bench._falls(listed, listed.newest, -parts) - 1e-5).all()
