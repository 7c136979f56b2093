"""Policies: schedules, the stage's own decision under other settings, a file of one's own."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.backtest import policies
from pipeline.documents.drift import Drift
from pipeline.documents.registry import ExportedTraining
from pipeline.errors import ConfigError
from pipeline.params import Params

SETTINGS = Params.load(Path("params.yaml")).decide_retraining.model_copy(
    update={"max_age_days": None, "max_new_share": 0.25, "min_new_rows": 0, "full_every": None}
    | {"drift": "refresh", "quality_drop": "refresh"}
)
NOW = datetime(2020, 3, 1, tzinfo=UTC)


def drifted(*names: str) -> Drift:
    """Of an "ok" check in which these signals are confirmed."""
    quiet = {"value": 0.0, "p_value": 1.0, "floor": 0.1, "flag": False, "confirmed": False, "text": "no"}
    loud = quiet | {"flag": True, "confirmed": True, "text": "drifted"}
    signals = {name: loud if name in names else quiet for name in ("text", "quality")}
    current = {"to": NOW.isoformat()}
    return Drift.of({"outcome": "ok", "drift": bool(names), "signals": signals, "current": current})


def state(
    number: int = 3, rows_since: int = 150, drift: Any = None, evidently: bool = False
) -> policies.State:
    """The last training had 1,000 rows on January 1, 900 of them fitted; now 900 + rows_since are known."""

    def check() -> Drift:
        assert drift is not None, "nobody asked for a drift check"
        return drift

    return policies.State(
        number=number,
        as_of=NOW,
        rows=900 + rows_since,
        rows_fitted=900,
        rows_since=rows_since,
        champion="w00",
        trainings=(ExportedTraining(as_of=datetime(2020, 1, 1, tzinfo=UTC), rows=1000),),
        drift=check,
        evidently=lambda: evidently,
    )


def standard(name: str) -> policies.Policy:
    return {policy.name: policy for policy in policies.standard(SETTINGS, 60)}[name]


def mode(policy: policies.Policy, at: policies.State) -> str:
    return policy.decide(at).mode


def test_the_standard_ones_are_the_contracts_and_two_controls() -> None:
    names = [policy.name for policy in policies.standard(SETTINGS, 60)]
    contract = ["never", "every_window", "every_2nd", "max_age", "drift_only", "quality_only"]
    contract += ["evidently_defaults", "default"]
    assert names == [*contract, "max_new_share", "ungated"]
    assert [policy.name for policy in policies.standard(SETTINGS, 60) if not policy.gated] == ["ungated"]


@pytest.mark.parametrize(
    ("name", "trains"),
    [("never", []), ("every_window", [1, 2, 3, 4, 5]), ("every_2nd", [2, 4])],
)
def test_schedules(name: str, trains: list[int]) -> None:
    assert [n for n in range(1, 6) if mode(standard(name), state(n)) != "none"] == trains


def test_a_calendar_spreads_its_trainings_evenly() -> None:
    policy = policies.calendar(3, 8)
    assert [n for n in range(1, 8) if mode(policy, state(n)) != "none"] == [2, 4, 6]
    assert not any(mode(policies.calendar(0, 8), state(n)) != "none" for n in range(1, 8))
    assert all(mode(policies.calendar(7, 8), state(n)) != "none" for n in range(1, 8))


def test_max_age_counts_days_of_data_since_the_last_training() -> None:
    assert mode(standard("max_age"), state()) == "refresh"  # 60 days
    older = {policy.name: policy for policy in policies.standard(SETTINGS, 61)}["max_age"]
    assert mode(older, state()) == "none"


@pytest.mark.parametrize(
    ("name", "signal", "expected"),
    [
        ("drift_only", "text", "refresh"),
        ("drift_only", "quality", "none"),
        ("quality_only", "quality", "refresh"),
        ("quality_only", "text", "none"),
        ("default", "text", "refresh"),
        ("default", "quality", "refresh"),
    ],
)
def test_each_looks_at_its_own_signals(name: str, signal: str, expected: str) -> None:
    assert mode(standard(name), state(drift=drifted(signal))) == expected
    assert mode(standard(name), state(drift=drifted())) == "none"


def test_the_default_trains_when_enough_rows_are_new() -> None:
    quiet = drifted()
    # 100 rows were held back from the last training, which had 1,000.
    assert mode(standard("default"), state(rows_since=349, drift=quiet)) == "none"
    assert mode(standard("default"), state(rows_since=350, drift=quiet)) == "refresh"


def test_without_drift_no_check_is_run() -> None:
    assert mode(standard("max_new_share"), state(rows_since=350)) == "refresh"
    assert mode(standard("max_new_share"), state(rows_since=349)) == "none"


def test_evidently_is_believed_by_its_policy_alone() -> None:
    assert mode(standard("evidently_defaults"), state(evidently=True)) == "refresh"
    assert mode(standard("evidently_defaults"), state(evidently=False)) == "none"


def test_every_decision_has_a_reason() -> None:
    for policy in policies.standard(SETTINGS, 60):
        decision = policy.decide(state(drift=drifted()))
        assert decision.reasons
        assert all(reason.text for reason in decision.reasons)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(text)
    return path


def test_a_file_names_intervals_and_settings(tmp_path: Path) -> None:
    path = write(
        tmp_path, "third: {every: 3}\nrare: {max_new_share: 0.5, drift: ignore, quality_drop: ignore}\n"
    )
    third, rare = policies.read(path, SETTINGS)
    assert [n for n in range(1, 8) if mode(third, state(n)) != "none"] == [3, 6]
    assert mode(rare, state(rows_since=600)) == "refresh"
    assert mode(rare, state(rows_since=599)) == "none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {every: 0}", "a.every: a whole number"),
        ("a: {every: true}", "a.every: a whole number"),
        ("a: {every: 2, drift: ignore}", "a.every: a whole number of windows, alone"),
        ("a: {max_new_shar: 0.5}", "a.max_new_shar: unknown key"),
        ("a: {drift: maybe}", "a.drift: "),
        ("a: 3", "a: settings expected"),
        ("", "no policy"),
        ("- a", "no policy"),
        ("a: {", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policies.read(write(tmp_path, text), SETTINGS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read"):
        policies.read(tmp_path / "gone.yaml", SETTINGS)
