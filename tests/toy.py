"""A tiny project with real git and real DVC: stages of a few lines that take milliseconds.

The model of the toy is its seed; `quality` in quality.txt is its lead over every other model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.artifacts import folder_hash

FINETUNE = """
import json, pathlib, sys, yaml
out = pathlib.Path(sys.argv[1])
(out / "encoder").mkdir(parents=True)
seed = yaml.safe_load(open("params.yaml"))["seed"]
(out / "encoder" / "weights").write_text(str(seed) * 1000)
fit_end = "1998-03-%02dT00:00:00+00:00" % (seed % 28 + 1)
(out / "model.json").write_text(json.dumps({"fit_end": fit_end, "seed": seed, "training": {"seconds": 3}}))
"""
DVC_YAML = """
stages:
  finetune:
    cmd: python finetune.py models/challenger
    deps: [finetune.py, helper.py]
    params: [seed]
    outs: [models/challenger]
"""
GIT_IGNORE = """
/data/
/models/*
!/models/champion/
/models/champion/*
!/models/champion/README.md
/reports/
/recommendations/
/.evergreen/
"""


def environment() -> dict[str, str]:
    """No identity, no user's configuration; the interpreter of the tests first in PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "DVC_NO_ANALYTICS": "1",
    }


def shell(folder: Path, *command: str) -> str:
    done = subprocess.run(
        (shutil.which(command[0], path=environment()["PATH"]) or command[0], *command[1:]),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def git(folder: Path, *arguments: str) -> str:
    return shell(folder, "git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments)


def dvc(folder: Path, *arguments: str) -> str:
    return shell(folder, sys.executable, "-m", "dvc", *arguments)


def new_project(folder: Path, dvc_yaml: str = DVC_YAML, **files: str) -> Path:
    """A committed git repository with DVC, params.yaml and the stages; nothing has run."""
    shutil.copytree(
        Path("models/champion"), folder / "models" / "champion", ignore=shutil.ignore_patterns("*.json")
    )
    shutil.copy("params.yaml", folder / "params.yaml")
    content = {
        "dvc.yaml": dvc_yaml,
        ".gitignore": GIT_IGNORE,
        "finetune.py": FINETUNE,
        "helper.py": "",
    } | files
    for name, text in content.items():
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def set_param(project: Path, old: str, new: str) -> None:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_verdict(project: Path, promote: bool = True, champion: str | None = None) -> None:
    """reports/promotion.json as decide_promotion would write it; `champion`: the hash compared with."""
    gain = {"name": "beats_popularity", "passed": promote, "text": "nDCG@10 +0.0500 against popularity"}
    verdict = {
        "promote": promote,
        "approval": "auto",
        "checks": [gain | {"value": 0.03, "limit": 0.0}],
        "challenger": {"version": None, "artifact_hash": folder_hash(project / "models" / "challenger")},
        "champion": champion and {"version": "v1.0.0", "artifact_hash": champion},
    }
    (project / "reports").mkdir(exist_ok=True)
    (project / "reports" / "promotion.json").write_text(json.dumps(verdict))
    (project / "reports" / "metrics.json").write_text('{"ndcg@10": 0.125, "recall@10": NaN}')


def use_challenger(project: Path, seed: int, promote: bool = True, champion: str | None = None) -> str:
    """Put in place what the training with `seed` left (see the fixture `trained`); returns its hash."""
    shutil.rmtree(project / "models" / "challenger", ignore_errors=True)
    shutil.copytree(project / ".evergreen" / f"seed-{seed}" / "challenger", project / "models" / "challenger")
    shutil.copy(project / ".evergreen" / f"seed-{seed}" / "dvc.lock", project / "dvc.lock")
    write_verdict(project, promote, champion)
    return folder_hash(project / "models" / "challenger")


def tags(project: Path) -> list[str]:
    return git(project, "tag", "--list").split()
