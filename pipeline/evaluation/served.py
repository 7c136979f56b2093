"""What a service's lists tell of the models: how people liked them, and what another would have earned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Prepared
from pipeline.documents.data import Summary
from pipeline.evaluation.explored import Describing, compare
from pipeline.evaluation.figures import CHALLENGER, CHAMPION
from pipeline.evaluation.satisfaction import satisfaction
from pipeline.models.artifacts import named
from pipeline.models.baselines import popularity, train_rows
from pipeline.models.preparation import successes
from pipeline.models.ranking import Model, popularity_order
from pipeline.params import Positive

DAYS = 30  # of satisfaction, the newest


def with_success(path: Path, summary: Summary) -> pd.DataFrame:
    """The impressions with `positive`: whether the reaction is a success, as these data were prepared."""
    shown = tables.read_parquet(path)
    positive = Positive.model_validate(summary.settings["positive"])
    return shown.assign(positive=shown[tables.EVENT].notna() & successes(shown, positive))


def told_by_people(
    shown: pd.DataFrame,
    prepared: Prepared,
    models: Mapping[str, Model],
    figures: Mapping[str, Any],
    after: int | None,
) -> dict[str, Any]:
    """`satisfaction`, and `comparison` with `off_policy`; neither where nothing was shown."""
    if not len(shown):
        return {}
    active = pd.DataFrame({tables.USER: prepared.user_ids[prepared.log.user], tables.TIME: prepared.log.time})
    active[tables.TIME] = pd.to_datetime(active[tables.TIME], unit="us", utc=True).astype(tables.MOMENT)
    told: dict[str, Any] = {"satisfaction": satisfaction(shown, active, prepared.catalogue, DAYS)}
    new, old = models.get(CHALLENGER), models.get(CHAMPION)
    if isinstance(new, Describing) and isinstance(old, Describing) and after is not None:
        counts = popularity(prepared.log, train_rows(prepared.log), len(prepared.catalogue))
        order = popularity_order(counts, prepared.catalogue.ids)
        version = getattr(old, "version", None) or named(figures["artifact_hash"][CHAMPION])
        found = compare(shown, prepared, new, old, version, after, order)
        if found is not None and "comparison" in figures:
            told["comparison"] = figures["comparison"] | {"off_policy": found}
    return told
