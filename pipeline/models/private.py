"""What users took together, released once with noise under a budget (epsilon, delta) of a whole user.

Two data sets are neighbours if one has all rows of one further user. Released are two sums over users, each
with Gaussian noise; everything else is computed from these alone, so it costs nothing further:

    counts  sum of x / |x|                               (items,)
    pairs   sum of y y' / |y y'|, upper triangle          (axes, axes), where y = axes' x of the kept items

where x is 1 for what a user took with success. Each user adds a vector of length at most 1 to either, however
much they took: that is the clip. Noise of standard deviation s makes one
release 1/s-Gaussian differentially private, and releases that follow each other are together
sqrt(sum 1/s^2)-Gaussian, exactly (Dong, Roth, Su, "Gaussian differential privacy", 2022, corollary 3.3). What
mu keeps (epsilon, delta) is the analytic Gaussian mechanism (Balle and Wang 2018, theorem 8).

Noise of a matrix grows with the root of its size, so pairs are not those of all items that `counts` keeps but
of some axes: items that are taken so often that their own cells exceed the noise, and of the others what
everybody knows of them (categories, years, texts), times how often they are taken. Released counts and public
facts choose the axes, so they cost nothing. Without noise every item has an axis of its own.

Of the noisy pairs the eigenvalues that noise alone would make are left out (Dwork et al., "Analyze Gauss",
2014) and the others are made as much smaller as noise made them larger (Gavish and Donoho, "Optimal shrinkage
of singular values", 2017); from these EASE, cosines and factors are made. Noise comes from the operating
system's randomness, never from `seed`: who knows the noise can take it away again. It is drawn in floating
point, whose last digits can say more than the theory (Mironov 2012): publish scores rounded, as files here do
not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from pipeline.data.histories import Catalogue, Log
from pipeline.models import baselines
from pipeline.models.baselines import blocks
from pipeline.models.collaborative import KEPT_NEIGHBOURS, KNN_NEIGHBOURS, Collaborative
from pipeline.models.content import category_matrix, years

COUNTS = 0.4  # share of the budget (of mu squared) that counts take; pairs have the rest
SURELY = 1.5  # standard deviations of noise above which a count keeps its item
ALONE = 30.0  # deviations of the noise in pairs above which a count gives its item an axis of its own
FACTS = 29  # public facts of an item that make an axis each
MOST_CATEGORIES, SPANS = 20, 10  # the most frequent; parts of the catalogue by year, of equal size
MOST = 4_000  # items kept
REGULARISATION = 30.0  # of EASE
SHRINKAGE = 1.0  # of cosines
FACTORS, FOLD_IN_REGULARISATION, FOLD_IN_ALPHA = 64, 20.0, 3.0  # docs/privacy.md was measured with these
LEAST = 1e-9  # of a length or an eigenvalue that is not 0


@dataclass(frozen=True)
class Budget:
    """What may be told of any one user; epsilon infinite: no noise, for comparison."""

    epsilon: float
    delta: float

    @property
    def mu(self) -> float:
        """Of the Gaussian mechanism that has exactly this budget."""
        if math.isinf(self.epsilon):
            return math.inf
        high = 1.0
        while delta_of(high, self.epsilon) < self.delta:
            high *= 2
        return float(brentq(lambda mu: delta_of(mu, self.epsilon) - self.delta, 1e-9, high, xtol=1e-12))

    @property
    def noise(self) -> tuple[float, float]:
        """Standard deviations of what is added to counts and pairs."""
        mu = self.mu
        return 1 / (mu * math.sqrt(COUNTS)), 1 / (mu * math.sqrt(1 - COUNTS))


def delta_of(mu: float, epsilon: float) -> float:
    """The least delta of a Gaussian mechanism of noise 1 / mu at epsilon (Balle and Wang 2018, eq. 6)."""
    if mu <= 0:
        return 0.0
    behind = math.exp(min(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)), 0))
    return max(0.0, float(ndtr(-epsilon / mu + mu / 2)) - behind)


def most_auc(mu: float) -> float:
    """Area under the ROC curve that no attack on membership exceeds: that of two normals mu apart."""
    return 1.0 if math.isinf(mu) else float(ndtr(mu / math.sqrt(2)))


# The two sums, which add up over any parts of the users ----------------------------------------------------


def taken(log: Log, rows: np.ndarray, items: int) -> sp.csr_matrix:
    """(users with any, items) float64, 1 for what each took with success among the rows of a mask."""
    x = baselines.interactions(log, rows & log.positive, items).astype(np.float64)
    return x[np.diff(x.indptr) > 0]


def counts(x: sp.csr_matrix) -> np.ndarray:
    """(items,) float64: the sum of x / |x|. Adding or removing a user moves it by a length of 1 at most."""
    return np.asarray((_scaled(x, np.diff(x.indptr) ** -0.5)).sum(axis=0)).ravel()


def pairs(x: sp.csr_matrix, axes: np.ndarray) -> np.ndarray:
    """(axes, axes) float64, symmetric: a user moves its upper triangle by a length of 1 at most.

    `x`: (users, kept); `axes`: (kept, axes).
    """
    total = np.zeros((axes.shape[1], axes.shape[1]))
    for block in blocks(x.shape[0], axes.shape[1]):
        y = x[block] @ axes
        squares = y**2  # |upper triangle of y y'|^2 = (|y|^4 + the sum of y^4) / 2
        length = np.sqrt((squares.sum(axis=1) ** 2 + (squares**2).sum(axis=1)) / 2)
        there = length > LEAST
        total += (y[there] / length[there, None]).T @ y[there]
    return total


def _scaled(x: sp.csr_matrix, scale: np.ndarray) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags_array(scale) @ x)


def with_noise(sums: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """A vector, or a symmetric matrix whose cells below the diagonal repeat those above it."""
    noise = deviation * generator.standard_normal(sums.shape) if deviation else np.zeros(sums.shape)
    return sums + (noise if sums.ndim == 1 else np.triu(noise) + np.triu(noise, 1).T)


def surely_taken(noisy: np.ndarray, deviation: float) -> np.ndarray:
    """Indices, ascending, of the items whose noisy count is no noise: at most MOST, of the greatest."""
    order = np.argsort(-noisy, kind="stable")[:MOST]
    return np.sort(order[noisy[order] > max(SURELY * deviation, 1e-9)]).astype(np.int32)


# Axes of pairs ---------------------------------------------------------------------------------------------


def public_facts(catalogue: Catalogue, vectors: np.ndarray | None) -> np.ndarray:
    """(items, at most FACTS) float64: frequent categories, steps of years, and what differs most in texts.

    `vectors`: (items, width) of texts, zero rows for none.
    """
    categories = category_matrix(catalogue)
    frequent = np.argsort(-np.asarray(categories.sum(axis=0)).ravel(), kind="stable")[:MOST_CATEGORIES]
    year = years(catalogue)
    known = np.isfinite(year)
    steps = np.quantile(year[known], np.arange(1, SPANS) / SPANS) if known.any() else np.zeros(0)
    later = np.where(known, year, -np.inf)[:, None] > np.unique(steps)
    found = np.concatenate([categories.tocsc()[:, frequent].toarray(), later], axis=1).astype(np.float64)
    if vectors is None or found.shape[1] >= FACTS:
        return found[:, :FACTS]
    _, directions = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    return np.concatenate([found, vectors @ directions[:, ::-1][:, : FACTS - found.shape[1]]], axis=1)


def no_facts(items: int) -> np.ndarray:
    return np.zeros((items, 0))


def axes_of(noisy: np.ndarray, kept: np.ndarray, deviation: float, facts: np.ndarray) -> np.ndarray:
    """(kept, axes) float64, orthonormal.

    `noisy`: (items,) released counts; `deviation`: of the noise in pairs; `facts`: (items, facts).
    """
    count = noisy[kept]
    alone = np.flatnonzero(count > ALONE * deviation)
    own = np.zeros((len(kept), len(alone)))
    own[alone, np.arange(len(alone))] = 1
    others = np.concatenate([np.ones((len(kept), 1)), facts[kept]], axis=1) * count[:, None]
    others[alone] = 0
    found, values, _ = np.linalg.svd(others, full_matrices=False)
    return np.concatenate([own, found[:, values > LEAST * max(values.max(initial=0), 1)]], axis=1)


# What is made of them --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Released:
    """All that leaves the users' rows."""

    counts: np.ndarray  # (items,)
    kept: np.ndarray  # (kept,) int32 items
    axes: np.ndarray  # (kept, axes)
    pairs: np.ndarray  # (axes, axes)
    deviation: float  # of the noise in `pairs`

    @classmethod
    def of(
        cls,
        x: sp.csr_matrix,
        budget: Budget,
        facts: np.ndarray | None = None,
        generator: np.random.Generator | None = None,
    ) -> Released:
        """`x`: of `taken`; `facts`: of `public_facts`, None: none are known.

        `generator`: of tests and benches alone, else the system's randomness.
        """
        generator = generator or np.random.default_rng()
        of_counts, of_pairs = budget.noise
        noisy = with_noise(counts(x), of_counts, generator)
        kept = surely_taken(noisy, of_counts)
        axes = axes_of(noisy, kept, of_pairs, no_facts(x.shape[1]) if facts is None else facts)
        sums = with_noise(pairs(sp.csr_matrix(x[:, kept]), axes), of_pairs, generator)
        return cls(noisy, kept, axes, sums, of_pairs)

    def collaborative(self) -> Collaborative:
        """EASE, cosines, factors and counts; nothing else that `Collaborative` holds."""
        items, size = len(self.counts), len(self.kept)
        values, axes = self._beyond_noise()
        together = (axes * values) @ axes.T
        known = np.zeros(items, bool)
        known[self.kept] = True
        vectors = np.zeros((items, max(1, min(FACTORS, len(values)))), np.float32)
        vectors[self.kept, : len(values)] = (axes * np.sqrt(values))[:, :FACTORS]
        none, nothing = np.zeros(items, np.float32), sp.csr_matrix((0, 0), dtype=np.float32)
        empty = baselines.ItemMatrix(items, np.zeros(0, np.int32), nothing)
        ease = knn = empty
        if size:
            knn = self._matrix(_cosines(together), KNN_NEIGHBOURS)  # before EASE takes the memory
            ease = self._matrix(baselines.ease_of(together, REGULARISATION), KEPT_NEIGHBOURS)
        return Collaborative(
            ease=ease,
            knn=knn,
            rules=empty,
            ials=baselines.Factors(vectors, known, FOLD_IN_REGULARISATION, FOLD_IN_ALPHA),
            count=np.where(known, self.counts, 0).astype(np.float32),
            value=none,
            liked=none,
        )

    def _beyond_noise(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, greatest first, that exceed those of a matrix of noise, without what it adds to them;
        and their vectors, (kept, eigenvalues)."""
        values, vectors = np.linalg.eigh(self.pairs)
        edge = 2 * self.deviation * math.sqrt(len(values))
        kept = values > max(edge, LEAST)
        shrunk = np.sqrt(values[kept] ** 2 - edge**2)
        return shrunk[::-1], self.axes @ vectors[:, kept][:, ::-1]

    def _matrix(self, weights: np.ndarray, keep: int) -> baselines.ItemMatrix:
        return baselines.ItemMatrix(len(self.counts), self.kept, weights.astype(np.float32)).pruned(keep)


def _cosines(pairs: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.maximum(np.diag(pairs), 0))
    found = pairs / (norms[:, None] * norms[None] + SHRINKAGE)
    found[np.diag_indices(len(found))] = 0
    return np.asarray(np.maximum(found, 0))
