"""The live state of the present moment, for a running service: `state.Live` and `Folded`, kept up to date.

A service is asked about now alone, and every row that it knows is earlier than now. So instead of a log that
is searched by time it keeps what each item and user has at the end of it: sums (`LiveState`), an item's last
takers, a user's last items. An event changes a few cells. Parts ask it as they ask `Live`
(pipeline/models/living.py); on the same rows both give the same (tests/test_serve_state.py).
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Log, Points
from pipeline.models.baselines import Factors
from pipeline.models.neighbours import HELD, SHARED, SHARED_HALF_LIFE, TAKER_HALF_LIFE, TAKERS, offsets
from pipeline.models.state import FOLDING_HALF_LIFE, NEVER, NOT_YET, Folded, ItemState, Live
from pipeline.models.streaming import LiveState
from pipeline.serve.sums import Space

OFFSETS = offsets()
FOLDED_ROWS = 100  # of a taker's history; beyond them an item weighs less than a millionth


@dataclass(frozen=True)
class Rows:
    """A user's rows, oldest first."""

    item: np.ndarray  # int32
    time: np.ndarray  # int64 microseconds
    positive: np.ndarray  # bool
    value: np.ndarray  # float32
    liked: np.ndarray  # bool: so in a history, as its words read where it has no value; else `positive`

    def __len__(self) -> int:
        return len(self.item)

    def points(self, user: int, now: int, repeats: bool) -> Points:
        """One point over them: the user (its number in the state) at a moment.

        Behind them the log has a row of nobody's: parts read some row for places without one.
        """
        earlier, nobody = self.before(now), Rows(*(np.zeros(1, each.dtype) for each in self.columns))
        n = len(earlier)
        item, time, positive, value, liked = (
            np.concatenate(pair) for pair in zip(earlier.columns, nobody.columns, strict=True)
        )
        numbers, ones = np.full(n + 1, user, np.int32), np.ones(n + 1, bool)
        windows = np.full(n + 1, 2, np.int8)
        ends = np.array([0, n], np.int64)
        log = Log(numbers, item, time, value, positive, ones, windows, ends, repeats, liked=liked)
        return Points(
            log,
            np.array([user], np.int32),
            np.full(1, -1, np.int32),
            np.array([now], np.int64),
            np.zeros(1, np.int64),
            np.array([n], np.int64),
        )

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.item, self.time, self.positive, self.value, self.liked

    def before(self, moment: int) -> Rows:
        earlier = self.time < moment
        return Rows(*(each[earlier] for each in self.columns))

    def joined(self, other: Rows) -> Rows:
        time = np.r_[self.time, other.time]
        order = np.argsort(time, kind="stable")
        return Rows(
            np.r_[self.item, other.item][order].astype(np.int32),
            time[order],
            np.r_[self.positive, other.positive][order],
            np.r_[self.value, other.value][order].astype(np.float32),
            np.r_[self.liked, other.liked][order],
        )


class Last:
    """Of every owner the newest few (time, number), newest first; -1 where there are fewer."""

    def __init__(self, owners: int, width: int) -> None:
        self.width = width
        self.number = np.full((owners, width), -1, np.int32)
        self.time = np.full((owners, width), NOT_YET, np.int64)

    def fill(self, start: np.ndarray, stop: np.ndarray, number: np.ndarray, time: np.ndarray) -> Last:
        """From rows that lie owner by owner in order of time: [start, stop) of each."""
        newest = np.minimum(stop - start, self.width)
        owner = np.repeat(np.arange(len(start)), newest)
        place = np.arange(int(newest.sum())) - np.repeat(np.cumsum(newest) - newest, newest)
        row = stop[owner] - 1 - place
        self.number[owner, place], self.time[owner, place] = number[row], time[row]
        return self

    def add(self, owner: int, number: int, time: int) -> None:
        """Of equal times the one that comes later counts as newer."""
        if owner >= len(self.number):
            more = max(1_024, owner + 1 - len(self.number), len(self.number) // 4)
            self.number = np.pad(self.number, ((0, more), (0, 0)), constant_values=-1)
            self.time = np.pad(self.time, ((0, more), (0, 0)), constant_values=NOT_YET)
        times, numbers = self.time[owner], self.number[owner]
        place = int(np.searchsorted(-times[numbers >= 0], -time, side="left"))
        if place < self.width:
            times[place + 1 :], numbers[place + 1 :] = times[place:-1].copy(), numbers[place:-1].copy()
            times[place], numbers[place] = time, number

    def forget(self, number: int) -> None:
        """Nobody in particular stands in its places."""
        self.number[self.number == number] = -1


class Top(NamedTuple):
    best: np.ndarray  # (n,) items of the greatest heights, -1 behind
    moved: set[int]  # items whose height has grown since


@dataclass
class Newest:
    """Items in the order in which they became known."""

    known: np.ndarray  # (items,) int64 microseconds from which on each is known; NEVER: not yet
    given: np.ndarray  # (items,) bool: by the catalogue; else by its first row
    order: np.ndarray  # (items,) ascending in `known`, of equal ones the smaller index last
    moments: np.ndarray  # `known` in that order

    @classmethod
    def of(cls, state: LiveState, available_from: np.ndarray, now: int) -> Newest:
        items = np.arange(len(available_from))
        first = state.item(items, now).first
        known = np.where(first < NEVER, first + state.delay + 1, NEVER)
        given = available_from > NOT_YET
        known = np.where(given, available_from, known)
        order = np.lexsort((-items, known))
        return cls(known, given, order, known[order])

    def took(self, item: int, moment: int) -> None:
        if not self.given[item] and moment < self.known[item]:
            self.move(item, moment)

    def move(self, item: int, moment: int) -> None:
        """It is known from this moment on."""
        self.known[item] = moment
        order = self.order[self.order != item]
        begin, end = (int(np.searchsorted(self.known[order], moment, side)) for side in ("left", "right"))
        place = begin + int((order[begin:end] > item).sum())
        self.order = np.insert(order, place, item)
        self.moments = self.known[self.order]

    def best(self, now: int, n: int) -> np.ndarray:
        """(n,) int32 newest first, -1 behind."""
        stop = int(np.searchsorted(self.moments, min(now, NEVER - 1), side="right"))
        found = np.full(n, -1, np.int32)
        best = self.order[max(0, stop - n) : stop][::-1]
        found[: len(best)] = best
        return found


class Present:
    """What `Live` knows at the end of its log, event by event from there on. Not for several threads."""

    def __init__(self, live: Live, user_ids: np.ndarray) -> None:
        log = live.log
        self.half_lives, self.items, self.log = live.half_lives, live.items, log
        self.state = LiveState.after(live)
        self.newest_time = int(log.time.max(initial=NOT_YET))
        self.number = {str(user): number for number, user in enumerate(user_ids)}
        self.takers = Last(live.items, TAKERS).fill(
            live.indptr[:-1], live.indptr[1:], log.user[live.row], live.time
        )
        self.own = Last(len(user_ids), HELD).fill(log.indptr[:-1], log.indptr[1:], log.item, log.time)
        self._further: defaultdict[int, list[tuple[int, int, bool, float, bool]]] = defaultdict(list)
        self._forgotten: set[int] = set()
        self.space = Space(live.items)
        self._tops: dict[tuple[int, int], Top] = {}
        self._newest: Newest | None = None
        self._pending: list[tuple[int, int]] = []  # (item, time) of rows that no top list has counted

    def known_from(self, item: int, moment: int) -> None:
        """What the catalogue says now; NOT_YET: nothing."""
        if self._newest is not None:
            self._newest.given[item] = moment > NOT_YET
            if moment > NOT_YET:
                self._newest.move(item, moment)

    def user(self, user_id: str) -> int:
        """Its number; -1 for a user without rows."""
        return self.number.get(user_id, -1)

    def rows(self, user: int) -> Rows:
        base = slice(0, 0)
        if 0 <= user < len(self.log.indptr) - 1 and user not in self._forgotten:
            base = slice(int(self.log.indptr[user]), int(self.log.indptr[user + 1]))
        log = self.log
        liked = log.positive if log.liked is None else log.liked
        rows = Rows(log.item[base], log.time[base], log.positive[base], log.value[base], liked[base])
        if further := self._further.get(user):
            time, item, positive, value, felt = zip(*further, strict=True)
            rows = rows.joined(
                Rows(
                    np.array(item, np.int32),
                    np.array(time, np.int64),
                    np.array(positive, bool),
                    np.array(value, np.float32),
                    np.array(felt, bool),
                )
            )
        return rows

    def append(
        self, user_id: str, item: int, time: int, positive: bool, value: float, liked: bool | None = None
    ) -> int:
        """Take in an event; the user's number. `liked`: None: as it is `positive`."""
        user = self.number.setdefault(user_id, len(self.number))
        self.state.append(None, user_id, item, time, positive)
        self._pending.append((item, time))
        felt = positive if liked is None else liked
        insort(self._further[user], (time, item, positive, value, felt), key=lambda row: row[0])
        self.takers.add(item, user, time)
        self.own.add(user, item, time)
        self.newest_time = max(self.newest_time, time)
        if self._newest is not None:
            self._newest.took(item, time + self.state.delay + 1)
        return user

    def forget(self, user_id: str) -> None:
        """A person's rows are no longer anybody's; sums keep those of the log until it is read anew."""
        user = self.number.pop(user_id, -1)
        self.state.remove_user(user_id)
        if user >= 0:
            self._further.pop(user, None)
            self._forgotten.add(user)
            self.takers.forget(user)
            self.own.number[user] = -1
            self._tops.clear()
            self._newest = None

    # What parts ask of `Live`; moments are now, `time` an array of one value.

    def at(self, item: np.ndarray, time: np.ndarray) -> ItemState:
        return self.state.item(np.asarray(item), int(np.max(time)))

    def top(self, time: np.ndarray, half_life: int, n: int) -> np.ndarray:
        """Between events the order stands still, and an event moves its own item alone, upwards."""
        now, key = int(np.max(time)), (half_life, n)
        self._settle(now)
        if key not in self._tops:
            self._tops[key] = Top(self.state.top(now, half_life, n), set())
        best, moved = self._tops[key]
        if moved:
            items = np.union1d(best[best >= 0], list(moved))
            heights = self.state.heights(now, half_life, items)
            order = np.lexsort((items, -heights))[:n]
            order = order[heights[order] > -np.inf]
            best = np.full(n, -1, np.int32)
            best[: len(order)] = items[order]
            self._tops[key] = Top(best, set())
        return np.repeat(best[None], len(time), axis=0)

    def _settle(self, now: int) -> None:
        """Rows that the moment knows have moved their items."""
        known = now - self.state.delay
        settled = {item for item, time in self._pending if time < known}
        if settled:
            self._pending = [row for row in self._pending if row[1] >= known]
            for top in self._tops.values():
                top.moved.update(settled)

    def newest(self, available_from: np.ndarray, time: np.ndarray, n: int) -> np.ndarray:
        if self._newest is None:
            self._newest = Newest.of(self.state, available_from, int(np.max(time)))
            for item, moment in self._pending:
                self._newest.took(item, moment + self.state.delay + 1)
        return np.repeat(self._newest.best(int(np.max(time)), n)[None], len(time), axis=0)

    def neighbours(self, points: Points, items: int) -> sp.csr_matrix:
        """As pipeline.models.neighbours."""
        rows = []
        for place in range(len(points)):
            column, score = self.around(points[place : place + 1])
            cells = (score, (np.zeros_like(column), column))
            rows.append(sp.csr_matrix(cells, shape=(1, items), dtype=np.float32))
        return sp.vstack(rows, format="csr") if rows else sp.csr_matrix((0, items), dtype=np.float32)

    def around(self, point: Points) -> tuple[np.ndarray, np.ndarray]:
        """((n,) items, (n,) float32): of one point the cells of pipeline.models.neighbours."""
        start, stop = int(point.start[0]), int(point.stop[0])
        shared = point.log.item[max(start, stop - SHARED) : stop][::-1]
        place = np.flatnonzero(shared >= 0)
        item = shared[place]
        takers = self.takers.number[item]  # (shared, TAKERS)
        way, taker = np.nonzero((takers >= 0) & (takers != point.user[0]))
        user, item = takers[way, taker], item[way]
        # Where the shared row stands among the taker's: at its time; two of one time differ in their items.
        then = self.own.time.take(user, axis=0) == self.takers.time[item, taker][:, None]
        at, near = np.divmod(np.flatnonzero(then), HELD)
        same = np.flatnonzero(self.own.number[user[at], near] == item[at])
        same = same[np.diff(at[same], prepend=-1) > 0]  # the first of several
        at, near = at[same], near[same]
        step, counts = OFFSETS
        near = near[:, None] - step  # newest first: what came behind stands before
        inside = (near >= 0) & (near < HELD)
        taken = self.own.number[user[at, None], np.where(inside, near, 0)]
        counted = inside & (taken >= 0) & (taken != item[at, None])
        weight = np.exp2(-place[way[at]] / SHARED_HALF_LIFE - taker[at] / TAKER_HALF_LIFE)[:, None] * counts
        column, [score] = self.space.sums(taken[counted], weight[counted][None])
        score /= score.max(initial=np.float32(1e-30))
        return column, score


class PresentFolded:
    """`Folded` at the end of its log. A row that comes late counts with the history that is known by then."""

    def __init__(self, folded: Folded, factors: Factors) -> None:
        self.factors = factors
        end = folded.indptr[1:]
        count = np.diff(folded.indptr)
        there = np.flatnonzero(count)
        self._sums = {
            int(item): (count[item] * folded.means[end[item] - 1].astype(np.float64)) for item in there
        }
        self._count = {int(item): int(count[item]) for item in there}
        self._placed = count > 0

    def add(self, item: int, before: Rows) -> None:
        """`before`: the taker's rows strictly before this one."""
        known = self.factors.known
        if known[item]:
            return
        point = before.points(0, int(np.iinfo(np.int64).max), True).newest(FOLDED_ROWS)
        weights = point.weights(len(known), FOLDING_HALF_LIFE)
        index, weight = weights.indices, weights.data.astype(np.float64)
        of_known = known[index]
        total = weight[of_known].sum()
        if total > 0:
            own = weight[of_known] @ self.factors.vectors[index[of_known]].astype(np.float64) / total
            self._sums[item] = self._sums.get(item, 0) + own
            self._count[item] = self._count.get(item, 0) + 1
            self._placed[item] = True

    def at(self, item: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        item = np.asarray(item)
        vectors = np.zeros((*item.shape, self.factors.vectors.shape[1]), np.float32)
        count = np.zeros(item.shape, np.int64)
        for cell in map(tuple, np.argwhere((item >= 0) & self._placed[np.maximum(item, 0)])):
            number = int(item[cell])
            count[cell] = self._count[number]
            vectors[cell] = self._sums[number] / count[cell]
        return vectors, count

    def products(self, items: np.ndarray, user: np.ndarray) -> np.ndarray:
        """(n,) float32 of the (n,) items' vectors with a user's (d,); 0 for those without one."""
        found = np.zeros(len(items), np.float32)
        for place in np.flatnonzero(self._placed[items]).tolist():
            number = int(items[place])
            found[place] = self._sums[number] @ user / self._count[number]
        return found
