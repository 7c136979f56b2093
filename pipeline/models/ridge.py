"""Ridge regression from facts of items to what their rows would say; its penalty is chosen out of fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.models.baselines import blocks
from pipeline.models.binding import Arrays

FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Ridge:
    weights: np.ndarray  # (width, targets) float64
    centre: np.ndarray  # (width,) of the inputs
    intercept: np.ndarray  # (targets,)

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, known: np.ndarray, seed: int = 7) -> tuple[Ridge, np.ndarray]:
        """From the `known` rows of (items, width) and (items, targets): the model, float32 predictions.

        A known item is predicted by a model fitted without its fold, so that known and cold items look alike.
        """
        rows = np.flatnonzero(known)
        if len(rows) < 2 * FOLDS:
            mean = y[rows].mean(axis=0) if len(rows) else np.zeros(y.shape[1])
            model = cls(np.zeros((x.shape[1], y.shape[1])), np.zeros(x.shape[1]), mean)
            return model, model.predict(x)
        fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
        goal = y[rows]
        mean, scale = goal.mean(axis=0, dtype=np.float64), goal.std(axis=0, dtype=np.float64) + 1e-9
        centre = sum(x[rows[part]].sum(axis=0, dtype=np.float64) for part in blocks(*x.shape)) / len(rows)

        def folds() -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
            """(fold, its rows, inputs, targets), float64, of some rows at a time."""
            for part in blocks(len(rows), x.shape[1]):
                for f in range(FOLDS):
                    own = rows[part][fold[part] == f]
                    yield f, own, x[own] - centre, (y[own] - mean) / scale

        grams = np.zeros((FOLDS, x.shape[1], x.shape[1]))
        products = np.zeros((FOLDS, x.shape[1], y.shape[1]))
        for f, _, inputs, targets in folds():
            grams[f] += inputs.T @ inputs
            products[f] += inputs.T @ targets
        gram, right = grams.sum(axis=0), products.sum(axis=0)
        best: tuple[float, float, list[np.ndarray]] | None = None
        for penalty in PENALTIES:
            eye = penalty * np.eye(x.shape[1])
            apart = [np.linalg.solve(gram - grams[f] + eye, right - products[f]) for f in range(FOLDS)]
            # |inputs w - targets|^2 of each fold, less |targets|^2, which is the same for every penalty.
            error = sum(float((w * (grams[f] @ w - 2 * products[f])).sum()) for f, w in enumerate(apart))
            if best is None or error < best[0]:
                best = error, penalty, apart
        assert best is not None
        model = cls(np.linalg.solve(gram + best[1] * np.eye(x.shape[1]), right) * scale, centre, mean)
        found = model.predict(x)
        for f, own, inputs, _ in folds():
            found[own] = inputs @ best[2][f] * scale + mean
        return model, found

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(items, width) -> (items, targets) float32."""
        found = np.empty((len(x), len(self.intercept)), np.float32)
        for part in blocks(*x.shape):
            found[part] = (x[part] - self.centre) @ self.weights + self.intercept
        return found

    def arrays(self) -> Arrays:
        return {"ridge.weights": self.weights, "ridge.centre": self.centre, "ridge.intercept": self.intercept}

    @classmethod
    def of(cls, arrays: Arrays) -> Ridge:
        return cls(*(arrays[f"ridge.{name}"] for name in ("weights", "centre", "intercept")))
