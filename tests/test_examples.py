"""What the report tells of single items: cold items on the lists, and neighbours that fine-tuning changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import tiny

from pipeline.data import tables
from pipeline.data.histories import Catalogue, load_prepared
from pipeline.evaluation.examples import cold_items, moved
from pipeline.stages import preprocess


def catalogue(count: int) -> Catalogue:
    ids = [f"i{place:02}" for place in range(count)]
    return Catalogue.of(pd.DataFrame({tables.ITEM: ids, tables.TITLE: [f"title {name}" for name in ids]}))


def test_the_item_whose_neighbours_all_changed_comes_first() -> None:
    angle = np.linspace(0, 1, 12)
    before = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    after = before.copy()
    after[0] = [0, 1]  # from one end to beyond the other
    found = moved(catalogue(12), before, after)
    assert found[0]["item"] == {"item_id": "i00", "title": "title i00"}
    assert [item["item_id"] for item in found[0]["before"]] == ["i01", "i02", "i03", "i04", "i05"]
    assert [item["item_id"] for item in found[0]["after"]] == ["i11", "i10", "i09", "i08", "i07"]
    assert len(found) <= 5


def test_nothing_moved_where_nothing_was_trained() -> None:
    vectors = np.eye(8, dtype=np.float32)
    assert moved(catalogue(8), vectors, vectors) == []
    assert moved(catalogue(8), None, vectors) == []
    assert moved(catalogue(8), vectors, None) == []
    assert moved(catalogue(3), np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[::-1]) == []


def test_cold_items_are_told_with_those_who_would_see_them(tmp_path: Path) -> None:
    settings = tiny.params(tmp_path / "params.yaml", tmp_path)
    preprocess.main(tiny.raw(tmp_path / "raw"), tmp_path / "prepared", settings)
    prepared = load_prepared(tmp_path / "prepared")
    count = np.ones(len(prepared.catalogue))
    count[[0, 1]] = 0
    listed = np.full((len(prepared.test), 10), -1, np.int32)
    listed[:, 0] = 1
    listed[0, 1] = 0
    listed[:, 2] = 2  # known in train
    found = cold_items(prepared, listed, count)
    assert [one["item"]["item_id"] for one in found] == list(prepared.catalogue.ids[[1, 0]])
    assert [one["points"] for one in found] == [len(prepared.test), 1]
    assert len(found[0]["users"]) == min(3, len(np.unique(prepared.test.user)))
    user = str(prepared.user_ids[prepared.test.user[0]])
    assert [one["user_id"] for one in found[1]["users"]] == [user]
    assert cold_items(prepared, listed, np.ones(len(count))) == []
