"""Replays with models whose quality is written down, so that every figure can be worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backtest import command, page, policies, simulate
from pipeline.backtest.timeline import Timeline
from pipeline.backtest.world import Fast, Fitted, Model, World, world_key
from pipeline.documents.drift import Drift
from pipeline.documents.retraining import Retraining
from pipeline.errors import ConfigError
from pipeline.params import Params
from tests.small_data import write_raw
from tests.test_backtest_timeline import make, table

PARAMS = Params.load(Path("params.yaml"))
QUALITY = [[0.2, 0.1, 0.1], [np.nan, 0.4, 0.2], [np.nan, np.nan, 0.5]]  # trained before, window


class Written:
    """A trainer whose models have the nDCG@10 of QUALITY at every point of a window."""

    code = "written"
    trained: list[str]

    def __init__(self) -> None:
        self.trained = []

    def key(self, number: int, mode: str, champion: str) -> str:
        return f"w{number:02d}"

    def fit(self, timeline: Timeline, key: str) -> Fitted:
        self.trained.append(key)
        return Fitted(self, None, 2.0, 1.0, ["a"])


class WrittenWorld(World):
    allows = True

    def _ask(self, key: str, number: int) -> Model:
        fitted = self.fitted(key)
        gain = np.full(len(self.timeline.points), np.nan)
        for window in range(number, 3):
            gain[self.timeline.served(window)] = QUALITY[number][window]
        listed = np.full((len(gain), 10), -1, np.int32)
        return Model(key, number, listed, gain, fitted.seconds, 1.0, 1.0, ["a"])

    def verdict(self, challenger: Model, champion: Model) -> dict[str, Any]:
        return {"promote": self.allows, "text": "as written"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return WrittenWorld(make(table()), PARAMS, Written(), tmp_path)


def replayed(world: World, policy: policies.Policy) -> tuple[list[float], simulate.Replay]:
    done = simulate.replay(world, policy)
    return [round(value, 9) for value in simulate.window_quality(world, done.served)], done


def test_never_serves_the_first_champion(world: World) -> None:
    assert replayed(world, policies.schedule("never", "", ()))[0] == [0.2, 0.1, 0.1]


def test_every_window_serves_the_newest(world: World) -> None:
    quality, done = replayed(world, policies.every("e", 1))
    assert quality == [0.2, 0.4, 0.5]
    assert [model.key for model in done.trained] == ["w01", "w02"]
    assert done.seconds == 4


def test_what_the_gate_refuses_is_paid_for_and_not_served(world: World) -> None:
    world.allows = False  # type: ignore[attr-defined]
    quality, done = replayed(world, policies.every("e", 1))
    assert quality == [0.2, 0.1, 0.1]
    assert len(done.trained) == 2
    assert [entry["promoted"] for entry in done.decisions] == [False, False]
    ungated = replace(policies.every("e", 1), gated=False)
    assert replayed(world, ungated)[0] == [0.2, 0.4, 0.5]


def test_the_next_decision_knows_of_the_last_training_and_of_the_champion(world: World) -> None:
    seen: list[policies.State] = []

    def decide(state: policies.State) -> Retraining:
        seen.append(state)
        return policies.decision(True, "")

    simulate.replay(world, policies.Policy("spy", "", decide))
    one, two = seen
    assert (one.rows, one.rows_fitted, one.rows_since, one.champion) == (24, 12, 12, "w00")
    assert (two.rows, two.rows_fitted, two.rows_since, two.champion) == (32, 18, 14, "w01")
    assert [(each.rows, each.mode) for each in two.trainings] == [(16, "full"), (24, "refresh")]
    assert two.as_of == world.timeline.as_of(2).to_pydatetime()


def test_all_policies_share_their_trainings(world: World) -> None:
    simulate.run(world, standard())
    assert sorted(world.trainer.trained) == ["w00", "w01", "w02"]  # type: ignore[attr-defined]


def standard() -> list[policies.Policy]:
    return [
        policies.schedule("never", "", ()),
        policies.every("every_window", 1),
        policies.every("default", 2),
    ]


def test_the_figures_by_hand(world: World) -> None:
    found = simulate.run(world, standard())["policies"]
    assert set(found) == {"never", "every_window", "default", "calendar"}
    default = found["default"]  # trained before window 2 alone
    assert default["ndcg@10"] == pytest.approx([0.2, 0.1, 0.5])
    assert default["mean"] == pytest.approx(0.8 / 3)
    assert default["trainings"] == default["promotions"] == 1
    # never has .4 / 3, every window 1.1 / 3
    assert default["kept_gain"] == pytest.approx((0.8 - 0.4) / (1.1 - 0.4))
    # once, and best before window 1: .2 + .4 + .2, as good
    assert default["regret"] == pytest.approx(0)
    assert found["never"]["kept_gain"] == 0
    assert found["every_window"]["kept_gain"] == 1


def test_the_difference_between_policies_is_the_mean_over_windows(world: World) -> None:
    paired = simulate.run(world, standard())["paired"]["default - never"]
    assert paired["all"]["ndcg@10"] == pytest.approx(0.4 / 3)
    # Written quality is the same for all users: nothing to redraw.
    assert paired["all"]["low"] == pytest.approx(paired["all"]["high"])
    assert paired["first_half"]["ndcg@10"] == pytest.approx(0)


def test_the_best_schedule_in_hindsight() -> None:
    matrix = np.array(QUALITY)
    assert simulate.best_schedule(matrix, 0) == (pytest.approx(0.4 / 3), [])
    assert simulate.best_schedule(matrix, 1) == (pytest.approx(0.8 / 3), [1])
    assert simulate.best_schedule(matrix, 2) == (pytest.approx(1.1 / 3), [1, 2])


def test_where_retraining_gains_nothing_no_share_of_it_is_kept() -> None:
    assert np.isnan(simulate.kept_gain(0.3, 0.3, 0.3))
    assert np.isnan(simulate.kept_gain(0.3, 0.4, 0.3))


def test_where_the_first_half_gains_nothing_no_threshold_is_chosen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        world, "drift", lambda champion, number: Drift(outcome="not_enough_data", drift=False)
    )
    chosen = simulate.choose(world)
    assert chosen["settings"] is None  # window 0 is the first half, and always the first champion's
    assert len(chosen["tried"]) == 4 * len(simulate.SHARES)
    assert "Nothing can be chosen" in page.render(simulate.run(world, standard()) | {"chosen": chosen})


def test_what_was_chosen_on_the_first_half_is_told_with_what_it_gave_on_the_second(world: World) -> None:
    parts = {
        "first_half": {"mean": 0.3, "kept_gain": 0.95, "trainings": 2},
        "second_half": {"mean": 0.2, "kept_gain": 0.81, "trainings": 3},
    }
    row = {"max_new_share": 0.1, "drift": "ignore", "quality_drop": "refresh", **parts}
    html = page.render(simulate.run(world, standard()) | {"chosen": {"settings": row, "tried": [row]}})
    assert "keeps 95% of the gain with 2 trainings on the first half, by which it was chosen" in html
    assert "81% with 3 on the second" in html


def test_the_page_shows_every_policy_and_escapes_the_data(world: World) -> None:
    tried = [*standard(), replace(policies.every("<b>own", 1), text="<script>")]
    html = page.render(simulate.run(world, tried))
    assert "<script>" not in html
    assert "&lt;b&gt;own" in html
    for name in ("never", "every window", "default", "calendar"):
        assert name in html


# The real thing, small -------------------------------------------------------------------------------------


def test_a_run_on_raw_tables_is_resumed_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table(120, users=8).drop(columns="positive")
    raw = write_raw(tmp_path / "raw", frame)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "text_vectors", lambda *arguments: None)
    monkeypatch.setattr(World, "_evidently", lambda *arguments: False)  # its import takes seconds
    params = PARAMS.model_copy(
        update={"preprocess": PARAMS.preprocess.model_copy(update={"min_user_interactions": 1})}
    )
    options = command.Options(windows=4, policies=None)
    first = command.backtest(raw, params, options)
    command.write(first, tmp_path / "reports")
    assert (tmp_path / "reports" / "backtest.html").stat().st_size > 10_000
    monkeypatch.setattr(Fast, "fit", lambda *arguments: pytest.fail("trained again"))
    again = command.backtest(raw, params, options)
    assert again["policies"] == first["policies"]


def test_the_cache_knows_data_settings_and_seed(world: World) -> None:
    keys = {
        world_key(world.timeline, PARAMS, "light"),
        world_key(world.timeline, PARAMS, "full"),
        world_key(world.timeline, PARAMS.model_copy(update={"seed": 3}), "light"),
        world_key(replace(world.timeline, key="other"), PARAMS, "light"),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"windows": 2}, "--windows 2: from 3 to 60"), ({"start_share": 1.0}, "--start 1: a share")],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        command.backtest(Path("nowhere"), PARAMS, command.Options(**changes))
