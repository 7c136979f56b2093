"""The live part (pipeline/models/living.py) of the present moment, asked for one point at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.models.asked import Asked
from pipeline.models.living import LONG, SHORT, Living
from pipeline.models.pairs import Columns
from pipeline.models.state import NOT_YET
from pipeline.serve.single import One
from pipeline.serve.state import Present, PresentFolded
from pipeline.serve.sums import best_cells


@dataclass(frozen=True)
class OneLiving(Living):
    live: Present  # type: ignore[assignment]
    folded: PresentFolded  # type: ignore[assignment]

    def columns(self, asked: Asked, items: np.ndarray, ials: np.ndarray) -> Columns:
        columns = self.of_items(items, asked.points.time[:, None])
        for place in (SHORT, LONG):
            columns[f"live_{place}_of_few"] = columns[f"live_{place}"] * asked.few
        taken, score = self._around(asked)
        columns["neighbours"] = self.live.space.read(taken, score[None], items[0])
        columns["folded"] = self.folded.products(items[0], ials[0])[None]
        return columns

    def of_items(self, items: np.ndarray, moment: np.ndarray) -> Columns:
        now, state, since = int(moment[0, 0]), self.live.at(items[0], moment), self.available_from[items[0]]
        decayed = np.log1p(state.decayed).astype(np.float32).T
        columns: Columns = {f"live_{place}": each[None] for place, each in enumerate(decayed)}
        columns["live_count"] = np.log1p(state.count[None]).astype(np.float32)
        columns["live_new"] = (state.count[None] == 0).astype(np.float32)
        share = (state.successes + 1.0) / (state.count + 2.0)
        columns["live_liked"] = (share - 0.5).astype(np.float32)[None]
        columns["live_trend"] = (decayed[0] - decayed[-1])[None]
        begin = np.where(since > NOT_YET, since, state.first)
        last = np.where(state.count > 0, state.last, now)
        age, silence = self.log_age(np.stack([now - np.minimum(begin, now), now - np.minimum(last, now)]))
        return columns | {"live_age": age[None], "live_silence": silence[None]}

    def _nearest(self, asked: Asked, n: int) -> np.ndarray:
        return best_cells(*self._around(asked), n)

    def _around(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """((n,) items, (n,) float32) cells of `Live.neighbours`."""
        assert isinstance(asked, One)
        if "around" not in asked.kept:
            asked.kept["around"] = self.live.around(asked.points)
        found: tuple[np.ndarray, np.ndarray] = asked.kept["around"]
        return found
