"""The second step: features of (point, candidate) pairs to scores. A convex linear part, and an MLP that
corrects it; pipeline/training/scorer_task.py fits them.

Lists are made with NumPy alone, here and in pipeline/models/tower.py: importing PyTorch takes longer than
everything else that a list needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.models.binding import Arrays

CLIP = 8.0  # deviations
MLP = ("mlp.0", "mlp.2", "mlp.4")  # the layers of ScorerNetwork.mlp that hold weights
BLOCK = 4096  # pairs whose hidden layers are in memory, so in the processor's cache, at a time


@dataclass(frozen=True)
class Scorer:
    """(..., features) -> (...) scores; the weights of pipeline.training.networks.ScorerNetwork."""

    weights: Arrays

    @property
    def mean(self) -> np.ndarray:
        """(features,) that each was standardised by."""
        return self.weights["mean"]

    @property
    def deviation(self) -> np.ndarray:
        return self.weights["deviation"]

    @property
    def linear(self) -> np.ndarray:
        """(features,) weights of the standardised features."""
        return self.weights["linear.weight"][0]

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Standardised, a copy."""
        out = features - self.mean
        out /= self.deviation
        return np.clip(out, -CLIP, CLIP, out=out)

    def score(self, features: np.ndarray) -> np.ndarray:
        """(points, candidates, features) float32 -> (points, candidates) float32."""
        pairs = np.ascontiguousarray(features, np.float32).reshape(-1, features.shape[-1])
        out = np.empty(len(pairs), np.float32)
        for begin in range(0, len(pairs), BLOCK):
            out[begin : begin + BLOCK] = self.of_inputs(self.inputs(pairs[begin : begin + BLOCK]))
        return out.reshape(features.shape[:-1])

    def of_inputs(self, x: np.ndarray) -> np.ndarray:
        """(pairs, features) standardised -> (pairs,); of so few that they are in memory at once."""
        linear: np.ndarray = x @ self.linear
        if not self.weights[f"{MLP[-1]}.weight"].any():  # nothing to correct
            return linear
        for layer in MLP[:-1]:
            x = x @ self.weights[f"{layer}.weight"].T
            x += self.weights[f"{layer}.bias"]
            np.maximum(x, 0, out=x)
        return linear + x @ self.weights[f"{MLP[-1]}.weight"][0]
