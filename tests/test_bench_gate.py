"""The gate's bench on a tiny world; the figures themselves are in docs/log.md."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.bench import gate
from pipeline.data.histories import TRAIN, load_prepared
from pipeline.documents.data import Summary
from pipeline.documents.model import Card
from pipeline.errors import DataError
from pipeline.params import Params
from pipeline.stages import preprocess


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.raw(folder / "raw")
    tiny.params(folder / "params.yaml", folder / "encoder")
    preprocess.main(folder / "raw", folder / "prepared", folder / "params.yaml")
    return folder


@pytest.fixture(scope="module")
def court(world: Path) -> gate.Court:
    return gate.Court.of(load_prepared(world / "prepared"), None, Params.load(world / "params.yaml"))


@pytest.mark.slow
def test_every_case_is_judged_by_the_gate(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setattr(gate, "REPEATS", 3)
    found = gate.run(world / "prepared")
    json.dumps(found, allow_nan=False)
    counts = {name: row["verdicts"] for name, row in found["figures"].items()}
    # Three models in a circle: each meets the two others.
    assert counts == {
        "another_seed": 12,
        "another_sample": 12,
        "swapped_users": 6,
        "half_of_the_rows": 6,
        "another_sample_of_users": 12,
        "half_of_the_users": 6,
    }
    assert set(found["ratios"].values()) == {0.0}  # too few points to say
    assert all("points 100%" in sentence for sentence in found["findings"])
    assert found["conditions"]["repeats"] == 3
    monkeypatch.setattr(gate.Court, "lists", None)  # nothing is trained again
    again = gate.run(world / "prepared")
    assert again["figures"] == found["figures"]


def test_raw_data_are_prepared_on_the_way(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    prepared, vectors = gate.load(world / "raw")
    assert len(prepared.test) == len(load_prepared(world / "prepared").test)
    assert vectors is None


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither prepared nor raw data"):
        gate.load(tmp_path)


def test_vectors_beside_the_data_are_taken_if_they_are_of_the_same_data(world: Path, tmp_path: Path) -> None:
    """As many items of other data, or other texts of the same items, have other vectors."""
    shutil.copytree(world / "prepared", tmp_path / "data" / "prepared")
    summary = Summary.read(tmp_path / "data" / "prepared" / "summary.json")
    file = tmp_path / "models" / "ablations" / gate.FROZEN
    file.parent.mkdir(parents=True)
    np.save(file, np.ones((tiny.ITEMS, 3)))
    assert gate.load(tmp_path / "data" / "prepared")[1] is None  # nothing says of what
    card = Card(data_hash=summary.data_hash, preprocess=summary.settings)
    others = card.but(data_hash="other"), card.but(preprocess=summary.settings | {"item_text": "{title}"})
    for one, fits in ((card, True), *((other, False) for other in others)):
        one.write(tmp_path / "models" / "challenger" / "model.json")
        assert (gate.load(tmp_path / "data" / "prepared")[1] is not None) == fits


def test_samples_and_halves_are_of_train(court: gate.Court) -> None:
    log = court.prepared.log
    train = log.window == TRAIN
    users = len(np.unique(log.user[train & log.fit]))
    for kind in gate.KINDS:
        rows = court.rows(kind, 0)
        assert rows.any()
        assert not (rows & ~train).any()
        assert (court.rows(kind, 0) == rows).all()
    half = court.rows(gate.HALF_USERS, 1)
    assert len(np.unique(log.user[half])) == users // 2
    assert court.rows(gate.HALF, 1).sum() == (train & log.fit).sum() // 2
    assert (court.rows(gate.SAMPLE, 0) != court.rows(gate.SAMPLE, 1)).any()
    # Whole users: every row of one who was drawn.
    assert (half == (train & log.fit & np.isin(log.user, log.user[half]))).all()


def test_a_model_against_itself_gains_nothing(court: gate.Court) -> None:
    model = court.judged(court.lists(court.rows(gate.FULL, 0), 0))
    verdict = court.judge(model, model)
    assert verdict["gain"] == 0
    assert not verdict["promote"]
    assert "min_gain" in {c["name"] for c in verdict["checks"] if not c["passed"]}


def test_summary_and_findings_by_hand() -> None:
    failed = [{"name": "slices", "passed": False}, {"name": "users", "passed": True}]
    verdicts = [
        {"promote": False, "gain": -0.1, "checks": failed},
        {"promote": True, "gain": 0.3, "checks": []},
    ]
    row = gate.summary(verdicts)
    assert (row["verdicts"], row["promoted"]) == (2, 0.5)
    assert (row["mean_gain"], row["deviation"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert gate.findings("another_seed", verdicts) == "another seed: failed slices 50%"
    assert math.isclose(gate.share(verdicts), 0.5)
