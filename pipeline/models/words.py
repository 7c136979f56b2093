"""Words that a typed text shares with items' texts: TF-IDF (Salton and Buckley 1988), by scikit-learn.

A language model finds what means the same, this what says the same: names, places, rare words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

COMMON = 0.1  # a word in more texts than this share is no reason


@dataclass(frozen=True)
class Words:
    vectorizer: Any  # sklearn's TfidfVectorizer; None: no text has a word
    weights: sp.csr_matrix  # (items, words) float32 rows of unit length

    @classmethod
    def of(cls, texts: list[str]) -> Words:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Where texts are titles, 'that' is as rare as a name, and a list of titles with it is no answer.
        # Words of other languages count by their rarity alone.
        vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, stop_words="english")
        try:
            return cls(vectorizer, sp.csr_matrix(vectorizer.fit_transform(texts)))
        except ValueError:  # sklearn's: an empty vocabulary
            return cls(None, sp.csr_matrix((len(texts), 0), dtype=np.float32))

    def typed(self, text: str) -> Typed:
        nothing = sp.csr_matrix((1, self.weights.shape[1]), dtype=np.float32)
        row = nothing if self.vectorizer is None else sp.csr_matrix(self.vectorizer.transform([text]))
        return Typed(self, row)

    @cached_property
    def names(self) -> np.ndarray:
        """(words,): scikit-learn sorts them anew whenever it is asked."""
        names: np.ndarray = self.vectorizer.get_feature_names_out()
        return names


@dataclass(frozen=True)
class Typed:
    """A text that is asked about."""

    words: Words
    row: sp.csr_matrix  # (1, words) float32 of unit length

    def closeness(self) -> np.ndarray:
        """(items,) float32 cosine of TF-IDF vectors, 0 without a shared word."""
        return np.asarray((self.words.weights @ self.row.T).todense(), np.float32)[:, 0]

    def shared(self, item: int, most: int = 4) -> list[str]:
        """The words that bring the item closest to the text, the strongest first; none that is common."""
        weights = self.words.weights
        of_item = slice(weights.indptr[item], weights.indptr[item + 1])
        both, own, theirs = np.intersect1d(self.row.indices, weights.indices[of_item], return_indices=True)
        if not len(both):
            return []
        texts = weights.shape[0]
        # idf = 1 + ln((1 + texts) / (1 + texts with the word))
        rare = self.words.vectorizer.idf_[both] >= 1 + np.log((1 + texts) / (1 + max(1.0, COMMON * texts)))
        strength = self.row.data[own] * weights.data[of_item][theirs]
        order = np.argsort(-strength[rare], kind="stable")[:most]
        return [str(self.words.names[column]) for column in both[rare][order]]
