"""What a check found, as the content of drift.json: figures, verdicts and sentences for people."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.data import tables
from pipeline.documents.drift import Drift, DriftWindow, Signal, WindowSignal
from pipeline.drift import signals as drift_signals
from pipeline.drift import windows


@dataclass(frozen=True)
class Outcome:
    """A signal of one window: its finding and p-value, or why it was not tested."""

    finding: drift_signals.Finding | None
    p_value: float | None  # adjusted once all are known
    floor: float | None
    flag: bool
    fact: str


def as_result(
    blank: Drift,
    closed: list[windows.Window],
    tested: list[dict[str, Outcome]],
    confirm: bool,
) -> Drift:
    """`blank`, with the verdict on the newest of `found`; `tested` are the last ones of them."""
    newest, before = tested[-1], tested[-2] if len(tested) > 1 else None
    window_before = closed[-2] if len(closed) > 1 else None
    signals = {}
    for name, outcome in newest.items():
        previous = None if before is None or not confirm else before[name].flag
        hard = name in drift_signals.HARD
        signals[name] = Signal(
            **dict(_short(outcome)),
            floor=outcome.floor,
            kind="hard" if hard else "soft",
            previous=previous,
            confirmed=outcome.flag and (hard or not confirm or previous is True),
            text=sentence(name, outcome, confirm, previous, window_before),
        )
    figures = [{name: _short(each) for name, each in outcomes.items()} for outcomes in tested]
    listed = [
        DriftWindow(**dict(window.describe()), signals=signals_of)
        for window, signals_of in zip(closed, [{}] * (len(closed) - len(tested)) + figures, strict=True)
    ]
    confirmed = [name for name, signal in signals.items() if signal.confirmed]
    text = (
        f"Drift: {', '.join(confirmed)}; window {_in_words(closed[-1])}"
        if confirmed
        else f"No drift in the window {_in_words(closed[-1])}"
    )
    return blank.but(outcome="ok", text=text, drift=bool(confirmed), signals=signals, windows=listed)


def sentence(
    name: str,
    outcome: Outcome,
    confirm: bool,
    previous: bool | None,
    before: windows.Window | None,
) -> str:
    """A signal for people: what was found, how sure that is, and what it means."""
    if outcome.finding is None:
        return f"Not tested: {outcome.fact}"
    parts = [outcome.fact]
    if outcome.p_value is not None:
        parts.append(f"p = {_p(outcome.p_value)}")
    if outcome.floor is not None:
        parts.append(f"floor {_floor(name, outcome.floor)}")
    return ", ".join(parts) + ": " + _verdict(name, outcome, confirm, previous, before)


def _verdict(
    name: str,
    outcome: Outcome,
    confirm: bool,
    previous: bool | None,
    before: windows.Window | None,
) -> str:
    if outcome.flag:
        if name in drift_signals.HARD or not confirm:
            return "drift"
        if before is None:
            return "changed; one window alone confirms nothing"
        if previous:
            return f"drift, confirmed by the window before ({_in_words(before)})"
        return f"changed, but not in the window before ({_in_words(before)}): not confirmed"
    if name == "schema":
        return "no drift"
    large = outcome.floor is not None and outcome.finding and outcome.finding.effect >= outcome.floor
    return "no drift: it may be chance" if large else "no drift: the change is below the floor"


def not_tested(reason: str) -> Outcome:
    return Outcome(None, None, None, False, reason)


def _short(outcome: Outcome) -> WindowSignal:
    value = outcome.finding.value if outcome.finding else None
    return WindowSignal(value=value, p_value=outcome.p_value, flag=outcome.flag)


def counts(rows: pd.DataFrame) -> str:
    return f"{len(rows):,} rows of {rows[tables.USER].nunique():,} users"


def _in_words(window: windows.Window) -> str:
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}, {counts(window.rows)}"


def _p(p_value: float) -> str:
    return f"{p_value:.3f}".replace("0.", ".", 1) if p_value < 1 else "1"


def _floor(name: str, floor: float) -> str:
    if name in ("volume", "quality"):
        return f"{100 * floor:g} %"
    return f"{floor:g}" if name in ("text", "embedding") else f"{100 * floor:g} points"
