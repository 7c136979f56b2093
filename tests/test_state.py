"""The live state against sums written out row by row."""

from dataclasses import replace

import numpy as np
import pytest
from histories_by_hand import log_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.histories import Log
from pipeline.models.neighbours import HELD
from pipeline.models.state import HALF_LIFE_ROWS, NEVER, NOT_YET, Folded, Live, half_lives

HOUR = 3_600_000_000
DAY = 24 * HOUR
DAYS = (0.237, 3.1)  # no half-life of whole hours: no ties but those of equal rows
ITEMS, USERS = 6, 4


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A few rows on a coarse clock, so that moments are shared by rows, items and users."""
    row = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 12), st.booleans())
    rows = sorted(draw(st.lists(row, min_size=1, max_size=40)), key=lambda row: (row[0], row[2]))
    return log_of([(u, i, t * 6 * HOUR) for u, i, t, _ in rows], ITEMS, [row[3] for row in rows])


def random_log(rows: int, items: int, users: int, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    drawn = zip(
        rng.integers(0, users, rows),
        rng.integers(0, items, rows),
        rng.integers(0, rows // 3, rows),
        strict=True,
    )
    ordered = sorted(((int(u), int(i), int(t) * HOUR) for u, i, t in drawn), key=lambda row: (row[0], row[2]))
    return log_of(ordered, items, list(rng.random(rows) < 0.8))


def counted(log: Log, item: int, moment: int) -> tuple[list[float], int, int, int, int]:
    """(decayed counts, rows, successes, first, last) of the rows strictly before the moment."""
    mine = (log.item == item) & (log.time < moment)
    taken = log.time[mine & log.positive]
    decayed = [sum(2 ** (-(moment - int(time)) / (days * DAY)) for time in taken) for days in DAYS]
    times = log.time[mine]
    return decayed, len(times), len(taken), times.min(initial=NEVER), times.max(initial=NOT_YET)


@settings(max_examples=30)
@given(logs(), st.sampled_from([0, 1, 6 * 3600, 5 * 3600]), st.none() | st.integers(0, 13))
def test_state_counts_the_rows_strictly_before_the_delayed_moment(
    log: Log, delay: int, until: int | None
) -> None:
    live = Live.of(log, ITEMS, DAYS, delay, None if until is None else until * 6 * HOUR)
    moments = np.arange(-1, 15) * 6 * HOUR
    state = live.at(np.arange(-1, ITEMS)[None, :], moments[:, None])
    assert state.decayed.shape == (16, ITEMS + 1, 2)
    for row, time in enumerate(moments):
        moment = (time if until is None else min(time, until * 6 * HOUR)) - delay * 1_000_000
        for column in range(ITEMS + 1):
            decayed, *rest = counted(log, column - 1, moment)
            np.testing.assert_allclose(state.decayed[row, column], decayed, rtol=1e-12)
            cells = (state.count, state.successes, state.first, state.last)
            assert [int(cell[row, column]) for cell in cells] == [int(value) for value in rest]


def test_state_of_an_empty_log_is_empty() -> None:
    log = random_log(9, 3, 2)
    empty = replace(log, indptr=log.indptr * 0, **{name: getattr(log, name)[:0] for name in FIELDS})
    live = Live.of(empty, 3, DAYS)
    state = live.at(np.array([[0, -1]]), np.array([DAY]))
    assert not state.decayed.any()
    assert state.first.tolist() == [[NEVER, NEVER]]
    assert live.top(np.array([DAY]), 0, 2).tolist() == [[-1, -1]]
    assert live.newest(np.full(3, NOT_YET), np.array([DAY]), 1).tolist() == [[-1]]


FIELDS = ("user", "item", "time", "value", "positive", "fit", "window")


def test_decayed_counts_survive_a_span_of_thousands_of_half_lives() -> None:
    log = log_of([(0, 0, 0), (0, 0, 9_000 * DAY), (0, 0, 9_000 * DAY + 6 * HOUR)], 1)
    decayed = Live.of(log, 1, DAYS).at(np.array([0]), np.array([9_000 * DAY + 12 * HOUR])).decayed
    assert decayed[0, 0] == pytest.approx(2 ** (-0.5 / 0.237) + 2 ** (-0.25 / 0.237))


def brute_top(live: Live, time: int, half_life: int, n: int) -> list[int]:
    decayed = live.at(np.arange(live.items), np.array([time])).decayed[:, half_life]
    order = np.lexsort((np.arange(live.items), -decayed))[:n]
    return [int(item) for item in order if decayed[item] > 0]


@settings(max_examples=30)
@given(logs(), st.integers(1, 8), st.sampled_from([0, 6 * 3600]))
def test_top_lists_the_greatest_decayed_counts(log: Log, n: int, delay: int) -> None:
    live = Live.of(log, ITEMS, DAYS, delay)
    moments = np.random.default_rng(0).permutation(np.arange(-1, 15)) * 6 * HOUR
    lists = live.top(moments, 1, n)
    assert lists.shape == (16, n)
    for row, time in zip(lists, moments, strict=True):
        brute = brute_top(live, int(time), 1, n)
        assert row.tolist() == brute + [-1] * (n - len(brute))


@pytest.mark.parametrize("until", [None, 400 * HOUR])
def test_top_is_exact_across_many_blocks(until: int | None) -> None:
    live = Live.of(random_log(3_000, 50, 20), 50, DAYS, until=until)
    moments = np.random.default_rng(1).integers(0, 1_000, 500) * HOUR + 1
    lists = live.top(moments, 0, 7)
    for row, time in zip(lists, moments, strict=True):
        brute = brute_top(live, int(time), 0, 7)
        assert row.tolist() == brute + [-1] * (7 - len(brute))


def test_newest_are_the_items_known_last() -> None:
    log = log_of([(0, 0, 5 * DAY), (0, 1, 6 * DAY), (1, 3, 6 * DAY)], 5)
    given = np.array([NOT_YET, NOT_YET, 5 * DAY + 2, NOT_YET, NOT_YET])  # item 4 is never known
    live = Live.of(log, 5, DAYS)
    times = np.array([5 * DAY, 5 * DAY + 2, 6 * DAY, 6 * DAY + 1])
    # A first row counts strictly before the moment, an item's availability at it.
    assert live.newest(given, times, 3).tolist() == [[-1, -1, -1], [2, 0, -1], [2, 0, -1], [1, 3, 2]]
    late = Live.of(log, 5, DAYS, delay_seconds=86_400)
    assert late.newest(given, np.array([6 * DAY + 1]), 3).tolist() == [[0, 2, -1]]
    still = replace(live, until=5 * DAY)
    assert still.newest(given, np.array([9 * DAY]), 2).tolist() == [[-1, -1]]


def brute_neighbours(log: Log, user: int, moment: int, last: int, takers: int, around: int) -> np.ndarray:
    def rows_of(column: np.ndarray, value: int) -> list[int]:
        rows = np.flatnonzero((column == value) & (log.time < moment))
        return rows[np.argsort(log.time[rows], kind="stable")][::-1].tolist()

    scores = np.zeros(int(log.item.max()) + 1)
    for shared, row in enumerate(rows_of(log.user, user)[:last]):
        for place, taken in enumerate(rows_of(log.item, log.item[row])[:takers]):
            if log.user[taken] == user:
                continue
            theirs = rows_of(log.user, log.user[taken])[:HELD][::-1]
            if taken not in theirs:
                continue
            for step in [*range(-around, 0), *range(1, around + 1)]:
                there = theirs.index(taken) + step
                if 0 <= there < len(theirs) and log.item[theirs[there]] != log.item[row]:
                    counts = 2 ** (-shared / 5 - place / 50) / abs(step)
                    scores[log.item[theirs[there]]] += counts if step > 0 else counts / 2
    return scores / max(scores.max(), 1e-12)


@pytest.mark.parametrize("delay", [0, 3 * 3600])
def test_neighbours_are_what_the_newest_takers_took_around_it(delay: int) -> None:
    log = random_log(400, 15, 12)
    live = Live.of(log, 15, DAYS, delay)
    rows = np.arange(0, 400, 9)
    points = log.points(log.user[rows], log.item[rows], log.time[rows] - delay * 1_000_000)
    # The history of a point is live; what other users did arrives late.
    asked = replace(points, time=points.time + delay * 1_000_000)
    scores = live.neighbours(asked, 15, last=4, takers=6, around=3)
    assert scores.dtype == np.float32
    for point in range(len(points)):
        brute = brute_neighbours(log, int(points.user[point]), int(points.time[point]), 4, 6, 3)
        np.testing.assert_allclose(scores[point].toarray()[0], brute, atol=1e-6)
    assert scores.max() == 1


def test_no_row_of_the_moment_or_later_is_in_the_state() -> None:
    log = random_log(500, 12, 10)
    moment = int(np.sort(log.time)[300])
    cut = log.time < moment
    past = log_of(
        list(zip(log.user[cut].tolist(), log.item[cut].tolist(), log.time[cut].tolist(), strict=True)),
        12,
        log.positive[cut].tolist(),
    )
    assert (log.time == moment).any()
    answers = []
    for known in (log, past):
        live = Live.of(known, 12, DAYS)
        users = np.unique(past.user)
        points = known.points(users, np.full(len(users), -1, np.int32), np.full(len(users), moment))
        state = live.at(np.arange(12), np.array([moment]))
        lists = [live.top(points.time, 0, 5), live.newest(np.full(12, NOT_YET), points.time, 5)]
        answers.append(
            [
                state.decayed,
                state.count,
                state.first,
                state.last,
                *lists,
                live.neighbours(points, 12).toarray(),
            ]
        )
    for full, early in zip(*answers, strict=True):
        np.testing.assert_array_equal(full, early)


def test_half_lives_follow_the_pace_of_the_newest_fifth() -> None:
    old = np.arange(8_000) * DAY // 100  # 100 rows a day, then 1,000
    new = old[-1] + np.arange(1, 2_001) * DAY // 1_000
    days = half_lives(np.random.default_rng(0).permutation(np.r_[old, new]))
    assert days == pytest.approx((1 / 24, 0.1, 0.4, 1.6, 6.4, 25.6), rel=0.01)
    burst = np.r_[old, new[:1_500], np.full(500, new[1_500])]  # a quarter of the newest at one moment
    assert half_lives(burst) == pytest.approx(days, rel=0.01)


@given(st.lists(st.integers(0, 2_000 * DAY), max_size=30), st.sampled_from([1, DAY]))
def test_half_lives_ascend_from_an_hour_to_the_span(times: list[int], grid: int) -> None:
    stamps = np.array(times, dtype=np.int64) // grid * grid
    days = half_lives(stamps)
    assert len(days) == len(HALF_LIFE_ROWS)
    assert (np.diff(days) > 0).all()
    assert days[0] >= 1 / 24
    span = np.ptp(stamps) / DAY if len(stamps) else 0
    if span > 1.5:
        assert days[-1] <= span + 1e-9


@pytest.mark.parametrize("delay", [0, 2 * 3600])
def test_folded_vectors_are_means_of_those_who_took_the_item_before(delay: int) -> None:
    log = random_log(300, 10, 8)
    rng = np.random.default_rng(3)
    vectors, known = rng.normal(size=(10, 3)).astype(np.float32), np.arange(10) % 2 == 0
    live = Live.of(log, 10, DAYS, delay)
    items, times = np.arange(-1, 10)[None, :], np.arange(0, 110, 9)[:, None] * HOUR
    folded = Folded.of(log, live, vectors, known)
    found, count = folded.at(items, times)
    assert found.shape == (13, 11, 3)
    assert count.max() > 3
    assert not count[:, 1::2].any()  # known items have vectors of their own
    for row, time in enumerate(times[:, 0]):
        for item in range(1, 10, 2):
            own = [
                taker_vector(log, place, vectors, known)
                for place in np.flatnonzero((log.item == item) & (log.time < time - delay * 1_000_000))
            ]
            own = [vector for vector in own if vector is not None]
            assert count[row, item + 1] == len(own)
            mean = np.mean(own, axis=0) if own else np.zeros(3)
            np.testing.assert_allclose(found[row, item + 1], mean, atol=1e-5)
    users = rng.normal(size=(13, 3)).astype(np.float32)
    met = folded.products(np.broadcast_to(items, count.shape), times[:, 0], users)
    np.testing.assert_allclose(met, (found @ users[:, :, None])[:, :, 0], atol=1e-5)
    still = Folded.of(log, replace(live, until=50 * HOUR), vectors, known)
    assert (still.at(items, times)[1][-1] == still.at(items, np.array([[50 * HOUR]]))[1]).all()


def taker_vector(log: Log, row: int, vectors: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    moment = log.points(log.user[[row]], np.array([-1], np.int32), log.time[[row]])
    weights = moment.weights(len(known), 5.0).toarray()[0] * known
    return weights @ vectors / weights.sum() if weights.sum() else None
