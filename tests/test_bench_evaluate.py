"""The bench of ranking on a small catalogue; its figures are in docs/log.md."""

import json

import numpy as np
import pytest

from pipeline.bench import evaluate as bench


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEW": 50, "MANY": 120, "ROWS": 900, "USERS": 40, "WIDTH": 8, "POINTS": 3}.items():
        monkeypatch.setattr(bench, name, value)


def test_every_model_is_measured_at_both_sizes(small: None) -> None:
    found = json.loads(json.dumps(bench.run(), allow_nan=False))
    assert set(found["figures"]) == {
        f"{name}_{items}" for name in ("challenger", "ease", "popularity") for items in (50, 120)
    }
    for figure in found["figures"].values():
        assert figure["points_per_second"] > 0
    assert found["ratios"]["points_per_second_largest_over_smallest"] > 0


def test_memory_is_that_of_the_work_alone() -> None:
    before = np.ones(30_000_000)
    peak = bench.memory(lambda: np.ones(50_000_000).sum())
    assert peak is None or 0.2 < peak < 0.6
    assert len(before)
