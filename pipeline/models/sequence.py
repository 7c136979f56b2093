"""What comes next: a tower that reads a user's items in time order.

An item's vector is an embedding of its id plus a learned small multiple of its projected text; dropping
whole id embeddings in training makes the text carry items that were seen rarely, or never. Retriever
`sequence`; column `sequence` (standardised: `sequence_z`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.models.asked import Asked
from pipeline.models.binding import Arrays
from pipeline.models.nearest import Nearest
from pipeline.models.networks import SequenceTower
from pipeline.models.pairs import Columns, Retrieved, product, standardised


@dataclass(frozen=True)
class Sequence:
    tower: SequenceTower

    def arrays(self) -> Arrays:
        """What of it is saved; texts are the text part's."""
        return {name: value.numpy() for name, value in self.tower.state_dict().items()}

    @classmethod
    def bound(
        cls, arrays: Arrays, place: np.ndarray, items: int, text: np.ndarray | None, kind: str
    ) -> Sequence:
        """`place`: (saved items,) their number in a catalogue of so many `items`; `text`: its vectors."""
        known, there = np.zeros(items, bool), place >= 0
        known[place[there]] = arrays["known"][:-1, 0][there] > 0
        tower = SequenceTower(known, text, kind)
        state = {name: torch.from_numpy(value) for name, value in arrays.items() if name != "known"}
        for name in ("id_embedding.weight", "bias"):
            rows = tower.state_dict()[name].clone()
            rows[place[there]] = state[name][:-1][there]
            rows[items] = state[name][-1]
            rows[:items][~known] = 0
            state[name] = rows
        tower.load_state_dict(state, strict=False)
        return cls(tower.eval())

    @cached_property
    def _vectors(self) -> tuple[Tensor, np.ndarray]:
        """(items + 1, size) vectors, and (items, size + 1) with the bias: what users are multiplied by."""
        with torch.no_grad():
            vectors = self.tower.items()
            wide = torch.cat([vectors[:-1], self.tower.bias[:-1, None]], dim=1).numpy()
        return vectors, np.ascontiguousarray(wide)

    def _users(self, asked: Asked) -> np.ndarray:
        """(points, size + 1) float32; the last place, 1, meets the items' bias."""

        def users() -> np.ndarray:
            read = self.tower.users(asked.points, self._vectors[0]).numpy()
            return np.concatenate([read, np.ones((len(read), 1), np.float32)], axis=1)

        return asked.once(self, "users", users)

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        return {"sequence": self._nearest.best(self._users(asked), n)}

    @cached_property
    def _nearest(self) -> Nearest:
        return Nearest(self._vectors[1], self.tower.known[:-1, 0].numpy() > 0)

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        if not bool(self.tower.known.any()):  # fitted on nothing: no item is likelier than another
            return {
                "sequence": np.zeros(items.shape, np.float32),
                "sequence_z": np.zeros(items.shape, np.float32),
            }
        scores = product(self._users(asked), self._vectors[1], items)
        return {"sequence": scores, "sequence_z": standardised(scores, items, asked.width)}
