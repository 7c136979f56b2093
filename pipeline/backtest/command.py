"""`evergreen backtest`: from data/raw to reports/backtest.json and reports/backtest.html.

In: the project's folder, or another folder like data/raw; params.yaml. Out: the two reports, each written
beside and renamed. Rule: what costs time is kept in .evergreen/backtest/ and taken from there the next time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.backtest import page, policies, simulate, timeline
from pipeline.backtest.world import Fast, Trainer, World, world_key
from pipeline.data.histories import MICROSECONDS_A_DAY
from pipeline.data.tables import read_parquet
from pipeline.errors import ConfigError
from pipeline.evaluation.outputs import as_json
from pipeline.files import renamed, write_text
from pipeline.params import Params

log = logging.getLogger(__name__)
CACHE = Path(".evergreen/backtest")
LEAST_WINDOWS, MOST_WINDOWS = 3, 60

Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    windows: int = 16
    start_share: float = timeline.START_SHARE
    policies: Path | None = None  # a file of further ones
    choose: bool = False  # thresholds, on the first half
    full: bool = False  # the whole training instead of the light preset


def backtest(raw: Path, params: Params, options: Options) -> Json:
    """The content of reports/backtest.json. Raises ConfigError and DataError for what a user can mend."""
    _check(options)
    begin = time.perf_counter()
    own = policies.read(options.policies, params.decide_retraining) if options.policies else []
    known = timeline.load(raw, params.preprocess, options.windows, options.start_share)
    with tqdm(desc="backtest", unit="step", disable=None, leave=False) as bar:

        def tell(text: str) -> None:
            if text:
                bar.set_postfix_str(text)
                bar.update()

        trainer = _trainer(raw, known, params, options, tell)
        world = World(known, params, trainer, CACHE / world_key(known, params, trainer.code), tell)
        found = simulate.run(world, _policies(world, own))
        if options.choose:
            found["chosen"] = simulate.choose(world)
    return dict(as_json(_conditions(world, time.perf_counter() - begin) | found))


def _check(options: Options) -> None:
    if not LEAST_WINDOWS <= options.windows <= MOST_WINDOWS:
        raise ConfigError(f"--windows {options.windows}: from {LEAST_WINDOWS} to {MOST_WINDOWS}")
    if not 0 < options.start_share < 1:
        raise ConfigError(f"--start {options.start_share:g}: a share between 0 and 1, e.g. 0.3")


def _trainer(
    raw: Path, known: timeline.Timeline, params: Params, options: Options, tell: Callable[[str], object]
) -> Trainer:
    if options.full:
        from pipeline.backtest.full import Full

        models = CACHE / f"models-{world_key(known, params, 'full')}"
        return Full(read_parquet(raw / "items.parquet", "items"), params, models)
    return Fast(text_vectors(known, params, CACHE, tell), params.seed)


def _policies(world: World, own: Sequence[policies.Policy]) -> list[policies.Policy]:
    """The standard ones, then a user's own, which may take a standard one's place."""
    windows = world.timeline.windows
    days = (windows[-1].stop - windows[0].start) / MICROSECONDS_A_DAY / (len(windows) / 2)
    standard = policies.standard(world.params.decide_retraining, days)
    names = {policy.name for policy in own}
    return [policy for policy in standard if policy.name not in names] + list(own)


def _conditions(world: World, seconds: float) -> Json:
    known = world.timeline
    return {
        "seed": world.params.seed,
        "model": world.trainer.code,
        "rows": len(known.rows),
        "users": len(known.user_ids),
        "items": len(known.catalogue),
        "held_back": known.held_back,
        "decide_retraining": world.params.decide_retraining.model_dump(),
        "seconds_of_this_run": round(seconds, 1),
    }


def text_vectors(
    known: timeline.Timeline, params: Params, cache: Path, tell: Callable[[str], object]
) -> np.ndarray | None:
    """(items, d) of the un-tuned encoder in the catalogue's order; None without any text."""
    texts = known.catalogue.items["item_text"].fillna("").tolist()
    if not any(texts):
        return None
    settings = params.finetune
    digest = hashlib.sha256(json.dumps([settings.encoder, settings.max_length, texts]).encode()).hexdigest()
    path = cache / f"vectors-{digest[:16]}.npy"
    if path.exists():
        return np.asarray(np.load(path))
    from pipeline.models.encoder import TextEncoder

    tell("item texts")
    vectors = TextEncoder.load(settings.encoder, settings.max_length).vectors(texts)
    with renamed(path) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    return vectors


def write(found: Json, reports: Path) -> None:
    """backtest.json and backtest.html; the JSON comes last."""
    texts = {
        "backtest.html": page.render(found),
        "backtest.json": json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_text(reports / name, text)
