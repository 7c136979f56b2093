"""Fairness to groups of users and items: by hand, and how often equal and unfair models are told apart."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.data.histories import Catalogue
from pipeline.data.item_groups import Grouping, by_popularity, groupings
from pipeline.documents.fairness import Fairness, Lost
from pipeline.evaluation.fairness import ATTENTION, apart, awrf, calibration, compare, fairness
from pipeline.evaluation.fairness_verdict import verdict
from pipeline.evaluation.figures import Question
from pipeline.evaluation.probe import area_error, guessed

ITEMS = list("abcdefgh")
KINDS = {"a": ["x"], "b": ["x"], "c": ["x", "y"], "d": ["y"], "e": ["y"], "f": ["y"], "g": [], "h": ["x"]}
USERS = 60


def catalogue() -> Catalogue:
    return Catalogue.of(pd.DataFrame({"item_id": ITEMS, "categories": [KINDS[item] for item in ITEMS]}))


def question(points: int = USERS, groups: dict[str, np.ndarray] | None = None) -> Question:
    """One point a user; the target is `a` for even users, `d` for odd ones."""
    test = [(f"u{number:03}", "ad"[number % 2], 5.0) for number in range(points)]
    train = [("old", "b", 0.0), ("old", "a", 1.0), ("new", "a", 2.0)]
    made = toy_log.prepared(ITEMS, train, [("old", "d", 4.0)], test)
    counts = np.array([2, 1, 0, 0, 0, 0, 0, 0], float)
    vectors, order = np.zeros((8, 1)), np.arange(8, dtype=np.int32)
    masks = {name: np.r_[np.zeros(2, bool), mask] for name, mask in (groups or {}).items()}  # new, old
    return Question(made.test, catalogue(), counts, order, vectors, 10, 200, 3, masks)


def lists(*texts: str) -> np.ndarray:
    return np.array([([ITEMS.index(item) for item in text] + [-1] * 10)[:10] for text in texts], np.int32)


# Groups of items --------------------------------------------------------------------------------------------


def test_an_item_of_two_categories_is_half_of_each_and_one_of_none_counts_nowhere() -> None:
    found = groupings(catalogue(), np.array([5.0, 1, 1, 9, 0, 0, 0, 0]))["categories"]
    assert found.names == ["y", "x"]  # the larger one first
    shares = found.exposure(lists("cg", "ad", "g"), np.array([1.0, 0.5]))
    assert shares[0] == pytest.approx([0.5, 0.5])
    assert shares[1] == pytest.approx([1 / 3, 2 / 3])
    assert np.isnan(shares[2]).all()


def test_popularity_parts_the_items_of_train_and_sets_cold_ones_apart() -> None:
    found = by_popularity(np.array([0.0, *range(1, 11)]))
    assert found.names == ["top tenth", "next four tenths", "lower half", "cold"]
    assert found.shares.toarray()[:-1].argmax(axis=1).tolist() == [3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0]


def test_the_smaller_providers_stand_together() -> None:
    names = [f"p{number:02}" for number in range(30)]
    frame = pd.DataFrame({"item_id": names, "provider": names, "year": [1980 + n for n in range(30)]})
    found = groupings(Catalogue.of(frame), np.arange(30, dtype=float))
    assert len(found["provider"].names) == 20
    assert found["provider"].names[0] == "p29"
    assert found["provider"].names[-1] == "others"
    assert found["provider"].shares.sum() == 30
    assert np.asarray(found["age"].shares.sum(axis=0)).ravel().tolist() == [8, 7, 7, 8]


def test_attention_equal_to_what_was_taken_is_fair() -> None:
    assert awrf(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 1
    assert awrf(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == pytest.approx(0.25)


# Figures ----------------------------------------------------------------------------------------------------


def test_a_list_of_the_users_own_mix_is_calibrated() -> None:
    log = [("u", item, float(place)) for place, item in enumerate("abdef")]
    made = toy_log.prepared(ITEMS, log, [("v", "a", 6.0)], [("u", "h", 9.0), ("w", "a", 9.0)])
    own = groupings(catalogue(), np.ones(8))["categories"]
    found = calibration(made.test, lists("c", "c"), own)
    # Two of x, three of y; the list is half of each, blurred by a hundredth of the user's own.
    mix = np.array([0.4, 0.6])
    assert found[0] == pytest.approx((mix * np.log(mix / (0.99 * 0.5 + 0.01 * mix))).sum())
    assert np.isnan(found[1])  # w has no history
    assert (
        calibration(made.test, lists("ad" + "e", "a"), own)[0]
        < calibration(made.test, lists("a", "a"), own)[0]
    )


def test_the_worst_group_stands_first() -> None:
    women = np.arange(USERS) < 25
    asked = question(
        groups={"group:sex=f": women, "group:sex=m": ~women, "group:few=1": np.arange(USERS) < 3}
    )
    ndcg = np.where(women, 0.1, 0.4) + 0.001 * (np.arange(USERS) % 7)
    listed = {"challenger": lists(*["ad"] * USERS)}
    found = fairness(asked, listed, {"challenger": ndcg}, ["challenger"])
    Fairness.of(found)
    first, second = found["users"]
    assert (first["group"], second["group"]) == ("sex=f", "sex=m")
    assert first["gap"] == pytest.approx(ndcg[women].mean() - ndcg[~women].mean())
    assert first["low"] < first["gap"] < first["high"] < 0
    assert first["p"] < 0.001
    shown = found["exposure"]["categories"]
    # Every list: a (x) before d (y); taken were half of each.
    x = ATTENTION[0] / ATTENTION[:2].sum()
    assert shown["awrf"]["challenger"]["value"] == pytest.approx(1 - abs(x - 0.5))
    assert {row["group"]: row["relevance"] for row in shown["groups"]} == pytest.approx({"x": 0.5, "y": 0.5})


def test_without_groups_of_users_items_alone_are_told_of() -> None:
    found = fairness(question(), {"c": lists(*["ad"] * USERS)}, {"c": np.ones(USERS)}, ["c"])
    assert found["users"] == []
    assert set(found["exposure"]) == {"popularity", "categories"}


def test_two_equal_sides_and_weights_by_hand() -> None:
    values, mine = np.array([1.0, 3.0, 2.0, 2.0]), np.array([True, True, False, False])
    gap, error, freedom = apart(values, np.ones(4), mine)
    assert (gap, error, freedom) == pytest.approx((0, 1, 1))  # variance 2 of two values, and none
    assert apart(values, np.array([3.0, 1, 1, 1]), mine)[0] == pytest.approx(-0.5)


# Against the champion ---------------------------------------------------------------------------------------


WOMEN = np.arange(USERS) < 25


@cache
def asked_of_both() -> Question:
    return question(groups={"group:sex=f": WOMEN, "group:sex=m": ~WOMEN})


def rows_of(gain: np.ndarray, base: float = 0.15) -> list[Lost]:
    """Of two models with equal lists of which one gains so much at each user's point."""
    same = lists(*["ad"] * len(gain))
    return [Lost.of(row) for row in compare(asked_of_both(), same, same, gain, np.full(len(gain), base))]


def judged(gain: np.ndarray) -> str:
    return verdict(rows_of(gain), 0.1)[2].partition(":")[0]


def luck(generator: np.random.Generator) -> np.ndarray:
    """Differences of two equal models: mostly none, at times a whole hit more or less."""
    return generator.choice([-0.6, -0.3, 0, 0.3, 0.6], USERS, p=[0.05, 0.1, 0.7, 0.1, 0.05])


def test_equal_models_are_hardly_ever_refused_and_a_harmed_group_is() -> None:
    generator = np.random.default_rng(1)
    equal = [judged(luck(generator)) for _ in range(100)]
    assert equal.count("fails") <= 8  # .05 and one and a half standard errors
    harmed = [judged(luck(generator) - 0.3 * WOMEN) for _ in range(20)]
    assert harmed.count("fails") >= 15


def test_a_group_that_gains_less_than_the_others_is_looked_at() -> None:
    gain = np.where(WOMEN, 0.02, 0.3) + 0.01 * (np.arange(USERS) % 3)
    assert judged(gain) == "investigate"
    assert judged(gain - 0.1) == "fails"
    assert verdict(rows_of(gain - 0.1), None)[0]  # told only


def test_the_same_model_passes() -> None:
    rows = rows_of(np.zeros(USERS))
    assert [row.lost for row in rows] == pytest.approx([0.0] * len(rows), abs=1e-12)
    passed, value, text = verdict(rows, 0.1)
    assert (passed, value) == (True, pytest.approx(0, abs=1e-12))
    assert text == f"passes: none of {len(rows)} comparisons surely loses more than 10%"


def test_attention_that_leaves_what_is_taken_fails() -> None:
    asked = question()
    good, bad = lists(*["ad", "da"] * (USERS // 2)), lists(*["abh"] * USERS)
    nothing = np.zeros(USERS)
    rows = {
        row["kind"]: Lost.of(row)
        for row in compare(asked, bad, good, nothing, nothing)
        if row["name"] == "categories"
    }
    assert rows["exposure"].lost == pytest.approx(0.5, abs=0.01)
    assert rows["exposure"].p is not None
    assert rows["exposure"].p < 0.01
    assert not verdict(list(rows.values()), 0.1)[0]


@pytest.mark.parametrize("spoilt", [{"lost": None}, {"p": None}])
def test_figures_that_are_missing_fail(spoilt: dict[str, Any]) -> None:
    row = rows_of(np.zeros(USERS))[0]
    passed, _, text = verdict([row.but(**spoilt)], 0.1)
    assert not passed
    assert "no usable figures" in text


def test_groupings_of_nothing_known_are_none() -> None:
    bare = Catalogue.of(pd.DataFrame({"item_id": ITEMS, "categories": [[] for _ in ITEMS]}))
    assert set(groupings(bare, np.ones(8))) == {"popularity"}
    assert isinstance(groupings(bare, np.ones(8))["popularity"], Grouping)


# The probe --------------------------------------------------------------------------------------------------


def test_lists_that_follow_a_group_give_it_away_and_equal_lists_do_not() -> None:
    asked = asked_of_both()
    telling = lists(*["ad" if woman else "he" for woman in WOMEN])
    first = guessed(asked, telling)[0]
    assert (first["group"], first["users"], first["base_rate"]) == ("sex=f", 25, pytest.approx(25 / 60))
    assert first["auc"] == pytest.approx(1)
    assert first["p"] < 1e-6
    same = guessed(asked, lists(*["ad"] * USERS))[0]
    assert same["low"] < 0.5 < same["high"]
    assert same["p"] > 0.05
    assert np.isnan(same["histories"])  # nobody has one


def test_the_error_of_an_area_by_hand() -> None:
    # Hanley & McNeil 1982: AUC .5, one against one: .5 * .5
    assert area_error(0.5, 1, 1) == pytest.approx(0.5)
    q1, q2 = 0.8 / 1.2, 2 * 0.64 / 1.8
    assert area_error(0.8, 10, 20) == pytest.approx(
        np.sqrt((0.16 + 9 * (q1 - 0.64) + 19 * (q2 - 0.64)) / 200)
    )


def test_columns_withheld_from_models_group_items() -> None:
    withheld = pd.DataFrame({"item_id": ITEMS[:4], "owner": ["big", "big", "small", None]})
    found = groupings(catalogue(), np.ones(8), withheld)["owner"]
    assert found.names == ["big", "small"]
    assert np.asarray(found.shares.sum(axis=0)).ravel().tolist() == [2, 1]
