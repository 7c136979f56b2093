"""Is it time to train again, and how thoroughly? Decides; `evergreen cycle` acts.

In: reports/drift.json, data/registry.json (champion, versions, trainings), data/raw/manifest.json (as_of).
Out: reports/retraining.json `{"retrain", "mode": "none|refresh|full", "reasons": [{"signal", "value",
"threshold", "p_value", "text", "calls"}], "champion", "as_of", "policy"}`. "Now" is the data's as_of.

Rule. No champion: full. Otherwise something must call for a training, and nothing hold it back.
- Calls: a quality drop, or another signal's confirmed drift, if the newest window closed after the last
  training: what that training has seen already is no new evidence. The calendar: the days, or the rows, that
  came since the last training, promoted or not. Rows count as a share of those that it had, so that the
  calendar has the same meaning for every size and pace of data.
- The mode is the more thorough of those called for; the calendar calls for a refresh. Every `full_every`-th
  training is full.
- Held back: too few new rows, too soon, labels not in yet, too many trainings or seconds in the last 30 days.
Whatever cannot be read, or is not of this data and this champion, trains nothing and says so.

    python -m pipeline.stages.decide_retraining reports/drift.json data/registry.json \\
        data/raw/manifest.json reports/retraining.json
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.decisions import get, iso, moment, number, read_json, string, write_json
from pipeline.params import DecideRetraining, Params
from pipeline.run import run

log = logging.getLogger(__name__)
MODES = ("none", "refresh", "full")
OUTCOMES = ("ok", "no_champion", "not_enough_data", "bad_input")
QUALITY = "quality"
MONTH = timedelta(days=30)

Reason = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is known of the champion's age, read once."""

    now: datetime
    drift: dict[str, Any]
    trainings: list[dict[str, Any]]
    """Oldest first: `as_of`, `mode`, `rows` (that its data had), `training.seconds`."""
    known_until: datetime | None
    """as_of of the last training's data; without any record of it, the champion's own."""
    new_rows: float | None
    """Rows that are later than the champion's fit_end and were not there at the last training."""
    known_rows: float | None
    """Rows that were there then."""


def decide_retraining(drift: Any, registry: Any, manifest: Any, settings: DecideRetraining) -> dict[str, Any]:
    """The decision as a dictionary ready for JSON. Never raises, whatever the first three arguments hold.

    Read are: of `drift` outcome, as_of, champion, drift, signals, the last window's (or current's) `to`,
    rows_since_fit_end and rows_fitted; of `registry` champion, versions (version, as_of) and trainings,
    oldest first (as_of, mode, rows, training.seconds); of `manifest` as_of and rows.kept.
    """
    unusable = _unusable(drift, registry, manifest)
    if unusable:
        mode, reasons = "none", [unusable]
    elif drift["outcome"] == "no_champion":
        mode, reasons = "full", [_reason("champion", None, None, "there is no champion yet", calls="full")]
    else:
        mode, reasons = _weigh(_case(drift, registry, manifest), settings)
    return {
        "retrain": mode != "none",
        "mode": mode,
        "reasons": reasons,
        "champion": string(registry, "champion"),
        "as_of": iso(moment(get(manifest, "as_of"))),
        "policy": settings.model_dump(),
    }


def sentence(decision: dict[str, Any]) -> str:
    """The decision for people, in one line."""
    calls = [reason["text"] for reason in decision["reasons"] if reason["calls"] in MODES[1:]]
    others = [reason["text"] for reason in decision["reasons"] if reason["calls"] not in MODES[1:]]
    if decision["retrain"]:
        return f"{decision['mode']}: " + "; ".join(calls)
    held = [reason["text"] for reason in decision["reasons"] if reason["calls"] == "none"]
    if calls and held:
        return f"none: {'; '.join(held)}; else due: {'; '.join(calls)}"
    return "none: " + "; ".join(held or others)


# What cannot be decided on ---------------------------------------------------------------------------------


def _unusable(drift: Any, registry: Any, manifest: Any) -> Reason | None:
    """Why the inputs allow no decision: unreadable, of other data or champion, or no data to check."""
    text = _malformed(drift, registry, manifest) or _mismatch(drift, registry, manifest)
    if text is None and drift["outcome"] == "bad_input":
        said = string(drift, "text") or "; ".join(
            str(get(signal, "text")) for signal in _signals(drift).values() if get(signal, "flag") is True
        )
        text = f"the data cannot be checked for drift, mend them first: {said or 'see reports/drift.json'}"
    return _reason("input", None, None, text, calls="none") if text else None


def _malformed(drift: Any, registry: Any, manifest: Any) -> str | None:
    trainings = get(registry, "trainings")
    if not isinstance(trainings, list) or not all(isinstance(one, dict) for one in trainings):
        return "data/registry.json cannot be read: run `evergreen champion`"
    if "champion" not in registry or not isinstance(registry["champion"], str | None):
        return "data/registry.json does not say which version is the champion: run `evergreen champion`"
    if moment(get(manifest, "as_of")) is None:
        return "data/raw/manifest.json has no as_of: run `dvc repro --force collect`"
    outcome = get(drift, "outcome")
    if outcome not in OUTCOMES:
        return "reports/drift.json cannot be read: run `dvc repro --force detect_drift`"
    if outcome == "ok" and not (isinstance(drift.get("drift"), bool) and _signals(drift)):
        return "reports/drift.json has no verdict or no signals: run `dvc repro --force detect_drift`"
    return None


def _mismatch(drift: dict[str, Any], registry: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    own, checked = registry["champion"], string(drift, "champion")
    now, then = moment(manifest["as_of"]), moment(drift.get("as_of"))
    if own is None and drift["outcome"] != "no_champion":
        return (
            f"reports/drift.json is about {checked}, but there is no champion: run `dvc repro detect_drift`"
        )
    if own is not None and checked != own:
        return (
            f"reports/drift.json is about {checked or 'no champion'}, but {own} is the champion:"
            " run `evergreen champion` and `dvc repro detect_drift`"
        )
    if drift["outcome"] == "bad_input":
        return None
    if now != then and (then is not None or own is not None):
        text = f"reports/drift.json is as of {iso(then)}, the data as of {iso(now)}"
        return f"{text}: run `dvc repro detect_drift`"
    return None


def _signals(drift: Any) -> dict[str, Any]:
    signals = get(drift, "signals")
    return signals if isinstance(signals, dict) else {}


# What is known ---------------------------------------------------------------------------------------------


def _case(drift: dict[str, Any], registry: dict[str, Any], manifest: dict[str, Any]) -> Case:
    trainings: list[dict[str, Any]] = registry["trainings"]
    last = trainings[-1] if trainings else None
    now = moment(manifest["as_of"])
    assert now is not None
    known_until = moment(get(last, "as_of")) or _champions_as_of(registry)
    had, fitted = number(get(last, "rows")), number(drift.get("rows_fitted"))
    since = number(drift.get("rows_since_fit_end"))
    kept = number(get(manifest, "rows", "kept"))
    new: float | None = None
    known = had or fitted
    if since is not None and fitted is not None:
        # Those held out from the last training were there: what has come is what is beyond them.
        new = max(since - max((had or fitted) - fitted, 0), 0)
    elif kept is not None and had is not None:
        new = max(kept - had, 0)
    return Case(now, drift, trainings, known_until, new, known)


def _champions_as_of(registry: dict[str, Any]) -> datetime | None:
    versions = registry.get("versions")
    for version in versions if isinstance(versions, list) else []:
        if get(version, "version") == registry["champion"]:
            return moment(get(version, "as_of"))
    return None


# What calls for a training, and what holds it back ---------------------------------------------------------


def _weigh(case: Case, settings: DecideRetraining) -> tuple[str, list[Reason]]:
    calendar = [_age(case, settings), _new_share(case, settings)]
    reasons = [*_evidence(case, settings), *(reason for reason in calendar if reason)]
    called = [reason["calls"] for reason in reasons if reason["calls"] in MODES[1:]]
    if not called:
        return "none", reasons or [_reason("policy", None, None, "the policy names nothing that is due")]
    held = _held_back(case, settings)
    if held:
        return "none", [*reasons, *held]
    mode = max(called, key=MODES.index)
    turn = _turn_of_full(case, settings) if mode == "refresh" else None
    return ("full", [*reasons, turn]) if turn else (mode, reasons)


def _evidence(case: Case, settings: DecideRetraining) -> list[Reason]:
    """Of drift.json: a reason for each signal that drifted; one that says no if none did."""
    outcome, drift = case.drift["outcome"], case.drift
    if outcome == "not_enough_data":
        text = string(drift, "text") or "too little new data to check it for drift"
        return [_reason("drift", None, None, text)]
    if not drift["drift"]:  # its verdict is the whole: flags alone call for nothing
        return [_reason("drift", None, None, "no drift")]
    drifted = {
        name: signal
        for name, signal in _signals(drift).items()
        if get(signal, "flag") is True and get(signal, "confirmed") is not False
    }
    if not drifted:
        text = "reports/drift.json says drift, without a signal that says which"
        drifted = {"drift": {"text": text}}
    return [
        _quality(case, settings, signal)
        if name == QUALITY
        else _seen(case, settings, name, signal, settings.drift)
        for name, signal in drifted.items()
    ]


def _seen(case: Case, settings: DecideRetraining, name: str, signal: Any, mode: str) -> Reason:
    """The reason of a drifted signal; it calls for nothing if the last training has seen its window."""
    text, calls = string(signal, "text") or f"{name} drifted", None if mode == "ignore" else mode
    to = _window_end(case.drift)
    if calls is None:
        text += " (the policy ignores it)"
    elif to is not None and case.known_until is not None and to <= case.known_until:
        text, calls = f"{text} (the last training, of {iso(case.known_until)}, had seen it)", None
    return _reason(
        name,
        number(get(signal, "value")),
        number(get(signal, "floor")),
        text,
        p_value=number(get(signal, "p_value")),
        calls=calls,
    )


def _window_end(drift: dict[str, Any]) -> datetime | None:
    """When the newest window closed; where none is named, the last of the current rows."""
    windows = drift.get("windows")
    newest = windows[-1] if isinstance(windows, list) and windows else None
    return moment(get(newest, "to")) or moment(get(drift, "current", "to"))


def _quality(case: Case, settings: DecideRetraining, signal: Any) -> Reason:
    """The quality signal; it calls for nothing before the labels of its window are in."""
    reason = _seen(case, settings, QUALITY, signal, settings.quality_drop)
    to = _window_end(case.drift)
    if settings.label_delay_days and (to is None or case.now - to < timedelta(settings.label_delay_days)):
        late = f"labels of that window are complete after {settings.label_delay_days:g} days, so not yet"
        return reason | {"text": f"{reason['text']} ({late})", "calls": None}
    return reason


def _age(case: Case, settings: DecideRetraining) -> Reason | None:
    limit = settings.max_age_days
    if limit is None:
        return None
    if case.known_until is None:
        return _reason("max_age_days", None, limit, "the last training's as_of is not known")
    days = (case.now - case.known_until) / timedelta(days=1)
    text = f"{days:.1f} days of data since the last training; due after {limit:g}"
    return _reason("max_age_days", round(days, 3), limit, text, calls="refresh" if days >= limit else None)


def _new_share(case: Case, settings: DecideRetraining) -> Reason | None:
    limit = settings.max_new_share
    if limit is None:
        return None
    if case.new_rows is None or not case.known_rows:
        return _reason("max_new_share", None, limit, "the rows since the last training are not known")
    share = case.new_rows / case.known_rows
    text = (
        f"{case.new_rows:,.0f} rows came since the last training, {share:.1%} of the {case.known_rows:,.0f}"
        f" that it had; due at {limit:.0%}"
    )
    calls = "refresh" if share >= limit else None
    return _reason("max_new_share", round(share, 6), limit, text, calls=calls)


def _turn_of_full(case: Case, settings: DecideRetraining) -> Reason | None:
    every = settings.full_every
    if every is None:
        return None
    modes = [string(training, "mode") for training in case.trainings]
    since = modes[::-1].index("full") if "full" in modes else len(modes)
    text = f"the last full training was {since + 1} trainings ago; one in {every} is full"
    return _reason("full_every", since + 1, every, text, calls="full") if since + 1 >= every else None


def _held_back(case: Case, settings: DecideRetraining) -> list[Reason]:
    found = [_few_rows(case, settings), _gap(case, settings), *_budget(case, settings)]
    return [reason | {"calls": "none"} for reason in found if reason]


def _few_rows(case: Case, settings: DecideRetraining) -> Reason | None:
    limit = settings.min_new_rows
    if case.new_rows is None and limit:
        return _reason("min_new_rows", None, limit, "held back: it is not known how many rows are new")
    if case.new_rows is None or case.new_rows >= limit:
        return None
    text = f"held back: {case.new_rows:,.0f} new rows since the last training, fewer than {limit:,}"
    return _reason("min_new_rows", case.new_rows, limit, text)


def _gap(case: Case, settings: DecideRetraining) -> Reason | None:
    """Too soon after the last training, or the labels of what came since are not in."""
    name = "label_delay_days" if settings.label_delay_days > settings.min_gap_days else "min_gap_days"
    limit = max(settings.min_gap_days, settings.label_delay_days)
    if not limit:
        return None
    if case.known_until is None:
        return _reason(name, None, limit, "held back: the last training's as_of is not known")
    days = (case.now - case.known_until) / timedelta(days=1)
    if days >= limit:
        return None
    why = "labels take" if name == "label_delay_days" else "there must be at least"
    text = f"held back: {days:.1f} days of data since the last training; {why} {limit:g}"
    return _reason(name, round(days, 3), limit, text)


def _budget(case: Case, settings: DecideRetraining) -> list[Reason]:
    dated = [(moment(get(training, "as_of")), training) for training in case.trainings]
    recent = [training for then, training in dated if then and case.now - MONTH < then <= case.now]
    reasons, limit, seconds = [], settings.max_trainings_per_month, settings.max_seconds_per_month
    if limit is not None and len(recent) >= limit:
        text = f"held back: {len(recent)} trainings within the last 30 days of data; allowed are {limit}"
        reasons.append(_reason("max_trainings_per_month", len(recent), limit, text))
    spent = sum(number(get(training, "training", "seconds")) or 0 for training in recent)
    if seconds is not None and spent >= seconds:
        text = (
            f"held back: {spent:,.0f} s of training within the last 30 days of data; allowed are {seconds:,g}"
        )
        reasons.append(_reason("max_seconds_per_month", spent, seconds, text))
    return reasons


def _reason(
    signal: str,
    value: float | None,
    threshold: float | None,
    text: str,
    p_value: float | None = None,
    calls: str | None = None,
) -> Reason:
    """`calls`: the mode that it calls for; "none": it holds a training back; None: it does neither."""
    return {
        "signal": signal,
        "value": value,
        "threshold": threshold,
        "p_value": p_value,
        "text": text,
        "calls": calls,
    }


def main(
    drift: Path, registry: Path, manifest: Path, retraining: Path, params: Path = Path("params.yaml")
) -> None:
    settings = Params.load(params).decide_retraining
    decision = decide_retraining(read_json(drift), read_json(registry), read_json(manifest), settings)
    write_json(retraining, decision)
    log.info("%s", sentence(decision))


if __name__ == "__main__":
    run(main)
