"""The baseline of those who come for the same again: a user's own history, recent and frequent items first.

In: points. Out: scores of the items in their histories; whatever else is listed follows by popularity. Needed
only where preprocess.repeats includes them; next-basket studies find little that surely beats it (Hu et al.,
"Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points
from pipeline.models.baselines import liking


@dataclass(frozen=True)
class OwnHistory:
    """Score of an item: the sum over the user's rows of it of 2^(-newer rows of the user / half_life)."""

    name: str
    items: int
    half_life: float  # rows of the history; infinite: frequency alone
    disliked_weight: float = 1.0

    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32; NaN outside the history."""
        point, row = points.rows()
        newer = points.stop[point] - 1 - row
        weight = np.exp2(-newer / self.half_life) * liking(points.log, self.disliked_weight)[row]
        shape = (len(points), self.items)
        summed = sp.csr_matrix((weight.astype(np.float32), (point, points.log.item[row])), shape=shape)
        scores = summed.toarray()
        scores[scores == 0] = np.nan
        return scores
