"""`evergreen simulate`: from data/prepared and the two models to reports/simulation.json and .html.

Also data/simulation.json, by which decide_promotion judges. Loops run side by side, a process a core; each is
kept in .evergreen/simulation when it ends, so that a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.backtest.world import code_hash
from pipeline.data.histories import load_prepared
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.simulation import Calibration, LongTerm, Simulation
from pipeline.errors import ArtifactError, ConfigError
from pipeline.evaluation.admission import proposed
from pipeline.evaluation.exploration import LEAST_K, Draws
from pipeline.evaluation.outputs import as_json
from pipeline.files import write_text
from pipeline.loop.history import SIMULATION
from pipeline.models.artifacts import folder_hash, has_model
from pipeline.models.recommender import Recommender
from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.run import end_with_parent, processors
from pipeline.simulation import loop, page
from pipeline.simulation.calibration import calibrate
from pipeline.simulation.compare import Figures, compared, curves
from pipeline.simulation.exploring import answered
from pipeline.simulation.strategies import Relative
from pipeline.simulation.world import World, build

log = logging.getLogger(__name__)
CHALLENGER, CHAMPION, WITHOUT = "challenger", "champion", "without_lists"
MODELS = {CHALLENGER: Path("models/challenger"), CHAMPION: Path("models/champion")}
EXPORT, KEPT = SIMULATION, Path(".evergreen/simulation")
ROUNDS, MOST_ROUNDS = 10, 100
Way = tuple[str, Draws | None]  # hash of a model, and how its last places are drawn, if they are
PLAIN, LEARNED = "plain_draws", "learned_draws"  # the challenger's loops whose last places are drawn
REPLICATIONS = 4


def simulate(root: Path, rounds: int = ROUNDS) -> Simulation:
    """Both loops, and their reports. Raises ArtifactError without two models, DataError for too few data."""
    if not 2 <= rounds <= MOST_ROUNDS:
        raise ConfigError(f"--rounds {rounds}: from 2 to {MOST_ROUNDS}")
    begin, hashes = time.perf_counter(), _hashes(root)
    params = Params.load(root / "params.yaml")
    prepared = load_prepared(root / "data" / "prepared")
    world = build(prepared, rounds, params.recommend.k, params.seed)
    folder = root / KEPT / key(world, params)
    strategies: dict[str, loop.Strategy] = {}
    for name, where in MODELS.items():
        if hashes[name] not in strategies:
            model = Recommender.load(root / where, prepared.catalogue.items, prepared.log, name)
            strategies[hashes[name]] = Relative.of(model)
    ways: dict[str, Way] = {name: (hashes[name], None) for name in MODELS}
    draws = _proposed(root, hashes[CHALLENGER])
    if draws is not None:
        ways |= {PLAIN: (hashes[CHALLENGER], Draws()), LEARNED: (hashes[CHALLENGER], draws)}
    tasks = [Task(digest, number, how) for digest, how in ways.values() for number in range(REPLICATIONS)]
    alone = replace(world, behaviour=replace(world.behaviour, adoption=0.0))
    found = played(world, strategies, tasks, params.seed, folder)
    figures = {
        name: [found[name_of(Task(digest, number, how))] for number in range(REPLICATIONS)]
        for name, (digest, how) in ways.items()
    }
    figures[WITHOUT] = [
        _kept(folder / f"{WITHOUT}-{number}.json", partial(loop.run, alone, None, params.seed, number))
        for number in range(REPLICATIONS)
    ]
    content = _content(world, figures, calibrate(prepared, params.seed))
    if draws is not None:
        content["exploration"] = answered(figures[LEARNED], figures[PLAIN], draws)
    content |= {"challenger": hashes[CHALLENGER], "champion": hashes[CHAMPION], "seed": params.seed}
    report = Simulation.of(content | {"seconds": round(time.perf_counter() - begin, 1)})
    write(report, root)
    return report


def write(found: Simulation, root: Path) -> None:
    """Page, report and what decide_promotion reads; that comes last."""
    write_text(root / "reports" / "simulation.html", page.render(found))
    found.write(root / "reports" / "simulation.json")
    found.for_the_gate.write(root / EXPORT)
    Git(root).overlook(str(EXPORT))  # git passes over it from now on


def is_due(root: Path) -> bool:
    """Whether there are two models that were not simulated yet, as long_term_guard asks for, or not with the
    policy that the evaluation calls better. Raises ArtifactError where a model is missing."""
    hashes, found = _hashes(root), LongTerm.find(root / EXPORT)
    pair = hashes[CHALLENGER], hashes[CHAMPION]
    if pair[0] == pair[1]:
        return False
    if found is not None and (found.challenger, found.champion) != pair:
        found = None
    draws = _proposed(root, pair[0])
    if draws is None:
        settings = Params.load(root / "params.yaml").decide_promotion
        return found is None and settings.long_term_guard is not None
    return found is None or found.exploration is None or Draws.by(found.exploration.weights) != draws


def _proposed(root: Path, challenger: str) -> Draws | None:
    """The policy for places left to chance that the evaluation calls better, where lists are long enough."""
    if Params.load(root / "params.yaml").recommend.k < LEAST_K:
        return None
    return proposed(Evaluation.find(root / "reports" / "evaluation.json"), challenger)


def _hashes(root: Path) -> dict[str, str]:
    for name, where in MODELS.items():
        if not has_model(root / where):
            got = (
                "`evergreen cycle` trains one"
                if name == CHALLENGER
                else "`evergreen cycle` promotes the first"
            )
            raise ArtifactError(f"{where}: no {name} to simulate: {got}")
    return {name: folder_hash(root / where) for name, where in MODELS.items()}


# Loops, side by side ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    strategy: str
    replication: int
    draws: Draws | None = None


def name_of(task: Task) -> str:
    name = f"{task.strategy[:16]}-{task.replication}"
    return name if task.draws is None else f"{name}-{_short_hash(task.draws.model)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def played(
    world: World,
    strategies: Mapping[str, loop.Strategy],
    tasks: Sequence[Task],
    seed: int,
    folder: Path | None,
) -> dict[str, Figures]:
    """Figures of each task by its name; those in the folder are taken from there. None: all anew."""
    files = {name_of(task): task for task in tasks}
    kept = {name: _read(folder / f"{name}.json") for name in files} if folder else {}
    found = {name: figures for name, figures in kept.items() if figures is not None}
    left = {name: task for name, task in files.items() if name not in found}
    begin, before = time.perf_counter(), len(found)
    with tqdm(total=len(files), initial=before, desc="simulate", unit="loop", disable=None) as bar:
        for name, figures in _each(world, strategies, left, seed, min(processors(), len(left))):
            if folder:
                _write(folder / f"{name}.json", figures)
            found[name] = figures
            bar.update()
            if bar.disable:  # the log of a scheduler
                each = (time.perf_counter() - begin) / (len(found) - before)
                rest = each * (len(files) - len(found))
                log.info("simulation: %d of %d loops, about %.0f s left", len(found), len(files), rest)
    return found


def _each(
    world: World, strategies: Mapping[str, loop.Strategy], left: Mapping[str, Task], seed: int, workers: int
) -> Iterator[tuple[str, Figures]]:
    if workers <= 1:
        for name, task in left.items():
            yield name, loop.run(world, strategies[task.strategy], seed, task.replication, task.draws)
        return
    # Not forked: torch's and BLAS's threads would be copied in whatever state they are.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin, (world, dict(strategies), seed)) as pool:
        asked = {pool.submit(_play, task): name for name, task in left.items()}
        for answer in as_completed(asked):
            yield asked[answer], answer.result()


_shared: dict[str, Any] = {}


def _begin(world: World, strategies: Mapping[str, loop.Strategy], seed: int) -> None:
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    end_with_parent()
    torch.set_num_threads(1)
    _shared.update(world=world, strategies=strategies, seed=seed, limits=threadpool_limits(1))


def _play(task: Task) -> Figures:
    strategy = _shared["strategies"][task.strategy]
    return loop.run(_shared["world"], strategy, _shared["seed"], task.replication, task.draws)


# What is kept ----------------------------------------------------------------------------------------------


def key(world: World, params: Params) -> str:
    """Of data, settings and code."""
    digest = hashlib.sha256(code_hash().encode())
    digest.update(json.dumps([world.rounds, world.k, params.seed, asdict(world.behaviour)]).encode())
    log = world.log
    for array in (log.user, log.item, log.time, log.positive, world.enters, world.appeal):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _kept(path: Path, compute: Callable[[], Figures]) -> Figures:
    if (found := _read(path)) is None:
        found = compute()
        _write(path, found)
    return found


def _write(path: Path, figures: Figures) -> None:
    write_text(path, json.dumps(as_json(list(figures)), allow_nan=False))


def _read(path: Path) -> Figures | None:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]
    except (OSError, ValueError, AttributeError):
        return None


def _content(
    world: World, figures: Mapping[str, Sequence[Figures]], calibration: list[Calibration]
) -> dict[str, Any]:
    choice = world.choice
    weights = {name: getattr(choice, name) for name in ("taste", "popularity", "steepness", "again", "mood")}
    return {
        "rounds": world.rounds,
        "replications": len(figures[CHALLENGER]),
        "measures": compared(figures[CHALLENGER], figures[CHAMPION]),
        "users": len(world.users),
        "items": len(world.catalogue),
        "new_items": int((world.enters > 0).sum()),
        "choices": float(world.rate.mean()),
        "k": world.k,
        "behaviour": asdict(world.behaviour),
        "choice": weights,
        "calibration": calibration,
        "curves": {name: curves(rows) for name, rows in figures.items()},
    }
