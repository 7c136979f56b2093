"""Ridge regression from facts of items to what their rows would say; its penalty is chosen out of fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        """From the `known` rows of (items, width) and (items, targets): the model and its predictions.

        A known item is predicted by a model fitted without its fold, so that known and cold items look alike.
        """
        rows = np.flatnonzero(known)
        if len(rows) < 2 * FOLDS:
            mean = y[rows].mean(axis=0) if len(rows) else np.zeros(y.shape[1])
            model = cls(np.zeros((x.shape[1], y.shape[1])), np.zeros(x.shape[1]), mean)
            return model, model.predict(x)
        fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
        centre, mean, scale = x[rows].mean(axis=0), y[rows].mean(axis=0), y[rows].std(axis=0) + 1e-9
        inputs, goal = x[rows] - centre, (y[rows] - mean) / scale
        parts = [(inputs[fold == f], goal[fold == f]) for f in range(FOLDS)]
        grams, products = [a.T @ a for a, _ in parts], [a.T @ c for a, c in parts]
        gram, right = sum(grams), sum(products)
        best: tuple[float, float, np.ndarray] | None = None
        for penalty in PENALTIES:
            eye = penalty * np.eye(x.shape[1])
            out = np.empty_like(goal)
            for f, (a, _) in enumerate(parts):
                out[fold == f] = a @ np.linalg.solve(gram - grams[f] + eye, right - products[f])
            error = float(((out - goal) ** 2).mean())
            if best is None or error < best[0]:
                best = error, penalty, out
        assert best is not None
        model = cls(np.linalg.solve(gram + best[1] * np.eye(x.shape[1]), right) * scale, centre, mean)
        found = model.predict(x)
        found[rows] = best[2] * scale + mean
        return model, found

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x - self.centre) @ self.weights + self.intercept

    def arrays(self) -> Arrays:
        return {"ridge.weights": self.weights, "ridge.centre": self.centre, "ridge.intercept": self.intercept}

    @classmethod
    def of(cls, arrays: Arrays) -> Ridge:
        return cls(*(arrays[f"ridge.{name}"] for name in ("weights", "centre", "intercept")))
