"""collect.feedback: a service's events join the source's rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sqlalchemy")

from collecting import interactions, items, of_files, run, written

from pipeline import sources
from pipeline.errors import ConfigError, DataError
from pipeline.serve.events import Impression, Row, Store

HEADER = "user_id,item_id,timestamp,event,value,title"
SHOP = ["u,a,2020-01-31T12:00:00Z,rating,4,A", "v,b,2020-02-01T00:00:00Z,rating,2,B"]


def at(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").value // 1000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path}/events.db")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return written(tmp_path / "shop.csv", HEADER, *SHOP)


def row(number: int, user: str, item: str, time: str, event: str = "rating") -> Row:
    return Row(f"e{number}", user, item, event, 5.0, "a fine thing", at(time), None)


def test_events_join_the_source(tmp_path: Path, store: Store, shop: Path) -> None:
    same = row(3, "v", "b", "2020-02-01T00:00:00")  # the source has it
    store.append([[row(1, "007", "a", "2020-02-03T00:00:00.000001"), row(2, "u", "new", "2020-02-04"), same]])
    alone = of_files(shop)
    with_feedback = of_files(shop, feedback=f"sqlite:///{tmp_path}/events.db")
    before = run(tmp_path / "alone", alone)
    raw = run(tmp_path / "both", with_feedback)
    rows = interactions(raw)
    assert list(zip(rows["user_id"], rows["item_id"], strict=True)) == [
        ("u", "a"),
        ("v", "b"),
        ("007", "a"),
        ("u", "new"),
    ]
    assert rows["text"].tolist()[2:] == ["a fine thing"] * 2
    told = json.loads((raw / "manifest.json").read_text())
    assert told["rows"] == {"read": 5, "kept": 4, "rejected": 0, "duplicates": 1, "after_as_of": 0}
    assert told["as_of"].startswith("2020-02-04")
    # A month that no event fell into keeps its bytes.
    january = Path("interactions") / "month=2020-01" / "part-0.parquet"
    assert (raw / january).read_bytes() == (before / january).read_bytes()


def test_what_was_shown_is_a_table_of_its_own(
    tmp_path: Path, store: Store, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(number: str, user: str | None, when: str, places: list[list[object]]) -> Impression:
        return Impression(number, at(when), user, "v1", "champion", None, json.dumps(places))

    store.show(
        [
            shown("l2", None, "2020-02-03", [["a", 1, None, 1.0]]),
            shown("l1", "007", "2020-02-02", [["b", 1, 0.5, 1.0], ["a", 2, 0.25, 0.3, "v2"]]),
            shown("l3", "007", "2020-03-02", [["b", 1, 0.5, 1.0]]),  # later than all that is known
        ]
    )
    first, last = (row(n, "007", "a", f"2020-02-0{2 + n}")._replace(impression_id="l1") for n in (1, 2))
    store.append([[first, last._replace(event="click", value=None)]])
    settings = of_files(shop, feedback=f"sqlite:///{tmp_path}/events.db")
    raw = run(tmp_path / "one", settings)
    table = pd.read_parquet(raw / "impressions.parquet")
    assert table["impression_id"].tolist() == ["l1", "l1", "l2"]
    assert table["item_id"].tolist() == ["b", "a", "a"]
    assert table["placed_by"].tolist() == ["v1", "v2", "v1"]
    assert table["propensity"].tolist() == [1, 0.3, 1]
    assert table["event"].fillna("").tolist() == ["", "click", ""]  # the last one counts
    assert table["user_id"].isna().tolist() == [False, False, True]
    again = run(tmp_path / "two", settings)
    assert (again / "impressions.parquet").read_bytes() == (raw / "impressions.parquet").read_bytes()
    monkeypatch.setenv("EVERGREEN_PSEUDONYM_KEY", "k" * 64)
    hidden = run(tmp_path / "hidden", settings.model_copy(update={"pseudonyms": True}))
    known = set(interactions(hidden)["user_id"])
    named = pd.read_parquet(hidden / "impressions.parquet")["user_id"].dropna()
    assert set(named) < known
    assert all(user.startswith("~") for user in named)
    none = pd.read_parquet(run(tmp_path / "alone", of_files(shop)) / "impressions.parquet")
    assert none.dtypes.to_dict() == table.dtypes.to_dict()
    assert not len(none)


def test_events_after_as_of_are_set_apart(tmp_path: Path, store: Store, shop: Path) -> None:
    store.append([[row(1, "u", "a", "2020-02-03"), row(2, "u", "b", "2020-03-03")]])
    raw = run(tmp_path, of_files(shop, feedback=f"sqlite:///{tmp_path}/events.db", as_of="2020-02-15"))
    told = json.loads((raw / "manifest.json").read_text())
    assert (told["rows"]["kept"], told["rows"]["after_as_of"]) == (3, 1)


def test_events_long_after_the_source_are_no_mistake(tmp_path: Path, store: Store, shop: Path) -> None:
    store.append([[row(1, "u", "b", "2026-02-03")]])
    raw = run(tmp_path, of_files(shop, feedback=f"sqlite:///{tmp_path}/events.db"))
    assert json.loads((raw / "manifest.json").read_text())["rows"]["rejected"] == 0
    assert interactions(raw)["timestamp"].max() == pd.Timestamp("2026-02-03", tz="UTC")


def test_the_fingerprint_knows_new_and_erased_events(tmp_path: Path, store: Store, shop: Path) -> None:
    settings = of_files(shop, feedback=f"sqlite:///{tmp_path}/events.db")
    found = {sources.fingerprint(of_files(shop)), sources.fingerprint(settings)}
    store.append([[row(1, "u", "a", "2020-02-03")]])
    found.add(sources.fingerprint(settings))
    assert sources.fingerprint(settings) in found
    store.put_item("x", {"title": "X"}, at("2020-02-04"))
    found.add(sources.fingerprint(settings))
    store.forget("u", "the mark", at("2020-02-04"))
    found.add(sources.fingerprint(settings))
    assert len(found) == 5


def test_items_put_and_withdrawn_are_in_the_table(tmp_path: Path, store: Store, shop: Path) -> None:
    store.put_item("x", {"title": "X", "categories": ["new"], "colour": "red"}, at("2020-02-03"))
    store.put_item("a", {"title": "A, improved"}, at("2020-02-03"))
    store.put_item("b", None, at("2020-02-05"))
    raw = run(tmp_path, of_files(shop, items=shop, feedback=f"sqlite:///{tmp_path}/events.db"))
    table = items(raw)
    assert table["title"].to_dict() == {"a": "A, improved", "b": "B", "x": "X"}
    assert table.loc["x", "categories"] == ["new"]
    assert table.loc["x", "colour"] == "red"
    assert table.loc["b", "available_until"] == pd.Timestamp("2020-02-05", tz="UTC")
    assert table["available_until"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("sqlite:///nowhere/events.db", DataError, r"collect\.feedback: nowhere/events\.db: no such file"),
        ("sqlite:///${NO_SUCH_FOLDER}/events.db", ConfigError, "environment has no NO_SUCH_FOLDER"),
        ("nonsense", ConfigError, r"collect\.feedback: event store"),
    ],
)
def test_a_store_that_is_not_there(
    tmp_path: Path, shop: Path, url: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        run(tmp_path, of_files(shop, feedback=url))
    assert not (tmp_path / "raw" / "manifest.json").exists()


def test_another_database_is_told(tmp_path: Path, shop: Path) -> None:
    import sqlite3

    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(DataError, match="a database without events"):
        run(tmp_path, of_files(shop, feedback=f"sqlite:///{tmp_path}/other.db"))
