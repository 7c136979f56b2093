"""Whether round 0, without lists, is like the data: users' newest rows, simulated from their older ones.

Users are split into halves at random; the choice model is fitted to one, simulates the other, and is held
against what the other really took. The bound is how far the two halves are from one another. Vectors and
counts know the older rows of everybody, as they would in service; nothing that is compared was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Prepared
from pipeline.documents.simulation import Calibration
from pipeline.models.text import unit
from pipeline.simulation.choice import (
    Observed,
    Tastes,
    closeness,
    drawn,
    fit,
    in_the_mood,
    shares,
    utilities,
)
from pipeline.simulation.measures import top_share
from pipeline.simulation.world import people

SPLITS = 10
RARE = 5  # successes: fewer among the older rows and an item is as good as new
KINDS = {
    "activity": "Kolmogorov-Smirnov distance of the users' numbers of choices",
    "popularity": "total variation of the items' shares of the choices",
    "top_tenth": "share of the choices that the most taken tenth of the items has",
    "new_items": f"share of the choices of items with fewer than {RARE} earlier ones",
    "repeats": "share of the choices of what the user had met",
    "diversity": "mean distance of two choices of a user",
}


@dataclass(frozen=True)
class Sample:
    """Choices of some users: (users, items) counts, and what the users had met before."""

    taken: sp.csr_matrix
    met: np.ndarray

    @property
    def by_item(self) -> np.ndarray:
        return np.asarray(self.taken.sum(axis=0)).ravel()

    @property
    def by_user(self) -> np.ndarray:
        return np.asarray(self.taken.sum(axis=1)).ravel()


def calibrate(prepared: Prepared, seed: int) -> list[Calibration]:
    """A row for each of KINDS that the data have: means over SPLITS halvings."""
    log, items = prepared.log, len(prepared.catalogue)
    users = people(log, items, seed)
    seen = Observed.of(log, users, items)
    tastes = Tastes.of(log, seen.older, users, seen.met, seed)
    scores, vectors = tastes.scores(tastes.users), unit(tastes.items)
    older = np.bincount(log.user[seen.older & log.positive], minlength=len(log.indptr) - 1)[users]
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for split in range(SPLITS):
        generator = np.random.default_rng([seed, split, 3])
        order = generator.permutation(len(users))
        fitted, other = np.sort(order[: len(users) // 2]), np.sort(order[len(users) // 2 :])
        choice = fit(scores, seen, fitted, tastes.items, log.repeats, seed + split)
        utility = utilities(choice, scores[other], choice.appeal(seen.count), seen.met[other])
        moods = in_the_mood(choice, utility, vectors, generator.random(len(other)))
        pace = seen.taken[fitted].sum() / max(older[fitted].sum(), 1)
        made = drawn(shares(moods), generator.poisson(older[other] * pace), log.repeats, generator)
        samples = [Sample(made, seen.met[other])]
        samples += [Sample(seen.taken[half], seen.met[half]) for half in (other, fitted)]
        for name, figures in _distances(samples, seen.count, vectors, generator).items():
            if name != "repeats" or log.repeats:
                found.setdefault(name, []).append(figures)
    return [_row(name, np.array(rows)) for name, rows in found.items()]


def _distances(
    samples: list[Sample], count: np.ndarray, vectors: np.ndarray, generator: np.random.Generator
) -> dict[str, tuple[float, float, float, float]]:
    """name -> (figure simulated, of the data, their distance, that of the two halves)."""
    rare = count < RARE
    least = int(min(sample.by_item.sum() for sample in samples))
    alike = [_subsample(sample.by_item, least, generator) for sample in samples]

    def figures(of: Callable[[Sample], float]) -> tuple[float, float, float, float]:
        made, real, half = (of(sample) for sample in samples)
        return made, real, abs(made - real), abs(half - real)

    found = {
        "top_tenth": figures(lambda one: top_share(one.by_item, 0.1)),
        "new_items": figures(lambda one: float(one.by_item[rare].sum() / max(one.by_item.sum(), 1))),
        "repeats": figures(lambda one: float(one.taken.multiply(one.met).sum() / max(one.taken.sum(), 1))),
        "diversity": figures(lambda one: 1 - closeness(one.taken, vectors)),
    }
    numbers = [sample.by_user for sample in samples]
    found["activity"] = (
        float(numbers[0].mean()),
        float(numbers[1].mean()),
        _largest_gap(numbers[0], numbers[1]),
        _largest_gap(numbers[2], numbers[1]),
    )
    found["popularity"] = (
        np.nan,
        np.nan,
        float(np.abs(alike[0] - alike[1]).sum() / 2 / least),
        float(np.abs(alike[2] - alike[1]).sum() / 2 / least),
    )
    return {name: found[name] for name in KINDS}


def _subsample(counts: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """So many of the choices: total variation shrinks with their number, so all must have the same."""
    found: np.ndarray = generator.multivariate_hypergeometric(
        counts.astype(np.int64), size, method="marginals"
    )
    return found


def _largest_gap(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(one, other, method="asymp").statistic)


def _row(name: str, rows: np.ndarray) -> Calibration:
    made, real, distance, bound = rows.mean(axis=0)
    largest = float(rows[:, 3].max())
    return Calibration(
        name=name,
        kind=KINDS[name],
        simulated=float(made),
        data=float(real),
        distance=float(distance),
        bound=float(bound),
        largest=largest,
        within=bool(distance <= largest),
    )
