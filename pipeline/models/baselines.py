"""Baselines fitted on train alone: popularity, recent popularity, item-kNN, EASE, iALS.

In: the log (pipeline/data/histories.py) and a mask of its rows to fit on; everything is frozen at the end of
those rows. Out: arrays over the catalogue and scorers with a `name` and `score(points) -> (points, items)`
float32, in which NaN means "cannot score" (the ranking puts those items last, in popularity order).
Those of content alone: content.py. Settings: evaluation/tuning.py. The challenger has the same as features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, TRAIN, History, Log, Points
from pipeline.models.pairs import DENSE, best_cells, best_columns, sums_at, sums_from
from pipeline.run import processors

BLOCK_BYTES = 64_000_000  # of one temporary array
AHEAD = 2.5  # what a cell costs `sums_from`, where one costs `sums_at` 1: measured
SMALL = 0.01  # history items of less than this share of the largest weight are left out


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32 over the catalogue; NaN = cannot score."""


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of `rows` such that a float32 block of `width` columns stays within BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (4 * max(width, 1)))
    for begin in range(0, rows, size):
        yield slice(begin, min(begin + size, rows))


def spans(cost: np.ndarray, most: float) -> Iterator[slice]:
    """Slices, one after the other, whose costs add up to `most` at most; one cell at least."""
    ends, begin = np.cumsum(cost), 0
    while begin < len(ends):
        limit = most + (ends[begin - 1] if begin else 0)
        stop = max(begin + 1, int(np.searchsorted(ends, limit, side="right")))
        yield slice(begin, stop)
        begin = stop


def train_rows(log: Log, positives_only: bool = False) -> np.ndarray:
    """Mask of the log's rows that may be fitted on: train window, users with enough rows."""
    mask = (log.window == TRAIN) & log.fit
    return mask & log.positive if positives_only else mask


def interactions(log: Log, rows: np.ndarray, items: int) -> sp.csr_matrix:
    """(users, items) float32, 1 where a user met an item in `rows` (mask or indices), however often."""
    user, item = log.user[rows], log.item[rows]
    matrix = sp.csr_matrix((np.ones(len(user), np.float32), (user, item)), (len(log.indptr) - 1, items))
    matrix.data[:] = 1
    return matrix


# Popularity -----------------------------------------------------------------------------------------------


def popularity(log: Log, rows: np.ndarray, items: int) -> np.ndarray:
    """(items,) float64: distinct users with a positive interaction among `rows`."""
    return recent_popularity(log, rows, items, np.inf)


def recent_popularity(
    log: Log, rows: np.ndarray, items: int, half_life_days: float, end: int | None = None
) -> np.ndarray:
    """(items,) float64: distinct users with a positive interaction, each weighted 2^(-age / half-life).

    The age runs from the pair's newest row to `end` (microseconds; default: the newest of `rows`), where the
    clock stands still: at every point the same figures.
    """
    chosen = np.flatnonzero(_mask(log, rows) & log.positive)
    if not len(chosen):
        return np.zeros(items)
    end = int(log.time[rows].max()) if end is None else end
    age_days = (end - log.time[chosen]) / MICROSECONDS_A_DAY
    weight = np.exp2(-age_days / half_life_days)
    pair = log.user[chosen].astype(np.int64) * items + log.item[chosen]
    # A user's rows stand in time order, so the last of equal pairs is the newest.
    _, from_the_end = np.unique(pair[::-1], return_index=True)
    newest = len(pair) - 1 - from_the_end
    return np.bincount(log.item[chosen][newest], weight[newest], minlength=items)


def _mask(log: Log, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(len(log), bool)
    mask[rows] = True
    return mask


# Item-item models: scores are weights of the history @ matrix ---------------------------------------------


@dataclass(frozen=True)
class ItemMatrix:
    """Weights from an item of the history (row) to an item that is ranked (column), for the items `kept`."""

    items: int  # of the whole catalogue
    kept: np.ndarray  # (kept,) int32 item indices, ascending
    matrix: np.ndarray | sp.csr_matrix  # (kept, kept) float32

    def score(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, items) weights of the history -> (points, items) float32; NaN: not kept, or no history."""
        nothing = np.full(self.items, np.nan, np.float32)
        nothing[self.kept] = 0
        known = self._of_kept(weights)
        scores = np.tile(nothing, (weights.shape[0], 1))
        product = known @ self.matrix
        if sp.issparse(product):  # few cells, of a row that may be long
            row = np.repeat(np.arange(len(scores)), np.diff(product.indptr))
            scores[row, self.kept[product.indices]] = product.data
        else:
            scores[:, self.kept] = product
        scores[np.diff(known.indptr) == 0] = np.nan
        return scores

    def among_kept(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, items) weights of the history -> (points, kept) float32 scores of the kept items."""
        product = self._of_kept(weights) @ self.matrix
        return product.toarray() if sp.issparse(product) else product

    def sparse_scores(self, weights: sp.csr_matrix) -> sp.csr_matrix:
        """The same as (points, items), sparse."""
        sparse = sp.csr_matrix(self._of_kept(weights) @ sp.csr_matrix(self.matrix))
        return sp.csr_matrix(
            (sparse.data, self.kept[sparse.indices], sparse.indptr), (weights.shape[0], self.items)
        )

    def _of_kept(self, weights: sp.csr_matrix) -> sp.csr_matrix:
        """(points, items) -> (points, kept); several times quicker than scipy's choice of columns."""
        weights = sp.csr_matrix(weights)
        column = self._place[weights.indices]
        there = column >= 0
        indptr = np.r_[0, np.cumsum(there)][weights.indptr]
        parts = (weights.data[there], column[there], indptr)
        return sp.csr_matrix(parts, shape=(weights.shape[0], len(self.kept)))

    @cached_property
    def _turned(self) -> sp.csr_matrix:
        """(kept, kept) of a sparse matrix: each item's row holds what leads to it."""
        return sp.csr_matrix(self.matrix.T)

    @cached_property
    def _place(self) -> np.ndarray:
        """(items + 1,) place of each item among the kept, -1 for the others and for what is behind."""
        place = np.full(self.items + 1, -1)
        place[self.kept] = np.arange(len(self.kept))
        return place

    def best(self, weights: sp.csr_matrix, n: int) -> np.ndarray:
        """(points, n) int32 items of the greatest scores above 0, best first, -1 behind."""
        if isinstance(self.matrix, np.ndarray):
            scores = self.among_kept(weights)
            return best_columns(np.where(scores > 0, scores, -np.inf), n, self.kept)
        return best_cells(self.sparse_scores(weights), n)

    def pair_scores(self, history: History, items: np.ndarray) -> np.ndarray:
        """(half-lives, points, candidates) float32 scores of the items; 0 for those not kept, and for -1."""
        column, row = self._place[items], self._place[history.item]  # of -1 the last: -1
        if isinstance(self.matrix, np.ndarray) or history.shape[0] * len(self.kept) <= DENSE // 4:
            return self._dense_pair_scores(history, column)
        there = row >= 0
        point, row, weight = history.point[there], row[there], history.weight[:, there]
        ahead = np.diff(self.matrix.indptr)[row] @ (weight > 0).sum(axis=0)
        back = np.diff(self._turned.indptr)[column[column >= 0]].sum()
        if AHEAD * ahead < back:
            return sums_from(self.matrix, point, row, weight, column)
        return sums_at(self._turned, point, row, weight, column)

    def _dense_pair_scores(self, history: History, column: np.ndarray) -> np.ndarray:
        out = np.zeros((len(history.weight), *column.shape), np.float32)
        if len(self.kept):
            for place in range(len(out)):
                scores = self.among_kept(history.matrix(place))
                out[place] = np.take_along_axis(scores, np.maximum(column, 0), axis=1)
        return np.where(column >= 0, out, 0)

    def pruned(self, keep: int) -> ItemMatrix:
        """The same with only the `keep` largest |weights| of each column."""
        return ItemMatrix(self.items, self.kept, prune(self.matrix, keep)).quick()

    def quick(self) -> ItemMatrix:
        """The same, dense if a tenth of it is not zero: sparse products are slower from there on."""
        if not isinstance(self.matrix, np.ndarray) and self.matrix.nnz > 0.1 * len(self.kept) ** 2:
            return ItemMatrix(self.items, self.kept, self.matrix.toarray())
        return self

    def parts(self, history: sp.csr_matrix, items: np.ndarray) -> np.ndarray:
        """(cells, items) float32: what each cell of one point's (1, items) history adds to items' scores."""
        parts = np.zeros((history.nnz, len(items)), np.float32)
        row, column = self._place[history.indices], self._place[items]
        of_row, of_column = np.flatnonzero(row >= 0), np.flatnonzero(column >= 0)
        if len(of_row) and len(of_column):
            cells = self.matrix[row[of_row]][:, column[of_column]]
            cells = cells.toarray() if sp.issparse(cells) else cells
            parts[np.ix_(of_row, of_column)] = cells * history.data[of_row, None]
        return parts


def prune(matrix: np.ndarray | sp.spmatrix, keep: int) -> sp.csr_matrix:
    """The `keep` largest |weights| of each column (ties: the smaller row); zeros are never stored."""
    if sp.issparse(matrix):
        return sp.csr_matrix(_largest(sp.csc_matrix(matrix, copy=True), keep))
    columns = [_largest(_cells(matrix[:, part]), keep) for part in blocks(matrix.shape[1], matrix.shape[0])]
    return sp.hstack(columns, format="csr") if columns else sp.csr_matrix(matrix.shape, dtype=np.float32)


def _cells(dense: np.ndarray) -> sp.csc_matrix:
    """A copy with all its cells, zeros too: quicker than to look for them."""
    rows, columns = dense.shape
    place = np.tile(np.arange(rows, dtype=np.int32), columns)
    return sp.csc_matrix((dense.ravel("F"), place, np.arange(columns + 1) * rows), shape=dense.shape)


def _largest(cells: sp.csc_matrix, keep: int) -> sp.csc_matrix:
    """float32, in place: the `keep` largest absolute values of each column."""
    cells.sort_indices()  # so that of equal ones the smaller rows come first
    size = np.abs(cells.data)
    for column in np.flatnonzero(np.diff(cells.indptr) > keep):
        span = slice(*cells.indptr[column : column + 2])
        floor = np.partition(size[span], -keep)[-keep]
        above, tied = size[span] > floor, np.flatnonzero(size[span] == floor)
        above[tied[: keep - above.sum()]] = True
        cells.data[span][~above] = 0
    cells.eliminate_zeros()
    return cells.astype(np.float32)


def most_interacted(matrix: sp.csr_matrix, max_items: int) -> np.ndarray:
    """Indices, ascending, of the at most `max_items` items with most users (ties: the smaller index)."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    order = np.argsort(-counts, kind="stable")[:max_items]
    return np.sort(order[counts[order] > 0]).astype(np.int32)


def ease(matrix: sp.csr_matrix, regularisation: float, max_items: int = 8000) -> ItemMatrix:
    """EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data", eq. 8), float32.

    P = (X'X + regularisation I)^-1; B = I - P diag(P)^-1, whose diagonal is zero. With fewer users than
    items P comes from the smaller users x users matrix (Woodbury): (I - X'(XX' + regularisation I)^-1 X) /
    regularisation. Time min(users, items)^3 and memory two items x items arrays, hence `max_items`.
    """
    kept = most_interacted(matrix, max_items)
    x = matrix.tocsc()[:, kept].tocsr()
    x = x[np.diff(x.indptr) > 0]
    users, items = x.shape
    if not items:
        return ItemMatrix(matrix.shape[1], kept, np.zeros((0, 0), np.float32))
    if users < items:
        inverse = _inverse(_gram(sp.csr_matrix(x.T)), regularisation)
        p = -(x.T @ (inverse.astype(np.float32) @ x.toarray()))
        p[np.diag_indices(items)] += 1
        weights = _weights(p / regularisation)
    else:
        weights = ease_of(_gram(x), regularisation)
    return ItemMatrix(matrix.shape[1], kept, np.ascontiguousarray(weights, dtype=np.float32))


def ease_of(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """(items, items) weights from X'X, in its memory and with its type."""
    return _weights(_inverse(gram, regularisation))


def _weights(p: np.ndarray) -> np.ndarray:
    p /= -np.diag(p).copy()
    p[np.diag_indices(len(p))] = 0
    return p


def _gram(x: sp.csr_matrix) -> np.ndarray:
    """x'x, dense, in blocks (the sparse product would be larger than the dense); float64 if that is cheap."""
    size = x.shape[1]
    gram = np.empty((size, size), np.float64 if size <= 3000 else np.float32)
    turned, columns = sp.csr_matrix(x.T), x.tocsc()
    for block in blocks(size, size):
        gram[:, block] = (turned @ columns[:, block]).toarray()
    return gram


def _inverse(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """(gram + regularisation I)^-1 by Cholesky, in the memory of `gram` and with its type."""
    gram[np.diag_indices(len(gram))] += regularisation
    suffix = "d" if gram.dtype == np.float64 else "s"
    # Transposed, a C-ordered array is what Fortran wants, so nothing is copied.
    factor, failed = getattr(scipy.linalg.lapack, suffix + "potrf")(gram.T, lower=1, overwrite_a=1)
    if failed:
        raise ValueError(f"EASE: the Gram matrix is not positive definite at {regularisation=}")
    inverse, _ = getattr(scipy.linalg.lapack, suffix + "potri")(factor, lower=1, overwrite_c=1)
    for block in blocks(len(gram), len(gram)):  # only the lower triangle holds the result
        corner = np.tril(inverse[block, block])
        inverse[block, block] = corner + np.tril(corner, -1).T
        inverse[block, block.stop :] = inverse[block.stop :, block].T
    return inverse


def item_knn(matrix: sp.csr_matrix, neighbours: int, shrinkage: float) -> ItemMatrix:
    """Cosine of the items' users, |ij| / (sqrt(|i||j|) + shrinkage); each column keeps its nearest items."""
    kept = most_interacted(matrix, matrix.shape[1])
    x = matrix.tocsc()[:, kept]
    of_users, turned = x.tocsr(), sp.csr_matrix(x.T)
    norms = np.sqrt(np.asarray(x.sum(axis=0)).ravel())
    columns: list[sp.csc_matrix] = []
    # As many items at once as the products of their users' rows have room for: of 1,000,000 items each goes
    # with some hundred others, and a block as wide as the catalogue would hold sixteen.
    cells = turned @ np.diff(of_users.indptr)
    for block in spans(cells, BLOCK_BYTES // 12):
        together = sp.csc_matrix((turned[block] @ of_users).T)
        row = together.indices
        column = block.start + np.repeat(np.arange(together.shape[1]), np.diff(together.indptr))
        together.data = np.where(row == column, 0, together.data / (norms[row] * norms[column] + shrinkage))
        columns.append(_largest(together, neighbours))
    empty = sp.csr_matrix((0, 0), dtype=np.float32)
    return ItemMatrix(matrix.shape[1], kept, sp.hstack(columns, format="csr") if columns else empty)


def liking(log: Log, disliked_weight: float) -> np.ndarray:
    """(rows of the log,) float32: 1 for rows that were liked, `disliked_weight` for the rest."""
    liked = log.positive if log.liked is None else log.liked
    return np.where(liked, 1, disliked_weight).astype(np.float32)


@dataclass(frozen=True)
class HistoryScorer:
    """Any function of the recency-weighted history: EASE, item-kNN, iALS, categories, vectors."""

    name: str
    items: int
    from_weights: Callable[[sp.csr_matrix], np.ndarray]
    half_life: float  # items; infinite: every history item weighs the same
    disliked_weight: float = 1.0

    def score(self, points: Points) -> np.ndarray:
        liked = liking(points.log, self.disliked_weight)
        history = points.history(self.items, (self.half_life,), liked).without_small(SMALL)
        return self.from_weights(history.matrix(0))


# Implicit-feedback matrix factorisation -------------------------------------------------------------------


@dataclass(frozen=True)
class Factors:
    """Item factors of iALS; a user's factor is solved anew from the live history (fold-in)."""

    vectors: np.ndarray  # (items, factors) float32; zero for items never in train
    known: np.ndarray  # (items,) bool
    regularisation: float
    alpha: float

    def score(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, items) weights of the history -> (points, items) float32; NaN: unknown, or no history."""
        return self.rate(self.users(weights), weights)

    def rate(self, users: np.ndarray, weights: sp.csr_matrix) -> np.ndarray:
        """The same with (points, factors) `users` of these weights."""
        scores = users @ self.vectors.T
        scores[:, ~self.known] = np.nan
        scores[weights @ self.known.astype(np.float32) == 0] = np.nan
        return scores

    @cached_property
    def _base(self) -> np.ndarray:
        """(factors, factors) float64: the left side of a user without history."""
        y = self.vectors.astype(np.float64)
        return y.T @ y + self.regularisation * np.eye(y.shape[1])

    @cached_property
    def _solved(self) -> np.ndarray:
        """(items, factors) float32: the solutions of `_base` for each item's vector."""
        inverse, solved = np.linalg.inv(self._base), np.empty_like(self.vectors)
        for part in blocks(*self.vectors.shape):
            solved[part] = self.vectors[part] @ inverse
        return solved

    def users(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, factors): least squares of Hu, Koren & Volinsky 2008, eq. 4, confidence 1 + alpha x w."""
        weights = weights.multiply(self.known[None, :]).tocsr()
        user = np.zeros((weights.shape[0], self.vectors.shape[1]), np.float32)
        with _one_blas_thread():  # the systems are small
            for point in np.flatnonzero(np.diff(weights.indptr)):
                span = slice(weights.indptr[point], weights.indptr[point + 1])
                user[point] = self.folded(weights.indices[span], weights.data[None, span])[0]
        return user

    def folded(self, items: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(histories, factors) float32 of histories of the same known items, (items,), by the items'
        weights, (histories, items), 0 for an item that is not in a history.

        With V the items' vectors, C their alpha x w and B the left side without a history, it is
        (B + V'CV)^-1 V'(1 + C) = B^-1 V' (I + C V B^-1 V')^-1 (1 + C): where a history has fewer items than
        there are factors, the system is as small as the history.
        """
        vectors = self.vectors[items].astype(np.float64)
        extra = self.alpha * weights.astype(np.float64)
        wanted = np.where(weights > 0, 1 + extra, 0)
        if len(items) < vectors.shape[1]:
            solved = self._solved[items].astype(np.float64)
            left = np.eye(len(items)) + extra[:, :, None] * (solved @ vectors.T)
            right = np.linalg.solve(left, wanted[:, :, None])[:, :, 0]
            return (right @ solved).astype(np.float32)
        left = self._base + (vectors.T * extra[:, None, :]) @ vectors
        right = wanted @ vectors
        return np.linalg.solve(left, right[:, :, None])[:, :, 0].astype(np.float32)


@lru_cache(maxsize=1)
def _thread_pools() -> Any:
    """Finding the libraries takes longer than solving a hundred systems."""
    import threadpoolctl  # type: ignore[import-untyped]

    return threadpoolctl.ThreadpoolController()


def _one_blas_thread() -> Any:
    return _thread_pools().limit(limits=1, user_api="blas")


def ials(
    matrix: sp.csr_matrix, factors: int, regularisation: float, alpha: float, seed: int, iterations: int = 15
) -> Factors:
    """implicit's AlternatingLeastSquares on 1 + alpha confidences; the same seed gives the same factors."""
    from implicit.cpu.als import AlternatingLeastSquares

    known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    # implicit asks for it: its own loops and OpenBLAS's threads would fight for the cores.
    with _one_blas_thread():
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            alpha=1 + alpha,
            iterations=iterations,
            random_state=seed,
            num_threads=processors(),  # a row is solved alone: the factors do not depend on it
        )
        model.fit(matrix.astype(np.float32), show_progress=False)
    vectors = np.where(known[:, None], np.asarray(model.item_factors), 0).astype(np.float32)
    return Factors(vectors, known, regularisation, alpha)
