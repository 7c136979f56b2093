"""The live state event by event against the state of the whole log."""

import numpy as np
import pytest
from histories_by_hand import log_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.state import NEVER, Live
from pipeline.models.streaming import LiveState

HOUR = 3_600_000_000
DAYS = (0.237, 3.1)
ITEMS = 5

EVENTS = st.tuples(
    st.none() | st.integers(0, 15),  # event id, often a repeated one
    st.integers(0, 3),
    st.integers(0, ITEMS - 1),
    st.integers(0, 20),
    st.booleans(),
)
STEPS = st.lists(st.one_of(EVENTS, EVENTS, st.integers(0, 3), st.floats(0, 4)), max_size=50)

Row = tuple[int, int, int, bool]


def live_of(rows: list[Row], delay: float) -> Live:
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    log = log_of([row[:3] for row in rows], ITEMS, [row[3] for row in rows])
    return Live.of(log, ITEMS, DAYS, delay)


def same(state: LiveState, rows: list[Row], now: int, delay: float) -> None:
    live = live_of(rows, delay) if rows else None
    items = np.arange(-1, ITEMS)
    mine = state.item(items, now)
    if live is None:
        assert not mine.count.any()
        assert (mine.first == NEVER).all()
        assert state.top(now, 0, 3).tolist() == [-1, -1, -1]
        return
    whole = live.at(items, np.array([now]))
    np.testing.assert_allclose(mine.decayed, whole.decayed, rtol=1e-9)
    for name in ("count", "successes", "first", "last"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(whole, name))
    for half_life in range(2):
        listed, best = state.top(now, half_life, 3), live.top(np.array([now]), half_life, 3)[0]
        counts = [live.at(array, np.array([now])).decayed[:, half_life] for array in (listed, best)]
        np.testing.assert_allclose(*counts, rtol=1e-9)


@settings(max_examples=60)
@given(STEPS, st.sampled_from([0, 2 * 3600, 1]))
def test_events_one_by_one_give_the_state_of_the_log(steps: list, delay: int) -> None:
    state, now = LiveState(DAYS, delay), 0
    rows: list[Row] = []
    seen: set[int] = set()
    for step in steps:
        if isinstance(step, float):
            now += round(step) * HOUR
            same(state, rows, now, delay)
        elif isinstance(step, int):
            state.remove_user(step)
            rows = [row for row in rows if row[0] != step]
        else:
            event, user, item, hour, positive = step
            assert state.append(event, user, item, hour * HOUR, positive) == (event not in seen)
            if event is None or event not in seen:
                rows.append((user, item, hour * HOUR, positive))
                seen |= {event} - {None}
    same(state, rows, now, delay)
    for user in range(4):
        items, times, positive = state.history(user, now)
        got = sorted(zip(items.tolist(), times.tolist(), positive.tolist(), strict=True))
        assert got == sorted(row[1:] for row in rows if row[0] == user and row[2] < now)
        assert (np.diff(times) >= 0).all()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 30), st.booleans()), max_size=40))
def test_rows_beyond_the_bound_stay_in_the_sums(events: list[tuple[int, int, bool]]) -> None:
    state = LiveState(DAYS, rows_an_item=2, rows_a_user=3)
    rows: list[Row] = []
    for place, (item, hour, positive) in enumerate(events):
        state.append(None, "u", item, hour * HOUR, positive)
        rows.append((0, item, hour * HOUR, positive))
        if place % 3 == 0:
            same(state, rows, (20 + place) * HOUR, 0)
    assert len(state.history("u", 99 * HOUR)[0]) == min(3, len(events))


def test_a_removed_user_leaves_the_sums_of_rows_that_are_no_longer_kept() -> None:
    state = LiveState(DAYS, rows_an_item=2)
    for hour in range(6):
        state.append(None, "ab"[hour % 2], 0, hour * HOUR, True)
    state.item(np.array([0]), 9 * HOUR)
    state.remove_user("a")
    left = state.item(np.array([0]), 9 * HOUR)
    whole = live_of([(0, 0, hour * HOUR, True) for hour in (1, 3, 5)], 0).at(
        np.array([0]), np.array([9 * HOUR])
    )
    assert left.count.tolist() == [3]
    np.testing.assert_allclose(left.decayed, whole.decayed, rtol=1e-9)
    state.remove_user("b")
    assert state.item(np.array([0]), 9 * HOUR).count.tolist() == [0]
    assert state.top(9 * HOUR, 0, 1).tolist() == [-1]


def test_moments_are_asked_in_ascending_order() -> None:
    state = LiveState(DAYS)
    state.top(5 * HOUR, 0, 1)
    with pytest.raises(ValueError, match="ascending"):
        state.top(4 * HOUR, 0, 1)


def test_an_unknown_item_is_refused() -> None:
    with pytest.raises(ValueError, match="item -1"):
        LiveState(DAYS).append(None, "u", -1, 0, True)
