"""Token ids of many texts, end to end, and groups of like length that go through an encoder together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TOKENS_A_BUCKET = 1024
"""Tokens that go through the model at once, padding included; bounds memory, not results. What a layer makes
of so many stays in a processor's cache: 4,096 were a sixth slower."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, end to end: text i is ids[offsets[i]:offsets[i + 1]]."""

    ids: np.ndarray  # (tokens,) int32
    offsets: np.ndarray  # (texts + 1,) int64
    unknown_share: float  # of the tokens that are no special ones

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def buckets(self, texts: np.ndarray, size: int = TOKENS_A_BUCKET) -> Iterator[np.ndarray]:
        """Positions in `texts`, in groups of like length that fit `size` tokens padded to their longest."""
        lengths = self.lengths[texts]
        order = np.argsort(lengths, kind="stable")
        begin = 0
        while begin < len(order):
            # Lengths ascend, so the group's cost is count x its last length; a text has a token at least.
            longest = lengths[order[begin : begin + size]]
            cost = np.arange(1, len(longest) + 1) * longest
            count = max(1, int(np.searchsorted(cost, size, side="right")))
            yield order[begin : begin + count]
            begin += count

    def padded(self, texts: np.ndarray, pad: int = 0) -> tuple[Tensor, Tensor]:
        """(texts, longest) token ids and attention mask, both int64."""
        lengths = self.lengths[texts]
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        ids[mask] = self.ids[flat(self.offsets[texts], lengths)]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def flat(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, ... of every run, end to end."""
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + offset
