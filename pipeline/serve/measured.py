"""Figures for Prometheus. With several workers each counts for itself into files that /metrics adds up."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

import prometheus_client as prometheus
from prometheus_client import multiprocess

if TYPE_CHECKING:
    from pipeline.serve.engine import Engine
    from pipeline.serve.writing import Writer

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Measured:
    CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self.engine, self.writer = engine, writer
        self.registry = prometheus.CollectorRegistry()
        names = {"registry": self.registry}
        self._seconds = prometheus.Histogram(
            "evergreen_request_seconds", "Of each answer.", ["route", "status"], buckets=BUCKETS, **names
        )
        self._lists = prometheus.Counter(
            "evergreen_lists", "By fallback; none: as asked.", ["fallback"], **names
        )
        self._events = prometheus.Counter("evergreen_events", "Of feedback.", ["outcome"], **names)
        self._gauges = {
            name: prometheus.Gauge(f"evergreen_{name}", text, multiprocess_mode="mostrecent", **names)
            for name, text in (
                ("up", "1: a champion serves."),
                ("degraded", "1: with a problem that /health names."),
                ("challenger", "1: a challenger is shown to some users."),
                ("model_age_seconds", "Since the newest row that the champion was fitted on."),
                ("state_lag_seconds", "Since the state last held all that the store has."),
                ("swaps", "Champions taken over since the start."),
                ("refused_champions", "Champions that were not taken over."),
                ("unknown_item_events", "Events of items that the catalogue lacks."),
                ("impressions_dropped", "That the store did not take."),
            )
        }

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._seconds.labels(route, str(status)).observe(seconds)

    def listed(self, fallback: str | None) -> None:
        self._lists.labels(fallback or "none").inc()

    def received(self, accepted: int, duplicates: int) -> None:
        self._events.labels("accepted").inc(accepted)
        self._events.labels("duplicate").inc(duplicates)

    def text(self) -> bytes:
        engine = self.engine
        values: dict[str, float] = {
            "up": engine.version is not None,
            "degraded": bool(engine.whole_problem),
            "challenger": engine.challenger is not None,
            "state_lag_seconds": engine.lag_seconds or 0,
            "swaps": engine.swaps,
            "refused_champions": engine.refused,
            "unknown_item_events": engine.unknown_items,
            "impressions_dropped": self.writer.dropped,
        }
        if engine.version is not None and engine.world.fit_end:
            values["model_age_seconds"] = (
                time.time() - datetime.fromisoformat(engine.world.fit_end).timestamp()
            )
        for name, value in values.items():
            self._gauges[name].set(value)
        if os.environ.get(MULTIPROCESS):
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            return prometheus.generate_latest(registry)
        return prometheus.generate_latest(self.registry)
