"""A challenger that people saw, judged: docs/serving.md's way from interleaved lists to the promotion, lived.

The project's own stages but for the training, which is here, without its ablations, on a tiny world of two
tastes. The champion is the trained model turned the other way round, so that the challenger, the model as it
was trained, is better for all. A person has to say yes.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import crowd
import numpy as np
import pandas as pd
import pytest
import served
import toy
import yaml

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("sqlalchemy")

from safetensors.numpy import load_file, save_file
from served_process import Served, running
from waiting import until

from pipeline.data.histories import load_prepared
from pipeline.models.artifacts import folder_hash, named
from pipeline.params import Params
from pipeline.training import recipe
from pipeline.training.task import Run

pytestmark = pytest.mark.slow
USERS, ITEMS, ROWS, K = 60, 40, 10, 6
CHALLENGER = Path("models/challenger")


def world(folder: Path) -> Path:
    """A checkout whose users have rated half of the items of their taste; prepared."""
    generator, rows = np.random.default_rng(5), []
    start = pd.Timestamp("2024-01-01", tz="UTC")
    for user in range(USERS):
        own = np.flatnonzero(np.arange(ITEMS) % 2 == user % 2)
        hours = user * 5 + np.arange(ROWS) + generator.random()
        for item, hour in zip(generator.permutation(own)[:ROWS], hours, strict=True):
            when = (start + pd.Timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")
            rows.append((f"u{user:02}", f"i{item:02}", when, 5))
    folder.mkdir()
    columns = ["user_id", "item_id", "timestamp", "rating"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "ratings.csv", index=False)
    colour = ["red" if item % 2 else "blue" for item in range(ITEMS)]
    items = {
        "item_id": [f"i{item:02}" for item in range(ITEMS)],
        "title": [f"{name} thing number {item}" for item, name in enumerate(colour)],
        "categories": colour,
    }
    pd.DataFrame(items).to_csv(folder / "films.csv", index=False)
    project = crowd.project(folder)
    few = {"approval": "human", "min_users": 5, "min_points": 10}
    settings(project, decide_promotion=few, serve={"challenger_share": 1.0})
    toy.dvc(project, "repro", "-q", "preprocess")
    return project


def two_models(project: Path) -> str:
    """v1.0.0, which ranks the other way round, and a challenger that is not judged yet: what it is called."""
    prepared, told = load_prepared(project / "data/prepared"), Params.load(project / "params.yaml")
    run = Run(told.finetune, told.seed, project / ".evergreen/checkpoints")
    served.put(project, recipe.train(prepared, run, ablations=False), "trained")
    shutil.move(project / "models/champion", project / CHALLENGER)
    (project / CHALLENGER / "version.json").unlink()
    for name in ("models/champion", "models/ablations", "reports/training"):
        (project / name).mkdir(parents=True)
    file = project / CHALLENGER / "parts.safetensors"
    right = load_file(file)
    both = {f"scorer.{name}.weight" for name in ("linear", "mlp.4")}
    save_file({name: -array if name in both else array for name, array in right.items()}, file)
    toy.dvc(project, "commit", "-q", "-f", "finetune")
    toy.write_verdict(project)
    ran(project, "registry", "promote", "--approve")
    ran(project, "champion")
    file.unlink()  # it may be a link into DVC's cache
    save_file(right, file)
    toy.dvc(project, "commit", "-q", "-f", "finetune")
    return named(folder_hash(project / CHALLENGER))


def settings(project: Path, **sections: dict[str, Any]) -> None:
    path = project / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for section, values in sections.items():
        content[section] |= values
    path.write_text(yaml.safe_dump(content))


def ran(project: Path, *arguments: str) -> str:
    done = toy.evergreen(project, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until_told(service: Served, line: str) -> None:
    """The service's metrics say so."""

    def metrics() -> list[str]:
        return urllib.request.urlopen(service.address + "/metrics").read().decode().splitlines()

    until(lambda: line in metrics(), lambda: line)


def look(service: Served, rounds: int) -> None:
    """Everybody asks for so many lists, and takes what suits them most of the time."""
    chance = np.random.default_rng(1)
    for number in range(rounds * USERS):
        user = number % USERS
        status, told = service.ask("/recommend", {"user_id": f"u{user:02}", "k": K})
        assert status == 200, told
        taken = [
            row["item_id"]
            for row in told["items"]
            if int(row["item_id"][1:]) % 2 == user % 2 and chance.random() < 0.7
        ]
        events = [
            {
                "event_id": f"{number}-{item}",
                "user_id": f"u{user:02}",
                "item_id": item,
                "event": "rating",
                "value": 5,
                "impression_id": told["impression_id"],
            }
            for item in taken
        ]
        if events:
            assert service.ask("/feedback", events)[0] == 200


def test_the_challenger_that_people_saw_is_judged_and_promoted(tmp_path: Path) -> None:
    project = world(tmp_path / "club")
    challenger = two_models(project)

    # The gate has compared both and waits for a person.
    toy.dvc(project, "repro", "-q", "--single-item", "evaluate", "decide_promotion")
    verdict = json.loads((project / "reports/promotion.json").read_text())
    assert verdict["promote"], [check for check in verdict["checks"] if not check["passed"]]
    checks = {check["name"]: check for check in verdict["checks"]}
    assert checks["interleaved"]["value"] is None

    with running(project) as service:
        # Lists of both are shown to everybody, and people's choice is told.
        until_told(service, "evergreen_challenger 1.0")
        look(service, 2)
        told = json.loads(ran(project, "feedback", "--json"))["interleaved"]
        assert (told["champion"], told["challenger"]) == ("v1.0.0", challenger)
        assert told["lists"] > USERS
        assert told["answer"] == "better", told

        # That very model is judged by it: nothing is trained.
        settings(project, collect={"feedback": f"sqlite:///{project}/.evergreen/events.db"})
        toy.dvc(project, "repro", "-q", "--single-item", "collect", "evaluate", "decide_promotion")
        verdict = json.loads((project / "reports/promotion.json").read_text())
        check = next(check for check in verdict["checks"] if check["name"] == "interleaved")
        assert check["text"].startswith("better")
        assert check["value"] == pytest.approx(told["difference"])
        assert named(verdict["challenger"]["artifact_hash"]) == challenger
        assert toy.evergreen(project, "registry", "promote").returncode == 1  # nobody has said yes
        ran(project, "registry", "promote", "--approve")
        ran(project, "champion")
        until(lambda: service.ask("/health")[1]["version"] == "v2.0.0")
