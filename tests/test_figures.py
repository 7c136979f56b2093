from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.data.histories import Prepared
from pipeline.evaluation.figures import (
    CHALLENGER,
    Measured,
    Question,
    on_offer_at,
)
from pipeline.evaluation.slices import by_history_length, by_popularity_decile, slices, user_groups

ITEMS = list("abcdefgh")
TRAIN = [("u", "a", 0.0), ("u", "b", 1.0), ("v", "a", 2.0), ("w", "c", 3.0)]
VALIDATION = [("x", "d", 4.0)]  # d and x are known at test, but were never in train
TEST = [
    ("u", "c", 5.0),  # warm
    ("u", "d", 6.0),  # cold item
    ("x", "a", 6.0),  # cold user, with a history
    ("y", "a", 7.0),  # cold user, empty history
    ("z", "e", 8.0),  # cold both
]


def data() -> Prepared:
    return toy_log.prepared(ITEMS, TRAIN, VALIDATION, TEST)


def question(k: int = 10) -> Question:
    made = data()
    popularity = np.array([2, 1, 1, 0, 0, 0, 0, 0], float)
    order = np.arange(8, dtype=np.int32)
    vectors = np.eye(8)
    return Question(made.test, made.catalogue, popularity, order, vectors, k, 200, 3)


def lists(*texts: str) -> np.ndarray:
    """One list a point, best first, padded to ten."""
    return np.array([([ITEMS.index(item) for item in text] + [-1] * 10)[:10] for text in texts], np.int32)


GOOD = lists("cdef", "cdef", "bade", "abcd", "abcd")  # ranks 1, 2, 2, 1, 0
POOR = lists("defg", "efgh", "efgh", "bacd", "abcd")  # ranks 0, 0, 0, 2, 0


def measured() -> Measured:
    return Measured.of(question(), {CHALLENGER: GOOD, "ease": POOR})


def test_slices_go_by_what_train_holds() -> None:
    found = {name: np.flatnonzero(mask).tolist() for name, mask in slices(data().test).items()}
    assert found == {
        "all": [0, 1, 2, 3, 4],
        "warm": [0],
        "cold_items": [1, 4],
        "cold_users": [2, 3, 4],
        "empty_history": [3, 4],
    }


def test_history_lengths_count_rows_of_all_windows_before_the_point() -> None:
    found = {name: np.flatnonzero(mask).tolist() for name, mask in by_history_length(data().test).items()}
    assert found == {"0": [3, 4], "1-4": [0, 1, 2], "5-19": [], "20-99": [], "100+": []}


def test_deciles_are_of_the_items_met_in_train() -> None:
    # Of c, b, a from the least to the most popular: 1 + 10 * (0, 1, 2) // 3.
    found = by_popularity_decile(data().test, np.arange(8, dtype=np.int32))
    points = {name: np.flatnonzero(mask).tolist() for name, mask in found.items() if mask.any()}
    assert points == {"new": [1, 4], 1: [0], 7: [2, 3]}


def test_figures_by_hand() -> None:
    models, _ = measured().all_slices()
    second = 1 / np.log2(3)
    everywhere = models[CHALLENGER]["all"]
    assert (everywhere["users"], everywhere["points"]) == (4, 5)
    assert everywhere["ndcg@10"] == pytest.approx(((1 + second) / 2 + second + 1 + 0) / 4)
    assert everywhere["recall@5"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert everywhere["mrr@10"] == pytest.approx((0.75 + 0.5 + 1) / 4)
    assert everywhere["precision@5"] == pytest.approx(3 / 4 / 5)
    assert everywhere["coverage@10"] == pytest.approx(6 / 8)
    assert models[CHALLENGER]["warm"]["ndcg@10"] == 1
    assert models[CHALLENGER]["cold_items"]["ndcg@10"] == pytest.approx(second / 2)
    assert models["ease"]["empty_history"]["ndcg@10"] == pytest.approx(second / 2)


def test_what_goes_beyond_accuracy_by_hand() -> None:
    figures = measured().all_slices()[0][CHALLENGER]["warm"]  # the list c d e f after a, b
    bits = -np.log2(np.array([2, 1, 1, 1]) / 12)
    assert figures["novelty@10"] == pytest.approx(bits.mean())
    assert figures["diversity@10"] == 1
    listed, before = np.mean([6, 2.5, 2.5, 2.5]) / 8, np.mean([7.5, 6]) / 8
    assert figures["popularity_percentile@10"] == pytest.approx(listed)
    assert figures["popularity_bias@10"] == pytest.approx(listed - before)


def test_popularity_bias_is_missing_where_nobody_has_a_history() -> None:
    figures = measured().all_slices()[0][CHALLENGER]["empty_history"]
    assert np.isnan(figures["popularity_bias@10"])
    assert figures["popularity_percentile@10"] > 0


def test_paired_is_the_difference_of_the_figures_within_its_interval() -> None:
    models, paired = measured().all_slices()
    assert list(paired) == ["ease"]
    for name in ("all", "warm", "cold_items", "cold_users"):
        pair = paired["ease"][name]
        difference = models[CHALLENGER][name]["ndcg@10"] - models["ease"][name]["ndcg@10"]
        assert pair["ndcg@10"] == pytest.approx(difference)
        assert pair["low"] <= difference <= pair["high"]


def test_a_model_is_not_different_from_its_copy() -> None:
    pair = Measured.of(question(), {CHALLENGER: GOOD, "champion": GOOD}).all_slices()[1]["champion"]["all"]
    assert pair == {"ndcg@10": 0, "low": 0, "high": 0}


def test_cold_items_have_an_interval_over_items_as_well() -> None:
    models, paired = measured().all_slices()
    cold = models[CHALLENGER]["cold_items"]
    assert cold["ndcg@10_item_low"] <= cold["ndcg@10"] <= cold["ndcg@10_item_high"]
    assert "item_low" in paired["ease"]["cold_items"]
    assert "ndcg@10_item_low" not in models[CHALLENGER]["all"]


def test_a_slice_without_points_has_no_figures() -> None:
    warm_only = replace(question(), points=data().test[:1])
    models, paired = Measured.of(warm_only, {CHALLENGER: GOOD[:1], "ease": POOR[:1]}).all_slices()
    empty = models["ease"]["cold_items"]
    assert (empty["users"], empty["points"]) == (0, 0)
    measures = [value for key, value in empty.items() if key not in ("users", "points")]
    assert measures
    assert np.isnan(measures).all()
    assert np.isnan(list(paired["ease"]["cold_items"].values())).all()


def test_without_a_challenger_nothing_is_paired() -> None:
    models, paired = Measured.of(question(), {"ease": POOR}).all_slices()
    assert list(models) == ["ease"]
    assert paired == {}


def test_short_lists_have_no_figures_beyond_their_length() -> None:
    figures = Measured.of(question(k=10), {CHALLENGER: GOOD}).all_slices()[0][CHALLENGER]["all"]
    assert "ndcg@10" in figures
    assert "ndcg@20" not in figures


def test_rows_of_buckets_add_up() -> None:
    rows = measured().rows(by_history_length(data().test), "bucket")["ease"]
    assert [row["bucket"] for row in rows] == ["0", "1-4", "5-19", "20-99", "100+"]
    assert [row["points"] for row in rows] == [2, 3, 0, 0, 0]
    assert set(rows[0]) == {
        "bucket", "users", "points", "ndcg@10", "ndcg@10_low", "ndcg@10_high",
        "recall@10", "recall@10_low", "recall@10_high",
    }  # fmt: skip


def test_coverage_asks_for_items_on_offer_at_one_of_the_moments() -> None:
    days = [toy_log.START + day * toy_log.DAY for day in (0, 6, 9, 0)]
    ends = [None, None, None, toy_log.START + 5 * toy_log.DAY]
    catalogue = toy_log.catalogue(list("abcd"), available_from=days, available_until=ends)
    assert on_offer_at(catalogue, np.array([toy_log.at(6), toy_log.at(5)])).tolist() == [1, 1, 0, 0]


# Groups of users, and the comparison that the gate reads


def many_users(count: int) -> Prepared:
    """One test point a user u00, u01, ...; one more user of train alone."""
    test = [(f"u{number:02}", "a", 5.0) for number in range(count)]
    return toy_log.prepared(ITEMS, [("old", "b", 0.0)], VALIDATION, test)


def test_groups_are_values_with_enough_test_users() -> None:
    made = many_users(50)
    people = pd.DataFrame({"user_id": [f"u{number:02}" for number in range(45)] + ["old", "nobody"]})
    people["sex"] = ["f"] * 25 + ["m"] * 20 + ["f", "f"]  # five test users have no row
    people["tier"] = [1] * 26 + [2] * 19 + [2, 2]  # 19 test users of tier 2, and one who has no point
    people["one"] = "same"
    people["many"] = [str(number) for number in range(47)]
    people["lists"] = [["x"], ["y"]] * 23 + [["x"]]
    people["empty"] = [None, *["a"] * 22, *["b"] * 22, None, None]
    found = user_groups(people, made.user_ids, made.test)
    assert list(found) == ["group:sex=f", "group:sex=m", "group:tier=1", "group:empty=a", "group:empty=b"]
    assert [int(mask[made.test.user].sum()) for mask in found.values()] == [25, 20, 26, 22, 22]
    assert all(mask.shape == made.user_ids.shape for mask in found.values())
    assert slices(made.test, found)["group:sex=f"].sum() == 25


def test_no_table_of_users_gives_no_group() -> None:
    made = many_users(3)
    assert user_groups(None, made.user_ids, made.test) == {}
    assert user_groups(pd.DataFrame({"user_id": ["u00"]}), made.user_ids, made.test) == {}


def test_comparison_by_hand() -> None:
    second, none = 1 / np.log2(3), np.full_like(POOR, -1)
    models = {CHALLENGER: GOOD, "champion": POOR, "recent_popularity": none}
    found = Measured.of(question(), models).comparison()
    assert (found["users"], found["points"]) == (4, 5)
    # Users u, x, y, z with 2, 1, 1, 1 points. Only y gets anything from the champion.
    weights = np.sqrt([2, 1, 1, 1])
    ours = weights @ [(1 + second) / 2, second, 1, 0] / weights.sum()
    theirs = second / weights.sum()
    everywhere = found["slices"]["all"]
    assert everywhere[CHALLENGER] == pytest.approx(ours)
    assert everywhere["champion"] == pytest.approx(theirs)
    assert everywhere["ndcg@10"] == pytest.approx(ours - theirs)
    assert everywhere["low"] <= everywhere["ndcg@10"] <= everywhere["high"]
    # Linearised: the error of a ratio of sums is the root of the summed squared residuals over the weights.
    residuals = weights * (np.array([(1 + second) / 2, second, 1 - second, 0]) - (ours - theirs))
    assert everywhere["error"] == pytest.approx(np.linalg.norm(residuals) / weights.sum(), rel=0.2)
    assert found["champion_over"]["recent_popularity"]["ndcg@10"] == pytest.approx(theirs)
    assert found["champion"]["coverage@10"] == pytest.approx(8 / 8)
    assert found["slices"]["warm"]["users"] == 1


def test_a_slice_without_points_compares_to_nothing() -> None:
    warm_only = replace(question(), points=data().test[:1])
    found = Measured.of(warm_only, {CHALLENGER: GOOD[:1], "champion": POOR[:1]}).comparison()
    cold = found["slices"]["cold_items"]
    assert (cold["users"], cold["points"]) == (0, 0)
    assert np.isnan([cold["ndcg@10"], cold["error"], cold["champion"]]).all()


def test_the_error_on_cold_items_is_the_larger_of_users_and_items() -> None:
    """Twelve users, all for the same cold item: among users no doubt, among items all of it."""
    test = [(f"u{number:02}", "e" if number < 11 else "f", 5.0) for number in range(12)]
    made = toy_log.prepared(ITEMS, [("old", "b", 0.0)], VALIDATION, test)
    asked = replace(question(), points=made.test)
    ours = np.repeat(lists("e"), 12, axis=0)
    found = Measured.of(asked, {CHALLENGER: ours, "champion": np.full_like(ours, -1)})
    by_users = found.difference(CHALLENGER, "champion", np.ones(12, bool))
    by_items = found.difference(CHALLENGER, "champion", np.ones(12, bool), by_items=True)
    assert by_users["ndcg@10"] == by_items["ndcg@10"] == pytest.approx(11 / 12)
    assert by_items["error"] > 2 * by_users["error"]


def test_points_and_models_can_be_taken_apart() -> None:
    whole = measured()
    part = whole.at(np.array([False, True, False, False, True]), CHALLENGER)
    assert list(part.accuracy) == [CHALLENGER]
    assert part.listed[CHALLENGER].tolist() == GOOD[[1, 4]].tolist()
    assert part.all_slices()[0][CHALLENGER]["all"]["points"] == 2
