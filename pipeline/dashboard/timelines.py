"""What the overview draws over time: the drift check's signals, and the quality of what was trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.charts import Event, Series, line_chart, spark_line
from pipeline.dashboard.runs import NEVER, Run
from pipeline.documents.drift import Signal
from pipeline.drift.verdicts import LABELS
from pipeline.pages import number, words

BESIDE = ("champion", "recent_popularity")
"""Models that are drawn beside the challengers, at the same points."""


@dataclass(frozen=True)
class Curve:
    """A signal over the checks that measured it; `newest` is that of the last check."""

    name: str
    newest: Signal
    checks: int
    chart: Markup


def by_data(runs: Iterable[Run]) -> list[Run]:
    """Oldest data first; of several on the same data, the one that ran last comes last."""
    return sorted((run for run in runs if run.as_of), key=lambda run: (run.as_of or NEVER, run.order()))


def signals_over_time(runs: Iterable[Run]) -> list[Curve]:
    """Of each signal of the newest check. A check of the same data and champion again counts once."""
    drifts = [(run.as_of, run) for run in by_data(runs) if run.drift and run.drift.outcome == "ok"]
    checked = list({(as_of, run.drift and run.drift.champion): run for as_of, run in drifts}.values())
    if not checked:
        return []
    places = {name: place for place, name in enumerate(LABELS)}
    newest = checked[-1].signals
    return [_curve(name, newest[name], checked) for name in sorted(newest, key=lambda n: places.get(n, 99))]


def _curve(name: str, newest: Signal, runs: Sequence[Run]) -> Curve:
    signals = [(_x(run), run.signals[name]) for run in runs if name in run.signals]
    known = [(x, signal.value, signal.flag) for x, signal in signals if signal.value is not None]
    xs, ys, flags = ([row[column] for row in known] for column in range(3))
    floor = newest.floor
    if name == "quality" and floor is not None:
        floor = -floor  # a loss counts, a gain does not
    said = f"from {number(ys[0])} to {number(ys[-1])}, flagged {sum(flags)} times" if ys else ""
    return Curve(name, newest, len(ys), spark_line(xs, ys, [bool(f) for f in flags], label=said, floor=floor))


def quality_over_time(runs: Iterable[Run]) -> Markup:
    """nDCG@10 of every challenger on the test window of its own day; champion and popularity beside it."""
    trained = {
        (run.as_of, run.promotion.challenger.artifact_hash): run
        for run in by_data(runs)
        if run.promotion and run.ndcg("challenger") is not None
    }
    judged = list(trained.values())
    if not judged:
        return Markup("")
    promoted = [run for run in judged if run.record.promoted]
    refused = [run for run in judged if not run.record.promoted]
    series = [_series(name, judged, name if name == "champion" else "baseline") for name in BESIDE]
    series += [_series("challenger", promoted, "promoted"), _series("challenger", refused, "refused")]
    events = [Event(_x(run), str(run.record.promoted).removesuffix(".0.0")) for run in promoted]
    marks = {_x(run): f"{run.as_of:%Y-%m-%d}" for run in (judged[0], judged[-1])}
    label = f"nDCG@10 of {len(judged)} trainings, {len(promoted)} of them promoted"
    return line_chart(series, label=label, height=220, x_marks=list(marks.items()), events=events)


def _x(run: Run) -> float:
    return run.as_of.timestamp() if run.as_of else 0.0


def _series(model: str, runs: Sequence[Run], kind: str) -> Series:
    values, places = [run.ndcg(model) for run in runs], [_x(run) for run in runs]
    return Series(words(model), values, places, kind=kind, joined=model != "challenger")
