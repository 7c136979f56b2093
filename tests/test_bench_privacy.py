"""The bench of privacy on a tiny world: budgets have their figures, and an attack works without noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.bench import privacy
from pipeline.data.histories import load_prepared
from pipeline.models.private import Budget
from pipeline.stages import preprocess


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> privacy.Court:
    folder = tmp_path_factory.mktemp("bench")
    tiny.raw(folder / "raw")
    params = tiny.params(folder / "params.yaml", Path("unused"))
    preprocess.main(folder / "raw", folder / "prepared", params)
    prepared = load_prepared(folder / "prepared")
    return privacy.Court(prepared, np.zeros((len(prepared.catalogue), 4), np.float32), 1)


def test_without_noise_members_are_known_and_with_much_they_are_not(
    court: privacy.Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "SAMPLES", 80)
    bare, hidden = court.private(Budget(float("inf"), 1e-5)), court.private(Budget(0.01, 1e-5))
    assert bare["auc"] > 0.6
    assert abs(hidden["auc"] - 0.5) < 0.35  # of twenty users
    assert (bare["auc_bound"], round(hidden["auc_bound"], 2)) == (1.0, 0.5)
    assert bare["ndcg@10"] > hidden["ndcg@10"]
    assert bare["low"] <= bare["ndcg@10"] <= bare["high"]


def test_the_three_groups_share_nobody(court: privacy.Court) -> None:
    groups = [*court.members, *court.others, *court.third]
    assert sorted(groups) == list(range(court.x.shape[0]))
