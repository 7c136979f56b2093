"""Machines that share a git remote, without a scheduler; whole runs: tests/test_workspace.py."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy

from pipeline.errors import ArtifactError, Unavailable
from pipeline.loop.history import HISTORY, Account
from pipeline.registry.actions import Refused, promote
from pipeline.registry.git import Git
from pipeline.registry.versions import read_state
from pipeline.runs import remote
from pipeline.runs.worktrees import Workspace

# Promotions wait for each other within the remote, before either has any effect.
TOGETHER = """#!/bin/sh
grep -q champion || exit 0
touch "here.$$"
for _ in $(seq 600); do
  [ "$(ls here.* | wc -l)" -lt 2 ] || exit 0
  sleep 0.1
done
exit 1
"""


def machine(trained: Path, folder: Path, bare: Path, seed: int) -> Workspace:
    """A clone with a challenger of its own and a run under way, whose branch the remote has."""
    home = Path(shutil.copytree(trained, folder, symlinks=True))
    toy.git(home, "remote", "add", "origin", str(bare))
    toy.use_challenger(home, seed)
    run = Workspace(home, "evergreen_training", f"run{seed}")
    toy.git(home, "worktree", "add", "-q", "--detach", str(run.root))
    Account.begin(run.run_id, run.dag, home / HISTORY / run.slug)
    remote.leave(run, "origin", None, anew=True)
    return run


def promoted(run: Workspace) -> str:
    """What came of it: the version or the error."""
    remote.gather(run, "origin")
    try:
        version = promote(run.home)
        remote.leave(run, "origin", None)
    except (Refused, ArtifactError) as error:
        return str(error)
    return version.name


def test_of_two_promotions_pushed_at_once_one_wins_and_one_explains(trained: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    toy.git(tmp_path, "clone", "-q", "--bare", str(trained), str(bare))
    (bare / "hooks" / "pre-receive").write_text(TOGETHER)
    (bare / "hooks" / "pre-receive").chmod(0o755)
    runs = [machine(trained, tmp_path / str(seed), bare, seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as both:
        said = dict(zip(both.map(promoted, runs), runs, strict=True))
    loser = said.pop(next(text for text in said if text != "v1.0.0"))
    [winner] = said.values()
    assert list(said) == ["v1.0.0"]
    champion = read_state(Git(bare)).champion
    assert champion == read_state(Git(winner.home)).champion
    # The next try knows of it.
    assert "compared with another champion than the present one (v1.0.0)" in promoted(loser)
    assert read_state(Git(loser.home)).champion == champion


def test_a_remote_that_is_not_there_is_named(trained: Path) -> None:
    said = "runs/training-run: cannot be fetched from /nowhere: git fetch: fatal: '/nowhere' does not appear"
    with pytest.raises(Unavailable, match=said):
        remote.gather(Workspace(trained, "evergreen_training", "run"), "/nowhere")
