"""What text vectors tell of a group of users, taken out: the least change after which no linear guess works.

LEACE (Belrose et al., "LEACE: Perfect linear concept erasure in closed form", 2023, theorem 4.2): a user is
the mean of the vectors of what the user took, x, and z which group. With W = cov(x)^(-1/2) and P the
projection onto the columns of W cov(x, z), erased(x) = x - W^-1 P W (x - mean(x)). It is linear, so taking
it out of items takes it out of users. cov(x) is shrunk (Ledoit & Wolf 2004): users are few beside dimensions.
Perfect for those that it was fitted on; pipeline/training/erasing.py measures how well it holds for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.models.binding import Arrays

ERASURE = "erasure.safetensors"  # in an encoder's folder, where something is erased from its vectors
TINY = 1e-6  # of the greatest variance or correlation


@dataclass(frozen=True)
class Erasure:
    mean: np.ndarray  # (width,)
    into: np.ndarray  # (width, directions) what is looked for
    out: np.ndarray  # (width, directions) what is subtracted for it

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, width) float32; rows of zeros, which are no text, stay so."""
        erased = vectors - (vectors - self.mean) @ self.into @ self.out.T
        return (erased * vectors.any(axis=1, keepdims=True)).astype(np.float32)

    @classmethod
    def fit(cls, users: np.ndarray, groups: np.ndarray) -> Erasure:
        """`users`: (users, width) means of item vectors; `groups`: (users, groups) bool, one a user."""
        from sklearn.covariance import ledoit_wolf

        mean = users.mean(axis=0)
        apart, told = users - mean, groups - groups.mean(axis=0)
        variance, axes = np.linalg.eigh(ledoit_wolf(apart, assume_centered=True)[0])
        axes, deviation = axes[:, variance > TINY * variance.max()], np.sqrt(variance.clip(0))
        deviation = deviation[variance > TINY * variance.max()]
        white, colour = (axes / deviation) @ axes.T, (axes * deviation) @ axes.T
        directions, strength, _ = np.linalg.svd(white @ (apart.T @ told) / len(users), full_matrices=False)
        directions = directions[:, strength > TINY * strength.max(initial=0)]
        return cls(mean, white @ directions, colour @ directions)

    @classmethod
    def of(cls, arrays: Arrays) -> Erasure:
        return cls(arrays["mean"], arrays["into"], arrays["out"])

    def arrays(self) -> Arrays:
        return {"mean": self.mean, "into": self.into, "out": self.out}
