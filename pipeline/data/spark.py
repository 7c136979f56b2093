"""Spark for Ibis: on this machine or a cluster, opened when preprocess.engine asks for it.

Whoever computes for a cluster reads the raw files and writes parts of tables itself, so each of its machines
needs this folder at the same path (a shared file system).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import ibis
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, DataError

KEY = "params.yaml: preprocess.engine: spark"
SETTINGS = {
    "spark.app.name": "evergreen",
    "spark.log.level": "ERROR",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
}
ALONE = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "16",  # 200 by default: for a cluster
    "spark.ui.enabled": "false",
}
"""Of a Spark on this machine; for a cluster Spark's own files (SPARK_CONF_DIR) say what else is to be."""


@contextmanager
def spark_connection(master: str | None, spill: Path, memory: int) -> Iterator[ibis.BaseBackend]:
    """A session of its own. Raises ConfigError if Spark or Java is missing or the master does not answer."""
    check_installed()
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    alone = master is None or master.startswith("local")
    settings = SETTINGS | {"spark.sql.warehouse.dir": str((spill / "tables").absolute())}
    if alone:
        settings |= ALONE | {"spark.local.dir": str(spill.absolute())}
        settings |= {"spark.driver.memory": f"{memory // 2**20}m"}
    building = SparkSession.builder.master(master or "local[*]")
    for key, value in settings.items():
        building = building.config(key, value)
    try:
        session = building.getOrCreate()
    except (Py4JError, PySparkException, OSError) as error:
        raise ConfigError(
            f"{KEY} (spark_master: {master or 'local[*]'}): it does not start ({first_line(error)}): it "
            "needs Java 17 or later, and a master that answers"
        ) from None
    try:
        yield ibis.pyspark.connect(session)
    except (Py4JError, PySparkException) as error:
        raise DataError(
            f"Spark: {first_line(error)}: its log is above; preprocess.engine: duckdb needs none"
        ) from error
    finally:
        session.stop()


def check_installed() -> None:
    """Raises ConfigError if the extra `spark` or Java is missing."""
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError(
            f"{KEY}: pyspark is not installed: run `pip install -c constraints.txt -e '.[spark]'`, or set "
            "duckdb"
        )
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise ConfigError(f"{KEY}: no java {where}: install Java 17 or later, or set duckdb")


def read_parquet(connection: ibis.BaseBackend, paths: list[Path], name: str) -> ibis.Table:
    """Parquet files as the view `name`; columns that a file lacks are null. Raises DataError if damaged."""
    from pyspark.errors import PySparkException

    alike: dict[Any, list[str]] = {}  # Spark alone would not read int and long together
    try:
        for path in paths:
            schema = pq.read_schema(path).remove_metadata()
            alike.setdefault(schema.to_string(), []).append(str(path.absolute()))
        # Without a base path the folders' names (month=2020-01) would become a column.
        reader = connection._session.read.option("recursiveFileLookup", "true")
        frames = [reader.parquet(*files) for files in alike.values()]
        frame = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), frames)
    except (OSError, ValueError, PySparkException) as error:
        raise DataError(
            f"{paths[0].parent}: not readable as Parquet ({first_line(error)}): run `dvc repro -f collect`"
        ) from None
    frame.createOrReplaceTempView(name)
    return connection.table(name)


@contextmanager
def parts_of(table: ibis.Table, path: Path) -> Iterator[list[Path]]:
    """Parquet files with the table's rows, in the order of the files, beside `path` for a while."""
    folder = path.with_suffix(".parts")
    try:
        table.to_parquet(str(folder.absolute()))
        yield sorted(folder.glob("part-*.parquet"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")[:300]
