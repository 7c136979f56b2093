"""What a check found, as the content of drift.json: figures, verdicts and sentences for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables as t
from pipeline.drift import signals as g
from pipeline.drift import windows as w
from pipeline.params import DetectDrift


@dataclass(frozen=True)
class Outcome:
    """A signal of one window: its finding and p-value, or why it was not tested."""

    finding: g.Finding | None
    p_value: float | None  # adjusted once all are known
    floor: float | None
    flag: bool
    fact: str


def closed(outcome: str, text: str, **more: Any) -> dict[str, Any]:
    """A result without a verdict: nothing is called drift, and `text` says why."""
    empty: dict[str, Any] = {"outcome": outcome, "text": text, "as_of": None, "reference": None}
    empty["current"] = None
    empty |= {"drift": False, "signals": {}, "windows": [], "champion": None}
    return finite(empty | {"rows_since_fit_end": None, "rows_fitted": None} | more)


def as_result(
    found: list[w.Window], tested: list[dict[str, Outcome]], settings: DetectDrift, confirm: bool
) -> dict[str, Any]:
    newest, before = tested[-1], tested[-2] if len(tested) > 1 else None
    window_before = found[-2] if len(found) > 1 else None
    signals = {}
    for name, outcome in newest.items():
        previous = None if before is None or not confirm else before[name].flag
        hard = name in g.HARD
        confirmed = outcome.flag and (hard or not confirm or previous is True)
        finding = outcome.finding
        signals[name] = {
            "value": finding and finding.value,
            "p_value": outcome.p_value,
            "floor": outcome.floor,
            "flag": outcome.flag,
            "kind": "hard" if hard else "soft",
            "previous": previous,
            "confirmed": confirmed,
            "text": sentence(name, outcome, settings, confirm, previous, window_before),
        }
    listed = [
        window.describe() | {"signals": {name: _short(each) for name, each in outcomes.items()}}
        for window, outcomes in zip(found, [{}] * (len(found) - len(tested)) + tested, strict=True)
    ]
    confirmed_ones = [name for name, signal in signals.items() if signal["confirmed"]]
    text = (
        f"Drift: {', '.join(confirmed_ones)}; window {_in_words(found[-1])}"
        if confirmed_ones
        else f"No drift in the window {_in_words(found[-1])}"
    )
    return finite(
        {
            "outcome": "ok",
            "text": text,
            "drift": bool(confirmed_ones),
            "signals": signals,
            "windows": listed,
        }
    )


def sentence(
    name: str,
    outcome: Outcome,
    settings: DetectDrift,
    confirm: bool,
    previous: bool | None,
    before: w.Window | None,
) -> str:
    """A signal for people: what was found, how sure that is, and what it means."""
    if outcome.finding is None:
        return f"Not tested: {outcome.fact}"
    parts = [outcome.fact]
    if outcome.p_value is not None:
        parts.append(f"p = {_p(outcome.p_value)}")
    if outcome.floor is not None:
        parts.append(f"floor {_floor(name, outcome.floor)}")
    return ", ".join(parts) + ": " + _verdict(name, outcome, settings, confirm, previous, before)


def _verdict(
    name: str,
    outcome: Outcome,
    settings: DetectDrift,
    confirm: bool,
    previous: bool | None,
    before: w.Window | None,
) -> str:
    if outcome.flag:
        if name in g.HARD or not confirm:
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


def _short(outcome: Outcome) -> dict[str, Any]:
    value = outcome.finding and outcome.finding.value
    return {"value": value, "p_value": outcome.p_value, "flag": outcome.flag}


def counts(rows: pd.DataFrame) -> str:
    return f"{len(rows):,} rows of {rows[t.USER].nunique():,} users"


def _in_words(window: w.Window) -> str:
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}, {counts(window.rows)}"


def _p(p_value: float) -> str:
    return f"{p_value:.3f}".replace("0.", ".", 1) if p_value < 1 else "1"


def _floor(name: str, floor: float) -> str:
    if name in ("volume", "quality"):
        return f"{100 * floor:g} %"
    return f"{floor:g}" if name in ("text", "embedding") else f"{100 * floor:g} points"


def finite(content: Any) -> Any:
    """NaN and infinities as null, numpy's numbers as Python's."""
    if isinstance(content, dict):
        return {key: finite(each) for key, each in content.items()}
    if isinstance(content, list | tuple):
        return [finite(each) for each in content]
    if isinstance(content, bool | np.bool_):
        return bool(content)
    if isinstance(content, float | np.floating):
        return float(content) if math.isfinite(content) else None
    return int(content) if isinstance(content, np.integer) else content
