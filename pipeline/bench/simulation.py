"""What the simulation of feedback loops can be trusted with: its people, known directions, and its verdicts.

In: data/prepared, or a folder like data/raw. Out, in one run:
- calibration: how far simulated choices are from the data's, beside how far two halves of the data are apart;
- directions: a retrained EASE's lists of new things that people follow, against the same that nobody follows.
  Popularity is amplified over the rounds (Mansoury et al. 2020); at a fixed adoption individual diversity
  falls over time, whatever comparing adoptions in the first round says (Barlacchi et al. 2026, 2602.16315);
  that is about data with repeats: without them people run out of what they like, and every curve bends;
- verdicts: the gate's check on pairs of loops. Equals are EASE of other seeds and samples; planted are
  challengers that rank by their own exposure. All are as long and as many as in `evergreen simulate`;
- seconds of one such check for models of all parts (`light` in pipeline/training), on this machine's cores.
Loops are kept in .evergreen/bench: killed and started again, it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.gate import load
from pipeline.data.histories import Prepared
from pipeline.documents.promotion import Model
from pipeline.documents.simulation import LongTerm
from pipeline.evaluation.gate import Case, long_term
from pipeline.evaluation.metrics import share_interval
from pipeline.params import Params
from pipeline.simulation.calibration import calibrate
from pipeline.simulation.command import REPLICATIONS, ROUNDS, Task, key, name_of, played
from pipeline.simulation.compare import Figures, compared, interval, late
from pipeline.simulation.loop import Strategy
from pipeline.simulation.strategies import Ease, Relative, RichGetRicher
from pipeline.simulation.world import Behaviour, World, build
from pipeline.training.recipe import LIGHT, light

OWN = Path("data/prepared")
KEPT = Path(".evergreen/bench/simulation")
LISTS, GUARD = 10, 0.1
EQUALS, PLANTED = 12, 12  # strategies of a kind
EQUAL_MEETS, PLANTED_MEETS = 4, 6  # how many equals each meets, in a circle; equals both ways
DIRECTIONS = 4  # replications
SMALL = Behaviour(
    drift=0.0, churn=0.0, new_share=0.0, round_share=0.02
)  # as Mansoury's: about an item a round
ADOPTIONS = (0.0, 0.5, 0.8)

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if `data` is neither prepared nor raw."""
    begin, params = time.perf_counter(), Params.load(Path("params.yaml"))
    prepared, _ = load(data or OWN)
    rows = calibrate(prepared, params.seed)
    directions = _directions(prepared, params)
    verdicts = _verdicts(prepared, params)
    seconds = _seconds(prepared, params)
    equal, planted = (_rate(verdicts[name]) for name in ("equal", "planted"))
    figures: Json = {f"calibration: {row.name}": row.to_dict() for row in rows}
    figures |= {f"direction: {name}": row for name, row in directions.items()}
    figures |= {"gate: equal refused": equal, "gate: planted refused": planted}
    return {
        "name": "simulation",
        "conditions": {
            "users": len(np.unique(prepared.log.user)),
            "items": len(prepared.catalogue),
            "repeats": prepared.log.repeats,
            "rounds": ROUNDS,
            "replications": REPLICATIONS,
            "guard": GUARD,
            "seconds": time.perf_counter() - begin,
        },
        "figures": figures,
        "ratios": {
            "equal_refused": equal["value"],
            "planted_refused": planted["value"],
            "calibrated": sum(row.within for row in rows) / len(rows),
            "seconds_of_a_check": seconds,
        },
        "findings": [verdicts["planted"][0][1], verdicts["equal"][0][1]],
    }


# Directions ------------------------------------------------------------------------------------------------


def _directions(prepared: Prepared, params: Params) -> Json:
    """Paired over replications, 95 % intervals."""
    found: Json = {}
    followed, alone = (_loops(prepared, params, SMALL, adoption) for adoption in (0.5, 0.0))
    for name in ("concentration", "list_popularity", "coverage", "distance"):
        gap = [late(one, name) - late(other, name) for one, other in zip(followed, alone, strict=True)]
        found[f"feedback, {name}"] = _ends(gap)
    loops = {adoption: _loops(prepared, params, Behaviour(), adoption) for adoption in ADOPTIONS}
    names = ["taken_diversity", "taken_concentration"] + (["taken_novelty"] if prepared.log.repeats else [])
    for name in names:
        for adoption in ADOPTIONS[1:]:
            pairs = list(zip(loops[adoption], loops[0.0], strict=True))
            static = [one[0][name] - other[0][name] for one, other in pairs]
            over_time = [late(one, name) - one[0][name] for one, _ in pairs]
            found[f"{name}, adoption {adoption:g} for 0, first round"] = _ends(static)
            found[f"{name}, adoption {adoption:g}, over time"] = _ends(over_time)
    return found


def _loops(prepared: Prepared, params: Params, behaviour: Behaviour, adoption: float) -> list[Figures]:
    world = build(prepared, ROUNDS, LISTS, params.seed, replace(behaviour, adoption=adoption))
    return _played(world, {"new": Ease(1, new_only=True)}, DIRECTIONS, params)["new"]


def _ends(values: Sequence[float]) -> Json:
    mean, low, high, _ = interval(np.array(values))
    return {"value": mean, "low": low, "high": high, "replications": len(values)}


# Verdicts --------------------------------------------------------------------------------------------------


def _verdicts(prepared: Prepared, params: Params) -> dict[str, list[tuple[bool, str]]]:
    """(refused, sentence) of each pair of loops."""
    world = build(prepared, ROUNDS, LISTS, params.seed)
    equals = {f"ease-{seed}": Ease(seed) for seed in range(EQUALS)}
    planted = {f"rich-{seed}": RichGetRicher(Ease(EQUALS + seed)) for seed in range(PLANTED)}
    loops = _played(world, {**equals, **planted}, REPLICATIONS, params)
    found: dict[str, list[tuple[bool, str]]] = {"equal": [], "planted": []}
    for seed in range(EQUALS):
        for step in range(1, EQUAL_MEETS + 1):
            one, other = loops[f"ease-{seed}"], loops[f"ease-{(seed + step) % EQUALS}"]
            found["equal"] += [_judged(one, other, params), _judged(other, one, params)]
    for seed in range(PLANTED):
        for step in range(PLANTED_MEETS):
            champion = loops[f"ease-{(seed + step) % EQUALS}"]
            found["planted"].append(_judged(loops[f"rich-{seed}"], champion, params))
    return found


def _judged(challenger: Sequence[Figures], champion: Sequence[Figures], params: Params) -> tuple[bool, str]:
    """By the gate's own check."""
    settings = params.decide_promotion.model_copy(update={"long_term_guard": GUARD})
    content = {"challenger": "one", "champion": "other", "rounds": ROUNDS, "replications": REPLICATIONS}
    simulation = LongTerm.of(content | {"measures": compared(challenger, champion)})
    one, other = (Model(artifact_hash=name) for name in ("one", "other"))
    check = long_term(Case(None, one, other, settings, simulation))
    return not check.passed, check.text


def _rate(verdicts: Sequence[tuple[bool, str]]) -> Json:
    refused = sum(one for one, _ in verdicts)
    low, high = share_interval(refused, len(verdicts))
    return {"value": refused / len(verdicts), "low": low, "high": high, "verdicts": len(verdicts)}


# Loops -----------------------------------------------------------------------------------------------------


def _played(
    world: World, strategies: dict[str, Strategy], replications: int, params: Params
) -> dict[str, list[Figures]]:
    tasks = [Task(name, number) for name in strategies for number in range(replications)]
    found = played(world, strategies, tasks, params.seed, KEPT / key(world, params))
    return {
        name: [found[name_of(Task(name, number))] for number in range(replications)] for name in strategies
    }


def _seconds(prepared: Prepared, params: Params) -> float:
    """Of one check, anew each time: two models of all parts but tower and MLP, trained with other seeds."""
    log, items = prepared.log, prepared.catalogue
    models = {f"light-{seed}": Relative(light(log, log.fit, items, None, seed), LIGHT) for seed in (1, 2)}
    begin = time.perf_counter()
    world = build(prepared, ROUNDS, LISTS, params.seed)
    tasks = [Task(name, number) for name in models for number in range(REPLICATIONS)]
    played(world, models, tasks, params.seed, None)
    return time.perf_counter() - begin
