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

from pipeline.data.histories import Log
from pipeline.models.networks import SequenceTower, one_thread
from pipeline.models.sequence_task import SequenceTask
from pipeline.models.training import Batches, Run, fit
from pipeline.parts.asked import Asked
from pipeline.parts.binding import Arrays
from pipeline.parts.pairs import Columns, Retrieved, best_products, product, standardised

EPOCHS, BATCH = 8, 32
MORE_EPOCHS = 3  # on all of train, from the weights fitted on its inner rows


@dataclass(frozen=True)
class Sequence:
    tower: SequenceTower

    @classmethod
    def fit(
        cls,
        run: Run,
        log: Log,
        rows: np.ndarray,
        text: np.ndarray | None,
        items: int,
        phase: str,
        before: SequenceTower | None = None,
    ) -> Sequence:
        """On the rows of a mask; `before`: a tower whose weights it goes on from, for fewer epochs."""
        known = np.zeros(items, bool)
        known[log.item[rows]] = True
        torch.manual_seed(run.seed)
        tower, epochs = SequenceTower(known, text, run.settings.user_tower), EPOCHS
        if before is not None and before.kind == tower.kind:
            epochs = MORE_EPOCHS
            weights = {key: value for key, value in before.state_dict().items() if key != "known"}
            tower.load_state_dict(weights, strict=False)
        torch.manual_seed(run.seed)
        task = SequenceTask(run, phase, tower, log, rows, None)
        if len(task.segments):
            with one_thread():
                fit(run, task, Batches(run, phase, len(task.segments), BATCH), epochs, validate=False)
        return cls(tower.cpu().eval())

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

        return asked.once(self, users)

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        known = self.tower.known[:-1, 0].numpy() > 0
        return {"sequence": best_products(self._users(asked), self._vectors[1], n, known)}

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        if not bool(self.tower.known.any()):  # fitted on nothing: no item is likelier than another
            return {
                "sequence": np.zeros(items.shape, np.float32),
                "sequence_z": np.zeros(items.shape, np.float32),
            }
        scores = product(self._users(asked), self._vectors[1], items)
        return {"sequence": scores, "sequence_z": standardised(scores, items, asked.width)}
