"""Windows close by rows, users and days, and never split a timestamp; the reference that a model keeps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import small_data as small
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from pipeline.drift import reference, windows
from pipeline.errors import ArtifactError


def rule(rows: int = 2, users: int = 1, days: float = 0, **more: int) -> SimpleNamespace:
    more = {"reference_windows": 2, "reference_rows": 100} | more
    return SimpleNamespace(window_days=days, min_rows=rows, min_users=users, **more)


def days(found: list[windows.Window]) -> list[list[float]]:
    return [((window.rows["timestamp"] - small.START) / small.DAY).tolist() for window in found]


ROWS = small.rows(("a", "x", 0), ("a", "y", 1), ("b", "x", 2), ("b", "y", 2), ("a", "z", 3), ("c", "x", 5))


def test_a_window_closes_at_the_first_change_with_enough_rows() -> None:
    assert days(windows.close(ROWS, rule(rows=2))) == [[0, 1], [2, 2]]  # day 3 and 5: no later row
    assert days(windows.close(ROWS, rule(rows=3))) == [[0, 1, 2, 2]]  # the two rows of day 2 stay together


def test_a_window_waits_for_users_and_for_days() -> None:
    assert days(windows.close(ROWS, rule(rows=1, users=2))) == [[0, 1, 2, 2]]
    assert days(windows.close(ROWS, rule(rows=1, days=3))) == [[0, 1, 2, 2]]
    assert windows.close(ROWS, rule(rows=1, users=4)) == []
    assert windows.close(ROWS.head(0), rule(rows=1)) == []


def test_backwards_the_same_rule_and_the_beginning_closes() -> None:
    assert days(windows.newest(ROWS, rule(rows=2), 9)) == [[0, 1], [2, 2], [3, 5]]
    assert days(windows.newest(ROWS, rule(rows=2), 2)) == [[2, 2], [3, 5]]
    assert days(windows.newest(ROWS, rule(rows=6), 2)) == [[0, 1, 2, 2, 3, 5]]


def test_new_is_what_was_not_met_before_the_window() -> None:
    first, second = windows.close(windows.with_since(ROWS), rule(rows=2))
    assert first.rows["new_user"].all()
    assert first.rows["new_item"].all()
    assert second.rows["new_user"].tolist() == [True, True]
    assert second.rows["new_item"].tolist() == [False, False]


times = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=40)


@how(max_examples=25)
@given(times, st.integers(1, 6), st.integers(1, 3), st.integers(0, 3))
def test_closed_windows_hold_what_they_must_and_later_rows_do_not_change_them(
    cells: list[tuple[int, int]], rows: int, users: int, span: int
) -> None:
    cells = sorted(cells, key=lambda cell: cell[1])
    frame = small.rows(*((f"u{user}", "x", day) for user, day in cells))
    wanted = rule(rows=rows, users=users, days=span)
    found = windows.close(frame, wanted)
    for window in found:
        assert len(window.rows) >= rows
        assert window.users >= users
    joined = [day for window in days(found) for day in window]
    assert joined == [day for _, day in cells][: len(joined)]  # consecutive, from the first row on
    ends = [window[-1] for window in days(found)]
    assert all(end < after[0] for end, after in zip(ends, days(found)[1:], strict=False))
    for count in range(0, len(frame), 5):
        earlier = days(windows.close(frame.head(count), wanted))
        assert earlier == days(found)[: len(earlier)]


def test_the_reference_ends_with_fit_end_and_says_what_it_holds(tmp_path: Path) -> None:
    end = small.START + 3 * small.DAY
    made = reference.write(tmp_path / "reference", ROWS.assign(positive=True), end, rule(rows=2))
    read = reference.read(tmp_path / "reference")
    assert read.summary == made.summary
    assert read.rows["timestamp"].max() == pd.Timestamp(end)
    assert read.rows["window"].tolist() == [0, 0, 1, 1, 1]
    assert read.rows["new_item"].tolist() == [True, True, False, False, True]
    assert read.rows["new_user"].tolist() == [True, True, True, True, False]
    assert read.rows["positive"].all()
    assert (read.summary.rows_fitted, read.summary.rows, read.summary.users) == (5, 5, 2)
    assert read.daily is not None
    assert read.daily.counts.tolist() == [
        [1, 1, 0, 0],
        [2, 1, 1, 1],
        [1, 1, 0, 0],
    ]  # 24 hours back from fit_end each; the first row is 3 days old


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        reference.write(tmp_path / name, ROWS, small.START + 3 * small.DAY, rule(rows=2))
    for file in (reference.ROWS, reference.SUMMARY):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_sample_keeps_whole_users_and_the_same_ones() -> None:
    frame = small.rows(*((f"u{row % 20}", "x", row) for row in range(200)))
    kept = reference.sampled(frame, 55)
    assert kept.groupby("user_id").size().tolist() == [10] * 5
    more = reference.sampled(frame.sample(frac=1, random_state=1), 65)
    assert set(kept["user_id"]) < set(more["user_id"])
    assert len(reference.sampled(frame, 3)) == 10  # a first user of more rows stays


def test_nothing_to_refer_to_is_an_empty_reference() -> None:
    made = reference.make(ROWS, small.START - small.DAY, rule())
    assert (len(made.rows), made.summary.windows, made.summary.daily) == (0, [], [])


def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        reference.read(tmp_path / "none")
    reference.write(tmp_path, ROWS, small.START + 3 * small.DAY, rule())
    summary = json.loads((tmp_path / reference.SUMMARY).read_text())
    (tmp_path / reference.SUMMARY).write_text(json.dumps(summary | {"rows_kept": 7}))
    with pytest.raises(ArtifactError, match="5 rows instead of 7"):
        reference.read(tmp_path)


def test_daily_counts_reach_as_far_back_as_the_windows() -> None:
    frame = small.rows(*(("a", "x", day) for day in range(400)))
    made = reference.make(frame, small.START + 399 * small.DAY, rule(rows=300))
    assert made.daily is not None
    assert np.array_equal(made.daily.counts, np.tile([1, 1, 0, 0], (299, 1)))
    # 299 whole days lie between the first row of the window and fit_end
