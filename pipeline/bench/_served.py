"""A project to serve of any size: made-up interactions and items, and a model folder of their shape.

Nothing is fitted (that would take hours at 100,000 items), so lists mean nothing; arrays have the sizes, the
sparsity and the skew that a training leaves, and the encoder is the one that params.yaml names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from pipeline.bench._asked import number_of
from pipeline.data import tables
from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue, Log
from pipeline.documents.model import Card
from pipeline.models.artifacts import folder_hash
from pipeline.models.asked import Asked
from pipeline.models.baselines import Factors, ItemMatrix
from pipeline.models.collaborative import (
    IALS_ALPHA,
    IALS_FACTORS,
    IALS_REGULARISATIONS,
    KEPT_NEIGHBOURS,
    KNN_NEIGHBOURS,
    Collaborative,
)
from pipeline.models.encoder import TextEncoder
from pipeline.models.kinds import Kinds
from pipeline.models.living import Living
from pipeline.models.parts import Parts
from pipeline.models.preparation import Preparation
from pipeline.models.recommender import Recommender, save
from pipeline.models.ridge import Ridge
from pipeline.models.scorer import Scorer
from pipeline.models.state import half_lives
from pipeline.models.text import Facts, Text
from pipeline.params import Params
from pipeline.training.networks import ScorerNetwork, SequenceTower

DAYS, EASE_ITEMS, WIDTH = 360, 8_000, 384
GENRES = [f"genre {number}" for number in range(40)]


@dataclass(frozen=True)
class Size:
    items: int = 100_000
    rows: int = 1_000_000
    users: int = 50_000

    @classmethod
    def asked(cls) -> Size:
        """With what EVERGREEN_BENCH_ITEMS, _ROWS and _USERS name."""
        return cls(
            **{name: number_of(name.upper(), getattr(cls, name)) for name in ("items", "rows", "users")}
        )


def make(root: Path, size: Size, seed: int = 17) -> None:
    """data/raw and models/champion (v1.0.0) in an empty folder."""
    generator = np.random.default_rng(seed)
    settings = Params.load(Path("params.yaml"))
    rows, items = interactions(size, generator), catalogue(size, generator)
    months = rows[tables.TIME].dt.strftime("%Y-%m")
    for month, part in rows.groupby(months):
        tables.write_parquet(part, root / "data/raw/interactions" / f"month={month}" / "part-0.parquet")
    tables.write_parquet(items, root / "data/raw/items.parquet")
    end = rows[tables.TIME].max()
    card: dict[str, Any] = {
        "name": "challenger",
        "as_of": end.isoformat(),
        "fit_end": (end - timedelta(days=20)).isoformat(),
        "train_end": (end - timedelta(days=40)).isoformat(),
        "max_length": settings.finetune.max_length,
        "preprocess": settings.preprocess.model_dump(mode="json"),
    }
    how = Preparation.of(Card.model_validate(card))
    assert how is not None
    table, log, _ = how.apply(rows, items)
    encoder = TextEncoder.load(settings.finetune.encoder, settings.finetune.max_length)
    model = recommender(table, log, generator)
    folder = root / "models/champion"
    save(folder, card | {"features": model.card["features"]}, model, encoder)
    claim(folder, "v1.0.0")


def claim(folder: Path, version: str) -> None:
    told = {"version": version, "artifact_hash": folder_hash(folder)}
    beside = folder / "version.json.partial"
    beside.write_text(json.dumps(told))
    beside.replace(folder / "version.json")


def interactions(size: Size, generator: np.random.Generator) -> pd.DataFrame:
    """Skewed in users and items; the last row is now."""
    user = (size.users * generator.random(size.rows) ** 1.5).astype(int)
    item = (size.items * generator.random(size.rows) ** 3).astype(int)
    ago = np.sort(generator.integers(0, DAYS * MICROSECONDS_A_DAY, size.rows))[::-1]
    time = pd.to_datetime(datetime.now(UTC)).as_unit("us") - pd.to_timedelta(ago, unit="us")
    return pd.DataFrame(
        {
            tables.USER: pd.Series([f"u{number}" for number in user], dtype="str"),
            tables.ITEM: pd.Series([f"i{number}" for number in item], dtype="str"),
            tables.TIME: pd.Series(time).astype(tables.MOMENT),
            tables.EVENT: pd.Series("rating", index=range(size.rows), dtype="str"),
            tables.VALUE: generator.integers(1, 6, size.rows).astype(float),
            tables.TEXT: pd.Series(None, index=range(size.rows), dtype="str"),
        }
    )


def catalogue(size: Size, generator: np.random.Generator) -> pd.DataFrame:
    kinds = generator.integers(0, len(GENRES), (size.items, 2))
    never = pd.Series(pd.NaT, index=range(size.items), dtype=tables.MOMENT)
    return pd.DataFrame(
        {
            tables.ITEM: pd.Series([f"i{number}" for number in range(size.items)], dtype="str"),
            tables.TITLE: pd.Series([f"Item number {number}" for number in range(size.items)], dtype="str"),
            tables.TEXT: pd.Series(None, index=range(size.items), dtype="str"),
            tables.CATEGORIES: [[GENRES[one], GENRES[other]] for one, other in kinds],
            tables.AVAILABLE_FROM: never,
            tables.AVAILABLE_UNTIL: never,
        }
    )


def recommender(table: pd.DataFrame, log: Log, generator: np.random.Generator) -> Recommender:
    items = Catalogue.of(table)
    count = np.bincount(log.item, minlength=len(items))
    known = count > 0
    vectors = _unit(generator.normal(size=(len(items), WIDTH)).astype(np.float32))
    factors = (generator.normal(size=(len(items), IALS_FACTORS)) * known[:, None] / 8).astype(np.float32)
    popular = np.sort(np.argsort(-count, kind="stable")[:EASE_ITEMS]).astype(np.int32)
    collaborative = Collaborative(
        ease=_matrix(len(items), popular, KEPT_NEIGHBOURS, generator),
        knn=_matrix(len(items), np.flatnonzero(known).astype(np.int32), KNN_NEIGHBOURS, generator),
        rules=_matrix(len(items), np.flatnonzero(known).astype(np.int32), KNN_NEIGHBOURS, generator),
        ials=Factors(factors, known, IALS_REGULARISATIONS[0], IALS_ALPHA),
        count=count.astype(np.float32),
        value=np.zeros(len(items), np.float32),
        liked=np.zeros(len(items), np.float32),
    )
    torch.manual_seed(1)
    sequence = SequenceTower(known, vectors).sequence()
    facts = Facts.of(items)
    width = WIDTH + len(facts.categories) + 4
    expected = (generator.normal(size=(len(items), IALS_FACTORS)) / 8).astype(np.float32)
    ridge = Ridge(np.zeros((width, IALS_FACTORS + 1)), np.zeros(width), np.zeros(IALS_FACTORS + 1))
    text = Text(vectors, expected, np.log1p(count).astype(np.float32), facts, ridge)
    living = Living.of(log, items, half_lives(log.time), collaborative.ials)
    parts = Parts(items, collaborative, sequence, text, Kinds.of(items), living)
    names, scorer = _scored(parts, log)
    return Recommender("challenger", {"features": names}, parts, scorer, np.zeros(WIDTH, np.float32))


def _scored(parts: Parts, log: Log) -> tuple[list[str], Scorer]:
    """The features' names, and a scorer of that width with random weights."""
    end = np.array([int(log.time.max()) + 1])
    asked = Asked(log.points(np.zeros(1, np.int32), np.full(1, -1, np.int32), end), len(parts.catalogue))
    columns = parts.columns(asked, parts.candidates(asked))
    network = ScorerNetwork(len(columns))
    features = np.stack(list(columns.values()), axis=-1).astype(np.float32)
    network.standardise(features, np.ones(features.shape[:2], bool))
    with torch.no_grad():
        network.linear.weight.normal_(std=0.3)
        torch.nn.init.normal_(network.mlp[-1].weight, std=0.1)  # type: ignore[arg-type]
    return list(columns), network.scorer()


def _matrix(items: int, kept: np.ndarray, each: int, generator: np.random.Generator) -> ItemMatrix:
    """So many random neighbours of each kept item."""
    each = min(each, len(kept))
    row = (len(kept) * generator.random(len(kept) * each) ** 2).astype(np.int32)
    column = np.repeat(np.arange(len(kept), dtype=np.int32), each)
    value = generator.random(len(row), dtype=np.float32) / 10
    return ItemMatrix(
        items, kept, sp.csr_matrix((value, (row, column)), shape=(len(kept), len(kept)))
    ).quick()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
