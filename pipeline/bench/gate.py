"""How often the promotion's gate lets equal and truly better challengers pass.

In: prepared data, or raw data that are prepared on the way. Out: shares of promotions, with intervals.
Rule: models are trained in seconds (`light` in pipeline/training) on the train window, ranked at the
test points and judged by the real decide_promotion with the settings of params.yaml. Equals are two models of
another seed, or of another sample of the same rows (drawn with replacement); each pair is judged both ways.
Better ones know all of train, where the champion knows a random half of its rows.
Swapped users make equals of models however far apart: at random, a user gets the lists of one that knows all
or those of one that knows half, and in the other side of the pair the rest.
The same by users is shown beside: who half of the users are decides how good a model is, so such equals are
not quite equal, and such better ones not always better.
Lists are kept in .evergreen/bench: killed and started again, it goes on.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench._fits import makers
from pipeline.data.histories import Prepared, days_of_newest, load_prepared
from pipeline.documents.data import Summary
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.model import Card
from pipeline.documents.promotion import Model
from pipeline.errors import DataError
from pipeline.evaluation.figures import (
    CHALLENGER,
    CHAMPION,
    HEADLINE,
    SIMPLE,
    Measured,
    Question,
    accuracy_columns,
    beyond_columns,
)
from pipeline.evaluation.metrics import share_interval
from pipeline.evaluation.slices import user_groups
from pipeline.files import renamed
from pipeline.models.artifacts import CARD
from pipeline.models.baselines import popularity, train_rows
from pipeline.models.popular import LivePopularity
from pipeline.models.ranking import Model as Ranks
from pipeline.models.ranking import popularity_order, rank_points
from pipeline.params import Params
from pipeline.stages.decide_promotion import decide_promotion
from pipeline.training.recipe import light

REPEATS, ROUND = 24, 5  # models a kind; how many of another kind, or its own, each meets
FULL, SAMPLE, HALF, SAMPLE_USERS, HALF_USERS = "full", "sample", "half", "sample_users", "half_users"
KINDS = (FULL, SAMPLE, HALF, SAMPLE_USERS, HALF_USERS)
EQUAL = {"another_seed": FULL, "another_sample": SAMPLE}
BETTER = {"half_of_the_rows": HALF}  # what the champion knows
BY_USERS = {"another_sample_of_users": SAMPLE_USERS, "half_of_the_users": HALF_USERS}
SWAPPED = "swapped_users"
OWN = Path("data/prepared")
KEPT = Path(".evergreen/bench")
FIT_END = "2000-01-01T00:00:00+00:00"  # the same for all: nobody is older, every point is new
FROZEN = "frozen_vectors.npy"
RECENT_SHARE = 0.02  # recent popularity decays by half over the newest share of the rows

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """`data`: a folder like data/prepared, or like data/raw. Raises DataError if it is neither."""
    begin = time.perf_counter()
    params = Params.load(Path("params.yaml"))
    prepared, vectors = load(data or OWN)
    court = Court.of(prepared, vectors, params)
    with tqdm(total=len(KINDS) * REPEATS, desc="gate", unit="model", disable=None, leave=False) as bar:
        models: dict[str, list[Judged]] = {kind: [] for kind in KINDS}
        for repeat in range(REPEATS):
            for kind, found in models.items():
                found.append(court.model(kind, repeat))
                bar.update()
    verdicts: dict[str, list[Json]] = {name: [] for name in (*EQUAL, SWAPPED, *BETTER, *BY_USERS)}
    for name, challenger, champion in pairs(models):
        verdicts[name].append(court.judge(challenger, champion))
        if name in BETTER:
            verdicts[SWAPPED].append(
                court.judge(*court.swapped(challenger, champion, len(verdicts[SWAPPED])))
            )
    return {
        "name": "gate",
        "conditions": court.conditions | {"repeats": REPEATS, "seconds": time.perf_counter() - begin},
        "figures": {name: summary(found) for name, found in verdicts.items()},
        "ratios": {
            "equal_promoted": max(share(verdicts[name]) for name in EQUAL),
            "equal_unfair": max(_answered(verdicts[name], "fails") for name in (*EQUAL, SWAPPED)),
            "better_promoted": min(share(verdicts[name]) for name in BETTER),
            **{f"{name}_promoted": share(verdicts[name]) for name in BY_USERS},
        },
        "findings": [findings(name, found) for name, found in verdicts.items()],
    }


def load(folder: Path) -> tuple[Prepared, np.ndarray | None]:
    """Prepared data, and the un-tuned vectors of models/ablations beside them, if of the same data."""
    if (folder / "train.parquet").exists():
        return load_prepared(folder), _vectors_of(folder, folder)
    if not (folder / "interactions").exists():
        raise DataError(f"{folder}: neither prepared nor raw data: run `evergreen cycle`, or name a folder")
    from pipeline.stages import preprocess

    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared"
        preprocess.main(folder, prepared, Path("params.yaml"))
        return load_prepared(prepared), _vectors_of(prepared, folder)


def _vectors_of(prepared: Path, folder: Path) -> np.ndarray | None:
    """Those of the training beside `folder`, if its card names the data and texts that are prepared."""
    models, summary = folder.parent.parent / "models", Summary.read(prepared / "summary.json")
    file, card = models / "ablations" / FROZEN, Card.find(models / "challenger" / CARD)
    if card is None or not file.exists() or summary.data_hash is None:
        return None
    same = (card.data_hash, card.preprocess) == (summary.data_hash, summary.settings)
    return np.load(file).astype(np.float32) if same else None


def load_with_vectors(folder: Path, params: Params) -> tuple[Prepared, np.ndarray]:
    """The same, the un-tuned vectors made where there are none of these items."""
    prepared, vectors = load(folder)
    if vectors is None:
        from pipeline.models.encoder import TextEncoder

        texts = prepared.catalogue.items["item_text"].fillna("").tolist()
        encoder = TextEncoder.load(params.finetune.encoder, params.finetune.max_length)
        vectors = encoder.vectors(texts)
    return prepared, vectors


@dataclass(frozen=True)
class Judged:
    """A model's lists at the test points, and what Measured makes of them."""

    listed: np.ndarray  # (points, 10)
    accuracy: np.ndarray
    beyond: dict[str, np.ndarray]


def pairs(models: dict[str, list[Judged]]) -> Iterator[tuple[str, Judged, Judged]]:
    """(case, challenger, champion). In a circle, each meets the next ROUND; equals in both directions."""
    for name, kind in (EQUAL | BETTER | BY_USERS).items():
        champions, equal = models[kind], kind in (*EQUAL.values(), SAMPLE_USERS)
        challengers = champions if equal else models[FULL]
        for place, challenger in enumerate(challengers):
            for step in range(1, min(ROUND, len(champions) - 1) + 1):
                champion = champions[(place + step) % len(champions)]
                yield name, challenger, champion
                if equal:
                    yield name, champion, challenger


@dataclass
class Court:
    """What all verdicts share: the points, the baselines' lists and the settings."""

    prepared: Prepared
    vectors: np.ndarray | None
    params: Params
    question: Question

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
            prepared.withheld,
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

    @property
    def folder(self) -> Path:
        """Where lists are kept: named by the data, the seed, and the code that makes them."""
        digest = hashlib.sha256(str(self.params.seed).encode())
        log, test = self.prepared.log, self.prepared.test
        arrays = [log.user, log.item, log.time, log.window, log.fit, log.positive, test.user, test.time]
        for array in [*arrays, *([] if self.vectors is None else [self.vectors])]:
            digest.update(np.ascontiguousarray(array).tobytes())
        for path in (Path(__file__), *makers()):
            digest.update(path.read_bytes())
        return KEPT / f"gate-{digest.hexdigest()[:16]}"

    def rows(self, kind: str, repeat: int) -> np.ndarray:
        """(rows of the log,) what a model of this kind is trained on."""
        log, rows = self.prepared.log, train_rows(self.prepared.log)
        generator = np.random.default_rng([self.params.seed, repeat, KINDS.index(kind)])
        if kind == FULL:
            return rows
        by_users = kind in (SAMPLE_USERS, HALF_USERS)
        units = np.unique(log.user[rows]) if by_users else np.flatnonzero(rows)
        count = len(units)
        drawn = (
            generator.choice(units, count) if kind in (SAMPLE, SAMPLE_USERS) else generator.permutation(units)
        )
        kept = drawn if kind in (SAMPLE, SAMPLE_USERS) else drawn[: count // 2]
        return rows & np.isin(log.user if by_users else np.arange(len(log)), kept)

    def model(self, kind: str, repeat: int) -> Judged:
        """The lists of a new model of this kind, or of the one kept from an earlier run."""
        file = self.folder / f"{kind}-{repeat}.npy"
        if file.exists():
            return self.judged(np.load(file))
        listed = self.lists(self.rows(kind, repeat), self.params.seed + 1 + repeat)
        file.parent.mkdir(parents=True, exist_ok=True)
        with renamed(file) as temporary, temporary.open("wb") as out:
            np.save(out, listed)
        return self.judged(listed)

    def lists(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """(points, 10) what a model trained on these rows lists."""
        log, catalogue = self.prepared.log, self.prepared.catalogue
        return self._rank(light(log, rows, catalogue, self.vectors, seed))

    def judged(self, listed: np.ndarray) -> Judged:
        return Judged(listed, accuracy_columns(self.question, listed), beyond_columns(self.question, listed))

    def swapped(self, one: Judged, other: Judged, number: int) -> tuple[Judged, Judged]:
        """Both, with the lists of a random half of the users exchanged."""
        user = self.question.points.user
        drawn = np.random.default_rng([self.params.seed, number]).random(int(user.max()) + 1) < 0.5
        side = drawn[user][:, None]
        first, second = np.where(side, one.listed, other.listed), np.where(side, other.listed, one.listed)
        return self.judged(first), self.judged(second)

    @cached_property
    def simple(self) -> dict[str, Judged]:
        """The baselines of the gate."""
        log, rows = self.prepared.log, train_rows(self.prepared.log)
        half_lives = zip(SIMPLE, (np.inf, days_of_newest(log.time[rows], RECENT_SHARE)), strict=True)
        items = len(self.prepared.catalogue)
        return {
            name: self.judged(self._rank(LivePopularity.of(name, log, items, days)))
            for name, days in half_lives
        }

    def _rank(self, model: Ranks) -> np.ndarray:
        question = self.question
        return rank_points(model, question.points, question.catalogue, question.order, question.k)[0]

    def judge(self, challenger: Judged, champion: Judged) -> Json:
        """The verdict, with the gain as a share of the champion's figure. Features, latency, size
        and reasons pass."""
        models = {CHALLENGER: challenger, CHAMPION: champion, **self.simple}
        measured = Measured(
            self.question,
            {name: model.listed for name, model in models.items()},
            {name: model.accuracy for name, model in models.items()},
            {name: model.beyond for name, model in models.items()},
        )
        comparison = measured.comparison()
        evaluation = {
            "fit_end": FIT_END,
            "points_after": FIT_END,
            "artifact_hash": {CHALLENGER: CHALLENGER, CHAMPION: CHAMPION},
            "paired": measured.on(np.ones(len(self.question.points), bool))[1],
            "comparison": comparison,
            "ms_per_list": {CHALLENGER: 0.0},
            "faithfulness": {"items": 0},
        }
        model = Model.of({"fit_end": FIT_END, "features": ["light"], "mib": 0.0})
        one, other = (model.but(artifact_hash=name) for name in (CHALLENGER, CHAMPION))
        settings = self.params.decide_promotion.model_copy(update={"long_term_guard": None})
        verdict = decide_promotion(Evaluation.of(evaluation), one, other, settings)
        everywhere = comparison["slices"]["all"]
        base, gain = everywhere[CHAMPION], everywhere[HEADLINE]
        return verdict.to_dict() | {"gain": float(gain / base) if base else math.nan}


def share(verdicts: list[Json]) -> float:
    return sum(verdict["promote"] for verdict in verdicts) / len(verdicts)


def summary(verdicts: list[Json]) -> Json:
    """A row of the table: promoted of how many, how often the check of fairness fails or says to look closer,
    and how far the models are apart."""
    count = len(verdicts)
    low, high = share_interval(sum(verdict["promote"] for verdict in verdicts), count)
    gains = [verdict["gain"] for verdict in verdicts]
    return {
        "verdicts": count,
        "promoted": share(verdicts),
        "low": low,
        "high": high,
        "unfair": _answered(verdicts, "fails"),
        "investigate": _answered(verdicts, "investigate"),
        "mean_gain": float(np.mean(gains)),
        "deviation": float(np.std(gains)),
    }


def _answered(verdicts: list[Json], answer: str) -> float:
    """Share of the verdicts whose check of fairness says so."""
    texts = [
        check["text"] for verdict in verdicts for check in verdict["checks"] if check["name"] == "fairness"
    ]
    return sum(text.startswith(f"{answer}: ") for text in texts) / len(verdicts)


def findings(name: str, verdicts: list[Json]) -> str:
    """Which checks failed, in how many of the verdicts."""
    failed = Counter(
        check["name"] for verdict in verdicts for check in verdict["checks"] if not check["passed"]
    )
    said = ", ".join(f"{check} {count / len(verdicts):.0%}" for check, count in failed.most_common())
    return f"{name.replace('_', ' ')}: failed {said or 'nothing'}"
