"""The networks: a text space with its user tower, and a sequence tower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.histories import Points
from pipeline.models.towers import READERS, dropped


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
    """A reader (pipeline/models/towers.py) over a user's items in time order, each its own vector plus its
    text's.

    An item's vector is an embedding of its id plus a learned small multiple of its projected text; dropping
    whole id embeddings in training makes the text carry items that were seen rarely, or never. An item never
    in train has no id part.
    """

    MOST_ROWS = 100  # of a history that are read
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

    def items(self) -> Tensor:
        """(items + 1, size) vectors; the last, of the padding, is zero but for nothing."""
        vectors = self.id_embedding.weight * self.known
        if self.project is not None:
            if self.training:
                vectors = vectors * (torch.rand(len(vectors), 1, device=vectors.device) > 0.1)
            vectors = vectors + self.text_scale * self.project(self.text)
        return vectors

    def forward(self, item: Tensor, liked: Tensor, vectors: Tensor) -> Tensor:
        """(batch, length) items and 0/1 -> (batch, length + 1, size): the user vector before each place."""
        x = vectors[item] + self.liked(liked)
        states = self.reader(dropped(x, 0.2, self.training))
        return torch.cat([self.start.expand(len(x), 1, -1), states], dim=1)

    @torch.no_grad()
    def users(self, points: Points, vectors: Tensor) -> Tensor:
        """(points, size) user vectors of the histories, read from `vectors`, which items() gives."""
        device = self.bias.device
        start = np.maximum(points.start, points.stop - self.MOST_ROWS)
        rows = start[:, None] + np.arange(max(1, int((points.stop - start).max(initial=0))))
        inside = rows < points.stop[:, None]
        rows = np.where(inside, rows, 0)
        item = torch.from_numpy(np.where(inside, points.log.item[rows], self.padding)).long().to(device)
        liked = torch.from_numpy((points.log.positive[rows] & inside).astype(np.int64)).to(device)
        with one_thread():
            states = self(item, liked, vectors)
        return states[
            torch.arange(len(points), device=device), torch.from_numpy(points.stop - start).to(device)
        ]
