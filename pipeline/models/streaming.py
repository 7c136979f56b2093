"""The live state event by event, for a running service; `state.Live` is the same for a whole log at once."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable
from heapq import heappop, heappush

import numpy as np

from pipeline.data.histories import MICROSECONDS_A_DAY
from pipeline.models.decay import largest
from pipeline.models.state import NEVER, NOT_YET, ItemState, Live

EMPTY = {"count": 0, "successes": 0, "first": NEVER, "last": NOT_YET, "mark": NOT_YET}


class _Sums:
    """Sums over rows of every item; the decayed ones as of the item's newest success among them."""

    def __init__(self, half_lives: tuple[float, ...]) -> None:
        self.half_lives = np.array(half_lives)
        self.decayed = np.zeros((0, len(half_lives)))  # (items, half-lives)
        self.count, self.successes, self.first, self.last, self.mark = np.zeros((5, 0), np.int64)

    def grow(self, items: int) -> None:
        more = items - len(self.count)
        self.decayed = np.pad(self.decayed, ((0, more), (0, 0)))
        for name, empty in EMPTY.items():
            setattr(self, name, np.r_[getattr(self, name), np.full(more, empty, np.int64)])

    def add(self, item: int, time: int, positive: bool) -> None:
        self.count[item] += 1
        self.first[item] = min(int(self.first[item]), time)
        self.last[item] = max(int(self.last[item]), time)
        if positive:
            self.successes[item] += 1
            mark = int(self.mark[item])
            if time >= mark:
                self.decayed[item] *= self._decay(time - mark)
                self.decayed[item] += 1
                self.mark[item] = time
            else:
                self.decayed[item] += self._decay(mark - time)

    def remove(self, item: int, time: int, positive: bool) -> None:
        """Take out a row; the times of the first and the last stay while any row does."""
        self.count[item] -= 1
        if positive:
            self.successes[item] -= 1
            less = self.decayed[item] - self._decay(abs(int(self.mark[item]) - time))
            self.decayed[item] = np.maximum(less, 0) if self.successes[item] else 0
        if not self.count[item]:
            self.copy(item, None)

    def copy(self, item: int, other: _Sums | None) -> None:
        """Set an item's sums to those of `other`, or to none."""
        self.decayed[item] = other.decayed[item] if other else 0
        for name, empty in EMPTY.items():
            getattr(self, name)[item] = getattr(other, name)[item] if other else empty

    def _decay(self, microseconds: int) -> np.ndarray:
        return np.exp2(-microseconds / MICROSECONDS_A_DAY / self.half_lives)


class LiveState:
    """What `state.Live` knows at a moment, kept up to date event by event. Not for several threads at once.

    Items are indices >= 0, users any hashable ids, times int microseconds. Moments are asked in ascending
    order, since events settle into the sums as their moment passes; an event may come late, and one of the
    future waits. What is kept is bounded: sums of every item (170 bytes with six half-lives), the newest
    `rows_an_item` rows of each (8 bytes), the newest `rows_a_user` of each user (about 150), `event_ids` ids
    (about 150), and what waits. Rows beyond these stay in the sums.
    """

    def __init__(
        self,
        half_lives: tuple[float, ...],
        delay_seconds: float = 0.0,
        *,
        rows_an_item: int = 1_000,
        rows_a_user: int = 1_000,
        event_ids: int = 1_000_000,
    ) -> None:
        self.half_lives = half_lives
        self.delay = round(delay_seconds * 1_000_000)
        self.rows_an_item, self.rows_a_user, self.event_ids = rows_an_item, rows_a_user, event_ids
        self._moment = NOT_YET  # every row strictly earlier has settled
        self._sums = _Sums(half_lives)  # of all settled rows
        self._old = _Sums(half_lives)  # of those that are no longer kept
        # item -> 2 x time + positive of its newest settled rows, ascending
        self._rows: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        self._users: defaultdict[Hashable, list[tuple[int, int, bool]]] = defaultdict(list)
        self._waiting: list[tuple[int, int, bool]] = []  # heap of (time, item, positive)
        self._cancelled: Counter[tuple[int, int, bool]] = Counter()  # of these, removed with their user
        self._ids: OrderedDict[Hashable, None] = OrderedDict()

    @classmethod
    def after(cls, live: Live) -> LiveState:
        """That of all rows of a log. Their users' histories and ids are not kept: the log has them."""
        state = cls(live.half_lives, live.delay / 1_000_000)
        first, last = live.indptr[:-1], live.indptr[1:] - 1
        taken = np.flatnonzero(last >= first)
        liked = np.flatnonzero(np.diff(live.before[live.indptr]) > 0)
        newest = live.before[last[liked] + 1] - 1  # an item's last success
        for sums in (state._sums, state._old):
            sums.grow(live.items)
            sums.count[:] = np.diff(live.indptr)
            sums.successes[:] = np.diff(live.before[live.indptr])
            sums.first[taken], sums.last[taken] = live.time[first[taken]], live.time[last[taken]]
            sums.decayed[liked] = live.sums[newest]
            sums.mark[liked] = live.time[live.success[newest]]
        return state

    def append(self, event_id: Hashable | None, user: Hashable, item: int, time: int, positive: bool) -> bool:
        """Take in an event; False if its id is known already, in which case nothing changes."""
        if item < 0:
            raise ValueError(f"item {item}: an item of the catalogue has an index of at least 0")
        if event_id is not None:
            if event_id in self._ids:
                return False
            self._ids[event_id] = None
            if len(self._ids) > self.event_ids:
                self._ids.popitem(last=False)
        mine = self._users[user]
        insort(mine, (time, item, positive), key=lambda row: row[0])
        if len(mine) > self.rows_a_user:
            del mine[0]
        if time < self._moment:
            self._settle(item, time, positive)
        else:
            heappush(self._waiting, (time, item, positive))
        return True

    def remove_user(self, user: Hashable) -> None:
        """Take out the rows that are kept of a user, as if they had never come; ids of events stay known.

        Rows that their item no longer keeps are subtracted from its sums; its times of first and last stay.
        """
        touched = set()
        for row in self._users.pop(user, []):
            time, item, positive = row
            if time >= self._moment:
                self._cancelled[row] += 1
                continue
            touched.add(item)
            kept, code = self._rows[item], 2 * time + positive
            place = bisect_left(kept, code)
            if place < len(kept) and kept[place] == code:
                del kept[place]
            else:
                self._old.remove(item, time, positive)
        for item in touched:
            self._sums.copy(item, self._old)
            for code in self._rows[item]:
                self._sums.add(item, code >> 1, bool(code & 1))

    def item(self, items: np.ndarray, now: int) -> ItemState:
        """State of the items at a moment, in the shape of `items`; -1 has an empty state."""
        moment, sums = self._advance(now), self._sums
        items = np.asarray(items)
        known = (items >= 0) & (items < len(sums.count))
        if not known.all():
            return self._some(items, known, now)
        successes = sums.successes[items]
        age = np.where(successes > 0, moment - sums.mark[items], 0)  # elsewhere the sums are 0
        decay = np.exp2((age / -MICROSECONDS_A_DAY)[..., None] / sums.half_lives)
        return ItemState(
            decayed=sums.decayed[items] * decay,
            count=sums.count[items],
            successes=successes,
            first=sums.first[items],
            last=sums.last[items],
        )

    def _some(self, items: np.ndarray, known: np.ndarray, now: int) -> ItemState:
        """That of the items known, and an empty one of the others."""
        found = self.item(items[known], now)
        decayed = np.zeros((*items.shape, len(self._sums.half_lives)))
        decayed[known] = found.decayed
        parts = {}
        for name in ("count", "successes", "first", "last"):
            parts[name] = np.full(items.shape, EMPTY[name], np.int64)
            parts[name][known] = getattr(found, name)
        return ItemState(decayed=decayed, **parts)

    def top(self, now: int, half_life: int, n: int) -> np.ndarray:
        """(n,) int32 items of the greatest decayed counts > 0, ties by smaller index; -1 padded.

        `half_life`: place in `half_lives`. One pass over the items.
        """
        self._advance(now)
        taken = np.flatnonzero(self._sums.successes > 0)
        heights = self.heights(now, half_life, taken)
        best = largest(heights, n)
        best = best[np.lexsort((best, -heights[best]))]
        listed = np.full(n, -1, np.int32)
        listed[: len(best)] = taken[best]
        return listed

    def heights(self, now: int, half_life: int, items: np.ndarray) -> np.ndarray:
        """(items,) float64 log2 of the decayed count + age of the epoch / half-life; -inf without a success.

        It stands still between an item's successes, and a success moves it upwards.
        """
        self._advance(now)
        found = np.full(len(items), -np.inf)
        there = self._sums.successes[items] > 0
        taken = items[there]
        days = self._sums.mark[taken] / MICROSECONDS_A_DAY
        found[there] = np.log2(self._sums.decayed[taken, half_life]) + days / self.half_lives[half_life]
        return found

    def history(self, user: Hashable, now: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items (int32), times (int64), successes (bool) of a user's rows before `now`, oldest first.

        The delay does not apply: a user's own rows are known at once, as in the histories of `Points`.
        """
        mine = self._users.get(user, [])
        rows = mine[: bisect_left(mine, now, key=lambda row: row[0])]
        times, items, positive = zip(*rows, strict=True) if rows else ((), (), ())
        return np.array(items, np.int32), np.array(times, np.int64), np.array(positive, bool)

    def _advance(self, now: int) -> int:
        moment = int(now) - self.delay
        if moment < self._moment:
            late = (self._moment - moment) / 1_000_000
            raise ValueError(f"a moment {late:g} s before one that was asked already: ask in ascending order")
        while self._waiting and self._waiting[0][0] < moment:
            row = heappop(self._waiting)
            if self._cancelled[row] > 0:
                self._cancelled[row] -= 1
            else:
                time, item, positive = row
                self._settle(item, time, positive)
        self._moment = moment
        self._cancelled = +self._cancelled  # drops what has been used up
        return moment

    def _settle(self, item: int, time: int, positive: bool) -> None:
        if item >= len(self._sums.count):
            self._grow(item)
        self._sums.add(item, time, positive)
        kept = self._rows[item]
        insort(kept, 2 * time + positive)
        if len(kept) > self.rows_an_item:
            code = kept.pop(0)
            self._old.add(item, code >> 1, bool(code & 1))

    def _grow(self, item: int) -> None:
        size = max(1_024, 2 * len(self._sums.count), item + 1)
        self._sums.grow(size)
        self._old.grow(size)
