"""Cold items: what texts let expect of them, how scorers see some, and what they may cost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.bench import cold as bench
from pipeline.data.histories import TRAIN, Points, Prepared, load_prepared
from pipeline.models import cold, fusing
from pipeline.models.baselines import train_rows
from pipeline.models.features import Inputs, Matrix, fit_inputs
from pipeline.models.networks import FusionScorer, SequenceTower
from pipeline.models.recommender import Recommender
from pipeline.models.sampling import FEWEST, Sizes, hidden_items, hidden_samples
from pipeline.models.training import target_ndcg
from pipeline.stages import preprocess

ITEMS = tiny.ITEMS
TASTE = np.eye(2, dtype=np.float32)[np.arange(ITEMS) % 2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("cold")
    settings = tiny.params(folder / "params.yaml", folder)
    preprocess.main(tiny.raw(folder / "raw"), folder / "prepared", settings)
    return load_prepared(folder / "prepared")


@pytest.fixture(scope="module")
def inputs(prepared: Prepared) -> Inputs:
    rows = train_rows(prepared.log)
    met = np.bincount(prepared.log.item[rows], minlength=ITEMS) > 0
    fitted = fit_inputs(prepared.log, rows, prepared.catalogue, Matrix(False, 10.0), 1)
    return fitted.with_text(TASTE, SequenceTower(met, TASTE).eval())


def test_ridge_finds_a_line_and_never_asks_an_item_about_itself() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3))
    y = x @ np.array([[2.0], [-1.0], [0.5]]) + 7
    known = np.arange(200) < 150
    np.testing.assert_allclose(cold.ridge(x, y, known)[~known], y[~known], atol=0.1)
    wrong = y.copy()
    wrong[3] += 1000
    moved = cold.ridge(x, wrong, known)[3] - cold.ridge(x, y, known)[3]
    assert abs(float(moved[0])) < 30  # only by the mean and the penalty that is chosen
    few = cold.ridge(x, y, np.arange(200) < 5)
    np.testing.assert_allclose(few, np.repeat(y[:5].mean(axis=0, keepdims=True), 200, axis=0))


def test_neighbours_are_known_others_of_like_text() -> None:
    text = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1], [0, 0]], np.float32)
    near = cold.text_neighbours(text, np.array([True, True, False, True, True])).toarray()
    assert (near.diagonal() == 0).all()
    assert (near[[2, 4]] == 0).all()  # the unknown one and the one without text lend nothing
    np.testing.assert_allclose(near[:, :4].sum(axis=0), 1, atol=1e-6)
    assert (near[:, 4] == 0).all()
    assert near[1, 0] > 0.99  # not itself


def test_hidden_items_look_like_those_that_train_never_had(prepared: Prepared, inputs: Inputs) -> None:
    mask = np.zeros(ITEMS, bool)
    mask[[2, 3]] = True
    hidden, points = inputs.hide(mask), prepared.test[:8]
    columns, before = hidden.columns(points), inputs.columns(points)
    assert list(columns) == list(before)
    assert (columns["cold"][0, mask] == 1).all()
    assert (columns["ease_raw"][:, mask] == 0).all()
    for name in ("popularity", "item_age", "item_liked"):
        assert (columns[name][0, mask] == 0).all()
    assert hidden.imputed is not None
    assert hidden.imputed.neighbours[mask].nnz == 0
    np.testing.assert_array_equal(columns["text_5"], before["text_5"])
    np.testing.assert_array_equal(columns["popularity"][0, ~mask], before["popularity"][0, ~mask])
    # What its text lets expect: the taste's items lend it their scores.
    met = np.flatnonzero(points.lengths > 0)
    own = points.log.item[points.stop[met] - 1] % 2
    told = columns["imputed_ease"]
    assert (told[met, 2 + own] > told[met, 3 - own]).all()
    assert inputs.columns(points)["ease_raw"].any()  # the original is as it was


def test_a_fifth_of_the_items_is_hidden_once_in_five_folds() -> None:
    count = np.r_[np.zeros(5), np.full(5, FEWEST - 1), np.full(50, FEWEST)]
    masks = hidden_items(count, 0.2, np.random.default_rng(0))
    assert (sum(mask.astype(int) for mask in masks) == (count >= FEWEST)).all()
    assert [int(mask.sum()) for mask in hidden_items(count, 0.3, np.random.default_rng(0))] == [15] * 5


def test_samples_hold_hidden_targets_at_the_share_asked_for(prepared: Prepared, inputs: Inputs) -> None:
    points = prepared.log.successes(train_rows(prepared.log))
    found = hidden_samples({"a": inputs}, points, np.random.default_rng(0), Sizes(6, 6, 2), 0.2)["a"]
    place = list(inputs.columns(points[:1])).index("cold")
    target = found.features[np.arange(len(points)), found.target, place]
    assert 0.1 < target.mean() < 0.3
    # Every candidate that may be taken stands for at least itself; together they stand for the catalogue.
    stands_for = np.where(found.log_weight > -1e8, np.exp(found.log_weight), 0).sum(axis=1)
    np.testing.assert_allclose(stands_for, ITEMS - points.lengths, atol=1.5)


def test_gains_by_shift_are_those_of_shifted_scores(prepared: Prepared) -> None:
    points: Points = prepared.test
    scores = np.random.default_rng(0).normal(size=(len(points), ITEMS)).astype(np.float32)
    cold_items, shifts = np.arange(ITEMS) % 3 == 0, np.array([-20.0, 0.0, 0.7, 3.0])
    found = fusing.gains_by_shift(scores, points, cold_items, shifts)
    for place, shift in enumerate(shifts):
        wanted = target_ndcg(scores + np.float32(shift) * cold_items, points, 10)
        np.testing.assert_allclose(found[:, place], wanted)


@pytest.fixture
def model(prepared: Prepared, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> Recommender:
    """With a scorer of newcomers that knows texts, and a few constants to choose from."""
    monkeypatch.setattr(fusing, "SHIFTS", np.array([-20.0, -1, 0, 0.5, 1, 2]))
    names = list(inputs.columns(prepared.test[:1]))
    plain, newcomers = FusionScorer(len(names)), FusionScorer(len(names))
    plain.linear.weight.data[0, names.index("ease_5")] = 1
    newcomers.linear.weight.data[0, names.index("text_5")] = 1
    return Recommender("m", {"features": names}, prepared.catalogue, inputs, plain, None, newcomers)


def test_a_handful_of_users_cannot_raise_newcomers(prepared: Prepared, model: Recommender) -> None:
    points = prepared.validation
    assert len(np.unique(points.user)) < fusing.FEWEST_USERS
    models, _ = fusing.settle({"m": model}, points, 1.0, {})  # any price is right
    assert models["m"].cold_shift == 0


@pytest.mark.parametrize("budget", [0.0, 0.02, 1.0])
def test_newcomers_cost_no_more_than_the_budget(
    prepared: Prepared, model: Recommender, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "FEWEST_USERS", 1)
    points = prepared.validation
    models, figures = fusing.settle({"m": model}, points, budget, {})
    shift = models["m"].cold_shift
    assert figures["m_cold_shift"] == shift

    def quality(shift: float) -> float:
        gain = target_ndcg(replace(model, cold_shift=shift).score(points), points, 10)
        place = np.unique(points.user, return_inverse=True)[1]
        return float((np.bincount(place, gain) / np.bincount(place)).mean())

    none = quality(-20)
    assert quality(shift) >= (1 - budget) * none - 1e-6
    assert figures["m_validation_ndcg@10"] == pytest.approx(quality(shift), abs=1e-5)
    larger = fusing.SHIFTS[shift < fusing.SHIFTS]
    assert all(quality(float(other)) < (1 - budget) * none + 1e-6 for other in larger)


def test_what_is_held_out_leaves_train_alone(prepared: Prepared) -> None:
    held = bench.held_out(prepared, seed=1)
    assert held.sum() == round(0.2 * (np.bincount(prepared.log.item, minlength=ITEMS) >= 5).sum())
    log = bench.without_train_rows(prepared.log, held)
    assert not held[log.item[log.window == TRAIN]].any()
    later = prepared.log.window != TRAIN
    np.testing.assert_array_equal(log.item[log.window != TRAIN], prepared.log.item[later])
    assert log.indptr[-1] == len(log)
    assert not np.array_equal(held, bench.held_out(prepared, seed=2))


def test_summary_of_ranks_by_hand(prepared: Prepared) -> None:
    points = replace(
        prepared.test[:4], user=np.array([0, 0, 1, 1], np.int32), target=np.array([0, 1, 2, 3], np.int32)
    )
    is_cold, held = np.arange(ITEMS) < 2, np.arange(ITEMS) == 0
    whole, plain = np.array([1, 11, 3, 20]), np.array([20, 20, 1, 20])
    ranks = bench.Ranks(whole, plain, whole, plain, np.array([2, 0, 1, 1]), np.array([0.5, 0.1, 0.1, 0.3]))
    found = bench.summary(ranks, points, is_cold, held, 0)
    assert found["cold_hit_rate"] == 0.5
    assert found["cold_hit_rate_without"] == 0
    assert found["true_newcomers_hit_rate"] == 0
    assert found["true_newcomers_points"] == 1
    assert found["ndcg"] == pytest.approx((1 / 2 + 1 / np.log2(4) / 2) / 2)
    assert found["ndcg_change"] == pytest.approx((0.5 + 0.25) / 2 / 0.25 - 1)
    assert (found["cold_slots_of_10"], found["cold_mass"], found["cold_share"]) == (1, 0.25, 0.5)


def test_the_bench_runs_on_a_tiny_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder"))
    preprocess.main(tiny.raw(tmp_path / "raw"), tmp_path / "prepared", settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "SEEDS", 1)
    found = bench.run(tmp_path / "prepared")
    assert set(found) == {"name", "conditions", "figures", "ratios", "findings"}
    assert found["ratios"]["cold_points"] > 0
    assert 0 <= found["ratios"]["cold_mass"] <= 1
