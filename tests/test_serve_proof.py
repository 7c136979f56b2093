"""The proof: 300 people use a service, the loop learns from what they did, and their lists get better.

By `evergreen cycle`, the engine that Airflow's tasks call, too (their own slow tests have the scheduler).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import crowd
import numpy as np
import pytest
import toy
import yaml
from served_process import Served, running
from waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow(minutes=10)
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("sqlalchemy")
if find_spec("recbole") is None:  # never imported: its data are wanted
    pytest.skip("MovieLens 100K lies in the wheel recbole", allow_module_level=True)

MEMBERS, WHILE, AFTERWARDS = 300, 5, 2  # people; lists of each before and after the training
PAUSE = 0.05  # seconds between the questions of the load


def cycle(project: Path) -> dict[str, str]:
    """What it decides, and why."""
    command = [sys.executable, "-m", "pipeline", "cycle"]
    environment = toy.environment() | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pairs = [line.split(":", 1) for line in done.stdout.splitlines() if ":" in line]
    return {name: text.strip() for name, text in pairs if name in ("retraining", "promotion", "champion")}


def learn_from(project: Path) -> None:
    """From now on `collect` joins what the service's users did."""
    path = project / "params.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    content["collect"]["feedback"] = f"sqlite:///{project}/.evergreen/events.db"
    path.write_text(yaml.safe_dump(content))


class Load:
    """Lists asked for all the time, until it is stopped: the versions that answered, and failures."""

    def __init__(self, service: Served, people: list[crowd.Person]) -> None:
        self.versions: list[str] = []
        self.failures: list[object] = []
        self._service, self._people = service, people
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=PATIENCE_SECONDS)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(PAUSE):
            number += 1
            question = {"user_id": self._people[number % len(self._people)].name, "k": crowd.LISTED}
            try:
                status, told = self._service.ask("/recommend", question)
            except Exception as error:  # whatever it is, somebody got no list
                self.failures.append(error)
                continue
            if status != 200 or len(told["items"]) != crowd.LISTED:
                self.failures.append(told)
            elif not self.versions or self.versions[-1] != told["version"]:
                self.versions.append(told["version"])

    def until_version(self, version: str) -> None:
        until(lambda: self.versions[-1:] == [version], lambda: self.versions)


def interval(gains: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, people redrawn."""
    drawn = np.random.default_rng(1).integers(0, len(gains), (4_000, len(gains)))
    low, high = np.percentile(gains[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def test_people_take_more_from_a_service_that_learned_from_them(tmp_path: Path) -> None:
    project, people, start = crowd.club(tmp_path / "club", MEMBERS)
    assert len(people) == MEMBERS
    assert cycle(project)["champion"].startswith("v1.0.0")
    deaf = Path(shutil.copytree(project, tmp_path / "deaf", symlinks=True))  # who never learns anything

    clock = crowd.Clock(start)
    with running(project) as service:
        crowd.rounds(people, service, WHILE, clock, think=True)
        paused = Path(shutil.copytree(project, tmp_path / "paused", symlinks=True))
        learn_from(project)
        with Load(service, people) as load:
            said = cycle(project)
            # The monitoring saw that the champion no longer knows what they take, and asked for the training.
            assert said["retraining"].startswith("full: ")
            decided = json.loads((project / "reports" / "retraining.json").read_text())
            assert decided["reasons"][0]["signal"] == "quality"
            assert said["promotion"].startswith("v2.0.0 is the champion")
            load.until_version("v2.0.0")
        assert load.failures == []
        assert load.versions == ["v1.0.0", "v2.0.0"]
        learned = afterwards(people, service, crowd.Clock(clock.now))

    # Everybody goes on from the same lists, at services that know less.
    with running(paused) as service:  # each event as it comes, but no training
        live = afterwards(people, service, crowd.Clock(clock.now))
    with running(deaf) as service:
        never = afterwards(people, service, None)
    means = [round(float(each.mean()), 2) for each in (learned, live, never)]
    told = f"items taken of a list: {means[0]}; without the training {means[1]}; without any event {means[2]}"
    assert interval(learned - never)[0] > 0, told
    assert interval(learned - live)[0] > 0, told
    print(told, interval(learned - never), interval(learned - live))


def afterwards(people: list[crowd.Person], service: Served, clock: crowd.Clock | None) -> np.ndarray:
    """(people,) items taken of a list, mean."""
    return crowd.rounds([person.copy() for person in people], service, AFTERWARDS, clock).mean(axis=1)
