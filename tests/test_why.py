from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy

from pipeline.documents.registry import Step, VersionRecord
from pipeline.registry.git import Git
from pipeline.registry.versions import Version
from pipeline.runs.why import _files, summary


def version(number: int) -> Version:
    return Version(f"v{number}.0.0", number, "0" * 40, VersionRecord())


def step(gain: float | None) -> Step:
    return Step(what="data", changes=[], gain=gain, low=None, high=None)


def test_steps_and_the_rest_add_up_to_the_change():
    found = summary(version(1), version(2), [0.10, 0.16], [step(0.03), step(-0.01)])
    assert found.change == pytest.approx(0.06)
    assert found.rest == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("figures", "steps"), [([0.1, None], [step(0.1)]), ([0.1, 0.2], [step(0.1), step(None)])]
)
def test_what_is_not_known_is_not_made_up(figures, steps):
    assert summary(version(1), version(2), figures, steps).rest is None


def test_of_a_folder_of_code_the_files_that_differ_are_named(tmp_path: Path) -> None:
    toy.git(tmp_path, "init", "-q")
    versions = []
    for number, names in enumerate(("ab", "b")):
        (tmp_path / "models").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "models" / f"{name}.py").write_text(str(number))
        toy.git(tmp_path, "add", "-A")
        toy.git(tmp_path, "-c", "user.name=n", "-c", "user.email=n@n", "commit", "-q", "-m", "One")
        commit = toy.git(tmp_path, "rev-parse", "HEAD").strip()
        versions.append(Version(f"v{number}.0.0", number, commit, VersionRecord()))
    assert _files(Git(tmp_path), *versions, "models") == "models: b.py"
    assert _files(Git(tmp_path), *versions, "models/b.py") == "models/b.py"
    assert _files(Git(tmp_path), *versions, "command of finetune") == "command of finetune"


@pytest.fixture
def twice(cycled: Path) -> Path:
    """Of the two versions data, a param and the training's code differ."""
    (cycled / "source.csv").write_text((cycled / "source.csv").read_text() + "user,item,1998-03-01\n" * 4)
    toy.set_param(cycled, "epochs: 2", "epochs: 3")
    (cycled / "finetune.py").write_text((cycled / "finetune.py").read_text() + "\n# newer\n")
    toy.git(cycled, "commit", "-q", "-a", "-m", "Change all")
    assert toy.evergreen(cycled, "cycle").returncode == 0
    return cycled


@pytest.mark.slow
def test_a_change_is_split_into_data_params_and_code(twice):
    before = toy.git(twice, "status", "--short"), (twice / "dvc.lock").read_text()
    done = toy.evergreen(twice, "why", "v1", "champion", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["first"], found["second"]) == ("v1.0.0", "v2.0.0")
    assert [one["what"] for one in found["steps"]] == ["data", "params", "code"]
    assert [one["gain"] for one in found["steps"]] == [0.02] * 3  # what the toy's evaluation always says
    data, params, code = (one["changes"] for one in found["steps"])
    assert data[0] == "8 rows as of 1998-02-01 -> 12 rows as of 1998-03-01"
    assert (params, code) == (["finetune.epochs: 2 -> 3"], ["finetune.py"])
    assert (toy.git(twice, "status", "--short"), (twice / "dvc.lock").read_text()) == before
    assert toy.git(twice, "worktree", "list").count("\n") == 1
    again = toy.evergreen(twice, "why", "v2", "v2")
    assert "data, params and code are the same" in again.stdout
    unknown = toy.evergreen(twice, "why", "v1", "v7")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: v7: no such version")
