"""Full trainings in a replay: on what was known then, refreshed or not, and not twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.backtest import timeline as tl
from pipeline.backtest.full import Full
from pipeline.backtest.world import Fitted
from pipeline.models.ranking import rank_points
from pipeline.params import Params
from tests import tiny


def test_refreshes_of_one_encoder_are_named_alike() -> None:
    trainer = Full(pd.DataFrame(), None, Path())  # type: ignore[arg-type]
    assert trainer.key(3, "full", "w01") == "w03"
    assert trainer.key(3, "refresh", "w01") == "w03-refresh-of-w01"
    assert trainer.key(5, "refresh", "w03-refresh-of-w01") == "w05-refresh-of-w01"


def lists(fitted: Fitted, timeline: tl.Timeline) -> np.ndarray:
    order = np.arange(len(timeline.catalogue), dtype=np.int32)
    return rank_points(fitted.model, timeline.points, timeline.catalogue, order, 5)[0]


@pytest.mark.slow
def test_a_full_training_and_its_refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tiny.raw(tmp_path / "raw")
    params = Params.load(tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder")))
    timeline = tl.load(raw, params.preprocess, 3, 0.5)
    monkeypatch.chdir(tmp_path)
    trainer = Full(pd.read_parquet(raw / "items.parquet"), params, tmp_path / "models")
    refreshed = trainer.fit(timeline, "w01-refresh-of-w00")
    full = trainer.fit(timeline, "w00")  # was needed for its encoder
    assert lists(refreshed, timeline).shape == (len(timeline.points), 5)
    assert full.seconds > 0
    assert full.features == refreshed.features
    card = pd.read_json(tmp_path / "models" / "w01-refresh-of-w00" / "model.json", typ="series")
    assert pd.Timestamp(card["fit_end"]) == timeline.fit_end(1)
    assert pd.Timestamp(card["as_of"]) == timeline.as_of(1)
    begun = (tmp_path / "models" / "w00" / "model.json").stat().st_mtime_ns
    again = trainer.fit(timeline, "w00")
    assert (tmp_path / "models" / "w00" / "model.json").stat().st_mtime_ns == begun
    assert np.array_equal(lists(again, timeline), lists(full, timeline))
