"""What the event store lets go of when it is old: `serve.retention_days` of params.yaml."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.histories import MICROSECONDS_A_DAY
from pipeline.params import Params
from pipeline.serve.events import Store


def prune(root: Path, store: Store, now: int) -> tuple[int, int]:
    """(events, impressions) that were older and are gone. `now`: microseconds, of the service's clock.

    Where `collect.feedback` is set the store is the only place that has the events which every collect joins
    to the source: these stay, and impressions alone go. Raises ConfigError, StoreError.
    """
    path = root / "params.yaml"
    params = Params.load(path) if path.is_file() else None
    if params is None or params.serve.retention_days is None:
        return 0, 0
    before = now - round(params.serve.retention_days * MICROSECONDS_A_DAY)
    return store.prune(before, events=params.collect.feedback is None)
