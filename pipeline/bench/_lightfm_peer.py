"""LightFM, fitted: run by pipeline/bench/_lightfm.py in the peers' environment.

It imports nothing of the project. In, beside task.json {seed, factors, learning_rate, regularisation,
epochs}: matrix.npz (users, items) and features.npz (items, features), both sparse.
Out, for each number of epochs: after_N.npz with users (users, factors), vectors (items, factors) and bias.
Rule: only items that somebody met are fitted on, so that the others are no negatives: their vectors and
biases are made of the features alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp


def main(folder: Path) -> None:
    # Here, so that the tests of the project can import this file.
    from lightfm import LightFM

    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    matrix, features = (sp.load_npz(folder / f"{name}.npz").tocsr() for name in ("matrix", "features"))
    known = np.flatnonzero(matrix.getnnz(axis=0))
    model = LightFM(
        no_components=task["factors"],
        learning_rate=task["learning_rate"],
        item_alpha=task["regularisation"],
        user_alpha=task["regularisation"],
        loss="warp",
        random_state=task["seed"],
    )
    done = 0
    for epochs in task["epochs"]:
        # One thread, so that the same seed gives the same factors.
        model.fit_partial(
            matrix[:, known], item_features=features[known], epochs=epochs - done, num_threads=1
        )
        bias, vectors = model.get_item_representations(features)
        users = model.get_user_representations()[1]
        np.savez(folder / f"after_{epochs}.npz", users=users, vectors=vectors, bias=bias)
        done = epochs


if __name__ == "__main__":
    main(Path(sys.argv[1]))
