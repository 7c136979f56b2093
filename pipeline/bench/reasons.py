"""Do reasons name what a score rests on? Deletion curves of attributions, and what a reason costs.

In: models/challenger, or else models/champion, and data/prepared (or another folder like it). Out: by how
much a listed item's score, less the mean candidate's, falls when the first 1, 2, 3 and 5 items of a history
(its HISTORY newest different ones) are taken out: in the order of `named` (what a reason names, and behind it
what adds less to the EASE score), of leave-one-out on the score itself (no first step takes more), of LIME
and KernelSHAP (captum; each asks for SAMPLES histories without some of the items), newest first, and by
chance. Means over users; of the first step with a 95 % interval. `milliseconds`: CPU time of one listed
item's attribution; of `reason`, of all its reasons in the service. EVERGREEN_BENCH_USERS is another number of
users.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench._asked import number_of
from pipeline.data.histories import Prepared, load_prepared
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import metrics
from pipeline.evaluation.faithful import Listed
from pipeline.models.artifacts import has_model
from pipeline.models.asked import Asked
from pipeline.models.parts import stacked
from pipeline.models.recommender import Recommender
from pipeline.params import Params

OWN = Path("data/prepared")
USERS, TOP, HISTORY, SAMPLES = 40, 3, 20, 100  # SAMPLES of LIME and of KernelSHAP, each
STEPS = (1, 2, 3, 5)
NO_METHOD = ("newest", "by_chance")  # of which no time is told
REDRAWN = 1000

Json = dict[str, Any]
Masked = Callable[[np.ndarray], np.ndarray]
"""(histories, HISTORY) bool, which items stay -> (histories, TOP) scores."""


def run(data: Path | None = None) -> Json:
    """Raises ConfigError without captum, DataError without a model or where no history is long enough."""
    try:
        import captum  # noqa: F401
    except ImportError:
        raise ConfigError("captum is missing: pip install -c constraints.txt -e '.[attributions]'") from None
    prepared = load_prepared(data or OWN)
    folders = [Path("models") / name for name in ("challenger", "champion")]
    folder = next((each for each in folders if has_model(each)), None)
    if folder is None:
        raise DataError("no models/challenger nor models/champion here: run `evergreen cycle`")
    model = Recommender.load(folder, prepared.catalogue.items, prepared.log)
    seed = Params.load(Path("params.yaml")).seed
    users = number_of("USERS", USERS)
    curves, spent = measured(model, prepared, users, seed)
    figures: Json = {name: _row(falls, seed) for name, falls in curves.items()}
    for name, seconds in spent.items():
        figures[name]["milliseconds"] = 1000 * seconds
    figures["reason"] = {"milliseconds": 1000 * reason_seconds(model, prepared, users, seed)}
    oracle, named = figures["leave_one_out"]["without_1"], figures["named"]["without_1"]
    return {
        "name": "reasons",
        "conditions": {"users": len(curves["named"]), "listed_items": TOP, "history": HISTORY},
        "figures": figures,
        "ratios": {"named_of_leave_one_out": named / oracle if oracle else None},
    }


def _row(falls: np.ndarray, seed: int) -> Json:
    low, high = metrics.interval(metrics.user_bootstrap(falls[:, :1], REDRAWN, seed))
    found: Json = {f"without_{step}": float(falls[:, place].mean()) for place, step in enumerate(STEPS)}
    return found | {"without_1_low": float(low[0]), "without_1_high": float(high[0])}


def measured(
    model: Recommender, prepared: Prepared, users: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(attribution -> (users, steps) mean fall, attribution -> seconds a listed item)."""
    generator = np.random.default_rng(seed)
    points = prepared.test
    order = generator.permutation(np.flatnonzero(points.lengths >= HISTORY))
    _, first = np.unique(points.user[order], return_index=True)
    curves: dict[str, list[np.ndarray]] = {}
    spent: dict[str, list[float]] = {}
    for row in tqdm(order[np.sort(first)[:users]], desc="reasons", unit="user", disable=None):
        listed = Listed.of(model, points[row : row + 1])
        listed = replace(listed, top=listed.top[:TOP], score=listed.score[:TOP], owed=listed.owed[:TOP])
        item = _newest(listed)
        if len(item) <= max(STEPS):
            continue
        for name, attribute in attributions(listed, item, generator).items():
            begin = time.process_time()
            parts = attribute()  # (items, TOP)
            spent.setdefault(name, []).append((time.process_time() - begin) / parts.shape[1])
            curves.setdefault(name, []).append(_falls(listed, item, parts))
    if not curves:
        raise DataError(f"no test point has a history of {HISTORY} rows")
    seconds = {name: float(np.mean(each)) for name, each in spent.items() if name not in NO_METHOD}
    return {name: np.array(each) for name, each in curves.items()}, seconds


def _newest(listed: Listed) -> np.ndarray:
    """(at most HISTORY,) different items of the history, newest first."""
    start, stop = int(listed.point.start[0]), int(listed.point.stop[0])
    newest = listed.point.log.item[start:stop][::-1]
    _, first = np.unique(newest, return_index=True)
    found: np.ndarray = newest[np.sort(first)[:HISTORY]]
    return found


def attributions(
    listed: Listed, item: np.ndarray, generator: np.random.Generator
) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> a function that says what each of the items adds to each listed one, (items, TOP)."""
    import torch
    from captum.attr import KernelShap, Lime

    top = listed.items[0, listed.top]

    def masked(mask: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(listed.without(np.where(mask.numpy() > 0, -1, item)))

    def by_captum(method: Any) -> np.ndarray:
        inputs, nothing = torch.ones(1, len(item)), torch.zeros(1, len(item))
        asked = {"baselines": nothing, "n_samples": SAMPLES, "perturbations_per_eval": SAMPLES}
        torch.manual_seed(int(generator.integers(2**31)))
        parts = [method.attribute(inputs, target=place, **asked) for place in range(len(top))]
        return torch.cat(parts).numpy().T

    def named() -> np.ndarray:
        history = next(iter(listed.model.parts.ask(listed.point))).weights[5]
        parts = listed.model.parts.collaborative.ease.parts(history, top)
        cell = {int(each): row for row, each in enumerate(history.indices)}
        rows = [parts[cell[int(each)]] if int(each) in cell else np.zeros(len(top)) for each in item]
        return np.array(rows)

    return {
        "leave_one_out": lambda: listed.score - listed.without(item[:, None]),
        "named": named,
        "lime": lambda: by_captum(Lime(masked)),
        "kernel_shap": lambda: by_captum(KernelShap(masked)),
        "newest": lambda: np.repeat(-np.arange(len(item))[:, None], len(top), axis=1),
        "by_chance": lambda: generator.random((len(item), len(top))),
    }


def _falls(listed: Listed, item: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(steps,) mean over the listed items of the fall without the first so many, the greatest parts first."""
    removed = np.full((len(listed.top), len(STEPS), max(STEPS)), -1)
    for place in range(len(listed.top)):
        order = item[np.argsort(-parts[:, place], kind="stable")]
        for row, step in enumerate(STEPS):
            removed[place, row, :step] = order[:step]
    scores = listed.without(removed.reshape(-1, max(STEPS))).reshape(len(listed.top), len(STEPS), -1)
    own = scores[np.arange(len(listed.top)), :, np.arange(len(listed.top))]  # (TOP, steps)
    falls: np.ndarray = (listed.score[:, None] - own).mean(axis=0)
    return falls


def reason_seconds(model: Recommender, prepared: Prepared, users: int, seed: int) -> float:
    """CPU seconds of the service's reasons, a listed item of lists of ten."""
    from pipeline.serve.reasons import Explainer
    from pipeline.serve.single import One, single
    from pipeline.serve.state import Present

    present = Present(model.parts.living.live, prepared.user_ids)
    explainer = Explainer(replace(model, parts=single(model.parts)), present)
    names, spent, items = model.card["features"], 0.0, 0
    chosen = np.random.default_rng(seed).permutation(len(prepared.user_ids))[:users].astype(np.int32)
    none, now = np.full(len(chosen), -1, np.int32), np.full(len(chosen), prepared.now)
    points = prepared.log.points(chosen, none, now)
    for row in range(len(chosen)):
        asked = Asked(points[row : row + 1], len(prepared.catalogue))
        candidates = model.parts.candidates(asked)
        features = stacked(model.parts.columns(asked, candidates), names)[0]
        inputs = model.scorer.inputs(features)
        best = np.argsort(-model.scorer.of_inputs(inputs), kind="stable")[:10]
        one = One(points[row : row + 1], len(prepared.catalogue))
        begin = time.process_time()
        explainer.reasons(one, inputs, candidates[0], best, model.parts.living)
        spent, items = spent + time.process_time() - begin, items + len(best)
    return spent / items
