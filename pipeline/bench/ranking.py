"""Does the challenger rank better than what a user would pick instead, each tuned, on the same points?

In: data/prepared, or a folder like data/raw. Out: nDCG@10 of every model with intervals, and the challenger's
paired difference to each. Rule: everything is fitted on train, settings are chosen on validation with the
first seed, and the test window is scored once, with the settings chosen; SEEDS of what has seeds, whose
figures are means over the seeds point by point. At a point every model has the user's live history, and its
list is completed and cut by the same rules. The best peer is the best on test: chosen after the fact.
Peers: popularity (and recent), item-kNN, EASE, iALS and BPR of `implicit`, the un-tuned encoder, categories;
LightFM, and SASRec and BERT4Rec of RecTools, in an environment of their own (pipeline/bench/_peers.py).
Raw data with few test users: all of this in each of the last windows, figures over the points of all of them
(pipeline/bench/_windows.py).

Every fit is kept in .evergreen/ranking under a hash of its data, settings and code: a killed bench goes on.
The sequence models come last, as they take hours.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench import _peers, _windows
from pipeline.bench._bpr import bpr
from pipeline.bench._fits import Bench, Ranked, digest, fingerprint, hashes, makers
from pipeline.bench._lightfm import lightfm
from pipeline.data.histories import Points, Prepared
from pipeline.evaluation import tuning
from pipeline.evaluation.figures import CHALLENGER, HEADLINE, Measured, Question, accuracy_columns
from pipeline.evaluation.metrics import accuracy, mean_of_users, target_rank
from pipeline.models.ranking import rank_points
from pipeline.models.recommender import Recommender
from pipeline.params import Params
from pipeline.stages.finetune import finetune
from pipeline.training.task import Run

SEEDS, K, SAMPLES = 3, 10, 1000
OWN = Path("data/prepared")
FOLDER = Path(".evergreen/ranking")
FACTORS = {"bpr": bpr, "lightfm": lightfm}
SEEDED = ("ials", *FACTORS)
SEQUENCE: dict[str, dict[str, tuple[Any, ...]]] = {
    name: {
        "lr": (1e-3, 3e-3),
        "positives_only": (False, True),
        "n_factors": (64, 128),
        "session_max_len": (100,),
        "batch_size": (32,),  # a quarter of RecTools': there are no more than some hundred users
    }
    for name in ("sasrec", "bert4rec")
}
MOST_EPOCHS, EVERY = 40, 2  # of the sequence models; how often validation is looked at

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if there are no data, or the peers' environment cannot be made."""
    params, data = Params.load(Path("params.yaml")), data or OWN
    benches = [
        Bench(prepared, vectors, params, FOLDER / fingerprint(prepared))
        for prepared, vectors in _windows.load_windows(data, params)
    ]
    for bench in benches:
        bench.folder.mkdir(parents=True, exist_ok=True)
    python = _peers.environment()
    missing = {"lightfm": reason} if (reason := _peers.compiled()) else {}
    found: dict[str, list[list[Ranked]]] = {}
    todo = everything(benches, python, missing)
    with tqdm(todo, desc="ranking", unit="model", disable=None, leave=False) as bar:
        for name, number, fits in bar:
            bar.set_postfix_str(f"window {number} of {len(benches)}, {name}" if benches[1:] else name)
            found.setdefault(name, []).append(fits())
    found[CHALLENGER] = found.pop(CHALLENGER)  # below its peers
    windows = [bench.prepared for bench in benches]
    result = summary(benches, {name: _windows.pooled(windows, of) for name, of in found.items()}, missing)
    result["findings"] += _windows.advice(data, windows)
    return result


def everything(
    benches: list[Bench], python: Path, missing: Json
) -> list[tuple[str, int, Callable[[], list[Ranked]]]]:
    """(model, window from 1, its fits): one model after the other, each in all windows, the slowest last."""
    text = any(bench.vectors.any() for bench in benches)
    names = [*tuning.baselines(benches[-1].vectors if text else None, 0), *FACTORS]
    ways: dict[str, Callable[[Bench], list[Ranked]]] = {
        name: partial(baseline, name=name) for name in names if name not in missing
    }
    ways[CHALLENGER] = challenger
    ways |= {name: partial(sequence, name=name, python=python) for name in SEQUENCE}
    numbered = list(enumerate(benches, 1))
    return [(name, number, partial(fit, bench)) for name, fit in ways.items() for number, bench in numbered]


def baseline(bench: Bench, name: str) -> list[Ranked]:
    """Tuned with the first seed; others refit the settings that it chose."""
    first = bench.params.seed
    modules = ["models/baselines", "models/content", "models/popular", "models/state", "models/ranking"]
    modules += ["evaluation/tuning"]
    modules += ["bench/_factors", f"bench/_{name}"] if name in FACTORS else []
    modules += ["bench/_lightfm_peer"] if name == "lightfm" else []

    def way(seed: int) -> Callable[[Prepared], tuning.Prepares]:
        ours = {of: partial(make, seed=seed) for of, make in FACTORS.items()}
        return (tuning.baselines(bench.vectors, seed) | ours)[name]

    def listed(scorer: Any) -> np.ndarray:
        return rank_points(scorer, bench.prepared.test, bench.prepared.catalogue, bench.order, K)[0]

    def tuned() -> Ranked:
        chosen = tuning.choose(bench.prepared, way(first))
        return Ranked(listed(chosen.scorer), chosen.validation, chosen.settings, max(1, chosen.tried), 0.0)

    def again(seed: int) -> Ranked:
        scorer = way(seed)(bench.prepared)[0](found[0].settings)
        return Ranked(listed(scorer), tuning.quality(bench.prepared)(scorer), found[0].settings, 1, 0.0)

    code = hashes([f"pipeline/{module}.py" for module in modules])
    found = [bench.kept(name, first, code, tuned)]
    for seed in range(first + 1, first + SEEDS) if name in SEEDED else ():
        found.append(bench.kept(name, seed, [code, found[0].settings], partial(again, seed)))
    return found


def sequence(bench: Bench, name: str, python: Path) -> list[Ranked]:
    """Tuned with the first seed; one fit a setting, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        validation = tuning.sample(bench.prepared)
        _peers.write_points(Path(folder), bench.prepared, validation)
        return sequence_fits(bench, name, validation, Path(folder), python)


def sequence_fits(bench: Bench, name: str, validation: Points, folder: Path, python: Path) -> list[Ranked]:
    first, code = bench.params.seed, hashes(["pipeline/bench/_rectools_peer.py"])

    def fitted(settings: Json, seed: int) -> Ranked:
        task = {"model": name, "settings": settings, "seed": seed, "k": K}
        task |= {"most_epochs": MOST_EPOCHS, "every": EVERY}

        def fit() -> Ranked:
            answer = _peers.ask(python, folder, task, bench.prepared, validation, bench.order)
            gain = accuracy(target_rank(answer.validation, validation.target), K)["ndcg"]
            told = settings | {"epochs": answer.told["epochs"]}
            seconds = answer.told["cpu_seconds"]
            return Ranked(answer.test, mean_of_users(gain, validation.user), told, 1, seconds)

        return bench.kept(name, seed, [code, task], fit)

    def build(settings: Json) -> Any:
        return fitted(settings, first)

    best = tuning.tune(build, SEQUENCE[name], attrgetter("validation"), 1)
    found = [fitted(best.settings, seed) for seed in range(first, first + SEEDS)]
    return [replace(found[0], tried=best.tried), *found[1:]]


def challenger(bench: Bench) -> list[Ranked]:
    """As the stage trains it, without its ablations; one model a seed."""

    def fit(seed: int) -> Ranked:
        model, validation = trained(bench, seed)
        points, catalogue = bench.prepared.test, bench.prepared.catalogue
        return Ranked(rank_points(model, points, catalogue, bench.order, K)[0], validation, {}, 1, 0.0)

    seeds = range(bench.params.seed, bench.params.seed + SEEDS)
    return [bench.kept(CHALLENGER, seed, code(bench), partial(fit, seed)) for seed in seeds]


def trained(bench: Bench, seed: int) -> tuple[Recommender, float]:
    """(the challenger, its validation nDCG@10), from checkpoints where a bench was killed."""
    folder = bench.folder / f"challenger-{seed}-{digest(code(bench))}"
    found = finetune(bench.prepared, Run(bench.params.finetune, seed, folder), ablations=False)
    shutil.rmtree(folder, ignore_errors=True)
    quality = found.summary["challenger_validation_ndcg@10"]
    return found.models[CHALLENGER], float("nan") if quality is None else float(str(quality))


def code(bench: Bench) -> list[Any]:
    """What a challenger's lists depend on beside the data."""
    return [bench.params.finetune.model_dump(), hashes(makers())]


def summary(benches: list[Bench], found: dict[str, list[Ranked]], missing: Json | None = None) -> Json:
    """Test is scored here, and nowhere else. `found`: over the points of all windows, the newest the last.

    `missing`: peers that could not be made, and why.
    """
    windows, newest, nothing = [bench.prepared for bench in benches], benches[-1], np.zeros(0)
    points, catalogue = _windows.points(windows), newest.prepared.catalogue
    question = Question(points, catalogue, nothing, newest.order, nothing, K, SAMPLES, newest.params.seed)
    by_seed = {
        name: [accuracy_columns(question, one.listed) for one in ranked] for name, ranked in found.items()
    }
    mean = {name: np.mean(columns, axis=0) for name, columns in by_seed.items()}
    measured = Measured(question, {name: ranked[0].listed for name, ranked in found.items()}, mean, {})
    slices = {name: measured.on(mask) for name, mask in _windows.slices(windows).items()}
    models, paired = slices["all"]
    rows = {name: row(models[name], paired.get(name), found[name]) for name in by_quality(models)}
    best = next(name for name in rows if name != CHALLENGER)
    ours, theirs, pair = models[CHALLENGER][HEADLINE], models[best][HEADLINE], paired[best]
    ratio = ours / theirs if theirs else None
    head = question.columns.index(HEADLINE)
    return {
        "name": "ranking",
        "conditions": {
            "users": models[best]["users"],
            "test_points": len(points),
            "items": len(catalogue),
            "seeds": SEEDS,
            **_windows.conditions(windows),
            "settings": {name: ranked[0].settings for name, ranked in found.items() if ranked[0].settings},
        },
        "figures": rows,
        "ratios": {"challenger_over_best_peer": ratio},
        "findings": [
            f"best peer: {best}; the challenger has {ratio or 0:.2f} times its nDCG@10, "
            f"{pair[HEADLINE]:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]",
            *(f"without {name}: {reason}" for name, reason in (missing or {}).items()),
        ],
        "by_seed": {
            name: [mean_of_users(columns[:, head], points.user) for columns in seeds]
            for name, seeds in by_seed.items()
        },
        "slices": {
            slice_name: {name: row(of[name], pairs.get(name)) for name in of}
            for slice_name, (of, pairs) in slices.items()
        },
    }


def by_quality(models: Json) -> list[str]:
    """The challenger, then its peers, best first."""
    peers = [name for name in models if name != CHALLENGER]
    return [CHALLENGER, *sorted(peers, key=lambda name: -models[name][HEADLINE])]


def row(figures: Json, pair: Json | None, ranked: list[Ranked] | None = None) -> Json:
    """Of one model; `challenger_minus` and its ends only where there is a pair. Nothing measured is None."""
    found = {
        HEADLINE: figures[HEADLINE],
        "low": figures[f"{HEADLINE}_low"],
        "high": figures[f"{HEADLINE}_high"],
        "recall@10": figures["recall@10"],
    }
    if pair:
        found |= {"challenger_minus": pair[HEADLINE], "pair_low": pair["low"], "pair_high": pair["high"]}
    if ranked:
        found |= {"validation": float(np.mean([one.validation for one in ranked])), "seeds": len(ranked)}
        found |= {"tried": ranked[0].tried, "cpu_s": round(sum(one.seconds for one in ranked))}
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()
    }
