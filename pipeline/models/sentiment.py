"""What users' own words say of their rows' values: a row without a value counts in a history as it reads.

A ridge regression (models/ridge.py, cross-fitted) from the language model's vectors of `interactions.text`,
which is not trained for it, to the values of rows that have both. A row with a text and no value is liked
where its predicted value reaches what parts likes from dislikes among predictions out of fold. A text stands
in for the value alone: a row whose event is no success (a return) is none, however kind its words are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.data.histories import Log, Points
from pipeline.models.artifacts import PARTS
from pipeline.models.binding import Arrays
from pipeline.models.ridge import Ridge

FEWEST, MOST = 100, 20_000  # rows with text and value that are learned from
Encode = Callable[[list[str]], np.ndarray | None]  # texts -> (texts, width), None without an encoder


@dataclass(frozen=True)
class Felt:
    """A log, and the same with what its texts say."""

    plain: Log
    log: Log

    def points(self, points: Points) -> Points:
        """Over the latter; those of another log, whose texts are not known, stay."""
        return replace(points, log=self.log) if points.log is self.plain else points


@dataclass(frozen=True)
class Sentiment:
    ridge: Ridge
    cut: float  # predicted values below it are dislikes
    known: np.ndarray  # (texts,) uint64 hashes of texts that were predicted before, ascending
    value: np.ndarray  # (texts,) float32 their predicted values
    spearman: float  # of values and predictions out of fold

    @classmethod
    def fit(cls, log: Log, rows: np.ndarray, encode: Encode, seed: int = 7) -> Sentiment | None:
        """From the rows of a mask. None where no row has to be read, or too few tell likes from dislikes."""
        if log.text is None or not len(to_read(log)):
            return None
        both = rows & (log.text != "") & np.isfinite(log.value) & ~_by_event(log)
        learned = np.flatnonzero(both)
        if min(log.positive[both].sum(), (~log.positive[both]).sum()) < FEWEST:
            return None
        if len(learned) > MOST:
            learned = np.sort(np.random.default_rng(seed).choice(learned, MOST, replace=False))
        vectors = encode(list(log.text[learned]))
        if vectors is None:
            return None
        values = log.value[learned].astype(np.float64)
        ridge, found = Ridge.fit(vectors, values[:, None], np.ones(len(learned), bool), seed)
        disliked = 1 - float(log.positive[both].mean())
        cut = float(np.quantile(found[:, 0], disliked))
        empty = np.zeros(0, np.uint64), np.zeros(0, np.float32)
        from scipy.stats import spearmanr  # half a second, which no list needs

        close = float(spearmanr(values, found[:, 0]).statistic)
        return cls(ridge, cut, *empty, close).knowing(log, encode)

    def knowing(self, log: Log, encode: Encode) -> Sentiment:
        """With the predictions of a log's rows that need one."""
        todo = to_read(log)
        return self if log.text is None else self.with_texts(log.text[todo], encode)

    def of_texts(self, log: Log) -> Sentiment:
        """With the predictions of a log's rows alone."""
        texts = np.zeros(0, object) if log.text is None else log.text[to_read(log)]
        there = np.isin(self.known, _hashes(texts))
        return replace(self, known=self.known[there], value=self.value[there])

    def with_texts(self, texts: np.ndarray, encode: Encode) -> Sentiment:
        """With the predictions of (n,) texts."""
        hashes, first = np.unique(_hashes(texts), return_index=True)
        new = ~np.isin(hashes, self.known)
        vectors = encode([str(text) for text in texts[first[new]]]) if new.any() else None
        if vectors is None:
            return self
        known = np.r_[self.known, hashes[new]]
        value = np.r_[self.value, self.ridge.predict(vectors)[:, 0].astype(np.float32)]
        order = np.argsort(known)
        return replace(self, known=known[order], value=value[order])

    def liked(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n,) bool which texts were predicted, (n,) bool which of them read as liked)."""
        if not len(self.known) or not len(texts):
            return np.zeros(len(texts), bool), np.zeros(len(texts), bool)
        hashes = _hashes(texts)
        place = np.minimum(np.searchsorted(self.known, hashes), len(self.known) - 1)
        return self.known[place] == hashes, self.value[place] >= self.cut

    def felt(self, log: Log) -> Felt:
        """`log` with rows liked and disliked as they read; what is not known counts as before."""
        liked, todo = log.positive.copy(), to_read(log)
        if log.text is not None and len(todo):
            there, read = self.liked(log.text[todo])
            liked[todo[there]] = read[there]
        return Felt(log, replace(log, liked=liked))

    def arrays(self) -> Arrays:
        figures = {"cut": np.array([self.cut]), "spearman": np.array([self.spearman])}
        return self.ridge.arrays() | {"known": self.known, "value": self.value} | figures

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether the model in a folder has one: then texts of its rows are wanted."""
        try:
            with safe_open(folder / PARTS, "numpy") as arrays:
                return "sentiment.cut" in arrays.keys()  # noqa: SIM118  (no mapping)
        except (OSError, SafetensorError):
            return False  # whoever loads the model says why

    @classmethod
    def of(cls, arrays: Arrays) -> Sentiment | None:
        """None of a model without."""
        if "cut" not in arrays:
            return None
        cut, spearman = (float(arrays[name][0]) for name in ("cut", "spearman"))
        return cls(Ridge.of(arrays), cut, arrays["known"], arrays["value"], spearman)


def to_read(log: Log) -> np.ndarray:
    """Rows with a text and no value, whose event is a success: what they would be, their texts say."""
    if log.text is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero((log.text != "") & ~np.isfinite(log.value) & log.positive)


def _by_event(log: Log) -> np.ndarray:
    """(rows,) bool: a value that is enough for others, and no success: the event says so, not the value."""
    least = np.min(log.value, where=log.positive & np.isfinite(log.value), initial=np.inf)
    disliked: np.ndarray = ~log.positive & (log.value >= least)
    return disliked


def _hashes(texts: np.ndarray) -> np.ndarray:
    import pandas as pd

    hashes: np.ndarray = pd.util.hash_array(texts, categorize=True)
    return hashes
