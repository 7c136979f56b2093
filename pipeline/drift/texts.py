"""Have texts changed? A classifier learns to tell old from new; it judges users that it has not seen.

In: a vector for every document (an item, or a row's own text), rows with their document, user and side. Out:
(rows,) rank of each row's score within its fold, in (0, 1). The scores are out-of-fold: users are dealt into
folds by a fixed-salt hash, and each fold is scored by a linear discriminant fitted on the others (Fisher's,
with a shrunken covariance). The difference of the two sides' mean ranks is the area under the ROC curve - 0.5
(Mann & Whitney 1947): the effect. It is no statistic for permutations: each fold's scores depend on the sides
of the others, so that with scores that stay it varies less than it does (twice as many alarms as promised,
and more). The p-value is that of the distance of the two means in whitened vectors, which is the separation
that the discriminant finds (Hotelling 1931) and follows any change of sides at once.
Without a language model, vectors are TF-IDF of words and pairs of words, reduced by a singular value
decomposition.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables

FOLDS = 5
WIDTH = 64  # dimensions that are kept of any vectors
SHRINKAGE = 0.1  # towards the mean variance
ITERATIONS = 2  # of the decomposition
MOST_CHARACTERS = 500  # of a document, read for its words


def reduced(vectors: np.ndarray) -> np.ndarray:
    """(documents, d) -> (documents, at most WIDTH): centred, on the principal axes; zero rows stay zero."""
    has = np.asarray(vectors.any(axis=1))
    if not has.any():
        return np.zeros((len(vectors), 1))
    centred = np.where(has[:, None], vectors - vectors[has].mean(axis=0), 0).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, ::-1][:, :WIDTH]


def words_to_vectors(written: list[str], seed: int) -> np.ndarray:
    """(texts, at most WIDTH) of TF-IDF; one without words, or with none that another has, is a zero row."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        token_pattern=r"\w+", ngram_range=(1, 2), min_df=2, sublinear_tf=True, smooth_idf=False
    )
    try:
        weighted = words.fit_transform([text[:MOST_CHARACTERS] for text in written])
    except ValueError:  # no word, or none that two texts have
        return np.zeros((len(written), 1))
    width = min(WIDTH, *weighted.shape)
    return np.asarray(TruncatedSVD(width, n_iter=ITERATIONS, random_state=seed).fit_transform(weighted))


def item_texts(items: pd.DataFrame) -> list[str]:
    """`item_text` where the table has it, else title, text and categories."""
    if "item_text" in items:
        return items["item_text"].fillna("").astype(str).tolist()
    parts = [items[name].fillna("").astype(str) for name in (tables.TITLE, tables.TEXT) if name in items]
    if tables.CATEGORIES in items:
        joined = [
            " ".join(map(str, cell)) if isinstance(cell, list) else "" for cell in items[tables.CATEGORIES]
        ]
        parts.append(pd.Series(joined, items.index, dtype="str"))
    return [" ".join(filter(None, row)) for row in zip(*parts, strict=True)] if parts else [""] * len(items)


def ranks(
    vectors: np.ndarray, document: np.ndarray, fold: np.ndarray, current: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """(rows,) weighted rank of each row's out-of-fold score within its fold.

    `vectors` (documents, d) as `reduced` gives them; `document`, `fold`, `current`, `weight` (rows,). Rows
    enter as counts of documents, so the cost is that of the documents. A fold that cannot be scored (the
    others lack a side) ranks all its rows equal, 0.5.
    """
    result = np.full(len(document), 0.5)
    shape = (2 * FOLDS, len(vectors))
    counts = sp.csr_matrix((weight, (2 * fold + current, document)), shape=shape)
    for one in range(FOLDS):
        others = [2 * each for each in range(FOLDS) if each != one]
        old = np.asarray(counts[others].sum(axis=0)).ravel()
        new = np.asarray(counts[[each + 1 for each in others]].sum(axis=0)).ravel()
        rows = np.flatnonzero(fold == one)
        if len(rows) and old.sum() > 0 and new.sum() > 0:
            score = vectors @ discriminant(vectors, old, new)
            result[rows] = weighted_ranks(score[document[rows]], weight[rows])
    return result


def whitened(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(documents, d) with unit covariance over rows; `weight` (documents,) of each document's rows."""
    has = np.asarray(vectors.any(axis=1))
    share = weight * has / max(float((weight * has).sum()), 1e-12)
    centred = np.where(has[:, None], vectors - share @ vectors, 0)
    covariance = (centred * share[:, None]).T @ centred
    size = np.trace(covariance) / len(covariance)
    shrunken = (1 - SHRINKAGE) * covariance + (SHRINKAGE * size + 1e-12) * np.eye(len(covariance))
    return np.linalg.solve(np.linalg.cholesky(shrunken), centred.T).T


def discriminant(vectors: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(d,) direction that tells documents counted in `new` from those in `old` (both (documents,))."""
    means = [counts @ vectors / counts.sum() for counts in (old, new)]
    scatter = sum(
        (vectors * counts[:, None]).T @ vectors - counts.sum() * np.outer(mean, mean)
        for counts, mean in zip((old, new), means, strict=True)
    )
    covariance = np.asarray(scatter) / (old.sum() + new.sum())
    size = np.trace(covariance) / len(covariance)
    covariance = (1 - SHRINKAGE) * covariance + (SHRINKAGE * size + 1e-12) * np.eye(len(covariance))
    return np.linalg.solve(covariance, means[1] - means[0])


def weighted_ranks(score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(rows,) in (0, 1): weight of lower scores plus half that of equal ones, over all weight."""
    _, code = np.unique(score, return_inverse=True)
    at = np.bincount(code, weight)
    middle = np.cumsum(at) - at / 2
    return middle[code] / at.sum()
