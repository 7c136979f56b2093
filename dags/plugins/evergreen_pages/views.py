"""What each page says, as plain values for the templates: no file is read here and no HTML made.

In: `Run`s (oldest first), the `Registry`. Out: dictionaries. Times are the data's own, in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from evergreen_pages import charts
from evergreen_pages.history import Run
from evergreen_pages.registry import Registry
from evergreen_pages.untrusted import (
    MISSING,
    day,
    days,
    finite,
    get,
    mapping,
    minute,
    moment,
    number,
    plain,
    show,
    string,
    words,
)

RECENT = 8
"""Decisions that are told in full; older ones are a line each."""
DAGS = {"cycle": "evergreen cycle", "evergreen_monitoring": "monitoring", "evergreen_training": "training"}
LABELS = {
    "schema": "Schema",
    "missing": "Missing values",
    "quality": "Champion's quality",
    "volume": "Volume",
    "events": "Kinds of event",
    "values": "Values",
    "user_activity": "Activity of users",
    "new_users": "New users",
    "new_items": "New items",
    "item_popularity": "Popularity of items",
    "categories": "Categories",
    "text": "Texts of items",
    "embedding": "Centre of the texts' vectors",
    "scores": "Champion's scores",
    "coverage": "Coverage of the lists",
    "list_popularity": "Popularity of what is listed",
}
MODELS = ("challenger", "champion")
SAID = {"drift": "drift", "once": "not confirmed", "none": "no drift", "unmeasured": "not measured"}
Values = dict[str, Any]


def overview(runs: Sequence[Run], registry: Registry) -> Values:
    told = [summary(run, registry) for run in reversed(runs)]
    judged = next((run for run in reversed(runs) if run.judged), None)
    now = max((run.as_of for run in runs if run.as_of), default=None)
    return {
        "title": "Evergreen",
        "now": minute(now),
        "champion": _champion(registry, now),
        "problem": registry.problem,
        "recent": told[:RECENT],
        "older": told[RECENT:],
        "signals": signals_over_time(runs),
        "quality": quality_over_time(runs, registry),
        "judged": judged
        and (verdict(judged, registry) | {"link": link(judged), "as_of": minute(judged.as_of)}),
        "versions": _versions(registry),
        "back": registry.predecessor,
    }


def one_run(run: Run, registry: Registry, reports: Mapping[str, str | None]) -> Values:
    """`reports`: name -> None if it can be shown, else why not."""
    told = summary(run, registry)
    return {
        "title": f"Run {plain(run.run_id or run.name, 120)}",
        "run": told,
        "facts": _facts(run),
        "drift_text": string(run.drift, "text"),
        "signals": [_signal(name, one) for name, one in run.signals.items()],
        "reasons": [_reason(one) for one in run.reasons],
        "judged": verdict(run, registry) if run.judged else None,
        "reports": [
            {"name": name, "label": f"{name.capitalize()} report", "problem": problem}
            for name, problem in reports.items()
        ],
    }


def link(run: Run) -> str:
    """Below the page's root."""
    return f"runs/{quote(run.name, safe='')}/"


# The champion ----------------------------------------------------------------------------------------------


def _champion(registry: Registry, now: datetime | None) -> Values | None:
    champion = registry.champion
    if champion is None:
        return None
    appointment = registry.appointments[-1]
    metrics = mapping(champion.record, "metrics")
    return {
        "name": champion.name,
        "age": days(champion.fit_end, now),
        "fit_end": minute(champion.fit_end),
        "since": minute(moment(get(appointment.record, "when"))),
        "how": "rolled back to" if appointment.is_rollback else "promoted",
        "reason": string(appointment.record, "reason") or champion.reason,
        "mode": string(champion.record, "mode"),
        "rows": number(get(champion.record, "rows"), 0),
        "ndcg": number(get(metrics, "ndcg@10")),
        "trainings": registry.trainings,
    }


def _versions(registry: Registry) -> list[Values]:
    """Newest first."""
    champion, appointed = registry.champion, {one.version for one in registry.appointments}
    found = []
    for name, version in reversed(list(registry.versions.items())):
        status = "champion" if version == champion else "retired" if name in appointed else "registered"
        metrics = mapping(version.record, "metrics")
        found.append(
            {
                "name": name,
                "status": status,
                "fit_end": day(version.fit_end),
                "when": minute(moment(get(version.record, "when"))),
                "mode": string(version.record, "mode") or MISSING,
                "ndcg": number(get(metrics, "ndcg@10")),
                "commit": (version.commit or "")[:10],
            }
        )
    return found


# A run in short --------------------------------------------------------------------------------------------


def summary(run: Run, registry: Registry) -> Values:
    """A run's three answers, each a kind (yes, no, unsure, nothing) and a word, and the reasons."""
    return {
        "name": run.name,
        "link": link(run),
        "id": plain(run.run_id or run.name, 120),
        "by": DAGS.get(run.dag, plain(run.dag, 60)),
        "as_of": minute(run.as_of),
        "state": run.state,
        "state_text": _state(run),
        "drift": _drift(run),
        "training": _training(run),
        "promotion": _promotion(run, registry),
        "reasons": [plain(get(one, "text"), 400) for one in _telling(run)],
    }


def _drift(run: Run) -> tuple[str, str]:
    outcome = string(run.drift, "outcome")
    if outcome is None:
        return "nothing", MISSING
    if outcome != "ok":
        return "unsure", words(outcome)
    flagged = [name for name, one in run.signals.items() if said(one) == "drift"]
    if get(run.drift, "drift") is True:
        labels = [LABELS.get(name, words(name)) for name in flagged[:3]]
        more = f" and {len(flagged) - 3} more" if len(flagged) > 3 else ""
        return "no", f"drift: {', '.join(labels)}{more}" if labels else "drift"
    return "yes", "no drift"


def _training(run: Run) -> tuple[str, str]:
    retrain, mode = get(run.retraining, "retrain"), run.mode if run.mode != "none" else None
    if run.judged and mode:
        return "unsure", f"{words(mode)} training"
    if retrain is True:
        return "unsure", f"{words(mode or '')} training is due".strip()
    if retrain is None and get(run.run, "looked") is False:
        return "yes", "nothing new"
    return ("yes", "no training is due") if retrain is False else ("nothing", MISSING)


def _promotion(run: Run, registry: Registry) -> tuple[str, str]:
    if not run.judged:
        return "nothing", MISSING
    if version := promoted(run, registry):
        return "yes", f"promoted: {plain(version, 40)}"
    if run.promote:
        return "unsure", "allowed, not carried out"
    failed = [words(get(check, "name")) for check in run.checks if get(check, "passed") is not True]
    return "no", f"refused: {', '.join(failed[:3]) or 'no verdict'}"


def promoted(run: Run, registry: Registry) -> str | None:
    """The version that this run made champion; for old folders the registry knows it by the model's hash."""
    if run.promoted or not run.promote:
        return run.promoted
    if string(run.run, "dag"):
        return None
    wanted, appointed = get(run.promotion, "challenger", "artifact_hash"), registry.appointments
    for version in registry.versions.values():
        if wanted and get(version.record, "artifact_hash") == wanted:
            return version.name if any(one.version == version.name for one in appointed) else None
    return None


def _telling(run: Run) -> list[dict[str, Any]]:
    """At most three reasons: those that call for something first."""
    return sorted(run.reasons, key=lambda one: get(one, "calls") is None)[:3]


# A run in full ---------------------------------------------------------------------------------------------


def _facts(run: Run) -> list[tuple[str, str]]:
    seconds = (run.finished - run.started).total_seconds() if run.finished and run.started else None
    facts = {
        "Run by": DAGS.get(run.dag, plain(run.dag, 60)),
        "State": _state(run),
        "Data as of": minute(run.as_of),
        "Champion before": plain(run.champion or "none", 60),
        "Training": words(run.mode or MISSING),
        "Began": minute(run.started),
        "Took": MISSING if seconds is None else f"{number(seconds, 0)} s",
        "Commit": plain(string(run.run, "commit") or MISSING, 12),
        "Branch": plain(string(run.run, "branch") or MISSING, 120),
    }
    return [(name, value) for name, value in facts.items() if value != MISSING]


def _state(run: Run) -> str:
    step = string(run.run, "step")
    return plain(f"failed in {step}" if step and run.state == "failed" else run.state or MISSING, 60)


def said(signal: Any) -> str:
    """A hard flag counts at once, a soft one once the window before confirms it."""
    if get(signal, "flag") is True:
        at_once = get(signal, "kind") == "hard" or get(signal, "confirmed") is True
        return "drift" if at_once else "once"
    return "unmeasured" if finite(get(signal, "value")) is None else "none"


def _signal(name: str, one: Any) -> Values:
    kind = said(one)
    return {
        "label": LABELS.get(name, words(name)),
        "kind": kind,
        "said": SAID[kind],
        "value": number(get(one, "value")),
        "floor": number(get(one, "floor")),
        "p": number(get(one, "p_value")),
        "text": string(one, "text") or "",
    }


def _reason(one: dict[str, Any]) -> Values:
    return {
        "signal": words(get(one, "signal")),
        "value": show(get(one, "value")),
        "threshold": show(get(one, "threshold")),
        "calls": words(get(one, "calls") or MISSING),
        "text": string(one, "text") or "",
    }


def verdict(run: Run, registry: Registry) -> Values:
    """The promotion's checks and the evaluation behind them."""
    kind, word = _promotion(run, registry)
    checks = [
        {
            "name": words(get(check, "name")),
            "passed": get(check, "passed") is True,
            "value": show(get(check, "value")),
            "limit": show(get(check, "limit")),
            "text": string(check, "text") or "",
        }
        for check in run.checks
    ]
    models = mapping(run.evaluation, "models")
    everyone = mapping(models, "challenger")
    warnings = get(run.promotion, "warnings")
    return {
        "kind": kind,
        "word": word,
        "checks": sorted(checks, key=lambda check: check["passed"]),
        "warnings": [plain(one, 400) for one in warnings if isinstance(one, str)]
        if isinstance(warnings, list)
        else [],
        "users": number(get(everyone, "users"), 0),
        "points": number(get(everyone, "points"), 0),
        "chart": charts.intervals(_intervals(models), "nDCG@10 of every model"),
        "models": _models(run),
    }


def _intervals(models: dict[str, Any]) -> list[charts.Interval]:
    found = []
    for name, one in models.items():
        value = finite(get(one, "ndcg@10"))
        if value is None:
            continue
        ends = (finite(get(one, "ndcg@10_low")), finite(get(one, "ndcg@10_high")))
        kind = name if name in MODELS else "ablation" if name.endswith("_text") else "baseline"
        found.append(charts.Interval(words(name), value, *ends, kind=kind))
    return sorted(found, key=lambda row: (row.kind not in MODELS, -row.value))[:24]


def _models(run: Run) -> list[Values]:
    found = []
    for row in _intervals(mapping(run.evaluation, "models")):
        name = row.label.replace(" ", "_")
        pair = mapping(run.evaluation, "paired", name)
        gap = number(get(pair, "ndcg@10"), sign=True)
        ends = [number(get(pair, end), sign=True) for end in ("low", "high")]
        found.append(
            {
                "label": row.label,
                "kind": row.kind,
                "ndcg": number(row.value),
                "recall": number(get(run.evaluation, "models", name, "recall@10")),
                "gap": gap if gap == MISSING else f"{gap} [{ends[0]}, {ends[1]}]",
            }
        )
    return found


# Over time -------------------------------------------------------------------------------------------------


def signals_over_time(runs: Sequence[Run]) -> list[Values]:
    """A curve for each signal of the newest check; a run that checked the same again counts once."""
    checked = {
        (run.as_of, string(run.drift, "champion")): run
        for run in runs
        if run.as_of and get(run.drift, "outcome") == "ok"
    }
    if not checked:
        return []
    ordered = list(checked.values())
    names = list(ordered[-1].signals)
    return [_curve(name, ordered) for name in sorted(names, key=_place)]


def _place(name: str) -> int:
    return list(LABELS).index(name) if name in LABELS else len(LABELS)


def _curve(name: str, runs: Sequence[Run]) -> Values:
    newest = mapping(runs[-1].signals, name)
    xs, ys, flags = [], [], []
    for run in runs:
        value = finite(get(run.signals, name, "value"))
        if value is not None and run.as_of:
            xs.append(run.as_of.timestamp())
            ys.append(value)
            flags.append(get(run.signals, name, "flag") is True)
    floor = finite(get(newest, "floor"))
    if name == "quality" and floor is not None:
        floor = -floor  # a loss counts, a gain does not
    return _signal(name, newest) | {"chart": charts.spark(xs, ys, flags, floor), "checks": len(ys)}


def quality_over_time(runs: Sequence[Run], registry: Registry) -> Values | None:
    """nDCG@10 of every challenger on the test window of its own day; champion and popularity beside it."""
    judged = {
        (run.as_of, string(run.promotion, "challenger", "artifact_hash")): run
        for run in runs
        if run.judged and run.as_of and run.ndcg("challenger") is not None
    }
    points, events = [], []
    lines: dict[str, list[charts.Point]] = {"champion": [], "recent_popularity": []}
    for run in judged.values():
        version, x = promoted(run, registry), run.as_of.timestamp() if run.as_of else 0.0
        fate = f"promoted: {version}" if version else "refused"
        title = f"{day(run.as_of)}: challenger {number(run.ndcg('challenger'))}, {fate}"
        points.append(
            charts.Point(x, run.ndcg("challenger") or 0.0, title, "promoted" if version else "refused")
        )
        if version:
            events.append(charts.Event(x, version.removesuffix(".0.0")))
        for name, line in lines.items():
            value = run.ndcg(name)
            if value is not None:
                line.append(charts.Point(x, value, f"{day(run.as_of)}: {words(name)} {number(value)}", name))
    if not points:
        return None
    ends = sorted({(point.x, point.title[:10]) for point in points})
    dates = [ends[0], ends[-1]] if len(ends) > 1 else ends
    label = f"nDCG@10 of {len(points)} trainings, {len(events)} of them promoted"
    dots = [*(point for line in lines.values() for point in line if len(line) == 1), *points]
    return {"chart": charts.timeline(dots, list(lines.values()), events, dates, label), "label": label}
