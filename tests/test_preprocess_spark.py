"""preprocess.engine: Spark gives the tables that DuckDB gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ports import free_port
from small_data import START, catalogue, write_params, write_raw
from waiting import PATIENCE_SECONDS, until

from pipeline.data import spark, tables
from pipeline.errors import ConfigError
from pipeline.stages import preprocess as stage

ROWS, USERS, ITEMS = 20_000, 300, 500
TABLES = ("train", "validation", "test_interactions", "validation_points", "test")


# For a program that runs once: no time is spent on making code that pays after many rows.
BRIEF = """
spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
spark.executor.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
spark.executor.memory 512m
spark.sql.shuffle.partitions 2
spark.sql.adaptive.enabled false
spark.sql.codegen.factoryMode NO_CODEGEN
spark.sql.codegen.wholeStage false
"""


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
            "timestamp": pd.Series([START + timedelta(hours=int(n)) for n in hours]).astype(tables.MOMENT),
            "event": event,
            "value": np.where(event == "view", np.nan, value),
            "text": pd.Series(np.where(random.random(ROWS) < 0.1, "good", None), dtype="str"),
            "shop": random.integers(0, 3, ROWS),
        }
    )


def items() -> pd.DataFrame:
    """Half of them come late, a few leave, and some are in no interaction."""
    until = pd.Series([pd.NaT] * (ITEMS + 20), dtype=tables.MOMENT)
    since = until.copy()
    since[::2] = pd.Timestamp(START + timedelta(days=80))
    until[::25] = pd.Timestamp(START + timedelta(days=85))
    ids = [f"i{n}" for n in range(ITEMS + 20)]
    return catalogue(ids, available_from=since, available_until=until)


def raw(folder: Path) -> Path:
    """Of two months the later one lacks the shop's column, or has it in a narrower type."""
    made = write_raw(folder, interactions(), items())
    [first, *_, last] = sorted((made / "interactions").rglob("*.parquet"))
    tables.write_parquet(pd.read_parquet(first).drop(columns=["shop", "month"], errors="ignore"), first)
    frame = pd.read_parquet(last).drop(columns=["month"], errors="ignore")
    tables.write_parquet(frame.assign(shop=frame["shop"].astype("int32")), last)
    return made


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """The address of a master with one worker, by the classes of pyspark's own jars, on loopback."""
    home = Path(spark.importlib.util.find_spec("pyspark").submodule_search_locations[0])
    port, page = free_port(), free_port()
    variables = os.environ | {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    variables |= {"SPARK_DAEMON_MEMORY": "256m", "SPARK_CONF_DIR": str(folder)}
    master, deploy = f"spark://127.0.0.1:{port}", "org.apache.spark.deploy"
    worker = f"--host 127.0.0.1 --webui-port 0 --cores 1 --memory 1g --work-dir {folder}/work {master}"
    sides = {
        "master.Master": f"--host 127.0.0.1 --port {port} --webui-port {page}",
        "worker.Worker": worker,
    }
    started: list[subprocess.Popen[bytes]] = []
    with (folder / "cluster.log").open("w") as log:
        try:
            for side, told in sides.items():
                command = [str(home / "bin" / "spark-class"), f"{deploy}.{side}", *told.split()]
                started.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log))
            wait_for_worker(f"http://127.0.0.1:{page}/json/")
            yield master
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(PATIENCE_SECONDS)


def wait_for_worker(page: str) -> None:
    def works() -> bool:
        with suppress(OSError, ValueError), urllib.request.urlopen(page, timeout=10) as answer:
            return bool(json.load(answer)["aliveworkers"] == 1)
        return False

    until(works, lambda: f"{page}: no worker came")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "cluster"])
def test_spark_makes_the_tables_that_duckdb_makes(tmp_path: Path, where: str) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java is not installed")
    source = raw(tmp_path / "raw")
    (tmp_path / "spark-defaults.conf").write_text(BRIEF)
    prepare(source, tmp_path, "duckdb", None)
    if where == "here":
        prepare(source, tmp_path, "spark", "local[1]")
    else:
        with standalone(tmp_path) as master:
            prepare(source, tmp_path, "spark", master)
        assert len(list((tmp_path / "work").glob("app-*/0"))) == 1, "the worker computed nothing"
    ours, theirs = tmp_path / "duckdb", tmp_path / "spark"
    names = sorted(path.name for path in ours.iterdir())
    assert sorted(path.name for path in theirs.iterdir()) == names
    assert {f"{name}.parquet" for name in TABLES} < set(names)
    for name in TABLES:
        wanted, found = (pd.read_parquet(folder / f"{name}.parquet") for folder in (ours, theirs))
        assert len(wanted) > 100, name
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, obj=name)
    for name in ("items.parquet", "summary.json", "test.parquet", "validation_points.parquet"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def prepare(source: Path, folder: Path, engine: str, master: str | None) -> None:
    """The stage with this engine, into the folder of its name."""
    params = write_params(
        folder / f"{engine}.yaml",
        engine=engine,
        spark_master=master,
        max_points_per_user=5,
        min_user_interactions=20,
    )
    command = [sys.executable, "-m", "pipeline.stages.preprocess", source, folder / engine]
    variables = os.environ | {"SPARK_CONF_DIR": str(folder)}
    done = subprocess.run(
        [*command, "--params", params], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_spark_needs_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = raw(tmp_path / "raw")
    params = write_params(tmp_path / "params.yaml", engine="spark")
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"preprocess\.engine: spark: pyspark is not installed: run `pip"):
        stage.main(source, tmp_path / "prepared", params)
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no java in JAVA_HOME \(.*install Java 17 or later"):
        stage.main(source, tmp_path / "prepared", params)
    assert not list(tmp_path.glob("*prepared*"))
