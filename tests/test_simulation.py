"""Simulated users, their loops, and what the gate makes of them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy_log
from gate_by_hand import SETTINGS, challenger, champion, decide, evaluation, failed
from waiting import PATIENCE_SECONDS

from pipeline.data.histories import Catalogue, Prepared, make_log
from pipeline.documents.promotion import Promotion
from pipeline.documents.simulation import Calibration, LongTerm, Simulation
from pipeline.errors import DataError
from pipeline.evaluation.long_term_verdict import verdict
from pipeline.loop.history import HISTORY, Account
from pipeline.loop.steps import Loop
from pipeline.registry.records import VERDICT
from pipeline.simulation import choice, command, measures, page
from pipeline.simulation.calibration import calibrate
from pipeline.simulation.command import Task, name_of, played
from pipeline.simulation.compare import compared, curves
from pipeline.simulation.loop import Past, run
from pipeline.simulation.step import Chance, State, feel, take
from pipeline.simulation.strategies import Ease, RichGetRicher
from pipeline.simulation.world import Behaviour, World, build, with_rows

USERS, ITEMS, K = 60, 40, 5


def people(repeats: bool = False) -> Prepared:
    """Users of two tastes: the even and the odd items, the lower numbers more popular."""
    generator = np.random.default_rng(3)
    rows = []
    for user in range(USERS):
        own = np.arange(user % 2, ITEMS, 2)
        chance = 1 / (own + 2)
        taken = generator.choice(own, 9, replace=repeats, p=chance / chance.sum())
        days = np.sort(generator.random(9) * 100)
        rows += [(f"u{user:02}", f"i{item:02}", day) for item, day in zip(taken, days, strict=True)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "day"]).sort_values("day")
    frame["timestamp"] = toy_log.START + pd.to_timedelta(frame.pop("day"), unit="D")
    frame = frame.assign(value=np.nan, positive=True, fit=True)
    catalogue = Catalogue.of(pd.DataFrame({"item_id": [f"i{item:02}" for item in range(ITEMS)]}))
    user_ids = np.unique(frame["user_id"].to_numpy(dtype=object))
    log = make_log([frame], catalogue, user_ids, repeats)
    nothing = log.points(*(np.zeros(0, kind) for kind in (np.int32, np.int32, np.int64)))
    return Prepared(catalogue, user_ids, log, nothing, nothing, np.zeros(0, object))


@pytest.fixture(scope="module")
def world() -> World:
    return build(people(), 4, K, 7)


@pytest.fixture(scope="module")
def again() -> World:
    return build(people(repeats=True), 4, K, 7)


def listed(world: World) -> np.ndarray:
    return np.tile(np.arange(K), (len(world.users), 1))


def same(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return all(
        np.array_equal(list(a.values()), list(b.values()), True) for a, b in zip(one, other, strict=True)
    )


# The world


def test_likelier_items_are_those_of_ones_taste(world: World) -> None:
    own = np.arange(USERS) % 2
    scores = world.tastes.scores(world.tastes.users)
    even = scores[:, 0::2].mean(axis=1) - scores[:, 1::2].mean(axis=1)
    assert ((even > 0) == (own == 0)).mean() > 0.9
    assert world.choice.taste > 0
    assert world.choice.again is None


def test_new_items_are_not_in_the_log_that_loops_begin_with_and_enter_later(world: World) -> None:
    new = np.flatnonzero(world.enters)
    assert len(new) == 4
    assert not np.isin(world.log.item, new).any()
    assert not world.available(0)[new].any()
    assert world.available(2)[new].all()


def test_too_few_users_are_an_error_with_a_remedy() -> None:
    few = people()
    few = replace(few, log=replace(few.log, indptr=few.log.indptr[:10]))
    with pytest.raises(DataError, match="a simulation needs"):
        build(few, 4, K, 7)


def test_rows_of_a_round_go_into_the_log_in_order_of_user_and_time(world: World) -> None:
    log = with_rows(
        world.log, np.array([5, 0]), np.array([1, 2]), np.array([world.start, world.start + 1]), 4.0
    )
    assert len(log) == len(world.log) + 2
    assert log.indptr[-1] == len(log)
    assert (np.diff(log.user) >= 0).all()
    assert all((np.diff(log.time[a:b]) >= 0).all() for a, b in zip(log.indptr, log.indptr[1:], strict=False))
    assert log.item[log.indptr[1] - 1] == 2
    assert log.value[log.indptr[1] - 1] == 4


# A round


def test_lists_of_new_things_hold_nothing_that_was_had(again: World) -> None:
    model = Ease(1, new_only=True).train(Past(again.log, np.zeros(ITEMS), 1), again.catalogue)
    points = again.log.points(again.users, again.users, np.full(len(again.users), again.start, np.int64))
    point, row = points.rows()
    assert np.isnan(model.score(points)[point, again.log.item[row]]).all()


def test_nobody_takes_again_what_they_had_nor_what_is_not_yet_there(world: World) -> None:
    state = State.of(world)
    before = state.met.copy()
    taken = take(world, state, listed(world), 0, Chance.of(world, 1, 0, 0))
    assert len(taken.item)
    assert not before[taken.user, taken.item].any()
    assert len(np.unique(taken.user * ITEMS + taken.item)) == len(taken.item)
    assert not np.isin(taken.item, np.flatnonzero(world.enters)).any()
    assert np.isin(taken.item[taken.listed], np.arange(K)).all()


def test_with_repeats_what_was_had_is_taken_too_and_of_a_list_each_item_once(again: World) -> None:
    state = State.of(again)
    again = replace(again, rate=again.rate * 10)
    taken = take(again, state, listed(again), 0, Chance.of(again, 1, 0, 0))
    assert again.choice.again is not None
    assert taken.known.any()
    pairs = (taken.user * ITEMS + taken.item)[taken.listed]
    assert len(np.unique(pairs)) == len(pairs)


def test_the_first_place_is_taken_more_often_than_the_last(world: World) -> None:
    flat = replace(
        world, appeal=np.zeros(ITEMS, np.float32), choice=replace(world.choice, taste=0.0, mood=0.0)
    )
    counts = np.zeros(K)
    for number in range(20):
        state = State.of(flat)
        state.met[:] = False
        taken = take(flat, state, listed(flat), 0, Chance.of(flat, 1, number, 0))
        counts += np.bincount(taken.item[taken.listed], minlength=ITEMS)[:K]
    assert counts[0] > 2 * counts[-1] > 0


def test_who_has_left_takes_nothing(world: World) -> None:
    state = State.of(world)
    state.here[:10] = False
    assert take(world, state, listed(world), 0, Chance.of(world, 1, 0, 0)).user.min() >= 10


def test_tastes_move_towards_what_was_taken_and_unhappy_users_leave(world: World) -> None:
    state, chance = State.of(world), Chance.of(world, 1, 0, 0)
    taken = take(world, state, listed(world), 0, chance)
    one, before = taken.user[0], state.vectors.copy()
    towards = world.tastes.items[taken.item[taken.user == one]].sum(axis=0)
    state.satisfaction[:] = -50
    state.satisfaction[one] = 50
    feel(world, state, taken, replace(chance, leaves=np.full(len(world.users), 0.3)))

    def cosine(vector: np.ndarray) -> float:
        return float(vector @ towards / np.linalg.norm(vector) / np.linalg.norm(towards))

    assert cosine(state.vectors[one]) > cosine(before[one])
    assert np.allclose(np.linalg.norm(state.vectors, axis=1), np.linalg.norm(before, axis=1), rtol=1e-4)
    assert state.here[one]
    assert not np.delete(state.here, one).any()


# Loops


def test_the_same_chance_gives_the_same_loop_and_another_gives_another(world: World) -> None:
    one, other, different = (run(world, Ease(1), 5, replication) for replication in (0, 0, 1))
    assert same(one, other)
    assert not same(one, different)
    assert len(one) == world.rounds + 1


def test_loops_without_lists_differ_in_nothing_though_their_models_do(world: World) -> None:
    alone = replace(world, behaviour=replace(world.behaviour, adoption=0.0))
    loops = [run(alone, strategy, 5, 0) for strategy in (Ease(1), RichGetRicher(Ease(2)), None)]
    for name in ("taken_diversity", "taken_concentration", "satisfaction", "retention"):
        assert len({tuple(row[name] for row in figures) for figures in loops}) == 1


def test_a_model_is_trained_on_its_own_loop_and_is_told_what_it_has_shown(world: World) -> None:
    seen: list[Past] = []

    class Watching(Ease):
        def train(self, past: Past, catalogue: Catalogue) -> Any:
            seen.append(past)
            return super().train(past, catalogue)

    run(world, Watching(1), 5, 0)
    rows = [len(past.log) for past in seen]
    assert rows[0] == len(world.log)
    assert all(a < b for a, b in itertools.pairwise(rows))
    assert seen[0].shown.sum() == 0
    assert seen[1].shown.sum() == K * len(world.users)
    assert len({past.seed for past in seen}) == len(seen)


def test_a_killed_run_goes_on_with_the_loops_that_it_had(world: World, tmp_path: Any) -> None:
    class Broken(Ease):
        def train(self, past: Past, catalogue: Catalogue) -> Any:
            raise KeyboardInterrupt

    tasks = [Task("a", 0), Task("b", 0)]
    first = played(world, {"a": Ease(1)}, tasks[:1], 5, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        played(world, {"a": Broken(1), "b": Broken(1)}, tasks, 5, tmp_path)
    rest = played(world, {"a": Broken(1), "b": Ease(1)}, tasks, 5, tmp_path)
    name = name_of(tasks[0])
    assert same(list(rest[name]), list(first[name]))  # type: ignore[arg-type]


# Figures


def test_figures_of_lists_by_hand() -> None:
    vectors = np.eye(3)
    lists = np.array([[0, 1], [0, -1], [0, 2]])
    assert measures.within(lists, vectors) == 1
    assert measures.within(np.array([[0, 0]]), vectors) == 0
    assert measures.between(np.array([[0, 1], [0, 2]]), 3) == pytest.approx(1 / 2)
    assert measures.between(np.array([[0, 1], [0, 1]]), 3) == 0
    assert measures.gini(np.array([5, 5, 5])) == 0
    assert measures.gini(np.array([0, 0, 0, 4])) == pytest.approx(3 / 4)
    assert measures.top_share(np.array([1, 7, 2]), 0.1) == pytest.approx(0.7)


def test_choices_that_repeat_are_as_close_as_can_be() -> None:
    from scipy.sparse import csr_matrix

    vectors = np.eye(2)
    assert choice.closeness(csr_matrix([[2, 0]]), vectors) == 1
    assert choice.closeness(csr_matrix([[1, 1]]), vectors) == 0
    assert choice.closeness(csr_matrix([[1, 0]]), vectors) == 0  # of nobody


def figures(level: float, noise: float, seed: int) -> list[list[dict[str, float]]]:
    generator = np.random.default_rng(seed)
    names = ("diversity", "distance", "concentration", "new_items", "satisfaction", "retention")
    return [
        [{name: level + noise * generator.normal() for name in names} for _ in range(5)] for _ in range(4)
    ]


def test_a_sure_loss_is_found_and_luck_is_not() -> None:
    rows = {row.name: row for row in compared(figures(0.5, 0.001, 1), figures(0.7, 0.001, 2))}
    assert rows["diversity"].share == pytest.approx(0.2 / 0.7, rel=0.05)
    assert rows["diversity"].p < 0.05
    assert rows["concentration"].lost < 0  # lower is better
    assert rows["satisfaction"].share == pytest.approx(0.2, rel=0.05)
    assert not verdict(list(rows.values()), 0.1)[0]
    assert verdict(list(rows.values()), 0.5)[0]
    equal = compared(figures(0.5, 0.1, 3), figures(0.5, 0.1, 4))
    assert verdict(equal, 0.0)[0]
    alike = compared(figures(0.5, 0.0, 1), figures(0.7, 0.0, 2))  # coarse figures, without any spread
    assert verdict(alike, 0.1)[0]


def test_calibration_says_for_each_figure_whether_it_is_as_close_as_the_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.simulation.calibration.SPLITS", 3)
    rows = {row.name: row for row in calibrate(people(), 7)}
    assert set(rows) == {"activity", "popularity", "top_tenth", "new_items", "diversity"}
    assert all(row.within == (row.distance <= row.largest) for row in rows.values())
    assert "repeats" in {row.name for row in calibrate(people(repeats=True), 7)}


# The gate


GUARDED = SETTINGS.model_copy(update={"long_term_guard": 0.1})


def simulated(share: float = 0.0, **changes: Any) -> LongTerm:
    row = {"name": "distance", "lost": share, "low": share - 0.01, "high": share + 0.01, "share": share}
    found = {"challenger": "c" * 64, "champion": "a" * 64, "rounds": 10, "replications": 4}
    return LongTerm.of(found | {"measures": [row | {"p": 0.001 if share > 0.02 else 0.5}]} | changes)


@pytest.mark.parametrize(
    ("found", "settings", "passes"),
    [
        (None, SETTINGS, True),
        (simulated(0.5), SETTINGS, True),  # told, no more
        (simulated(), GUARDED, True),
        (simulated(0.05), GUARDED, True),
        (simulated(0.5), GUARDED, False),
        (None, GUARDED, False),
        (LongTerm(), GUARDED, False),
        (simulated(challenger="another"), GUARDED, False),
        (simulated(champion="another"), GUARDED, False),
        (simulated(measures=[]), GUARDED, False),
        (simulated(measures=[{"name": "distance"}]), GUARDED, False),
    ],
    ids=lambda value: "",
)
def test_the_gate_asks_for_a_simulation_of_these_two_models(found: Any, settings: Any, passes: bool) -> None:
    verdict = decide(evaluation(), challenger(), champion(), settings, found)
    assert failed(verdict) == ([] if passes else ["long_term"])


# The page


def report(**changes: Any) -> Simulation:
    loops = {"challenger": figures(0.5, 0.01, 1), "champion": figures(0.7, 0.01, 2)}
    content = simulated(0.5).model_dump() | {
        "seed": 1,
        "users": 60,
        "items": 40,
        "new_items": 4,
        "choices": 1.5,
        "k": 5,
        "seconds": 1.0,
        "behaviour": {"adoption": Behaviour().adoption},
        "choice": {"taste": 1.0, "again": None},
        "calibration": [Calibration(name="activity", kind="KS", distance=0.1, within=False)],
        "curves": {name: curves(rows) for name, rows in loops.items()},
    }
    return Simulation.of(content | changes)


def test_the_page_draws_both_loops_and_shows_no_number_that_is_none() -> None:
    html = page.render(report())
    assert html.count("<svg") >= 6
    assert "Worse in the long term" in html
    assert "nan" not in html.lower()
    assert "not compared" in page.render(report(measures=[])).lower()


def test_a_champion_beside_itself_is_one_loop() -> None:
    html = page.render(report(challenger="a" * 64))
    assert "one loop was simulated" in html
    assert "challenger in its own loop" not in html


def test_what_the_gate_reads_is_the_reports_own() -> None:
    found = report()
    assert found.for_the_gate == LongTerm.of({name: getattr(found, name) for name in LongTerm.model_fields})
    assert Simulation.parse(found.to_json()) == found


# The cycle


@pytest.mark.parametrize("asked", [False, True])
def test_what_the_gate_asks_for_is_simulated_just_before_it_decides(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    guard = "long_term_guard: 0.1" if asked else "long_term_guard: null"
    (tmp_path / "params.yaml").write_text(text.replace("long_term_guard: null", guard))
    (tmp_path / "models" / "champion").mkdir(parents=True)
    (tmp_path / "models" / "champion" / "model.json").write_text("{}")
    done: list[object] = []
    monkeypatch.setattr(Loop, "run", lambda self, *stages: done.append(stages))
    monkeypatch.setattr(command, "is_due", lambda root: True)
    monkeypatch.setattr(command, "simulate", lambda root: done.append("simulate"))

    class Recorded(Exception):
        pass

    def record(root: Path) -> None:
        raise Recorded

    monkeypatch.setattr("pipeline.loop.steps.record_training", record)
    with pytest.raises(Recorded):
        Loop(tmp_path, None).make("evaluate", "decide_promotion")  # type: ignore[arg-type]
    together: list[object] = [("evaluate", "decide_promotion")]
    assert done == ([("evaluate",), "simulate", ("decide_promotion",)] if asked else together)


def test_what_cannot_be_simulated_is_told_and_stops_no_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few(root: Path) -> None:
        raise DataError("too few users")

    monkeypatch.setattr(command, "is_due", lambda root: True)
    monkeypatch.setattr(command, "simulate", few)
    Loop(tmp_path, None)._simulate()  # type: ignore[arg-type]
    assert "too few users" in capsys.readouterr().out


def test_who_reads_a_killed_simulations_output_is_not_kept_waiting_by_its_workers() -> None:
    """A task's process waits for the end of that output before it says that the step has failed."""
    code = (
        "import multiprocessing, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from pipeline.simulation.command import _begin\n"
        "spawn = multiprocessing.get_context('spawn')\n"
        "pool = ProcessPoolExecutor(1, spawn, _begin, (None, {}, 0))\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        try:
            process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


@pytest.mark.parametrize(("simulated", "kept"), [("another", False), ("judged", True)])
def test_a_run_keeps_the_curves_of_the_two_models_that_it_judged(
    simulated: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler's worktree, where they were drawn, is removed when its run ends."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "simulation.html").write_text("curves")
    LongTerm(challenger=simulated, champion="in service").write(tmp_path / "data" / "simulation.json")
    identities = {"challenger": {"artifact_hash": "judged"}, "champion": {"artifact_hash": "in service"}}
    Promotion.of({"promote": True, "checks": [], **identities}).write(tmp_path / VERDICT)
    training = SimpleNamespace(number=1, record=None)
    monkeypatch.setattr("pipeline.loop.steps.record_training", lambda root: (training, False))
    monkeypatch.setattr(Loop, "run", lambda self, *stages: None)
    monkeypatch.setattr(Loop, "_may_simulate", lambda self: False)
    account = Account.begin("one", "by hand", tmp_path / HISTORY / "one")
    (tmp_path / HISTORY / "one" / "simulation.html").write_text("of an earlier judgement")
    Loop(tmp_path, account).make("decide_promotion")
    found = tmp_path / HISTORY / "one" / "simulation.html"
    assert (found.read_text() if found.is_file() else None) == ("curves" if kept else None)


@pytest.mark.slow
def test_the_bench_gives_rates_directions_and_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.bench import simulation as bench

    changes = {
        "ROUNDS": 2,
        "REPLICATIONS": 2,
        "EQUALS": 2,
        "PLANTED": 2,
        "EQUAL_MEETS": 1,
        "PLANTED_MEETS": 1,
    }
    for name, value in {**changes, "DIRECTIONS": 2, "KEPT": tmp_path, "LISTS": K}.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})  # in this process
    monkeypatch.setattr(bench, "load", lambda folder: (people(repeats=True), None))
    told = bench.run(tmp_path)
    assert set(told["ratios"]) == {"equal_refused", "planted_refused", "calibrated", "seconds_of_a_check"}
    assert told["figures"]["gate: equal refused"]["verdicts"] == 4
    static = told["figures"]["direction: taken_novelty, adoption 0.8 for 0, first round"]
    assert static["low"] <= static["value"] <= static["high"]
