"""The git worktree in which a scheduler's run works: made, filled, and removed; the checkout untouched.

`.evergreen/runs/SLUG` holds the committed revision from which the scheduler compiled its graph; DVC's cache
is the checkout's. It starts from the dvc.lock of the last run (refs/evergreen/latest, else the checkout's):
the same is news to it as to `evergreen cycle` in one folder. A run that is to judge the last challenger again
starts from refs/evergreen/challenger. A run that has ended and is opened again (a task of it was cleared)
starts from its own branch, and goes on with its own account.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.loop import repro
from pipeline.loop.history import HISTORY, SIMULATION, Account
from pipeline.loop.overrides import AS_OF, REFRESH_OF, with_value
from pipeline.loop.plans import ENCODER
from pipeline.loop.steps import champion_name, make_inputs_right
from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, Objects, locked

RUNS, OPENED = Path(".evergreen/runs"), Path(".evergreen/opened")
LATEST, CHALLENGER = "refs/evergreen/latest", "refs/evergreen/challenger"
"""Commits with the dvc.lock of the last run, and of the last one that judged a model which it had trained."""
REPLAYING = Path(".evergreen/replaying")
"""In the checkout, from a replay's first period to its last."""
LOCK = "evergreen-runs"
MODES = ("none", "judge", "refresh", "full")
LONGEST = 100  # characters of a run's id in a folder's name
KEEP_FAILED, LEFTOVER_DAYS = 3, 14


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

    @property
    def asked(self) -> dict[str, str | int]:
        """What decides on a run's outcome."""
        given = {name: getattr(self, name) for name in ("as_of", "mode", "encoder", "epochs")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Workspace:
    home: Path
    """The user's checkout: read, and never written but for .evergreen/runs and data/history."""
    dag: str
    run_id: str

    @cached_property
    def slug(self) -> str:
        """Safe as a folder's and a branch's name. But for the plainest ids with a hash of it: runs whose ids
        differ in punctuation alone, or in case (which some file systems pass over), share nothing."""
        whole = f"{self.dag.removeprefix('evergreen_')}-{self.run_id}"
        safe = re.sub(r"[^A-Za-z0-9_]+", "-", whole).strip("-")[:LONGEST]
        plain = safe == whole and re.fullmatch(r"[a-z0-9_]+", self.run_id)
        return safe if plain else f"{safe}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    @property
    def tree(self) -> Path:
        """The git worktree."""
        return self.home / RUNS / self.slug

    @cached_property
    def root(self) -> Path:
        """The project in it, which may be a sub-folder of the repository."""
        return self.tree / Git(self.home).run("rev-parse", "--show-prefix")

    @property
    def branch(self) -> str:
        return f"runs/{self.slug}"

    @cached_property
    def account(self) -> Account:
        account = Account.found(self.home / HISTORY / self.slug)
        if account is None or not (self.root / OPENED).is_file():
            raise ConfigError(f"{self.root}: not open: clear the run's first task, or trigger a new run")
        return account

    @property
    def mode(self) -> str | None:
        return self.account.run.mode


def is_open(run: Workspace) -> bool:
    return (run.root / OPENED).is_file() and Account.found(run.home / HISTORY / run.slug) is not None


def mark_open(run: Workspace) -> None:
    """The last step of making a worktree: one without the mark is made anew."""
    (run.root / OPENED).parent.mkdir(exist_ok=True)
    (run.root / OPENED).touch()


def make(run: Workspace, commit: str, settings: Settings) -> str:
    """The worktree at this commit, and the run's account; what was done, for people."""
    git = Git(run.home)
    with git.lock(LOCK):
        sweep(run.home, git)
        remove(git, run.tree)
        git.run("worktree", "add", "--quiet", "--detach", str(run.tree), commit)
        try:
            facts = _fill(run, git, settings) | {"commit": commit}
        except BaseException:
            remove(git, run.tree)
            raise
        Account.begin(run.run_id, run.dag, run.home / HISTORY / run.slug, **facts)
        mark_open(run)
    champion, mode = facts["champion"] or "none", facts["mode"] or "to be decided"
    as_of = f" as of {settings.as_of}" if settings.as_of else ""
    why = f": {settings.reason}" if settings.reason else ""
    return f"{commit[:10]}{as_of}, champion {champion}, {mode}{why}"


def has_begun(account: Account) -> bool:
    """Whether a step was taken in the run: then it has outputs of its own."""
    return account.run.step not in (None, "open")


def refuse_other(account: Account, settings: Settings) -> None:
    """A run that was deleted in the scheduler, and begun anew by the same id, has what the old one had made.

    Raises ConfigError where it is asked for something else.
    """
    before, now = account.run.asked or {}, settings.asked
    if before != now:
        keys = sorted(key for key in before | now if before.get(key) != now.get(key))
        told = ", ".join(f"{key}: {now.get(key, 'unset')}, not {before.get(key, 'unset')}" for key in keys)
        raise ConfigError(f"{told}, as the earlier run of this id was asked for: trigger one with another id")


def reopen(run: Workspace) -> str:
    """The worktree as the run left it, and its account as it was; what was done, for people.

    Raises ConfigError where its branch is gone: the outputs of another run are none of its own.
    """
    git = Git(run.home)
    commit = at(git, f"refs/heads/{run.branch}")
    if not commit:
        raise ConfigError(f"{run.branch}: no such branch: what this run had made is gone: trigger a new run")
    with git.lock(LOCK):
        sweep(run.home, git)
        remove(git, run.tree)
        git.run("worktree", "add", "--quiet", "--detach", str(run.tree), commit)
        share_cache(run.home, run.root)
        repro.check_out(run.root)
        link_sources(run.home, run.root)
        make_inputs_right(run.root)
        mark_open(run)
    return f"{run.branch}: opened again, with what it had made itself"


def _fill(run: Workspace, git: Git, settings: Settings) -> dict[str, Any]:
    """Settings, cache, the last run's outputs and the champion; what the account says of it."""
    champion = champion_name(run.root)
    mode = _apply(run.root, settings, champion)
    share_cache(run.home, run.root)
    _seed(run, git, settings.after or (CHALLENGER if mode == "judge" else None))
    if mode == "judge" and not _made(run.root, MODEL):
        raise ConfigError("mode: judge: no challenger was trained yet: use full")
    link_sources(run.home, run.root)
    make_inputs_right(run.root)
    trial = bool(settings.encoder or settings.epochs is not None)
    told = {"mode": mode, "as_of": settings.as_of, "reason": settings.reason, "asked": settings.asked}
    return {"champion": champion, "trial": trial, "latest": at(git, LATEST), **told}


def at(git: Git, ref: str) -> str:
    """The commit that a ref names; "" where there is none."""
    return git.run("for-each-ref", "--format=%(objectname)", ref)


def pinned(home: Path) -> str:
    """The commit that is checked out. What is not committed would not be run: that raises ConfigError."""
    git = Git(home)
    changed = git.run("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:3]) + (" ..." if len(changed) > 3 else "")
        raise ConfigError(
            f"{home}: {names}: changed and not committed: commit or `git stash`, then run again"
        )
    return git.head()


def check_graph(home: Path, commit: str, graph: str | None) -> None:
    """Raises ConfigError where dvc.yaml is not the one, given by its sha256, that was compiled."""
    text = Git(home).run("show", f"{commit}:./dvc.yaml")
    # As dags/dvc_graph.py: line ends may differ between a checkout and what is committed.
    if graph and hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest() != graph:
        raise ConfigError(
            f"{home / 'dvc.yaml'}: not the graph that this DAG was compiled from: wait until Airflow has read"
            " it again, and trigger a new run"
        )


def share_cache(home: Path, root: Path) -> None:
    """The checkout's own DVC settings, and its cache, for the project at `root`."""
    config, own = configparser.ConfigParser(interpolation=None), home / ".dvc" / "config.local"
    config.read(own, encoding="utf-8")
    if not config.has_section("cache"):
        config.add_section("cache")
    config.set("cache", "dir", str(Objects(home).cache))
    with (root / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def _seed(run: Workspace, git: Git, after: str | None) -> None:
    """The dvc.lock of `after` or the last run, with what it names out of the cache; the rest is made anew.

    And what no stage makes: the encoder that it was made with, which this machine may lack, and what was
    simulated for its verdict, without which that would be out of date in every run that comes.
    """
    ref = next((ref for ref in (after, LATEST) if ref and git.show(ref, "dvc.lock")), None)
    for name in ("dvc.lock", str(ENCODER), str(SIMULATION)):
        text = git.show(ref, name) if ref else _text(run.home / name)
        if text is not None:
            (run.root / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    if (run.root / "dvc.lock").is_file():
        repro.check_out(run.root)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _made(root: Path, path: str) -> bool:
    lock = root / "dvc.lock"
    return lock.is_file() and any(out["path"] == path for out in locked(lock.read_text("utf-8"), "outs"))


def link_sources(home: Path, root: Path) -> None:
    """Data and encoder that params.yaml names relative to the checkout, and git does not hold."""
    home, params = home.resolve(), Params.load(root / "params.yaml")
    files, encoder = params.collect.files, params.finetune.encoder
    patterns = (params.collect.path, files.interactions, files.items, files.users, files.relations)
    relative = [pattern for pattern in patterns if pattern and not Path(pattern).is_absolute()]
    paths = [source for pattern in relative for source in home.glob(pattern)]
    if not Path(encoder).is_absolute() and (home / encoder).is_dir():
        paths.append(home / encoder)
    for source in paths:
        link = root / source.relative_to(home)
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)


def _apply(root: Path, settings: Settings, champion: str | None) -> str | None:
    """Write the settings into the worktree's params.yaml; the mode: a first training is always full."""
    if settings.mode is not None and settings.mode not in MODES:
        raise ConfigError(f"mode: {settings.mode}: use one of {', '.join(MODES)}")
    mode = "full" if settings.mode == "refresh" and champion is None else settings.mode
    refuse_unused(settings, mode)
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


def refuse_unused(settings: Settings, mode: str | None) -> None:
    """What would be passed over in silence."""
    why = {
        "none": "trains nothing",
        "judge": "trains nothing",
        "refresh": "keeps the champion's encoder",
    }.get(mode or "")
    names = ("encoder",) if mode == "refresh" else ("encoder", "epochs")
    for name in names if why else ():
        if getattr(settings, name) is not None:
            raise ConfigError(f"{name}: a run of mode {mode} {why}: leave it empty, or use mode full")


# The end ---------------------------------------------------------------------------------------------------


def sweep(home: Path, git: Git) -> None:
    """Remove worktrees of runs that have ended, or were killed long ago, but for the newest that failed."""
    failed = []
    for folder in (home / RUNS).glob("*"):
        account = Account.found(home / HISTORY / folder.name)
        state = account.run.state if account else None
        age = time.time() - folder.stat().st_mtime if account is None else _silence(account)
        if state == "running" and age > LEFTOVER_DAYS * 86400 and account:
            account.close("failed")
            state = "failed"
        if state == "failed":
            failed.append((age, folder))
        elif state == "success" or (account is None and age > 3600):
            remove(git, folder)
    for _, folder in sorted(failed)[KEEP_FAILED:]:
        remove(git, folder)
    git.run("worktree", "prune")


def _silence(account: Account) -> float:
    """Seconds since the account was last written."""
    assert account.folder is not None
    return time.time() - (account.folder / "run.json").stat().st_mtime


def remove(git: Git, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        git.run("worktree", "prune")
