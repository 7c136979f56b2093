"""A scheduler's runs, without a scheduler: the same commands in the same order."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from waiting import PATIENCE_SECONDS, until

from pipeline.errors import ConfigError
from pipeline.loop.history import Account
from pipeline.registry.git import Git
from pipeline.runs.scheduling import PERMANENT, SKIPPED
from pipeline.runs.workspace import begin, close
from pipeline.runs.worktrees import KEEP_FAILED, REPLAYING, Settings, Workspace, refuse_unused, sweep

MONITORING, TRAINING = "evergreen_monitoring", "evergreen_training"
TRAINING_STAGES = ("collect", "preprocess", "finetune", "evaluate", "decide_promotion")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return toy.new_cycle_project(tmp_path / "project")


def step(project: Path, verb: str, dag: str, run: str, *more: str) -> subprocess.CompletedProcess[str]:
    return toy.evergreen(project, "workspace", verb, dag, run, *more)


def result(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def monitor(project: Path, run: str, *settings: str) -> dict:
    """What decide_retraining said; the lists are made, or the request is published."""
    result(step(project, "open", MONITORING, run, *settings))
    for name in ("collect", "detect_drift"):
        result(step(project, "stage", MONITORING, run, name))
    decision = result(step(project, "stage", MONITORING, run, "decide_retraining"))
    if decision["mode"] == "none":
        for name in ("preprocess", "recommend"):
            result(step(project, "stage", MONITORING, run, name))
    result(step(project, "publish", MONITORING, run))
    result(step(project, "close", MONITORING, run, "success"))
    return decision


def train(project: Path, run: str, *settings: str) -> dict:
    """What promote said."""
    result(step(project, "open", TRAINING, run, *settings))
    for name in TRAINING_STAGES:
        done = step(project, "stage", TRAINING, run, name)
        assert done.returncode in (0, SKIPPED), done.stderr
    return finish(project, run)


def finish(project: Path, run: str) -> dict:
    promoted = result(step(project, "promote", TRAINING, run))
    result(step(project, "stage", TRAINING, run, "recommend"))
    result(step(project, "publish", TRAINING, run))
    result(step(project, "close", TRAINING, run, "success"))
    return promoted


def asked(decision: dict) -> list[str]:
    return [f"--{key.replace('_', '-')}={decision[key]}" for key in ("as_of", "mode")] + [
        f"--after={decision['branch']}"
    ]


def add_rows(project: Path, *dates: str) -> None:
    with (project / "source.csv").open("a") as file:
        file.writelines(f"user,item,{date}\n" for date in dates)
    toy.git(project, "commit", "-q", "-a", "-m", "More rows")


def history(project: Path, dag: str, run: str, name: str = "run.json") -> dict:
    folder = project / "data" / "history" / Workspace(project, dag, run).slug
    return json.loads((folder / name).read_text())


def worktrees(project: Path) -> list[str]:
    return sorted(path.name for path in (project / ".evergreen" / "runs").glob("*"))


def locked(project: Path, branch: str) -> dict[str, str]:
    """Output -> md5."""
    from pipeline.registry.objects import locked as read

    return {out["path"]: out["md5"] for out in read(toy.git(project, "show", f"{branch}:dvc.lock"), "outs")}


def test_names_are_safe_for_folders_and_branches() -> None:
    slug = Workspace(Path(), TRAINING, "manual__2026-11-22T07:00:00.5+00:00 ../x~1.lock").slug
    assert re.fullmatch(r"training-manual__2026-11-22T07-00-00-5-00-00-x-1-lock-[0-9a-f]{8}", slug)


def test_runs_whose_ids_differ_in_punctuation_or_case_alone_share_nothing() -> None:
    ids = ["a+b", "a:b", "a-b", "a--b", "-a-b", "a_b", "A_b", "A_B", "a" * 200 + "b", "a" * 200 + "c"]
    ids.append(Workspace(Path(), TRAINING, "a+b").slug.removeprefix("training-"))  # a folder's name as an id
    # Some file systems take A for a.
    assert len({Workspace(Path(), TRAINING, one).slug.lower() for one in ids}) == len(ids)
    assert all(len(Workspace(Path(), TRAINING, one).slug) < 120 for one in ids)


def test_what_is_not_committed_is_not_run(project: Path) -> None:
    toy.set_param(project, "epochs: 2", "epochs: 3")
    done = step(project, "open", TRAINING, "one")
    assert done.returncode == PERMANENT
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {project}: params.yaml: changed and not committed"
    )
    assert worktrees(project) == []


def test_another_graph_than_was_compiled_is_not_run(project: Path) -> None:
    done = step(project, "open", TRAINING, "one", "--graph", "0" * 64)
    assert done.returncode == PERMANENT
    assert "not the graph that this DAG was compiled from" in done.stderr
    result(step(project, "open", TRAINING, "one", "--graph", fingerprint(project)))


def fingerprint(project: Path) -> str:
    """As the DAGs compute it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dags"))
    import dvc_graph

    return dvc_graph.read(project / "dvc.yaml").fingerprint


def test_a_graph_with_other_line_ends_is_the_same_graph(project: Path) -> None:
    before, content = fingerprint(project), (project / "dvc.yaml").read_bytes()
    (project / "dvc.yaml").write_bytes(content.replace(b"\n", b"\r\n"))
    assert fingerprint(project) == before
    toy.git(project, "commit", "-q", "-a", "-m", "Edited on Windows")
    result(step(project, "open", TRAINING, "one", "--graph", fingerprint(project)))


def test_settings_that_make_no_sense_leave_a_record_that_says_so(project: Path) -> None:
    for setting, said in (
        ("--mode=half", "mode: half"),
        ("--as-of=2024-13-45", "error: as_of: '2024-13-45' is no ISO 8601 time"),
        ("--as-of=2990-01-01", "error: as_of: 2990-01-01T00:00:00+00:00 is in the future"),
        ("--epochs=-1", "epochs"),
        ("--refused=epoch: unknown in this run's conf", "epoch: unknown in this run's conf"),
    ):
        done = step(project, "open", TRAINING, "one", setting)
        assert done.returncode == PERMANENT
        assert said in done.stderr.splitlines()[-1]
        assert worktrees(project) == []
        run = history(project, TRAINING, "one")
        assert (run["state"], run["step"]) == ("failed", "open")
        assert said.removeprefix("error: ") in run["error"]
        page = (project / "data" / "history" / "training-one" / "index.html").read_text()
        assert "failed in open" in page
    result(step(project, "open", TRAINING, "one", "--mode=full"))  # and the next try is not bound by it
    assert history(project, TRAINING, "one")["state"] == "running"
    assert history(project, TRAINING, "one").get("error") is None


def test_another_run_of_the_same_id_is_not_taken_for_it(project: Path) -> None:
    """Deleted in Airflow, and triggered anew."""
    run, asked = Workspace(project, TRAINING, "one"), Settings(as_of="1998-01-15", mode="full", reason="hope")
    begin(run, None, asked)
    run.account.note(step="preprocess")
    for other, said in (
        (replace(asked, as_of="1998-02-01"), "as_of: 1998-02-01, not 1998-01-15, as the earlier run"),
        (replace(asked, as_of=None, epochs=3), "as_of: unset, not 1998-01-15, epochs: 3, not unset"),
        (replace(asked, mode="none"), "mode: none, not full"),
    ):
        with pytest.raises(ConfigError, match=said):
            begin(run, None, other)
        assert history(project, TRAINING, "one")["state"] == "failed"
    assert begin(run, None, replace(asked, reason="despair"))["text"].endswith("goes on where it was")


@pytest.mark.parametrize(
    ("mode", "given", "why"),
    [
        ("none", {"epochs": 3}, "epochs: a run of mode none trains nothing"),
        ("judge", {"encoder": "weights"}, "encoder: a run of mode judge trains nothing"),
        ("refresh", {"encoder": "weights"}, "encoder: a run of mode refresh keeps the champion's encoder"),
    ],
    ids=["none", "judge", "refresh"],
)
def test_a_setting_that_a_mode_would_pass_over_is_refused(mode: str, given: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        refuse_unused(Settings(mode=mode, **given), mode)
    refuse_unused(Settings(mode="full", **given), "full")
    refuse_unused(Settings(mode="refresh", epochs=3), "refresh")


@pytest.mark.parametrize("spec", ["package:no_such_wheel/model", "weights-of-old", "../elsewhere"])
def test_an_encoder_that_is_not_there_is_refused_before_anything_runs(project: Path, spec: str) -> None:
    run = Workspace(project, TRAINING, "one")
    with pytest.raises(ConfigError, match=r"^encoder: .*(?:not installed|no such folder)"):
        begin(run, None, Settings(mode="full", encoder=spec))
    assert worktrees(project) == []
    begin(run, None, Settings(mode="full", encoder="weights"))  # a folder of the checkout


def test_in_the_middle_of_a_replay_only_runs_with_a_date_are_opened(project: Path) -> None:
    (project / REPLAYING).parent.mkdir()
    (project / REPLAYING).write_text("key\n")
    done = step(project, "open", TRAINING, "one")
    assert done.returncode == 99
    assert json.loads(done.stdout)["text"].startswith("skipped: a replay is under way")
    assert worktrees(project) == []
    begin(Workspace(project, TRAINING, "two"), None, Settings(as_of="1998-01-15"))
    assert worktrees(project) == ["training-two"]


def test_a_step_of_a_run_that_is_not_open_says_so(project: Path) -> None:
    done = step(project, "stage", TRAINING, "one", "collect")
    assert done.returncode == PERMANENT
    assert "not open: clear the run's first task" in done.stderr


@pytest.mark.slow
def test_a_stage_says_whether_another_try_would_end_the_same(project: Path) -> None:
    result(step(project, "open", TRAINING, "one"))
    root = Workspace(project, TRAINING, "one").root
    (project / "source.csv").write_text("bad")
    (root / "source.csv").write_text("bad")
    done = step(project, "stage", TRAINING, "one", "collect")
    assert done.returncode == PERMANENT
    assert done.stderr.splitlines()[-1] == "error: source.csv: row 3: bad; remove it"
    assert history(project, TRAINING, "one")["error"] == "source.csv: row 3: bad; remove it"
    (root / "collect.py").write_text("raise SystemExit('killed for memory')")  # or whatever it was
    assert step(project, "stage", TRAINING, "one", "collect").returncode == 1


@pytest.mark.slow
def test_runs_decide_as_the_cycle_does_and_leave_the_checkout_alone(project: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(project, tmp_path / "twin", symlinks=True))
    first = monitor(project, "one")
    assert (first["mode"], first["text"]) == ("full", "full: there is no champion yet")
    assert train(project, "one", *asked(first))["promoted"] == "v1.0.0"
    assert history(project, MONITORING, "one")["mode"] == "full"
    run = history(project, TRAINING, "one")
    assert (run["state"], run["promoted"], run["champion"]) == ("success", "v1.0.0", None)
    assert run["branch"] == "runs/training-one"
    kept = {path.name for path in (project / "data" / "history" / "training-one").glob("[!.]*")}
    # The check for drift and its report are the monitoring's.
    assert kept == {"promotion.json", "evaluation.json", "dvc.lock", "run.json", "index.html"}
    looked = {path.name for path in (project / "data" / "history" / "monitoring-one").glob("[!.]*")}
    assert looked == {"drift.json", "retraining.json", "dvc.lock", "run.json", "index.html"}
    assert (project / "data" / "history" / "training-one" / "dvc.lock").read_text() == toy.git(
        project, "show", "runs/training-one:dvc.lock"
    )
    # Little news: the lists alone use it.
    add_rows(project, "1998-03-01")
    assert monitor(project, "two")["text"].startswith("none: no drift; 1 rows came since the last training")
    add_rows(project, "1998-03-02")
    third = monitor(project, "three")
    assert third["mode"] == "refresh"
    assert train(project, "three", *asked(third))["promoted"] == "v2.0.0"
    assert monitor(project, "four")["mode"] == "none"
    assert toy.git(project, "status", "--porcelain") == ""
    assert not any((project / name).exists() for name in ("dvc.lock", "data/raw", "models/challenger"))
    assert worktrees(project) == []
    assert run_cycles(twin) == ["v1.0.0", "v2.0.0"]
    hashes = locked(project, "runs/training-three")
    del hashes["recommendations/top_k.parquet"]  # the toy's names the champion's commit, which has a date
    assert hashes == {out: md5 for out, md5 in lock_of(twin).items() if out in hashes}


def run_cycles(twin: Path) -> list[str]:
    assert toy.evergreen(twin, "cycle").returncode == 0
    for date in ("1998-03-01", "1998-03-02"):
        add_rows(twin, date)
        assert toy.evergreen(twin, "cycle").returncode == 0
    exported = json.loads((twin / "data" / "registry.json").read_text())
    return [version["version"] for version in exported["versions"]]


def lock_of(project: Path) -> dict[str, str]:
    from pipeline.registry.objects import locked as read

    return {out["path"]: out["md5"] for out in read((project / "dvc.lock").read_text(), "outs")}


@pytest.mark.slow
def test_an_old_date_makes_its_reports_and_never_demotes(cycled: Path) -> None:
    (cycled / "dvc.lock").unlink()
    assert monitor(cycled, "late", "--as-of=1998-01-15")["as_of"].startswith("1998-01-01")
    assert history(cycled, MONITORING, "late", "drift.json")["as_of"].startswith("1998-01-01")
    assert train(cycled, "late", "--as-of=1998-01-15", "--mode=full")["promoted"] is None
    checks = {check["name"]: check for check in history(cycled, TRAINING, "late", "promotion.json")["checks"]}
    assert checks["fit_end"]["passed"] is False
    assert toy.git(cycled, "tag", "--list", "recommender#champion#*").split() == ["recommender#champion#1"]


@pytest.mark.slow
def test_a_trial_is_no_change_of_the_projects_own_settings(cycled: Path) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    assert train(cycled, "trial", "--epochs=7", "--mode=full")["promoted"] == "v2.0.0"
    assert "epochs: 7" in toy.git(cycled, "show", "recommender@v2.0.0:params.yaml")
    assert monitor(cycled, "after")["mode"] == "none"


@pytest.mark.slow
def test_a_killed_step_leaves_no_orphan_and_the_retry_ends_it(cycled: Path) -> None:
    """Stage, dvc, task and Airflow itself: tests/test_airflow.py."""
    slow = toy.CYCLE_FINETUNE.replace('if "sleep" in rows:', "if not pathlib.Path('asleep.txt').exists():")
    (cycled / "finetune.py").write_text(slow)
    toy.git(cycled, "commit", "-q", "-a", "-m", "Take long, once")
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    for name in ("collect", "preprocess"):
        result(step(cycled, "stage", TRAINING, "one", name))
    root = Workspace(cycled, TRAINING, "one").root
    command = [sys.executable, "-m", "pipeline", "workspace", "stage", TRAINING, "one", "finetune"]
    process = subprocess.Popen(command, cwd=cycled, env=toy.environment(), stdout=subprocess.DEVNULL)
    until((root / "asleep.txt").exists)
    process.kill()
    assert process.wait(PATIENCE_SECONDS) != 0
    until(lambda: not training(root))
    result(step(cycled, "stage", TRAINING, "one", "finetune"))
    for name in ("evaluate", "decide_promotion"):
        result(step(cycled, "stage", TRAINING, "one", name))
    finish(cycled, "one")
    assert (history(cycled, TRAINING, "one")["state"], worktrees(cycled)) == ("success", [])


def training(root: Path) -> bool:
    """Whether a stage still works in the worktree."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = Path(os.readlink(process / "cwd"))
            if here == root and "finetune.py" in (process / "cmdline").read_text():
                return True
        except OSError:
            continue
    return False


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_is_refused_by_its_comparison(cycled: Path) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    for run, epochs in (("one", "3"), ("two", "4")):
        result(step(cycled, "open", TRAINING, run, f"--epochs={epochs}", "--mode=full"))
    for name in TRAINING_STAGES:
        started = [start(cycled, run, name) for run in ("one", "two")]
        assert [process.wait(PATIENCE_SECONDS) for process in started] == [0, 0]
    assert finish(cycled, "one")["promoted"] == "v2.0.0"
    decided = result(step(cycled, "stage", TRAINING, "two", "decide_promotion"))  # nobody is asked in vain
    assert decided["promote"] is False
    assert "compared with another champion than the present one (v2.0.0)" in decided["text"]
    assert finish(cycled, "two")["promoted"] is None
    assert history(cycled, TRAINING, "two")["not_promoted"].startswith(
        "it was compared with another champion"
    )
    assert locked(cycled, "runs/training-one") != locked(cycled, "runs/training-two")


def start(project: Path, run: str, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", "workspace", "stage", TRAINING, run, name]
    return subprocess.Popen(command, cwd=project, env=toy.environment(), stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_the_last_challenger_is_judged_again_whatever_was_published_since(cycled: Path) -> None:
    result(step(cycled, "open", MONITORING, "early"))
    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "unanswered", "--mode=full"))
    for name in TRAINING_STAGES:
        result(step(cycled, "stage", TRAINING, "unanswered", name))
    result(step(cycled, "close", TRAINING, "unanswered", "failed"))  # nobody answered: nothing is published
    for name in ("collect", "detect_drift", "decide_retraining", "preprocess", "recommend"):
        result(step(cycled, "stage", MONITORING, "early", name))
    result(step(cycled, "publish", MONITORING, "early"))
    assert train(cycled, "again", "--mode=judge")["promoted"] == "v2.0.0"
    before = toy.git(cycled, "rev-parse", "refs/evergreen/latest")
    late = result(step(cycled, "publish", MONITORING, "early"))  # a second time: it is not the last one now
    assert late["text"].startswith("runs/monitoring-early")
    assert toy.git(cycled, "rev-parse", "refs/evergreen/latest") == before


def test_without_a_challenger_there_is_nothing_to_judge(project: Path) -> None:
    done = step(project, "open", TRAINING, "one", "--mode=judge")
    assert done.returncode == PERMANENT
    assert done.stderr.splitlines()[-1] == "error: mode: judge: no challenger was trained yet: use full"
    assert worktrees(project) == []


@pytest.mark.slow
def test_a_lost_remote_ends_in_one_line_and_no_promotion(cycled: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the remote's folder was")
    toy.dvc(cycled, "remote", "add", "-d", "store", str(tmp_path / "store"))
    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    for name in TRAINING_STAGES:
        result(step(cycled, "stage", TRAINING, "one", name))
    done = step(cycled, "promote", TRAINING, "one")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: dvc push: remote 'store'")
    assert toy.git(cycled, "tag", "--list", "recommender@*").split() == ["recommender@v1.0.0"]
    result(step(cycled, "close", TRAINING, "one", "failed"))
    run = history(cycled, TRAINING, "one")
    assert (run["state"], run["step"]) == ("failed", "promote")
    assert run["error"].startswith("dvc push: remote 'store'")
    assert worktrees(cycled) == ["training-one"]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own behind the folder, which keeps what it holds."""
    before = folder.with_name(f"{folder.name}-before")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, before)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if made.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("full", [".evergreen/runs", ".dvc/cache"])
def test_a_full_disk_ends_in_one_line_and_no_promotion(cycled: Path, full: str) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    script = toy.CYCLE_FINETUNE.replace("import die_with_parent", "import die_with_parent, guarded")
    large = 'guarded(lambda: (out / "weights").write_text(rows + "x" * 3_000_000))'
    script = script.replace('(out / "weights").write_text(rows)', large)
    (cycled / "finetune.py").write_text(script)
    toy.git(cycled, "commit", "-q", "-a", "-m", "Write large weights")
    with disk(cycled / full, "2m"):
        result(step(cycled, "open", TRAINING, "one", "--mode=full"))
        for name in ("collect", "preprocess"):
            result(step(cycled, "stage", TRAINING, "one", name))
        done = step(cycled, "stage", TRAINING, "one", "finetune")
        assert done.returncode == 1, done.stderr
        assert re.match("error: .*no space left on.* run again$", done.stderr.splitlines()[-1], re.IGNORECASE)
        assert step(cycled, "promote", TRAINING, "one").returncode == 0
        assert toy.git(cycled, "tag", "--list", "recommender@*").split() == ["recommender@v1.0.0"]
        subprocess.run(["mount", "-o", "remount,size=50m", cycled / full], check=True)
        for name in TRAINING_STAGES[2:]:
            result(step(cycled, "stage", TRAINING, "one", name))
        assert finish(cycled, "one")["promoted"] == "v2.0.0"


def test_worktrees_of_ended_runs_are_swept(project: Path) -> None:
    git, now = Git(project), time.time()
    for number, state in enumerate(["failed"] * 5 + ["success", "running", "running"]):
        run = Workspace(project, TRAINING, f"r{number}")
        git.run("worktree", "add", "--quiet", "--detach", str(run.root), "HEAD")
        account = Account.begin(run.run_id, run.dag, project / "data" / "history" / run.slug)
        account.note(state=state)
        age = now - (30 * 86400 if number == 6 else 1000 - number)
        assert account.folder is not None
        os.utime(account.folder / "run.json", (age, age))
    sweep(project, git)
    assert worktrees(project) == ["training-r2", "training-r3", "training-r4", "training-r7"]
    assert len(worktrees(project)) == KEEP_FAILED + 1
    assert history(project, TRAINING, "r6")["state"] == "failed"


@pytest.mark.slow
def test_a_step_waits_for_the_one_before(project: Path) -> None:
    result(step(project, "open", TRAINING, "one"))
    root = Workspace(project, TRAINING, "one").root
    with (root / ".evergreen" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start(project, "one", "collect")
        time.sleep(2)
        assert process.poll() is None
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.slow
def test_two_machines_that_share_only_git_and_s3(
    project: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other step on the other one; each has a clone, a cache and a worktree of its own."""
    toy.dvc(project, "remote", "add", "-d", "store", "s3://evergreen/objects")
    toy.dvc(project, "remote", "modify", "store", "endpointurl", s3)
    toy.git(project, "commit", "-q", "-a", "-m", "Name the remote")
    toy.git(tmp_path, "clone", "-q", "--bare", str(project), str(tmp_path / "bare"))
    machines = [tmp_path / "one", tmp_path / "two"]
    for machine in machines:
        toy.git(tmp_path, "clone", "-q", str(tmp_path / "bare"), str(machine))
    monkeypatch.setenv("EVERGREEN_GIT_REMOTE", "origin")
    one, two = machines
    result(step(one, "open", TRAINING, "far", "--mode=full"))
    for number, name in enumerate(TRAINING_STAGES):
        result(step(machines[number % 2], "stage", TRAINING, "far", name))
    assert result(step(two, "promote", TRAINING, "far"))["promoted"] == "v1.0.0"
    result(step(one, "stage", TRAINING, "far", "recommend"))
    result(step(two, "publish", TRAINING, "far"))
    result(step(one, "close", TRAINING, "far", "success"))
    run = history(one, TRAINING, "far")
    assert (run["state"], run["promoted"], run["mode"]) == ("success", "v1.0.0", "full")
    assert history(one, TRAINING, "far", "promotion.json")["promote"] is True
    # Each has only what its own steps read and made.
    assert not (Workspace(two, TRAINING, "far").root / "recommendations" / "top_k.parquet").exists()
    assert set(toy.git(tmp_path / "bare", "branch", "--list").split()) == {"*", "main", "runs/training-far"}
    monkeypatch.delenv("EVERGREEN_GIT_REMOTE")
    hand = tmp_path / "hand"
    toy.git(tmp_path, "clone", "-q", "--no-tags", str(project), str(hand))
    toy.dvc(hand, "repro", "-q", "evaluate")
    outputs = locked(tmp_path / "bare", "runs/training-far")
    by_hand = lock_of(hand)
    for path in ("data/raw/rows.txt", "data/prepared", "models/challenger", "reports/evaluation.json"):
        assert outputs[path] == by_hand[path]


@pytest.mark.slow
def test_an_ended_run_goes_on_with_its_own_outputs_and_account(cycled: Path) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    assert train(cycled, "one", "--mode=full")["promoted"] == "v2.0.0"
    add_rows(cycled, "1998-03-03", "1998-03-04")
    assert train(cycled, "two", "--mode=full")["promoted"] == "v3.0.0"
    before = history(cycled, TRAINING, "one")
    data, latest = locked(cycled, "runs/training-one"), toy.git(cycled, "rev-parse", "refs/evergreen/latest")
    opened = result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    assert opened["text"] == "runs/training-one: opened again, with what it had made itself"
    root = cycled / opened["folder"]
    assert "1998-03-02" in (root / "models" / "challenger" / "weights").read_text()
    assert finish(cycled, "one")["promoted"] is None  # its own challenger, which was replaced
    after = history(cycled, TRAINING, "one")
    assert [after[key] for key in ("promoted", "champion", "mode", "started")] == [
        before[key] for key in ("promoted", "champion", "mode", "started")
    ]
    del data["recommendations/top_k.parquet"]  # of the champion of now
    assert data.items() <= locked(cycled, "runs/training-one").items()
    assert toy.git(cycled, "rev-parse", "refs/evergreen/latest") == latest
    assert toy.git(cycled, "tag", "--list", "recommender#champion#*").split()[-1] == "recommender#champion#3"
    # All of it cleared, with other rows in its source by now: what is judged is another model.
    reopened = cycled / result(step(cycled, "open", TRAINING, "one", "--mode=full"))["folder"]
    (reopened / "source.csv").write_text((cycled / "source.csv").read_text())
    for name in TRAINING_STAGES:
        result(step(cycled, "stage", TRAINING, "one", name))
    anew = history(cycled, TRAINING, "one")
    assert anew["challenger"] != before["challenger"]
    assert (before["promoted"], anew["promoted"]) == ("v2.0.0", None)


@pytest.mark.slow
def test_a_rejected_challenger_is_not_promoted_through_another_run(cycled: Path) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "rejected", "--mode=full"))
    for name in TRAINING_STAGES:
        result(step(cycled, "stage", TRAINING, "rejected", name))
    # Allowed by the checks, refused by a person.
    result(step(cycled, "publish", TRAINING, "rejected", "--rejected=rejected by vera"))
    closed = result(step(cycled, "close", TRAINING, "rejected", "success"))
    assert closed["text"].endswith("allowed, not promoted as of 1998-03-02: rejected by vera")
    result(step(cycled, "open", TRAINING, "lists", "--mode=none"))
    assert finish(cycled, "lists")["promoted"] is None
    # Even where another run's model lies in its worktree.
    result(step(cycled, "open", TRAINING, "rejected", "--mode=full"))
    root = Workspace(cycled, TRAINING, "rejected").root
    (root / "models" / "challenger" / "weights").chmod(0o644)
    (root / "models" / "challenger" / "weights").unlink()
    (root / "models" / "challenger" / "weights").write_text("another")
    done = result(step(cycled, "promote", TRAINING, "rejected"))
    assert done["promoted"] is None
    assert "is not what this run has judged" in done["text"]


@pytest.mark.slow
def test_where_the_gate_asks_for_a_simulation_no_run_promotes_without(cycled: Path) -> None:
    """The toy's models are none that could be simulated: that is said, and refused; not a crash."""
    toy.set_param(cycled, "long_term_guard: null", "long_term_guard: 0.1")
    add_rows(cycled, "1998-03-01", "1998-03-02")
    promoted = train(cycled, "guarded", "--mode=full")
    assert promoted["promoted"] is None
    checks = {
        check["name"]: check for check in history(cycled, TRAINING, "guarded", "promotion.json")["checks"]
    }
    assert (checks["long_term"]["passed"], checks["long_term"]["limit"]) == (False, 0.1)
    assert "evergreen simulate" in checks["long_term"]["text"]
    assert checks["long_term"]["text"] in promoted["text"]


def test_a_judgement_that_is_asked_for_is_not_called_none(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from pipeline.loop.plans import JUDGE, Plan
    from pipeline.runs import workspace

    planned = Plan("judge", ("decide_promotion: params.yaml: decide_promotion.tolerance changed",), JUDGE[1:])
    loop: Any = SimpleNamespace(
        root=tmp_path,
        account=SimpleNamespace(run=SimpleNamespace(looked=True)),
        look=lambda name: True,
        plan=lambda: planned,
        keep=lambda: None,
    )
    told = workspace._look(loop, "decide_retraining")
    assert (told["mode"], told["text"]) == ("judge", f"judge: {planned.reasons[0]}")


@pytest.mark.slow
def test_what_was_simulated_for_a_verdict_is_no_news_to_the_runs_that_come(cycled: Path) -> None:
    """Else each would ask for another verdict, and each of those for minutes of simulation."""
    from pipeline.documents.simulation import LongTerm

    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    for name in TRAINING_STAGES[:-1]:
        result(step(cycled, "stage", TRAINING, "one", name))
    simulated = Workspace(cycled, TRAINING, "one").root / "data" / "simulation.json"
    LongTerm(challenger="one", champion="another", rounds=10).write(simulated)
    result(step(cycled, "stage", TRAINING, "one", TRAINING_STAGES[-1]))
    finish(cycled, "one")
    assert monitor(cycled, "next")["mode"] == "none"


@pytest.mark.slow
def test_a_training_with_other_params_that_was_only_marked_as_done_is_not_judged(cycled: Path) -> None:
    """All data are as they were."""
    result(step(cycled, "open", TRAINING, "one", "--mode=full", "--epochs=3"))
    for name in TRAINING_STAGES[:2]:
        result(step(cycled, "stage", TRAINING, "one", name))
    done = step(cycled, "stage", TRAINING, "one", "evaluate")
    assert done.returncode == PERMANENT
    said = (
        "finetune: not done in this run, though params.yaml: finetune.epochs changed: clear the task finetune"
    )
    assert done.stderr.splitlines()[-1] == f"error: {said}"
    for name in TRAINING_STAGES[2:4]:
        result(step(cycled, "stage", TRAINING, "one", name))


@pytest.mark.slow
def test_a_training_that_was_only_marked_as_done_is_not_judged(cycled: Path) -> None:
    """What lies there is the challenger of the run before."""
    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    for name in TRAINING_STAGES[:2]:
        result(step(cycled, "stage", TRAINING, "one", name))
    done = step(cycled, "stage", TRAINING, "one", "evaluate")
    assert done.returncode == PERMANENT
    said = "finetune: not done in this run, though data/prepared changed: clear the task finetune"
    assert done.stderr.splitlines()[-1] == f"error: {said}"
    assert history(cycled, TRAINING, "one")["error"] == said
    for name in TRAINING_STAGES[2:]:
        result(step(cycled, "stage", TRAINING, "one", name))
    refused = "nobody has said yes in this run"
    assert step(cycled, "promote", TRAINING, "one", f"--refused={refused}").returncode == PERMANENT
    assert history(cycled, TRAINING, "one")["error"] == refused
    assert finish(cycled, "one")["promoted"] == "v2.0.0"


@pytest.mark.slow
def test_a_failed_run_whose_worktree_is_gone_goes_on_or_says_why_not(cycled: Path) -> None:
    add_rows(cycled, "1998-03-01", "1998-03-02")
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    for name in TRAINING_STAGES[:3]:
        result(step(cycled, "stage", TRAINING, "one", name))
    assert result(step(cycled, "close", TRAINING, "one", "failed"))["state"] == "failed"
    shutil.rmtree(Workspace(cycled, TRAINING, "one").tree)
    result(step(cycled, "open", TRAINING, "one", "--mode=full"))
    said = result(step(cycled, "stage", TRAINING, "one", "finetune"))["text"]
    assert said == "finetune: nothing that it reads has changed"
    result(step(cycled, "close", TRAINING, "one", "failed"))
    shutil.rmtree(Workspace(cycled, TRAINING, "one").tree)
    toy.git(cycled, "branch", "-D", "runs/training-one")
    done = step(cycled, "open", TRAINING, "one", "--mode=full")
    assert done.returncode == PERMANENT
    assert "runs/training-one: no such branch" in done.stderr.splitlines()[-1]
    record = history(cycled, TRAINING, "one")
    assert record["state"] == "failed"
    assert "no such branch" in record["error"]


def test_a_run_whose_record_is_gone_does_not_take_over_another_runs_outputs(project: Path) -> None:
    """Not even when it is opened twice; one that ended before its first stage begins where it was."""
    run = Workspace(project, TRAINING, "one")
    assert "none, full" in begin(run, None, Settings(mode="full"))["text"]
    close(run, "failed")
    shutil.rmtree(run.tree)
    assert "opened again" in begin(Workspace(project, TRAINING, "one"), None, Settings(mode="full"))["text"]
    close(Workspace(project, TRAINING, "one"), "failed")
    shutil.rmtree(project / "data" / "history" / "training-one")
    shutil.rmtree(run.tree)
    for _ in range(2):
        with pytest.raises(ConfigError, match="git branch -D runs/training-one"):
            begin(Workspace(project, TRAINING, "one"), None, Settings(mode="full"))
    toy.git(project, "branch", "-D", "runs/training-one")
    assert "none, full" in begin(Workspace(project, TRAINING, "one"), None, Settings(mode="full"))["text"]


@pytest.mark.slow
def test_a_project_in_a_sub_folder_of_its_repository(tmp_path: Path) -> None:
    made = toy.new_cycle_project(tmp_path / "made")
    project = tmp_path / "repository" / "shop"
    shutil.copytree(made, project, ignore=shutil.ignore_patterns(".git", "cache", "tmp"))
    shutil.rmtree(project / ".dvc", ignore_errors=True)
    toy.git(project.parent, "init", "-q")
    toy.dvc(project, "init", "--subdir")
    toy.git(project.parent, "add", "-A")
    toy.git(project.parent, "commit", "-q", "-m", "Start")
    result(step(project, "open", TRAINING, "one", "--mode=full"))
    for name in TRAINING_STAGES:
        result(step(project, "stage", TRAINING, "one", name))
    assert finish(project, "one")["promoted"] == "v1.0.0"
    assert worktrees(project) == []
