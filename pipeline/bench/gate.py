"""How often the promotion's gate lets equal and truly better challengers pass.

In: prepared data, or raw data that are prepared on the way. Out: shares of promotions, with intervals.
Rule: models are trained in seconds (pipeline/backtest/fast.py) on the train window, ranked at the test points
and judged by the real decide_promotion with the settings of params.yaml. Equals are two models of another
seed, or of another sample of the same users (drawn with replacement); each pair is judged in both directions.
Better ones know all of train, where the champion knows a random half of its users, or of its rows.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.backtest.fast import FastScorer, fit_fast
from pipeline.baselines import ConstantScorer, popularity, train_rows
from pipeline.decisions import get
from pipeline.errors import DataError
from pipeline.figures import CHALLENGER, CHAMPION, HEADLINE, SIMPLE, Measured, Question, user_groups
from pipeline.histories import Prepared, load_prepared
from pipeline.params import Params
from pipeline.ranking import popularity_order, rank_points
from pipeline.stages.decide_promotion import decide_promotion
from pipeline.stages.evaluate import as_json

REPEATS = 40
FULL, SAMPLE, HALF_USERS, HALF_ROWS = "full", "sample", "half_users", "half_rows"
EQUAL = {"another_seed": FULL, "another_sample": SAMPLE}
BETTER = {"half_of_the_users": HALF_USERS, "half_of_the_rows": HALF_ROWS}  # what the champion knows
FIT_END = "2000-01-01T00:00:00+00:00"  # the same for all: nobody is older, every point is new
Z = 1.96

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """`data`: a folder like data/prepared, or like data/raw. Raises DataError if it is neither."""
    begin = time.perf_counter()
    params = Params.load(Path("params.yaml"))
    prepared, vectors = load(data or Path("data/prepared"))
    court = Court.of(prepared, vectors, params)
    verdicts: dict[str, list[Json]] = {name: [] for name in (*EQUAL, *BETTER)}
    with tqdm(total=4 * REPEATS, desc="gate", unit="model", disable=None, leave=False) as bar:
        for name, challenger, champion in pairs(court, lambda: bar.update()):
            verdicts[name].append(court.judge(challenger, champion))
    return {
        "name": "gate",
        "conditions": court.conditions | {"repeats": REPEATS, "seconds": time.perf_counter() - begin},
        "figures": {name: summary(found) for name, found in verdicts.items()},
        "ratios": {
            "equal_promoted": max(share(verdicts[name]) for name in EQUAL),
            "better_promoted": min(share(verdicts[name]) for name in BETTER),
        },
        "findings": [findings(name, found) for name, found in verdicts.items()],
    }


def load(folder: Path) -> tuple[Prepared, np.ndarray | None]:
    """Prepared data, and the un-tuned vectors of models/ablations beside them, if they are of its items."""
    if (folder / "train.parquet").exists():
        prepared = load_prepared(folder)
    elif (folder / "interactions").exists():
        from pipeline.stages import preprocess

        with tempfile.TemporaryDirectory() as temporary:
            preprocess.main(folder, Path(temporary) / "prepared", Path("params.yaml"))
            prepared = load_prepared(Path(temporary) / "prepared")
    else:
        raise DataError(f"{folder}: neither prepared nor raw data: run `evergreen cycle`, or name a folder")
    file = folder.parent.parent / "models" / "ablations" / "frozen_vectors.npy"
    vectors = np.load(file).astype(np.float32) if file.exists() else None
    return prepared, vectors if vectors is not None and len(vectors) == len(prepared.catalogue) else None


def pairs(court: Court, tell: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(case, challenger's lists, champion's lists). Equals go round: each meets the next, as both."""
    models: dict[str, list[np.ndarray]] = {kind: [] for kind in (FULL, SAMPLE, HALF_USERS, HALF_ROWS)}
    for repeat in range(REPEATS):
        for kind, listed in models.items():
            listed.append(court.lists(kind, repeat))
            tell()
        for name, kind in BETTER.items():
            yield name, models[FULL][-1], models[kind][-1]
    for name, kind in EQUAL.items():
        for one, other in zip(models[kind], [*models[kind][1:], models[kind][0]], strict=True):
            yield name, one, other
            yield name, other, one


@dataclass
class Court:
    """What all verdicts share: the points, the baselines' lists and the settings."""

    prepared: Prepared
    vectors: np.ndarray | None
    params: Params
    question: Question
    simple: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0  # of ranking
    features: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, prepared: Prepared, vectors: np.ndarray | None, params: Params) -> Court:
        counts = popularity(prepared.log, train_rows(prepared.log), len(prepared.catalogue))
        question = Question(
            prepared.test,
            prepared.catalogue,
            counts,
            popularity_order(counts, prepared.catalogue.ids),
            np.zeros((len(prepared.catalogue), 1), np.float32),  # nothing here is about diversity
            10,
            params.evaluate.bootstrap_samples,
            params.seed,
            user_groups(prepared.users, prepared.user_ids, prepared.test),
        )
        return cls(prepared, vectors, params, question)

    @property
    def conditions(self) -> Json:
        log = self.prepared.log
        return {
            "users": len(np.unique(self.prepared.test.user)),
            "points": len(self.prepared.test),
            "items": len(self.prepared.catalogue),
            "train_rows": int(train_rows(log).sum()),
            "text": self.vectors is not None,
            "settings": self.params.decide_promotion.model_dump(exclude={"approval", "replace_unread"}),
        }

    def rows(self, kind: str, repeat: int) -> np.ndarray:
        """(rows of the log,) what a model of this kind is trained on."""
        log, rows = self.prepared.log, train_rows(self.prepared.log)
        generator = np.random.default_rng([self.params.seed, repeat, sum(map(ord, kind))])
        if kind == FULL:
            return rows
        if kind == HALF_ROWS:
            return rows & (generator.permutation(len(rows)) % 2 == 0)
        users = np.unique(log.user[rows])
        drawn = generator.choice(users, len(users)) if kind == SAMPLE else generator.permutation(users)
        return rows & np.isin(log.user, drawn if kind == SAMPLE else drawn[: len(users) // 2])

    def lists(self, kind: str, repeat: int) -> np.ndarray:
        """(points, 10) what a new model of this kind lists."""
        scorer = fit_fast(
            self.prepared.log,
            self.rows(kind, repeat),
            self.prepared.catalogue,
            self.vectors,
            self.params.seed + 1 + repeat,
        )
        begin = time.perf_counter()
        listed = self._rank(scorer)
        self.seconds = time.perf_counter() - begin
        self.features = list(scorer.weights)
        if not self.simple:
            recent = scorer.inputs.popularity[:, 1]
            scores = dict(zip(SIMPLE, (self.question.popularity, recent), strict=True))
            self.simple = {name: self._rank(ConstantScorer(name, of)) for name, of in scores.items()}
        return listed

    def _rank(self, scorer: FastScorer | ConstantScorer) -> np.ndarray:
        question = self.question
        return rank_points(scorer, question.points, question.catalogue, question.order, question.k)[0]

    def judge(self, challenger: np.ndarray, champion: np.ndarray) -> Json:
        """The verdict, with the gain as a share of the champion's figure."""
        measured = Measured.of(self.question, {CHALLENGER: challenger, CHAMPION: champion, **self.simple})
        comparison = measured.comparison()
        evaluation = {
            "fit_end": FIT_END,
            "points_after": FIT_END,
            "paired": measured.on(np.ones(len(self.question.points), bool))[1],
            "comparison": comparison,
            "ms_per_list": {CHALLENGER: 1000 * self.seconds / max(len(self.question.points), 1)},
        }
        model = {"version": None, "fit_end": FIT_END, "features": self.features, "mib": 1.0}
        verdict = decide_promotion(
            as_json(evaluation),
            model | {"artifact_hash": CHALLENGER},
            model | {"artifact_hash": CHAMPION},
            self.params.decide_promotion,
        )
        base, gain = (get(comparison, "slices", "all", key) for key in (CHAMPION, HEADLINE))
        return verdict | {"gain": float(gain / base) if base else math.nan}


def share(verdicts: list[Json]) -> float:
    return sum(verdict["promote"] for verdict in verdicts) / len(verdicts)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    middle = (successes + Z**2 / 2) / (count + Z**2)
    width = Z * math.sqrt(successes * (count - successes) / count + Z**2 / 4) / (count + Z**2)
    return max(middle - width, 0.0), min(middle + width, 1.0)


def summary(verdicts: list[Json]) -> Json:
    """A row of the table: promoted of how many, and how far the models are apart."""
    count = len(verdicts)
    low, high = wilson(sum(verdict["promote"] for verdict in verdicts), count)
    gains = [verdict["gain"] for verdict in verdicts]
    return {
        "verdicts": count,
        "promoted": share(verdicts),
        "low": low,
        "high": high,
        "mean_gain": float(np.mean(gains)),
        "deviation": float(np.std(gains)),
    }


def findings(name: str, verdicts: list[Json]) -> str:
    """Which checks failed, in how many of the verdicts."""
    failed = Counter(
        check["name"] for verdict in verdicts for check in verdict["checks"] if not check["passed"]
    )
    said = ", ".join(f"{check} {count / len(verdicts):.0%}" for check, count in failed.most_common())
    return f"{name.replace('_', ' ')}: failed {said or 'nothing'}"
