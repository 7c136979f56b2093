"""The second step: features of (point, candidate) pairs to scores. A convex linear part, and an MLP that
corrects it; training/scorer_task.py fits them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

CLIP = 8.0  # deviations


class Scorer(nn.Module):
    """(..., features) -> (...) scores."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        last = nn.Linear(hidden // 2, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden // 2), nn.GELU(), last
        )

    def standardise(self, features: np.ndarray, there: np.ndarray) -> None:
        """Mean and deviation of the cells that are there; a constant feature stays as it is."""
        cells = torch.from_numpy(features[there]).float()
        self.mean.copy_(cells.mean(dim=0))
        deviation = cells.std(dim=0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-4, deviation, 1.0))

    def inputs(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-CLIP, CLIP)

    def forward(self, features: Tensor) -> Tensor:
        x = self.inputs(features)
        return (self.linear(x) + self.mlp(x)).squeeze(-1)

    @torch.no_grad()
    def score(self, features: np.ndarray) -> np.ndarray:
        """(points, candidates, features) float32 -> (points, candidates) float32."""
        return self(torch.from_numpy(features)).numpy()
