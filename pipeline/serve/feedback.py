"""`evergreen feedback`: what people made of the lists that the project's service showed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.data.impressions import impressions
from pipeline.evaluation.satisfaction import satisfaction
from pipeline.models.preparation import successes
from pipeline.params import Params
from pipeline.serve.events import default_url
from pipeline.sources._feedback import opened


def command(root: Path, days: int) -> dict[str, Any]:
    """The newest `days` of the event store, in all and by version of the model. Raises DataError."""
    params = Params.load(root / "params.yaml")
    with opened(params.collect.feedback or default_url(root)) as store:
        lists, events = store.lists(), store.reactions()
    shown = impressions(lists, events)
    shown["positive"] = shown[tables.EVENT].notna() & successes(shown, params.preprocess.positive)
    events[tables.TIME] = pd.to_datetime(events[tables.TIME], unit="us", utc=True)
    items = tables.read_parquet(root / "data/raw/items.parquet")
    return satisfaction(shown, events, Catalogue.of(items), days)
