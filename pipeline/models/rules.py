"""What follows what: sequential rules (Ludewig and Jannach, "Evaluation of session-based recommendation
algorithms", 2018, SR).

Weight from item i to item j: the sum over users of 1 / d for every j that stands d = 1 .. STEPS rows behind
i, divided by the square root of the whole sum of i: items that are followed by much say less of each.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Log
from pipeline.models.baselines import ItemMatrix, prune

STEPS = 10  # rows behind an item that count as following it
KEPT = 300  # weights to an item


def sequential_rules(log: Log, rows: np.ndarray, items: int) -> ItemMatrix:
    """Fitted on the rows of a mask ((rows of the log,) bool), each user's in time order."""
    user, item = log.user[rows], log.item[rows]
    matrix = sp.csr_matrix((items, items), dtype=np.float32)
    for step in range(1, min(STEPS, len(user) - 1) + 1):
        same = (user[step:] == user[:-step]) & (item[step:] != item[:-step])
        weight = np.full(int(same.sum()), 1 / step, np.float32)
        matrix += sp.csr_matrix((weight, (item[:-step][same], item[step:][same])), matrix.shape)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1, np.sqrt(total), out=np.zeros_like(total), where=total > 0)
    kept = np.flatnonzero(np.bincount(item, minlength=items)).astype(np.int32)
    among = sp.csr_matrix(sp.diags_array(scale) @ matrix, dtype=np.float32)[kept][:, kept]
    return ItemMatrix(items, kept, prune(among, KEPT))
