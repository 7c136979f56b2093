"""A project with a really trained tiny champion in place, to be served: see tests/tiny.py for its world."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.data.histories import load_prepared
from pipeline.documents.model import Claim, Exploration
from pipeline.evaluation.exploration import COLUMNS, Draws
from pipeline.models.artifacts import EXPLORATION, VERSION, folder_hash
from pipeline.params import Params
from pipeline.training.task import Run

_ONCE: list[Path] = []


def once(factory: pytest.TempPathFactory) -> Path:
    """The project, trained once for all files of tests; take a copy to change anything in it."""
    if not _ONCE:
        _ONCE.append(project(factory.mktemp("served") / "project"))
    return _ONCE[0]


def exploring(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A copy in `folder` whose lists leave their last places to chance."""
    copied = Path(shutil.copytree(once(factory), folder / "project"))
    params = yaml.safe_load((copied / "params.yaml").read_text())
    params["serve"]["exploration"] = 1
    (copied / "params.yaml").write_text(yaml.safe_dump(params))
    return copied


def project(root: Path, rows_a_user: int = 12, tastes: int = 2) -> Path:
    """data/raw, and models/champion as v1.0.0."""
    import tiny

    from pipeline.stages import preprocess
    from pipeline.training import recipe

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    root.mkdir(parents=True)
    params = tiny.params(root / "params.yaml", tiny.encoder(root / "encoder"), epochs=0)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "data").mkdir()
    raw = tiny.raw(root / "data" / "raw", rows_a_user, tastes=tastes)
    preprocess.main(raw, root / "data" / "prepared", params)
    prepared, told = load_prepared(root / "data" / "prepared"), Params.load(params)
    trained = recipe.train(prepared, Run(told.finetune, told.seed, root / "checkpoints"), ablations=False)
    put(root, trained, "v1.0.0")
    return root


def put(root: Path, trained: object, version: str) -> None:
    """The trained challenger as the champion of this version."""
    from pipeline.models.recommender import save
    from pipeline.training import recipe

    assert isinstance(trained, recipe.Trained)
    folder = root / "models" / "champion"
    model = trained.models["challenger"]
    own = card(root) | {"features": model.card["features"]}
    if trained.privacy is not None:
        own["privacy"] = trained.privacy.to_dict()
    save(folder, own, model, trained.encoder)
    claim = {"version": version, "artifact_hash": folder_hash(folder)}
    (folder / "version.json").write_text(json.dumps(claim))


def admit(root: Path, draws: Draws, of: str | None = None) -> None:
    """Put beside the champion what a promotion admitted for the model of this hash, or its own."""
    folder = root / "models" / "champion"
    weights = dict(zip(COLUMNS, draws.weights, strict=True))
    text = Exploration(artifact_hash=of or folder_hash(folder), weights=weights).to_json()
    (folder / EXPLORATION).write_text(text)
    claim = Claim.read(folder / VERSION).but(exploration=hashlib.sha256(text.encode()).hexdigest())
    claim.write(folder / VERSION)


def card(root: Path) -> dict[str, object]:
    summary = json.loads((root / "data" / "prepared" / "summary.json").read_text())
    windows = summary["windows"]
    return {
        "name": "challenger",
        "max_length": 16,
        "as_of": summary["as_of"],
        "train_end": windows["train"]["last"],
        "fit_end": windows["validation"]["last"],
        "preprocess": yaml.safe_load((root / "params.yaml").read_text())["preprocess"],
    }
