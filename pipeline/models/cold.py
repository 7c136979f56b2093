"""What texts let expect of cold items, and how the scorer comes to see such items.

`Imputed.of(inputs)`: collaborative opinions that an item's text lets expect. `hide(inputs, items)`: the same
inputs as if train had never held these items (pseudo-cold). Fitted on points at which some items are hidden,
the scorer learns how far the text of a newcomer is to be trusted (DropoutNet, Volkovs et al. 2017, hides
inputs likewise; CB2CF, Barkan et al. 2019, learns collaborative vectors from texts).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from pipeline.models import baselines as b
from pipeline.models.content import Content
from pipeline.models.networks import SequenceTower

NEIGHBOURS = 20  # of like text whose scores an item borrows
SHARPNESS = 10.0  # of their weights: exp(SHARPNESS x cosine)
FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0)  # of the ridge regressions, the best out of fold is taken
MOST_CATEGORIES = 200
SPANS = (1.0, 3.0, 10.0, 30.0)  # years over which newness fades
BLOCK = 1024  # items whose cosines to all others are in memory at a time


@dataclass(frozen=True)
class Imputed:
    """What an item's text lets expect; for items of train out of fold, so that both kinds look alike."""

    neighbours: sp.csr_matrix  # (items, items): column j holds weights, sum 1, of known items near j's text
    vectors: np.ndarray  # (items, factors) float32, of iALS
    popularity: np.ndarray  # (items,) float32, log1p, recent

    @classmethod
    def of(cls, text: np.ndarray, told: np.ndarray, ials: b.Factors, popularity: np.ndarray) -> Imputed:
        """`text`: (items, width) unit vectors, zero rows without text; `popularity`: (items,) log1p."""
        vectors, expected = _expected(told, ials, popularity)
        return cls(text_neighbours(text, ials.known), vectors, expected)

    def hide(self, items: np.ndarray, told: np.ndarray, ials: b.Factors, popularity: np.ndarray) -> Imputed:
        """Without the items of an (items,) mask; `ials` and `popularity` are without them already."""
        vectors, expected = _expected(told, ials, popularity)
        left = sp.diags_array((~items).astype(np.float32)) @ self.neighbours
        total = np.asarray(left.sum(axis=0)).ravel()
        scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        return Imputed(sp.csr_matrix(left @ sp.diags_array(scale)), vectors, expected)


def _expected(told: np.ndarray, ials: b.Factors, popularity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    target = np.concatenate([ials.vectors, popularity[:, None]], axis=1).astype(np.float64)
    found = ridge(told, target, ials.known).astype(np.float32)
    return found[:, :-1], found[:, -1]


def told(text: np.ndarray, categories: Content, year: np.ndarray) -> np.ndarray:
    """(items, width) float64: an item's text, its frequent categories, and its age over several spans."""
    has = categories.set_of >= 0
    sets = np.asarray(categories.sets.sum(axis=0)).ravel() if categories.sets.shape[0] else np.zeros(0)
    frequent = np.argsort(-sets, kind="stable")[:MOST_CATEGORIES]
    listed = np.zeros((len(text), len(frequent)))
    listed[has] = categories.sets[:, frequent].toarray()[categories.set_of[has]]
    newest = np.nanmax(year, initial=-np.inf)
    age = np.where(np.isfinite(year), newest - np.nan_to_num(year), np.inf)
    ages = np.exp(-age[:, None] / np.array(SPANS))
    return np.concatenate([text.astype(np.float64), 0.5 * listed, ages], axis=1)


def ridge(x: np.ndarray, y: np.ndarray, known: np.ndarray, seed: int = 7) -> np.ndarray:
    """(items, targets) predicted from (items, width): out of fold for known items, else from all of them."""
    rows = np.flatnonzero(known)
    if len(rows) < 2 * FOLDS:
        return np.repeat(y[rows].mean(axis=0, keepdims=True) if len(rows) else y[:1] * 0, len(x), axis=0)
    fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    mean_x, mean_y = x[rows].mean(axis=0), y[rows].mean(axis=0)
    scale = y[rows].std(axis=0) + 1e-9
    x, goal = x - mean_x, (y - mean_y) / scale
    parts = [(x[rows[fold == f]], goal[rows[fold == f]]) for f in range(FOLDS)]
    grams, products = [a.T @ a for a, _ in parts], [a.T @ c for a, c in parts]
    gram, product = sum(grams), sum(products)
    best, error = None, np.inf
    for penalty in PENALTIES:
        eye = penalty * np.eye(x.shape[1])
        weights = [np.linalg.solve(gram - g + eye, product - p) for g, p in zip(grams, products, strict=True)]
        out = x @ np.linalg.solve(gram + eye, product)
        for f, w in enumerate(weights):
            out[rows[fold == f]] = x[rows[fold == f]] @ w
        wrong = float(((out[rows] - goal[rows]) ** 2).mean())
        if wrong < error:
            best, error = out, wrong
    assert best is not None
    return best * scale + mean_y


def text_neighbours(text: np.ndarray, known: np.ndarray) -> sp.csr_matrix:
    """(items, items) float32: column j has the weights of the known items nearest to j's text, without j."""
    items, source = len(text), np.flatnonzero(known & text.any(axis=1))
    if len(source) < 2:
        return sp.csr_matrix((items, items), dtype=np.float32)
    count = min(NEIGHBOURS, len(source) - 1)
    rows, columns, values = [], [], []
    for begin in range(0, items, BLOCK):
        block = np.arange(begin, min(begin + BLOCK, items))
        cosine = text[block] @ text[source].T
        cosine[block[:, None] == source] = -np.inf
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        weight = np.take_along_axis(cosine, nearest, axis=1)
        weight = np.exp(SHARPNESS * (weight - weight.max(axis=1, keepdims=True)))
        weight *= text[block].any(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
        rows.append(source[nearest].ravel())
        columns.append(np.repeat(block, count))
        values.append(weight.ravel())
    where = (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_matrix((np.concatenate(values), where), shape=(items, items), dtype=np.float32)


def hide_matrix(model: b.ItemMatrix, items: np.ndarray) -> b.ItemMatrix:
    """Without the items of an (items,) mask, as ranked ones and in histories; likewise the next two."""
    left = np.flatnonzero(~items[model.kept])
    return b.ItemMatrix(model.items, model.kept[left], model.matrix[left][:, left])


def hide_factors(model: b.Factors, items: np.ndarray) -> b.Factors:
    vectors = np.where(items[:, None], 0, model.vectors).astype(np.float32)
    return replace(model, vectors=vectors, known=model.known & ~items)


def hide_tower(tower: SequenceTower, items: np.ndarray) -> SequenceTower:
    hidden, which = copy.deepcopy(tower), torch.from_numpy(np.r_[items, False])
    with torch.no_grad():
        hidden.known[which] = 0
        hidden.bias[which] = 0
    return hidden
