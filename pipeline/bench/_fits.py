"""The fits of `evergreen bench ranking`: what all of one data set share, and keeping what was fitted.

In: prepared data, vectors, params, a folder. Out: one file a fit, under a hash of its circumstances, so that
a bench that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.data.histories import Prepared
from pipeline.evaluation import tuning
from pipeline.files import renamed
from pipeline.params import Params

log = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True)
class Ranked:
    """One fit: (points, K) lists, validation nDCG@10, settings, how many were tried, CPU seconds."""

    listed: np.ndarray
    validation: float
    settings: Json
    tried: int
    seconds: float


@dataclass(frozen=True)
class Bench:
    """What all fits share."""

    prepared: Prepared
    vectors: np.ndarray
    params: Params
    folder: Path

    @property
    def order(self) -> np.ndarray:
        return tuning.frozen_order(self.prepared)

    def kept(self, name: str, seed: int, what: object, fit: Callable[[], Ranked]) -> Ranked:
        """`fit()`, or what it gave before under the same name, seed and circumstances (`what`)."""
        file = self.folder / f"{name}-{seed}-{digest(what)}.npz"
        if file.exists():
            with np.load(file) as content:
                return Ranked(content["listed"], **json.loads(str(content["told"])))
        begin = sum(os.times()[:4])  # CPU seconds, with those of processes that have ended
        made = fit()
        made = replace(made, seconds=made.seconds or sum(os.times()[:4]) - begin)
        told = {field: getattr(made, field) for field in ("validation", "settings", "tried", "seconds")}
        with renamed(file) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, listed=made.listed, told=json.dumps(told))
        log.info(
            "%s, seed %d: validation nDCG@10 %.4f, %.0f CPU s", name, seed, made.validation, made.seconds
        )
        return made


def digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]


def hashes(paths: list[Any]) -> list[str]:
    root = Path(pipeline.__path__[0]).parent
    return [hashlib.sha256((root / path).read_bytes()).hexdigest()[:16] for path in paths]


def makers() -> list[Path]:
    """The sources that a model comes from."""
    package = Path(pipeline.__path__[0])
    folders = [package / name for name in ("data", "models", "training")]
    return sorted(file for folder in folders for file in folder.iterdir() if file.suffix == ".py")


def fingerprint(prepared: Prepared) -> str:
    """Of everything that a model is fitted on or asked."""
    digest, log_ = hashlib.sha256("\n".join(prepared.catalogue.ids).encode()), prepared.log
    for array in (log_.user, log_.item, log_.time, log_.positive, log_.fit, log_.window):
        digest.update(np.ascontiguousarray(array).tobytes())
    for points in (prepared.validation, prepared.test):
        digest.update(points.user.tobytes() + points.target.tobytes() + points.time.tobytes())
    return digest.hexdigest()[:16]
