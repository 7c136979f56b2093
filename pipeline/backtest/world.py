"""A timeline with everything that policies share: trained models, verdicts of the gate, drift checks.

In: a timeline, params, a way to train. Rule: whatever is computed is computed once and kept in a folder named
by data, settings and code (`world_key`), so that an interrupted run goes on where it was. A model is asked at
every labelled point later than its fit_end, once; quality, gate and hindsight are read from these lists.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pipeline.backtest.timeline import Timeline
from pipeline.data.histories import days_of_newest
from pipeline.data.tables import TIME
from pipeline.documents.drift import Drift
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.promotion import Model as Card
from pipeline.drift import reference as reference_of
from pipeline.drift import windows
from pipeline.drift.champion import Champion
from pipeline.evaluation import metrics
from pipeline.evaluation.figures import CHALLENGER, CHAMPION, SIMPLE, Measured, Question
from pipeline.evaluation.outputs import as_json
from pipeline.files import renamed, write_text
from pipeline.models.baselines import popularity
from pipeline.models.popular import LivePopularity
from pipeline.models.ranking import Model as Ranks
from pipeline.models.ranking import popularity_order, rank_points
from pipeline.params import Params
from pipeline.stages.decide_promotion import decide_promotion, sentence
from pipeline.training.recipe import light

K = 10  # list length
MIB = 2**20
RECENT_SHARE = 0.02  # of the rows: recent popularity fades by half over their time

Json = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A model that can be asked, and what it cost."""

    model: Ranks
    vectors: np.ndarray | None  # (items, d) of the timeline's catalogue
    seconds: float
    mib: float
    features: list[str]


class Trainer(Protocol):
    """How a model comes about. `code` names the way, for the cache."""

    @property
    def code(self) -> str: ...

    def key(self, number: int, mode: str, champion: str) -> str:
        """Models of one key are the same model."""
        ...

    def fit(self, timeline: Timeline, key: str) -> Fitted: ...


@dataclass(frozen=True)
class Fast:
    """`recipe.light`. Its vectors are never tuned, so a refresh is a full training."""

    vectors: np.ndarray | None
    seed: int
    code: str = "light"

    def key(self, number: int, mode: str, champion: str) -> str:
        return f"w{number:02d}"

    def fit(self, timeline: Timeline, key: str) -> Fitted:
        begin = time.perf_counter()
        rows = timeline.fit_rows(int(key[1:]))
        model = light(timeline.log, rows, timeline.catalogue, self.vectors, self.seed)
        seconds = time.perf_counter() - begin
        size = sum(array.nbytes for array in model.parts.collaborative.arrays().values()) / MIB
        return Fitted(model, model.text, seconds, size, list(model.card["features"]))


@dataclass(frozen=True)
class Model:
    """What a trained model showed at every point later than its fit_end."""

    key: str
    number: int  # trained at the decision before this window
    listed: np.ndarray  # (points, K) int32 item indices; -1 where it was not asked
    gain: np.ndarray  # (points,) nDCG@10; NaN where it was not asked
    seconds: float  # of the training
    ms_per_list: float
    mib: float
    features: list[str]


@dataclass(eq=False)
class World:
    """A timeline, how to train on it, and everything already computed."""

    timeline: Timeline
    params: Params
    trainer: Trainer
    folder: Path
    tell: Callable[[str], object] = lambda text: None
    models: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # As many as fit into memory: an item-item matrix each.
        self.fitted = lru_cache(maxsize=3)(self._fit)

    # Models ----------------------------------------------------------------------------------------------

    def _fit(self, key: str) -> Fitted:
        self.tell(f"training {key}")
        return self.trainer.fit(self.timeline, key)

    def model(self, number: int, mode: str, champion: str) -> Model:
        key = self.trainer.key(number, mode, champion)
        if key not in self.models:
            self.models[key] = self._read(key, number) or self._ask(key, number)
        return self.models[key]

    def _read(self, key: str, number: int) -> Model | None:
        path = self.folder / f"model-{key}.npz"
        if not path.exists():
            return None
        with np.load(path) as kept:
            known = json.loads(str(kept["known"]))
            return Model(key, number, kept["listed"], kept["gain"], **known)

    def _ask(self, key: str, number: int) -> Model:
        timeline, fitted = self.timeline, self.fitted(key)
        asked = np.flatnonzero(timeline.points.time >= timeline.windows[number].fit_stop)
        listed = np.full((len(timeline.points), K), -1, np.int32)
        begin = time.perf_counter()
        order = self.order(number)
        listed[asked], _ = rank_points(
            fitted.model, timeline.points[asked], timeline.catalogue, order, K, lambda done: self.tell("")
        )
        spent = 1000 * (time.perf_counter() - begin) / max(len(asked), 1)
        gain = np.full(len(timeline.points), np.nan)
        gain[asked] = _ndcg(listed[asked], timeline.points.target[asked])
        known: Json = {
            "seconds": round(fitted.seconds, 3),
            "ms_per_list": spent,
            "mib": fitted.mib,
            "features": fitted.features,
        }
        with renamed(self.folder / f"model-{key}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, listed=listed, gain=gain, known=json.dumps(known))
        return Model(key, number, listed, gain, **known)

    @lru_cache(maxsize=64)  # noqa: B019 - a World lives as long as the run
    def counts(self, number: int) -> np.ndarray:
        timeline = self.timeline
        return popularity(timeline.log, timeline.fit_rows(number), len(timeline.catalogue))

    def order(self, number: int) -> np.ndarray:
        return popularity_order(self.counts(number), self.timeline.catalogue.ids)

    # The gate --------------------------------------------------------------------------------------------

    def verdict(self, challenger: Model, champion: Model) -> Json:
        """decide_promotion on the points that are held back from both."""
        return self._kept(f"gate-{challenger.key}-{champion.key}", lambda: self._judge(challenger, champion))

    def _judge(self, challenger: Model, champion: Model) -> Json:
        self.tell(f"gate {challenger.key} against {champion.key}")
        timeline, number = self.timeline, challenger.number
        evaluation = self._evaluation(challenger, champion)
        cards = [
            Card(
                version=model.key,
                fit_end=timeline.fit_end(model.number),
                artifact_hash=model.key,
                features=model.features,
                mib=model.mib,
            )
            for model in (challenger, champion)
        ]
        evaluation |= {"fit_end": cards[0].fit_end, "points_after": cards[0].fit_end}
        evaluation["artifact_hash"] = {CHALLENGER: challenger.key, CHAMPION: champion.key}
        # Of what is simulated (minutes a model) nothing is asked here.
        settings = self.params.decide_promotion.model_copy(update={"long_term_guard": None})
        verdict = decide_promotion(Evaluation.of(evaluation), cards[0], cards[1], settings)
        compared = int(timeline.held(number).sum())
        return {"promote": verdict.promote, "text": sentence(verdict), "points": compared}

    def _evaluation(self, challenger: Model, champion: Model) -> Json:
        """What reports/evaluation.json says of the two, as far as the gate reads it."""
        timeline, number = self.timeline, challenger.number
        held = np.flatnonzero(timeline.held(number))
        points = replace(timeline.points[held], log=timeline.log_at(number))
        counts, order = self.counts(number), self.order(number)
        question = Question(
            points,
            timeline.catalogue,
            counts,
            order,
            np.zeros((len(timeline.catalogue), 1), np.float32),
            K,
            self.params.evaluate.bootstrap_samples,
            self.params.seed,
        )
        lists = {CHALLENGER: challenger.listed[held], CHAMPION: champion.listed[held]}
        for name, half_life in zip(SIMPLE, (np.inf, self._half_life(number)), strict=True):
            simple = LivePopularity.of(name, points.log, len(timeline.catalogue), half_life)
            lists[name], _ = rank_points(simple, points, timeline.catalogue, order, K)
        measured = Measured.of(question, lists)
        return {
            "paired": measured.on(np.ones(len(points), bool))[1],
            "comparison": measured.comparison(),
            "ms_per_list": {CHALLENGER: challenger.ms_per_list},
            "faithfulness": {"items": 0},  # no list is explained here
        }

    def _half_life(self, number: int) -> float:
        """Days in which the newest RECENT_SHARE of the rows were collected."""
        timeline = self.timeline
        return days_of_newest(timeline.log.time[timeline.fit_rows(number)], RECENT_SHARE)

    # Drift -----------------------------------------------------------------------------------------------

    def drift(self, champion: Model, number: int) -> Drift:
        """What detect_drift says of the champion before window `number`."""
        path = self.folder / f"drift-{champion.key}-{number:02d}.json"
        if (kept := Drift.find(path)) is not None:
            return kept
        found = self._check(champion, number)
        found.write(path)
        return found

    def _check(self, champion: Model, number: int) -> Drift:
        from pipeline.drift.check import check

        self.tell(f"drift of {champion.key} before window {number + 1}")
        timeline, settings = self.timeline, self.params.detect_drift
        fit_end, fitted = timeline.fit_end(champion.number), self.fitted(champion.key)
        asked = Champion(
            model=fitted.model,
            catalogue=timeline.catalogue,
            log=timeline.log,
            vectors=fitted.vectors,
            fit_end=fit_end,
            promoted_as_of=timeline.as_of(champion.number),
            version=champion.key,
            max_points_per_user=self.params.preprocess.max_points_per_user,
        )
        known = self._known(number)
        reference = reference_of.make(known, fit_end, settings)
        current = known[known[TIME] > fit_end]
        return check(reference, current, timeline.items, settings, self.params.seed, champion=asked)

    def _known(self, number: int) -> pd.DataFrame:
        rows = self.timeline.rows
        return windows.with_since(rows[rows[TIME] <= self.timeline.as_of(number)])

    def evidently(self, champion: Model, number: int) -> bool:
        """What Evidently's defaults say of the champion's reference and the newest window's rows."""
        key = f"evidently-{champion.key}-{number:02d}"
        return bool(self._kept(key, lambda: {"drift": self._evidently(champion, number)})["drift"])

    def _evidently(self, champion: Model, number: int) -> bool:
        from pipeline.drift.defaults import evidently_drift

        self.tell(f"Evidently's defaults before window {number + 1}")
        timeline = self.timeline
        known, fit_end = self._known(number), timeline.fit_end(champion.number)
        reference = reference_of.make(known, fit_end, self.params.detect_drift).rows
        return bool(evidently_drift(reference, known[known[TIME] > fit_end]))

    def _kept(self, name: str, compute: Callable[[], Json]) -> Json:
        path = self.folder / f"{name}.json"
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        found = as_json(compute())
        write_text(path, json.dumps(found, allow_nan=False, ensure_ascii=False))
        return dict(found)


def _ndcg(listed: np.ndarray, target: np.ndarray) -> np.ndarray:
    return metrics.accuracy(metrics.target_rank(listed, target), K)["ndcg"]


def code_hash() -> str:
    """Of every module of the package: whatever changed, nothing old is taken for new."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def world_key(timeline: Timeline, params: Params, trainer: str) -> str:
    """Names the folder of what was computed."""
    settings = params.model_dump(mode="json")
    kept = {
        name: settings[name] for name in ("seed", "preprocess", "evaluate", "decide_promotion", "finetune")
    }
    kept["detect_drift"] = settings["detect_drift"]
    text = json.dumps([timeline.key, kept, trainer, code_hash()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
