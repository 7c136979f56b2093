import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from collecting import ROOT, interactions, items, run, settings

from pipeline import sources
from pipeline.data.tables import read_parquet
from pipeline.documents.data import Manifest
from pipeline.errors import ConfigError
from pipeline.sources import ifdb, movielens_100k


def test_an_unknown_source_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="no source 'mysql'; there are files, ifdb, movielens, movielens-100k"
    ):
        sources.fingerprint(settings(source="mysql"))


@pytest.mark.parametrize("name", ["_formats", "../errors", "", "sources.files"])
def test_only_sources_are_loaded(name: str) -> None:
    with pytest.raises(ConfigError, match="no source"):
        sources.load(name)


def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(example.splitlines()) <= 20
    (tmp_path / "shop_log.py").write_text(example)
    (tmp_path / "shop.log").write_text("7 007 2020-01-31T12:00:00Z\n7 008 2020-01-31T13:00:00Z\n")
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    raw = run(tmp_path, settings(source="shop-log", path=str(tmp_path / "shop.log")))
    assert interactions(raw)[["user_id", "item_id", "event"]].to_numpy().tolist() == [
        ["7", "007", "purchase"],
        ["7", "008", "purchase"],
    ]
    assert json.loads((raw / "manifest.json").read_text())["source"] == "shop-log"
    monkeypatch.delitem(sys.modules, "pipeline.sources.shop_log")


def test_movielens_100k_without_its_wheel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, SimpleNamespace(submodule_search_locations=["/nowhere"])):
        monkeypatch.setattr(movielens_100k, "find_spec", lambda name, found=found: found)
        with pytest.raises(ConfigError, match=r"\(recbole\) is not installed: run `make setup`"):
            sources.read(settings())


def test_movielens_100k(tmp_path: Path) -> None:
    try:
        movielens_100k.fingerprint(settings())
    except ConfigError as error:
        pytest.skip(str(error))
    raw = run(tmp_path, settings(source="movielens-100k"))
    assert "recbole" not in sys.modules
    frame, found = interactions(raw), items(raw)
    assert len(frame) == 100_000
    assert set(frame["event"]) == {"rating"}
    assert sorted(frame["value"].unique()) == [1, 2, 3, 4, 5]
    assert len(found) == 1_682
    assert found.loc[["12", "543", "1412"], "title"].tolist() == [
        "The Usual Suspects",
        "Les Misérables",
        "Land Before Time III: The Time of the Great Giving",
    ]
    assert found.loc[["12", "1412"], "year"].tolist() == [1995, 1995]
    assert found.loc["267", ["title", "year"]].isna().all()
    assert found.loc[["1", "267"], "categories"].tolist() == [["Animation", "Children's", "Comedy"], []]
    assert len({name for names in found["categories"] for name in names}) == 18
    users = read_parquet(raw / "users.parquet", "users")
    assert users.columns.tolist() == ["user_id", "age", "age_group", "gender", "occupation"]
    assert users.iloc[0].tolist() == ["1", 24, "18-24", "M", "technician"]
    assert len(users) == 943
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["last_timestamp"] == manifest["as_of"] == "1998-04-22T23:10:38+00:00"
    graph = found[found["graph_entities"].str.len() > 0]
    assert len(graph) > 1_200
    pairs = set(zip(*found.loc["100", ["graph_relations", "graph_entities"]], strict=True))  # Fargo
    directors = {entity for relation, entity in pairs if relation == "director"}
    theirs = graph[graph["graph_entities"].map(lambda cell: bool(directors & set(cell)))]
    assert {"Fargo", "Raising Arizona", "Miller's Crossing"} <= set(theirs["title"])
    assert ("sequel", "187") in set(
        zip(*found.loc["127", ["graph_relations", "graph_entities"]], strict=True)
    )
    assert isinstance(pd.Timestamp(manifest["first_timestamp"]), pd.Timestamp)
    assert len(list((raw / "interactions").iterdir())) == 8  # September 1997 to April 1998


def test_ifdb_is_committed_with_its_credit(tmp_path: Path) -> None:
    raw = run(tmp_path, settings(source="ifdb"))
    rows, works = interactions(raw), items(raw)
    assert (len(rows), rows["user_id"].nunique(), rows["item_id"].nunique()) == (105_635, 3_587, 8_260)
    assert rows["event"].value_counts().to_dict() == {"played": 62_211, "wishlist": 43_424}
    assert len(works) == 9_873
    floatpoint = works.loc["01efmfsk4r79mtks"]
    assert floatpoint[["title", "year"]].tolist() == ["Floatpoint", 2006]
    assert floatpoint["text"].startswith("It is night on this side of the planet.")
    assert floatpoint["categories"][:2] == ["science fiction", "male protagonist"]
    manifest = Manifest.read(raw / "manifest.json")
    assert (manifest.rows.rejected, manifest.rows.duplicates, manifest.joined_share) == (0, 0, 1.0)
    assert manifest.item_rows == {"kept": 9_873, "duplicates": 0, "unreadable_dates": 0}
    assert works["year"].isna().sum() == works["available_from"].isna().sum() == 173
    assert "IFDB" in str(manifest.credit)
    assert "CC BY 3.0 US" in (ifdb.FOLDER / "LICENSE.md").read_text()
