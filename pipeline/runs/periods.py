"""What a period of a replay brought, in words, from the folders of data/history that its runs have left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.documents.drift import Drift
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Retraining
from pipeline.documents.runs import RunRecord


@dataclass(frozen=True)
class Period:
    """What one period brought; texts for people, `champion` the version in service afterwards."""

    as_of: datetime
    drift: str
    decision: str
    training: str
    promotion: str
    champion: str | None


@dataclass(frozen=True)
class _Left:
    """What one run has left; None: it did not come so far."""

    run: RunRecord | None
    drift: Drift | None
    retraining: Retraining | None
    promotion: Promotion | None

    @classmethod
    def read(cls, folder: Path) -> _Left:
        return cls(
            RunRecord.find(folder / "run.json"),
            Drift.find(folder / "drift.json"),
            Retraining.find(folder / "retraining.json"),
            Promotion.find(folder / "promotion.json"),
        )


def told(as_of: datetime, folders: list[Path], champion: str | None) -> Period:
    """The period in words, from what its runs have left."""
    left = [_Left.read(folder) for folder in folders]
    drift = next((one.drift for one in left if one.drift), None)
    decision = next((one.retraining for one in left if one.retraining), None)
    judged = next((one for one in reversed(left) if one.promotion), None)
    return Period(
        as_of,
        _drift(drift),
        _decision(decision),
        _training(judged),
        _promotion(judged),
        champion,
    )


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return "not checked"
    if drift.outcome != "ok":
        return drift.outcome.replace("_", " ")
    names = [name.replace("_", " ") for name, signal in drift.signals.items() if signal.confirmed]
    return ", ".join(names) or "none"


def _decision(decision: Retraining | None) -> str:
    if decision is None:
        return "none"
    texts = [reason.text for reason in decision.reasons if reason.calls]
    return f"{decision.mode}: {texts[0]}" if texts else decision.mode


def _training(judged: _Left | None) -> str:
    run, decision = (judged.run, judged.retraining) if judged else (None, None)
    mode = (run and run.mode) or (decision and decision.mode)
    took = ""
    if run and run.started and run.finished:
        took = f" in {(run.finished - run.started).total_seconds():,.0f} s"
    return f"{mode}{took}" if mode and mode != "none" else "–"


def _promotion(judged: _Left | None) -> str:
    if judged is None or judged.promotion is None:
        return "–"
    if judged.run and judged.run.promoted:
        return f"{judged.run.promoted} promoted"
    if judged.promotion.promote:
        why = judged.run.not_promoted if judged.run else None
        return f"allowed, not promoted{f': {why}' if why else ''}"
    failed = [check.name.replace("_", " ") for check in judged.promotion.failed]
    return f"refused: {', '.join(failed[:3])}"


def line(period: Period) -> str:
    parts = [f"drift {period.drift}", f"decision {period.decision}"]
    parts += [f"trained {period.training}"] if period.training != "–" else []
    parts += [period.promotion] if period.promotion != "–" else []
    return f"{period.as_of:%Y-%m-%d}  " + " · ".join(parts)
