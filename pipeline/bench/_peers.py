"""Sequence models of RecTools on the bench's points, from an environment of their own, by Parquet files.

RecTools' torch models need other versions of numpy, pandas and Lightning than the project, so they are no
extra of it but the dependency group `peers` of pyproject.toml, which `environment` installs into
.evergreen/peers. What needs a C compiler besides (LightFM) is the group `peers-compiled`: without one the
bench goes on.
Every list is completed and scored by the project's own code: a peer says what it would show, nothing else.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.histories import Catalogue, Points, Prepared
from pipeline.errors import DataError
from pipeline.models import baselines
from pipeline.models.ranking import top_k

FOLDER = Path(".evergreen/peers")
SCRIPT = Path(__file__).with_name("_rectools_peer.py")
K, CHUNK = 10, 256
CAUSE = re.compile(
    r"fatal error: |error: (command |\[Errno)"
)  # of a failed build, in the midst of pip's words


def python() -> Path:
    return (FOLDER / "bin" / "python").absolute()


def installed() -> Path | None:
    """The Python of the peers' environment; None where it is not there, or of other versions."""
    return python() if _installed(FOLDER / "installed.json", _group("peers")) else None


def environment() -> Path:
    """The same, made if it is not there."""
    group, stamp = _group("peers"), FOLDER / "installed.json"
    if installed() is None:
        print(f"installing {', '.join(group)} into {FOLDER} (once, 1.3 GB)", file=sys.stderr)
        venv.create(FOLDER, with_pip=True, clear=True)
        if complaint := _install(stamp, group):
            told = complaint[-1]
            raise DataError(
                f"{FOLDER}: the peers could not be installed ({told}): run it with a package index"
            )
    return python()


def compiled() -> str | None:
    """Add what has to be compiled to `environment`, or say why it cannot: the others rank without it."""
    group, stamp = _group("peers-compiled"), FOLDER / "compiled.json"
    if _installed(stamp, group):
        return None
    print(f"compiling {', '.join(group)} (once)", file=sys.stderr)
    complaint = _install(stamp, group)
    if not complaint:
        return None
    told = next((line for line in complaint if CAUSE.search(line)), complaint[-1]).strip()
    remedy = "install a C compiler and Python's headers (Debian: gcc python3-dev) and run it again"
    return f"{', '.join(group)} could not be built ({told}): {remedy}"


def _group(name: str) -> list[str]:
    groups = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return list(groups[name])


def _installed(stamp: Path, group: list[str]) -> bool:
    return stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == group


def _install(stamp: Path, group: list[str]) -> list[str]:
    """The lines of pip's complaint; none: `group` is there, and `stamp` says so."""
    command = [str(python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *group]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines() or ["no message"]
    stamp.write_text(json.dumps(group), encoding="utf-8")
    return []


@dataclass(frozen=True)
class Answer:
    """What a fitted peer would show at the points, and what it told of itself."""

    validation: np.ndarray  # (points, K) item indices
    test: np.ndarray
    told: dict[str, Any]


def write_points(folder: Path, prepared: Prepared, validation: Points) -> None:
    """What a peer is given: the rows to fit on, histories of the points, targets of validation alone."""
    log, rows = prepared.log, baselines.train_rows(prepared.log)
    told = {"user": log.user[rows], "item": log.item[rows], "liked": log.positive[rows]}
    pd.DataFrame(told).to_parquet(folder / "rows.parquet", index=False)
    place = {"point": np.arange(len(validation)), "user": validation.user, "target": validation.target}
    pd.DataFrame(place).to_parquet(folder / "validation.parquet", index=False)
    for window, points in (("validation", validation), ("test", prepared.test)):
        point, row = points.rows()
        history = pd.DataFrame({"point": point, "item": log.item[row], "liked": log.positive[row]})
        history.to_parquet(folder / f"{window}_histories.parquet", index=False)


def ask(
    python: Path,
    folder: Path,
    task: dict[str, Any],
    prepared: Prepared,
    validation: Points,
    order: np.ndarray,
) -> Answer:
    """Fit one peer with one setting in its own process. Raises DataError with its complaint's last line."""
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    run(python, SCRIPT, folder, task["model"])
    lists = [
        completed(pd.read_parquet(folder / f"{window}_lists.parquet"), points, prepared.catalogue, order)
        for window, points in (("validation", validation), ("test", prepared.test))
    ]
    return Answer(lists[0], lists[1], json.loads((folder / "told.json").read_text(encoding="utf-8")))


def run(python: Path, script: Path, folder: Path, name: str) -> None:
    """`script` on `folder`. Raises DataError with its complaint's last line."""
    command = [str(python), str(script), str(folder)]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, env=_quiet())
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise DataError(f"{name} failed ({told}): remove {FOLDER} to install it anew")


def completed(listed: pd.DataFrame, points: Points, catalogue: Catalogue, order: np.ndarray) -> np.ndarray:
    """(points, K) item indices by the rules for every model: what is not listed follows by popularity."""
    listed = listed.sort_values("point", kind="stable")
    asked = listed["point"].to_numpy(dtype=np.int64)
    item, score = (listed[name].to_numpy() for name in ("item", "score"))
    parts = [np.zeros((0, K), np.int32)]
    for begin in range(0, len(points), CHUNK):
        chunk = points[begin : begin + CHUNK]
        rows = slice(*np.searchsorted(asked, [begin, begin + len(chunk)]))
        scores = np.full((len(chunk), len(catalogue)), np.nan, np.float32)
        scores[asked[rows] - begin, item[rows].astype(np.int64)] = score[rows]
        parts.append(top_k(scores, chunk, catalogue, order, K)[0])
    return np.concatenate(parts)


def _quiet() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}


if __name__ == "__main__":
    print(environment())
