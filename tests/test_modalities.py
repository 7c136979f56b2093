"""Further vectors of items: read and checked, compared as texts are, found where taste follows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_log
from collecting import items, of_files, run, written

from pipeline.bench import signals
from pipeline.data.histories import Prepared
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


@pytest.mark.parametrize("wrong", ["1|2", "1|2|x", "1|2|inf", "tall"])
def test_a_cell_that_is_no_such_vector_is_refused_by_name(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(
        DataError, match=r"items, column image_vector: item 'c' has '.*', not 3 finite numbers"
    ):
        collected(tmp_path, "a,1|2|3", "b,3|4|5", f"c,{wrong}")


def world(seed: int, users: int = 150, stock: int = 300, rows: int = 30) -> tuple[Prepared, np.ndarray]:
    """(rows of users who take what lies near their taste of what there is by then, item vectors)."""
    generator = np.random.default_rng(seed)
    vectors, taste = generator.normal(size=(stock, 16)), generator.normal(size=(users, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    begin = np.sort(generator.uniform(-20, 100, stock))
    taken, had = [], set[tuple[int, int]]()
    for day in np.sort(generator.uniform(0, 100, users * rows)):
        user = int(generator.integers(users))
        there = [
            item for item in np.flatnonzero((begin < day) & (begin > day - 40)) if (user, item) not in had
        ]
        chance = np.exp(8 * vectors[there] @ taste[user])
        item = int(generator.choice(there, p=chance / chance.sum()))
        had.add((user, item))
        taken.append((f"u{user:03}", f"i{item:03}", float(day)))
    cut = int(0.7 * len(taken))
    ids = [f"i{item:03}" for item in range(stock)]
    return toy_log.prepared(ids, taken[:cut], taken[cut : cut + 1], taken[cut + 1 :]), vectors


def with_columns(prepared: Prepared, **columns: np.ndarray) -> signals.Inputs:
    lists = {name: [list(map(float, row)) for row in vectors] for name, vectors in columns.items()}
    return signals.Inputs(prepared.catalogue.items.assign(**lists), None)


@pytest.mark.slow
def test_a_planted_modality_pays_and_noise_costs_nothing() -> None:
    prepared, vectors = world(3)
    court, noise = signals.Court(prepared, 3), np.random.default_rng(4).normal(size=vectors.shape)
    plain = court.gain(with_columns(prepared)).mean()
    planted = court.gain(with_columns(prepared, look_vector=vectors)).mean()
    noisy = court.gain(with_columns(prepared, look_vector=noise)).mean()
    print(plain, planted, noisy)
    assert planted > 1.2 * plain
    assert abs(noisy - plain) < 0.005 * plain
