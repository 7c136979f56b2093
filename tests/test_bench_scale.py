"""`evergreen bench scale` goes through every stage of a small world, and measures each."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from pipeline.bench import scale


def test_the_made_up_world_has_tastes(tmp_path: Path) -> None:
    import pandas as pd

    raw = scale.made_up(tmp_path / "raw", scale.Size(2_000, 20_000, 100))
    rows, items = pd.read_parquet(raw / "interactions"), pd.read_parquet(raw / "items.parquet")
    assert len(rows) == 20_000
    assert items["text"].str.split().str.len().add(3).eq(scale.WORDS).all()
    topic = rows["item_id"].map(items.set_index("item_id")["categories"].str[0])
    most = topic.groupby(rows["user_id"]).nunique()
    assert most.max() <= scale.TOPICS_A_USER


@pytest.mark.slow
def test_every_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder"))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(params.parent)
    for name, value in (("ITEMS", 300), ("ROWS", 4_000), ("USERS", 80)):
        monkeypatch.setenv(f"EVERGREEN_BENCH_{name}", str(value))
    found = scale.run()
    assert set(found["figures"]) == {"preprocess", "finetune", "evaluate", "recommend"}
    assert all(figure["peak_gib"] > 0.05 for figure in found["figures"].values())
    assert all(0 < ratio < 1 for ratio in found["ratios"].values())
