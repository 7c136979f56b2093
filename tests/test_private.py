"""Differential privacy of whole users: the accounting, the clip, what a private model holds and hides."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny
import toy
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from pipeline.data.histories import Prepared, load_prepared
from pipeline.documents.model import Card
from pipeline.errors import ConfigError
from pipeline.models.pretrained import identify
from pipeline.models.private import (
    FACTS,
    Budget,
    Released,
    axes_of,
    counts,
    delta_of,
    most_auc,
    no_facts,
    pairs,
    public_facts,
    taken,
    with_noise,
)
from pipeline.models.recommender import Recommender
from pipeline.params import Params
from pipeline.stages import finetune, preprocess
from pipeline.training import private
from pipeline.training.recipe import Serving
from pipeline.training.task import Run

ITEMS = 12


def users(number: int, seed: int = 0) -> sp.csr_matrix:
    chosen = np.random.default_rng(seed).random((number, ITEMS)) < 0.4
    chosen[:, 0] |= ~chosen.any(axis=1)
    return sp.csr_matrix(chosen.astype(np.float64))


def _upper(sums: np.ndarray) -> np.ndarray:
    return sums if sums.ndim == 1 else np.triu(sums)


# The accounting -------------------------------------------------------------------------------------------


def test_noise_is_that_of_the_analytic_gaussian_mechanism() -> None:
    assert 1 / Budget(1.0, 1e-5).mu == pytest.approx(3.7306, abs=1e-4)  # the classical bound asks for 4.84
    for epsilon in (0.1, 0.5, 1, 2, 4, 8, 50):
        budget = Budget(epsilon, 1e-6)
        assert delta_of(budget.mu, epsilon) == pytest.approx(1e-6, rel=1e-6)
        assert sum(s**-2 for s in budget.noise) == pytest.approx(budget.mu**2)  # the split spends all of it
    assert Budget(math.inf, 1e-6).noise == (0, 0)


@pytest.mark.parametrize("epsilon", [1, 4])
def test_a_second_accountant_agrees(epsilon: float) -> None:
    pld = pytest.importorskip("dp_accounting.privacy_loss_distribution").PrivacyLossDistribution
    budget = Budget(epsilon, 1e-5)
    one, two = (
        pld.from_gaussian_mechanism(deviation, value_discretization_interval=1e-2)
        for deviation in budget.noise
    )
    found = one.compose(two).get_epsilon_for_delta(1e-5)
    assert epsilon - 1e-3 <= found <= epsilon * 1.04  # its discretisation rounds up


# The clip --------------------------------------------------------------------------------------------------


def axes(x: sp.csr_matrix, kept: np.ndarray, deviation: float) -> np.ndarray:
    """Some of the kept items alone, the others by facts that anybody knows."""
    facts = np.random.default_rng(5).random((ITEMS, 3))
    return axes_of(counts(x), kept, deviation, facts)


@pytest.mark.parametrize("deviation", [0.0, 0.15, 10.0])
def test_no_user_moves_a_sum_by_more_than_one(deviation: float) -> None:
    x, kept = users(40), np.arange(2, 9, dtype=np.int32)
    along = axes(x, kept, deviation)
    for user in range(x.shape[0]):
        others = sp.csr_matrix(x[[u for u in range(x.shape[0]) if u != user]])
        moved = np.triu(pairs(x[:, kept], along) - pairs(others[:, kept], along))
        assert np.linalg.norm(counts(x) - counts(others)) <= 1 + 1e-9
        assert np.linalg.norm(moved) <= 1 + 1e-9


def test_sums_of_parts_of_the_users_are_those_of_all() -> None:
    x = users(30)
    along = axes(x, np.arange(ITEMS, dtype=np.int32), 0.2)
    assert counts(x) == pytest.approx(counts(x[:11]) + counts(x[11:]))
    assert pairs(x, along) == pytest.approx(pairs(x[:11], along) + pairs(x[11:], along))


def test_an_item_has_an_axis_of_its_own_where_its_count_exceeds_the_noise() -> None:
    noisy, kept = np.array([90.0, 1.0, 50.0, 2.0, 4.0]), np.array([0, 2, 3, 4], np.int32)
    facts = np.array([[0.0], [1.0], [0.0], [1.0], [0.0]])
    found = axes_of(noisy, kept, 1.0, facts)
    assert found.T @ found == pytest.approx(np.eye(found.shape[1]))
    assert found[:2] == pytest.approx(np.eye(2, found.shape[1]))  # 90 and 50 exceed ALONE = 30 deviations
    assert found.shape[1] == 4  # what is left: how much is taken, and that times the fact
    one = axes_of(noisy, kept, 20.0, no_facts(5))  # how much each is taken
    assert np.abs(one[:, 0]) == pytest.approx(noisy[kept] / np.linalg.norm(noisy[kept]))
    assert np.array_equal(axes_of(noisy, kept, 0.0, facts), np.eye(4))  # without noise nothing is lost


def test_public_facts_say_what_is_known_of_items_and_nothing_else(prepared: Prepared) -> None:
    catalogue, texts = prepared.catalogue, np.eye(len(prepared.catalogue), 40, dtype=np.float32)
    bare, found = public_facts(catalogue, None), public_facts(catalogue, texts)
    assert len(bare) == len(found) == len(catalogue)
    assert found.shape[1] == FACTS
    assert np.array_equal(found[:, : bare.shape[1]], bare)
    assert np.isfinite(found).all()


def test_who_knows_everybody_else_tells_a_member_as_well_as_the_budget_lets_and_no_better() -> None:
    """The strongest attack there is takes away what the others gave, and looks along what the user gave."""
    x, budget, generator = users(20), Budget(2.0, 1e-3), np.random.default_rng(3)
    kept = np.arange(ITEMS, dtype=np.int32)
    alike = int(np.diff(x.indptr).argmax())
    others = sp.csr_matrix(x[np.arange(20) != alike])
    along = axes(x, kept, 0.1)
    with_user, without = (counts(x), pairs(x, along)), (counts(others), pairs(others, along))
    given = [one - other for one, other in zip(with_user, without, strict=True)]
    assert np.linalg.norm(np.triu(given[1])) == pytest.approx(1)
    scores = [
        sum(
            (_upper(with_noise(total, noise, generator) - other) * _upper(mine)).sum() / noise**2
            for total, other, mine, noise in zip(totals, without, given, budget.noise, strict=True)
        )
        for totals in (with_user, without)
        for _ in range(2000)
    ]
    auc = roc_auc_score(np.repeat([1, 0], 2000), scores)
    assert auc == pytest.approx(most_auc(budget.mu), abs=0.03)


# A private model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    tiny.raw(folder / "raw")
    params = tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"))
    identify(str(folder / "encoder")).write(folder / "encoder.json")
    preprocess.main(folder / "raw", folder / "prepared", params)
    return folder


@pytest.fixture(scope="module")
def prepared(world: Path) -> Prepared:
    return load_prepared(world / "prepared")


def train(world: Path, folder: Path, epsilon: float | None, **changes: object) -> Path:
    """models/challenger of the stage."""
    content = toy.committed_params()
    base = Params.load(world / "params.yaml").model_dump(mode="json")
    content["finetune"] = base["finetune"] | {"privacy": {"epsilon": epsilon, "delta": 1e-3}} | changes
    content["preprocess"] = base["preprocess"]
    params = toy.write_params(folder / "params.yaml", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outputs = map(Path, ("models/challenger", "models/ablations", "reports/training"))
        finetune.main(world / "prepared", world / "encoder.json", *outputs, params=params)
    return folder / "models/challenger"


def test_a_private_model_holds_nothing_outside_its_budget(world: Path, tmp_path: Path) -> None:
    model = train(world, tmp_path, 1000.0, refresh_of="v1.0.0")  # in full: no champion is asked for
    files = {path.relative_to(model).parts[0] for path in model.rglob("*") if path.is_file()}
    assert files == {"model.json", "items.parquet", "parts.safetensors", "encoder"}
    card = Card.read(model / "model.json")
    assert card.privacy is not None
    assert (card.privacy.epsilon, card.privacy.delta) == (1000.0, 1e-3)
    assert card.data_hash is None  # who has all other rows could check a guess
    assert card.refresh_of is None
    assert not {"train_rows", "scorer_points", "challenger_validation_ndcg@10"} & set(card.training)
    told = json.loads((tmp_path / "reports/training/summary.json").read_text())
    assert told["challenger_validation_ndcg@10"] is not None
    arrays = load_file(model / "parts.safetensors")
    assert not arrays["collaborative.rules.data"].size
    assert not arrays["collaborative.value"].any()
    assert not [name for name in arrays if name.startswith(("sequence", "sentiment"))]
    given, kept = (
        load_file(world / "encoder/model.safetensors"),
        load_file(model / "encoder/model.safetensors"),
    )
    assert all(np.allclose(given[key], kept[key].astype(np.float32), atol=1e-3) for key in kept)  # as it came


def test_the_seed_does_not_give_the_noise_away(world: Path, prepared: Prepared, tmp_path: Path) -> None:
    context = Run(Params.load(world / "params.yaml").finetune, 1, tmp_path)
    one, two = (
        private.train_privately(prepared, context, Budget(1000, 1e-3), Serving()).models["challenger"]
        for _ in range(2)
    )
    assert not np.array_equal(one.popularity, two.popularity)


@pytest.mark.parametrize("epsilon", [0.01, 1000.0])
def test_lists_do_not_move_with_what_others_do(
    world: Path, prepared: Prepared, tmp_path: Path, epsilon: float
) -> None:
    model, items = train(world, tmp_path, epsilon), prepared.catalogue.items
    log, user = prepared.log, int(prepared.test.user[0])
    own = log.user == user
    other = replace(log, item=np.where(own, log.item, (log.item + 5) % len(items)).astype(np.int32))
    found = []
    for known in (log, other):
        asked = Recommender.load(model, items, known)
        point = known.points(np.array([user], np.int32), np.array([-1], np.int32), np.array([prepared.now]))
        listed, scores = next(asked.candidates(point))
        found.append((listed, scores, asked.reasons(point, listed[:, :5])))
    assert found[0][0].shape[1] > 0
    assert np.isfinite(found[0][1]).any()
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_texts_that_name_tags_of_users_are_refused(prepared: Prepared) -> None:
    items = prepared.catalogue.items
    settings = Params.load(Path("params.yaml")).finetune
    wanted = settings.model_copy(update={"privacy": settings.privacy.model_copy(update={"epsilon": 1.0})})
    tagged = items.assign(tags=pd.Series([["funny"]] * len(items), items.index))
    with_tags = replace(prepared, catalogue=replace(prepared.catalogue, items=tagged))
    private.check(with_tags, settings, "{title} {tags}")
    private.check(with_tags, wanted, "{title}")
    private.check(prepared, wanted, "{title} {tags}")
    with pytest.raises(ConfigError, match=r"finetune\.privacy: preprocess\.item_text names \{tags\}"):
        private.check(with_tags, wanted, "{title} {tags}")


def test_a_delta_that_gives_a_user_away_is_refused(prepared: Prepared) -> None:
    users = len(np.unique(prepared.log.user))
    settings = Params.load(Path("params.yaml")).finetune
    for delta, fits in ((0.5 / users, True), (1 / users, False)):
        told = settings.privacy.model_copy(update={"epsilon": 1.0, "delta": delta})
        wanted = settings.model_copy(update={"privacy": told})
        with nullcontext() if fits else pytest.raises(ConfigError, match=r"finetune\.privacy\.delta"):
            private.check(prepared, wanted, "{title}")


def test_a_group_cannot_be_erased_under_a_budget(prepared: Prepared) -> None:
    settings = Params.load(Path("params.yaml")).finetune.model_copy(update={"erase": "gender"})
    private.check(prepared, settings, "{title}")
    wanted = settings.model_copy(update={"privacy": settings.privacy.model_copy(update={"epsilon": 1.0})})
    with pytest.raises(ConfigError, match=r"finetune\.privacy: finetune\.erase"):
        private.check(prepared, wanted, "{title}")


def test_taste_survives_a_wide_budget(prepared: Prepared) -> None:
    """Users of tiny's world take items of one colour."""
    rows = prepared.log.fit
    x = taken(prepared.log, rows, len(prepared.catalogue))
    found = Released.of(x, Budget(math.inf, 1e-3)).collaborative()
    weights, colour = (
        found.ease.score(sp.eye_array(len(prepared.catalogue), format="csr")),
        found.ease.kept % 2,
    )
    weights = weights[found.ease.kept][:, found.ease.kept]
    same = colour[:, None] == colour
    assert weights[same].sum() > weights[~same].sum()


def test_facts_of_items_save_the_taste_where_noise_drowns_the_pairs() -> None:
    """Users take items of one half; with a fact that tells the halves, a small budget still shows it."""
    generator, half = np.random.default_rng(0), np.arange(60) % 2
    x = sp.csr_matrix(
        (generator.random((300, 60)) < np.where(np.arange(300)[:, None] % 2 == half, 0.4, 0.1)) * 1.0
    )
    gaps = []
    for facts in (half[:, None].astype(np.float64), None):
        of_draws = []
        for draw in range(5):
            released = Released.of(x, Budget(1.0, 1e-5), facts, np.random.default_rng(draw))
            ease = released.collaborative().ease
            matrix, kind = np.asarray(sp.csr_matrix(ease.matrix).toarray()), half[ease.kept]
            same = kind[:, None] == kind
            of_draws.append(matrix[same].mean() - matrix[~same].mean() if len(kind) else 0.0)
        gaps.append(min(of_draws))
    assert gaps[0] > 0
    assert gaps[0] > gaps[1]
