"""The networks: a text space with its user tower, a sequence tower, the MLP scorer that fuses all."""

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

    @torch.no_grad()
    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32 log-probabilities over the items known from train; others on that scale."""
        vectors = self.items()
        logits = self.users(points, vectors) @ vectors[:-1].T + self.bias[:-1]
        if not self.known.any():
            return np.zeros(logits.shape, np.float32)  # fitted on nothing: no item is likelier than another
        masked = logits.masked_fill(self.known[:-1, 0] == 0, -torch.inf)
        return (logits - masked.logsumexp(dim=1, keepdim=True)).cpu().numpy()


class FusionScorer(nn.Module):
    """Standardised features of (point, item) -> one score: a linear part plus an MLP's correction of it."""

    CELLS = 16_384  # whose hidden layer is in memory at a time
    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.linear = nn.Linear(features, 1, bias=False)
        last = nn.Linear(hidden // 2, 1, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            last,
        )
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(last.weight)

    def standardise(self, sample: Tensor) -> None:
        """Take mean and deviation from a (rows, features) sample."""
        self.mean.copy_(sample.mean(0))
        self.deviation.copy_(sample.std(0, correction=0) + 1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """(..., features) -> (...)."""
        x = ((features - self.mean) / self.deviation).clamp(-8, 8)
        return (self.linear(x) + self.mlp(x)).squeeze(-1)

    @torch.no_grad()
    def score(self, columns: Tensor) -> Tensor:
        """The same for whole columns, feature by feature: (features, cells) -> (cells,).

        A feature is computed for all cells at a time, so this is how features lie in memory; to lay them out
        cell by cell first would cost more than the network.
        """
        first, second, last = (layer for layer in self.mlp if isinstance(layer, nn.Linear))
        out = torch.empty(columns.shape[1], dtype=columns.dtype, device=columns.device)
        for begin in range(0, columns.shape[1], self.CELLS):
            cells = slice(begin, begin + self.CELLS)
            x = ((columns[:, cells] - self.mean[:, None]) / self.deviation[:, None]).clamp_(-8, 8)
            hidden = F.gelu(torch.addmm(first.bias[:, None], first.weight, x))
            hidden = F.gelu(torch.addmm(second.bias[:, None], second.weight, hidden))
            out[cells] = (self.linear.weight @ x + last.weight @ hidden).squeeze(0)
        return out
