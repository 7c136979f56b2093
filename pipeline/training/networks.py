"""What is trained with PyTorch: a text space with its user tower, a sequence tower, and the scorer.

Lists are made of the last two by pipeline/models/tower.py and scorer.py, with NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.binding import Arrays
from pipeline.models.scorer import CLIP, Scorer
from pipeline.models.sequence import Sequence
from pipeline.training.readers import READERS, dropped


@contextmanager
def one_thread() -> Iterator[None]:
    """A recurrent step is a small product: threads that wait for each other at every one cost more than they
    bring, and many times more where something else uses a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class TextSpace(nn.Module):
    """Users and items in the encoder's space: a user is the recency-weighted mean of the history's vectors.

    With weights w_i = 2^(-newer_i / half_life) (infinite: the plain mean U = 1/n sum F(x_i)), the logit of an
    item is cosine(U, F(x)) / temperature, after the mean vector of all items was subtracted from each F(x).
    """

    def __init__(self, temperature: float = 0.15) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(temperature))))

    def forward(self, history: Tensor, vectors: Tensor, centre: Tensor) -> Tensor:
        """(points, items) sparse or dense weights, (items, width) vectors -> (points, items) logits."""
        centred = F.normalize(vectors - centre, dim=-1)
        user = F.normalize(history @ centred, dim=-1)
        return user @ centred.T / self.log_temperature.exp()


class SequenceTower(nn.Module):
    """A reader (pipeline/training/readers.py) over a user's items in time order, each its own vector plus its
    text's.

    An item's vector is an embedding of its id plus a learned small multiple of its projected text; dropping
    whole id embeddings in training makes the text carry items that were seen rarely, or never. An item never
    in train has no id part.
    """

    known: Tensor
    text: Tensor

    def __init__(self, known: np.ndarray, text: np.ndarray | None, kind: str = "gru", size: int = 64) -> None:
        """`known`: (items,) bool, in train; `text`: (items, width) or None: ids alone; `kind`: of reader."""
        super().__init__()
        self.kind = kind
        items = len(known)
        self.id_embedding = nn.Embedding(items + 1, size, padding_idx=items)
        nn.init.normal_(self.id_embedding.weight, std=0.02)
        self.register_buffer("known", torch.from_numpy(np.r_[known, False]).unsqueeze(1).float())
        self.bias = nn.Parameter(torch.zeros(items + 1))
        self.liked = nn.Embedding(2, size)
        nn.init.zeros_(self.liked.weight)
        self.reader = READERS[kind](size)
        self.start = nn.Parameter(torch.zeros(size))  # the user vector of an empty history
        if text is None:
            self.project: nn.Linear | None = None
        else:
            self.project = nn.Linear(text.shape[1], size, bias=False)
            nn.init.normal_(self.project.weight, std=3 / text.shape[1] ** 0.5)
            self.text_scale = nn.Parameter(torch.tensor(0.05))
            padded = np.concatenate([text, np.zeros((1, text.shape[1]), np.float32)])
            self.register_buffer("text", torch.from_numpy(padded), persistent=False)

    @property
    def padding(self) -> int:
        return self.id_embedding.num_embeddings - 1

    def items(self, numbers: Tensor | None = None) -> Tensor:
        """(items + 1, size) vectors, the last of padding; or (n, size), of these n `numbers` alone."""
        chosen = slice(None) if numbers is None else numbers
        vectors = self.id_embedding.weight[chosen] * self.known[chosen]
        if self.project is not None:
            if self.training:  # drawn for all: what an item draws does not depend on the others asked for
                vectors = vectors * (torch.rand(len(self.known), 1, device=vectors.device) > 0.1)[chosen]
            vectors = vectors + self.text_scale * self.project(self.text[chosen])
        return vectors

    def forward(self, item: Tensor, liked: Tensor, vectors: Tensor) -> Tensor:
        """(batch, length) items and 0/1 -> (batch, length + 1, size): the user vector before each place."""
        x = vectors[item] + self.liked(liked)
        states = self.reader(dropped(x, 0.2, self.training))
        return torch.cat([self.start.expand(len(x), 1, -1), states], dim=1)

    def sequence(self) -> Sequence:
        """The weights as they are now, over the same catalogue."""
        text = None if self.project is None else self.text[:-1].cpu().numpy()
        return Sequence(self.kind, arrays_of(self), text)


class ScorerNetwork(nn.Module):
    """(..., features) -> (...) scores: a linear part, and an MLP that corrects it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        last = nn.Linear(hidden // 2, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden // 2), nn.ReLU(), last
        )

    def standardise(self, features: np.ndarray, there: np.ndarray) -> None:
        """Mean and deviation of the cells that are there; a constant feature stays as it is."""
        cells = torch.from_numpy(features[there]).float()
        self.mean.copy_(cells.mean(dim=0))
        deviation = cells.std(dim=0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-4, deviation, 1.0))

    def inputs(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-CLIP, CLIP)

    def forward(self, features: Tensor) -> Tensor:
        x = self.inputs(features)
        return (self.linear(x) + self.mlp(x)).squeeze(-1)

    def scorer(self) -> Scorer:
        """The weights as they are now."""
        return Scorer(arrays_of(self))


def arrays_of(network: nn.Module) -> Arrays:
    """Copies of the weights: what is trained on must not change what was made of it."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}
