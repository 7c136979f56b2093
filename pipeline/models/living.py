"""What everybody does right now: the live state (pipeline/models/state.py) as retrievers and columns.

Nothing here is fitted but the half-lives, which follow from the pace of train's rows, and the vectors of
known items in which an item that the fit never had is placed by those who took it. Retrievers `live_short`,
`live_long` (the most taken lately), `newest`, `neighbours` (what the same users took lately). Columns
live_<place of the half-life>, live_count, ...
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue, Log
from pipeline.models.asked import Asked
from pipeline.models.baselines import Factors
from pipeline.models.pairs import Columns, Retrieved, best_cells, lookup
from pipeline.models.state import Folded, Live

SHORT, LONG = 2, 4  # places of the half-lives that retrieve
MOST_AGE = 36_500.0  # days


@dataclass(frozen=True)
class Living:
    live: Live
    folded: Folded
    available_from: np.ndarray  # (items,) int64 microseconds; the minimum where not given

    @classmethod
    def of(
        cls,
        log: Log,
        catalogue: Catalogue,
        half_lives: tuple[float, ...],
        factors: Factors,
        delay_seconds: float = 0.0,
        until: int | None = None,
    ) -> Living:
        """`until`: microseconds at which the state stands still."""
        live = Live.of(log, len(catalogue), half_lives, delay_seconds, until)
        return cls(live, Folded.of(log, live, factors.vectors, factors.known), catalogue.available_from)

    def frozen(self, until: int) -> Living:
        live = replace(self.live, until=until)
        return replace(self, live=live, folded=replace(self.folded, live=live))

    def lately(self, time: np.ndarray, n: int) -> np.ndarray:
        """(points, n) int32 items taken most lately."""
        return self.live.top(time, SHORT, n)

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        time = asked.points.time
        return {
            "live_short": self.live.top(time, SHORT, n),
            "live_long": self.live.top(time, LONG, n),
            "newest": self.live.newest(self.available_from, time, n),
            "neighbours": self._nearest(asked, n),
        }

    def columns(self, asked: Asked, items: np.ndarray, ials: np.ndarray) -> Columns:
        """`ials`: (points, factors) users, who meet an item's folded vector."""
        moment = asked.points.time[:, None]
        columns = self.of_items(items, moment)
        for place in (SHORT, LONG):
            columns[f"live_{place}_of_few"] = columns[f"live_{place}"] * asked.few
        neighbours = lookup(self._neighbours(asked), items)
        columns["neighbours"] = neighbours
        columns["folded"] = self.folded.products(items, asked.points.time, ials)
        return columns

    def of_items(self, items: np.ndarray, moment: np.ndarray) -> Columns:
        """Those of item and moment alone. `moment`: (points, 1) microseconds."""
        state = self.live.at(items, moment)
        there = items >= 0
        decayed = np.log1p(state.decayed).astype(np.float32)
        columns: Columns = {f"live_{place}": decayed[..., place] for place in range(decayed.shape[-1])}
        columns["live_count"] = np.log1p(state.count).astype(np.float32)
        columns["live_new"] = ((state.count == 0) & there).astype(np.float32)
        share = (state.successes + 1.0) / (state.count + 2.0)
        columns["live_liked"] = np.where(there, share - 0.5, 0).astype(np.float32)
        columns["live_trend"] = decayed[..., 0] - decayed[..., -1]
        since = np.where(items >= 0, self.available_from[np.maximum(items, 0)], 0)
        given = since > np.iinfo(np.int64).min
        begin = np.where(given & there, since, state.first)
        age, silence = moment - np.minimum(begin, moment), moment - np.minimum(state.last, moment)
        columns["live_age"] = self.log_age(age, there & (begin <= moment))
        columns["live_silence"] = self.log_age(silence, there & (state.count > 0))
        return columns

    def log_age(self, microseconds: np.ndarray, known: np.ndarray | bool = True) -> np.ndarray:
        """float32 log(1 + age in the shortest half-lives), 0 where not known: what is old for items that
        live for hours is new for films."""
        days = np.minimum(np.where(known, microseconds, 0) / MICROSECONDS_A_DAY, MOST_AGE)
        return np.log1p(days / self.live.half_lives[0]).astype(np.float32)

    def _nearest(self, asked: Asked, n: int) -> np.ndarray:
        return best_cells(self._neighbours(asked), n)

    def _neighbours(self, asked: Asked) -> sp.csr_matrix:
        return asked.once(self, "neighbours", lambda: self.live.neighbours(asked.points, asked.items))
