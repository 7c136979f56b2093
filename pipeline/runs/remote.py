"""Workers on several machines: what a run is at travels through git and DVC's remote, and nothing else.

With EVERGREEN_GIT_REMOTE (a remote's name or an address) the branch runs/SLUG holds, after every step, the
run's params.yaml, dvc.lock and account (registry/*). Before a step its worktree is made of that branch; its
inputs alone are pulled, and its outputs pushed. A retry on the same machine finds its checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from pipeline.errors import ArtifactError, ConfigError, Unavailable
from pipeline.loop import repro
from pipeline.loop.history import HISTORY, JUDGED, LOOKED
from pipeline.loop.steps import make_inputs_right
from pipeline.registry.actions import LOCK
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, Objects, locked
from pipeline.registry.records import MANIFEST, TRAINING
from pipeline.registry.versions import EXPORTS
from pipeline.runs.worktrees import (
    CHALLENGER,
    LATEST,
    OPENED,
    Workspace,
    link_sources,
    mark_open,
    remove,
    share_cache,
)

VARIABLE = "EVERGREEN_GIT_REMOTE"
ACCOUNT = "registry"


def address() -> str | None:
    return os.environ.get(VARIABLE) or None


def newest(home: Path, remote: str) -> str:
    """The commit of the remote's default branch, its tags and the last run, fetched."""
    if not Objects(home).remote:
        raise ConfigError(f"{VARIABLE} is set, but there is no DVC remote: `dvc remote add -d NAME ADDRESS`")
    git = Git(home)
    git.run("fetch", "--quiet", "--force", remote, "+refs/tags/*:refs/tags/*")
    fetch(git, remote)
    git.run("fetch", "--quiet", remote, "HEAD")
    return git.run("rev-parse", "FETCH_HEAD")


def fetch(git: Git, remote: str) -> None:
    """Where the last run and the last challenger are."""
    for line in git.run("ls-remote", remote, LATEST, CHALLENGER).splitlines():
        ref = line.split()[1]
        git.run("fetch", "--quiet", remote, f"+{ref}:{ref}")


def find(run: Workspace, remote: str) -> None:
    """What the run was at when it ended, if it was open once: its branch and its account."""
    git = Git(run.home)
    if git.run("ls-remote", remote, f"refs/heads/{run.branch}"):
        git.run("update-ref", f"refs/heads/{run.branch}", gather(run, remote))


def enter(run: Workspace, remote: str, stage: str | None) -> None:
    """The worktree as the last step left it, wherever that was, with the inputs of `stage`."""
    git, commit = Git(run.home), gather(run, remote)
    if not (run.root / OPENED).is_file():
        remove(git, run.tree)
        git.run("worktree", "add", "--quiet", "--detach", str(run.tree), commit)
        share_cache(run.home, run.root)
        link_sources(run.home, run.root)
        mark_open(run)
    elif Git(run.root).head() != commit:
        Git(run.root).run("reset", "--quiet", "--hard", commit)
    make_inputs_right(run.root)
    _pull(run.root, stage)


def gather(run: Workspace, remote: str) -> str:
    """The run's account into data/history here; the commit that its branch is at."""
    git = Git(run.home)
    try:
        git.run("fetch", "--quiet", "--force", remote, run.branch, "+refs/tags/*:refs/tags/*")
    except ArtifactError as error:
        raise Unavailable(f"{run.branch}: cannot be fetched from {remote}: {error}") from None
    commit = git.run("rev-parse", "FETCH_HEAD")
    folder = run.home / HISTORY / run.slug
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        name: f"{ACCOUNT}/{name}"
        for name in git.run("ls-tree", "--name-only", f"{commit}:./{ACCOUNT}").split()
    }
    for name, path in (files | {"dvc.lock": "dvc.lock"}).items():
        if (text := git.show(commit, path)) is not None:
            (folder / name).write_text(text + "\n", encoding="utf-8")
    return commit


def _pull(root: Path, stage: str | None) -> None:
    """What the stage reads, and what records and decisions are made of; without a stage, the model."""
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else None
    made = {str(out["path"]) for out in locked(text, "outs")}
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    reads = [str(dep).rstrip("/") for dep in stages[stage].get("deps", [])] if stage else [MODEL]
    wanted = {out for out in made if any(_meet(out, dep) for dep in reads)}
    wanted |= made & {MANIFEST, *LOOKED, *JUDGED, str(Path(TRAINING).parent)}
    missing = sorted(path for path in wanted if not (root / path).exists())
    if missing:
        repro.transfer(root, "pull", missing)


def _meet(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def leave(run: Workspace, remote: str, stage: str | None, anew: bool = False) -> None:
    """Push what the step made, and what the run is at; `anew`: whatever its branch held before."""
    git = Git(run.root)
    if stage:
        repro.transfer(run.root, "push", [stage])
    git.use_fallback_identity()
    folder = run.home / HISTORY / run.slug
    texts = {f"{ACCOUNT}/{path.name}": path.read_text(encoding="utf-8") for path in folder.glob("[!.]*.json")}
    with git.lock(LOCK):
        message = f"Run {run.run_id} of {run.dag}: {stage or 'under way'}"
        commit = git.snapshot(message, texts, ["dvc.lock"], leave=map(str, EXPORTS))
    git.run("update-ref", "--no-deref", "HEAD", commit)
    git.run("reset", "--quiet")
    for path in EXPORTS:
        git.overlook(str(path))
    branch = f"{'+' if anew else ''}{commit}:refs/heads/{run.branch}"
    try:
        git.run("push", "--quiet", "--atomic", remote, branch, "refs/tags/*:refs/tags/*")
    except ArtifactError:
        if taken := _taken(git, remote):
            raise Unavailable(
                f"{', '.join(taken)}: put there by another machine meanwhile: nothing of this step counts; "
                "its next try starts from what is there now"
            ) from None
        raise


def _taken(git: Git, remote: str) -> list[str]:
    """Tags that the remote has for something else than we do."""
    listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", "refs/tags")
    ours = dict(line.split() for line in listed.splitlines())
    theirs = (line.split() for line in git.run("ls-remote", "--refs", "--tags", remote).splitlines())
    return [ref.removeprefix("refs/tags/") for oid, ref in theirs if ours.get(ref, oid) != oid]
