"""What preparing millions of interactions costs, and how much of it pandas would take.

In: nothing, or a folder like data/raw, to be prepared instead of the largest synthetic one. Out: CPU seconds
and peak memory of whole processes. Rule: synthetic rows of 200,000 users and 50,000 items (popularity as in
Zipf's law, two years) go through the stage at MANY rows; at FEW rows through the stage and through the same
steps in pandas (pipeline/bench/_pandas_steps.py), whose tables are the same. Where pyspark and Java are
there, Spark makes the MANY rows' tables as well, on this machine; its Java counts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from pipeline.bench._process import measured
from pipeline.data import tables

MANY, FEW = 10_000_000, 1_000_000
USERS, ITEMS, MONTHS = 200_000, 50_000, 24
SEED = 0
START = pd.Timestamp("2022-01-01", tz="UTC")

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if a process fails."""
    with tempfile.TemporaryDirectory(prefix="evergreen-") as temporary:
        folder = Path(temporary)
        few = synthetic(folder / "few", FEW)
        many = data or synthetic(folder / "many", MANY)
        figures = {
            "stage": _stage(many, folder / "a"),
            f"stage_{FEW}": _stage(few, folder / "b"),
            f"pandas_{FEW}": measured("pipeline.bench._pandas_steps", few, folder / "c"),
        }
        if importlib.util.find_spec("pyspark") and shutil.which("java"):
            figures["spark"] = _stage(many, folder / "d", "spark")
    return summary(figures, data is not None)


def summary(figures: dict[str, Json], given: bool) -> Json:
    whole, stage, pandas = (figures[name] for name in ("stage", f"stage_{FEW}", f"pandas_{FEW}"))
    seconds = pandas["cpu_seconds"] / stage["cpu_seconds"]
    ratios = {
        "pandas_cpu_over_stage": seconds,
        "pandas_memory_over_stage": pandas["peak_gib"] / stage["peak_gib"],
    }
    if "spark" in figures:
        ratios["spark_wall_over_stage"] = figures["spark"]["wall_seconds"] / whole["wall_seconds"]
    return {
        "name": "preprocess",
        "conditions": {"rows": "as given" if given else MANY, "rows_compared": FEW, "cpus": os.cpu_count()},
        "figures": figures,
        "ratios": ratios,
        "findings": [
            f"{whole['cpu_seconds']:.0f} CPU seconds and {whole['peak_gib']:.1f} GiB at most",
            f"at {FEW:,} rows pandas takes {seconds:.1f} times the CPU seconds",
            *_of_spark(figures),
        ],
    }


def _of_spark(figures: dict[str, Json]) -> list[str]:
    if "spark" not in figures:
        return []
    spark = figures["spark"]
    return [f"Spark here: {spark['cpu_seconds']:.0f} CPU seconds and {spark['peak_gib']:.1f} GiB at most"]


def synthetic(folder: Path, rows: int) -> Path:
    """A folder like data/raw, month by month, so that it needs little memory."""
    generator = np.random.default_rng(SEED)
    ids = pd.Series([f"i{place}" for place in range(ITEMS)], dtype="str")
    popularity = 1 / np.arange(1, ITEMS + 1)
    chances = np.cumsum(popularity / popularity.sum())
    starts = pd.date_range(START, periods=MONTHS + 1, freq="MS")
    for month in tqdm(range(MONTHS), desc="synthetic rows", unit="month", disable=None, leave=False):
        count = rows // MONTHS
        begin, end = (stamp.value // 1000 for stamp in starts[month : month + 2])
        item = np.minimum(np.searchsorted(chances, generator.random(count)), ITEMS - 1)
        user = (USERS * generator.random(count) ** 2).astype(np.int64)
        frame = pd.DataFrame(
            {
                tables.USER: pd.Series(user).astype("str"),
                tables.ITEM: ids.to_numpy()[item],
                tables.TIME: pd.to_datetime(
                    np.sort(generator.integers(begin, end, count)), unit="us", utc=True
                ),
                tables.EVENT: "rating",
                tables.VALUE: generator.integers(1, 6, count).astype(np.float64),
                tables.TEXT: None,
            }
        )
        name = f"month={starts[month]:%Y-%m}/part-0.parquet"
        tables.write_parquet(
            frame.astype({tables.TIME: tables.MOMENT, tables.TEXT: "str"}), folder / "interactions" / name
        )
    items = pd.DataFrame(
        {tables.ITEM: ids, tables.TITLE: "Item " + ids, tables.TEXT: None, tables.CATEGORIES: [["a"]] * ITEMS}
    )
    never = pd.Series([pd.NaT] * ITEMS, dtype=tables.MOMENT)
    items = items.assign(**{tables.AVAILABLE_FROM: never, tables.AVAILABLE_UNTIL: never}).astype(
        {tables.TEXT: "str"}
    )
    tables.write_parquet(items, folder / "items.parquet")
    (folder / "manifest.json").write_text('{"as_of": "2024-01-01T00:00:00+00:00", "content_hash": "0"}')
    return folder


def _stage(raw: Path, prepared: Path, engine: str = "duckdb") -> Json:
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    settings["preprocess"] |= {"engine": engine, "spark_master": None}
    params = prepared.with_suffix(".yaml")
    params.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return measured("pipeline.stages.preprocess", raw, prepared, "--params", params)
