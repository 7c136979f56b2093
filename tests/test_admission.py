"""A policy for places left to chance: played in a simulation, admitted where both answers agree, promoted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from gate_by_hand import SETTINGS, challenger, champion, decide, evaluation, failed, spoilt
from test_simulation import K, people

from pipeline.data.histories import Catalogue, Points
from pipeline.documents.model import Claim, Exploration
from pipeline.documents.simulation import LongTerm
from pipeline.errors import ArtifactError
from pipeline.evaluation.exploration import COLUMNS, FEATURES, PLACES, Draws, described, worths
from pipeline.evaluation.exploration import learned as learned_worths
from pipeline.models.artifacts import EXPLORATION, VERSION, exploration_in, folder_hash
from pipeline.simulation import command
from pipeline.simulation.command import Task, name_of, played
from pipeline.simulation.compare import JUDGED
from pipeline.simulation.exploring import TAKEN, answered, explored, noise_of, taken_a_place
from pipeline.simulation.loop import Past
from pipeline.simulation.step import Taken
from pipeline.simulation.world import World, build

WEIGHTS = {name: 0.125 * place for place, name in enumerate(COLUMNS)}


# What an impression says of its draws


def test_an_impression_names_what_drew_its_places() -> None:
    draws = Draws.by(WEIGHTS)
    assert draws is not None
    assert Draws.of(draws.model) == draws
    assert Draws.of(Draws().model) == Draws()
    features, scores = np.arange(8.0 * len(FEATURES)).reshape(8, -1) ** 2, np.r_[np.arange(7.0), -np.inf]
    told = learned_worths(draws.weights, described(scores, features), scores > -np.inf)
    np.testing.assert_array_equal(draws.worths(scores, features), told)
    np.testing.assert_array_equal(Draws().worths(scores), worths(scores))


@pytest.mark.parametrize(
    "model",
    [
        "interleaved:v2.0.0",
        "explored:",
        "explored:score=0.5",
        "explored:score=x,live_count=0,live_trend=0,live_age=0",
    ],
)
def test_a_name_without_weights_of_all_columns_says_nothing(model: str) -> None:
    assert Draws.of(model) is None


@pytest.mark.parametrize("weight", [1.5, None, float("nan")])
def test_weights_that_no_log_can_teach_are_none(weight: Any) -> None:
    assert Draws.by(WEIGHTS | {COLUMNS[0]: weight}) is None
    assert Draws.by(WEIGHTS | {"another": 0.1}) is None


# The simulation


@dataclass(frozen=True)
class Counting:
    """Ranks by a fixed number of each item, and tells how often it was taken as its live count."""

    name: str
    scores: np.ndarray
    count: np.ndarray

    def candidates(self, points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        shape = len(points), len(self.scores)
        yield np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape), np.broadcast_to(self.scores, shape)

    def live_features(self, _: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        found = np.zeros((*items.shape, len(names)), np.float32)
        found[..., names.index("live_count")] = self.count[np.maximum(items, 0)]
        return found


class Blind:
    """Trains nothing: all that its lists can learn is in the draws."""

    def train(self, past: Past, catalogue: Catalogue) -> Counting:
        items = len(catalogue)
        count = np.log1p(np.bincount(past.log.item, minlength=items)).astype(np.float32)
        return Counting("blind", np.random.default_rng(1).normal(size=items).astype(np.float32), count)


@pytest.fixture(scope="module")
def world() -> World:
    return build(people(repeats=True), 4, K, 7)


def draws(live_count: float) -> Draws:
    found = Draws.by({name: live_count if name == "live_count" else 0.0 for name in COLUMNS})
    assert found is not None
    return found


def test_places_of_a_loop_are_drawn_with_the_chances_of_the_service(world: World) -> None:
    model, policy = Blind().train(Past(world.log, np.zeros(0), 1), world.catalogue), draws(1.0)
    now = np.full(4_000, world.moment(0))
    points = world.log.points(np.zeros(4_000, np.int32), np.full(4_000, -1, np.int32), now)
    noise = np.random.default_rng(2).gumbel(size=(4_000, len(world.catalogue)))
    listed = explored(world, model, policy, points, world.order, noise)
    assert len(np.unique(listed[:, :-PLACES], axis=0)) == 1
    best = np.argsort(-model.scores)
    pool = best[world.available(0)[best]][K - PLACES :][:20]
    worth = policy.worths(model.scores[pool], model.live_features(points, pool, list(FEATURES)))
    first = Counter(listed[:, -PLACES].tolist())
    assert set(first) <= set(pool.tolist())
    for item, chance in zip(pool, worth / worth.sum(), strict=True):
        assert first[item] / 4_000 == pytest.approx(chance, abs=4 * np.sqrt(chance / 4_000))
    assert (listed[:, -1] != listed[:, -PLACES]).all()


def test_what_is_taken_of_drawn_places_by_hand() -> None:
    listed = np.array([[1, 2, 3], [1, 4, -1]])
    zero = np.zeros(4)
    taken = Taken(
        np.array([0, 0, 1, 1]), np.array([1, 3, 4, 2]), np.array([True, True, False, True]), zero, zero, zero
    )
    assert taken_a_place(listed, taken) == 1 / 3  # 1 stands above, 4 was taken beside the list


def test_a_simulation_tells_draws_that_people_like_from_those_that_they_do_not(world: World) -> None:
    ways = [None, Draws(), draws(1.0), draws(-1.0)]
    tasks = [Task("blind", number, way) for way in ways for number in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda pid: {0})  # in this process
        found = played(world, {"blind": Blind()}, tasks, 5, None)
    assert len(found) == len(tasks)
    loops = [[found[name_of(Task("blind", number, way))] for number in range(4)] for way in ways]
    assert TAKEN not in loops[0][0][0]
    good, bad = answered(loops[2], loops[1], draws(1.0)), answered(loops[3], loops[1], draws(-1.0))
    assert good.answer == "better"
    assert bad.answer != "better"
    assert good.learned is not None
    assert good.plain is not None
    assert bad.difference is not None
    assert bad.difference < 0
    assert good.difference == pytest.approx(good.learned - good.plain)
    assert {row.name for row in good.measures} >= {"diversity", "satisfaction"}
    assert answered(loops[1], loops[1], draws(0.0)).answer != "better"
    np.testing.assert_array_equal(noise_of(world, 1, 2, 3), noise_of(world, 1, 2, 3))


def loops_of(diversity: float, taken: float) -> list[list[dict[str, float]]]:
    """Of three replications that differ a little."""
    return [
        [dict.fromkeys(JUDGED, diversity + n / 1_000) | {TAKEN: taken + n / 1_000} for _ in range(4)]
        for n in np.random.default_rng(round(1_000 * taken)).random(3)
    ]


def test_a_policy_that_costs_variety_is_not_better() -> None:
    plain = loops_of(0.5, 0.05)
    assert answered(loops_of(0.5, 0.1), plain, draws(1.0)).answer == "better"
    assert answered(loops_of(0.3, 0.1), plain, draws(1.0)).answer == "not better"


# The gate


def policy(answer: str = "better", **changes: Any) -> dict[str, Any]:
    found = {"answer": answer, "difference": 0.02, "low": 0.01, "high": 0.03, "weights": WEIGHTS}
    off_policy = {
        "answer": "investigate",
        "difference": 0.0,
        "low": -0.1,
        "high": 0.1,
        "policy": found | changes,
    }
    return spoilt(evaluation(), "comparison", "off_policy", to=off_policy)


def simulated(answer: str = "better", weights: dict[str, float] = WEIGHTS, of: str = "c" * 64) -> LongTerm:
    found = {"answer": answer, "weights": weights, "difference": 0.02, "low": 0.01, "high": 0.03}
    return LongTerm.of({"challenger": of, "champion": "a" * 64, "exploration": found})


@pytest.mark.parametrize(
    ("evaluated", "simulation", "admitted"),
    [
        (policy(), simulated(), True),
        (policy(), None, False),
        (policy(), LongTerm(), False),
        (policy(), simulated("investigate"), False),
        (policy(), simulated("not better"), False),
        (policy("investigate"), simulated(), False),
        (policy("not better"), simulated(), False),
        (policy(), simulated(of="another"), False),
        (policy(), simulated(weights=dict.fromkeys(COLUMNS, 0.5)), False),
        (policy(weights=WEIGHTS | {"score": 9.0}), simulated(weights=WEIGHTS | {"score": 9.0}), False),
        (policy(weights={"score": 0.5}), simulated(weights={"score": 0.5}), False),
    ],
    ids=lambda value: "",
)
def test_a_policy_is_admitted_where_log_and_simulation_agree(
    evaluated: Any, simulation: Any, admitted: bool
) -> None:
    verdict = decide(evaluated, challenger(), champion(), SETTINGS, simulation)
    assert verdict.exploration is not None
    assert verdict.exploration.admitted is admitted
    assert failed(verdict) == []  # it holds up no promotion
    (check,) = [check for check in verdict.checks if check.name == "exploration"]
    assert verdict.exploration.text in check.text


def test_where_nothing_was_learned_of_this_challenger_nothing_is_said() -> None:
    of_another = spoilt(policy(), "artifact_hash", "challenger", to="d" * 64)
    for evaluated in (evaluation(), policy(weights={}), of_another, None):
        assert decide(evaluated, challenger(), champion(), SETTINGS, simulated()).exploration is None


def test_a_policy_is_due_to_be_simulated_until_it_was(tmp_path: Path) -> None:
    for name in ("challenger", "champion"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.json").write_text(json.dumps({"name": name}))
    toy.write_params(tmp_path / "params.yaml", toy.committed_params())
    one, other = (folder_hash(tmp_path / "models" / name) for name in ("challenger", "champion"))
    assert not command.is_due(tmp_path)
    (tmp_path / "reports").mkdir()
    evaluated = spoilt(policy(), "artifact_hash", to={"challenger": one, "champion": other})
    (tmp_path / "reports" / "evaluation.json").write_text(json.dumps(evaluated))
    assert command.is_due(tmp_path)
    for weights, due in ((WEIGHTS | {"score": 0.3}, True), (WEIGHTS, False)):
        found = simulated(weights=weights, of=one).but(champion=other)
        (tmp_path / "data").mkdir(exist_ok=True)
        found.write(tmp_path / "data" / "simulation.json")
        assert command.is_due(tmp_path) is due


# The registry


def test_a_file_that_no_version_brought_is_refused(tmp_path: Path) -> None:
    Claim(version="v1.0.0").write(tmp_path / VERSION)
    assert exploration_in(tmp_path) is None
    Exploration(artifact_hash="a", weights=WEIGHTS).write(tmp_path / EXPLORATION)
    with pytest.raises(ArtifactError):
        exploration_in(tmp_path)
