"""The record of runs: one folder of data/history each, whoever made it (a DAG run or `evergreen cycle`).

In: data/history/NAME/{run,drift,retraining,promotion,evaluation}.json; any may be missing, malformed
or hostile. Out: `Run`s, oldest first by the data's time. Rule: nothing here raises because of what a file
holds, and only what changed since the last look is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from evergreen_pages.untrusted import finite, get, mapping, moment, read_json, rows, string

HISTORY = Path("data/history")
MOST = 1_000
"""Runs that are read, the newest by name."""
FIGURES = ("users", "points", "ndcg@10", "ndcg@10_low", "ndcg@10_high", "recall@10")
SIGNAL = ("value", "p_value", "floor", "flag", "kind", "confirmed", "text")


@dataclass(frozen=True)
class Run:
    name: str
    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    retraining: dict[str, Any] = field(default_factory=dict)
    promotion: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def as_of(self) -> datetime | None:
        """The data's time."""
        return next((found for one in self._told("as_of") if (found := moment(one))), None)

    @cached_property
    def started(self) -> datetime | None:
        return moment(get(self.run, "started"))

    @cached_property
    def finished(self) -> datetime | None:
        return moment(get(self.run, "finished"))

    @property
    def dag(self) -> str:
        """`cycle` for folders of a time before run.json."""
        return string(self.run, "dag") or "cycle"

    @property
    def run_id(self) -> str | None:
        return string(self.run, "run_id")

    @property
    def state(self) -> str | None:
        return string(self.run, "state")

    @cached_property
    def champion(self) -> str | None:
        """The version in service when the run began."""
        return next((one for one in self._told("champion") if isinstance(one, str) and one), None)

    @property
    def judged(self) -> bool:
        return bool(self.promotion)

    @property
    def promote(self) -> bool:
        return get(self.promotion, "promote") is True

    @property
    def promoted(self) -> str | None:
        return string(self.run, "promoted")

    @property
    def mode(self) -> str | None:
        return string(self.run, "mode") or string(self.retraining, "mode")

    @cached_property
    def signals(self) -> dict[str, Any]:
        return mapping(self.drift, "signals")

    @cached_property
    def reasons(self) -> list[dict[str, Any]]:
        """Of its decision; of a training that was asked for, what it was asked for with."""
        asked = string(self.run, "reason")
        return rows(self.retraining, "reasons") or ([{"signal": "request", "text": asked}] if asked else [])

    @property
    def checks(self) -> list[dict[str, Any]]:
        return rows(self.promotion, "checks")

    def ndcg(self, model: str) -> float | None:
        """On all test points of this run."""
        return finite(get(self.evaluation, "models", model, "ndcg@10"))

    def _told(self, key: str) -> list[Any]:
        return [get(one, key) for one in (self.run, self.retraining, self.drift)]

    def order(self) -> tuple[datetime, datetime, str]:
        never = datetime.min.replace(tzinfo=UTC)
        return (self.as_of or never, self.finished or self.started or never, self.name)


def _drift(content: Any) -> Any:
    """Without its windows: the curves of this page go over runs."""
    signals = {
        str(name): {key: get(one, key) for key in SIGNAL}
        for name, one in list(mapping(content, "signals").items())[:64]
    }
    kept = ("outcome", "drift", "as_of", "champion", "text", "current", "reference")
    return {key: get(content, key) for key in kept} | {"signals": signals}


def _evaluation(content: Any) -> Any:
    """Every model's figures on all points; the slices stay in the report."""
    models = {
        str(name): {key: get(one, "all", key) for key in FIGURES}
        for name, one in list(mapping(content, "models").items())[:64]
    }
    paired = {
        str(name): {key: get(one, key) for key in ("ndcg@10", "low", "high")}
        for name, one in list(mapping(content, "paired").items())[:64]
    }
    return {key: get(content, key) for key in ("as_of", "fit_end")} | {"models": models, "paired": paired}


PARTS: dict[str, Callable[[Any], Any]] = {
    "run": mapping,
    "drift": _drift,
    "retraining": mapping,
    "promotion": mapping,
    "evaluation": _evaluation,
}


class History:
    """The runs of one checkout. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self.folder = root / HISTORY
        self._known: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[Run]:
        """Oldest first."""
        try:
            folders = sorted(
                (one for one in self.folder.iterdir() if one.is_dir() and not one.name.startswith(".")),
                key=lambda folder: folder.name,
            )
        except OSError:
            return []
        with self._lock:
            before, self._known = self._known, {}
            found = [self._run(folder, before) for folder in folders[-MOST:]]
        return sorted((run for run in found if run), key=Run.order)

    def _run(self, folder: Path, before: dict[Path, tuple[tuple[int, int], Any]]) -> Run | None:
        content = {}
        for name, shape in PARTS.items():
            path = folder / f"{name}.json"
            try:
                status = path.stat()
            except OSError:
                continue
            stamp = (status.st_mtime_ns, status.st_size)
            known = before.get(path)
            self._known[path] = known if known and known[0] == stamp else (stamp, shape(read_json(path)))
            content[name] = self._known[path][1]
        return Run(folder.name, folder, **content) if content else None
