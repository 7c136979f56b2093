"""How a user's items in time order become user vectors: what `finetune.user_tower` chooses from.

A reader maps (batch, length, size) item vectors to (batch, length, size) states; the state at a place has
read that place and all before it, none behind. Padding stands behind, so it changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.tower import HEADS, MOST_ROWS

MOST_PLACES = MOST_ROWS  # that a transformer tells apart


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout; a comparison of uniforms is several times faster on a CPU than torch's bernoulli."""
    return x * (torch.rand_like(x) > share) / (1 - share) if training else x


class Mean(nn.Module):
    """The plain mean U = 1/n sum F(x_i), then a linear map that starts as the identity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.out = nn.Linear(size, size)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self, newer: Tensor) -> Tensor:
        """(length, length) items that came since -> weight."""
        return torch.ones_like(newer)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        weights = self.weights(place[:, None] - place).tril()
        return self.out((weights / weights.sum(dim=1, keepdim=True)) @ x)


class Recency(Mean):
    """The mean weighted by 2^(-newer items / half-life), whose half-life is learned."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.log2_half_life = nn.Parameter(torch.tensor(2.3))  # five items

    def weights(self, newer: Tensor) -> Tensor:
        return torch.exp2(-newer.clamp(min=0) / self.log2_half_life.exp2())


class Gru(nn.Module):
    """A GRU (Hidasi et al. 2016)."""

    HIDDEN = 96

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(size, self.HIDDEN, batch_first=True)
        self.out = nn.Linear(self.HIDDEN, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0])


class Transformer(nn.Module):
    """Two blocks like SASRec's (Kang & McAuley 2018); a place is told by a bias for how many came since.

    Attention is two plain products: torch's fused kernels were slower backwards on CPUs.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(size) for _ in range(2)])
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


class Block(nn.Module):
    DROPOUT = 0.2

    def __init__(self, size: int) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.join = nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
        self.since = nn.Parameter(torch.zeros(HEADS, MOST_PLACES))  # bias by items that came since

    def forward(self, x: Tensor) -> Tensor:
        x = x + dropped(self.join(self.attention(self.before_attention(x))), self.DROPOUT, self.training)
        return x + dropped(self.feed(self.before_feed(x)), self.DROPOUT, self.training)

    def attention(self, x: Tensor) -> Tensor:
        """(batch, length, size) -> the same, each place from itself and those before."""
        batch, length, size = x.shape
        parts = self.query_key_value(x).view(batch, length, 3, HEADS, size // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4).contiguous()  # each (batch, heads, length, part)
        place = torch.arange(length, device=x.device)
        since = place[:, None] - place
        bias = self.since[:, since.clamp(0, MOST_PLACES - 1)].masked_fill(since < 0, -torch.inf)
        weights = F.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + bias, dim=-1)
        return (weights @ value).transpose(1, 2).reshape(batch, length, size)


READERS: dict[str, type[nn.Module]] = {
    "mean": Mean,
    "recency": Recency,
    "gru": Gru,
    "transformer": Transformer,
}
