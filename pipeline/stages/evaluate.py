"""Rank every test point by every model, measure with intervals, and write the report.

In: data/prepared, data/raw/impressions.parquet, models/{challenger,ablations,champion}, reports/training
(curves.csv, summary.json).
Out, in reports/:
  evaluation.json       models -> slice -> figures, paired differences challenger - model, tuned settings;
                        `candidates`: what each retriever brings; `faithfulness` of reasons; `comparison`
                        with the champion, for the gate; `satisfaction`: what people made of a service's lists
  metrics.json          the headline figures, flat
  ranked_lists.parquet  model, point_id, rank 1..k, item_id, score (null: not scored, listed by popularity)
  evaluation.html       for people (pipeline/evaluation/report.py)
Rule: the contract's protocol. Weights and matrices are frozen at the end of train, the state is live
(pipeline/models/state.py). Baselines are tuned on validation (pipeline/evaluation/tuning.py); lists by
pipeline/evaluation/ranked.py; figures by pipeline/evaluation/figures.py and pipeline/evaluation/metrics.py. A
champion counts only at points later than its own fit_end and the challenger's (`points_after`). One that this
code cannot read is left out, and `not_comparable` says why.

    python -m pipeline.stages.evaluate data/prepared data/raw/impressions.parquet models/challenger \\
        models/ablations models/champion reports
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.data.histories import Catalogue, Points, Prepared, load_prepared
from pipeline.documents.data import Summary
from pipeline.documents.model import Card
from pipeline.evaluation.examples import moment
from pipeline.evaluation.faithful import faithfulness
from pipeline.evaluation.figures import (
    CHALLENGER,
    CHAMPION,
    HEADLINE,
    Measured,
    Question,
)
from pipeline.evaluation.findings import ABLATIONS, kind
from pipeline.evaluation.floor_prices import prices
from pipeline.evaluation.outputs import Json, chosen, facts, show, write
from pipeline.evaluation.paid import paid
from pipeline.evaluation.ranked import Lists, Ranked, Training, rank, ranked_beside
from pipeline.evaluation.served import told_by_people, with_success
from pipeline.evaluation.slices import by_history_length, by_popularity_decile, user_groups
from pipeline.evaluation.tuning import Fitted, fit_baselines
from pipeline.models.artifacts import CARD, folder_hash, has_model, pinned
from pipeline.models.baselines import HistoryScorer, popularity, train_rows
from pipeline.models.content import VectorScorer, category_matrix
from pipeline.models.floors import Floors
from pipeline.models.ranking import Model, popularity_order
from pipeline.models.recommender import FORMAT, Recommender, frozen_vectors
from pipeline.params import Evaluate, Params
from pipeline.run import run

log = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BASELINES = 7


@dataclass(frozen=True)
class Evaluation:
    """`figures` as in evaluation.json, without what only files know; `lists` of every model."""

    figures: Json
    lists: Lists


def evaluate(
    prepared: Prepared,
    models: Mapping[str, Model],
    settings: Evaluate,
    seed: int,
    *,
    vectors: np.ndarray | None = None,
    same: Mapping[str, str] | None = None,
    points_after: int | None = None,
    floors: Floors | None = None,
    trained: Callable[[], Ranked] | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> Evaluation:
    """Every model's lists at the test points, and their figures.

    `vectors` (items, d): un-tuned text vectors, for diversity (else categories are). `same`: name -> the
    model whose lists it shares (a champion that is the challenger). `points_after`: microseconds; earlier
    points are none of the champion's. `floors`: recommend.exposure_floors. `trained`: gives the lists of the
    challenger and its ablations, made elsewhere. `progress` hears each name in its turn.
    """
    counts = popularity(prepared.log, train_rows(prepared.log), len(prepared.catalogue))
    order = popularity_order(counts, prepared.catalogue.ids)
    here = models if trained is None else {n: model for n, model in models.items() if n != CHALLENGER}
    found = rank(here, prepared, settings.k, progress)
    if trained is not None:
        progress("trained models")
        found = found.with_those(trained())
    lists = found.lists | {name: found.lists[other] for name, other in (same or {}).items()}
    lists = {name: lists[name] for name in sorted(lists, key=_place)}
    question, source = _question(prepared, counts, order, vectors, settings, seed)
    progress("figures")
    measured = Measured.of(question, {name: listed for name, (listed, _) in lists.items()})
    later = prepared.test.time > (np.iinfo(np.int64).min if points_after is None else points_after)
    compared = measured.at(later) if CHAMPION in lists else None
    if compared is not None and not later.all():
        measured = measured.at(np.ones(len(later), bool), *(name for name in lists if name != CHAMPION))
    slices, paired = _all_slices(measured, compared)
    figures = {
        "k": settings.k,
        "models": slices,
        "live": {"delay_seconds": settings.live_delay_seconds},
        "paired": {name: pairs["all"] for name, pairs in paired.items()},
        "paired_slices": paired,
        "best_baseline": _best_baseline(slices),
        "by_history_length": measured.rows(by_history_length(prepared.test), "bucket"),
        "by_popularity_decile": measured.rows(by_popularity_decile(prepared.test, order), "decile"),
        "diversity_of": source,
        "seconds": found.seconds,
        "ms_per_list": {name: 1000 * spent / max(len(later), 1) for name, spent in found.seconds.items()},
    }
    if isinstance(challenger := models.get(CHALLENGER), Recommender):
        figures |= {"candidates": found.brought.figures()}
        figures |= _inside(challenger, prepared.test, settings.bootstrap_samples, seed, progress)
    progress("fairness")
    told = [*((CHALLENGER,) if compared is None else (CHALLENGER, CHAMPION)), figures["best_baseline"]]
    fair = (compared or measured).fairness([name for name in told if name in lists])
    if CHALLENGER in models:
        progress("floors")
        fair["floors"] = prices(question, models[CHALLENGER], floors or {})
    figures["fairness"] = fair
    if compared is not None:
        figures["comparison"] = compared.comparison() | {"points_left_out": int((~later).sum())}
    return Evaluation(figures, lists)


def _inside(
    model: Recommender, points: Points, samples: int, seed: int, progress: Callable[[str], object]
) -> Json:
    """What its signals add, and its reasons are worth."""
    progress("signals")
    figures: Json = {"signals": paid(model, points, samples, seed)}
    progress("reasons")
    return figures | {"faithfulness": faithfulness(model, points, samples, seed)}


def _question(
    prepared: Prepared,
    counts: np.ndarray,
    order: np.ndarray,
    vectors: np.ndarray | None,
    settings: Evaluate,
    seed: int,
) -> tuple[Question, str | None]:
    """What all models are asked, and what diversity is of."""
    unit, source = _similarity(vectors, prepared.catalogue)
    question = Question(
        prepared.test,
        prepared.catalogue,
        counts,
        order,
        unit,
        settings.k,
        settings.bootstrap_samples,
        seed,
        user_groups(prepared.users, prepared.user_ids, prepared.test),
        prepared.withheld,
    )
    return question, source


def _all_slices(measured: Measured, compared: Measured | None) -> tuple[Json, Json]:
    """Figures and differences by slice; the champion's from `compared` where `measured` is without it."""
    models, paired = measured.all_slices()
    if compared is None or CHAMPION in models:
        return models, paired
    everywhere = np.ones(len(compared.question.points), bool)
    own, pairs = compared.at(everywhere, CHALLENGER, CHAMPION).all_slices()
    models, paired = models | {CHAMPION: own[CHAMPION]}, paired | {CHAMPION: pairs[CHAMPION]}
    return {name: models[name] for name in sorted(models, key=_place)}, paired


def _place(name: str) -> int:
    """Ours first, then the ablations, then the baselines; otherwise as given."""
    first = (CHALLENGER, CHAMPION, *ABLATIONS)
    return first.index(name) if name in first else len(first)


def _similarity(vectors: np.ndarray | None, catalogue: Catalogue) -> tuple[np.ndarray, str | None]:
    """((items, d) unit or zero rows, what they are): of texts, where there are any, else of categories."""
    if vectors is not None and vectors.any():
        return VectorScorer.of(vectors).vectors, "texts"
    categories = category_matrix(catalogue).toarray()
    norms = np.linalg.norm(categories, axis=1, keepdims=True)
    return categories / np.where(norms > 0, norms, 1), "categories" if categories.any() else None


def _best_baseline(models: Mapping[str, Json]) -> str | None:
    """The baseline with the highest nDCG@10 on all test points: chosen after the fact."""
    found = {name: by["all"][HEADLINE] for name, by in models.items() if kind(name) == "baseline"}
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    return max(known, key=lambda name: known[name]) if known else None


def later_fit_end(cards: Sequence[Card]) -> int | None:
    """Microseconds of the latest fit_end; None if no card has one."""
    ends = [card.fit_end for card in cards if card.fit_end]
    return (max(ends) - EPOCH) // timedelta(microseconds=1) if ends else None


def main(
    data: Path,
    impressions: Path,
    challenger: Path,
    ablations: Path,
    champion: Path,
    reports: Path,
    params: Path = Path("params.yaml"),
) -> None:
    settings = Params.load(params)
    prepared = load_prepared(data)
    delay = settings.evaluate.live_delay_seconds
    vectors = frozen_vectors(ablations, prepared.catalogue)
    loaded = _load(prepared, challenger, champion, delay)
    models: dict[str, Model] = dict(loaded.by_name)
    if loaded.not_comparable:
        log.warning("the champion is left out, %s", loaded.not_comparable)
    points_after = later_fit_end(loaded.cards)
    steps = 2 * BASELINES + len(models) + 6
    bar = tqdm(total=steps, desc="evaluate", unit="model", disable=None, leave=False)
    ours, training = loaded.by_name[CHALLENGER], Training(data, challenger, ablations, delay)
    with bar, ranked_beside(training, ours, prepared, settings.evaluate.k) as trained:

        def tell(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        fitted = fit_baselines(prepared, vectors, settings.seed, delay, lambda name: tell(f"tuning {name}"))
        models |= {name: found.scorer for name, found in fitted.items()}
        if alone := text_alone(ours, fitted.get("frozen_encoder")):
            models["fine_tuned_encoder"] = alone
        result = evaluate(
            prepared,
            models,
            settings.evaluate,
            settings.seed,
            vectors=vectors,
            same=loaded.same,
            points_after=points_after,
            floors=settings.recommend.exposure_floors,
            trained=trained,
            progress=tell,
        )
    known = facts(data, challenger, reports / "training", prepared)
    known["points_after"] = None if points_after is None else moment(points_after)
    known |= {"not_comparable": loaded.not_comparable, "artifact_hash": loaded.hashes}
    figures = known | {"seed": settings.seed} | chosen(fitted, known["training"]) | result.figures
    shown = with_success(impressions, Summary.read(data / "summary.json"))
    figures |= told_by_people(shown, prepared, models, figures, points_after)
    for name, found in fitted.items():
        figures["seconds"][name] += found.seconds
    write(figures, result.lists, prepared, models[CHALLENGER], vectors, reports)
    show(figures)


def text_alone(challenger: Model, frozen: Fitted | None) -> HistoryScorer | None:
    """The challenger's text vectors ranking by themselves, with the settings chosen for un-tuned ones."""
    vectors = getattr(challenger, "text", None)
    if vectors is None or frozen is None:
        return None
    score, settings = VectorScorer(vectors).score, frozen.settings
    return HistoryScorer(
        "fine_tuned_encoder", len(vectors), score, settings["half_life"], settings["disliked_weight"]
    )


@dataclass(frozen=True)
class Models:
    """Challenger and champion; `same` names the champion's twin, if it is the challenger."""

    by_name: dict[str, Recommender]
    cards: list[Card]  # of challenger and champion, so far as they are compared
    hashes: dict[str, str]  # of challenger and champion: the gate asks whether these are still the models
    same: dict[str, str] = field(default_factory=dict)
    not_comparable: str | None = None  # why the champion is left out


def _load(prepared: Prepared, challenger: Path, champion: Path, delay_seconds: float) -> Models:
    card, hashes = Card.read(challenger / CARD), {CHALLENGER: folder_hash(challenger)}
    items, rows = prepared.catalogue.items, prepared.log
    ours = {CHALLENGER: Recommender.load(challenger, items, rows, delay_seconds=delay_seconds)}
    with pinned(champion) as held:
        if not has_model(held):
            return Models(ours, [card], hashes)
        hashes[CHAMPION] = folder_hash(held)
        if hashes[CHAMPION] == hashes[CHALLENGER]:
            return Models(ours, [card], hashes, {CHAMPION: CHALLENGER})
        old = Card.read(held / CARD)
        if (found := old.format) != FORMAT:
            text = f"its format is {found}, this code reads {FORMAT}"
            return Models(ours, [card], hashes, not_comparable=text)
        there = Recommender.load(held, items, rows, CHAMPION, delay_seconds)
    try:
        next(there.candidates(prepared.test[:1]), None)
    except KeyError as missing:
        text = f"its scorer was told {missing}, which this code does not compute"
        return Models(ours, [card], hashes, not_comparable=text)
    return Models(ours | {CHAMPION: there}, [card, old], hashes)


if __name__ == "__main__":
    run(main)
