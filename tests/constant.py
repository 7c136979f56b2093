"""A scorer for tests."""

from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import Points


@dataclass(frozen=True)
class ConstantScorer:
    """The same scores at every point."""

    name: str
    scores: np.ndarray  # (items,)

    def score(self, points: Points) -> np.ndarray:
        return np.broadcast_to(self.scores.astype(np.float32), (len(points), len(self.scores)))
