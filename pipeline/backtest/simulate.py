"""Replays a timeline under retraining policies: decide, train, gate, promote, serve the next window.

In: a `World` (pipeline/backtest/world.py) and policies. Out: the content of reports/backtest.json.
Rule: at each decision a policy sees what is known then; what it trains meets the champion in the real gate
on the points that both have not seen; the champion then serves the window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeline.backtest import policies
from pipeline.backtest.timeline import Timeline
from pipeline.backtest.world import Model, World
from pipeline.documents.registry import ExportedTraining, TrainingCost
from pipeline.evaluation import metrics

SAMPLES = 1000  # draws of the bootstrap
MOST_SCHEDULES = 20_000  # that are tried for the best in hindsight
REFRESH: Final = "refresh"
FULL: Final = "full"

Json = dict[str, Any]


# One policy ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """What a policy did: who served each window, and what it decided."""

    policy: policies.Policy
    served: list[Model]
    decisions: list[Json]
    trained: list[Model]

    @property
    def seconds(self) -> float:
        return sum(model.seconds for model in self.trained)


def replay(world: World, policy: policies.Policy) -> Replay:
    """The first champion serves window 0; before each later window the policy decides."""
    champion = world.model(0, FULL, "")
    first = champion
    served, decisions, trained = [champion], list[Json](), list[Model]()
    history = [_recorded(world, first, FULL)]
    for number in range(1, len(world.timeline.windows)):
        decision = policy.decide(_state(world, number, champion, history))
        entry: Json = {
            "window": number,
            "as_of": world.timeline.as_of(number).isoformat(),
            "champion": champion.key,
            "mode": decision.mode,
            "reasons": [reason.to_dict() for reason in decision.reasons],
            "promoted": None,
        }
        if decision.mode != "none":
            challenger = world.model(number, decision.mode, champion.key)
            trained.append(challenger)
            history.append(_recorded(world, challenger, decision.mode))
            entry |= {"seconds": challenger.seconds} | _gate(world, policy, challenger, champion)
            champion = challenger if entry["promoted"] else champion
        decisions.append(entry)
        served.append(champion)
    return Replay(policy, served, decisions, trained)


def _gate(world: World, policy: policies.Policy, challenger: Model, champion: Model) -> Json:
    if not policy.gated:
        return {"promoted": True, "gate": "promoted without the gate"}
    verdict = world.verdict(challenger, champion)
    return {"promoted": verdict["promote"], "gate": verdict["text"]}


def _recorded(world: World, model: Model, mode: Literal["refresh", "full"]) -> ExportedTraining:
    timeline = world.timeline
    return ExportedTraining(
        artifact_hash=model.key,
        fit_end=timeline.fit_end(model.number),
        as_of=timeline.as_of(model.number),
        mode=mode,
        rows=_rows_before(timeline, timeline.windows[model.number].start),
        training=TrainingCost(seconds=model.seconds),
    )


def _state(world: World, number: int, champion: Model, history: Sequence[ExportedTraining]) -> policies.State:
    timeline = world.timeline
    rows = _rows_before(timeline, timeline.windows[number].start)
    fitted = _rows_before(timeline, timeline.windows[champion.number].fit_stop)
    return policies.State(
        number=number,
        as_of=timeline.as_of(number).to_pydatetime(),
        rows=rows,
        rows_fitted=fitted,
        rows_since=rows - fitted,
        champion=champion.key,
        trainings=tuple(history),
        drift=lambda: world.drift(champion, number),
        evidently=lambda: world.evidently(champion, number),
    )


def _rows_before(timeline: Timeline, moment: int) -> int:
    return int((timeline.log.time < moment).sum())


# Figures ---------------------------------------------------------------------------------------------------


def window_quality(world: World, served: Sequence[Model]) -> list[float]:
    """nDCG@10 of each window by the model that served it: mean over users of a user's mean over points."""
    timeline = world.timeline
    found = []
    for number, model in enumerate(served):
        mask = timeline.served(number)
        found.append(metrics.mean_of_users(model.gain[mask], timeline.points.user[mask]))
    return found


def difference(world: World, one: Replay, other: Replay, windows: Iterable[int], seed: int) -> Json:
    """Mean over windows of nDCG@10 of one - other; users are redrawn within each window (95 % interval)."""
    timeline, draws = world.timeline, []
    means = []
    for number in windows:
        mask = timeline.served(number)
        gap = one.served[number].gain[mask] - other.served[number].gain[mask]
        by_user = metrics.group_means(gap, timeline.points.user[mask])[:, None]
        means.append(float(by_user.mean()))
        draws.append(metrics.user_bootstrap(by_user, SAMPLES, seed + number)[:, 0])
    (low,), (high,) = metrics.interval(np.mean(draws, axis=0)[:, None])
    return {"ndcg@10": float(np.mean(means)), "low": float(low), "high": float(high)}


def best_schedule(matrix: np.ndarray, trainings: int) -> tuple[float, list[int]]:
    """In hindsight: the highest mean of any schedule with so many trainings, and before which windows.

    `matrix`: (trained before window, window) nDCG@10, NaN below the diagonal; the first model is always
    there. NaN if there are too many schedules to try.
    """
    windows = len(matrix)
    places = range(1, windows)
    if math.comb(len(places), trainings) > MOST_SCHEDULES:
        return math.nan, []
    best: tuple[float, list[int]] = (-math.inf, [])
    for chosen in itertools.combinations(places, trainings):
        starts = [0, *chosen]
        newest = np.searchsorted(starts, np.arange(windows), side="right") - 1
        mean = float(np.mean(matrix[np.asarray(starts)[newest], np.arange(windows)]))
        if mean > best[0]:
            best = mean, list(chosen)
    return best


def kept_gain(mean: float, never: float, always: float) -> float:
    """Share of what retraining before every window gains over never; NaN where it gains nothing."""
    return (mean - never) / (always - never) if always > never else math.nan


def run(world: World, tried: Sequence[policies.Policy]) -> Json:
    """The content of reports/backtest.json. Policies must hold never and every_window."""
    replays = {policy.name: _told(world, policy) for policy in tried}
    if policies.DEFAULT in replays:
        equal = policies.calendar(len(replays[policies.DEFAULT].trained), len(world.timeline.windows))
        replays[policies.CALENDAR] = _told(world, equal)
    windows = len(world.timeline.windows)
    halves = {
        "all": range(windows),
        "first_half": range(windows // 2),
        "second_half": range(windows // 2, windows),
    }
    quality = {name: np.array(window_quality(world, done.served)) for name, done in replays.items()}
    models = _always(world)
    matrix = _matrix(world, models)
    found: Json = {
        "windows": [window.describe() for window in world.timeline.windows],
        "policies": {name: _figures(done, quality, name, halves, matrix) for name, done in replays.items()},
    }
    found["trained_before"] = matrix.tolist()
    found["best_in_hindsight"] = _frontier(models, matrix)
    if policies.DEFAULT in replays:
        found["paired"] = {
            f"{policies.DEFAULT} - {other}": {
                part: difference(world, replays[policies.DEFAULT], replays[other], numbers, world.params.seed)
                for part, numbers in halves.items()
            }
            for other in replays
            if other != policies.DEFAULT
        }
    return found


def _told(world: World, policy: policies.Policy) -> Replay:
    world.tell(policy.name)
    return replay(world, policy)


def _always(world: World) -> list[Model]:
    """The models that a training before every window makes, without a gate."""
    first = world.model(0, FULL, "")
    numbers = range(1, len(world.timeline.windows))
    return [first, *(world.model(number, REFRESH, first.key) for number in numbers)]


def _matrix(world: World, models: Sequence[Model]) -> np.ndarray:
    """(trained before, window) nDCG@10; NaN below the diagonal."""
    windows = len(world.timeline.windows)
    matrix = np.full((windows, windows), np.nan)
    for number, model in enumerate(models):
        matrix[number, number:] = window_quality(world, [model] * windows)[number:]
    return matrix


def _frontier(models: Sequence[Model], matrix: np.ndarray) -> list[Json]:
    """For each number of trainings the best schedule in hindsight: nDCG@10 against seconds."""
    rows = []
    for trainings in range(len(matrix)):
        mean, schedule = best_schedule(matrix, trainings)
        spent = sum(models[number].seconds for number in schedule)
        rows.append({"trainings": trainings, "mean": mean, "seconds": round(spent, 2), "before": schedule})
    return rows


def _figures(
    done: Replay,
    quality: dict[str, np.ndarray],
    name: str,
    halves: dict[str, range],
    matrix: np.ndarray,
) -> Json:
    own, never, always = quality[name], quality[policies.NEVER], quality[policies.EVERY_WINDOW]
    parts = {
        part: {
            "mean": float(own[numbers].mean()),
            "kept_gain": kept_gain(*(float(each[numbers].mean()) for each in (own, never, always))),
            "trainings": sum(model.number in numbers for model in done.trained),
        }
        for part, numbers in halves.items()
    }
    best, schedule = best_schedule(matrix, len(done.trained))
    return {
        "text": done.policy.text,
        "ndcg@10": own.tolist(),
        "mean": parts["all"]["mean"],
        "trainings": len(done.trained),
        "promotions": sum(bool(entry["promoted"]) for entry in done.decisions),
        "seconds": round(done.seconds, 2),
        "kept_gain": parts["all"]["kept_gain"],
        "regret": best - parts["all"]["mean"],
        "best_in_hindsight": schedule,
        "parts": parts,
        "decisions": done.decisions,
    }


# Choosing thresholds ---------------------------------------------------------------------------------------

SHARES: tuple[float | None, ...] = (None, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75)
ENOUGH = 0.9  # of the gain on the first half


def choose(world: World) -> Json:
    """Thresholds by the first half of the windows, and what they gave on the second.

    Of all settings tried, those that keep ENOUGH of the gain on the first half; of these the one with
    fewest trainings there, then the highest mean there. If none keeps so much, the highest mean. Where even
    a training before every window gains nothing there, nothing can be chosen by it: None.
    """
    windows = len(world.timeline.windows)
    first, second = range(windows // 2), range(windows // 2, windows)
    quality = {
        name: np.array(window_quality(world, replay(world, policy).served))
        for name, policy in (
            (policies.NEVER, policies.schedule(policies.NEVER, "", ())),
            (policies.EVERY_WINDOW, policies.every("", 1)),
        )
    }

    def kept(own: np.ndarray, part: range) -> float:
        never, always = (quality[name][part].mean() for name in (policies.NEVER, policies.EVERY_WINDOW))
        return kept_gain(float(own[part].mean()), float(never), float(always))

    rows = []
    for share, drift, drop in itertools.product(SHARES, ("ignore", REFRESH), ("ignore", REFRESH)):
        changes = {"max_new_share": share, "drift": drift, "quality_drop": drop}
        settings = world.params.decide_retraining.model_copy(update=changes)
        done = replay(world, policies.retraining("", "", settings))
        own = np.array(window_quality(world, done.served))
        row: Json = dict(changes)
        for part, numbers in (("first_half", first), ("second_half", second)):
            row[part] = {
                "mean": float(own[numbers].mean()),
                "kept_gain": kept(own, numbers),
                "trainings": sum(model.number in numbers for model in done.trained),
            }
        rows.append(row)
    if not quality[policies.EVERY_WINDOW][first].mean() > quality[policies.NEVER][first].mean():
        return {"settings": None, "tried": rows}
    enough = [row for row in rows if row["first_half"]["kept_gain"] >= ENOUGH]
    if enough:
        best = min(enough, key=lambda row: (row["first_half"]["trainings"], -row["first_half"]["mean"]))
    else:
        best = max(rows, key=lambda row: row["first_half"]["mean"])
    return {"settings": best, "tried": rows}
