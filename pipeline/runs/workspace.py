"""A scheduler's run, step by step, in its own worktree (worktrees.py): the cycle's steps, each a command.

It leaves data/history/SLUG in the checkout, the branch runs/SLUG with its dvc.lock, DVC's objects, and the
registry's tags.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.dashboard.question import question
from pipeline.dashboard.runs import read_one
from pipeline.dashboard.views import sentence
from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Retraining
from pipeline.errors import ConfigError, PipelineError
from pipeline.loop import repro
from pipeline.loop.history import DRIFT, HISTORY, Account, one_line
from pipeline.loop.plans import JUDGE, LAST, LOOK, MADE, OUTPUTS, TRAIN
from pipeline.loop.steps import Loop, champion_name, decision_sentence, drift_sentence
from pipeline.models.pretrained import KEY, locate
from pipeline.params import past, utc
from pipeline.registry.actions import LOCK, overtaken
from pipeline.registry.git import Git
from pipeline.registry.objects import Objects, behind
from pipeline.registry.records import DECISION, MANIFEST, VERDICT
from pipeline.registry.versions import EXPORTS
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
    refuse_other,
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
        if known is not None and known.run.step != "open":
            known.note(state="failed", error=one_line(error))
        elif not _branch(run):  # never opened: its page says what was wrong
            Account.begin(run.run_id, run.dag, folder, step="open", reason=settings.reason).fail(error)
        raise


def _branch(run: Workspace) -> str:
    """The commit at which it is kept; "" where there is none."""
    return at(Git(run.home), f"refs/heads/{run.branch}")


def _begin(run: Workspace, graph: str | None, settings: Settings) -> Result:
    far = remote.address()
    _check_moment(settings.as_of)
    if is_open(run):
        refuse_other(run.account, settings)
        run.account.note(state="running", finished=None)
        return _opened(run, f"{run.slug}: goes on where it was")
    if settings.as_of is None and (run.home / REPLAYING).is_file():
        raise Skipped(
            "a replay is under way, whose next days this run would learn from: play it to its end with "
            f"`evergreen replay` as before, or give it up: `rm {run.home / REPLAYING}`"
        )
    if far:
        remote.find(run, far)
    known = Account.found(run.home / HISTORY / run.slug)
    ended = "" if far else _branch(run)  # with a remote it has one while it is under way
    if ended and known is None:
        raise ConfigError(
            f"{run.home / HISTORY / run.slug}: its record is gone, so it cannot go on: trigger a new run, or"
            f" `git branch -D {run.branch}` to begin this one anew"
        )
    if known is not None and (ended or has_begun(known)):
        refuse_other(known, settings)
        text = reopen(run)
        run.account.note(state="running", finished=None, error=None)
    else:
        commit = remote.newest(run.home, far) if far else pinned(run.home)
        check_graph(run.home, commit, graph)
        if not far:  # else a worker may have what this machine lacks
            _check_encoder(run, settings.encoder)
        text = make(run, commit, settings)
    if far:
        remote.leave(run, far, None, anew=True)
    return _opened(run, text)


def _opened(run: Workspace, text: str) -> Result:
    """`folder`: of the project in the run's worktree, relative to the checkout."""
    return {"text": text, "folder": str(run.root.relative_to(run.home)), "mode": run.mode}


def _check_moment(as_of: str | None) -> None:
    """The form lets through what is no time, and the future. Raises ConfigError."""
    try:
        past(utc(as_of))
    except ValueError as error:
        raise ConfigError(f"as_of: {error}") from None


def _check_encoder(run: Workspace, spec: str | None) -> None:
    """At once, not after collect and preprocess; of a hub id only finetune can tell. Raises ConfigError."""
    try:
        if spec:
            locate(str(run.home / spec) if (run.home / spec).is_dir() else spec)
    except ConfigError as error:
        raise ConfigError(str(error).replace(KEY, "encoder")) from None


def stage(run: Workspace, name: str) -> Result:
    """One stage, as the cycle would run it. Raises Skipped where this run does without it."""
    with at_work(run, name):
        run.account.note(step=name)
        loop = Loop(run.root, run.account)
        if name == "collect":
            return _collect(loop)
        if name in LOOK:
            return _look(loop, name) | {"branch": run.branch}
        if name in MADE["full"] and name not in MADE[run.mode or "full"]:
            raise Skipped(f"a run of mode {run.mode} does without it")
        _refuse_unmade(run, name)
        before, begin = _lock(run), time.monotonic()
        new = loop.make(name)
        if name != JUDGE[-1]:
            done = "nothing that it reads has changed"
            if _lock(run) != before:
                done = f"done in {time.monotonic() - begin:.0f} s"
            return {"text": f"{name}: {done}"}
        own = run.mode != "judge" and not run.account.run.trial
        if own and (new or not run.account.run.published):  # an old run has no newer challenger
            _point(CHALLENGER, _snapshot(run, "judged"), run)
        asked = question(read_one(run.home / HISTORY / run.slug))
        verdict = Promotion.read(run.root / VERDICT)
        late = overtaken(run.root, verdict) if verdict.promote else None
        if late and not run.account.run.promoted:
            run.account.note(not_promoted=late)
        return _verdict(verdict, late) | {"question": asked}


def _refuse_unmade(run: Workspace, name: str) -> None:
    """A task can be marked as successful by hand; what its stage would have made is another run's then."""
    made = MADE[run.mode or "full"]
    due = [one for one in TRAIN if one in made and (name == LAST or name in made[made.index(one) + 1 :])]
    stale = behind(_lock(run))
    inputs = repro.status(run.root) if due else {}
    for one in due:
        # Outputs that another machine holds DVC calls changed.
        found = stale.get(one, []) + [path for path in inputs.get(one, []) if not path.startswith(OUTPUTS)]
        if found:
            changed = ", ".join(found[:3])
            raise ConfigError(f"{one}: not done in this run, though {changed} changed: clear the task {one}")


def _lock(run: Workspace) -> str:
    file = run.root / "dvc.lock"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _collect(loop: Loop) -> Result:
    how = "collected" if loop.collect() else "nothing new in the source"
    manifest = Manifest.read(loop.root / MANIFEST)
    return {"text": f"{how}: {manifest.rows.kept} rows as of {manifest.as_of.isoformat()}"}


def _look(loop: Loop, name: str) -> Result:
    """The check for drift, or the decision and what comes of it."""
    looks = loop.look(name)
    if name != LOOK[-1]:
        return {"text": drift_sentence(Drift.find(loop.root / DRIFT)) if looks else NO_NEWS}
    planned = loop.plan()
    loop.keep()
    decision = Retraining.find(loop.root / DECISION)
    text, due = decision_sentence(decision), decision is not None and decision.retrain
    reasons = list(planned.reasons) or [text]
    if planned.mode in ("refresh", "full"):
        text = text if due else f"{planned.mode}: {'; '.join(reasons)}"
    elif planned.mode == "judge":
        text = f"judge: {'; '.join(reasons)}"
    elif planned.mode == "none" and not loop.account.run.looked:
        text, reasons = f"none: {NO_NEWS}", [NO_NEWS]
    elif due:
        text = "none: what was decided has been carried out"
    as_of = decision.as_of.isoformat() if decision and decision.as_of else None
    return {"text": text, "mode": planned.mode, "as_of": as_of, "reasons": reasons}


def _verdict(verdict: Promotion, late: str | None) -> Result:
    """`late`: why it is of no use any more, so that nobody is asked in vain."""
    failed = late or "; ".join(check.text for check in verdict.failed) or f"see {VERDICT}"
    promote = verdict.promote and not late
    return {"text": "may be promoted" if promote else f"not to be promoted: {failed}", "promote": promote}


def promote(run: Workspace, approved_by: str | None, refused: str | None = None) -> Result:
    """As the verdict allows; then models/champion is the new one's. `refused`: why it cannot be asked for."""
    with at_work(run):
        run.account.note(step="promote", approved_by=approved_by)
        if refused:
            raise ConfigError(refused)
        judged = run.account.run.challenger
        if judged is None:
            return {"text": "no promotion: this run has judged no challenger", "promoted": None}
        version, why = Loop(run.root, run.account).promote(approved_by, judged)
        if version is None:
            return {"text": why, "promoted": None}
    return {
        "text": f"{version.name} is the champion: {version.record.reason}",
        "promoted": version.name,
    }


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


def publish(run: Workspace, rejected: str | None = None) -> Result:
    """dvc.lock on the branch runs/SLUG; its outputs to DVC's remote, if there is one.

    `rejected`: how a person's answer was no.
    """
    with at_work(run):
        if rejected:
            run.account.note(not_promoted=rejected)
        git, root, far = Git(run.root), run.root, remote.address()
        git.use_fallback_identity()
        run.account.note(branch=run.branch, step="publish")
        Loop(root, run.account).keep()
        commit = _snapshot(run, "published")
        git.run("update-ref", f"refs/heads/{run.branch}", commit)
        pushed = Objects(root).remote is not None
        if pushed and not far:
            repro.transfer(root, "push")
        if _is_latest(run, git):
            _point(LATEST, commit, run)
        run.account.note(published=commit)
    champion = champion_name(run.root)
    as_of = run.account.run.as_of
    facts = {"branch": run.branch, "as_of": as_of and as_of.isoformat(), "champion": champion}
    return {"text": f"{run.branch}{', pushed' if pushed else ''}"} | facts


def _snapshot(run: Workspace, what: str) -> str:
    """A commit of what is checked out with the run's dvc.lock."""
    git = Git(run.root)
    git.use_fallback_identity()
    with git.lock(LOCK):
        message = f"Run {run.run_id} of {run.dag}: {what}"
        return git.snapshot(message, {}, ["dvc.lock"], leave=map(str, EXPORTS))


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
