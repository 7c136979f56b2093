"""The live state: what happened to every item strictly earlier than a moment, for any (item, moment).

State at time t is a function of the log's rows strictly earlier than t - delay, and ages run to t - delay
as well: it is the state without delay of a moment that lies `delay` back. No fitted weight is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, Log, Points
from pipeline.models import neighbours as rules
from pipeline.models.decay import best_of_block, decayed_sums

HALF_LIFE_ROWS = (25, 100, 400, 1600, 6400, 25600)
NEVER = np.iinfo(np.int64).max  # first row of an item without rows
NOT_YET = np.iinfo(np.int64).min  # last row of an item without rows
HOUR = 1 / 24  # days
SLICES = 5  # of the newest fifth: the median pace ignores a burst or a pause in two of them
APART = 2.0  # least ratio of neighbouring half-lives
FOLDING_HALF_LIFE = 5.0  # items of the history of who took an item
CHUNK = 4_096  # rows folded at a time


def half_lives(times: np.ndarray, rows: tuple[int, ...] = HALF_LIFE_ROWS) -> tuple[float, ...]:
    """Days in which the data collect so many rows at the pace of their newest fifth, ascending.

    `times`: int64 microseconds in any order. As many half-lives as `rows`, each at least twice the one
    before, at least an hour, and at most the span of the data (unless that is too short for as many).
    """
    times = np.sort(times)
    span = _days(times)
    days = np.array(rows, dtype=np.float64) * _days_a_row(times)
    limit = max(span, HOUR)
    for place in reversed(range(len(days))):
        limit = days[place] = min(days[place], limit)
        limit /= APART
    limit = HOUR
    for place in range(len(days)):
        limit = days[place] = max(days[place], limit)
        limit *= APART
    return tuple(float(value) for value in days)


def _days_a_row(times: np.ndarray) -> float:
    newest = times[len(times) * 4 // 5 :]
    if len(newest) > SLICES:
        edges = np.linspace(0, len(newest) - 1, SLICES + 1).astype(int)
        paces = np.diff(newest[edges]) / MICROSECONDS_A_DAY / np.diff(edges)
        if np.median(paces) > 0:
            return float(np.median(paces))
    # Coarse timestamps or few rows: the mean, over more rows where the newest all share one moment.
    for part in (newest, times):
        if _days(part) > 0:
            return _days(part) / (len(part) - 1)
    return 0.0


def _days(times: np.ndarray) -> float:
    return float(times[-1] - times[0]) / MICROSECONDS_A_DAY if len(times) else 0.0


@dataclass(frozen=True)
class ItemState:
    """What a moment knows of items; every array has the shape that was asked for."""

    decayed: np.ndarray  # (..., half-lives) float64: sum over successes of 2^(-age / half-life)
    count: np.ndarray  # int64 rows of any kind
    successes: np.ndarray  # int64
    first: np.ndarray  # int64 microseconds of the first row; the maximum of int64 where there is none yet
    last: np.ndarray  # int64 microseconds of the last row; the minimum of int64 where there is none yet


@dataclass(frozen=True, eq=False)
class Live:
    """The state of a whole log, for any moment: the rows item by item in time order, and sums along them.

    Memory: about 110 bytes a row with six half-lives, beside the log. `replace(live, until=moment)` is the
    same state standing still at a moment (microseconds): later questions are answered as of it.
    """

    half_lives: tuple[float, ...]  # days
    log: Log
    items: int
    delay: int  # microseconds
    until: int | None
    ticks: np.ndarray  # (moments,) int64: every time of the log, once, ascending
    row: np.ndarray  # (rows,) int64 rows of the log, item by item, in time order within an item
    time: np.ndarray  # (rows,) int64 microseconds of `row`
    indptr: np.ndarray  # (items + 1,) int64: item i has indptr[i]:indptr[i + 1] of `row`
    item_key: np.ndarray  # (rows,) int64, ascending: (item, tick) of `row` as one number
    user_key: np.ndarray  # (log rows,) int64, ascending: (user, tick) as one number
    before: np.ndarray  # (rows + 1,) int64 successes among the first rows of `row`
    success: np.ndarray  # (successes,) int64 places in `row`
    sums: np.ndarray  # (successes, half-lives) float64: decayed count just after each success
    _heights: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict, repr=False)  # of `top`
    _novelty: list[np.ndarray] = field(default_factory=list, init=False, repr=False)  # of `newest`

    @classmethod
    def of(
        cls,
        log: Log,
        items: int,
        half_lives: tuple[float, ...],
        delay_seconds: float = 0.0,
        until: int | None = None,
    ) -> Live:
        ticks, tick = np.unique(log.time, return_inverse=True)
        row = np.lexsort((log.time, log.item))
        row = row[log.item[row] >= 0]  # rows of items that the catalogue lacks
        item, time = log.item[row].astype(np.int64), log.time[row]
        positive = log.positive[row]
        success = np.flatnonzero(positive)
        return cls(
            half_lives=half_lives,
            log=log,
            items=items,
            delay=round(delay_seconds * 1_000_000),
            until=until,
            ticks=ticks,
            row=row,
            time=time,
            indptr=np.r_[0, np.cumsum(np.bincount(item, minlength=items))].astype(np.int64),
            item_key=item * (len(ticks) + 1) + tick[row],
            user_key=log.user.astype(np.int64) * (len(ticks) + 1) + tick,
            before=np.r_[0, np.cumsum(positive)].astype(np.int64),
            success=success,
            sums=decayed_sums(item[success], time[success], half_lives),
        )

    def moment(self, time: np.ndarray) -> np.ndarray:
        """Microseconds that a row must be strictly earlier than, to be known at `time`."""
        time = np.asarray(time, dtype=np.int64)
        return (time if self.until is None else np.minimum(time, self.until)) - self.delay

    def tick(self, moment: np.ndarray) -> np.ndarray:
        """Number of the log's distinct times strictly earlier than each moment."""
        return np.searchsorted(self.ticks, moment, side="left")

    def stop(self, item: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """End, in `row`, of the rows of each item before each tick; shapes broadcast, items not -1."""
        key = item.astype(np.int64) * (len(self.ticks) + 1) + tick
        return np.searchsorted(self.item_key, key, side="left")

    def at(self, item: np.ndarray, time: np.ndarray) -> ItemState:
        """State of each item at each time (microseconds); shapes broadcast; item -1 has an empty state."""
        item, moment = np.asarray(item), self.moment(time)
        known, safe = item >= 0, np.maximum(item, 0)
        stop = self.stop(safe, self.tick(moment))
        start = np.broadcast_to(self.indptr[safe], stop.shape)
        count = np.where(known, stop - start, 0)
        if not len(self.row):
            none = np.zeros(count.shape, np.int64)
            decayed = np.zeros((*count.shape, len(self.half_lives)))
            return ItemState(decayed, none, none, none + NEVER, none + NOT_YET)
        taken = self.before[stop]
        successes = np.where(known, taken - self.before[start], 0)
        return ItemState(
            decayed=self._decayed(taken - 1, successes > 0, moment),
            count=count,
            successes=successes,
            first=np.where(count > 0, self.time[np.minimum(start, len(self.time) - 1)], NEVER),
            last=np.where(count > 0, self.time[np.maximum(stop - 1, 0)], NOT_YET),
        )

    def _decayed(self, place: np.ndarray, known: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """Sums at places among the successes, decayed to the moment; zeros where not known."""
        decayed = np.zeros((*place.shape, len(self.half_lives)))
        place = place[known]
        age = np.broadcast_to(moment, known.shape)[known] - self.time[self.success[place]]
        decay = np.exp2(-(age / MICROSECONDS_A_DAY)[:, None] / np.array(self.half_lives))
        decayed[known] = self.sums[place] * decay
        return decayed

    def heights(self, half_life: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every success in time order: its time, its item, and the item's height just after it.

        The height, log2 of the decayed count + age of the log / half-life, stands still between successes.
        """
        order = np.argsort(self.time[self.success], kind="stable")
        times = self.time[self.success[order]]
        item = self.log.item[self.row[self.success[order]]]
        height = np.log2(self.sums[order, half_life])
        height += (times - times.min(initial=NEVER)) / MICROSECONDS_A_DAY / self.half_lives[half_life]
        return times, item, height

    def top(self, time: np.ndarray, half_life: int, n: int) -> np.ndarray:
        """(points, n) int32 items of the greatest decayed counts > 0, ties by smaller index; -1 padded.

        `half_life`: place in `half_lives`. Exact: between successes the order of decayed counts stands still,
        and a success moves its own item alone, upwards. So the best n are found once a block of successes,
        and a point takes the best of those and the items of the block's successes before it.
        """
        if half_life not in self._heights:
            self._heights[half_life] = self.heights(half_life)
        times, item, height = self._heights[half_life]
        # The list depends on how many successes precede a point.
        stops, which = np.unique(np.searchsorted(times, self.moment(time), side="left"), return_inverse=True)
        lists = np.full((len(stops), n), -1, np.int32)
        # A block costs a pass over the items, a point one over the block: the size at which both cost alike.
        size = int(np.clip(np.sqrt(len(item) * self.items / (3 * len(stops) + 1)), 64, 4096))
        heights = np.full(self.items, -np.inf)
        done = 0
        for block in np.unique(stops // size):
            start = block * size
            heights[item[done:start]] = height[done:start]  # the last of an item's assignments stays
            done = start
            asked = slice(*np.searchsorted(stops, [start, start + size]))
            part = slice(start, stops[asked][-1])
            lists[asked] = best_of_block(heights, item[part], height[part], stops[asked] - start, n)
        return lists[which]

    def newest(self, available_from: np.ndarray, time: np.ndarray, n: int) -> np.ndarray:
        """(points, n) int32 items that became known last, newest first, ties by smaller index; -1 padded.

        An item is known from `available_from` on; where that is not given (the minimum of int64), as soon as
        its first row is.
        """
        order, known = self._by_novelty(available_from)
        stop = np.searchsorted(known, self.moment(time) + self.delay, side="right")
        place = stop[:, None] - 1 - np.arange(n)
        found = np.full(place.shape, -1, np.int32)
        found[place >= 0] = order[place[place >= 0]]
        return found

    def _by_novelty(self, available_from: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items that are ever known in the order in which they become so, and from when on each is."""
        if not self._novelty or self._novelty[0] is not available_from:
            known = np.full(self.items, NEVER)
            taken = np.diff(self.indptr) > 0
            known[taken] = self.time[self.indptr[:-1][taken]] + self.delay + 1  # strictly before time - delay
            known = np.where(available_from > NOT_YET, available_from, known)
            order = np.lexsort((-np.arange(self.items), known))
            order = order[known[order] < NEVER]
            self._novelty[:] = available_from, order, known[order]
        return self._novelty[1], self._novelty[2]

    def neighbours(
        self,
        points: Points,
        items: int,
        last: int = rules.SHARED,
        takers: int = rules.TAKERS,
        around: int = rules.AROUND,
    ) -> sp.csr_matrix:
        """(points, items) float32 in [0, 1]: what goes with the newest items of each point's history.

        See `pipeline.models.neighbours`, which says how it is weighted.
        """
        return rules.neighbours(self, points, items, last, takers, around)


@dataclass(frozen=True, eq=False)
class Folded:
    """Vectors of items that a fit never had, from those who took them; see `of`."""

    live: Live
    indptr: np.ndarray  # (items + 1,) int64: stored rows of each item; known items have none
    key: np.ndarray  # (stored,) int64, ascending: (item, tick) as one number
    means: np.ndarray  # (stored, d) float32: mean over the item's stored rows up to this one

    @classmethod
    def of(cls, log: Log, live: Live, vectors: np.ndarray, known: np.ndarray) -> Folded:
        """`vectors`: (items, d) float32; `known`: (items,) bool, whether the fit had the item.

        Each row of an item that is not known counts with its taker's own vector: the mean of the known items
        of the taker's history strictly before that row, each weighted by 2^(-newer items / 5). A taker
        without a known item is left out. An item's vector is the mean over its rows that the moment knows.
        `log` is the log of `live`.
        """
        place = np.flatnonzero(~known[log.item[live.row]])
        row = live.row[place]
        none = np.full(len(row), -1, np.int32)
        takers = log.points(log.user[row], none, log.time[row])
        own = np.zeros((len(row), vectors.shape[1]), np.float32)
        has = np.zeros(len(row), bool)
        of_known = np.where(known[:, None], vectors, 0).astype(np.float32)
        for begin in range(0, len(row), CHUNK):
            part = slice(begin, begin + CHUNK)
            # Beyond 100 rows an item weighs less than a millionth.
            weights = takers[part].newest(100).weights(live.items, FOLDING_HALF_LIFE)
            total = weights @ known.astype(np.float32)
            has[part] = total > 0
            own[part] = (weights @ of_known) / np.where(total > 0, total, 1)[:, None]
        item = log.item[row[has]]
        indptr = np.r_[0, np.cumsum(np.bincount(item, minlength=live.items))].astype(np.int64)
        return cls(live, indptr, live.item_key[place[has]], _running_means(own[has], item, indptr))

    def at(self, item: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., d) float32 vectors and (...) int64 rows that they are means of; zeros where there are none.

        Shapes of `item` and `time` (microseconds) broadcast; item -1 has none.
        """
        stop, count = self._stop(np.asarray(item), time)
        vectors = np.zeros((*count.shape, self.means.shape[1]), np.float32)
        vectors[count > 0] = self.means[stop[count > 0] - 1]
        return vectors, count

    def products(self, items: np.ndarray, time: np.ndarray, users: np.ndarray) -> np.ndarray:
        """(points, n) float32 products of users (points, d) with the vectors of (points, n) items at
        (points,) times; 0 for an item that has none."""
        stop, count = self._stop(items, time[:, None])
        out = np.zeros(items.shape, np.float32)
        for point in np.flatnonzero((count > 0).any(axis=1)):
            there = np.flatnonzero(count[point] > 0)
            out[point, there] = self.means.take(stop[point, there] - 1, axis=0) @ users[point]
        return out

    def _stop(self, item: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(end among the stored rows, how many of them) of each item at each time; item -1 has none."""
        safe = np.maximum(item, 0).astype(np.int64)
        tick = self.live.tick(self.live.moment(time))
        stop = np.searchsorted(self.key, safe * (len(self.live.ticks) + 1) + tick, side="left")
        return stop, np.where(item >= 0, stop - self.indptr[safe], 0)


def _running_means(rows: np.ndarray, item: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """(rows, d) of one item after another -> float32 mean of each item's rows up to each."""
    start = indptr[item]
    count = np.arange(len(rows)) - start + 1
    means = np.empty_like(rows)
    for column in range(rows.shape[1]):  # sums in float64, a column at a time
        sums = np.r_[0, np.cumsum(rows[:, column], dtype=np.float64)]
        means[:, column] = (sums[1:] - sums[start]) / count
    return means
