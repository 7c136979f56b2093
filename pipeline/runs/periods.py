"""What a period of a replay brought, in words, from the folders of data/history that its runs have left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.decisions import get, moment, read_json, string


@dataclass(frozen=True)
class Period:
    """What one period brought; texts for people, `champion` the version in service afterwards."""

    as_of: datetime
    drift: str
    decision: str
    training: str
    promotion: str
    champion: str | None


def told(as_of: datetime, folders: list[Path], champion: str | None) -> Period:
    """The period in words, from what its runs have left."""
    read = [
        {name: read_json(folder / f"{name}.json") for name in ("run", "drift", "retraining", "promotion")}
        for folder in folders
    ]
    drift, decision = (
        next((one[name] for one in read if one[name]), None) for name in ("drift", "retraining")
    )
    judged: dict[str, Any] = next((one for one in reversed(read) if one["promotion"]), {})
    return Period(
        as_of,
        _drift(drift),
        _decision(decision),
        _training(judged),
        _promotion(judged, champion),
        champion,
    )


def _drift(drift: Any) -> str:
    outcome = string(drift, "outcome")
    if outcome != "ok":
        return (outcome or "not checked").replace("_", " ")
    signals = get(drift, "signals")
    signals = signals if isinstance(signals, dict) else {}
    names = [name.replace("_", " ") for name, one in signals.items() if get(one, "confirmed") is True]
    return ", ".join(names) if names else "none"


def _decision(decision: Any) -> str:
    reasons = get(decision, "reasons")
    texts = [string(one, "text") for one in reasons if get(one, "calls")] if isinstance(reasons, list) else []
    mode = string(decision, "mode") or "none"
    return f"{mode}: {texts[0]}" if texts and texts[0] else mode


def _training(judged: dict[str, Any]) -> str:
    run = judged.get("run")
    began, ended = moment(get(run, "started")), moment(get(run, "finished"))
    mode = string(run, "mode") or string(judged.get("retraining"), "mode")
    took = f" in {(ended - began).total_seconds():,.0f} s" if began and ended else ""
    return f"{mode}{took}" if judged and mode and mode != "none" else "–"


def _promotion(judged: dict[str, Any], champion: str | None) -> str:
    if not judged:
        return "–"
    if version := string(judged.get("run"), "promoted"):
        return f"{version} promoted"
    if get(judged["promotion"], "promote") is True:
        return f"{champion} promoted" if champion else "allowed"
    checks = get(judged["promotion"], "checks")
    checks = checks if isinstance(checks, list) else []
    failed = [str(get(one, "name")).replace("_", " ") for one in checks if get(one, "passed") is not True]
    return f"refused: {', '.join(failed[:3])}"


def line(period: Period) -> str:
    parts = [f"drift {period.drift}", f"decision {period.decision}"]
    parts += [f"trained {period.training}"] if period.training != "–" else []
    parts += [period.promotion] if period.promotion != "–" else []
    return f"{period.as_of:%Y-%m-%d}  " + " · ".join(parts)
