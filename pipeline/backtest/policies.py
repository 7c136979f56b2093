"""Retraining policies to be compared: each looks at what is known at a decision and names a mode.

In: `State`. Out: a decision, as decide_retraining's.
Rule: whatever the project itself decides is decided by the stage's own function, decide_retraining, under
other settings; only fixed schedules and Evidently's defaults are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.documents.data import Manifest, Rows
from pipeline.documents.drift import Drift
from pipeline.documents.registry import ExportedTraining, Registry
from pipeline.documents.retraining import Mode, Reason, Retraining
from pipeline.errors import ConfigError
from pipeline.params import DecideRetraining
from pipeline.stages.decide_retraining import decide_retraining

Json = dict[str, Any]
EVERY = "every"
NEVER, EVERY_WINDOW, DEFAULT, CALENDAR = "never", "every_window", "default", "calendar"
UNGATED = "ungated"
NO_CALENDAR: Json = {"max_age_days": None, "max_new_share": None, "full_every": None}
NO_DRIFT: Json = {"drift": "ignore", "quality_drop": "ignore"}
UNRESTRAINED: Json = {
    "min_new_rows": 0,
    "min_gap_days": 0,
    "label_delay_days": 0,
    "max_trainings_per_month": None,
    "max_seconds_per_month": None,
}


@dataclass(frozen=True)
class State:
    """What is known at the decision before window `number`."""

    number: int
    as_of: datetime  # of the newest row
    rows: int  # known
    rows_fitted: int  # by the champion
    rows_since: int  # later than the champion's fit_end
    champion: str
    trainings: tuple[ExportedTraining, ...]  # oldest first
    drift: Callable[[], Drift]  # what detect_drift says; costs seconds
    evidently: Callable[[], bool]  # whether Evidently's defaults call it drift; costs seconds


@dataclass(frozen=True)
class Policy:
    name: str
    text: str  # what it does, for people
    decide: Callable[[State], Retraining]
    gated: bool = True  # False: what it trains is promoted, however it compares


def standard(settings: DecideRetraining, calendar_days: float) -> list[Policy]:
    """The contract's eight, the default's calendar alone, and every window without the gate.

    `calendar_days`: the age at which `max_age` trains, where the settings name none.
    """
    age = settings.max_age_days or calendar_days
    share = settings.max_new_share

    def changed(*changes: Json, **more: Any) -> DecideRetraining:
        merged: Json = {}
        for change in (*changes, more):
            merged |= change
        return settings.model_copy(update=merged)

    found = [
        schedule(NEVER, "the first champion stays", ()),
        every(EVERY_WINDOW, 1),
        every("every_2nd", 2),
        retraining(
            "max_age",
            f"when the data is {age:,.0f} days later than the last training's",
            changed(UNRESTRAINED, NO_CALENDAR, NO_DRIFT, max_age_days=age),
        ),
        retraining(
            "drift_only",
            "when the drift check finds drift, whatever the champion's quality",
            changed(UNRESTRAINED, NO_CALENDAR, drift="refresh", quality_drop="ignore"),
        ),
        retraining(
            "quality_only",
            "when the champion's nDCG@10 fell since its promotion",
            changed(UNRESTRAINED, NO_CALENDAR, drift="ignore", quality_drop="refresh"),
        ),
        Policy("evidently_defaults", "when Evidently's DataDriftPreset, as it comes, says drift", _evidently),
        retraining(DEFAULT, "params.yaml: decide_retraining", settings),
    ]
    if share is not None:
        text = f"when there are {share:.0%} more rows than the last training had: the default without drift"
        found.append(retraining("max_new_share", text, changed(NO_DRIFT)))
    ungated = "before every window, promoted without the gate"
    found.append(Policy(UNGATED, ungated, _at_every(1), gated=False))
    return found


def retraining(name: str, text: str, settings: DecideRetraining) -> Policy:
    """The stage's own decision under `settings`; the drift check runs only where they look at it."""
    looks = settings.drift != "ignore" or settings.quality_drop != "ignore"

    def decide(state: State) -> Retraining:
        unseen = Drift(outcome="not_enough_data", drift=False, text="drift is ignored")
        drift = (state.drift() if looks else unseen).but(
            champion=state.champion,
            as_of=state.as_of,
            rows_fitted=state.rows_fitted,
            rows_since_fit_end=state.rows_since,
        )
        registry = Registry(champion=state.champion, trainings=list(state.trainings))
        manifest = Manifest(as_of=state.as_of, rows=Rows(kept=state.rows))
        return decide_retraining(drift, registry, manifest, settings)

    return Policy(name, text, decide)


def every(name: str, step: int) -> Policy:
    text = "before every window" if step == 1 else f"before one window in {step}"
    return Policy(name, text, _at_every(step))


def _at_every(step: int) -> Callable[[State], Retraining]:
    return lambda state: decision(state.number % step == 0, f"a training before one window in {step}")


def schedule(name: str, text: str, numbers: Collection[int]) -> Policy:
    """Trains before the windows of these numbers."""
    at = frozenset(numbers)
    return Policy(name, text, lambda state: decision(state.number in at, text))


def calendar(trainings: int, windows: int) -> Policy:
    """As many trainings at even distances."""
    at = {round((place + 1) * windows / (trainings + 1)) for place in range(trainings)}
    return schedule(CALENDAR, f"{trainings} times at even distances: as often as the default", at)


def decision(retrain: bool, text: str) -> Retraining:
    mode: Mode = "refresh" if retrain else "none"
    reason = Reason(signal="policy", text=text, calls=mode if retrain else None)
    return Retraining(retrain=retrain, mode=mode, reasons=[reason])


def _evidently(state: State) -> Retraining:
    drifted = state.evidently()
    return decision(drifted, f"Evidently's defaults {'find' if drifted else 'find no'} drift")


def read(path: Path, settings: DecideRetraining) -> list[Policy]:
    """Policies of a YAML file: name -> {every: N}, or keys of decide_retraining that differ from params.yaml.

    Raises ConfigError naming what is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): name a YAML file of policies"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: no policy: write `NAME: {{every: 3}}` or `NAME: {{max_new_share: 0.5}}`")
    return [_read_one(path, str(name), changes, settings) for name, changes in content.items()]


def _read_one(path: Path, name: str, changes: Any, settings: DecideRetraining) -> Policy:
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{path}: {name}: settings expected, e.g. `{name}: {{max_new_share: 0.5}}`")
    if EVERY in changes:
        step = changes[EVERY]
        if len(changes) > 1 or isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise ConfigError(f"{path}: {name}.{EVERY}: a whole number of windows, alone (found {changes!r})")
        return every(name, step)
    try:
        merged = DecideRetraining.model_validate(settings.model_dump() | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{path}: {name}.{key}: unknown key; remove it or correct its name") from None
        raise ConfigError(f"{path}: {name}.{key}: {first['msg']} (found {first['input']!r})") from None
    told = ", ".join(f"{key} {value}" for key, value in changes.items()) or "as in params.yaml"
    return retraining(name, told, merged)
