"""The loop once, without Airflow: look, decide, train if it is time, promote if allowed, recommend.

1. The champion's folder is made right (models/champion), and data/registry.json with it.
2. The source's fingerprint is compared with data/raw/manifest.json; plain `dvc repro` does not look at the
   source. If it differs, or collect is stale anyhow, collect is forced: dvc would else restore from its
   run-cache what an earlier run with the same parameters had read.
3. If there are new data (or new rules for it): detect_drift and decide_retraining.
4. Training runs if that decision says so and was not carried out yet, or if a person changed the params or
   the code of what is trained. A refresh keeps the champion's encoder (finetune.refresh_of, in this run).
   If data are new and nothing is trained, preprocess runs alone: the lists hear of it, the model does not.
5. The training is recorded; what reports/promotion.json allows is promoted, and the folder made right again.
6. `recommend` runs if the champion, the data or its params changed.

That the champion changed is nothing new by itself: what depends on it would otherwise run again after every
promotion, to find that the challenger is the champion. Every decision is printed with its reason, and kept in
data/history. What a run that was killed left undone, the next one does.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from pipeline.documents.retraining import Retraining
from pipeline.errors import PipelineError
from pipeline.loop import steps
from pipeline.loop.history import HISTORY, JUDGED, LOOKED, Account
from pipeline.loop.overrides import AS_OF, REFRESH_OF, overridden, undo_all
from pipeline.loop.plans import JUDGE, LAST, LOOK, Plan, Stale
from pipeline.loop.steps import STATE, say
from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.registry.records import DECISION, now


def cycle(root: Path, as_of: str | None = None) -> None:
    """Raises PipelineError with a stage's or an action's own line if one fails."""
    with _alone(root):
        for key in undo_all(root):
            say("params.yaml", f"was edited during a run that was killed: check {key}")
        with ExitStack() as stack:
            if as_of is not None:
                stack.enter_context(overridden(root, AS_OF, as_of))
                say("as of", f"{as_of}: params.yaml says so during this run, and is put back afterwards")
            _cycle(root, stack.enter_context(_account(root)))


def _cycle(root: Path, account: Account) -> None:
    params = Params.load(root / "params.yaml")
    steps.make_champion_right(root)
    changed = steps.source_changed(root, params)
    stale = steps.stale_stages(root)
    if _look(root, stale, changed, account):
        stale = steps.stale_stages(root)
    plan = steps.plan(root, stale)
    account.note(mode=plan.mode)
    for reason in plan.reasons:
        say("training", reason)
    act = _go_without_training if plan.mode == "none" else _train
    promoted = act(root, plan, account)
    if promoted:
        steps.make_champion_right(root)
    if promoted or plan.mode != "none" or plan.prepare or LAST in stale:
        steps.run(root, "--single-item", LAST)
        say(LAST, "recommendations/top_k.parquet is up to date")
    else:
        say(LAST, "nothing to do: same champion, same data")
    account.keep(root)


def _look(root: Path, stale: Stale, changed: bool, account: Account) -> bool:
    """Collect, check for drift and decide, where anything of it is out of date; whether any was."""
    collects = steps.collect(root, stale, changed)
    if collects:
        stale = steps.stale_stages(root)
    looks = steps.looks(root, stale)
    if looks:
        steps.run(root, LOOK[-1])
        steps.say_drift(root)
        steps.say_decision(root)
        _keep(root, account)
    return collects or looks


def _train(root: Path, plan: Plan, account: Account) -> bool:
    """Train as planned, record it, promote if allowed; whether there is a new champion.

    The version's snapshot then holds params.yaml as it was used.
    """
    steps.note_pending(root, plan)
    with overridden(root, REFRESH_OF, steps.champion_name(root) if plan.mode == "refresh" else None):
        steps.run(root, JUDGE[-1])
        (root / steps.PENDING).unlink()
        steps.record(root)
        _keep(root, account, *JUDGED)
        return _promote(root, account)


def _go_without_training(root: Path, plan: Plan, account: Account) -> bool:
    if plan.prepare:
        steps.run(root, "--single-item", "preprocess")
        say("training", "none: the lists hear of the new histories, users and items, the model does not")
    elif not plan.reasons:
        say("training", "nothing new in source, params and code: no stage is run")
    for stage in JUDGE if JUDGE[0] in plan.judge else plan.judge:
        steps.run(root, "--single-item", stage)
    (root / steps.PENDING).unlink(missing_ok=True)
    if plan.judge:  # also of a training that was killed before it was recorded
        steps.record(root)
        _keep(root, account, *JUDGED)
    return _promote(root, account)


def _promote(root: Path, account: Account) -> bool:
    version, _ = steps.promote(root)
    if version is not None:
        account.note(promoted=version.name)
    return version is not None


# Beginning and end -----------------------------------------------------------------------------------------


def _account(root: Path) -> Account:
    git = Git(root)
    champion = steps.champion_name(root)
    return Account.begin(f"cycle__{now().isoformat()}", "cycle", champion=champion, commit=git.head())


def _keep(root: Path, account: Account, *judged: str) -> None:
    """Into a folder of this cycle by date and champion, to be compared and drawn."""
    decision = Retraining.find(root / DECISION)
    if decision is None or decision.as_of is None:
        return
    if account.folder is None:
        account.note(as_of=decision.as_of)
        name = f"{decision.as_of:%Y%m%dT%H%M%SZ}-{decision.champion or 'none'}"
        folders = (root / HISTORY / (name if n == 1 else f"{name}-{n}") for n in count(1))
        account.open(next(folder for folder in folders if not folder.exists()))
    account.keep(root, *LOOKED, *judged)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One cycle a checkout: dvc would fail as busy in the middle of it."""
    (root / STATE).mkdir(exist_ok=True)
    with (root / STATE / "cycle.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError("another `evergreen cycle` runs in this folder: wait for it to end") from None
        yield
