"""Ranking a catalogue of 100,000 items: points a second, and memory, which chunks bound.

In: nothing, or a folder like data/prepared or data/raw, whose validation points are then ranked. Out: CPU
seconds and the memory that ranking takes beside what the models hold. Rule: synthetic rows (popularity as in
Zipf's law) at FEW and at MANY items; the models are fitted, but networks are as they are made and texts are
random vectors, which costs what trained ones cost. Bounded: with five times the points a model takes no more
memory.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pipeline.bench.gate import load
from pipeline.data import tables
from pipeline.data.histories import TRAIN, Catalogue, Log, Points
from pipeline.models import baselines
from pipeline.models.parts import CHUNK
from pipeline.models.popular import LivePopularity
from pipeline.models.ranking import Model, popularity_order, rank_points
from pipeline.models.recommender import Recommender
from pipeline.training import recipe
from pipeline.training.networks import ScorerNetwork, SequenceTower, one_thread

FEW, MANY = 10_000, 100_000
ROWS, USERS, WIDTH, K = 50_000, 2_000, 384, 20
POINTS = 1_024  # whose time is taken
MORE = 5  # times as many for the second peak
SEED = 0

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if the folder holds no data."""
    figures: dict[str, Json] = {}
    sizes = ["given"] if data else [str(FEW), str(MANY)]
    with one_thread(), tqdm(total=3 * len(sizes), unit="model", disable=None, leave=False) as bar:
        for size in sizes:
            catalogue, points = _given(data) if data else synthetic(int(size))
            for name, model in _models(catalogue, points).items():
                bar.set_postfix_str(f"{name} at {size} items")
                figures[f"{name}_{size}"] = measure(model, points, catalogue)
                bar.update()
    challengers = [f"challenger_{size}" for size in sizes]
    speed = figures[challengers[-1]]["points_per_second"]
    return {
        "name": "evaluate",
        "conditions": {"items": sizes, "rows": "as given" if data else ROWS, "list_length": K},
        "figures": figures,
        "ratios": ratios(figures, challengers),
        "findings": [f"of {sizes[-1]} items the challenger ranks {speed:.1f} points a CPU second"],
    }


def synthetic(items: int) -> tuple[Catalogue, Points]:
    """ROWS rows of train over a catalogue of that size, and as many points as the users can ask."""
    generator = np.random.default_rng(SEED)
    chances = np.cumsum(1 / np.arange(1, items + 1))
    user = np.sort((USERS * generator.random(ROWS) ** 2).astype(np.int32))
    item = np.searchsorted(chances / chances[-1], generator.random(ROWS)).astype(np.int32)
    names = [f"i{place:06d}" for place in range(items)]
    frame = pd.DataFrame(
        {tables.ITEM: names, tables.CATEGORIES: [[f"c{place % 20}"] for place in range(items)]}
    )
    log = Log(
        user=user,
        item=np.minimum(item, items - 1),
        time=np.arange(ROWS, dtype=np.int64),
        value=np.ones(ROWS, np.float32),
        positive=np.ones(ROWS, bool),
        fit=np.ones(ROWS, bool),
        window=np.full(ROWS, TRAIN, np.int8),
        indptr=np.r_[0, np.cumsum(np.bincount(user, minlength=USERS))].astype(np.int64),
    )
    chosen = generator.permutation(ROWS)
    return Catalogue.of(frame), log.points(user[chosen], log.item[chosen], log.time[chosen])


def _given(data: Path) -> tuple[Catalogue, Points]:
    prepared = load(data)[0]
    return prepared.catalogue, prepared.validation


def _models(catalogue: Catalogue, points: Points) -> dict[str, Model]:
    rows = baselines.train_rows(points.log)
    model = _challenger(catalogue, points.log, rows)
    ease = model.parts.collaborative.ease
    return {
        "challenger": model,
        "ease": baselines.HistoryScorer("ease", len(catalogue), ease.score, 5.0),
        "popularity": LivePopularity.of("popularity", points.log, len(catalogue), np.inf),
    }


def _challenger(catalogue: Catalogue, log: Log, rows: np.ndarray) -> Recommender:
    torch.manual_seed(SEED)
    vectors = np.random.default_rng(SEED).standard_normal((len(catalogue), WIDTH), dtype=np.float32)
    light = recipe.light(log, rows, catalogue, vectors, SEED)
    parts, known = light.parts, light.parts.collaborative.count > 0
    parts = replace(parts, sequence=SequenceTower(known, light.text).sequence())
    asked = next(parts.ask(log.points(log.user[:1], log.item[:1], log.time[:1] + 1)))
    features = list(parts.columns(asked, parts.candidates(asked)))
    scorer = ScorerNetwork(len(features)).scorer()
    return Recommender("challenger", {"features": features}, parts, scorer, None)


def measure(model: Model, points: Points, catalogue: Catalogue) -> Json:
    """Figures of ranking POINTS points, and the memory of MORE times as many."""
    order = popularity_order(np.arange(len(catalogue), dtype=np.float64), catalogue.ids)

    def rank(count: int) -> Callable[[], object]:
        return lambda: rank_points(model, points[:count], catalogue, order, K)

    rank(CHUNK)()  # lays out what is laid out once
    count = min(POINTS, len(points))
    begin = time.process_time()
    peak = memory(rank(count))
    spent = time.process_time() - begin
    more = memory(rank(min(MORE * count, len(points))))
    return {
        "points_per_second": count / spent,
        "peak_gib": peak,
        "peak_gib_with_more_points": more,
    }


def memory(work: Callable[[], object]) -> float | None:
    """GiB that `work` takes at most beside what was taken before; None where the system does not tell."""
    told = Path("/proc/self/status")
    with suppress(OSError, AttributeError):  # no glibc, no /proc
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, or it would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = _status(told, "VmRSS")
        work()
        return max(0.0, _status(told, "VmHWM") - before)
    work()
    return None


def _status(path: Path, name: str) -> float:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 2**20


def ratios(figures: dict[str, Json], challengers: list[str]) -> Json:
    """Points a second of the largest catalogue over the smallest; memory with more points over with fewer."""
    first, last = figures[challengers[0]], figures[challengers[-1]]
    found: Json = {
        "points_per_second_largest_over_smallest": last["points_per_second"] / first["points_per_second"]
    }
    for name, figure in figures.items():
        if figure["peak_gib"] and figure["peak_gib_with_more_points"] is not None:
            found[f"memory_with_more_points_{name}"] = (
                figure["peak_gib_with_more_points"] / figure["peak_gib"]
            )
    return found
