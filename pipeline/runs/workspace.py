"""A scheduler's run, step by step, in its own worktree (worktrees.py): the cycle's steps, each a command.

It leaves data/history/SLUG in the checkout, the branch runs/SLUG with its dvc.lock, DVC's objects, and the
registry's tags.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.dashboard.question import question
from pipeline.dashboard.runs import read_one
from pipeline.dashboard.views import sentence
from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Retraining
from pipeline.errors import ConfigError, PipelineError
from pipeline.loop import repro, steps
from pipeline.loop.history import DRIFT, HISTORY, JUDGED, LOOKED, Account, one_line
from pipeline.loop.plans import JUDGE, LOOK, TRAIN
from pipeline.params import Params, past, utc
from pipeline.registry.actions import LOCK
from pipeline.registry.git import Git
from pipeline.registry.objects import Objects
from pipeline.registry.records import DECISION, MANIFEST, VERDICT
from pipeline.registry.versions import EXPORT
from pipeline.runs import remote
from pipeline.runs.worktrees import (
    CHALLENGER,
    LATEST,
    REPLAYING,
    Settings,
    Workspace,
    at,
    check_graph,
    has_begun,
    is_open,
    make,
    pinned,
    remove,
    reopen,
    sweep,
)
from pipeline.runs.worktrees import LOCK as RUNS_LOCK

Result = dict[str, Any]
NO_NEWS = "nothing new since the last check"


class Skipped(PipelineError):
    """The step has nothing to do in this run, and what follows it neither."""


def begin(run: Workspace, graph: str | None, settings: Settings, refused: str | None = None) -> Result:
    """Make the worktree; `graph`: sha256 of the dvc.yaml that was compiled. An open one stays as it is.

    Raises ConfigError where the checkout is not what is committed, or has another graph than was compiled;
    Skipped where the run would read all data in the middle of a replay, which then could not go on.
    """
    try:
        if refused:
            raise ConfigError(refused)
        return _begin(run, graph, settings)
    except Skipped:
        raise
    except Exception as error:
        folder = run.home / HISTORY / run.slug
        known = Account.found(folder)
        if known is None or known.run.step == "open":  # never opened: its page says what was wrong
            Account.begin(run.run_id, run.dag, folder, step="open", reason=settings.reason).fail(error)
        raise


def _begin(run: Workspace, graph: str | None, settings: Settings) -> Result:
    far = remote.address()
    _check_moment(settings.as_of)
    if is_open(run):
        run.account.note(state="running", finished=None)
        return _opened(run, f"{run.slug}: goes on where it was")
    if settings.as_of is None and (run.home / REPLAYING).is_file():
        raise Skipped(
            "a replay is under way, whose next days this run would learn from: play it to its end with "
            f"`evergreen replay` as before, or give it up: `rm {run.home / REPLAYING}`"
        )
    if far:
        remote.find(run, far)
    if has_begun(run):
        text = reopen(run)
        run.account.note(state="running", finished=None, error=None)
    else:
        commit = remote.newest(run.home, far) if far else pinned(run.home)
        check_graph(run.home, commit, graph)
        text = make(run, commit, settings)
    if far:
        remote.leave(run, far, None, anew=True)
    return _opened(run, text)


def _opened(run: Workspace, text: str) -> Result:
    """`folder`: of the project in the run's worktree, relative to the checkout."""
    return {"text": text, "folder": str(run.root.relative_to(run.home)), "mode": run.mode}


def _check_moment(as_of: str | None) -> None:
    """The form's pattern lets through days that no calendar has, and the future. Raises ConfigError."""
    try:
        past(utc(as_of))
    except ValueError as error:
        raise ConfigError(f"as_of: {error}") from None


def stage(run: Workspace, name: str) -> Result:
    """One stage, as the cycle would run it. Raises Skipped where this run does without it."""
    with at_work(run, name):
        run.account.note(step=name)
        if name == "collect":
            return _collect(run)
        if name in LOOK:
            return _look(run, name)
        if run.mode == "none" and name in ("finetune", *JUDGE):
            raise Skipped("nothing is trained in this run: the lists alone are made")
        if run.mode == "judge" and name in TRAIN:
            return {"text": "not trained: the last challenger is judged again"}
        before, begin = _lock(run), time.monotonic()
        steps.run(run.root, "--single-item", name)
        if name == JUDGE[-1]:
            new = steps.record(run.root)
            verdict = Promotion.read(run.root / VERDICT)
            run.account.note(challenger=verdict.challenger.artifact_hash)
            _keep(run, *JUDGED)
            own = run.mode != "judge" and not run.account.run.trial
            if own and (new or not run.account.run.published):  # an old run has no newer challenger
                _point(CHALLENGER, _snapshot(run, "judged"), run)
            return _verdict(run.root) | {"question": question(read_one(run.home / HISTORY / run.slug))}
        ran = _lock(run) != before
    done = f"done in {time.monotonic() - begin:.0f} s" if ran else "nothing that it reads has changed"
    return {"text": f"{name}: {done}"}


def _lock(run: Workspace) -> str:
    file = run.root / "dvc.lock"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _collect(run: Workspace) -> Result:
    params = Params.load(run.root / "params.yaml")
    changed = steps.source_changed(run.root, params)
    collected = steps.collect(run.root, steps.stale_stages(run.root), changed)
    manifest = Manifest.read(run.root / MANIFEST)
    rows, as_of = manifest.rows.kept, manifest.as_of.isoformat()
    run.account.note(as_of=as_of)
    how = "collected" if collected else "nothing new in the source"
    return {"text": f"{how}: {rows} rows as of {as_of}"}


def _look(run: Workspace, name: str) -> Result:
    """The check for drift, or the decision and what comes of it."""
    root = run.root
    stale = steps.stale_stages(root)
    looks = steps.looks(root, stale)
    if looks:
        steps.run(root, "--single-item", name)
    looked = looks or bool(run.account.run.looked)
    run.account.note(looked=looked)
    if name != LOOK[-1]:
        return {"text": steps.drift_sentence(Drift.find(root / DRIFT)) if looks else NO_NEWS}
    planned = steps.plan(root, steps.stale_stages(root) if looks else stale)
    mode = "judge" if planned.mode == "none" and planned.judge else planned.mode
    run.account.note(mode=mode)
    _keep(run)
    decision = Retraining.find(root / DECISION)
    said, due = steps.decision_sentence(decision), decision is not None and decision.retrain
    reasons = list(planned.reasons) or [said]
    if mode in ("refresh", "full"):
        text = said if due else f"{mode}: {'; '.join(reasons)}"
    elif mode == "none" and not looked:
        text, reasons = f"none: {NO_NEWS}", [NO_NEWS]
    else:
        text = said if not due else "none: what was decided has been carried out"
    as_of = decision.as_of.isoformat() if decision and decision.as_of else None
    return {"text": text, "mode": mode, "as_of": as_of, "reasons": reasons, "branch": run.branch}


def _verdict(root: Path) -> Result:
    verdict = Promotion.find(root / VERDICT)
    if verdict is None:
        return {"text": f"not to be promoted: {VERDICT} cannot be read", "promote": False}
    failed = "; ".join(check.text for check in verdict.failed) or f"see {VERDICT}"
    text = "may be promoted" if verdict.promote else f"not to be promoted: {failed}"
    return {"text": text, "promote": verdict.promote}


def promote(run: Workspace, approved_by: str | None) -> Result:
    """As the verdict allows; then models/champion is the new one's."""
    with at_work(run):
        run.account.note(step="promote", approved_by=approved_by)
        judged = run.account.run.challenger
        if judged is None:
            return {"text": "no promotion: this run has judged no challenger", "promoted": None}
        version, why = steps.promote(run.root, approved_by, judged)
        if version is None:
            return {"text": f"no promotion: {why}", "promoted": None}
        run.account.note(promoted=version.name)
        steps.make_champion_right(run.root)
    return {
        "text": f"{version.name} is the champion: {version.record.reason}",
        "promoted": version.name,
    }


def _keep(run: Workspace, *judged: str) -> None:
    """Decisions of other data, or of an earlier look, which the run began with, are not its own."""
    root = run.root
    decision, manifest = Retraining.find(root / DECISION), Manifest.find(root / MANIFEST)
    looked = run.account.run.looked is True
    own = LOOKED if looked and decision and manifest and decision.as_of == manifest.as_of else ()
    run.account.keep(root, *own, *judged)


@contextmanager
def at_work(run: Workspace, stage: str | None = None) -> Iterator[None]:
    """One step at a time in a worktree: a retry waits for what a killed try left to end."""
    if far := remote.address():
        remote.enter(run, far, stage)
    run.account.note(error=None)  # it is alive
    with (run.root / ".evergreen" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        except Skipped:
            raise
        except Exception as error:
            run.account.note(error=one_line(error))
            raise
        if far:
            remote.leave(run, far, stage)


def publish(run: Workspace) -> Result:
    """dvc.lock on the branch runs/SLUG; its outputs to DVC's remote, if there is one."""
    with at_work(run):
        git, root, far = Git(run.root), run.root, remote.address()
        git.use_fallback_identity()
        run.account.note(branch=run.branch, step="publish")
        _keep(run)
        commit = _snapshot(run, "published")
        git.run("update-ref", f"refs/heads/{run.branch}", commit)
        pushed = Objects(root).remote is not None
        if pushed and not far:
            repro.transfer(root, "push")
        if _is_latest(run, git):
            _point(LATEST, commit, run)
        run.account.note(published=commit)
    champion = steps.champion_name(run.root)
    as_of = run.account.run.as_of
    facts = {"branch": run.branch, "as_of": as_of and as_of.isoformat(), "champion": champion}
    return {"text": f"{run.branch}{', pushed' if pushed else ''}"} | facts


def _snapshot(run: Workspace, what: str) -> str:
    """A commit of what is checked out with the run's dvc.lock."""
    git = Git(run.root)
    git.use_fallback_identity()
    with git.lock(LOCK):
        message = f"Run {run.run_id} of {run.dag}: {what}"
        return git.snapshot(message, {}, ["dvc.lock"], leave=[str(EXPORT)])


def _point(ref: str, commit: str, run: Workspace) -> None:
    git = Git(run.root)
    git.run("update-ref", ref, commit)
    if far := remote.address():
        git.run("push", "--quiet", "--force", far, f"{ref}:{ref}")


def _is_latest(run: Workspace, git: Git) -> bool:
    """Whether the next run may start from this one.

    Not from one that was published before and opened again, unless it still is the last; not from a trial,
    nor from one that asks for a training, which is not carried out yet; nor from one that trained nothing and
    began before another's outputs came: it still has those of before.
    """
    known, looks = run.account.run, run.dag == "evergreen_monitoring"
    if published := known.published:
        return at(git, LATEST) == published
    if known.trial or (looks and run.mode != "none"):
        return False
    if not looks and run.mode not in ("none", "judge"):
        return True
    if far := remote.address():
        remote.fetch(git, far)
    return at(git, LATEST) == (known.latest or "")


def close(run: Workspace, state: str) -> Result:
    """The account is closed; the worktree goes, but for a few of those that failed."""
    if far := remote.address():
        remote.gather(run, far)
    account, git = Account.found(run.home / HISTORY / run.slug), Git(run.home)
    if account is None:
        return {"text": "it was never opened: nothing to close", "state": "failed"}
    if run.root.is_dir():
        account.keep(run.root)
        if (
            not far and state == "failed" and is_open(run)
        ):  # so that a run that failed can go on, also when its worktree is gone
            git.run("update-ref", f"refs/heads/{run.branch}", _snapshot(run, state))
    account.close(state)
    with git.lock(RUNS_LOCK):
        if state == "success":
            remove(git, run.tree)
        sweep(run.home, git)
    said = sentence(read_one(run.home / HISTORY / run.slug))
    text = said if state == "success" else f"{said} ({run.root} is kept for inspection)"
    return {"text": text, "state": state}
