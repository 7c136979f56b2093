"""What of the graph a cycle runs, and why: read from what is stale, the decision, and what was begun before.

`stale` is what `dvc status` says: stage -> what changed, e.g. {"finetune": ["params.yaml: seed"]}.
Rule: a person's change of params or code of preprocess and finetune trains in full; so does a full training
that was begun and did not end; otherwise the decision counts, if it is of this champion and not carried out
yet. Without a training, new data go through preprocess, and a challenger whose judgement is out of date is
judged again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.documents.retraining import Mode, Pending, Retraining
from pipeline.loop.overrides import REFRESH_OF
from pipeline.models.artifacts import CHAMPION
from pipeline.registry.versions import EXPORT

LOOK = ("detect_drift", "decide_retraining")
TRAIN = ("preprocess", "finetune")
JUDGE = ("evaluate", "decide_promotion")
LAST = "recommend"
"""The only stage behind the promotion."""
MADE = {"full": (*TRAIN, *JUDGE), "refresh": (*TRAIN, *JUDGE), "judge": JUDGE, "none": TRAIN[:1]}
"""Mode -> the stages between decision and promotion that it may run."""
OUTPUTS = ("data/", "models/", "reports/", "recommendations/")
"""Whatever else a stage depends on, a person changes; so do they ENCODER."""
ENCODER = Path("data/encoder.json")
"""What the weights are that finetune.encoder names (pipeline/loop/steps.py)."""
MEANING = ("params.yaml: collect.source", "params.yaml: collect.files", "params.yaml: collect.sql")
"""Another source or other columns are other data, not more of it."""

Stale = dict[str, list[str]]


@dataclass(frozen=True)
class Plan:
    """What of the graph is to be run, and why, each a line for people.

    `judge`: the last challenger is judged again, without a training.
    """

    mode: Literal["none", "judge", "refresh", "full"]
    reasons: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    """Those of MADE[mode] that are out of date."""


def news(stale: Stale) -> Stale:
    """The stale stages and what changed for each, but for what the cycle itself changes from run to run."""
    own = {str(CHAMPION), str(EXPORT), "params.yaml: " + ".".join(REFRESH_OF)}
    sample = "params.yaml: detect_drift."  # how a model samples its time is no reason to train it anew
    left = {
        stage: [
            path
            for path in changes
            if stage == LAST or not (path in own or (stage == "finetune" and path.startswith(sample)))
        ]
        for stage, changes in stale.items()
    }
    return {stage: changes for stage, changes in left.items() if changes}


def make_plan(
    stale: Stale,
    decision: Retraining | None,
    champion: str | None,
    done: list[str],
    pending: Pending | None = None,
) -> Plan:
    """`stale`: see news; `done`: stages that have ever run here; `pending`: a training that was cut short."""
    unmade = [stage for stage in TRAIN if stage in stale]
    by_hand = tuple(
        f"{stage}: {causes(stale[stage])} changed"
        for stage in unmade
        if stage in done and any(_is_input(path) for path in stale[stage])
    )
    if by_hand:
        return Plan("full", by_hand, MADE["full"])
    if unmade and pending and pending.mode == "full":
        return Plan("full", (f"as was begun: {'; '.join(pending.reasons or ['full'])}",), MADE["full"])
    if unmade and decision and decision.retrain and decision.champion == champion:
        first = not set(TRAIN) & set(done)
        mode: Mode = "refresh" if decision.mode == "refresh" else "full"
        why = "every stage runs, for the first time" if first else f"{mode}, as decided"
        return Plan(mode, (why,), MADE[mode])
    if unmade:
        waiting = [stage for stage in JUDGE if any(_is_input(path) for path in stale.get(stage, []))]
        waiting = [stage for stage in waiting if stage in done]
        waits = (f"{' and '.join(waiting)} changed, and wait for the next training",) if waiting else ()
        return Plan("none", waits, tuple(stage for stage in MADE["none"] if stage in stale))
    judge = tuple(stage for stage in JUDGE if stage in stale)
    reasons = tuple(f"{stage}: {causes(stale[stage])} changed" for stage in judge)
    return Plan("judge" if judge else "none", reasons, JUDGE if JUDGE[0] in judge else judge)


def causes(changes: list[str]) -> str:
    """What a person changed, if there is any such; else the outputs that changed or are missing."""
    inputs = [path for path in changes if _is_input(path)] or changes
    more = f" and {len(inputs) - 3} more" if len(inputs) > 3 else ""
    return ", ".join(inputs[:3]) + more


def _is_input(path: str) -> bool:
    """Of what `dvc status` names: no stage makes it."""
    return path == str(ENCODER) or not path.startswith(OUTPUTS)
