from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.partitions import Partitions, Written
from pipeline.data.tables import EVENT, ITEM, MOMENT, TEXT, TIME, USER, VALUE, read_parquet


def frame(*rows: tuple[str, str, str], **further: object) -> pd.DataFrame:
    """Rows of user, item, time."""
    users, items, times = zip(*rows, strict=True)
    moments = pd.to_datetime(pd.Series(times), format="ISO8601", utc=True).astype(MOMENT)
    table = pd.DataFrame({USER: users, ITEM: items, TIME: moments, EVENT: "view", VALUE: 1.0})
    return table.assign(**{TEXT: pd.Series(None, table.index, dtype="str"), **further})


def write(folder: Path, *frames: pd.DataFrame, budget: int = 1 << 20) -> Written:
    partitions = Partitions(folder / "spill", budget)
    for table in frames:
        partitions.add(table)
    return partitions.write(folder / "out")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "out").glob("*/*")}


JANUARY = frame(("u", "b", "2020-01-31T23:59:59.999999Z"), ("u", "a", "2020-01-01"))
FEBRUARY = frame(("v", "a", "2020-02-01"), ("u", "c", "2020-02-01"), ("u", "a", "2020-02-01"))


def test_a_file_a_month_in_order_of_time(tmp_path: Path) -> None:
    written = write(tmp_path, FEBRUARY, JANUARY)
    assert sorted(bytes_of(tmp_path)) == ["month=2020-01", "month=2020-02"]
    assert read_parquet(tmp_path / "out", "interactions")[ITEM].tolist()[:2] == ["a", "b"]
    assert (written.rows, written.duplicates) == (5, 0)
    assert str(written.first) == "2020-01-01T00:00:00.000000"
    assert str(written.last) == "2020-02-01T00:00:00.000000"


def test_a_new_month_leaves_the_bytes_of_the_others(tmp_path: Path) -> None:
    write(tmp_path / "before", JANUARY)
    write(tmp_path / "after", JANUARY, FEBRUARY)
    before, after = bytes_of(tmp_path / "before"), bytes_of(tmp_path / "after")
    assert before["month=2020-01"] == after["month=2020-01"]


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_neither_the_order_of_rows_nor_memory_changes_the_bytes(tmp_path: Path, budget: int) -> None:
    write(tmp_path / "one", JANUARY, FEBRUARY)
    write(tmp_path / "two", FEBRUARY.iloc[::-1], JANUARY.iloc[:1], JANUARY.iloc[1:], budget=budget)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_ties_are_not_in_the_order_of_ids(tmp_path: Path) -> None:
    ids = [f"{number:03d}" for number in range(100)]
    write(tmp_path, frame(*(("u", item, "2020-01-01") for item in ids)))
    found = read_parquet(tmp_path / "out")[ITEM].tolist()
    assert sorted(found) == ids
    ascending = sum(one < two for one, two in pairwise(found))
    assert 35 < ascending < 65


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_of_duplicates_the_first_read_stays(tmp_path: Path, budget: int) -> None:
    first = frame(("u", "a", "2020-01-01"), ("u", "a", "2020-01-01")).assign(value=[1.0, 2.0])
    other = frame(("u", "a", "2020-01-01"), ("u", "a", "2020-01-02")).assign(value=[3.0, 4.0])
    clicked = frame(("u", "a", "2020-01-01")).assign(event="click", value=5.0)
    written = write(tmp_path, first, other, clicked, budget=budget)
    assert (written.rows, written.duplicates) == (3, 2)
    assert sorted(read_parquet(tmp_path / "out")[VALUE]) == [1.0, 4.0, 5.0]


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_further_columns_get_one_type_in_all_months(tmp_path: Path, budget: int) -> None:
    write(
        tmp_path,
        frame(("u", "a", "2020-01-01"), price=[1], code=[7]),
        frame(("u", "a", "2020-02-01"), price=[2.5], code=["x"], late=[[1, 2]]),
        frame(("u", "a", "2020-03-01"), late=["text"]),
        budget=budget,
    )
    tables = [pq.ParquetFile(path).read() for path in sorted((tmp_path / "out").glob("*/*"))]
    text = pa.large_string()
    for table in tables:
        kinds = dict(zip(table.schema.names, table.schema.types, strict=True))
        assert [kinds[name] for name in ("price", "code", "late")] == [pa.float64(), text, text]
    found = read_parquet(tmp_path / "out")
    assert found["code"].tolist()[:2] == ["7", "x"]
    assert found["late"].tolist()[1:] == ["[1, 2]", "text"]


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, JANUARY.head(0)) == Written()
