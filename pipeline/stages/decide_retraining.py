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
- Forgotten people (`evergreen forget`) whose rows the champion has learned from call for a full training:
  once their rows are a share of all, or some days of data later. Nothing holds that back. A training without
  them that was refused is tried again after as many days.
- Held back: too few new rows, too soon, labels not in yet, too many trainings or seconds in the last 30 days.
Whatever cannot be read, or is not of this data and this champion, trains nothing and says so.

    python -m pipeline.stages.decide_retraining reports/drift.json data/registry.json \\
        data/raw/manifest.json reports/retraining.json
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift, Signal
from pipeline.documents.registry import ExportedTraining, Person, Registry
from pipeline.documents.retraining import Mode, Reason, Retraining
from pipeline.params import DecideRetraining, Params
from pipeline.run import run

log = logging.getLogger(__name__)
MODES: tuple[Mode, ...] = ("none", "refresh", "full")
QUALITY = "quality"
MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Case:
    """What is known of the champion's age, read once."""

    now: datetime
    drift: Drift
    trainings: list[ExportedTraining]
    """Oldest first."""
    known_until: datetime | None
    """as_of of the last training's data; without any record of it, the champion's own."""
    new_rows: float | None
    """Rows that are later than the champion's fit_end and were not there at the last training."""
    known_rows: float | None
    """Rows that were there then."""
    forgotten: list[Person] = field(default_factory=list)
    """Whose rows the champion has learned from."""


def decide_retraining(
    drift: Drift | None, registry: Registry | None, manifest: Manifest | None, settings: DecideRetraining
) -> Retraining:
    """The decision. Never raises; None stands for what is missing or cannot be read."""
    mode, reasons = _decide(drift, registry, manifest, settings)
    return Retraining(
        retrain=mode != "none",
        mode=mode,
        reasons=reasons,
        champion=registry.champion if registry else None,
        as_of=manifest.as_of if manifest else None,
        policy=settings.model_dump(),
    )


def _decide(
    drift: Drift | None, registry: Registry | None, manifest: Manifest | None, settings: DecideRetraining
) -> tuple[Mode, list[Reason]]:
    if registry is None:
        return _no(f"data/registry.json cannot be read: {Registry.remedy}")
    if manifest is None:
        return _no(f"data/raw/manifest.json cannot be read: {Manifest.remedy}")
    if drift is None:
        return _no(f"reports/drift.json cannot be read: {Drift.remedy}")
    if text := _mismatch(drift, registry, manifest):
        return _no(text)
    if drift.outcome == "bad_input":
        flagged = "; ".join(signal.text for signal in drift.signals.values() if signal.flag)
        said = drift.text or flagged or "see reports/drift.json"
        return _no(f"the data cannot be checked for drift, mend them first: {said}")
    if drift.outcome == "no_champion":
        return "full", [Reason(signal="champion", text="there is no champion yet", calls="full")]
    return _weigh(_case(drift, registry, manifest), settings)


def _no(text: str) -> tuple[Mode, list[Reason]]:
    """The inputs allow no decision."""
    return "none", [Reason(signal="input", text=text, calls="none")]


def sentence(decision: Retraining) -> str:
    """The decision for people, in one line."""
    calls = [reason.text for reason in decision.reasons if reason.calls in MODES[1:]]
    others = [reason.text for reason in decision.reasons if reason.calls not in MODES[1:]]
    if decision.retrain:
        return f"{decision.mode}: " + "; ".join(calls)
    held = [reason.text for reason in decision.reasons if reason.calls == "none"]
    if calls and held:
        return f"none: {'; '.join(held)}; else due: {'; '.join(calls)}"
    return "none: " + "; ".join(held or others)


# Whether they are of one champion and of the same data ----------------------------------------------------


def _mismatch(drift: Drift, registry: Registry, manifest: Manifest) -> str | None:
    own, checked = registry.champion, drift.champion
    if own is None and drift.outcome != "no_champion":
        return (
            f"reports/drift.json is about {checked}, but there is no champion: run `dvc repro detect_drift`"
        )
    if own is not None and checked != own:
        return (
            f"reports/drift.json is about {checked or 'no champion'}, but {own} is the champion:"
            " run `evergreen champion` and `dvc repro detect_drift`"
        )
    if drift.outcome == "bad_input":
        return None
    if drift.outcome == "ok" and not drift.signals:
        return f"reports/drift.json has no signals: {Drift.remedy}"
    now, then = manifest.as_of, drift.as_of
    if now != then and (then is not None or own is not None):
        text = f"reports/drift.json is as of {then and then.isoformat()}, the data as of {now.isoformat()}"
        return f"{text}: run `dvc repro detect_drift`"
    return None


# What is known ---------------------------------------------------------------------------------------------


def _case(drift: Drift, registry: Registry, manifest: Manifest) -> Case:
    last = registry.trainings[-1] if registry.trainings else ExportedTraining()
    had, fitted, kept = last.rows, drift.rows_fitted, manifest.rows.kept
    new: float | None = None
    if drift.rows_since_fit_end is not None and fitted is not None:
        # Those held out from the last training were there: what has come is what is beyond them.
        new = max(drift.rows_since_fit_end - max((had or fitted) - fitted, 0), 0)
    elif kept is not None and had is not None:
        new = max(kept - had, 0)
    known_until = last.as_of or _champions_as_of(registry)
    known = had or fitted
    return Case(manifest.as_of, drift, registry.trainings, known_until, new, known, registry.forgotten)


def _champions_as_of(registry: Registry) -> datetime | None:
    return next((one.as_of for one in registry.versions if one.version == registry.champion), None)


# What calls for a training, and what holds it back ---------------------------------------------------------


def _weigh(case: Case, settings: DecideRetraining) -> tuple[Mode, list[Reason]]:
    calendar = [_age(case, settings), _new_share(case, settings)]
    reasons = [*_evidence(case, settings), *(reason for reason in calendar if reason)]
    called = [reason.calls for reason in reasons if reason.calls in MODES[1:]]
    owed = [
        reason for reason in (_forgotten_share(case, settings), _forgotten_days(case, settings)) if reason
    ]
    reasons += owed
    if any(reason.calls for reason in owed):
        return "full", reasons
    if not called:
        return "none", reasons or [Reason(signal="policy", text="the policy names nothing that is due")]
    held = _held_back(case, settings)
    if held:
        return "none", [*reasons, *held]
    mode: Mode = "full" if "full" in called else "refresh"
    turn = _turn_of_full(case, settings) if mode == "refresh" else None
    return ("full", [*reasons, turn]) if turn else (mode, reasons)


def _evidence(case: Case, settings: DecideRetraining) -> list[Reason]:
    """Of drift.json: a reason for each signal that drifted; one that says no if none did."""
    drift = case.drift
    if drift.outcome == "not_enough_data":
        return [Reason(signal="drift", text=drift.text or "too little new data to check it for drift")]
    if not drift.drift:  # its verdict is the whole: flags alone call for nothing
        return [Reason(signal="drift", text="no drift")]
    drifted = {
        n: signal for n, signal in drift.signals.items() if signal.flag and signal.confirmed is not False
    }
    if not drifted:
        text = "reports/drift.json says drift, without a signal that says which"
        drifted = {"drift": Signal(flag=True, text=text)}
    return [
        _quality(case, settings, signal) if name == QUALITY else _seen(case, name, signal, settings.drift)
        for name, signal in drifted.items()
    ]


def _seen(case: Case, name: str, signal: Signal, mode: Literal["refresh", "full", "ignore"]) -> Reason:
    """The reason of a drifted signal; it calls for nothing if the last training has seen its window."""
    text = signal.text or f"{name} drifted"
    calls: Mode | None = None if mode == "ignore" else mode
    to = _window_end(case.drift)
    if calls is None:
        text += " (the policy ignores it)"
    elif to is not None and case.known_until is not None and to <= case.known_until:
        text, calls = f"{text} (the last training, of {case.known_until.isoformat()}, had seen it)", None
    return Reason(
        signal=name,
        value=signal.value,
        threshold=signal.floor,
        p_value=signal.p_value,
        text=text,
        calls=calls,
    )


def _window_end(drift: Drift) -> datetime | None:
    """When the newest window closed; where none is named, the last of the current rows."""
    newest = drift.windows[-1].end if drift.windows else None
    return newest or (drift.current.end if drift.current else None)


def _quality(case: Case, settings: DecideRetraining, signal: Signal) -> Reason:
    """The quality signal; it calls for nothing before the labels of its window are in."""
    reason = _seen(case, QUALITY, signal, settings.quality_drop)
    to = _window_end(case.drift)
    if settings.label_delay_days and (to is None or case.now - to < timedelta(settings.label_delay_days)):
        late = f"labels of that window are complete after {settings.label_delay_days:g} days, so not yet"
        return reason.but(text=f"{reason.text} ({late})", calls=None)
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
    return _reason("max_new_share", round(share, 6), limit, text, "refresh" if share >= limit else None)


def _without(case: Case) -> ExportedTraining:
    """The last full training, promoted or not: it left out whoever was forgotten by then."""
    full = (training for training in reversed(case.trainings) if training.mode == "full")
    return next(full, ExportedTraining())


def _forgotten_share(case: Case, settings: DecideRetraining) -> Reason | None:
    limit, last = settings.max_forgotten_share, _without(case)
    new = [person for person in case.forgotten if person.number > (last.forgotten or 0)]
    rows = sum(person.rows for person in new)
    if limit is None or not rows:
        return None
    if not case.known_rows:
        return _reason("max_forgotten_share", None, limit, "the rows of the last training are not known")
    share = rows / case.known_rows
    text = f"{rows:,} rows of {len(new):,} people who were forgotten since, {share:.2%} of those that it had"
    calls: Mode | None = "full" if share >= limit else None
    return _reason("max_forgotten_share", round(share, 6), limit, f"{text}; due at {limit:.2%}", calls)


def _forgotten_days(case: Case, settings: DecideRetraining) -> Reason | None:
    """Of whom the champion has learned, although they were forgotten; a refused training counts as a try."""
    limit, last = settings.max_forgotten_days, _without(case)
    since = [
        max(person.as_of, last.as_of)
        if last.as_of and person.number <= (last.forgotten or 0)
        else person.as_of
        for person in case.forgotten
        if person.as_of and person.rows
    ]
    if limit is None or not since:
        return None
    days = (case.now - min(since)) / timedelta(days=1)
    text = (
        f"{days:.1f} days of data since the champion should have learned from somebody no more; due after "
        f"{limit:g}"
    )
    return _reason("max_forgotten_days", round(days, 3), limit, text, "full" if days >= limit else None)


def _turn_of_full(case: Case, settings: DecideRetraining) -> Reason | None:
    every = settings.full_every
    if every is None:
        return None
    modes = [training.mode for training in case.trainings]
    since = modes[::-1].index("full") if "full" in modes else len(modes)
    text = f"the last full training was {since + 1} trainings ago; one in {every} is full"
    return _reason("full_every", since + 1, every, text, calls="full") if since + 1 >= every else None


def _held_back(case: Case, settings: DecideRetraining) -> list[Reason]:
    reasons = [_few_rows(case, settings), _gap(case, settings), *_budget(case, settings)]
    return [reason.but(calls="none") for reason in reasons if reason]


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
    dated = [(training.as_of, training) for training in case.trainings]
    recent = [training for then, training in dated if then and case.now - MONTH < then <= case.now]
    reasons, limit, seconds = [], settings.max_trainings_per_month, settings.max_seconds_per_month
    if limit is not None and len(recent) >= limit:
        text = f"held back: {len(recent)} trainings within the last 30 days of data; allowed are {limit}"
        reasons.append(_reason("max_trainings_per_month", len(recent), limit, text))
    spent = sum(one.training.seconds or 0 for one in recent)
    if seconds is not None and spent >= seconds:
        text = (
            f"held back: {spent:,.0f} s of training within the last 30 days of data; allowed are {seconds:,g}"
        )
        reasons.append(_reason("max_seconds_per_month", spent, seconds, text))
    return reasons


def _reason(
    signal: str, value: float | None, threshold: float | None, text: str, calls: Mode | None = None
) -> Reason:
    return Reason(signal=signal, value=value, threshold=threshold, text=text, calls=calls)


def main(
    drift: Path, registry: Path, manifest: Path, retraining: Path, params: Path = Path("params.yaml")
) -> None:
    settings = Params.load(params).decide_retraining
    decision = decide_retraining(
        Drift.find(drift), Registry.find(registry), Manifest.find(manifest), settings
    )
    decision.write(retraining)
    log.info("%s", sentence(decision))


if __name__ == "__main__":
    run(main)
