"""The parts of a model over one catalogue: together they retrieve candidates and describe pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue, Points
from pipeline.models.asked import Asked
from pipeline.models.candidates import union
from pipeline.models.collaborative import RETRIEVING, Collaborative
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.nearest import Nearest
from pipeline.models.pairs import Columns, Retrieved, history_matrix, lookup
from pipeline.models.sentiment import Felt
from pipeline.models.sequence import Sequence
from pipeline.models.text import Text

CHUNK = 256  # points whose features are in memory at a time
EACH = 50  # items that a retriever brings


@dataclass(frozen=True)
class Parts:
    """Fitted on some rows, bound to a catalogue and to the live state of a log."""

    catalogue: Catalogue
    collaborative: Collaborative
    sequence: Sequence | None  # None: the light preset
    text: Text | None  # None: no item has a text, or the ablation without
    kinds: Kinds
    living: Living
    most: int = 500  # candidates of a point
    felt: Felt | None = None  # the log that the model is asked about, if it reads what users wrote
    lives: bool = True  # whether others' rows since the fit count; not in a model with a budget of privacy

    def ask(self, points: Points, size: int = CHUNK) -> Iterator[Asked]:
        for chunk in (points if self.felt is None else self.felt.points(points)).chunks(size):
            yield Asked(chunk, len(self.catalogue))

    def retrieve(self, asked: Asked) -> Retrieved:
        lists: Retrieved = {}
        # Which a challenger shares with its ablations.
        for part in (self.collaborative, self.living) if self.lives else (self.collaborative,):
            lists |= asked.once(part, "lists", partial(part.retrieve, asked, EACH))
        if not self.lives:
            lists["train_count"] = self.collaborative.most_taken(len(asked.points), EACH)
        if self.sequence is not None:
            lists |= self.sequence.retrieve(asked, EACH)
        if self.text is not None:
            lists |= self.text.retrieve(asked, EACH, self._ials(asked), self.collaborative.cold)
        for modality in self.kinds.modalities:
            lists |= modality.retrieve(asked, EACH)
        return lists

    @property
    def searches(self) -> list[Nearest]:
        """Every search among vectors."""
        found = [self.collaborative.nearest, *(modality.nearest for modality in self.kinds.modalities)]
        if self.sequence is not None:
            found.append(self.sequence.nearest)
        if self.text is not None:
            found += [self.text.nearest, self.text.nearest_of_cold(self.collaborative.cold)]
        return found

    def candidates(self, asked: Asked, retrieved: Retrieved | None = None) -> np.ndarray:
        """(points, at most `most`) int32 items, -1 behind. `retrieved`: what `retrieve` gave, if known."""
        return union(retrieved or self.retrieve(asked), asked.points, self.catalogue, self.most)

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        """Every feature by name."""
        ials = self._ials(asked)
        columns = self.collaborative.columns(asked, items) | self.kinds.columns(asked, items)
        if self.lives:
            columns |= self.living.columns(asked, items, ials)
        rows = columns["live_count" if self.lives else "train_count"]
        if self.sequence is not None:
            columns |= self.sequence.columns(asked, items)
        if self.text is not None:
            columns |= self.text.columns(asked, items, ials, self.collaborative.cold, rows)
        for modality in self.kinds.modalities:
            columns |= modality.columns(asked, items, rows)
        return columns | _of_history(asked, items)

    def _ials(self, asked: Asked) -> np.ndarray:
        return self.collaborative.users(asked)[RETRIEVING]


def _of_history(asked: Asked, items: np.ndarray) -> Columns:
    """How long the history is; where repeats count, how often and how long ago the item was in it."""
    points = asked.points
    of_history = {"history_length": np.log1p(points.lengths), "history_empty": points.lengths == 0}
    columns = {
        name: np.broadcast_to(values.astype(np.float32)[:, None], items.shape)
        for name, values in of_history.items()
    }
    if points.log.repeats:
        times = lookup(history_matrix(points, asked.items), items)
        columns["repeats"] = np.log1p(times)
        columns["repeat_age"] = np.where(times > 0, _days_since(asked, items), 0).astype(np.float32)
    return columns


def _days_since(asked: Asked, items: np.ndarray) -> np.ndarray:
    """log1p days since the newest row of the item in the history."""
    import scipy.sparse as sp

    points = asked.points
    point, row = points.rows()  # oldest first
    key = point.astype(np.int64) * asked.items + points.log.item[row]
    _, back = np.unique(key[::-1], return_index=True)
    newest = len(key) - 1 - back
    days = np.log1p((points.time[point[newest]] - points.log.time[row[newest]]) / MICROSECONDS_A_DAY)
    cells = (days.astype(np.float32), (point[newest], points.log.item[row[newest]]))
    return lookup(sp.csr_matrix(cells, shape=(len(points), asked.items)), items)


def stacked(columns: Columns, names: list[str]) -> np.ndarray:
    """(points, candidates, features) float32."""
    return np.stack([columns[name] for name in names], axis=-1).astype(np.float32, copy=False)
