"""What users of several silos took together, from sums alone: as if it had been fitted on all of their rows.

EASE needs of the rows X'X and how often each item was taken, which are sums over users, so silos' sums add up
to those of all (each user in one silo). With a budget they are the sums of pipeline/models/private.py, and
each silo adds its share of the noise, whose variances add up to what the budget asks for: nobody, not even
who adds up, sees sums without noise, if all silos keep to it; of n silos that do not, the budget is less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.federated.wire import Message, Server
from pipeline.models.baselines import ItemMatrix, ease_of
from pipeline.models.private import (
    Budget,
    Released,
    axes_of,
    counts,
    no_facts,
    pairs,
    surely_taken,
    with_noise,
)


@dataclass(frozen=True)
class Taken:
    """A silo's users."""

    x: sp.csr_matrix  # (users, items) float64, 1 for what each took

    @property
    def users(self) -> int:
        return int(self.x.shape[0])

    def answer(self, what: str, message: Message) -> Message:
        plain, noise = bool(message["plain"]), float(message["noise"])
        if what == "counts":
            sums = np.asarray(self.x.sum(axis=0)).ravel() if plain else counts(self.x)
        elif what == "pairs":
            chosen = sp.csr_matrix(self.x[:, message["kept"]])
            sums = (chosen.T @ chosen).toarray() if plain else pairs(chosen, message["axes"])
        else:
            raise ValueError(f"not asked of a silo: {what}")
        return {what: with_noise(sums, noise, np.random.default_rng())}


def ease(server: Server, regularisation: float, most: int = 8000) -> ItemMatrix:
    """Equal to `baselines.ease` of all silos' rows, but for rounding."""
    total = _sum(server, "counts", plain=True, noise=0.0)
    order = np.argsort(-total, kind="stable")[:most]
    kept = np.sort(order[total[order] > 0]).astype(np.int32)
    gram = _sum(server, "pairs", kept=kept, plain=True, noise=0.0)
    return ItemMatrix(len(total), kept, ease_of(gram, regularisation).astype(np.float32))


def released(server: Server, budget: Budget, facts: np.ndarray | None = None) -> Released:
    """As `Released.of` all silos' rows; `facts`: as there."""
    share = math.sqrt(len(server.connections))
    of_counts, of_pairs = budget.noise
    noisy = _sum(server, "counts", plain=False, noise=of_counts / share)
    kept = surely_taken(noisy, of_counts)
    axes = axes_of(noisy, kept, of_pairs, no_facts(len(noisy)) if facts is None else facts)
    sums = _sum(server, "pairs", kept=kept, axes=axes, plain=False, noise=of_pairs / share)
    return Released(noisy, kept, axes, sums, of_pairs)


def _sum(server: Server, what: str, **message: object) -> np.ndarray:
    return np.sum([answer[what] for answer in server.ask(what, **message)], axis=0)
