"""Each trial as an experiment of DVC: `dvc exp show` lists it, `dvc exp apply` takes its params over.

An experiment is a commit on top of HEAD that a name under refs/exps points to. It holds the project as it is
here, params.yaml with the trial's values, and METRICS with what validation said. It is written by git alone:
`dvc exp run` would run whole stages, the test window's evaluation too, and `dvc exp save` would note the
last training's outputs as made with these params. dvc.lock stays as it is, so that the params are seen to
have changed once they are applied, and the next cycle trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.registry.actions import LOCK
from pipeline.registry.git import Git

METRICS = "data/tuning.json"
OURS = (
    "data/registry.json",
    "data/encoder.json",
    "data/simulation.json",
)  # kept right by the loop, whatever is applied
PREFIX = "refs/exps"  # DVC's


def names(git: Git) -> set[str]:
    """Of the experiments on the commit that is checked out."""
    return set(git.run("for-each-ref", "--format=%(refname:lstrip=4)", _folder(git)).split())


def _folder(git: Git) -> str:
    head = git.head()
    return f"{PREFIX}/{head[:2]}/{head[2:]}"


def record(git: Git, name: str, params: str, metrics: Mapping[str, float | None]) -> None:
    """The experiment `name` on the commit that is checked out."""
    git.use_fallback_identity()
    files = {"params.yaml": params, METRICS: json.dumps(dict(metrics), indent=2) + "\n"}
    with git.lock(LOCK):
        commit = git.snapshot(f"evergreen tune: {name}", files, ["dvc.lock"], leave=OURS)
        git.run("update-ref", f"{_folder(git)}/{name}", commit)
