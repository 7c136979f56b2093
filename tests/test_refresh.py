"""A refresh builds on the champion: encoder and vectors stay, its tower goes on, the rest is fitted anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml

from pipeline.data.histories import load_prepared
from pipeline.models.ranking import rank_points
from pipeline.models.recommender import Recommender
from pipeline.stages import finetune, preprocess

OUTPUTS = ("challenger", "ablations", "training")


def prepare(folder: Path, params: Path, share: float) -> Path:
    """data/prepared of the first `share` of the tiny world's rows."""
    raw = tiny.raw(folder / "raw")
    file = next((raw / "interactions").rglob("*.parquet"))
    rows = pd.read_parquet(file).sort_values("timestamp")
    rows.iloc[: int(share * len(rows))].to_parquet(file, index=False)
    preprocess.main(raw, folder / "prepared", params)
    return folder / "prepared"


@pytest.mark.slow
def test_a_refresh_keeps_the_texts_and_fits_the_rest_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(Path(__file__).parents[1].joinpath("params.yaml").read_text())
    params = tiny.params(tmp_path / "first.yaml", tiny.encoder(tmp_path / "encoder"))
    old = prepare(tmp_path / "old", params, 0.7)
    finetune.main(
        old, tmp_path / "encoder.json", *(tmp_path / "old" / name for name in OUTPUTS), params=params
    )
    champion = tmp_path / "champion"
    shutil.copytree(tmp_path / "old" / "challenger", champion)
    (champion / "version.json").write_text('{"version": "v1.0.0"}')

    content = yaml.safe_load(params.read_text())
    content["finetune"]["refresh_of"] = "v1.0.0"
    params.write_text(yaml.safe_dump(content))
    new = prepare(tmp_path / "new", params, 1.0)
    made = (tmp_path / "new" / name for name in OUTPUTS)
    finetune.main(new, tmp_path / "encoder.json", *made, params=params, champion=champion)

    prepared = load_prepared(new)
    model, before = (
        Recommender.load(folder, prepared.catalogue.items, prepared.log)
        for folder in (tmp_path / "new" / "challenger", champion)
    )
    assert model.text is not None
    assert before.text is not None
    np.testing.assert_array_equal(model.text, before.text)
    assert model.parts.collaborative.count.sum() > before.parts.collaborative.count.sum()
    phases = set(pd.read_csv(tmp_path / "new" / "training" / "curves.csv")["phase"])
    assert "text" not in phases
    assert {"sequence (challenger)", "sequence on all of train (challenger)"} <= phases
    points = prepared.test[np.flatnonzero(prepared.test.lengths >= 2)]
    own = points.log.item[points.stop - 1] % 2
    order = np.arange(len(prepared.catalogue), dtype=np.int32)
    top, _ = rank_points(model, points, prepared.catalogue, order, 1)
    assert (top[:, 0] % 2 == own).mean() > 0.8
