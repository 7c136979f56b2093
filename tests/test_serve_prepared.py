"""What a start keeps for the next one, and what makes it prepare anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import served

pytest.importorskip("sqlalchemy")

from pipeline.data import tables
from pipeline.data.forgotten import Forgotten
from pipeline.documents.model import Card
from pipeline.models.preparation import Preparation
from pipeline.serve.engine import Engine
from pipeline.serve.events import Change, Row, Store
from pipeline.serve.messages import Question
from pipeline.serve.prepared import FOLDER, prepared, raw_tables, row_hash


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(served.once(tmp_path_factory), tmp_path / "project"))


@pytest.fixture
def how(project: Path) -> Preparation:
    found = Preparation.of(Card.read(project / "models/champion/model.json"))
    assert found is not None
    return found


def kept(project: Path) -> list[str]:
    return sorted(path.name for path in (project / FOLDER).iterdir())


def test_what_is_read_back_is_what_was_prepared(project: Path, how: Preparation) -> None:
    made, read = prepared(project, how, []), prepared(project, how, [])
    assert len(kept(project)) == 1
    pd.testing.assert_frame_equal(read.items, made.items, check_dtype=False)
    for name, array in vars(made.log).items():
        np.testing.assert_array_equal(getattr(read.log, name), array, err_msg=name)
    np.testing.assert_array_equal(read.user_ids, made.user_ids)
    np.testing.assert_array_equal(read.rows, made.rows)
    assert read.reactions == made.reactions


def test_other_data_settings_or_items_are_prepared_anew(project: Path, how: Preparation) -> None:
    prepared(project, how, [])
    seen = set(kept(project))
    put = Change(1, "item", "new", {"title": "a new thing"}, 5)
    assert "new" in prepared(project, how, [put]).items[tables.ITEM].tolist()
    people = Forgotten(project)
    people.add([people.mark("u20")])
    assert "u20" not in prepared(project, how, [], people).user_ids
    file = sorted((project / "data/raw/interactions").rglob("*.parquet"))[0]
    rows = pd.read_parquet(file)
    rows.iloc[1:].to_parquet(file)
    prepared(project, how, [])
    assert len(kept(project)) == 1  # the newest alone
    assert not seen & set(kept(project))


def test_a_damaged_one_is_made_again(project: Path, how: Preparation) -> None:
    prepared(project, how, [])
    folder = project / FOLDER / kept(project)[0]
    whole = (folder / "log.npz").read_bytes()
    for broken in (whole[: len(whole) // 2], b"no archive", b""):
        (folder / "log.npz").write_bytes(broken)
        assert len(prepared(project, how, []).log) == len(raw_tables(project / "data/raw", [])[0])


def test_events_come_on_top_and_count_once(project: Path) -> None:
    store = Store(f"sqlite:///{project}/events.db")
    first = Engine(project, store)
    first.load()
    now = first.moment()
    rows, _ = raw_tables(project / "data/raw", [])
    row = rows.iloc[0]  # as if `collect` had brought it to data/raw
    collected = int(row[tables.TIME].timestamp() * 1_000_000)
    store.append(
        [[Row("old", row[tables.USER], row[tables.ITEM], row[tables.EVENT], None, None, collected, None)]]
    )
    store.append([[Row("new", "someone", "i03", "click", None, None, now, None)]])
    again = Engine(project, store)
    again.load()
    assert again.world.seq == 2
    user = again.world.present.number[row[tables.USER]]
    assert len(again.world.present.rows(user)) == len(first.world.present.rows(user))
    assert len(again.world.present.rows(again.world.present.user("someone"))) == 1
    listed = again.recommend(Question(user_id="someone", k=24))[0].items
    assert "i03" not in [item.item_id for item in listed]
    store.close()


def test_many_events_are_prepared_with_the_rest(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.serve import world

    store = Store(f"sqlite:///{project}/events.db")
    engine = Engine(project, store)
    engine.load()
    before, now = len(engine.world.log), engine.moment()
    store.append([[Row(f"e{n}", f"new{n}", "i03", "click", None, None, now + n, None) for n in range(5)]])
    monkeypatch.setattr(world, "ONE_BY_ONE", 3)
    engine.load()
    assert len(engine.world.log) == before + 5
    assert engine.world.present.user("new4") >= 0
    store.close()


def test_rows_of_the_store_hash_as_those_of_files(project: Path) -> None:
    from pipeline.serve.events import Happened
    from pipeline.serve.world import as_rows

    rows, _ = raw_tables(project / "data/raw", [])
    happened = [
        Happened(n, row.user_id, row.item_id, row.event, None, int(row.timestamp.timestamp() * 1_000_000))
        for n, row in enumerate(rows.head(20).itertuples(index=False))
    ]
    np.testing.assert_array_equal(row_hash(as_rows(happened)), row_hash(rows.head(20)))
