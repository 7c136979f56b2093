"""Sequence tower and scorers around each kind of text vectors: everything in training but the encoder.

The scorer meets items of train alone as targets, so it learns nothing of newcomers. A second one, for items
that train never had, starts as its copy and is fitted beside it on points from which some items are hidden
(pipeline/models/sampling.py). The first stays as it is: without newcomers on the lists they are what they
were. How far newcomers may displace others is one constant added to their scores, as large as it can be while
validation's nDCG@10 is no more than `finetune.cold_budget` below that of lists without newcomers. A handful
of users cannot tell that price: with fewer than FEWEST_USERS it may lower newcomers, never raise them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.data.histories import Catalogue, Log, Points, Prepared
from pipeline.models.content import VectorScorer
from pipeline.models.features import Inputs, Matrix, fit_inputs
from pipeline.models.networks import FusionScorer, SequenceTower, one_thread
from pipeline.models.recommender import Recommender
from pipeline.models.sampling import CHUNK, Candidates, Sizes, each, hidden_samples, samples
from pipeline.models.tasks import ColdTask, ScorerTask, SequenceTask
from pipeline.models.training import Batches, Run, fit

SEQUENCE_EPOCHS, SEQUENCE_BATCH = 8, 32
MORE_SEQUENCE_EPOCHS = 3  # on all of train, from the weights fitted on its inner rows
SCORER_EPOCHS, SCORER_BATCH = 8, 128
CANDIDATES, VALIDATION_CANDIDATES = Sizes(100, 100), Sizes(300, 0)
COLD_CANDIDATES, MOST_COLD_POINTS, COLD_EPOCHS = Sizes(100, 100, 40), 3_000, 3
HIDDEN_SHARES = (0.05, 0.3)  # least and most of the items that are hidden
SHIFTS = np.r_[-20, np.arange(-2, 4.01, 0.125)]  # of newcomers' scores; the first lists none
FEWEST_USERS = 30  # of validation
K = 10


@dataclass(frozen=True)
class Split:
    inner: np.ndarray  # (rows of the log,) bool
    full: np.ndarray
    later: Points  # what the scorer is fitted on
    validation: Points


@dataclass(frozen=True)
class Space:
    """Item vectors in which text is compared."""

    vectors: np.ndarray  # (items, width) float32 centred unit vectors; zero rows: no text
    centre: np.ndarray | None  # (width,) what was subtracted

    @classmethod
    def of(cls, vectors: np.ndarray) -> Space | None:
        """None where no item has a text."""
        there = vectors.any(axis=1)
        return cls(VectorScorer.of(vectors).vectors, vectors[there].mean(axis=0)) if there.any() else None


def fuse(
    prepared: Prepared,
    run: Run,
    parts: Split,
    spaces: dict[str, Space | None],
    matrix: Matrix,
    before: Recommender | None = None,
) -> tuple[dict[str, Recommender], dict[str, object]]:
    """Sequence tower and scorer around each kind of text vectors, and their figures.

    What does not depend on the text is fitted, and computed for every point, once for all of them. `before`:
    a model of the one kind of text there is, fitted on the inner rows alone; its tower and scorer go on.
    """
    data, catalogue = prepared.log, prepared.catalogue
    full = fit_inputs(data, parts.full, catalogue, matrix, run.seed)
    early: dict[str, Inputs] = {}
    late: dict[str, Inputs] = {}
    if before is None:
        inner = fit_inputs(data, parts.inner, catalogue, matrix, run.seed)
    for name, space in spaces.items():
        text = None if space is None else space.vectors
        first = before.inputs.sequence if before else _first_tower(data, run, parts, name, catalogue, text)
        early[name] = before.inputs if before else inner.with_text(text, first)
        late[name] = full.with_text(text, _last_tower(data, run, parts, name, catalogue, text, first))
    found: dict[str, Candidates] = {}
    hidden: dict[str, Candidates] = {}
    against: dict[str, Candidates] = {}
    # Inputs that were fitted on no row at all would teach the scorer nothing but to distrust them.
    fitted = before is not None or bool(parts.inner.any())
    if fitted and len(parts.later) >= 2 and len(parts.validation):
        generator = np.random.default_rng([run.seed, 2])
        found = samples(early, parts.later, generator, CANDIDATES)
        against = samples(late, parts.validation, generator, VALIDATION_CANDIDATES)
        with_text = {name: inputs for name, inputs in early.items() if inputs.imputed is not None}
        hidden = _newcomers(with_text, full, parts, generator)
    models: dict[str, Recommender] = {}
    figures: dict[str, object] = {}
    for name, inputs in late.items():
        space, features = spaces[name], list(inputs.columns(prepared.validation[:1]))
        scorer = _new_scorer(run, features, found.get(name), before)
        epochs = _fit_scorer(run, parts, name, scorer, found.pop(name, None), against.pop(name, None))
        cold = _cold_scorer(run, parts, name, scorer, features, hidden.pop(name, None))
        centre = None if space is None else space.centre
        models[name] = Recommender(name, {"features": features}, catalogue, inputs, scorer, centre, cold)
        figures[f"{name}_scorer_epochs"] = epochs
    return settle(models, parts.validation, run.settings.cold_budget, figures)


def _new_scorer(
    run: Run, features: list[str], sample: Candidates | None, before: Recommender | None
) -> FusionScorer:
    if before is not None and before.card["features"] == features:
        return copy.deepcopy(before.scorer)
    torch.manual_seed(run.seed)
    scorer = FusionScorer(len(features))
    with torch.no_grad():
        # Before it has learned anything it ranks like EASE with recent popularity behind it.
        scorer.linear.weight[0, features.index("ease_5")] = 1
        scorer.linear.weight[0, features.index("popularity_0.05")] = 0.1
    if sample is not None:
        scorer.standardise(torch.from_numpy(sample.features[::4]).float().flatten(0, 1))
    return scorer


def _fit_scorer(
    run: Run,
    parts: Split,
    name: str,
    scorer: FusionScorer,
    sample: Candidates | None,
    against: Candidates | None,
) -> int:
    """The epoch (1..) whose weights it has then, 0 where there is nothing to fit it on."""
    epochs = 0
    if sample is not None and against is not None:
        task = ScorerTask(run, f"scorer ({name})", scorer, sample, parts.validation, against)
        epochs = fit(run, task, Batches(run, task.phase, len(sample.target), SCORER_BATCH), SCORER_EPOCHS)
    scorer.eval()
    return epochs


def _newcomers(
    early: dict[str, Inputs], full: Inputs, parts: Split, generator: np.random.Generator
) -> dict[str, Candidates]:
    """Points from which items are hidden at the rate at which validation's targets are not in train."""
    points = parts.later
    if len(points) > MOST_COLD_POINTS:
        points = points[np.sort(generator.permutation(len(points))[:MOST_COLD_POINTS])]
    share = float((full.statistics.count[parts.validation.target] == 0).mean())
    share = float(np.clip(share, *HIDDEN_SHARES))
    return hidden_samples(early, points, generator, COLD_CANDIDATES, share) if early else {}


def _cold_scorer(
    run: Run, parts: Split, name: str, scorer: FusionScorer, features: list[str], sample: Candidates | None
) -> FusionScorer | None:
    if sample is None:
        return None
    torch.manual_seed(run.seed)
    cold = copy.deepcopy(scorer)
    task = ColdTask(
        run, f"newcomers ({name})", scorer, cold, sample, features.index("cold"), parts.validation
    )
    batches = Batches(run, task.phase, len(sample.target), SCORER_BATCH)
    fit(run, task, batches, COLD_EPOCHS, validate=False)
    return cold.eval()


def settle(
    models: dict[str, Recommender], points: Points, budget: float, figures: dict[str, object]
) -> tuple[dict[str, Recommender], dict[str, object]]:
    """Each model with its constant for newcomers, and its validation nDCG@10 over whole catalogues."""
    if not len(points):
        return models, figures | {f"{name}_validation_ndcg@10": None for name in models}
    gains: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for chunk in points.chunks(CHUNK):
        for name, columns in each({name: model.inputs for name, model in models.items()}, chunk):
            scores = models[name].score_columns(columns, len(chunk))
            cold = columns["cold"][0] > 0
            gains[name].append(gains_by_shift(scores, chunk, cold, SHIFTS))
    settled = {}
    place = np.unique(points.user, return_inverse=True)[1]
    for name, model in models.items():
        gain = np.concatenate(gains[name])  # (points, shifts)
        quality = np.stack([np.bincount(place, column) for column in gain.T]) / np.bincount(place)
        quality = quality.mean(axis=1)
        best = int(np.flatnonzero(SHIFTS == 0)[0])
        if model.cold_scorer is not None:
            affordable = quality >= (1 - budget) * quality[0]
            if place.max() + 1 < FEWEST_USERS:
                affordable &= SHIFTS <= 0
            best = int(np.flatnonzero(affordable).max())
            figures[f"{name}_cold_shift"] = float(SHIFTS[best])
        settled[name] = replace(model, cold_shift=float(SHIFTS[best]))
        figures[f"{name}_validation_ndcg@10"] = round(float(quality[best]), 6)
    return settled, figures


def gains_by_shift(scores: np.ndarray, points: Points, cold: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(points, shifts) nDCG@10 if the scores of `cold` items ((items,) bool) were that much higher.

    Ties count against the target. Only the K + 1 best of either kind can matter.
    """
    scores = np.nan_to_num(scores, nan=-np.inf)  # a copy
    scores[points.excluded()] = -np.inf
    each_point = np.arange(len(points))
    target, target_cold = scores[each_point, points.target], cold[points.target]
    best = [_best(scores[:, kind], K + 1)[:, :, None] for kind in (~cold, cold)]
    limit = target[:, None, None] + target_cold[:, None, None] * shifts
    rank = (best[0] >= limit).sum(axis=1) + (best[1] + shifts >= limit).sum(axis=1)
    listed = (rank <= K) & (target > -np.inf)[:, None]
    return np.where(listed, 1 / np.log2(1 + np.maximum(rank, 1)), 0)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """(points, at most `count`) highest scores of each row, in any order."""
    count = min(count, scores.shape[1])
    return -np.partition(-scores, count - 1, axis=1)[:, :count] if count else scores


def _tower(
    data: Log, run: Run, rows: np.ndarray, validation: Points, name: str, tower: SequenceTower, epochs: int
) -> SequenceTower:
    torch.manual_seed(run.seed)
    task = SequenceTask(run, name, tower, data, rows, validation)
    if len(task.segments):
        batches = Batches(run, name, len(task.segments), SEQUENCE_BATCH)
        with one_thread():
            fit(run, task, batches, epochs, validate=False)
    return tower.eval()


def _first_tower(
    data: Log, run: Run, parts: Split, name: str, catalogue: Catalogue, text: np.ndarray | None
) -> SequenceTower:
    """Fitted on the inner rows."""
    tower = _untrained(data, run, parts.inner, catalogue, text)
    return _tower(data, run, parts.inner, parts.validation, f"sequence ({name})", tower, SEQUENCE_EPOCHS)


def _last_tower(
    data: Log,
    run: Run,
    parts: Split,
    name: str,
    catalogue: Catalogue,
    text: np.ndarray | None,
    first: SequenceTower | None,
) -> SequenceTower:
    """It goes on from the weights of the first one, on all of train."""
    tower, epochs = _untrained(data, run, parts.full, catalogue, text), SEQUENCE_EPOCHS
    if first is not None and first.kind == tower.kind:  # else a champion's, under other settings
        epochs = MORE_SEQUENCE_EPOCHS
        weights = {key: value for key, value in first.state_dict().items() if key != "known"}
        tower.load_state_dict(weights, strict=False)
    phase = f"sequence on all of train ({name})"
    return _tower(data, run, parts.full, parts.validation, phase, tower, epochs)


def _untrained(
    data: Log, run: Run, rows: np.ndarray, catalogue: Catalogue, text: np.ndarray | None
) -> SequenceTower:
    known = np.zeros(len(catalogue), bool)
    known[data.item[rows]] = True
    torch.manual_seed(run.seed)
    return SequenceTower(known, text, run.settings.user_tower)
