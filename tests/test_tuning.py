from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy_log
from constant import ConstantScorer

from pipeline.data.histories import Prepared
from pipeline.evaluation import tuning
from pipeline.evaluation.tuning import Settings, fit_baselines, sample, tune
from pipeline.models import baselines
from pipeline.models.baselines import Scorer

ITEMS = [f"i{number:02d}" for number in range(12)]


def world(test: int = 3) -> Prepared:
    """Two tastes; users go on with their own."""
    rows = [
        (f"u{u:02d}", ITEMS[(u % 2 + 2 * step) % 12], float(10 * step + u))
        for u in range(12)
        for step in range(6)
    ]
    rows.sort(key=lambda row: row[2])
    tastes = [["x"] if number % 2 else ["y"] for number in range(12)]
    catalogue = toy_log.catalogue(ITEMS, categories=tastes)
    return toy_log.prepared(catalogue, rows[:50], rows[50:62], rows[62 : 62 + test], disliked=rows[3:50:9])


def build(settings: Settings) -> Scorer:
    return ConstantScorer(str(settings), np.zeros(1))


def quality_of(scores: dict[str, float]) -> Any:
    return lambda scorer: scores.get(scorer.name, 0.0)


def test_tune_takes_the_best_of_each_setting_in_turn() -> None:
    scores = {
        "{'a': 1, 'b': 1}": 0.1,
        "{'a': 2, 'b': 1}": 0.3,
        "{'a': 2, 'b': 5}": 0.4,
        "{'a': 1, 'b': 5}": 0.2,
    }
    found = tune(build, {"a": (1, 2), "b": (1, 5)}, quality_of(scores))
    assert found.settings == {"a": 2, "b": 5}
    assert found.validation == 0.4
    assert found.scorer.name == "{'a': 2, 'b': 5}"


def test_tune_keeps_the_first_value_where_nothing_can_be_told_apart() -> None:
    grid = {"a": (3, 1, 2)}
    assert tune(build, grid, quality_of({})).settings == {"a": 3}
    assert tune(build, grid, lambda scorer: np.nan).settings == {"a": 3}


def test_a_second_round_reconsiders_the_first_setting() -> None:
    scores = {"{'a': 1, 'b': 2}": 0.2, "{'a': 2, 'b': 2}": 0.3}
    grid = {"a": (1, 2), "b": (1, 2)}
    assert tune(build, grid, quality_of(scores), rounds=1).settings == {"a": 1, "b": 2}
    assert tune(build, grid, quality_of(scores), rounds=2).settings == {"a": 2, "b": 2}


def test_every_baseline_is_fitted_under_its_own_name() -> None:
    data = world()
    fitted = fit_baselines(data, np.eye(12, dtype=np.float32), seed=1)
    assert list(fitted) == [
        "popularity", "recent_popularity", "item_knn", "ease", "ials", "content", "frozen_encoder",
    ]  # fmt: skip
    for name, found in fitted.items():
        assert found.scorer.name == name
        assert found.scorer.score(data.test).shape == (len(data.test), 12)
        assert 0 <= found.validation <= 1


def test_models_of_taste_beat_popularity_where_there_is_taste() -> None:
    fitted = fit_baselines(world(), None, seed=1)
    assert "frozen_encoder" not in fitted
    for name in ("item_knn", "ease", "ials", "content"):
        assert fitted[name].validation > fitted["popularity"].validation


def test_what_happens_after_train_is_not_fitted() -> None:
    data = world()
    other = data.log.item.copy()
    other[data.log.window > 0] = 7
    changed = replace(data, log=replace(data.log, item=other))
    # The settings are pinned, so that only what is fitted could differ.
    for name, prepare in {
        "ease": tuning._ease,
        "item_knn": tuning._item_knn,
    }.items():
        build_one, grid = prepare(data)
        build_two, _ = prepare(changed)
        settings = {key: values[0] for key, values in grid.items()}
        points = data.test  # histories of the unchanged log for both
        np.testing.assert_array_equal(
            build_one(settings).score(points), build_two(settings).score(points), name
        )


def test_settings_that_change_nothing_are_not_tried() -> None:
    data = world()
    every = replace(data, log=replace(data.log, positive=np.ones(len(data.log), bool)))
    grid = tuning._worthwhile(every, tuning.EASE)
    assert grid["positives_only"] == (True,)
    assert grid["disliked_weight"] == (1.0,)
    assert grid["half_life"] == tuning.EASE["half_life"]
    assert tuning._worthwhile(data, tuning.EASE) == tuning.EASE


def test_large_data_have_shorter_grids_of_what_must_be_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LARGE_ROWS", 20)
    grid = tuning._worthwhile(world(), tuning.EASE)
    assert grid["regularisation"] == tuning.EASE["regularisation"][:3]
    assert grid["half_life"] == tuning.EASE["half_life"]


def test_sample_is_a_fixed_part_of_the_validation_points() -> None:
    data = world()
    chosen = sample(data, 5)
    assert len(chosen) == 5
    assert (np.diff(chosen.time) >= 0).all()
    np.testing.assert_array_equal(chosen.time, sample(data, 5).time)
    # Drawn by what a point is, not by where it stands.
    turned = replace(data, validation=data.validation[np.arange(len(data.validation))[::-1]])
    assert set(sample(turned, 5).time) == set(chosen.time)
    assert len(sample(data)) == len(data.validation)


def test_no_validation_points_leave_the_first_settings() -> None:
    data = world()
    fitted = fit_baselines(replace(data, validation=data.validation[:0]), None, seed=1)
    assert fitted["ease"].settings == {key: values[0] for key, values in tuning.EASE.items()}
    assert np.isnan(fitted["ease"].validation)


@pytest.mark.parametrize("unfit", [True, False], ids=["nobody to fit on", "one user"])
def test_hardly_any_data_does_not_break_the_baselines(unfit: bool) -> None:
    data = toy_log.prepared(
        list("ab"), [("u", "a", 0)], [("u", "b", 1)], [("v", "b", 2)], unfit=["u"] if unfit else []
    )
    for found in fit_baselines(data, np.zeros((2, 3), np.float32), seed=1).values():
        assert found.scorer.score(data.test).shape == (1, 2)


def test_frozen_order_is_by_popularity_in_train() -> None:
    data = world()
    counts = baselines.popularity(data.log, baselines.train_rows(data.log), 12)
    assert (np.diff(counts[np.argsort(tuning.frozen_order(data))]) <= 0).all()


def test_who_takes_the_same_again_is_known_by_the_own_history_where_repeats_count() -> None:
    rows = [(user, item, day) for day in range(12) for user, item in (("u", "i01"), ("v", "i02"))]
    rows += [("u", "i03", 3.5), ("v", "i03", 3.5)]
    rows.sort(key=lambda row: row[2])
    data = toy_log.prepared(ITEMS, rows[:14], rows[14:20], rows[20:])
    assert "own_history" not in fit_baselines(data, None, 1)
    log = replace(data.log, repeats=True)
    points = {name: replace(getattr(data, name), log=log) for name in ("validation", "test")}
    fitted = fit_baselines(replace(data, log=log, **points), None, 1)
    assert fitted["own_history"].validation == 1
    scores = fitted["own_history"].scorer.score(points["test"])
    assert np.nanargmax(scores, axis=1).tolist() == points["test"].target.tolist()
    assert np.isnan(scores[:, 0]).all()
