"""Words that a typed text shares with items' texts: BM25 (Robertson and Walker 1994, as Lucene), by bm25s.

A language model finds what means the same, this what says the same: names, places, rare words.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import bm25s
import numpy as np

logging.getLogger("bm25s").setLevel(logging.WARNING)  # which it sets to DEBUG when it is imported
COMMON = 0.1  # a word in more texts than this share is no reason
# What hyphens join is one word: of "Film-Noir" a question for a film says nothing.
PATTERN, SINGLE = r"(?u)\b\w\w+(?:-\w+)*\b|\b\w(?:-\w+)+\b", r"(?u)\b\w\w+\b"


@dataclass(frozen=True)
class Words:
    index: bm25s.BM25 | None  # None: no text has a word
    texts: int

    @classmethod
    def of(cls, texts: list[str]) -> Words:
        # Where texts are titles, 'that' is as rare as a name, and a list of titles with it is no answer.
        # Words of other languages count by their rarity alone.
        tokens = bm25s.tokenize(texts, stopwords="en_plus", token_pattern=PATTERN, show_progress=False)
        if not tokens.vocab:
            return cls(None, len(texts))
        index = bm25s.BM25(method="lucene")
        index.index(tokens, show_progress=False)
        return cls(index, len(texts))

    def typed(self, text: str) -> Typed:
        """Its words; of two in a row also what a hyphen would make of them, and of a joined one that no text
        has its parts."""
        known = {} if self.index is None else self.index.vocab_dict
        whole, single = _spoken(text, PATTERN), _spoken(text, SINGLE)
        joined = {f"{one}-{next_one}" for one, next_one in pairwise(single)}.difference(whole)
        parts = [part for word in whole if word not in known for part in word.split("-")]
        return Typed(self, [word for word in [*whole, *sorted(joined), *parts] if word in known])

    def column(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        """The items whose texts have a known word, ascending, and what it counts there: float32."""
        assert self.index is not None
        scores, number = self.index.scores, self.index.vocab_dict[word]
        part = slice(*scores["indptr"][number : number + 2])
        return scores["indices"][part], scores["data"][part]


def _spoken(text: str, pattern: str) -> list[str]:
    found: list[str] = bm25s.tokenize(
        [text], stopwords="en_plus", token_pattern=pattern, return_ids=False, show_progress=False
    )[0]
    return found


@dataclass(frozen=True)
class Typed:
    """A text that is asked about."""

    words: Words
    known: list[str]  # its words that some item's text has, as often as it says them

    @cached_property
    def columns(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {word: self.words.column(word) for word in self.known}

    def closeness(self) -> np.ndarray:
        """(items,) float32 BM25 as a share of the most that a text could have; 0: no shared word."""
        total, most = np.zeros(self.words.texts, np.float32), 0.0
        for word in self.known:
            items, counts = self.columns[word]
            total[items] += counts
            most += np.log(1 + (len(total) - len(items) + 0.5) / (len(items) + 0.5))
        return total / np.float32(most) if most else total

    def shared(self, item: int, most: int = 4) -> list[str]:
        """The words that bring the item closest to the text, the strongest first; none that is common."""
        counts = {}
        for word, (items, parts) in self.columns.items():
            place = np.searchsorted(items, item)
            rare = len(items) <= max(1.0, COMMON * self.words.texts)
            if rare and place < len(items) and items[place] == item:
                counts[word] = float(parts[place]) * self.known.count(word)
        return sorted(counts, key=lambda word: -counts[word])[:most]
