"""The service's state after some events against the state of the whole log."""

from __future__ import annotations

import numpy as np
import pytest
from histories_by_hand import log_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.baselines import Factors
from pipeline.models.state import NOT_YET, Folded, Live
from pipeline.serve.state import Last, Present, PresentFolded

HOUR = 3_600_000_000
DAYS = (0.237, 3.1, 9.0)
ITEMS, USERS = 6, 4

Row = tuple[int, int, int, bool]
ROWS = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 60), st.booleans()),
    min_size=1,
    max_size=40,
    unique_by=lambda row: row[2],
)


def live_of(rows: list[Row]) -> Live:
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    log = log_of([(u, i, h * HOUR) for u, i, h, _ in rows], ITEMS, [row[3] for row in rows], USERS)
    return Live.of(log, ITEMS, DAYS)


def factors() -> Factors:
    vectors = np.random.default_rng(3).normal(size=(ITEMS, 3)).astype(np.float32)
    known = np.arange(ITEMS) < 3
    vectors[~known] = 0
    return Factors(vectors, known, 1.0, 1.0)


@settings(max_examples=80)
@given(ROWS, st.integers(0, 40), st.booleans())
def test_events_after_a_log_give_what_the_whole_log_gives(
    rows: list[Row], first: int, backwards: bool
) -> None:
    rows = sorted(rows, key=lambda row: row[2])
    before, after = rows[:first], rows[first:]
    base, whole, known = live_of(before), live_of(rows), factors()
    users = np.array([str(number) for number in range(USERS)], dtype=object)
    present = Present(base, users)
    folded = PresentFolded(Folded.of(base.log, base, known.vectors, known.known), known)
    since = np.full(ITEMS, NOT_YET)
    since[2] = 60 * HOUR
    latest = before[-1][2] if before else 0
    for user, item, hour, positive in after[::-1] if backwards else after:
        folded.add(item, present.rows(user))
        present.append(str(user), item, hour * HOUR, positive, float("nan"))
        latest = max(latest, hour)
        for half_life, n in ((0, 2), (1, 4)):  # between events, too: lists move with each
            present.top(np.array([latest * HOUR]), half_life, n)
        present.newest(since, np.array([latest * HOUR]), 4)
    now = np.array([61 * HOUR])
    items = np.arange(-1, ITEMS)[None]
    mine, its = present.at(items, now[:, None]), whole.at(items, now[:, None])
    np.testing.assert_allclose(mine.decayed, its.decayed, rtol=1e-9)
    for name in ("count", "successes", "first", "last"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(its, name), err_msg=name)
    for half_life, n in ((0, 2), (1, 4)):
        np.testing.assert_array_equal(present.top(now, half_life, n), whole.top(now, half_life, n))
    np.testing.assert_array_equal(present.newest(since, now, 4), whole.newest(since, now, 4))
    if not backwards:  # a late row counts with the history that is known by then
        of_whole = Folded.of(whole.log, whole, known.vectors, known.known).at(items, now[:, None])
        for own, its_own in zip(folded.at(items, now[:, None]), of_whole, strict=True):
            np.testing.assert_allclose(own, its_own, rtol=1e-4, atol=1e-6)
    for user in range(USERS):
        points = whole.log.points(np.array([user], np.int32), np.full(1, -1, np.int32), now)
        point = present.rows(user).points(user, int(now[0]), False)
        np.testing.assert_array_equal(point.log.item[:-1], points.log.item[points.start[0] : points.stop[0]])
        np.testing.assert_allclose(
            present.neighbours(point, ITEMS).toarray(), whole.neighbours(points, ITEMS).toarray(), atol=1e-6
        )


def test_late_events_find_their_place() -> None:
    last = Last(1, 3)
    for number, time in ((1, 10), (2, 30), (3, 20), (4, 20), (5, 5)):
        last.add(0, number, time)
    assert last.number[0].tolist() == [2, 4, 3]
    last.add(5, 7, 1)  # an owner that came later
    assert last.number[5].tolist() == [7, -1, -1]


def test_a_forgotten_user_is_nobody() -> None:
    base = live_of([(0, 1, 1, True), (1, 1, 2, True), (1, 2, 3, True)])
    present = Present(base, np.array(["a", "b", "c", "d"], dtype=object))
    present.append("b", 4, 4 * HOUR, True, 5.0)
    present.forget("b")
    assert present.user("b") == -1
    assert len(present.rows(1)) == 0
    assert present.takers.number[1].tolist()[:2] == [-1, 0]
    assert present.at(np.array([[4]]), np.array([[5 * HOUR]])).count.tolist() == [[0]]


@pytest.mark.parametrize("further", [0, 3])
def test_rows_come_oldest_first(further: int) -> None:
    present = Present(live_of([(0, 1, 5, True), (0, 2, 9, False)]), np.array(list("abcd"), dtype=object))
    for number in range(further):
        present.append("a", 3, (4 + number) * HOUR + 1, True, 2.0)
    rows = present.rows(0)
    assert (np.diff(rows.time) > 0).all()
    assert len(rows) == 2 + further
