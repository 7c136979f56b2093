"""What people take: a conditional logit over the whole catalogue, fitted to the data's own rows.

An item's utility for a user = taste x how well it fits the user's vector + its appeal + mood x its cosine to
one item that the user is in the mood for in that round. Taste vectors are iALS' (Hu, Koren & Volinsky 2008);
the appeal is quadratic in log(1 + successes), and what is left over for the item. The weights are the
likeliest (McFadden 1974) for each user's newest rows, where vectors and counts know the older ones alone;
appeals then move to the items' shares, and mood to how close a user's choices are to one another. Without
repeats, what a user has met is not taken again; with them it has a weight of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from pipeline.data.histories import Log
from pipeline.models import baselines
from pipeline.models.text import unit

FACTORS, REGULARISATION, ALPHA = 32, 20.0, 3.0
NEWEST = 0.2  # of each user's rows: what the older ones have to explain
SHRUNK_BY = 10.0  # rows that hold an item's own appeal to what its popularity says
MATCHINGS = 6  # steps in which appeals and mood are moved to the data's figures
MOST_MOOD = 12.0
NEVER = np.float32(-1e9)  # utility of what cannot be taken


@dataclass(frozen=True)
class Choice:
    """Weights of the utility; `again`: of an item that the user has met, None: it is not taken again."""

    taste: float
    popularity: float
    steepness: float  # of log(1 + successes)^2
    again: float | None
    own: np.ndarray  # (items,) float32 appeal beyond popularity
    mood: float = 0.0

    def appeal(self, count: np.ndarray) -> np.ndarray:
        """(items,) successes -> (items,) float32."""
        logs = np.log1p(count)
        return (self.popularity * logs + self.steepness * logs**2 + self.own).astype(np.float32)


@dataclass(frozen=True)
class Tastes:
    """Vectors of users and items; a score is in deviations of the user's own scores at the start."""

    users: np.ndarray  # (users, factors) float32
    items: np.ndarray  # (items, factors) float32
    mean: np.ndarray  # (users, 1) float32
    deviation: np.ndarray  # (users, 1) float32

    @classmethod
    def of(cls, log: Log, rows: np.ndarray, users: np.ndarray, met: np.ndarray, seed: int) -> Tastes:
        """Fitted to the successes among `rows`; `met`: (users, items), left out of mean and deviation."""
        taken = baselines.interactions(log, rows & log.positive, met.shape[1])
        factors = baselines.ials(taken, FACTORS, REGULARISATION, ALPHA, seed)
        vectors = factors.users(taken[users])
        scores = np.where(met, np.nan, vectors @ factors.vectors.T)
        scores[met.all(axis=1)] = 0  # nothing is left to compare
        deviation = np.nanstd(scores, axis=1, keepdims=True)
        mean = np.nanmean(scores, axis=1, keepdims=True)
        return cls(vectors, factors.vectors, mean, np.where(deviation > 0, deviation, 1).astype(np.float32))

    def scores(self, users: np.ndarray) -> np.ndarray:
        """(users, items) float32 of users whose vectors have moved to these."""
        return np.asarray((users @ self.items.T - self.mean) / self.deviation, dtype=np.float32)


@dataclass(frozen=True)
class Observed:
    """Older rows as what is known, each user's newest successes as what has to be explained."""

    older: np.ndarray  # (rows of the log,) bool
    met: np.ndarray  # (users, items) bool, in the older rows
    taken: sp.csr_matrix  # (users, items) the newest successes
    count: np.ndarray  # (items,) successes among the older rows of everybody

    @classmethod
    def of(cls, log: Log, users: np.ndarray, items: int) -> Observed:
        place = np.arange(len(log)) - log.indptr[log.user]
        length = np.diff(log.indptr)[log.user]
        newest = (place >= np.ceil((1 - NEWEST) * length)) & (length > 1)
        older = ~newest
        found = np.flatnonzero(newest & log.positive)
        cells = (np.ones(len(found), np.float32), (log.user[found], log.item[found]))
        taken = sp.csr_matrix(cells, shape=(len(log.indptr) - 1, items))[users]
        met = matrix_of(log, older, items, users)
        if not log.repeats:
            taken = sp.csr_matrix(taken.multiply(~met))
        return cls(older, met, taken, np.bincount(log.item[older & log.positive], minlength=items))


def matrix_of(log: Log, rows: np.ndarray, items: int, users: np.ndarray) -> np.ndarray:
    """(users, items) bool: met in `rows`."""
    found: np.ndarray = baselines.interactions(log, rows, items)[users].toarray() > 0
    return found


def utilities(choice: Choice, scores: np.ndarray, appeal: np.ndarray, met: np.ndarray) -> np.ndarray:
    """(users, items) float32 without any mood; NEVER for what is not taken again."""
    found = np.float32(choice.taste) * scores + appeal
    if choice.again is None:
        found[met] = NEVER
    else:
        found += np.float32(choice.again) * met
    return found


def in_the_mood(choice: Choice, utility: np.ndarray, vectors: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The same with the mood of a round, for one item of each user, drawn ((users,) uniform) as if taken."""
    if not choice.mood:
        return utility
    levels = np.cumsum(shares(utility), axis=1)
    item = (levels < (draws * levels[:, -1])[:, None]).sum(axis=1)
    nearness = vectors[np.minimum(item, utility.shape[1] - 1)] @ vectors.T
    return np.asarray(utility + np.float32(choice.mood) * nearness)


def shares(utility: np.ndarray) -> np.ndarray:
    """(users, items) chances of each item (softmax)."""
    found = np.exp(utility - utility.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def drawn(
    chance: np.ndarray, wants: np.ndarray, again: bool, generator: np.random.Generator
) -> sp.csr_matrix:
    """(users, items) how often each item is taken in so many choices of each user."""
    rows = []
    for user, want in enumerate(wants.tolist()):
        exact = chance[user].astype(np.float64)
        most = want if again else min(want, int((exact > 0).sum()))
        rows.append(generator.choice(len(exact), most, again, exact / exact.sum()))
    place = np.repeat(np.arange(len(wants)), [len(row) for row in rows])
    item = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return sp.csr_matrix((np.ones(len(item)), (place, item)), shape=chance.shape)


def closeness(taken: sp.csr_matrix, vectors: np.ndarray) -> float:
    """Mean cosine of two choices of a user, over the users with two and more; the same item twice: 1."""
    count = np.asarray(taken.sum(axis=1)).ravel()
    enough = count > 1
    if not enough.any():
        return 0.0
    total = ((taken @ vectors) ** 2).sum(axis=1) - taken @ (vectors**2).sum(axis=1)
    return float(np.mean(total[enough] / (count * (count - 1))[enough]))


def fit(
    scores: np.ndarray, seen: Observed, users: np.ndarray, vectors: np.ndarray, repeats: bool, seed: int
) -> Choice:
    """The weights for the newest successes of these places among the observed users; `vectors`: of items."""
    scores, met, taken = scores[users], seen.met[users], seen.taken[users]
    choice = _likeliest(scores, seen.count, met, taken, repeats)
    wanted = np.asarray(taken.sum(axis=1)).ravel()
    by_item = np.asarray(taken.sum(axis=0)).ravel()
    generator = np.random.default_rng([seed, 4])
    vectors, real, low, high = unit(vectors), closeness(taken, unit(vectors)), 0.0, MOST_MOOD
    for _ in range(MATCHINGS):
        choice = replace(choice, mood=(low + high) / 2)
        for _ in range(2):  # the mood moves the items' shares, too
            utility = utilities(choice, scores, choice.appeal(seen.count), met)
            chance = shares(in_the_mood(choice, utility, vectors, generator.random(len(users))))
            expected = wanted @ chance
            moved = choice.own + np.log((by_item + SHRUNK_BY) / (expected + SHRUNK_BY))
            choice = replace(choice, own=moved.astype(np.float32))
        made = closeness(drawn(chance, wanted.astype(np.int64), repeats, generator), vectors)
        low, high = (choice.mood, high) if made < real else (low, choice.mood)
    return choice


def _likeliest(
    scores: np.ndarray, count: np.ndarray, met: np.ndarray, taken: sp.csr_matrix, repeats: bool
) -> Choice:
    """Without own appeals and mood."""
    logs = np.log1p(count).astype(np.float32)
    wanted = np.asarray(taken.sum(axis=1)).ravel()  # (users,)
    total = max(wanted.sum(), 1.0)
    cells, own = taken.tocoo(), np.zeros(len(logs), np.float32)

    def features(weight: np.ndarray) -> np.ndarray:
        """Sums of each feature over cells of these weights, (users, items)."""
        by_item = weight.sum(axis=0)
        found = [(weight * scores).sum(), by_item @ logs, by_item @ logs**2]
        return np.array(found + ([(weight * met).sum()] if repeats else []), dtype=np.float64)

    facts = features(cells.toarray())

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        again = weights[3] if repeats else None
        now = Choice(weights[0], weights[1], weights[2], again, own)
        utility = utilities(now, scores, now.appeal(count), met)
        most = utility.max(axis=1, keepdims=True)
        chance = np.exp(utility - most)
        sums = chance.sum(axis=1, keepdims=True)
        value = wanted @ (most + np.log(sums)).ravel() - weights @ facts
        return float(value) / total, (features(chance * (wanted[:, None] / sums)) - facts) / total

    start = np.array([1.0, 1.0, 0.0, 0.0][: len(facts)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x.tolist()
    return Choice(found[0], found[1], found[2], found[3] if repeats else None, own)
