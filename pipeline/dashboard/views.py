"""What the pages say, as plain values for the templates: no file is read here and no HTML made.

In: `Run`s, the registry's `State`. Out: dictionaries. A verdict is a pair: its kind (yes, no, unsure,
nothing: a class of style.css) and words. Times of data are the data's own, those of runs the clock's, all
UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pipeline import charts
from pipeline.dashboard.runs import REPORTS, Run
from pipeline.dashboard.timelines import quality_over_time, signals_over_time
from pipeline.documents.drift import Signal
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Reason
from pipeline.drift.verdicts import LABELS, Verdict, shown, verdict
from pipeline.evaluation.people import people
from pipeline.pages import MISSING, number, plain, show, words
from pipeline.pages import moment as moment_text
from pipeline.registry.versions import State, Version

RECENT = 8
"""Runs that are shown in full; older ones are a line each."""
BY = {"cycle": "evergreen cycle", "evergreen_monitoring": "monitoring", "evergreen_training": "training"}
KINDS = {Verdict.DRIFT: "no", Verdict.ONCE: "unsure", Verdict.NONE: "yes", Verdict.UNMEASURED: "nothing"}
MODELS, ABLATIONS = ("challenger", "champion"), ("without_text", "frozen_text", "frozen_state")
NO_REASON = (
    "it left no reason: it was marked as failed, killed, or ran out of time; the log of its task says more"
)
Values = dict[str, Any]
Pair = tuple[str, str]


def overview(runs: Sequence[Run], registry: State, problem: str | None = None) -> Values:
    """`runs`: the newest first; `problem`: why the registry could not be read."""
    summaries = [summary(run) for run in runs]
    judged = next((run for run in runs if run.promotion), None)
    now = max((run.as_of for run in runs if run.as_of), default=None)
    back = registry.predecessor(registry.champion) if registry.champion else None
    return {
        "title": "Evergreen",
        "champion": _champion(registry, now),
        "problem": problem,
        "broken": [one for one in _newest_of_each(summaries) if one["state"] == "failed"],
        "recent": summaries[:RECENT],
        "older": summaries[RECENT:],
        "signals": [
            _signal(one.name, one.newest) | {"chart": one.chart, "checks": one.checks}
            for one in signals_over_time(runs)
        ],
        "quality": quality_over_time(runs),
        "judged": judged and _judged(judged),
        "versions": _versions(registry),
        "back": back.name if back else None,
    }


def one_run(run: Run) -> Values:
    return {
        "title": title(run),
        "run": summary(run),
        "facts": _facts(run),
        "drift_text": run.drift.text if run.drift else "",
        "signals": [_signal(name, one) for name, one in run.signals.items()],
        "reasons": [_reason(one) for one in run.reasons],
        "judged": _judged(run),
        "reports": [
            _report(run, name) for name in REPORTS if name in run.reports or getattr(run, name, None)
        ],
    }


def title(run: Run) -> str:
    by = BY.get(run.record.dag, plain(run.record.dag, 60))
    when = f"data as of {day(run.as_of)}" if run.as_of else f"begun {day(run.record.started)}"
    return f"{by[0].upper()}{by[1:]}, {when}"


def frame(run: Run, report: str) -> Values:
    """Of a report: what stands around it."""
    return {"title": f"{report.capitalize()} report", "run": summary(run), "file": REPORTS[report]}


def link(run: Run) -> str:
    """From the overview."""
    return f"{quote(run.name, safe='')}/index.html"


def sentence(run: Run) -> str:
    """What became of a run, in one line."""
    if run.record.state != "success":
        return _state(run)[1] + (f": {error}" if (error := _error(run)) else "")
    verdicts = [words for kind, words in (_drift(run), _training(run), _promotion(run)) if kind != "nothing"]
    when = f" as of {day(run.as_of)}" if run.as_of else ""
    why = f": {run.record.not_promoted}" if run.record.not_promoted else ""
    done = "lists alone" if run.mode == "none" else "done"
    return f"{'; '.join(verdicts) or done}{when}{why}"


# The champion ----------------------------------------------------------------------------------------------


def _champion(registry: State, now: datetime | None) -> Values | None:
    champion = registry.champion
    if champion is None:
        return None
    record, appointment = champion.record, registry.appointments[-1].record
    return {
        "name": champion.name,
        "age": _days(record.fit_end, now),
        "fit_end": minute(record.fit_end),
        "now": minute(now),
        "since": minute(appointment.when),
        "how": "rolled back to" if appointment.action == "rollback" else "promoted",
        "approved_by": appointment.approved_by,
        "reason": appointment.reason or record.reason,
        "mode": record.mode,
        "rows": number(record.rows, 0),
        "ndcg": number((record.metrics or {}).get("ndcg@10")),
        "trainings": len(registry.trainings),
    }


def _versions(registry: State) -> list[Values]:
    """Newest first."""
    return [_version(version, registry) for version in reversed(registry.versions)]


def _version(version: Version, registry: State) -> Values:
    retired = "retired" if registry.was_champion(version) else "registered"
    return {
        "name": version.name,
        "status": "champion" if version == registry.champion else retired,
        "fit_end": day(version.record.fit_end),
        "when": minute(version.record.when),
        "mode": version.record.mode,
        "ndcg": number((version.record.metrics or {}).get("ndcg@10")),
        "commit": version.commit[:10],
    }


# A run in short --------------------------------------------------------------------------------------------


def summary(run: Run) -> Values:
    record, (kind, state) = run.record, _state(run)
    return {
        "link": link(run),
        "by": BY.get(record.dag, plain(record.dag, 60)),
        "as_of": minute(run.as_of),
        "began": minute(record.started) if record.started else plain(record.run_id, 120),
        "state": record.state,
        "state_kind": kind,
        "state_text": state,
        "error": _error(run),
        "not_promoted": record.not_promoted,
        "drift": _drift(run),
        "training": _training(run),
        "promotion": _promotion(run),
        "reasons": [plain(one.text, 400) for one in _telling(run)],
    }


def _newest_of_each(summaries: Sequence[Values]) -> list[Values]:
    """The newest run of every maker: a failure of one is not hidden by another's success."""
    newest: dict[str, Values] = {}
    for one in summaries:
        newest.setdefault(one["by"], one)
    return list(newest.values())


def _state(run: Run) -> Pair:
    state, step = run.record.state, words(run.record.step or "")
    if state == "failed" and _asks(run):
        return "no", "ended while a person was asked"
    if state == "failed":
        return "no", f"failed in {step}" if step else state
    if state == "running" and _asks(run):
        return "unsure", "waits for a person to say yes or no"
    if state == "running":
        return "unsure", f"running: {step}" if step else state
    return "yes", state


def _error(run: Run) -> str | None:
    return run.record.error or (NO_REASON if run.record.state == "failed" else None)


def _asks(run: Run) -> bool:
    """Whether a person is asked: the verdict is there, and nothing was begun since."""
    allowed = run.promotion is not None and run.promotion.promote and run.promotion.approval == "human"
    return allowed and run.record.step == "decide_promotion"


def _drift(run: Run) -> Pair:
    if run.drift is None:
        return "nothing", MISSING
    if run.drift.outcome != "ok":
        kind = "no" if run.drift.outcome == "bad_input" else "unsure"
        return kind, words(run.drift.outcome)
    if not run.drift.drift:
        return "yes", "no drift"
    drifted = [name for name, one in run.signals.items() if verdict(dict(one)) == Verdict.DRIFT]
    labels = ", ".join(LABELS.get(name, words(name)) for name in drifted[:3])
    more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
    return "no", f"drift: {labels}{more}" if labels else "drift"


def _training(run: Run) -> Pair:
    mode = words(run.mode or "")
    if run.trains:
        return "unsure", "judged again" if mode == "judge" else f"{mode} training"
    if run.retraining is None:
        return ("yes", "nothing new") if run.record.looked is False else ("nothing", MISSING)
    return ("unsure", f"{mode} training is due") if run.retraining.retrain else ("yes", "no training is due")


def _promotion(run: Run) -> Pair:
    if run.promotion is None:
        return "nothing", MISSING
    if run.record.promoted:
        return "yes", f"promoted: {plain(run.record.promoted, 40)}"
    if run.promotion.promote:
        return "unsure", "may be promoted" if run.record.state == "running" else "allowed, not promoted"
    failed = [words(check.name) for check in run.promotion.failed]
    return "no", f"refused: {', '.join(failed[:3]) or 'no verdict'}"


def _telling(run: Run) -> list[Reason]:
    """At most three reasons: those that call for something first."""
    return sorted(run.reasons, key=lambda one: one.calls is None)[:3]


# A run in full ---------------------------------------------------------------------------------------------


def _facts(run: Run) -> list[tuple[str, str]]:
    record = run.record
    seconds = None
    if record.started and record.finished:
        seconds = (record.finished - record.started).total_seconds()
    facts = {
        "Run": plain(record.run_id, 120),
        "State": _state(run)[1],
        "Data as of": minute(run.as_of),
        "Champion before": plain(record.champion or "none", 60),
        "Training": words(run.mode or MISSING),
        "Promoted": plain(record.promoted or MISSING, 60),
        "Not promoted": plain(record.not_promoted or MISSING, 400),
        "Approved by": plain(record.approved_by or MISSING, 120),
        "Began": minute(record.started),
        "Took": MISSING if seconds is None else f"{number(seconds, 0)} s",
        "Commit": plain(record.commit or MISSING, 12),
        "Branch": plain(record.branch or MISSING, 120),
    }
    return [(name, value) for name, value in facts.items() if value != MISSING]


def _report(run: Run, name: str) -> Values:
    """A report is offered where it was kept; of one that the run has made elsewhere, how to fetch it."""
    return {
        "label": f"{name.capitalize()} report",
        "link": f"{name}-report.html" if name in run.reports else None,
        "branch": run.record.branch,
        "path": f"reports/{REPORTS[name]}",
    }


def _signal(name: str, one: Signal) -> Values:
    said = verdict(dict(one))
    return {
        "label": LABELS.get(name, words(name)),
        "kind": KINDS[said],
        "said": shown(said),
        "value": number(one.value),
        "floor": number(one.floor),
        "p": number(one.p_value),
        "text": one.text,
    }


def _reason(one: Reason) -> Values:
    parts = [show(one.value)] if one.value is not None else []
    parts += [f"threshold {show(one.threshold)}"] if one.threshold is not None else []
    parts += [f"calls for {one.calls}"] if one.calls else []
    return {"signal": words(one.signal), "measured": ", ".join(parts), "text": one.text}


def _judged(run: Run) -> Values | None:
    """The promotion's checks and the evaluation behind them."""
    if run.promotion is None:
        return None
    kind, word = _promotion(run)
    checks, idle = checks_of(run.promotion)
    rows = _intervals(run)
    return {
        "link": link(run),
        "as_of": minute(run.as_of),
        "kind": kind,
        "word": word,
        "checks": checks,
        "idle": idle,
        "warnings": run.promotion.warnings,
        "users": number(run.figures("challenger").get("users"), 0),
        "points": number(run.figures("challenger").get("points"), 0),
        "chart": charts.interval_chart([row for _, row in rows], label="nDCG@10 of every model"),
        "models": [_model(run, name, row) for name, row in rows],
        "people": people(run.evaluation.to_dict()) if run.evaluation else None,
    }


def checks_of(promotion: Promotion) -> tuple[list[Values], list[Values]]:
    """Those that compared something, the failed ones first; those with nothing to compare, by reason."""
    checks: list[Values] = []
    idle: dict[str, list[str]] = {}
    for check in promotion.checks:
        if check.passed and check.value is None and check.limit is None:
            idle.setdefault(plain(check.text, 200), []).append(words(check.name))
            continue
        limit = f", limit {_short(check.limit)}" if check.limit is not None else ""
        measured = f"{_short(check.value)}{limit}"
        checks.append(
            {"name": words(check.name), "passed": check.passed, "measured": measured, "text": check.text}
        )
    idle_checks = [{"why": why, "names": ", ".join(names)} for why, names in idle.items()]
    return sorted(checks, key=lambda check: check["passed"]), idle_checks


def _short(value: Any) -> str:
    """Of a model's hash, enough to tell two apart; times to the minute."""
    if isinstance(value, str) and len(value) == 64 and value.isalnum():
        return f"{value[:8]}…"
    return moment_text(show(value))


def _intervals(run: Run) -> list[tuple[str, charts.Interval]]:
    """By model: challenger and champion first, then the best."""
    intervals = []
    for name in run.evaluation.models if run.evaluation else ():
        value, low, high = (run.figures(name).get(f"ndcg@10{end}") for end in ("", "_low", "_high"))
        kind = name if name in MODELS else "ablation" if name in ABLATIONS else "baseline"
        if value is not None:
            intervals.append((name, charts.Interval(words(name), value, low, high, kind)))
    return sorted(intervals, key=lambda row: (row[0] not in MODELS, -(row[1].value or 0.0)))[:24]


def _model(run: Run, name: str, row: charts.Interval) -> Values:
    pair = run.evaluation.paired.get(name) if run.evaluation else None
    gap, low, high = (
        number(end, sign=True) for end in ((pair.ndcg, pair.low, pair.high) if pair else (None,) * 3)
    )
    return {
        "label": row.label,
        "kind": row.kind,
        "ndcg": number(row.value),
        "recall": number(run.figures(name).get("recall@10")),
        "gap": gap if gap == MISSING else f"{gap} [{low}, {high}]",
    }


# Times -----------------------------------------------------------------------------------------------------


def day(value: datetime | None) -> str:
    return MISSING if value is None else f"{value:%Y-%m-%d}"


def minute(value: datetime | None) -> str:
    return MISSING if value is None else f"{value:%Y-%m-%d %H:%M}"


def _days(begin: datetime | None, end: datetime | None) -> str:
    if begin is None or end is None:
        return MISSING
    days = round((end - begin).total_seconds() / 86_400)
    return f"{number(days, 0)} day{'' if abs(days) == 1 else 's'}"
