"""The one place that opens an engine for Ibis, names intermediate tables and writes Parquet in stable bytes.

The expressions themselves (pipeline/data/splitting.py) know no engine: any Ibis
connection that has the tables by name will do. Spark itself: pipeline/data/spark.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import ibis

from pipeline.errors import DataError
from pipeline.params import Preprocess
from pipeline.run import processors

MEMORY_LIMIT = 2 * 1024**3  # bytes; at most half of what the machine has
ROW_GROUP = 131_072  # rows; fixed, so that the bytes do not depend on how the engine cuts its batches


@contextmanager
def open_engine(settings: Preprocess, spill: Path) -> Iterator[ibis.BaseBackend]:
    """The engine of preprocess.engine, with the folder `spill` for what it keeps meanwhile."""
    if settings.engine == "duckdb":
        with duckdb_connection(spill) as connection:
            yield connection
    else:
        from pipeline.data import spark

        with spark.spark_connection(settings.spark_master, spill, memory_limit()) as connection:
            yield connection


@contextmanager
def duckdb_connection(spill: Path) -> Iterator[ibis.BaseBackend]:
    """An in-memory DuckDB that spills into the folder `spill`; its user errors become ours."""
    connection = ibis.duckdb.connect(
        memory_limit=f"{memory_limit()}B",
        threads=processors(),
        temp_directory=str(spill),
        TimeZone="UTC",
        autoinstall_known_extensions=False,
    )
    try:
        yield connection
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"not enough memory, or room in {spill}, for the interactions (DuckDB: {_first_line(error)}): "
            "free some, or collect a shorter span"
        ) from None
    except RuntimeError as error:
        if "interrupted" in str(error).lower():  # how DuckDB reports Ctrl-C within a query
            raise KeyboardInterrupt from None
        raise
    except duckdb.Error as error:
        if "no space left" in str(error).lower():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(spill)) from None
        raise
    finally:
        connection.disconnect()


def read_parquet(connection: ibis.BaseBackend, paths: list[Path], name: str) -> ibis.Table:
    """Parquet files as the view `name`; columns that a file lacks are null. Raises DataError if damaged."""
    if connection.name == "pyspark":
        from pipeline.data import spark

        return spark.read_parquet(connection, paths, name)
    try:
        return connection.read_parquet(
            [str(path) for path in paths], table_name=name, union_by_name=True, hive_partitioning=False
        )
    except duckdb.Error as error:
        raise DataError(
            f"{paths[0].parent}: not readable as Parquet ({_first_line(error)}): run `dvc repro -f collect`"
        ) from None


def named(connection: ibis.BaseBackend, name: str, expression: ibis.Table) -> ibis.Table:
    """Compute once and keep as a new table: used twice, but `.cache()` would never free it."""
    # Neither overwrite=True nor a bare DataFrame: both drop something, in SQL that ibis 12 with sqlglot 30
    # gets wrong.
    return connection.create_table(name, expression)


def write_parquet(table: ibis.Table, path: Path) -> None:
    """The rows in their order. The same rows give the same bytes, whatever the number of threads."""
    if table.get_backend().name == "pyspark":
        from pipeline.data import spark

        with spark.parts_of(table, path) as parts, duckdb_connection(path.parent) as connection:
            write_parquet(read_parquet(connection, parts, "parts"), path)
        return
    table.to_parquet(path, compression="zstd", row_group_size=ROW_GROUP)


def memory_limit() -> int:
    """Bytes for an engine."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control groups, or "max"
        # A container may have less than its machine.
        available = min(available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(MEMORY_LIMIT, available // 2)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
