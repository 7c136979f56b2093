import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import toy
from waiting import PATIENCE_SECONDS, slowness, until

from pipeline.documents.drift import Drift, Signal
from pipeline.documents.retraining import Pending, Retraining
from pipeline.loop import repro, steps
from pipeline.loop.plans import Plan, causes, make_plan, news
from pipeline.loop.steps import drift_sentence


def cycle(project: Path, *arguments: str) -> list[str]:
    """Lines of a cycle that must succeed, without what dvc and the stages print."""
    done = toy.evergreen(project, "cycle", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def decisions(lines: list[str]) -> dict[str, str]:
    known = (
        *("as of", "champion", "source", "drift", "retraining", "training", "record", "promotion"),
        *("recommend", "restored"),
    )
    pairs = [line.split(":", 1) for line in lines if line.split(":", 1)[0] in known]
    return {name: text.strip() for name, text in pairs}


def stages_run(lines: list[str]) -> list[str]:
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def add_rows(project: Path, *dates: str) -> None:
    """The first of them also drives the calendar: the toy has 8 rows, and 20 % more are due."""
    with (project / "source.csv").open("a") as file:
        file.writelines(f"user,item,{date}\n" for date in dates)


def recommended(project: Path) -> dict:
    return json.loads((project / "recommendations" / "top_k.parquet").read_text())


def trainings(project: Path) -> list[tuple[str, str | None, bool]]:
    exported = json.loads((project / "data" / "registry.json").read_text())
    return [(row["mode"], row["version"], row["promoted"]) for row in exported["trainings"]]


EVERY = ["collect", "detect_drift", "decide_retraining", "preprocess", "finetune", "evaluate"]
EVERY += ["decide_promotion", "recommend"]


def test_first_cycle_trains_promotes_and_recommends(cycled_once):
    project, output = cycled_once
    lines = output.splitlines()
    assert stages_run(lines) == EVERY
    assert "to track the changes with git" not in output.lower()  # dvc's hints, after every call of it
    assert "dvc push" not in output
    assert [line for line in lines if "git add dvc.lock" in line] == [lines[-1]]
    assert lines[0].split() == ["champion:", "none", "yet"]
    said = decisions(lines)
    assert said["drift"] == "not checked: there is no champion yet"
    assert said["retraining"] == "full: there is no champion yet"
    assert said["training"] == "every stage runs, for the first time"
    assert said["record"] == "training 1: full, 30 s"
    assert said["promotion"].startswith("v1.0.0 is the champion: nDCG@10 +0.0200 [+0.0100, +0.0300]")
    assert said["champion"] == "v1.0.0, put into models/champion, verified"
    assert recommended(project)["version"] == "v1.0.0"
    assert trainings(project) == [("full", "v1.0.0", True)]
    assert "2 users, 3 test points" in output
    assert "challenger − model" in output
    assert "reports/promotion.json" in lines[-4]
    assert "data/history/index.html" in lines[-2]
    assert toy.git(project, "status", "--porcelain").split() == ["??", "dvc.lock"]
    kept = project / "data" / "history" / "19980201T000000Z-none"
    decisions_kept = {"drift.json", "retraining.json", "promotion.json", "evaluation.json"}
    assert {path.name for path in kept.glob("[!.]*")} == decisions_kept | {
        "dvc.lock",
        "run.json",
        "index.html",
    }
    run = json.loads((kept / "run.json").read_text())
    assert run["run_id"].startswith("cycle__")
    assert run["commit"] == toy.git(project, "rev-parse", "HEAD").strip()
    assert (run["dag"], run["state"], run["mode"], run["branch"]) == ("cycle", "success", "full", None)
    assert (run["champion"], run["promoted"], run["as_of"]) == (None, "v1.0.0", "1998-02-01T00:00:00+00:00")
    assert run["started"] <= run["finished"]
    assert (kept / "dvc.lock").read_bytes() == (project / "dvc.lock").read_bytes()


def test_second_cycle_runs_no_stage_and_says_why(cycled):
    before = toy.tags(cycled)
    start = forked.seconds()
    lines = cycle(cycled)
    assert 0 < forked.seconds() - start < 10 * slowness()  # CPU seconds; 2 on an idle machine
    assert stages_run(lines) == []
    said = decisions(lines)
    assert said["source"] == "files, unchanged since it was collected"
    assert said["training"] == "nothing new in source, params and code: no stage is run"
    assert said["promotion"] == "nothing to do: the challenger is the champion, v1.0.0"
    assert said["recommend"] == "nothing to do: same champion, same data"
    assert toy.tags(cycled) == before


@pytest.mark.slow
def test_little_new_data_reaches_the_lists_but_not_the_model(cycled):
    add_rows(cycled, "1998-03-01")
    lines = cycle(cycled)
    assert stages_run(lines) == ["collect", "detect_drift", "decide_retraining", "preprocess", "recommend"]
    said = decisions(lines)
    assert said["drift"] == "none in 2 signals (1998-02-01 to 1998-03-01, 1 rows of 1 users)"
    assert said["retraining"].startswith("none: no drift; 1 rows came since the last training, 12.5%")
    assert said["training"].startswith("none: the lists use the new histories, users and items")
    assert said["promotion"] == "nothing to do: the challenger is the champion, v1.0.0"
    assert (cycled / "data" / "prepared" / "rows.txt").read_text().endswith("1998-03-01")
    assert trainings(cycled) == [("full", "v1.0.0", True)]
    # Nothing new after that, although the model is older than the data.
    lines = cycle(cycled)
    assert stages_run(lines) == []
    assert decisions(lines)["training"] == "nothing new in source, params and code: no stage is run"


@pytest.mark.slow
def test_refresh_when_it_is_due(cycled):
    params = (cycled / "params.yaml").read_text()
    add_rows(cycled, "1998-03-01", "1998-03-02")
    lines = cycle(cycled)
    assert stages_run(lines) == EVERY
    said = decisions(lines)
    assert said["retraining"].startswith("refresh: 2 rows came since the last training, 25.0% of the 8")
    assert said["training"] == "refresh, as decided"
    assert said["record"] == "training 2: refresh, 2 s"
    assert said["promotion"].startswith("v2.0.0 is the champion")
    assert (cycled / "params.yaml").read_text() == params
    assert recommended(cycled)["version"] == "v2.0.0"
    assert 'refresh_of: "v1.0.0"' in toy.git(cycled, "show", "recommender@v2.0.0:params.yaml")
    assert trainings(cycled) == [("full", "v1.0.0", True), ("refresh", "v2.0.0", True)]
    # That refresh_of was put back, and that there is another champion, is nothing new.
    assert stages_run(cycle(cycled)) == []


@pytest.mark.slow
def test_changed_params_of_the_training_lead_to_a_full_one(cycled):
    toy.set_param(cycled, "epochs: 2", "epochs: 3")
    lines = cycle(cycled)
    assert stages_run(lines) == ["finetune", "evaluate", "decide_promotion", "recommend"]
    assert decisions(lines)["training"] == "finetune: params.yaml: finetune.epochs changed"
    assert trainings(cycled) == [("full", "v1.0.0", True), ("full", "v2.0.0", True)]


@pytest.mark.slow
def test_failing_stage_says_so_once_and_its_outputs_are_restored(cycled):
    (cycled / "source.csv").write_text("bad")
    rows = (cycled / "data" / "raw" / "rows.txt").read_text()
    done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: source.csv: row 3: bad; remove it"
    assert (done.stdout + done.stderr).count("row 3: bad") == 1
    assert "Traceback" not in done.stderr
    assert decisions(done.stdout.splitlines())["restored"].startswith("the last outputs of collect")
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == rows


@pytest.mark.slow
def test_training_that_fails_leaves_the_last_challenger_and_is_tried_again(cycled):
    before = (cycled / "models" / "challenger" / "weights").read_text()
    add_rows(cycled, "1998-03-01", "1998-03-02")
    (cycled / "source.csv").write_text("diverge,x,1998-01-01\n" + (cycled / "source.csv").read_text())
    done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert "finetune" in decisions(done.stdout.splitlines())["restored"]
    assert (cycled / "models" / "challenger" / "weights").read_text() == before
    assert not (cycled / "models" / "challenger" / "half").exists()
    assert "refresh_of: null" in (cycled / "params.yaml").read_text()
    assert trainings(cycled) == [("full", "v1.0.0", True)]
    text = (cycled / "source.csv").read_text()
    (cycled / "source.csv").write_text(text.replace("diverge", "user"))
    assert decisions(cycle(cycled))["promotion"].startswith("v2.0.0 is the champion")


@pytest.mark.slow
def test_full_training_by_hand_that_fails_late_is_taken_up(cycled):
    """Preprocess is done then, so that nothing but the note tells why to train."""
    toy.set_param(cycled, "max_points_per_user: 20", "max_points_per_user: 10")
    script = (cycled / "finetune.py").read_text()
    (cycled / "preprocess.py").write_text(toy.PREPROCESS + "(out / 'points').write_text('10')")
    (cycled / "finetune.py").write_text("raise SystemExit('out of memory')")
    assert toy.evergreen(cycled, "cycle").returncode == 1
    (cycled / "finetune.py").write_text(script)
    lines = cycle(cycled)
    assert "finetune" in stages_run(lines)
    assert decisions(lines)["training"].startswith("as was begun: preprocess: ")
    assert trainings(cycled)[-1][0] == "full"
    assert stages_run(cycle(cycled)) == []


@pytest.mark.slow
def test_failed_drift_check_trains_nothing_and_leaves_the_service_whole(cycled):
    (cycled / "drift.txt").write_text("fail")
    add_rows(cycled, "1998-03-01", "1998-03-02")
    done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert decisions(done.stdout.splitlines())["restored"].startswith("the last outputs of detect_drift")
    assert trainings(cycled) == [("full", "v1.0.0", True)]
    (cycled / "drift.txt").write_text("none")
    assert decisions(cycle(cycled))["promotion"].startswith("v2.0.0 is the champion")


@pytest.mark.slow
def test_drop_of_quality_trains_in_full_and_drift_refreshes(cycled):
    (cycled / "drift.txt").write_text("new_items")
    add_rows(cycled, "1998-03-01")
    said = decisions(cycle(cycled))
    assert said["drift"] == "new_items drifted"
    assert said["retraining"] == "refresh: new_items drifted"
    (cycled / "drift.txt").write_text("new_items quality")
    add_rows(cycled, "1998-03-02")
    assert decisions(cycle(cycled))["retraining"] == "full: quality drifted; new_items drifted"
    assert [mode for mode, _, _ in trainings(cycled)] == ["full", "refresh", "full"]


@pytest.mark.slow
def test_a_second_cycle_on_the_same_data_keeps_the_record_of_the_first(cycled):
    history = cycled / "data" / "history"
    add_rows(cycled, "1998-03-01")
    cycle(cycled)
    first = history / "19980301T000000Z-v1.0.0"
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    (cycled / "drift.txt").write_text("new_items")  # what is known of these data changes
    assert decisions(cycle(cycled))["drift"] == "new_items drifted"
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    second = json.loads((history / f"{first.name}-2" / "drift.json").read_text())
    assert second["drift"] != json.loads(before["drift.json"])["drift"]


@pytest.mark.slow
def test_worse_model_is_not_promoted_but_recorded_and_not_tried_again(cycled):
    add_rows(cycled, "1998-03-01", "1998-03-02")
    (cycled / "gain.txt").write_text("-0.01")
    lines = cycle(cycled)
    assert "finetune" in stages_run(lines)
    assert decisions(lines)["promotion"].startswith("not promoted: ")
    assert recommended(cycled)["version"] == "v1.0.0"
    assert trainings(cycled) == [("full", "v1.0.0", True), ("refresh", None, False)]
    assert stages_run(cycle(cycled)) == []
    # What it was trained on counts as known, so that one more row is not due.
    add_rows(cycled, "1998-03-03")
    said = decisions(cycle(cycled))
    assert said["retraining"].startswith(
        "none: no drift; 1 rows came since the last training, 10.0% of the 10"
    )


@pytest.mark.slow
def test_rolled_back_version_stays_in_service_until_data_call_for_more(cycled):
    add_rows(cycled, "1998-03-01", "1998-03-02")
    cycle(cycled)
    assert toy.evergreen(cycled, "registry", "rollback").stdout.startswith("v1.0.0 is the champion")
    lines = cycle(cycled)  # recommend may come from dvc's run-cache
    assert set(stages_run(lines)) <= {"recommend"}
    assert "this model is v2.0.0, which was replaced" in decisions(lines)["promotion"]
    assert recommended(cycled)["version"] == "v1.0.0"
    # And back to the refreshed one, which needs no other folder than its own.
    assert toy.evergreen(cycled, "registry", "rollback", "--to", "v2").returncode == 0
    cycle(cycled)
    assert recommended(cycled)["version"] == "v2.0.0"
    weights = (cycled / "models" / "champion" / "weights").read_text()
    assert weights.endswith("1998-03-02")


@pytest.mark.slow
def test_promotion_waits_for_a_person(cycled):
    add_rows(cycled, "1998-03-01", "1998-03-02")
    toy.set_param(cycled, "approval: auto", "approval: human")
    assert "waits for approval" in decisions(cycle(cycled))["promotion"]
    assert toy.evergreen(cycled, "registry", "promote").returncode == 1
    assert toy.evergreen(cycled, "registry", "promote", "--approve").returncode == 0
    lines = cycle(cycled)
    assert stages_run(lines) == ["recommend"]
    assert decisions(lines)["champion"] == "v2.0.0, put into models/champion, verified"
    assert trainings(cycled)[-1] == ("refresh", "v2.0.0", True)


@pytest.mark.slow
def test_stages_run_one_by_one_are_recorded_by_a_command(cycled):
    """As a scheduler does: the same stages, and `evergreen registry record` behind decide_promotion."""
    add_rows(cycled, "1998-03-01", "1998-03-02")
    toy.dvc(cycled, "repro", "-q", "--force", "--single-item", "collect")
    toy.dvc(cycled, "repro", "-q", "decide_promotion")
    assert toy.evergreen(cycled, "registry", "record").stdout == "training 2: full, 30 s: recorded\n"
    assert toy.evergreen(cycled, "registry", "record").stdout == "training 2: full, 30 s: recorded already\n"
    assert toy.evergreen(cycled, "registry", "promote").returncode == 0
    assert trainings(cycled)[-1] == ("full", "v2.0.0", True)


@pytest.mark.slow
def test_second_clone_serves_the_champion_without_training(cycled, tmp_path):
    toy.dvc(cycled, "remote", "add", "-d", "store", str(tmp_path / "store"))
    toy.git(cycled, "commit", "-q", "-a", "-m", "Name the remote")
    toy.dvc(cycled, "push", "-q")
    clone = tmp_path / "clone"
    toy.git(tmp_path, "clone", "-q", str(cycled), str(clone))
    lines = cycle(clone)
    said = decisions(lines)
    assert stages_run(lines) == ["collect", "detect_drift", "decide_retraining", "preprocess", "recommend"]
    assert said["champion"] == "v1.0.0, put into models/champion, verified"
    assert said["retraining"].startswith("none: no drift")
    assert said["promotion"] == "nothing to promote: no challenger was trained here"
    assert recommended(clone)["version"] == "v1.0.0"
    assert "nothing was trained here yet, so there are no figures" in lines
    assert stages_run(cycle(clone)) == []


@pytest.mark.slow
def test_plain_repro_in_a_fresh_clone_runs_every_stage(tmp_path):
    project = toy.new_cycle_project(tmp_path / "project")
    toy.dvc(project, "repro", "-q")
    decision = json.loads((project / "reports" / "retraining.json").read_text())
    assert (decision["retrain"], decision["mode"]) == (True, "full")
    assert recommended_text(project) == "none"


def recommended_text(project: Path) -> str:
    return (project / "recommendations" / "top_k.parquet").read_text()


@pytest.mark.slow
def test_as_of_holds_for_one_run_and_never_restores_what_an_older_source_said(cycled):
    params = (cycled / "params.yaml").read_text()
    lines = cycle(cycled, "--as-of", "1998-01-15")
    assert decisions(lines)["source"] == "collected anew: params.yaml: collect changed"
    assert (cycled / "data" / "raw" / "rows.txt").read_text().split()[-1] == "user,item,1998-01-01"
    assert (cycled / "params.yaml").read_text() == params
    assert stages_run(cycle(cycled, "--as-of", "1998-01-15")) == []
    (cycled / "source.csv").write_text("user,item,1998-01-02\nuser,item,1998-02-01\n")
    cycle(cycled)
    assert (cycled / "data" / "raw" / "rows.txt").read_text().split()[0] == "user,item,1998-01-02"
    # dvc's run-cache knows this as_of, from the source as it was.
    cycle(cycled, "--as-of", "1998-01-15")
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == "user,item,1998-01-02"


@pytest.mark.slow
def test_broken_source_mended_is_read_anew(cycled):
    (cycled / "source.csv").write_text("bad")
    assert toy.evergreen(cycled, "cycle").returncode == 1
    (cycled / "source.csv").write_text("user,item,1998-01-03\n")
    cycle(cycled)
    assert (cycled / "data" / "raw" / "rows.txt").read_text() == "user,item,1998-01-03"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_cycle_leaves_no_process_and_the_next_one_goes_on(cycled, number):
    (cycled / "source.csv").write_text("user,item,1998-02-01\n" * 9 + "sleep,item,1998-03-01\n" * 9)
    command = [sys.executable, "-m", "pipeline", "cycle"]
    process = subprocess.Popen(
        command,
        cwd=cycled,
        env=toy.environment() | {"SHELL": "/bin/sh"},  # dash stays between dvc and the stage, bash does not
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until((cycled / "asleep.txt").exists)
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE_SECONDS)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 130
        assert error.splitlines()[-1].startswith("error: interrupted: run it again to go on")
    time.sleep(0.5)
    assert not _processes_in(cycled)
    assert not (cycled / "models" / "challenger" / "model.json").exists()
    text = (cycled / "source.csv").read_text()
    (cycled / "source.csv").write_text(text.replace("sleep", "user"))
    assert decisions(cycle(cycled))["promotion"].startswith("v2.0.0 is the champion")
    assert "refresh_of: null" in (cycled / "params.yaml").read_text()


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_other_weights_in_the_encoders_folder_train_anew(cycled):
    weights = cycled / "weights" / "model.safetensors"
    weights.touch()
    (cycled / "weights" / "README.md").write_text("Mine")
    steps.note_encoder(cycled)
    assert "finetune" not in repro.status(cycled)  # the same content
    weights.write_text("other")
    assert toy.evergreen(cycled, "champion").returncode == 0
    assert repro.status(cycled)["finetune"] == ["data/encoder.json"]
    lines = cycle(cycled)
    assert stages_run(lines)[:1] == ["finetune"]
    assert decisions(lines)["training"] == "finetune: data/encoder.json changed"
    assert toy.git(cycled, "status", "--porcelain", "--untracked-files=no", "data") == ""
    # Lists need no encoder: one that is gone is missed when a training starts.
    noted = (cycled / "data" / "encoder.json").read_text()
    shutil.rmtree(cycled / "weights")
    steps.note_encoder(cycled)
    assert (cycled / "data" / "encoder.json").read_text() == noted


def test_two_cycles_in_one_folder(cycled):
    import fcntl

    with (cycled / ".evergreen" / "cycle.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = toy.evergreen(cycled, "cycle")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: another `evergreen cycle` runs in this folder: wait for it to end"


def test_what_the_cycle_changes_itself_is_nothing_new():
    stale = {
        "detect_drift": ["models/champion"],
        "decide_retraining": ["data/registry.json", "models/champion"],
        "finetune": ["params.yaml: finetune.refresh_of", "params.yaml: detect_drift.min_rows"],
        "evaluate": ["models/champion"],
        "recommend": ["models/champion"],
    }
    assert news(stale) == {"recommend": ["models/champion"]}
    stale["evaluate"].append("params.yaml: evaluate.k")
    assert news(stale)["evaluate"] == ["params.yaml: evaluate.k"]


DONE, ALL = EVERY, ("preprocess", "finetune", "evaluate", "decide_promotion")
LISTS = Plan("none", stages=("preprocess",))
YES = Retraining(retrain=True, mode="refresh", champion="v1.0.0")
NO = Retraining(retrain=False, mode="none", champion="v1.0.0")
MOVED = {
    "preprocess": ["data/raw/interactions"],
    "finetune": ["data/prepared"],
    "evaluate": ["data/prepared"],
}


@pytest.mark.parametrize(
    ("stale", "decision", "expected"),
    [
        ({}, YES, Plan("none")),  # carried out already
        (MOVED, NO, LISTS),
        (MOVED, YES, Plan("refresh", ("refresh, as decided",), ALL)),
        (MOVED, YES.but(mode="full"), Plan("full", ("full, as decided",), ALL)),
        (MOVED, YES.but(champion="v2.0.0"), LISTS),  # of another champion
        (MOVED, None, LISTS),
        # Killed behind preprocess: the decision holds.
        (
            {"finetune": ["data/prepared", "models/challenger"]},
            YES,
            Plan("refresh", ("refresh, as decided",), ALL),
        ),
        ({"finetune": ["data/prepared", "models/challenger"]}, NO, Plan("none")),
        (MOVED | {"preprocess": ["params.yaml: preprocess", "data/raw/interactions"]}, NO, "full"),
        ({"finetune": ["pipeline/models/networks.py"]}, YES, "full"),
        ({"evaluate": ["params.yaml: evaluate"]}, YES, "judge"),
        (MOVED | {"evaluate": ["params.yaml: evaluate", "data/prepared"]}, NO, "waits"),
    ],
)
def test_plan(stale, decision, expected):
    plan = make_plan(stale, decision, "v1.0.0", DONE)
    if expected == "full":
        assert (plan.mode, plan.stages) == ("full", ALL)
        assert plan.reasons[0].endswith(" changed")
    elif expected == "judge":
        reasons = ("evaluate: params.yaml: evaluate changed",)
        assert plan == Plan("judge", reasons, ("evaluate", "decide_promotion"))
    elif expected == "waits":
        assert plan == Plan("none", ("evaluate changed, and wait for the next training",), ("preprocess",))
    else:
        assert plan == expected


def test_plan_takes_up_a_full_training_that_was_begun():
    pending = Pending(mode="full", reasons=["preprocess: params.yaml: preprocess changed"])
    plan = make_plan({"finetune": ["data/prepared"]}, NO, "v1.0.0", DONE, pending)
    assert plan == Plan("full", ("as was begun: preprocess: params.yaml: preprocess changed",), ALL)
    assert make_plan({}, NO, "v1.0.0", DONE, pending) == Plan("none")


def test_plan_where_no_stage_ever_ran():
    never = {stage: ["dvc.lock"] for stage in EVERY}
    first = make_plan(never, Retraining(retrain=True, mode="full"), None, [])
    assert first == Plan("full", ("every stage runs, for the first time",), ALL)
    assert make_plan(never, NO, "v1.0.0", []) == LISTS  # a clone with a champion


QUIET = Drift(outcome="ok", drift=False, signals={"new_items": Signal(flag=False)})
LOUD = {"new_items": Signal(flag=True, text="31 %")}


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (None, "reports/drift.json cannot be read: run `dvc repro --force detect_drift`"),
        (
            Drift(outcome="bad_input", drift=False, text="current: no column value"),
            "bad input: current: no column value",
        ),
        (Drift(outcome="not_enough_data", drift=False, text="12 rows"), "not enough data: 12 rows"),
        (QUIET.but(signals=LOUD), "none in 1 signals; not confirmed: 31 %"),
        (QUIET.but(text="No drift"), "No drift"),
        (QUIET.but(drift=True, signals=LOUD), "31 %"),
    ],
)
def test_drift_in_one_line(drift, expected):
    assert drift_sentence(drift) == expected


def test_restore_leaves_alone_what_is_whole(cycled):
    (cycled / "reports" / "evaluation.json").write_text("edited")
    assert repro.restore(cycled) == []
    assert (cycled / "reports" / "evaluation.json").read_text() == "edited"


def test_restore_says_nothing_of_stages_that_never_ran_through(cycled, caplog):
    (cycled / "dvc.lock").unlink()
    shutil.rmtree(cycled / "models" / "challenger")
    with caplog.at_level("INFO"):
        assert repro.restore(cycled) == []
    assert "DVC cache" not in caplog.text


def test_causes_are_what_a_person_changed():
    assert causes(["data/raw/items.parquet", "params.yaml: seed"]) == "params.yaml: seed"
    assert causes(["data/a", "data/b", "data/c", "data/d", "data/e"]) == "data/a, data/b, data/c and 2 more"
