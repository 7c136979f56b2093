"""What each signal brings: nDCG@10 with all of them over without it, and over a shuffled copy of it.

In: data/prepared, or a folder like data/raw; without one also the embedded sets. Out: of each set and signal
both gains at the test points, with 95 % intervals (users drawn with replacement, paired), and what it costs.
Rule: light models (training/recipe.py: the same parts, un-tuned texts, no tower, no MLP), SEEDS of each,
whose figures are means over the seeds point by point; they differ in nothing but the signal. A shuffled copy
has the same values dealt to other items (of a graph: tails to other heads within a relation), so what it
brings over nothing is chance: a signal earns its place by the second gain. The live state has no such copy:
without it the state is that of the end of train. Cost: CPU seconds to fit and to list that the signal adds.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.bench._fits import fingerprint
from pipeline.bench.gate import load_with_vectors
from pipeline.data import tables
from pipeline.data.histories import Catalogue, Log, Prepared
from pipeline.errors import ConfigError
from pipeline.evaluation import metrics, tuning
from pipeline.evaluation.figures import HEADLINE
from pipeline.models.asked import Asked
from pipeline.models.baselines import train_rows
from pipeline.models.encoder import TextEncoder
from pipeline.models.modalities import label
from pipeline.models.parts import CHUNK
from pipeline.models.ranking import top_candidates
from pipeline.models.recommender import Recommender
from pipeline.models.sentiment import Sentiment, to_read
from pipeline.params import Params
from pipeline.training.recipe import Shared, light

OWN = Path("data/prepared")
EMBEDDED = ("movielens-100k", "ifdb")
SEEDS, K, SAMPLES = 2, 10, 1000

Json = dict[str, Any]
log = logging.getLogger(__name__)


def run(data: Path | None = None) -> Json:
    """`data`: that folder alone. Raises DataError if there are no data."""
    params = Params.load(Path("params.yaml"))
    found = dict(worlds(data, params))
    rows: Json = {}
    for name, (prepared, vectors) in found.items():
        rows |= {f"{name}: {signal}": row for signal, row in of_world(prepared, vectors, params.seed).items()}
    asked = {name: prepared.test for name, (prepared, _) in found.items()}
    sure = [name for name, row in rows.items() if _pays(row)]
    return {
        "name": "signals",
        "conditions": {
            "seeds": SEEDS,
            "users": {name: len(np.unique(points.user)) for name, points in asked.items()},
            "test_points": {name: len(points) for name, points in asked.items()},
        },
        "figures": rows,
        "ratios": {
            name: row["gain"] / row[HEADLINE] if row[HEADLINE] else None for name, row in rows.items()
        },
        "findings": [f"surely paid, over nothing and over the shuffled copy: {', '.join(sure) or 'nothing'}"],
    }


def worlds(data: Path | None, params: Params) -> Iterator[tuple[str, tuple[Prepared, np.ndarray]]]:
    """(name, (prepared data, un-tuned vectors)) of each set, once."""
    if data is not None:
        yield (
            data.resolve().parent.name if data.name in ("raw", "prepared") else data.name,
            _read(load_with_vectors(data, params), params),
        )
        return
    given = OWN
    known = set()
    if (given / "train.parquet").exists():
        one = _read(load_with_vectors(given, params), params)
        known.add(fingerprint(one[0]))
        yield "given", one
    for source in EMBEDDED:
        try:
            two = embedded(source, params)
        except ConfigError as error:
            log.warning("%s", error)
            continue
        if fingerprint(two[0]) not in known:
            yield source, two


def _read(one: tuple[Prepared, np.ndarray], params: Params) -> tuple[Prepared, np.ndarray]:
    """With rows liked as their texts read, where users wrote any without a value."""
    prepared, vectors = one
    if prepared.log.text is None:
        return one
    encoder = TextEncoder.load(params.finetune.encoder, params.finetune.max_length)
    sentiment = Sentiment.fit(prepared.log, train_rows(prepared.log), encoder.vectors)
    if sentiment is None:
        return one
    log.info("sentiment: Spearman %.3f with held-back values", sentiment.spearman)
    felt = sentiment.felt(prepared.log)
    validation, test = map(felt.points, (prepared.validation, prepared.test))
    return replace(prepared, log=felt.log, validation=validation, test=test), vectors


def embedded(source: str, params: Params) -> tuple[Prepared, np.ndarray]:
    """An embedded set as the stages make it. Raises ConfigError without its wheel."""
    from pipeline import sources
    from pipeline.stages.collect import collect

    settings = params.collect.model_copy(update={"source": source, "as_of": None, "feedback": None})
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "data" / "raw"
        raw.mkdir(parents=True)
        collect(lambda: sources.read(settings), settings, raw).write(raw / "manifest.json")
        return load_with_vectors(raw, params)


# Signals --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What light models differ in."""

    items: pd.DataFrame
    vectors: np.ndarray | None  # of texts
    until: int | None = None  # the state stands still there
    log: Log | None = None  # None: that of the prepared data

    def but(self, **changes: Any) -> Inputs:
        return replace(self, **changes)


Change = Callable[[Inputs, np.random.Generator], Inputs]


@dataclass(frozen=True)
class Signal:
    without: Change
    shuffled: Change | None


def signals(prepared: Prepared, vectors: np.ndarray) -> dict[str, Signal]:
    """Those that the data have."""
    items, found = prepared.catalogue.items, dict[str, Signal]()
    if vectors.any():
        found["text"] = Signal(lambda inputs, _: inputs.but(vectors=None), _other_texts)
    if _filled(items, tables.CATEGORIES).any():
        found["categories"] = _of_columns(tables.CATEGORIES)
    if set(tables.GRAPH) <= set(items):
        found["graph"] = Signal(
            lambda inputs, _: inputs.but(items=inputs.items.drop(columns=tables.GRAPH)), _other_tails
        )
    if any(_filled(items, name).any() for name in tables.WORDS):
        found["keywords"] = _of_columns(*tables.WORDS)
    for name in sorted(name for name in items if name.endswith(tables.VECTOR)):
        found[label(name.removesuffix(tables.VECTOR))] = _of_columns(name)
    if prepared.log.liked is not None:
        plain = replace(prepared.log, liked=None)
        found["sentiment"] = Signal(lambda inputs, _: inputs.but(log=plain), partial(_other_moods, plain))
    found["live_state"] = Signal(lambda inputs, _: inputs.but(until=prepared.train_end + 1), None)
    return found


def _other_moods(log: Log, inputs: Inputs, generator: np.random.Generator) -> Inputs:
    """What was read in rows without a value, dealt among them; `log`: without it."""
    assert inputs.log is not None
    read = to_read(log)
    liked = inputs.log.liked.copy()  # type: ignore[union-attr]
    liked[read] = liked[generator.permutation(read)]
    return inputs.but(log=replace(log, liked=liked))


def _of_columns(*names: str) -> Signal:
    """Of lists in columns of items, which stay together when they are dealt to others."""

    def without(inputs: Inputs, generator: np.random.Generator) -> Inputs:
        return inputs.but(items=inputs.items.drop(columns=[name for name in names if name in inputs.items]))

    def shuffled(inputs: Inputs, generator: np.random.Generator) -> Inputs:
        items = inputs.items
        there = np.flatnonzero(np.any([_filled(items, name) for name in names], axis=0))
        dealt = generator.permutation(there)
        columns = {}
        for name in names:
            if name in items:
                cells = items[name].to_numpy(dtype=object).copy()
                taken = np.empty(len(there), object)
                taken[:] = [cells[place] for place in dealt]
                cells[there] = taken
                columns[name] = pd.Series(cells, items.index, dtype=object)
        return inputs.but(items=items.assign(**columns))

    return Signal(without, shuffled)


def _as_list(cell: object) -> list[Any]:
    return list(cell) if isinstance(cell, list | np.ndarray) else []


def _filled(items: pd.DataFrame, name: str) -> np.ndarray:
    """(items,) bool: whose list in a column has any cell."""
    if name not in items:
        return np.zeros(len(items), bool)
    return np.array([len(_as_list(cell)) > 0 for cell in items[name]], bool)


def _other_texts(inputs: Inputs, generator: np.random.Generator) -> Inputs:
    assert inputs.vectors is not None
    vectors, there = inputs.vectors.copy(), np.flatnonzero(inputs.vectors.any(axis=1))
    vectors[there] = vectors[generator.permutation(there)]
    return inputs.but(vectors=vectors)


def _other_tails(inputs: Inputs, generator: np.random.Generator) -> Inputs:
    """The entities of each relation dealt anew: items and entities keep how many they have of it."""
    lists = inputs.items[tables.GRAPH].map(_as_list)
    flat = lists.explode(tables.GRAPH).dropna().reset_index(names="place")
    entities = flat.groupby(tables.GRAPH_RELATIONS)[tables.GRAPH_ENTITIES]
    flat[tables.GRAPH_ENTITIES] = entities.transform(lambda column: generator.permutation(column))
    dealt = flat.groupby("place")[tables.GRAPH].agg(list).reindex(range(len(lists)))
    columns = {name: list(map(_as_list, dealt[name])) for name in tables.GRAPH}
    return inputs.but(items=inputs.items.assign(**columns))


# Measuring ------------------------------------------------------------------------------------------------


def of_world(prepared: Prepared, vectors: np.ndarray, seed: int) -> dict[str, Json]:
    """Signal -> its row of the table."""
    whole, todo = (
        Inputs(prepared.catalogue.items, vectors if vectors.any() else None, log=prepared.log),
        signals(prepared, vectors),
    )
    gains: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    with tqdm(
        total=SEEDS * (1 + 2 * len(todo)), desc="signals", unit="model", disable=None, leave=False
    ) as bar:
        for number in range(seed, seed + SEEDS):
            court = Court(prepared, number)
            court.gain(whole)  # once beside: what models share is fitted
            generator = np.random.default_rng([number, 4])
            cases = {"all": whole} | {
                f"without {name}": s.without(whole, generator) for name, s in todo.items()
            }
            cases |= {f"other {n}": s.shuffled(whole, generator) for n, s in todo.items() if s.shuffled}
            for name, inputs in cases.items():
                begin = time.process_time()
                gains.setdefault(name, []).append(court.gain(inputs))
                seconds.setdefault(name, []).append(time.process_time() - begin)
                bar.update()
    mean = {name: np.mean(of, axis=0) for name, of in gains.items()}
    return {
        name: _row(mean, name, prepared.test.user, seed)
        | {"cpu_s": round(float(np.mean(seconds["all"]) - np.mean(seconds[f"without {name}"])), 2)}
        for name in todo
    }


def _row(mean: dict[str, np.ndarray], name: str, user: np.ndarray, seed: int) -> Json:
    row = {HEADLINE: metrics.mean_of_users(mean["all"], user)}
    for key, other in (("gain", f"without {name}"), ("over_shuffled", f"other {name}")):
        ends: tuple[Any, ...] = (None, None, None)
        if other in mean:
            of_users = metrics.group_means(mean["all"] - mean[other], user)
            low, high = metrics.interval(metrics.user_bootstrap(of_users[:, None], SAMPLES, seed))
            ends = (float(of_users.mean()), float(low[0]), float(high[0]))
        start = "" if key == "gain" else f"{key}_"
        row |= dict(zip((key, f"{start}low", f"{start}high"), ends, strict=True))
    return row


def _pays(row: Json) -> bool:
    """Both intervals lie above 0; what has no copy has one."""
    copy = row["over_shuffled_low"]
    return bool(row["low"] > 0 and (copy is None or copy > 0))


class Court:
    """Light models of one seed at the test points."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self.prepared, self.seed, self.shared = prepared, seed, Shared()
        self.rows, self.order = train_rows(prepared.log), tuning.frozen_order(prepared)
        self.asked = [Asked(chunk, len(prepared.catalogue)) for chunk in prepared.test.chunks(CHUNK)]

    def gain(self, inputs: Inputs) -> np.ndarray:
        """(test points,) nDCG@10."""
        prepared = self.prepared
        catalogue = replace(prepared.catalogue, items=inputs.items)
        log, shared, every = prepared.log, self.shared, self.asked
        if inputs.log is not None and inputs.log is not log:
            log, shared = inputs.log, Shared()
            every = [Asked(replace(asked.points, log=log), asked.items) for asked in every]
        model = light(log, self.rows, catalogue, inputs.vectors, self.seed, shared)
        if inputs.until is not None:
            model = model.with_state(inputs.until, "frozen")
        listed = np.concatenate([self._listed(model, catalogue, asked) for asked in every])
        return metrics.discounted(metrics.target_rank(listed, prepared.test.target), K)

    def _listed(self, model: Recommender, catalogue: Catalogue, asked: Asked) -> np.ndarray:
        items, scores = next(model.answers([asked]))
        return top_candidates(items, scores, asked.points, catalogue, self.order, K)[0]
