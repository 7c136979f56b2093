"""The stage, from raw tables and a model folder to drift.json; each outcome."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml

from pipeline.data import tables
from pipeline.data.histories import load_prepared
from pipeline.drift import champion, reference
from pipeline.errors import ArtifactError
from pipeline.models import recommender
from pipeline.models.baselines import train_rows
from pipeline.params import Params
from pipeline.stages import detect_drift as stage
from pipeline.stages import preprocess
from pipeline.training.recipe import light


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw, and a champion without texts that was fitted on the first 60 % of it."""
    folder = tmp_path_factory.mktemp("drift")
    settings = tiny.params(folder / "params.yaml", folder)
    content = yaml.safe_load(settings.read_text())
    content["detect_drift"] |= {"min_rows": 30, "min_users": 4, "window_days": 0.2, "permutations": 99}
    content["preprocess"] |= {"validation_share": 0.2, "test_share": 0.3}
    settings.write_text(yaml.safe_dump(content))
    preprocess.main(tiny.raw(folder / "raw", texts=False), folder / "prepared", settings)
    prepared = load_prepared(folder / "prepared")
    summary = json.loads((folder / "prepared" / "summary.json").read_text())
    model = light(prepared.log, train_rows(prepared.log), prepared.catalogue, None, 1)
    between = pd.Timestamp(summary["fit_end"]) + pd.Timedelta(hours=20)
    card = {name: summary[name] for name in ("train_end", "fit_end")} | {"as_of": between.isoformat()}
    card |= {"features": model.card["features"], "max_length": 16, "preprocess": content["preprocess"]}
    recommender.save(folder / "champion", card, model, None)
    (folder / "champion" / "version.json").write_text('{"version": "v1.0.0"}')
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy; the page's rows are noted down instead of drawn (Evidently takes 9 CPU seconds to import)."""
    from pipeline.drift import page

    def note(result: dict[str, Any], old: Any, new: Any, html: Path, snapshot: Path) -> None:
        html.write_text(str([None if rows is None else len(rows) for rows in (old, new)]))
        snapshot.write_text("{}")

    monkeypatch.setattr(page, "report", note)
    return Path(shutil.copytree(made, tmp_path / "world"))


def run(world: Path) -> dict[str, Any]:
    stage.main(world / "raw", world / "champion", world / "reports", world / "params.yaml")
    assert (world / "reports" / "drift_snapshot.json").is_file()
    return json.loads((world / "reports" / "drift.json").read_text())


def test_no_champion_is_an_outcome(world: Path) -> None:
    shutil.rmtree(world / "champion")
    (world / "champion").mkdir()
    found = run(world)
    assert (found["outcome"], found["drift"], found["champion"]) == ("no_champion", False, None)
    assert found["as_of"] == json.loads((world / "raw" / "manifest.json").read_text())["as_of"]
    assert (world / "reports" / "drift.html").read_text() == "[None, None]"


def test_a_champion_is_compared_with_what_came_after_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champion, "LEAST_POINTS", 10)
    monkeypatch.setattr(champion, "LEAST_USERS", 3)
    found = run(world)
    assert (found["outcome"], found["champion"]) == ("ok", "v1.0.0")
    windows = found["windows"]
    assert len(windows) >= 2
    for name in ("quality", "scores", "coverage", "list_popularity", "categories", "new_users"):
        text = found["signals"][name]["text"]
        assert not text.startswith("Not tested: no champion"), (name, text)
    assert found["signals"]["quality"]["value"] is not None
    total = found["rows_fitted"] + found["rows_since_fit_end"]
    assert total == tiny.USERS * 12
    old, new = json.loads((world / "reports" / "drift.html").read_text())
    assert new == windows[-1]["rows"]
    assert old == found["reference"]["rows"]


def test_the_kept_reference_is_used(world: Path) -> None:
    before = run(world)
    settings = Params.load(world / "params.yaml").detect_drift
    rows = tables.read_parquet(world / "raw" / "interactions")
    card = json.loads((world / "champion" / "model.json").read_text())
    reference.write(world / "champion" / reference.FOLDER, rows, card["fit_end"], settings)
    kept = run(world)
    assert {name: s["value"] for name, s in kept["signals"].items()} == {
        name: s["value"] for name, s in before["signals"].items()
    }
    (world / "champion" / reference.FOLDER / reference.SUMMARY).write_text("{")
    with pytest.raises(ArtifactError, match=r"reference/summary.json: damaged"):
        run(world)


def test_the_same_input_gives_the_same_bytes(world: Path) -> None:
    run(world)
    first = (world / "reports" / "drift.json").read_bytes()
    run(world)
    assert (world / "reports" / "drift.json").read_bytes() == first


def spoil_rows(world: Path, **changed: Any) -> None:
    path = next((world / "raw" / "interactions").rglob("*.parquet"))
    frame = pd.read_parquet(path)
    frame = frame.drop(columns=[name for name in changed if changed[name] is None])
    frame.assign(**{name: value for name, value in changed.items() if value is not None}).to_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda world: spoil_rows(world, item_id=None), "no column item_id"),
        (lambda world: spoil_rows(world, value="much"), "column value"),
        (lambda world: shutil.rmtree(world / "raw" / "interactions"), "interactions"),
        (lambda world: (world / "raw" / "items.parquet").write_text("no"), "items.parquet"),
        (lambda world: (world / "raw" / "manifest.json").write_text("{}"), "manifest.json"),
    ],
    ids=["column", "type", "no rows", "items", "manifest"],
)
def test_bad_raw_tables_are_an_outcome(world: Path, spoil: Any, said: str) -> None:
    spoil(world)
    found = run(world)
    assert (found["outcome"], found["drift"], found["champion"]) == ("bad_input", False, "v1.0.0")
    assert said in found["text"]


def test_nothing_new_is_not_enough_data(world: Path) -> None:
    path = world / "champion" / "model.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"fit_end": "2030-01-01T00:00:00+00:00"}))
    found = run(world)
    assert (found["outcome"], found["rows_since_fit_end"]) == ("not_enough_data", 0)
    assert "2030-01-01" in found["text"]


def test_a_card_that_does_not_say_how_its_data_were_made(world: Path) -> None:
    path = world / "champion" / "model.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in card.items() if name != "preprocess"}))
    found = run(world)
    assert found["outcome"] == "ok"
    assert found["signals"]["quality"]["text"] == (
        "Not tested: the champion's card does not say how its data were prepared"
    )


def test_a_model_is_bound_to_all_items_that_are_known(made: Path) -> None:
    interactions, items = stage.read_raw(made / "raw")
    more = items.head(1).assign(item_id="z-new")
    found = champion.load(made / "champion", interactions, pd.concat([items, more], ignore_index=True))
    assert isinstance(found, champion.Champion)
    assert len(found.catalogue) == tiny.ITEMS + 1
    assert isinstance(found.model, recommender.Recommender)
    assert np.array_equal(found.log.positive, np.ones(len(interactions), bool))
    assert found.vectors_of(np.array(["i00"], dtype=object)) is None


@pytest.mark.slow
def test_with_evidentlys_page(made: Path, tmp_path: Path) -> None:
    stage.main(made / "raw", made / "champion", tmp_path, made / "params.yaml")
    assert "<html" in (tmp_path / "drift.html").read_text()[:2000].lower()
    assert json.loads((tmp_path / "drift_snapshot.json").read_text())
