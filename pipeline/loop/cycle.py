"""The loop once, without Airflow: look, decide, train if it is time, promote if allowed, recommend.

1. What no stage makes is made right: models/champion, data/registry.json, data/encoder.json.
2. The source's fingerprint is compared with data/raw/manifest.json; plain `dvc repro` does not look at the
   source. If it differs, or collect is stale anyhow, collect is forced: dvc would else restore from its
   run-cache what an earlier run with the same parameters had read.
3. If there are new data (or new rules for it): detect_drift and decide_retraining.
4. Training runs if that decision says so and was not carried out yet, or if a person changed the params or
   the code of what is trained. A refresh keeps the champion's encoder (finetune.refresh_of, in this run).
   If data are new and nothing is trained, preprocess runs alone: the lists use them, the model is unchanged.
5. The training is recorded; what reports/promotion.json allows is promoted, and the folder made right again.
6. `recommend` runs if the champion, the data or its params changed.

That the champion changed is nothing new by itself: what depends on it would otherwise run again after every
promotion, to find that the challenger is the champion. Every decision is printed with its reason, and kept in
data/history. What a run that was killed left undone, the next one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from pipeline.documents.retraining import Retraining
from pipeline.locks import one_cycle
from pipeline.loop.history import HISTORY, Account
from pipeline.loop.overrides import AS_OF, REFRESH_OF, overridden, set_values, undo_all
from pipeline.loop.plans import JUDGE, LAST, LOOK, TRAIN, Plan
from pipeline.loop.steps import PENDING, Loop, champion_name, make_inputs_right, say
from pipeline.registry.git import Git
from pipeline.registry.records import DECISION, now


def cycle(root: Path, as_of: str | None = None, settings: Sequence[str] = ()) -> None:
    """`settings`: as for `set_values`. Raises PipelineError with the failed stage's or action's line."""
    with one_cycle(root):
        for key in undo_all(root):
            say("params.yaml", f"was edited during a run that was killed: check {key}")
        set_values(root, settings)
        for setting in settings:
            say("params.yaml", f"says {setting} from now on")
        with ExitStack() as stack:
            if as_of is not None:
                stack.enter_context(overridden(root, AS_OF, as_of))
                say("as of", f"{as_of}: params.yaml says so during this run, and is put back afterwards")
            _cycle(Loop(root, stack.enter_context(_account(root))))


def _cycle(loop: Loop) -> None:
    make_inputs_right(loop.root)
    loop.collect()
    looked = loop.look(*LOOK)
    plan, outdated = loop.plan(), LAST in loop.stale
    if looked or set(plan.stages) & set(JUDGE):
        _open(loop)
    promoted = _make(loop, plan)
    if promoted or outdated or set(plan.stages) & set(TRAIN):
        loop.run(LAST)
        say(LAST, "recommendations/top_k.parquet is up to date")
    else:
        say(LAST, "nothing to do: same champion, same data")
    loop.account.keep(loop.root)


def _make(loop: Loop, plan: Plan) -> bool:
    """What is planned, and the promotion, if that is allowed; whether there is a new champion."""
    with ExitStack() as stack:
        if plan.mode == "full":
            loop.note_pending(*plan.reasons)
        if plan.mode in ("full", "refresh"):
            # Until behind the promotion, whose snapshot then holds params.yaml as it was used.
            kept = champion_name(loop.root) if plan.mode == "refresh" else None
            stack.enter_context(overridden(loop.root, REFRESH_OF, kept))
        if plan.stages:
            loop.make(*plan.stages)
        (loop.root / PENDING).unlink(missing_ok=True)
        if plan.mode == "none" and plan.stages:
            say("training", "none: the lists use the new histories, users and items; the model is unchanged")
        elif not plan.stages and not plan.reasons:
            say("training", "nothing new in source, params and code: no stage is run")
        return loop.promote()[0] is not None


# Beginning and end -----------------------------------------------------------------------------------------


def _account(root: Path) -> Account:
    champion = champion_name(root)
    return Account.begin(f"cycle__{now().isoformat()}", "cycle", champion=champion, commit=Git(root).head())


def _open(loop: Loop) -> None:
    """A folder of this cycle by date and champion, to be compared and drawn. Others of the same data stay."""
    decision = Retraining.find(loop.root / DECISION)
    if decision is None or decision.as_of is None:
        return
    name = f"{decision.as_of:%Y%m%dT%H%M%SZ}-{decision.champion or 'none'}"
    folders = (loop.root / HISTORY / (name if n == 1 else f"{name}-{n}") for n in count(1))
    loop.account.open(next(folder for folder in folders if not folder.exists()))
    loop.keep()
