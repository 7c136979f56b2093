"""The made-up worlds of `evergreen bench live`: items live for days or hours, and its chances rank best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.bench import _turnover, ranking
from pipeline.bench import live as bench
from pipeline.params import Params


@pytest.mark.slow
@pytest.mark.parametrize("name", _turnover.KINDS)
def test_the_challenger_lives_with_items_that_do_not_live_long(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_turnover, "DAYS", 20)
    monkeypatch.setattr(_turnover, "ITEMS_A_DAY", 15)
    monkeypatch.setattr(ranking, "FOLDER", tmp_path)
    monkeypatch.setattr(ranking, "SEEDS", 1)
    kind = replace(_turnover.KINDS[name], users=150, visits=6, taken=6)
    found = bench.made_up(_turnover.World.of(kind, bench.SEED), Params.load(Path("params.yaml")))
    told = bench.summary(found, {name: found})
    quality = {model: row["ndcg@10"] for model, row in told["figures"].items()}
    assert quality[f"{name}: best_possible"] == max(quality.values())
    assert quality[f"{name}: challenger"] > quality[f"{name}: frozen_state"]
    assert all(np.isfinite(ratio) for ratio in told["ratios"].values())
