"""The stage's expressions on Spark give the tables that they give on DuckDB."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_data import START, catalogue, write_params, write_raw

from pipeline.data import tables as t
from pipeline.params import Params
from pipeline.stages import preprocess as stage

ROWS, USERS, ITEMS = 20_000, 300, 500
TABLES = (
    "train", "validation", "test_interactions", "validation_points", "test", "item_features", "user_features",
)  # fmt: skip
# For a program that runs once: no time is spent on making code that pays after many rows.
BRIEF = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def interactions() -> pd.DataFrame:
    """Several events, ties, repeats, rows without a value, refunds, and a column of their own."""
    random = np.random.default_rng(5)
    event = random.choice(["view", "rating", "purchase"], ROWS, p=[0.5, 0.4, 0.1])
    value = np.where(event == "rating", random.integers(1, 6, ROWS), np.round(random.normal(20, 30, ROWS), 2))
    hours = np.sort(random.integers(0, 24 * 90, ROWS))  # some nine rows of each hour
    return pd.DataFrame(
        {
            "user_id": [f"{n:04d}" for n in (USERS * random.random(ROWS) ** 2).astype(int)],
            "item_id": [f"i{n}" for n in (ITEMS * random.random(ROWS) ** 2).astype(int)],
            "timestamp": pd.Series([START + timedelta(hours=int(n)) for n in hours]).astype(t.MOMENT),
            "event": event,
            "value": np.where(event == "view", np.nan, value),
            "text": pd.Series(np.where(random.random(ROWS) < 0.1, "good", None), dtype="str"),
            "shop": random.integers(0, 3, ROWS),
        }
    )


def items() -> pd.DataFrame:
    """Half of them come late, a few leave, and some are in no interaction."""
    until = pd.Series([pd.NaT] * (ITEMS + 20), dtype=t.MOMENT)
    since = until.copy()
    since[::2] = pd.Timestamp(START + timedelta(days=80))
    until[::25] = pd.Timestamp(START + timedelta(days=85))
    ids = [f"i{n}" for n in range(ITEMS + 20)]
    return catalogue(ids, available_from=since, available_until=until)


@pytest.fixture
def spark(tmp_path: Path) -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java is not installed")
    # py4j tells of its end when pytest has closed the streams.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    building = sql.SparkSession.builder.master("local[1]")
    for key, value in (BRIEF | {"spark.sql.warehouse.dir": str(tmp_path / "warehouse")}).items():
        building = building.config(key, value)
    session = building.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


@pytest.mark.slow
def test_spark_makes_the_tables_that_duckdb_makes(spark: Any, tmp_path: Path) -> None:
    import ibis

    raw = write_raw(tmp_path / "raw", interactions(), items())
    params = write_params(tmp_path / "params.yaml", max_points_per_user=5, min_user_interactions=20)
    stage.main(raw, tmp_path / "prepared", params)
    spark.read.parquet(str(raw / "interactions")).drop("month").createOrReplaceTempView("interactions")
    found = stage.preprocess(
        ibis.pyspark.connect(spark),
        t.read_parquet(raw / "items.parquet", "items"),
        Params.load(params).preprocess,
    )
    told_of = json.loads((tmp_path / "prepared" / "summary.json").read_text())
    assert {key: told_of[key] for key in found.summary} == json.loads(json.dumps(found.summary))
    for name in TABLES:
        wanted = pd.read_parquet(tmp_path / "prepared" / f"{name}.parquet")
        told = found.tables[name].to_pandas()
        assert len(wanted) > 100, name
        assert list(told) == list(wanted)
        pd.testing.assert_frame_equal(told, wanted, check_dtype=False, obj=name)
