"""A git worktree for each run of a scheduler: the loop's steps one by one, and the checkout untouched.

`.evergreen/runs/SLUG` holds the committed revision from which the scheduler compiled its graph; DVC's cache
is the checkout's. It starts from the dvc.lock of the last run (refs/evergreen/latest, else the checkout's):
the same is news to it as to `evergreen cycle` in one folder. It leaves data/history/SLUG in the checkout, the
branch runs/SLUG with its dvc.lock, DVC's objects, and the registry's tags.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import repro, steps
from pipeline.actions import LOCK
from pipeline.decisions import get, moment, read_json
from pipeline.errors import ConfigError, PipelineError
from pipeline.git import Git
from pipeline.history import DRIFT, HISTORY, JUDGED, LOOKED, Account
from pipeline.objects import Objects
from pipeline.overrides import AS_OF, REFRESH_OF, with_value
from pipeline.params import Params
from pipeline.plans import JUDGE, LOOK, TRAIN
from pipeline.records import DECISION, MANIFEST, VERDICT
from pipeline.registry import EXPORT

RUNS, LATEST, OPENED = Path(".evergreen/runs"), "refs/evergreen/latest", Path(".evergreen/opened")
MODES = ("none", "judge", "refresh", "full")
KEEP_FAILED, LEFTOVER_DAYS = 3, 14

Result = dict[str, Any]


class Skipped(PipelineError):
    """The step has nothing to do in this run, and what follows it neither."""


@dataclass(frozen=True)
class Settings:
    """What a run is asked for; None: as params.yaml says."""

    as_of: str | None = None
    mode: str | None = None
    encoder: str | None = None
    epochs: int | None = None
    reason: str | None = None
    after: str | None = None
    """The branch of the run that asked for this one, which it goes on from; None: from the last run."""


@dataclass(frozen=True)
class Workspace:
    home: Path
    """The user's checkout: read, and never written but for .evergreen/runs and data/history."""
    dag: str
    run_id: str

    @property
    def slug(self) -> str:
        """Safe as a folder's and a branch's name."""
        return re.sub(r"[^A-Za-z0-9_]+", "-", f"{self.dag.removeprefix('evergreen_')}-{self.run_id}").strip(
            "-"
        )

    @property
    def root(self) -> Path:
        return self.home / RUNS / self.slug

    @property
    def branch(self) -> str:
        return f"runs/{self.slug}"

    @cached_property
    def account(self) -> Account:
        found = Account.found(self.home / HISTORY / self.slug)
        if found is None or not (self.root / OPENED).is_file():
            raise ConfigError(f"{self.root}: not open: clear the run's first task, or trigger a new run")
        return found

    @property
    def mode(self) -> str | None:
        return self.account.run.get("mode")


# Beginning -------------------------------------------------------------------------------------------------


def open_run(run: Workspace, graph: str | None, settings: Settings) -> Result:
    """Make the worktree; `graph`: sha256 of the dvc.yaml that was compiled. An open one stays as it is.

    Raises ConfigError where the checkout is not what is committed, or another graph than was compiled.
    """
    git = Git(run.home)
    with git.lock("evergreen-runs"):
        sweep(run.home, git)
        if (run.root / OPENED).is_file() and Account.found(run.home / HISTORY / run.slug):
            run.account.note(state="running", finished=None)
            return {"text": f"{run.slug}: goes on where it was"}
        _remove(git, run.root)
        commit = _pinned(run.home, git, graph)
        git.run("worktree", "add", "--quiet", "--detach", str(run.root), commit)
        _share_cache(run)
        _seed(run, git, settings.after)
        _link_sources(run)
        champion = steps.champion_name(run.root)
        mode = _apply(run.root, settings, champion)
        steps.make_champion_right(run.root)
        facts: Result = {"champion": champion, "commit": commit, "mode": mode, "as_of": settings.as_of}
        facts |= {"reason": settings.reason, "trial": bool(settings.encoder or settings.epochs)}
        Account(run.run_id, run.dag, run.home / HISTORY / run.slug, **facts)
        (run.root / OPENED).parent.mkdir(exist_ok=True)
        (run.root / OPENED).touch()
    as_of = f" as of {settings.as_of}" if settings.as_of else ""
    why = f": {settings.reason}" if settings.reason else ""
    return {"text": f"{commit[:10]}{as_of}, champion {champion or 'none'}, {mode or 'to be decided'}{why}"}


def _pinned(home: Path, git: Git, graph: str | None) -> str:
    """The commit to run. What is not committed would be run by nobody, and a DAG of another graph wrongly."""
    changed = git.run("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:3]) + (" ..." if len(changed) > 3 else "")
        raise ConfigError(
            f"{home}: {names}: changed and not committed: commit or `git stash`, then run again"
        )
    if graph and hashlib.sha256((home / "dvc.yaml").read_bytes()).hexdigest() != graph:
        raise ConfigError(
            f"{home / 'dvc.yaml'}: not the graph that this DAG was compiled from: wait until Airflow has read"
            " it again, and trigger a new run"
        )
    return git.head()


def _share_cache(run: Workspace) -> None:
    """The checkout's own DVC settings, and its cache."""
    config, own = configparser.ConfigParser(interpolation=None), run.home / ".dvc" / "config.local"
    config.read(own, encoding="utf-8")
    if not config.has_section("cache"):
        config.add_section("cache")
    config.set("cache", "dir", str(Objects(run.home).cache))
    with (run.root / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def _seed(run: Workspace, git: Git, after: str | None) -> None:
    """The last run's dvc.lock, with what it names out of the cache; what is not there is made anew."""
    lock = git.show(after, "dvc.lock") if after else None
    lock = lock or git.show(LATEST, "dvc.lock")
    if lock is None and (run.home / "dvc.lock").is_file():
        lock = (run.home / "dvc.lock").read_text(encoding="utf-8")
    if lock is not None:
        (run.root / "dvc.lock").write_text(lock.rstrip("\n") + "\n", encoding="utf-8")
        repro.check_out(run.root)


def _link_sources(run: Workspace) -> None:
    """Data that params.yaml names relative to the checkout, and git does not hold."""
    collect = Params.load(run.root / "params.yaml").collect
    for pattern in (collect.path, collect.files.interactions, collect.files.items, collect.files.users):
        if pattern and not Path(pattern).is_absolute():
            for source in run.home.glob(pattern):
                link = run.root / source.relative_to(run.home)
                if not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(source)


def _apply(root: Path, settings: Settings, champion: str | None) -> str | None:
    """Write the settings into the worktree's params.yaml; the mode: a first training is always full."""
    if settings.mode is not None and settings.mode not in MODES:
        raise ConfigError(f"mode: {settings.mode}: use one of {', '.join(MODES)}")
    mode = "full" if settings.mode == "refresh" and champion is None else settings.mode
    values = {
        AS_OF: settings.as_of,
        REFRESH_OF: champion if mode == "refresh" else None,
        ("finetune", "encoder"): settings.encoder,
        ("finetune", "epochs"): settings.epochs,
    }
    path = root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        if value is not None:
            text = with_value(text, key, value)
    path.write_text(text, encoding="utf-8")
    Params.load(path)
    return mode


# Between ---------------------------------------------------------------------------------------------------


def stage(run: Workspace, name: str) -> Result:
    """One stage, as the cycle would run it. Raises Skipped where this run does without it."""
    mode, root = run.mode, run.root
    with alone(run):
        if name == "collect":
            return _collect(run)
        if mode is None and name in LOOK:
            return _look(run, name)
        if mode == "none" and name in ("finetune", *JUDGE):
            raise Skipped("nothing is trained in this run: the lists alone are made")
        if mode == "judge" and name in TRAIN:
            return {"text": "not trained: the last challenger is judged again"}
        steps.run(root, "--single-item", name)
        if name == JUDGE[-1]:
            steps.record(root)
            _keep(run, *JUDGED)
            return _verdict(root)
    return {"text": f"{name}: up to date"}


def _collect(run: Workspace) -> Result:
    params = Params.load(run.root / "params.yaml")
    changed = steps.source_changed(run.root, params)
    collected = steps.collect(run.root, steps.stale_stages(run.root), changed)
    manifest = read_json(run.root / MANIFEST)
    rows, as_of = get(manifest, "rows", "kept"), get(manifest, "as_of")
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
    if name != LOOK[-1]:
        return {"text": steps.drift_sentence(read_json(root / DRIFT)) + ("" if looks else " (no news)")}
    planned = steps.plan(root, steps.stale_stages(root) if looks else stale)
    mode = "judge" if planned.mode == "none" and planned.judge else planned.mode
    run.account.note(mode=mode)
    _keep(run)
    decision = read_json(root / DECISION)
    said = steps.decision_sentence(decision)
    reasons = list(planned.reasons) or [said]
    if mode in ("refresh", "full"):
        text = said if get(decision, "retrain") is True else f"{mode}: {'; '.join(reasons)}"
    else:
        text = said if get(decision, "retrain") is not True else "none: what was decided has been carried out"
    as_of = get(decision, "as_of")
    return {"text": text, "mode": mode, "as_of": as_of, "reasons": reasons, "branch": run.branch}


def _verdict(root: Path) -> Result:
    verdict = read_json(root / VERDICT)
    checks = get(verdict, "checks")
    failed = [str(get(check, "text")) for check in checks if not get(check, "passed")] if checks else []
    allowed = get(verdict, "promote") is True
    text = (
        "may be promoted" if allowed else f"not to be promoted: {'; '.join(failed) or 'see promotion.json'}"
    )
    return {"text": text, "promote": allowed}


def promote(run: Workspace, approve: bool) -> Result:
    """As the verdict allows; then models/champion is the new one's."""
    with alone(run):
        version = steps.promote(run.root, approve)
        if version is None:
            return {"text": "no promotion: the log says why", "promoted": None}
        run.account.note(promoted=version.name)
        steps.make_champion_right(run.root)
    return {
        "text": f"{version.name} is the champion: {version.record.get('reason')}",
        "promoted": version.name,
    }


def _keep(run: Workspace, *judged: str) -> None:
    """Decisions of other data, which the run began with, are not its own."""
    root = run.root
    of, now = (get(read_json(root / path), "as_of") for path in (DECISION, MANIFEST))
    own = LOOKED if of is not None and moment(of) == moment(now) else ()
    run.account.keep(root, *own, *judged)


@contextmanager
def alone(run: Workspace) -> Iterator[None]:
    """One step at a time in a worktree: a retry waits for what a killed try left to end."""
    run.account.note()  # it is alive
    with (run.root / ".evergreen" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# End -------------------------------------------------------------------------------------------------------


def publish(run: Workspace) -> Result:
    """dvc.lock on the branch runs/SLUG; objects, branch and tags to the remotes, if there are any."""
    git, root = Git(run.root), run.root
    with alone(run):
        git.use_fallback_identity()
        with git.lock(LOCK):
            message = f"Run {run.run_id} of {run.dag}"
            commit = git.snapshot(message, {}, ["dvc.lock"], leave=[str(EXPORT)])
        git.run("update-ref", f"refs/heads/{run.branch}", commit)
        pushed = ["DVC"] if Objects(root).remote else []
        if pushed:
            repro.push(root)
        if remote := os.environ.get("EVERGREEN_GIT_REMOTE"):
            git.run("push", "--quiet", remote, f"refs/heads/{run.branch}", "refs/tags/*:refs/tags/*")
            pushed.append("git")
        requests = run.dag == "evergreen_monitoring" and run.mode != "none"
        if not (requests or run.account.run.get("trial")):  # what is asked for is not carried out yet
            git.run("update-ref", LATEST, commit)
        run.account.note(branch=run.branch)
        _keep(run)
    return {"text": f"{run.branch}{', pushed to the remote of ' + ' and '.join(pushed) if pushed else ''}"}


def close(run: Workspace, state: str) -> Result:
    """The account is closed; the worktree goes, but for a few of those that failed."""
    account, git = Account.found(run.home / HISTORY / run.slug), Git(run.home)
    if account is None:
        return {"text": "it was never opened: nothing to close"}
    if run.root.is_dir():
        account.keep(run.root)
    account.close(state)
    with git.lock("evergreen-runs"):
        if state == "success":
            _remove(git, run.root)
        sweep(run.home, git)
    return {"text": state if state == "success" else f"{state}: {run.root} is kept for inspection"}


def sweep(home: Path, git: Git) -> None:
    """Remove worktrees of runs that have ended, or were killed long ago, but for the newest that failed."""
    failed = []
    for folder in (home / RUNS).glob("*"):
        account = Account.found(home / HISTORY / folder.name)
        state = account.run.get("state") if account else None
        age = time.time() - folder.stat().st_mtime if account is None else _silence(account)
        if state == "running" and age > LEFTOVER_DAYS * 86400 and account:
            account.close("failed")
            state = "failed"
        if state == "failed":
            failed.append((age, folder))
        elif state == "success" or (account is None and age > 3600):
            _remove(git, folder)
    for _, folder in sorted(failed)[KEEP_FAILED:]:
        _remove(git, folder)
    git.run("worktree", "prune")


def _silence(account: Account) -> float:
    """Seconds since the account was last written."""
    assert account.folder is not None
    return time.time() - (account.folder / "run.json").stat().st_mtime


def _remove(git: Git, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        git.run("worktree", "prune")
