import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data import tables
from pipeline.errors import DataError


@pytest.fixture
def interactions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            tables.USER: ["007", "1"],
            tables.ITEM: ["a", "b"],
            tables.TIME: pd.to_datetime([1_580_515_199_999_999, 1_580_515_200_000_000], unit="us", utc=True),
            tables.EVENT: ["view", "view"],
            tables.VALUE: [1.5, None],
            tables.TEXT: pd.Series([None, "good"], dtype="str"),
        }
    )


@pytest.fixture
def items() -> pd.DataFrame:
    none = pd.Series([None, None], dtype=tables.MOMENT)
    return pd.DataFrame(
        {
            tables.ITEM: ["a", "b"],
            tables.TITLE: ["A", None],
            tables.TEXT: pd.Series([None, None], dtype="str"),
            tables.CATEGORIES: [["x", "y"], []],
            tables.AVAILABLE_FROM: none,
            tables.AVAILABLE_UNTIL: none,
            tables.YEAR: pd.array([1999, None], dtype="Int64"),
            tables.TAGS: [["old", "fun"], None],
            tables.TAG_TIMES: [
                [pd.Timestamp(1, unit="us", tz="UTC"), pd.Timestamp(2, unit="us", tz="UTC")],
                None,
            ],
        }
    )


def test_a_table_comes_back_as_it_was_written(
    tmp_path: Path, interactions: pd.DataFrame, items: pd.DataFrame
) -> None:
    for name, frame in (("interactions", interactions), ("items", items)):
        tables.write_parquet(frame, tmp_path / f"{name}.parquet")
        back = tables.read_parquet(tmp_path / f"{name}.parquet", name)
        pd.testing.assert_frame_equal(back, frame)


def test_same_content_gives_the_same_bytes(tmp_path: Path, items: pd.DataFrame) -> None:
    other = items.set_axis([5, 9]).astype({tables.TITLE: object})
    other[tables.CATEGORIES] = [["x", "y"], []]
    tables.write_parquet(items, tmp_path / "one")
    tables.write_parquet(other, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, items: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.write_parquet(items, tmp_path / "items.parquet")
    before = (tmp_path / "items.parquet").read_bytes()

    def full(*args: object, **options: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(OSError, match="No space"):
        tables.write_parquet(items.head(1), tmp_path / "items.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]
    assert (tmp_path / "items.parquet").read_bytes() == before


def test_further_columns_of_mixed_objects_become_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({tables.USER: ["1", "2", "3"], "extra": pd.Series([1, "x", None], dtype=object)})
    tables.write_parquet(frame, tmp_path / "users.parquet")
    assert tables.read_parquet(tmp_path / "users.parquet", "users")["extra"].tolist()[:2] == ["1", "x"]


def test_months_are_read_in_order_and_may_lack_text(tmp_path: Path, interactions: pd.DataFrame) -> None:
    tables.write_parquet(interactions.tail(1), tmp_path / "interactions/month=2020-02/part-0.parquet")
    tables.write_parquet(interactions.head(1), tmp_path / "interactions/month=2020-01/part-0.parquet")
    frame = tables.read_parquet(tmp_path / "interactions", "interactions")
    pd.testing.assert_frame_equal(frame, interactions)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (
            "interactions",
            {tables.TIME: [1, 2]},
            r"x\.parquet: column timestamp: type int64, should be datetime64",
        ),
        ("interactions", {tables.USER: [1, 2]}, r"x\.parquet: column user_id: type int64, should be str"),
        ("interactions", {tables.ITEM: ["a", None]}, r"x\.parquet: column item_id: empty cells"),
        ("interactions", {tables.ITEM: ["a", ""]}, r"x\.parquet: column item_id: empty id"),
        ("interactions", {tables.EVENT: None}, r"x\.parquet: no column event"),
        ("items", {tables.ITEM: ["a", "a"]}, r"x\.parquet: column item_id: 'a' occurs more than once"),
        ("items", {tables.CATEGORIES: ["x", "y"]}, r"x\.parquet: column categories: .*"),
    ],
)
def test_a_wrong_column_is_named(
    table: str, change: dict[str, object], message: str, request: pytest.FixtureRequest
) -> None:
    frame: pd.DataFrame = request.getfixturevalue(table)
    (name, cells), *_ = change.items()
    frame = frame.drop(columns=name) if cells is None else frame.assign(**{name: cells})
    with pytest.raises(DataError, match=message):
        tables.check(frame, table, "x.parquet")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable Parquet file .*: run `dvc repro`"):
        tables.read_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"none\.parquet: no such table: run `dvc repro`"):
        tables.read_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="folder: no table in this folder"):
        tables.read_parquet(tmp_path / "folder")


def test_an_absent_column_asked_for_is_named(tmp_path: Path, items: pd.DataFrame) -> None:
    tables.write_parquet(items, tmp_path / "items.parquet")
    assert list(tables.read_parquet(tmp_path / "items.parquet", columns=[tables.TITLE])) == [tables.TITLE]
    with pytest.raises(DataError, match="no column price"):
        tables.read_parquet(tmp_path / "items.parquet", columns=[tables.TITLE, "price"])


def test_the_names_cost_no_heavy_import() -> None:
    code = "import sys, pipeline.data.tables; print({'pandas', 'pyarrow', 'pandera'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
