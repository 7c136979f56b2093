"""Candidates and pairs: what retrieves, what describes, how they are sampled, scored, saved and bound."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.special
import tiny
import toy_log
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.histories import Catalogue, Prepared, load_prepared
from pipeline.models import collaborative, nearest, pairs
from pipeline.models.asked import DISLIKED, Asked
from pipeline.models.baselines import HistoryScorer, ials, interactions, train_rows
from pipeline.models.candidates import union
from pipeline.models.collaborative import RETRIEVING
from pipeline.models.ranking import popularity_order, rank_points
from pipeline.models.recommender import Recommender, save
from pipeline.models.ridge import Ridge
from pipeline.models.text import FADING
from pipeline.params import Params
from pipeline.stages import preprocess
from pipeline.training import recipe, worth
from pipeline.training import scorer_task as scorer
from pipeline.training import split as splitting
from pipeline.training.sampling import Sample, Sizes, joined, sample
from pipeline.training.task import Run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, recipe.Trained]:
    """The tiny world of two tastes, trained once."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("parts")
    params = tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"))
    preprocess.main(tiny.raw(folder / "raw"), folder / "prepared", params)
    prepared, told = load_prepared(folder / "prepared"), Params.load(params)
    return prepared, recipe.train(
        prepared, Run(told.finetune, told.seed, folder / "checkpoints"), ablations=False
    )


def lists(model: Recommender, prepared: Prepared, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    order = popularity_order(model.popularity, prepared.catalogue.ids)
    return rank_points(model, prepared.test, prepared.catalogue, order, k)


def test_a_taste_is_learned_from_candidates(world: tuple[Prepared, recipe.Trained]) -> None:
    prepared, trained = world
    listed, _ = lists(trained.models["challenger"], prepared, 4)
    known = prepared.test.lengths > 2
    taste = prepared.test.user % 2
    right = (listed % 2 == taste[:, None])[known]
    assert right.mean() > 0.7


@pytest.mark.parametrize("strengths", [(30.0, 0.1), (0.1, 30.0)])
def test_ials_is_fitted_as_strongly_as_validation_prefers(
    world: tuple[Prepared, recipe.Trained], monkeypatch: pytest.MonkeyPatch, strengths: tuple[float, ...]
) -> None:
    prepared, _ = world
    log, points, items = prepared.log, prepared.validation, len(prepared.catalogue)
    monkeypatch.setattr(collaborative, "IALS_REGULARISATIONS", strengths)
    monkeypatch.setattr(collaborative, "MOST_JUDGED", len(points))
    chosen = collaborative.choose(log, train_rows(log), points, items, 1)
    met = interactions(log, train_rows(log, chosen.positives_only), items)

    def quality(regularisation: float) -> float:
        factors = ials(met, collaborative.IALS_FACTORS, regularisation, collaborative.IALS_ALPHA, 1)
        scores = HistoryScorer("ials", items, factors.score, RETRIEVING, DISLIKED).score(points)
        gains: dict[int, list[float]] = {}
        for row, (user, target) in enumerate(zip(points.user, points.target, strict=True)):
            scores[row, log.item[points.start[row] : points.stop[row]]] = np.nan
            rank = (scores[row] >= scores[row, target]).sum()
            gains.setdefault(user, []).append(1 / np.log2(1 + rank) if 0 < rank <= 10 else 0)
        return float(np.mean([np.mean(each) for each in gains.values()]))

    found = {regularisation: quality(regularisation) for regularisation in strengths}
    assert len(set(found.values())) == 2
    assert found[chosen.ials_regularisation] == max(found.values())
    assert collaborative.Settings.of(chosen.told()) == chosen


def test_saved_and_loaded_it_lists_the_same(world: tuple[Prepared, recipe.Trained], tmp_path: Path) -> None:
    prepared, trained = world
    model = trained.models["challenger"]
    save(tmp_path / "model", {"features": model.card["features"], "max_length": 16}, model, trained.encoder)
    again = Recommender.load(tmp_path / "model", prepared.catalogue.items, prepared.log)
    first, second = lists(model, prepared), lists(again, prepared)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first[1], second[1], rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "model" / "model.json").read_text())["user_tower"] == "gru"


def test_bound_to_a_larger_catalogue_known_items_keep_their_scores(
    world: tuple[Prepared, recipe.Trained], tmp_path: Path
) -> None:
    prepared, trained = world
    model = trained.models["challenger"]
    save(tmp_path / "model", {"features": model.card["features"], "max_length": 16}, model, trained.encoder)
    new = prepared.catalogue.items.head(1).assign(item_id="a new one", item_text="red thing number 99")
    catalogue = Catalogue.of(pd.concat([prepared.catalogue.items, new], ignore_index=True))
    place = catalogue.index(prepared.catalogue.ids)
    log = replace(prepared.log, item=place[prepared.log.item])
    larger = Recommender.load(tmp_path / "model", catalogue.items, log)
    # Columns of the same pairs; those relative to the other candidates differ as candidates do.
    points = prepared.test[:5]
    asked = Asked(points, len(prepared.catalogue))
    items = np.tile(np.arange(6, dtype=np.int32), (5, 1))
    before = model.parts.columns(asked, items)
    moved = Asked(log.points(points.user, place[points.target], points.time), len(catalogue))
    after = larger.parts.columns(moved, place[items])
    assert set(before) == set(after)
    for name in ("ease_5", "ials_5", "live_0", "live_count", "text_5", "sequence", "cold", "neighbours"):
        np.testing.assert_allclose(before[name], after[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_nothing_of_a_points_moment_or_later_is_in_candidates_or_columns(
    world: tuple[Prepared, recipe.Trained],
) -> None:
    prepared, trained = world
    model = trained.models["challenger"]
    point = prepared.test[:1]
    log, moment = prepared.log, int(point.time[0])
    earlier = log.time < moment
    counts = np.bincount(log.user[earlier], minlength=len(log.indptr) - 1)
    rows = ("user", "item", "time", "value", "positive", "fit", "window")
    cut = replace(log, **{name: getattr(log, name)[earlier] for name in rows})
    cut = replace(cut, indptr=np.r_[0, np.cumsum(counts)])
    living = type(model.parts.living).of(
        cut, prepared.catalogue, model.parts.living.live.half_lives, model.parts.collaborative.ials
    )
    past = replace(model.parts, living=living)
    asked = Asked(point, len(prepared.catalogue))
    asked_past = Asked(cut.points(point.user, point.target, point.time), len(prepared.catalogue))
    items = model.parts.candidates(asked)
    np.testing.assert_array_equal(items, past.candidates(asked_past))
    with_future, without = model.parts.columns(asked, items), past.columns(asked_past, items)
    for name, column in with_future.items():
        np.testing.assert_allclose(column, without[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_text_columns_fade_with_the_rows_of_an_item(world: tuple[Prepared, recipe.Trained]) -> None:
    prepared, trained = world
    parts = trained.models["challenger"].parts
    asked = next(parts.ask(prepared.test))
    items, ials = parts.candidates(asked), parts.collaborative.users(asked)[5]
    assert parts.text is not None
    cold = parts.collaborative.cold
    none = parts.text.columns(asked, items, ials, cold, np.zeros(items.shape))
    nine = parts.text.columns(asked, items, ials, cold, np.full(items.shape, np.log1p(9)))
    assert any(column.any() for column in none.values())
    for name, column in none.items():
        np.testing.assert_allclose(nine[name], column * 10**-FADING, rtol=1e-5)
    taken = parts.columns(asked, items)
    known = taken["live_count"] > 0
    assert (np.abs(taken["text_mean"]) <= np.abs(none["text_mean"]) * 2**-FADING + 1e-6)[known].all()


def test_a_frozen_state_stands_still(world: tuple[Prepared, recipe.Trained]) -> None:
    prepared, trained = world
    model = trained.models["challenger"]
    still = model.with_state(prepared.train_end + 1, "frozen_state")
    asked = Asked(prepared.test[-1:], len(prepared.catalogue))
    items = np.arange(len(prepared.catalogue), dtype=np.int32)[None]
    count = still.parts.columns(asked, items)["live_count"][0]
    expected = np.bincount(prepared.log.item[prepared.log.window == 0], minlength=len(prepared.catalogue))
    np.testing.assert_allclose(np.expm1(count), expected, rtol=1e-5)


def test_candidates_are_unique_on_offer_and_not_taken_before() -> None:
    world = toy_log.prepared(list("abcdef"), [("u", "a", 0), ("v", "b", 1), ("u", "c", 2)])
    points = world.log.points(np.zeros(1, np.int32), np.array([3], np.int32), np.array([toy_log.at(3)]))
    retrieved = {
        "one": np.array([[0, 1, 3, -1]], np.int32),
        "two": np.array([[3, 4, 1, 5]], np.int32),
    }
    items = union(retrieved, points, world.catalogue, 3)
    # a was taken; of the rest each retriever's best come first: d (first of two), b and e (second), f.
    assert items.tolist() == [[3, 1, 4]]


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_cells_are_looked_up_as_in_the_dense_matrix(seed: int) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.random((4, 9)) * (generator.random((4, 9)) < 0.4)
    items = generator.integers(-1, 9, (4, 6)).astype(np.int32)
    found = pairs.lookup(sp.csr_matrix(dense), items)
    expected = np.where(items >= 0, np.take_along_axis(dense, np.maximum(items, 0), axis=1), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_greatest_products_in_blocks_are_the_greatest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 7)
    generator = np.random.default_rng(1)
    users, vectors = generator.normal(size=(3, 5)), generator.normal(size=(40, 5)).astype(np.float32)
    allowed = np.arange(40) % 3 > 0
    best = nearest.Nearest(vectors, allowed).best(users, 6)
    scores = np.where(allowed, users.astype(np.float32) @ vectors.T, -np.inf)
    np.testing.assert_array_equal(best, np.argsort(-scores, axis=1)[:, :6])


def test_in_a_large_catalogue_nearly_all_of_the_nearest_are_found_in_their_order() -> None:
    generator = np.random.default_rng(3)
    users = generator.normal(size=(9, 33)).astype(np.float32)
    vectors = generator.normal(size=(30_000, 33)).astype(np.float32)  # without clusters: the hardest
    allowed = np.arange(len(vectors)) % 10 > 0
    search = nearest.Nearest(vectors, allowed)
    assert search._rounded is not None
    best, scores = search.best(users, 50), np.where(allowed, users @ vectors.T, -np.inf)
    expected = np.argsort(-scores, axis=1)[:, :50]
    assert np.mean([np.isin(*pair).mean() for pair in zip(expected, best, strict=True)]) >= 0.98
    assert (np.diff(np.take_along_axis(scores, best, axis=1), axis=1) <= 1e-4).all()
    assert allowed[best].all()
    again = nearest.Nearest(vectors, allowed)
    np.testing.assert_array_equal(np.concatenate([again.best(user[None], 50) for user in users]), best)


def test_where_rounded_vectors_miss_too_many_every_product_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nearest, "WIDER", (1,))  # as many as are wanted: some are missed
    generator = np.random.default_rng(3)
    users = generator.normal(size=(2, 12)).astype(np.float32)
    vectors = generator.normal(size=(25_000, 12)).astype(np.float32)
    search = nearest.Nearest(vectors, np.ones(len(vectors), bool))
    assert search._rounded is None
    np.testing.assert_array_equal(search.best(users, 50), np.argsort(-(users @ vectors.T), axis=1)[:, :50])


def test_of_many_scores_the_largest_are_found_and_of_equal_ones_the_first() -> None:
    generator = np.random.default_rng(4)
    for size in (3, 100, 6_399, 70_001):
        scores = generator.integers(0, 50 if size < 1000 else 20_000, (5, size)).astype(np.float32)
        scores[:, : size // 3] = -np.inf
        scores[0] = generator.integers(0, 3, size)
        np.testing.assert_array_equal(
            pairs.largest(scores, 50), np.argsort(-scores, axis=1, kind="stable")[:, :50]
        )


def test_sums_are_those_of_the_product() -> None:
    generator = np.random.default_rng(2)
    matrix = sp.random_array((9, 7), density=0.4, rng=generator, format="csr", dtype=np.float32)
    weight = generator.random((2, 4, 9)).astype(np.float32) * (generator.random((2, 4, 9)) < 0.5)
    weight[:, 2] = 0  # a point without rows
    point, row = np.nonzero(weight.any(axis=0))
    column = generator.integers(-1, 7, (4, 6))
    expected = np.take_along_axis(weight @ matrix.toarray(), np.maximum(column, 0)[None], axis=2)
    for sums, of in ((pairs.sums_at, sp.csr_matrix(matrix.T)), (pairs.sums_from, matrix)):
        found = sums(of, point, row, weight[:, point, row], column)
        np.testing.assert_allclose(found, np.where(column >= 0, expected, 0), rtol=1e-5)


def test_standardised_over_the_candidates_alone() -> None:
    items = np.array([[0, 1, 2, -1]], np.int32)
    column = np.array([[1.0, 3.0, 9.0, 5.0]])
    inside = pairs.standardised(column, items, width=2)
    np.testing.assert_allclose(inside, [[-1, 1, 2**0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("most", [6, 500])
def test_random_items_stand_for_no_more_than_there_are_candidates(
    world: tuple[Prepared, recipe.Trained], most: int
) -> None:
    prepared, trained = world
    parts = replace(trained.models["challenger"].parts, most=most)
    points = prepared.validation[:8]
    _, drawn = sample(parts, list(parts.ask(points)), None, Sizes(2, 3, 30), np.random.default_rng(0))
    stands_for = np.where(drawn.log_weight > -1e8, np.exp(drawn.log_weight), 0)
    found = np.concatenate([parts.candidates(asked) for asked in parts.ask(points)])
    taken, listed = (found == points.target[:, None]).any(axis=1), (found >= 0).sum(axis=1)
    excluded = np.array(
        [len(np.unique(prepared.log.item[a:b])) for a, b in zip(points.start, points.stop, strict=True)]
    )
    others = len(prepared.catalogue) - excluded - listed - ~taken
    np.testing.assert_allclose(stands_for[:, -30:].sum(axis=1), np.minimum(others, listed), rtol=1e-5)
    assert (others > listed).any() == (most == 6)
    assert (drawn.log_weight[:, 0] == 0).all()  # the item taken


def test_candidates_stand_for_candidates_and_unanswered_points_weigh_little(
    world: tuple[Prepared, recipe.Trained],
) -> None:
    prepared, trained = world
    parts = replace(trained.models["challenger"].parts, most=12)
    points = prepared.validation
    _, drawn = sample(parts, list(parts.ask(points)), None, Sizes(2, 3, 9), np.random.default_rng(0))
    found = np.concatenate([parts.candidates(asked) for asked in parts.ask(points)])
    taken = (found == points.target[:, None]).any(axis=1)
    stands_for = np.where(drawn.log_weight > -1e8, np.exp(drawn.log_weight), 0)
    listed = (found >= 0).sum(axis=1) - taken
    np.testing.assert_allclose(stands_for[:, 1:6].sum(axis=1), listed, rtol=1e-5)
    assert (stands_for[:, 1:3] <= 1).all()  # the hardest stand for themselves
    assert 0 < taken.sum() < len(points)
    share = np.where(taken, 1, 0.01)
    of_user = np.bincount(points.user, share)[points.user]
    np.testing.assert_allclose(drawn.weight, share / of_user**0.5, rtol=1e-5)
    twice = joined([drawn, drawn])  # of two cuts, each point keeps its weight
    np.testing.assert_array_equal(twice.weight, np.tile(drawn.weight, 2))


def drawn_sample(count: int, weights: list[float], seed: int) -> Sample:
    """Points whose taken item follows a conditional logit with these weights."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 12, len(weights)))
    utility = features @ np.array(weights) + generator.gumbel(size=(count, 12))
    taken = utility.argmax(axis=1)
    first = features[:, 0].copy()
    features[:, 0] = features[np.arange(count), taken]
    features[np.arange(count)[taken > 0], taken[taken > 0]] = first[taken > 0]
    return Sample(features.astype(np.float16), np.zeros((count, 12), np.float32), np.ones(count, np.float32))


def test_the_linear_part_finds_the_weights_that_made_the_data() -> None:
    made = [1.5, -0.7, 0.0]
    names = ["a", "b", "c"]
    linear = scorer.prior_scorer(names, drawn_sample(3000, made, 0))
    told = scorer.fit_linear(linear, names, drawn_sample(3000, made, 0), drawn_sample(1000, made, 1))
    found = (linear.linear.weight[0] / linear.deviation).detach().numpy()
    np.testing.assert_allclose(found, made, atol=0.12)
    assert told["linear_loss"] < told["blend_loss"]


def test_with_nothing_to_learn_the_blend_remains() -> None:
    names = ["ease_5", "noise"]
    linear = scorer.prior_scorer(names, drawn_sample(8, [0.4, 0.0], 0))
    told = scorer.fit_linear(linear, names, drawn_sample(8, [0.4, 0.0], 3), drawn_sample(4000, [0.4, 0.0], 1))
    assert abs(float(linear.linear.weight.detach()[0, 1])) < 0.3
    assert told["linear_loss"] <= told["blend_loss"]


def crossed(count: int, strength: float, seed: int) -> Sample:
    """What is taken follows a product of two features, which no linear part can say."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 12, 2))
    utility = features[..., 0] + strength * features.prod(axis=2) + generator.gumbel(size=(count, 12))
    taken = utility.argmax(axis=1)
    every = np.arange(count)
    features[every, 0], features[every, taken] = features[every, taken], features[:, 0].copy()
    return Sample(features.astype(np.float16), np.zeros((count, 12), np.float32), np.ones(count, np.float32))


@pytest.mark.parametrize(("later", "least", "most"), [(2.0, 0.8, 1.0), (0.8, 0.2, 0.7), (-1.0, 0.0, 0.0)])
def test_of_a_correction_that_share_is_kept_which_still_holds(
    tmp_path: Path, later: float, least: float, most: float
) -> None:
    run = Run(Params.load(Path("params.yaml")).finetune, 1, tmp_path)
    learned, judged = crossed(3000, 2.0, 0), crossed(1000, later, 1)
    found, told = scorer.fit_scorer(run, "scorer", ["a", "b"], learned, judged)
    assert least <= told["mlp_share"] <= most
    assert told["mlp_loss"] < told["linear_loss"] or told["mlp_share"] == told["scorer_epochs"] == 0
    likely = np.log(scipy.special.softmax(found.score(judged.features.astype(np.float32)), axis=1)[:, 0])
    assert -likely.mean() == pytest.approx(min(told["mlp_loss"], told["linear_loss"]), abs=1e-4)


def test_ridge_predicts_known_items_out_of_fold() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 4))
    y = np.c_[x @ [1.0, -2, 0, 0.5], generator.normal(size=60)]
    known = np.arange(60) < 50
    model, found = Ridge.fit(x, y, known)
    assert np.corrcoef(found[~known, 0], y[~known, 0])[0, 1] > 0.95
    # The second target is noise: out of fold nothing is explained.
    assert abs(np.corrcoef(found[known, 1], y[known, 1])[0, 1]) < 0.5
    again = Ridge.of(model.arrays())
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_without_rows_every_item_is_alike_and_nothing_fails(tmp_path: Path) -> None:
    """A catalogue of two items and a log of two rows: too little for anything."""
    world = toy_log.prepared(list("ab"), [("u", "a", 0), ("v", "b", 1)], [("u", "b", 2)], [("v", "a", 3)])
    texts = world.catalogue.items.assign(item_text="")
    world = replace(world, catalogue=Catalogue.of(texts))
    run = Run(Params.load(Path("params.yaml")).finetune, 1, tmp_path)
    rows = recipe.split(world, 1)
    base = recipe.Base.fit(world, rows, recipe.Settings(False, 300.0), 1, recipe.Serving())
    model, told = base.model(run, "challenger", None, None)
    listed, _ = lists(model, world, 2)
    assert told["scorer_epochs"] == 0
    assert listed.tolist() == [[0, -1]]
    assert np.isfinite(model.scorer.linear).all()


@pytest.mark.parametrize(
    ("points", "people", "cuts"),
    [(1, 1, 1), (10**9, 1, 4), (1, 10**9, 4)],
    ids=["enough", "points", "people"],
)
def test_few_points_or_people_behind_a_cut_are_joined_by_those_of_earlier_ones(
    world: tuple[Prepared, recipe.Trained],
    monkeypatch: pytest.MonkeyPatch,
    points: int,
    people: int,
    cuts: int,
) -> None:
    monkeypatch.setattr(splitting, "ENOUGH_POINTS", points)
    monkeypatch.setattr(splitting, "ENOUGH_PEOPLE", people)
    prepared, _ = world
    found = recipe.split(prepared, 1)
    assert len(found.cuts) == cuts
    behind = [cut.later.time for cut in found.cuts]
    for cut, later in zip(found.cuts, behind, strict=True):
        assert prepared.log.time[cut.inner].max() < later.min()
    assert all(one.max() < other.min() for one, other in itertools.pairwise(behind))
    assert found.scorer_points == sum(map(len, behind))
    assert np.concatenate(behind).max() <= prepared.train_end


@pytest.mark.slow
def test_further_signals_are_trained_saved_and_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "FEWEST_USERS", 2)
    monkeypatch.setattr(worth, "LEAST", -np.inf)
    raw = tiny.raw(tmp_path / "raw", texts=False)
    items = pd.read_parquet(raw / "items.parquet")
    taste = np.arange(len(items)) % 2
    items["look_vector"] = [[float(side), float(1 - side), 0.1] for side in taste]
    items["graph_entities"] = [[f"maker {side}", "everybody"] for side in taste]
    items["graph_relations"] = [["made by", "of"]] * len(items)
    items.to_parquet(raw / "items.parquet", index=False)
    params = tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder"))
    preprocess.main(raw, tmp_path / "prepared", params)
    prepared, told = load_prepared(tmp_path / "prepared"), Params.load(params)
    trained = recipe.train(prepared, Run(told.finetune, told.seed, tmp_path / "runs"), ablations=False)
    judged = trained.summary["signals"]
    assert isinstance(judged, dict)
    assert set(judged) == {"graph", "look"}
    model = trained.models["challenger"]
    kept = {name for name, row in judged.items() if row["kept"]}
    assert kept
    assert {
        name for name in ("graph", "look") if any(name in column for column in model.card["features"])
    } == kept
    save(tmp_path / "model", {"features": model.card["features"], "max_length": 16}, model, trained.encoder)
    again = Recommender.load(tmp_path / "model", prepared.catalogue.items, prepared.log)
    np.testing.assert_array_equal(lists(model, prepared)[0], lists(again, prepared)[0])
    told = [
        reason
        for of_point in again.reasons(prepared.test, lists(again, prepared)[0])
        for of_item in of_point
        for reason in of_item
    ]
    assert any(reason.startswith("look like that of") for reason in told) == ("look" in kept)
    bare = prepared.catalogue.items.drop(columns=["look_vector", "graph_entities", "graph_relations"])
    without = Recommender.load(tmp_path / "model", bare, prepared.log)
    assert (lists(without, prepared)[0] >= 0).any()
    assert lists(again, prepared)[0].tolist() != lists(without, prepared)[0].tolist()
