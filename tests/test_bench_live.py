"""The made-up world of `evergreen bench live`: items live for days, and its chances rank best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.bench import _turnover, ranking
from pipeline.bench import live as bench
from pipeline.params import Params


@pytest.mark.slow
def test_the_challenger_lives_with_items_that_live_for_days(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"DAYS": 20, "ITEMS_A_DAY": 15, "USERS": 150, "VISITS": 6}.items():
        monkeypatch.setattr(_turnover, name, value)
    monkeypatch.setattr(ranking, "FOLDER", tmp_path)
    monkeypatch.setattr(ranking, "SEEDS", 1)
    made_up, world = bench._made_up(Params.load(Path("params.yaml"))), _turnover.World.of(bench.SEED)
    found = bench.fits(made_up) | {bench.BEST_POSSIBLE: [bench._best_possible(made_up, world)]}
    told = bench.summary(
        ranking.summary(
            [made_up], {name: fits for name, fits in found.items() if name != bench.BEST_POSSIBLE}
        ),
        ranking.summary([made_up], found),
    )
    quality = {name: row["ndcg@10"] for name, row in told["figures"].items()}
    assert quality["turnover: best_possible"] == max(quality.values())
    assert quality["turnover: challenger"] > quality["turnover: frozen_state"]
    assert all(np.isfinite(ratio) for ratio in told["ratios"].values())
