from dataclasses import replace

import numpy as np
import pytest
import toy_log
from constant import ConstantScorer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.histories import Catalogue, Points
from pipeline.models import ranking
from pipeline.models.ranking import popularity_order, rank_points, top_k

NAN, INF = np.nan, np.inf


def one_point(history: list[str], ids: list[str], time: float = 9) -> tuple[Points, Catalogue]:
    data = toy_log.prepared(ids, [("u", item, day) for day, item in enumerate(history)] or [("v", ids[0], 0)])
    user = np.array([0 if history else -1], np.int32)
    return data.log.points(user, np.array([-1], np.int32), np.array([toy_log.at(time)])), data.catalogue


def ids_of(catalogue: Catalogue, listed: np.ndarray) -> list[str]:
    return ["-" if item < 0 else str(catalogue.ids[item]) for item in listed]


def reference(
    scores: np.ndarray, history: set[int], on_offer: list[bool], order: list[int], k: int
) -> list[int]:
    """The rule, read aloud."""
    candidates = [i for i in range(len(scores)) if i not in history and on_offer[i]]
    scored = [i for i in candidates if scores[i] > -INF]
    rest = [i for i in candidates if not scores[i] > -INF]
    ranked = sorted(scored, key=lambda i: (-scores[i], order[i])) + sorted(rest, key=lambda i: order[i])
    return (ranked + [-1] * k)[:k]


@settings(max_examples=60)
@given(st.data())
def test_top_k_equals_a_naive_sort(data: st.DataObject) -> None:
    items = data.draw(st.integers(1, 9))
    value = st.sampled_from([NAN, -INF, INF, -2.5, -0.0, 0.0, 1e-30, 1.0, 1.0000001, 3e38])
    scores = np.array([data.draw(st.lists(value, min_size=items, max_size=items))], np.float32)
    order = data.draw(st.permutations(range(items)))
    history = data.draw(st.sets(st.integers(0, items - 1)))
    on_offer = data.draw(st.lists(st.booleans(), min_size=items, max_size=items))
    k = data.draw(st.integers(1, 12))
    ids = [f"i{number}" for number in range(items)]
    points, _ = one_point([ids[item] for item in sorted(history)], ids)
    begins = [toy_log.START if there else toy_log.START + 99 * toy_log.DAY for there in on_offer]
    catalogue = toy_log.catalogue(ids, available_from=begins)
    listed, found = top_k(scores, points, catalogue, np.array(order, np.int32), k)
    assert listed[0].tolist() == reference(scores[0], history, on_offer, order, k)
    expected = [scores[0, i] if i >= 0 and scores[0, i] > -INF else NAN for i in listed[0]]
    np.testing.assert_array_equal(found[0], np.array(expected, np.float32))


@pytest.mark.parametrize("kind", ["different", "many equal", "mostly nothing", "nearly nothing", "nothing"])
@pytest.mark.parametrize("items", [60, 700, 3_001])
def test_top_k_of_many_items_equals_a_naive_sort(items: int, kind: str) -> None:
    generator = np.random.default_rng(items)
    scores = generator.normal(size=(4, items)).astype(np.float32)
    if kind == "many equal":
        scores = generator.integers(0, 3, scores.shape).astype(np.float32)
    elif kind != "different":
        share = {"mostly nothing": 0.1, "nearly nothing": 5 / items, "nothing": 0.0}[kind]
        scores[generator.random(scores.shape) >= share] = NAN
    order = generator.permutation(items).astype(np.int32)
    ids = [f"i{number:04d}" for number in range(items)]
    history = np.sort(generator.choice(items, 20, replace=False)).tolist()
    point, catalogue = one_point([ids[item] for item in history], ids, time=99)
    points = point[np.zeros(4, np.int64)]
    for k in (1, 10, 60):
        listed, _ = top_k(scores, points, catalogue, order, k)
        for row, of_point in zip(listed, scores, strict=True):
            assert row.tolist() == reference(of_point, set(history), [True] * items, order.tolist(), k)


def test_items_of_the_history_are_not_listed() -> None:
    points, catalogue = one_point(["b"], ["a", "b", "c"])
    listed, _ = top_k(np.array([[1.0, 9.0, 2.0]]), points, catalogue, np.arange(3, dtype=np.int32), 3)
    assert ids_of(catalogue, listed[0]) == ["c", "a", "-"]


def test_items_of_the_history_are_listed_where_repeats_count() -> None:
    points, catalogue = one_point(["b"], ["a", "b", "c"])
    points = replace(points, log=replace(points.log, repeats=True))
    listed, _ = top_k(np.array([[1.0, 3.0, 2.0]]), points, catalogue, np.arange(3), 3)
    assert ids_of(catalogue, listed[0]) == ["b", "c", "a"]


def test_an_interaction_at_the_very_moment_is_no_history() -> None:
    points, catalogue = one_point(["a", "b"], ["a", "b", "c"], time=1)
    listed, _ = top_k(np.array([[1.0, 9.0, 2.0]]), points, catalogue, np.arange(3, dtype=np.int32), 3)
    assert ids_of(catalogue, listed[0]) == ["b", "c", "-"]


def test_offer_begins_at_available_from_and_ends_before_available_until() -> None:
    days = [toy_log.START + day * toy_log.DAY for day in (0, 5, 6, 0, 0)]
    ends = [None, None, None, *(toy_log.START + day * toy_log.DAY for day in (5, 6))]
    catalogue = toy_log.catalogue(list("abcde"), available_from=days, available_until=ends)
    points, _ = one_point([], list("abcde"), time=5)
    listed, _ = top_k(np.zeros((1, 5)), points, catalogue, np.arange(5, dtype=np.int32), 5)
    assert ids_of(catalogue, listed[0]) == ["a", "b", "e", "-", "-"]


def test_unscored_items_follow_in_popularity_order() -> None:
    points, catalogue = one_point([], list("abcd"))
    order = np.array([3, 0, 1, 2], np.int32)  # b, c, d, a
    listed, found = top_k(np.array([[-5.0, NAN, -INF, NAN]]), points, catalogue, order, 4)
    assert ids_of(catalogue, listed[0]) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found[0], [-5, NAN, NAN, NAN])


def test_popularity_order_breaks_ties_by_a_hash_that_does_not_follow_the_ids() -> None:
    ids = np.array([f"{number:03d}" for number in range(100)], dtype=object)
    counts = np.zeros(100)
    counts[70] = 2
    order = popularity_order(counts, ids)
    assert order[70] == 0
    assert sorted(order) == list(range(100))
    assert abs(np.corrcoef(order, np.arange(100))[0, 1]) < 0.3
    np.testing.assert_array_equal(order, popularity_order(counts, ids))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"i{number:02d}" for number in range(20)]
    rows = [(f"u{number % 7}", ids[number * 3 % 20], float(number)) for number in range(40)]
    data = toy_log.prepared(ids, rows[:20], rows[20:30], rows[30:])
    scores = np.random.default_rng(0).integers(0, 4, 20).astype(float)
    order = np.random.default_rng(1).permutation(20).astype(np.int32)
    scorer, done = ConstantScorer("s", scores), []
    whole = rank_points(scorer, data.test, data.catalogue, order, 5)
    monkeypatch.setattr(ranking, "CELLS", 3 * 20)
    parts = rank_points(scorer, data.test, data.catalogue, order, 5, done.append)
    assert done == [3, 3, 3, 1]
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_no_points_give_empty_lists() -> None:
    data = toy_log.prepared(["a"], [("u", "a", 0)])
    listed, found = rank_points(
        ConstantScorer("s", np.ones(1)), data.test, data.catalogue, np.zeros(1, np.int32), 4
    )
    assert listed.shape == found.shape == (0, 4)
