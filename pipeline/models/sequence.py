"""What comes next: a tower that reads a user's items in time order.

An item's vector is an embedding of its id plus a learned small multiple of its projected text; dropping
whole id embeddings in training makes the text carry items that were seen rarely, or never. Retriever
`sequence`; column `sequence` (standardised: `sequence_z`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.data.histories import Points
from pipeline.models.asked import Asked
from pipeline.models.binding import Arrays, of_prefix
from pipeline.models.nearest import Nearest
from pipeline.models.pairs import Columns, Retrieved, product, standardised
from pipeline.models.tower import MOST_ROWS, READERS


@dataclass(frozen=True)
class Sequence:
    """The weights of a trained pipeline.training.networks.SequenceTower, bound to a catalogue."""

    kind: str  # of reader
    weights: Arrays  # those of items have one row more than the catalogue: of the padding
    text: np.ndarray | None  # (items, width); None: ids alone

    def arrays(self) -> Arrays:
        """What of it is saved; texts are the text part's."""
        return self.weights

    @classmethod
    def bound(
        cls, arrays: Arrays, place: np.ndarray, items: int, text: np.ndarray | None, kind: str
    ) -> Sequence:
        """`place`: (saved items,) their number in a catalogue of so many `items`; `text`: its vectors."""
        there = (place >= 0) & (arrays["known"][:-1, 0] > 0)
        weights = dict(arrays)
        for name in ("id_embedding.weight", "bias", "known"):
            saved = arrays[name]
            rows = np.zeros((items + 1, *saved.shape[1:]), np.float32)
            rows[place[there]] = saved[:-1][there]
            rows[items] = saved[-1]
            weights[name] = rows
        return cls(kind, weights, text)

    @cached_property
    def known(self) -> np.ndarray:
        """(items,) bool: in train."""
        return self.weights["known"][:-1, 0] > 0

    @cached_property
    def _vectors(self) -> np.ndarray:
        """(items, size + 1) vectors with the bias behind: what users are multiplied by."""
        vectors = self.weights["id_embedding.weight"][:-1] * self.weights["known"][:-1]
        if self.text is not None:
            vectors += self.weights["text_scale"] * (self.text @ self.weights["project.weight"].T)
        return np.concatenate([vectors, self.weights["bias"][:-1, None]], axis=1).astype(np.float32)

    def users(self, points: Points) -> np.ndarray:
        """(points, size) float32 vectors of the histories."""
        start = np.maximum(points.start, points.stop - MOST_ROWS)
        length = points.stop - start
        found = np.broadcast_to(self.weights["start"], (len(points), len(self.weights["start"]))).copy()
        if not (some := np.flatnonzero(length)).size:
            return found
        rows = start[some, None] + np.arange(int(length.max()))
        inside = rows < points.stop[some, None]
        rows = np.where(inside, rows, 0)
        x = self._vectors[points.log.item[rows], :-1]
        x += self.weights["liked.weight"][points.log.positive[rows].astype(np.intp)]
        x[~inside] = 0
        found[some] = READERS[self.kind](of_prefix("reader", self.weights), x, length[some])
        return found

    def _users(self, asked: Asked) -> np.ndarray:
        """(points, size + 1) float32; the last place, 1, meets the items' bias."""

        def users() -> np.ndarray:
            read = self.users(asked.points)
            return np.concatenate([read, np.ones((len(read), 1), np.float32)], axis=1)

        return asked.once(self, "users", users)

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        return {"sequence": self.nearest.best(self._users(asked), n)}

    @cached_property
    def nearest(self) -> Nearest:
        return Nearest(self._vectors, self.known)

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        if not bool(self.known.any()):  # fitted on nothing: no item is likelier than another
            return {
                "sequence": np.zeros(items.shape, np.float32),
                "sequence_z": np.zeros(items.shape, np.float32),
            }
        scores = product(self._users(asked), self._vectors, items)
        return {"sequence": scores, "sequence_z": standardised(scores, items, asked.width)}
