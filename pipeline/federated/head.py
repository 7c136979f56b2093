"""A head over frozen texts, learned by silos together: federated averaging (McMahan et al. 2017).

Items' vectors are the encoder's, centred; the head adds a linear correction: v + v W. A user is the
recency-weighted mean of the history's, an item's logit its cosine with that over TEMPERATURE, and what is
learned is which item of all comes next. In each round every silo takes the server's W, goes through at most
MOST_POINTS of its own points in batches, and sends its W back; the server's next is their mean, weighted by
the points of each. One silo with all rows is the pooled fit: as many rounds of as many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.histories import Points
from pipeline.federated.wire import Message, Server

TEMPERATURE, LEARNING_RATE, MOMENTUM, BATCH, ROUNDS = 0.1, 0.05, 0.9, 64, 8
HALF_LIFE = 5.0  # of a history, in its items
MOST_POINTS = 4_000  # of a silo and round, another choice in each


@dataclass(frozen=True)
class TextHead:
    """A silo's points: a user's history before each success of theirs."""

    points: Points
    vectors: np.ndarray  # (items, width) centred unit vectors; known to all silos
    seed: int

    @property
    def users(self) -> int:
        return len(np.unique(self.points.user))

    def answer(self, what: str, message: Message) -> Message:
        torch.set_num_threads(1)  # silos are processes of one machine here
        generator = np.random.default_rng([self.seed, int(message["round"])])
        rows = generator.permutation(len(self.points))[:MOST_POINTS]
        weights = torch.from_numpy(message["weights"]).float().requires_grad_()
        moved = torch.zeros_like(weights)
        rate = LEARNING_RATE * float(message["rate"])
        vectors = torch.from_numpy(self.vectors)
        for begin in range(0, len(rows), BATCH):
            batch = self.points[rows[begin : begin + BATCH]]
            loss = F.cross_entropy(
                logits(batch, vectors, weights) / TEMPERATURE, torch.from_numpy(batch.target).long()
            )
            moved = MOMENTUM * moved + torch.autograd.grad(loss, weights)[0]
            weights = (weights - rate * moved).detach().requires_grad_()
        return {"weights": weights.detach().numpy(), "points": np.asarray(len(rows))}


def logits(points: Points, vectors: Tensor, weights: Tensor) -> Tensor:
    """(points, items) cosines of users and items."""
    items = F.normalize(vectors + vectors @ weights, dim=-1)
    history = torch.from_numpy(points.weights(len(vectors), HALF_LIFE).toarray())
    return F.normalize(history @ items, dim=-1) @ items.T


def averaged(server: Server, width: int, rounds: int = ROUNDS) -> np.ndarray:
    """(width, width) W after so many rounds, from zero."""
    weights = np.zeros((width, width), np.float32)
    for number in range(rounds):
        answers = server.ask("head", weights=weights, round=number, rate=1 - number / rounds)
        counts = np.array([float(answer["points"]) for answer in answers])
        parts = [
            answer["weights"] * share for answer, share in zip(answers, counts / counts.sum(), strict=True)
        ]
        weights = np.sum(parts, axis=0, dtype=np.float32)
    return weights
