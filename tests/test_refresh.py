"""A refresh builds on the champion: encoder, inputs as those of the older rows, tower, scorer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml

from pipeline.data.histories import load_prepared
from pipeline.models import challenger
from pipeline.models.features import Inputs
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
@pytest.mark.parametrize("fewest", [5, 10_000])
def test_a_refresh_goes_on_from_the_champion_where_there_is_enough_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewest: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(Path(__file__).parents[1].joinpath("params.yaml").read_text())
    params = tiny.params(tmp_path / "first.yaml", tiny.encoder(tmp_path / "encoder"))
    old = prepare(tmp_path / "old", params, 0.7)
    finetune.main(old, *(tmp_path / "old" / name for name in OUTPUTS), params=params)
    champion = tmp_path / "champion"
    shutil.copytree(tmp_path / "old" / "challenger", champion)
    (champion / "version.json").write_text('{"version": "v1.0.0"}')

    content = yaml.safe_load(params.read_text())
    content["finetune"]["refresh_of"] = "v1.0.0"
    params.write_text(yaml.safe_dump(content))
    new = prepare(tmp_path / "new", params, 1.0)
    monkeypatch.setattr(challenger, "FEWEST_NEWER_POINTS", fewest)
    finetune.main(new, *(tmp_path / "new" / name for name in OUTPUTS), params=params, champion=champion)

    prepared = load_prepared(new)
    model = Recommender.load(tmp_path / "new" / "challenger", prepared.catalogue.items)
    before = Recommender.load(champion, prepared.catalogue.items)
    assert model.inputs.text is not None
    np.testing.assert_array_equal(model.inputs.text, before.inputs.text)
    figures = json.loads((tmp_path / "new" / "training" / "summary.json").read_text())
    phases = set(pd.read_csv(tmp_path / "new" / "training" / "curves.csv")["phase"])
    assert "sequence on all of train (challenger)" in phases
    assert ("sequence (challenger)" in phases) == (fewest > 1000)
    end = pd.Timestamp(before.card["train_end"]).value // 1000
    later = challenger.split(prepared, 17, end + 1).later
    assert (later.time > end).all()
    assert (figures["scorer_points"] == len(later)) == (fewest == 5)
    newest: Inputs = model.inputs
    assert newest.statistics.count.sum() > before.inputs.statistics.count.sum()
    points = prepared.test[np.flatnonzero(prepared.test.lengths >= 2)]
    own = points.log.item[points.stop - 1] % 2
    scores = model.score(points)
    point, row = points.rows()
    scores[point, points.log.item[row]] = -np.inf
    assert (scores.argmax(axis=1) % 2 == own).mean() > 0.8
