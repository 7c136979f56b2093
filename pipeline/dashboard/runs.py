"""The records of runs as the pages need them: one folder of data/history each, whoever made it.

Out: `Run`s. Nothing here raises for what a file holds: what cannot be read is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pipeline.documents.drift import Drift, Signal
from pipeline.documents.evaluation import Comparison, Evaluation
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Reason, Retraining
from pipeline.documents.runs import RunRecord

Long = TypeVar("Long", Drift, Evaluation)
FIGURES = ("users", "points", "ndcg@10", "ndcg@10_low", "ndcg@10_high", "recall@10")
REPORTS = {"drift": "drift.html", "evaluation": "evaluation.html", "simulation": "simulation.html"}
"""Report -> its file. Those of a document that is kept beside it have its name."""
MOST = 1_000
"""Runs that are read, the newest by the time of their last record."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    name: str
    record: RunRecord
    drift: Drift | None
    retraining: Retraining | None
    promotion: Promotion | None
    evaluation: Evaluation | None
    reports: tuple[str, ...]
    """Of `REPORTS`: those that lie in the run's folder."""

    @cached_property
    def as_of(self) -> datetime | None:
        """The data's time."""
        parts = (self.record, self.retraining, self.drift)
        return next((part.as_of for part in parts if part and part.as_of), None)

    @property
    def mode(self) -> str | None:
        return self.record.mode or (self.retraining.mode if self.retraining else None)

    @property
    def trains(self) -> bool:
        """Whether it trains or judges a challenger, rather than asking for that."""
        asks = self.record.dag == "evergreen_monitoring"
        return self.mode in ("refresh", "full", "judge") and (self.promotion is not None or not asks)

    @property
    def signals(self) -> dict[str, Signal]:
        return self.drift.signals if self.drift else {}

    @property
    def reasons(self) -> list[Reason]:
        """Of its decision; of a training that was asked for, what it was asked for with."""
        if self.retraining and self.retraining.reasons:
            return self.retraining.reasons
        return [Reason(signal="request", text=self.record.reason)] if self.record.reason else []

    def ndcg(self, model: str) -> float | None:
        """nDCG@10 on all test points of this run."""
        return self.figures(model).get("ndcg@10")

    def figures(self, model: str) -> dict[str, int | float | None]:
        return self.evaluation.models.get(model, {}).get("all", {}) if self.evaluation else {}

    def order(self) -> tuple[datetime, str]:
        """By when it ran, whatever data it was about."""
        return (self.record.started or NEVER, self.name)


def read(history: Path) -> list[Run]:
    """The runs below data/history, the one that began last first."""
    records = []
    for path in history.glob("[!.]*/run.json"):
        try:
            records.append((path.stat().st_mtime, path.parent))
        except OSError:  # it is just being removed
            continue
    newest = sorted(records, reverse=True)[:MOST]
    return sorted((read_one(folder) for _, folder in newest), key=Run.order, reverse=True)


def read_one(folder: Path) -> Run:
    """One run; of its evaluation the figures over all points, of its drift check the newest window."""
    unread = RunRecord(run_id=folder.name, dag="unknown", state="failed", error="run.json cannot be read")
    return Run(
        name=folder.name,
        record=RunRecord.find(folder / "run.json") or unread,
        drift=_shortened(folder / "drift.json", Drift, lambda whole: whole.but(windows=[])),
        retraining=Retraining.find(folder / "retraining.json"),
        promotion=Promotion.find(folder / "promotion.json"),
        evaluation=_shortened(folder / "evaluation.json", Evaluation, _headline),
        reports=tuple(name for name, file in REPORTS.items() if (folder / file).is_file()),
    )


def _shortened(path: Path, kind: type[Long], shorten: Callable[[Long], Long]) -> Long | None:
    """Kept beside the document: an evaluation has 300 kB, and the overview reads those of all runs."""
    short = path.with_name(f".{path.name}")
    try:
        # Not mtime: a copied document keeps that of its source.
        if short.stat().st_mtime_ns >= path.stat().st_ctime_ns:
            return kind.find(short)
    except OSError:
        pass
    if (whole := kind.find(path)) is None:
        return None
    found = shorten(whole)
    with suppress(OSError):
        found.write(short)
    return found


def _headline(whole: Evaluation) -> Evaluation:
    models = {
        name: {"all": {key: slices["all"].get(key) for key in FIGURES}}
        for name, slices in whole.models.items()
        if "all" in slices
    }
    told = Comparison(off_policy=whole.comparison.off_policy) if whole.comparison else None
    return Evaluation(
        as_of=whole.as_of,
        fit_end=whole.fit_end,
        models=models,
        paired=whole.paired,
        comparison=told,
        satisfaction=whole.satisfaction,
    )
