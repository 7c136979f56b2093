"""What DuckDB's own errors become."""

import errno
from pathlib import Path

import duckdb
import ibis
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.data.engine import ROW_GROUP, duckdb_connection, named, read_parquet, write_parquet
from pipeline.errors import DataError


def test_the_disk_filled_by_spilling_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as error, duckdb_connection(tmp_path):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")
    assert error.value.errno == errno.ENOSPC


def test_interrupting_a_query_is_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), duckdb_connection(tmp_path):
        raise RuntimeError("Query interrupted")


def test_too_little_memory_names_the_cure(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"not enough memory.*collect a shorter span"),
        duckdb_connection(tmp_path),
    ):
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed to pin block\nmore")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), duckdb_connection(tmp_path):
        raise RuntimeError("a bug")


def test_files_that_lack_a_column_are_read_together(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"a": [2]}).to_parquet(tmp_path / "2.parquet")
    with duckdb_connection(tmp_path / "spill") as connection:
        table = read_parquet(connection, [tmp_path / "1.parquet", tmp_path / "2.parquet"], "both")
        rows = table.order_by("a").to_pandas()
    assert rows["a"].tolist() == [1, 2]
    assert rows["b"].isna().tolist() == [False, True]


def test_rows_are_written_in_their_order_in_groups_of_one_size(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(ROW_GROUP + 10)})
    with duckdb_connection(tmp_path / "spill") as connection:
        table = named(connection, "numbers", ibis.memtable(frame))
        write_parquet(table.order_by(ibis.desc("n")), tmp_path / "out.parquet")
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(2)] == [ROW_GROUP, 10]
    assert file.read()["n"].to_pylist() == list(range(ROW_GROUP + 10))[::-1]
