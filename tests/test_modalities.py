"""Further vectors of items: read and checked, compared as texts are, found where taste follows them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import items, of_files, run, written

from pipeline.errors import DataError

ROWS = ("u,a,1580472000", "u,b,1580472001", "u,c,1580472002")


def collected(tmp_path: Path, *things: str, header: str = "item_id,image_vector") -> Path:
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", *ROWS)
    return run(tmp_path, of_files(rows, items=written(tmp_path / "items.csv", header, *things)))


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.5|-1|2", "3 4 5e-1"), ('"[0.5, -1, 2]"', "[3. 4. 0.5]"), ('"0.5, -1, 2"', "3;4;.5")],
)
def test_vectors_in_text(tmp_path: Path, one: str, other: str) -> None:
    raw = collected(tmp_path, f"a,{one}", f"b,{other}", "c,", "d,0|0|0")
    found = items(raw)["image_vector"]
    assert found.loc["a"] == [0.5, -1, 2]
    assert found.loc["b"] == [3, 4, 0.5]
    assert found.loc[["c", "d"]].isna().all()  # zeros point nowhere
    assert pq.read_schema(raw / "items.parquet").field("image_vector").type == pa.list_(pa.float32())


def test_vectors_of_parquet_and_json_lines(tmp_path: Path) -> None:
    cells = [{"item_id": "a", "sound_vector": [1.5, 2.0]}, {"item_id": "b", "sound_vector": None}]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "items.parquet")
    written(tmp_path / "items.jsonl", *map(json.dumps, cells))
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", *ROWS)
    for name in ("items.parquet", "items.jsonl"):
        raw = run(tmp_path / name.replace(".", "-"), of_files(rows, items=tmp_path / name))
        assert items(raw)["sound_vector"].loc["a"] == [1.5, 2.0]


@pytest.mark.parametrize("wrong", ["1|2", "1|2|x", "1|2|inf", "tall", '"0,1|2"'])
def test_a_cell_that_is_no_such_vector_is_refused_by_name(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(
        DataError, match=r"items, column image_vector: item 'c' has '.*', not 3 finite numbers"
    ):
        collected(tmp_path, "a,1|2|3", "b,3|4|5", f"c,{wrong}")
