from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.data.histories import Catalogue, Points, Prepared, make_log
from pipeline.errors import ConfigError, DataError
from pipeline.stages import recommend as stage
from pipeline.stages.recommend import SCHEMA, main, recommend, write

DAY = 86_400_000_000


class Toy:
    """Scores an item by its place; c cannot be scored. Popularity: d, c, b, a."""

    name = "champion"
    version = "v3.0.0"

    def __init__(self, items: int) -> None:
        self.popularity = np.arange(items, dtype=float)
        self.seen: list[Points] = []

    def score(self, points: Points) -> np.ndarray:
        self.seen.append(points)
        scores = np.tile(np.array([0.4, 0.3, np.nan, 0.1], np.float32), (len(points), 1))
        return scores

    def reasons(self, points: Points, top: np.ndarray) -> list[list[list[str]]]:
        return [[[f"because of {item}"] for item in row if item >= 0] for row in top]


def prepared(until: str | None = None) -> Prepared:
    items = pd.DataFrame({"item_id": list("abcd")})
    if until:
        items["available_until"] = [None, None, None, pd.Timestamp(until, tz="UTC")]
    catalogue = Catalogue.of(items)
    rows = pd.DataFrame(
        {
            "user_id": ["01", "01", "2"],
            "item_id": ["a", "b", "a"],
            "timestamp": pd.to_datetime(["1998-01-01", "1998-01-03", "1998-01-02"], utc=True),
            "event": "view",
            "value": np.nan,
            "positive": True,
            "fit": True,
        }
    )
    user_ids = np.array(["01", "2"], dtype=object)
    log = make_log([rows.iloc[:2], rows.iloc[2:]], catalogue, user_ids)
    nothing = log.points(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
    return Prepared(catalogue, user_ids, log, nothing, nothing, np.zeros(0, dtype=object))


def table_of(data: Prepared, as_of: int = 0, k: int = 3) -> list[dict]:
    return [row for part in recommend(Toy(4), replace(data, as_of=as_of), k) for row in part.to_pylist()]


def test_lists_leave_out_the_whole_history_and_end_with_the_popular():
    rows = table_of(prepared())
    assert [(row["user_id"], row["rank"], row["item_id"]) for row in rows] == [
        ("01", 1, "d"),
        ("01", 2, "c"),
        ("2", 1, "b"),
        ("2", 2, "d"),
        ("2", 3, "c"),
    ]
    assert [row["score"] for row in rows] == pytest.approx([0.1, None, 0.3, 0.1, None])
    assert rows[0]["reasons"] == ["because of 3"]
    assert {row["version"] for row in rows} == {"v3.0.0"}


def test_moment_is_after_as_of_and_after_every_row():
    data = prepared(until="1998-02-01")
    last = int(pd.Timestamp("1998-01-03", tz="UTC").value // 1000)
    assert stage.moments(data).time.tolist() == [last + 1] * 2
    assert {row["item_id"] for row in table_of(data)} == {"b", "c", "d"}
    later = last + 60 * DAY
    assert stage.moments(replace(data, as_of=later)).time.tolist() == [later + 1] * 2
    assert {row["item_id"] for row in table_of(data, later)} == {"b", "c"}


def test_users_come_in_chunks(monkeypatch):
    monkeypatch.setattr(stage, "USERS_AT_ONCE", 1)
    parts = list(recommend(Toy(4), prepared(), 1))
    assert [part["user_id"].to_pylist() for part in parts] == [["01"], ["2"]]


def test_file_has_the_schema_and_appears_only_when_complete(tmp_path):
    path = tmp_path / "recommendations" / "top_k.parquet"

    def parts():
        yield from recommend(Toy(4), prepared(), 2)
        raise DataError("disk on fire")

    with pytest.raises(DataError, match="disk on fire"):
        write(path, parts())
    assert list(path.parent.iterdir()) == []
    write(path, recommend(Toy(4), prepared(), 2))
    assert pq.read_schema(path).equals(SCHEMA)
    assert len(pq.read_table(path)) == 4


def test_no_champion_leaves_an_empty_table(tmp_path):
    (tmp_path / "champion").mkdir()
    (tmp_path / "champion" / "README.md").write_text("none yet")
    path = tmp_path / "top_k.parquet"
    main(tmp_path / "prepared", tmp_path / "champion", path, Path("params.yaml"))
    assert pq.read_schema(path).equals(SCHEMA)
    assert len(pq.read_table(path)) == 0


def test_floors_bring_items_up_and_unknown_groups_are_named() -> None:
    data = prepared()
    data.catalogue.items["categories"] = [["x"], ["x"], ["x"], ["y"]]

    def lists(floors: dict[str, dict[str, float]]) -> list[str]:
        rows = [row for part in recommend(Toy(4), data, 2, floors) for row in part.to_pylist()]
        return [row["item_id"] for row in rows if row["user_id"] == "2"]

    assert lists({}) == ["b", "d"]
    assert lists({"categories": {"y": 0.9}}) == ["d", "b"]
    with pytest.raises(ConfigError, match=r"exposure_floors\.categories\.z: no such group of items: x, y"):
        lists({"categories": {"z": 0.1}})
