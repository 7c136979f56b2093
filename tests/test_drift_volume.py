"""Of rows, active users, arrivals and new users a day, the one that stands out speaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import small_data as small

from pipeline.drift import statistics, volume, windows


def crowd(users: int, visits: int, seed: int, start: int = 0) -> pd.DataFrame:
    """`users` who are each met for a day within 100 days, and two who come daily, with rows by the dozen."""
    generator = np.random.default_rng(seed)
    cells = [
        (f"u{start + u}", f"i{v}", start + int(generator.integers(100))) for u in range(users) for v in (0, 1)
    ]
    busy = [(f"busy{b}", f"i{day}", start + day) for b in (0, 1) for day in range(100) for _ in range(visits)]
    return small.rows(*cells, *busy)


def test_more_new_users_are_seen_behind_a_few_busy_ones() -> None:
    rows = windows.with_since(pd.concat([crowd(80, 20, 1), crowd(200, 12, 2, start=200)], ignore_index=True))
    day = ((rows["timestamp"] - small.START) / small.DAY).to_numpy().astype(int)
    old, new = (windows.Daily.of(day - begin, rows, 100) for begin in (0, 200))
    known = volume.judge(old, new)
    assert known.fact.endswith(("most: new users", "most: arrivals"))
    assert known.effect == pytest.approx(200 / 82 - 1, abs=0.3)
    assert old.counts[:, 0].sum() > new.counts[:, 0].sum()  # of rows alone it looks like less
    part, side = volume.part(old, new)
    assert statistics.permutation_tests(side, {"volume": part}, 999, 1)["volume"].p_value < 0.005


def test_counts_that_a_side_does_not_know_are_not_compared() -> None:
    frame = crowd(50, 3, 1)
    day = ((frame["timestamp"] - small.START) / small.DAY).to_numpy().astype(int)
    blind, known = (windows.Daily.of(day, each, 100) for each in (frame, windows.with_since(frame)))
    assert (blind.counts.shape, known.counts.shape) == ((100, 2), (100, 4))
    assert volume.judge(blind, known).value == 0
    assert known.counts[:, 3].sum() == 52
    assert known.counts[:, 2].sum() >= 52
