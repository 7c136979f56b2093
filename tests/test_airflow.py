"""The DAGs under a real scheduler (SQLite), on a toy project. One Airflow serves all, and dies in the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import airflow_up as up
import pytest
import toy
from waiting import PATIENCE_SECONDS, until

import start_airflow
from pipeline.registry.git import Git
from pipeline.registry.versions import read_state
from pipeline.runs.worktrees import REPLAYING
from pipeline.serve.events import Row, Store

pytestmark = pytest.mark.slow
MONITORING, TRAINING = "evergreen_monitoring", "evergreen_training"
# A training of ten steps, each kept as a checkpoint; after as many as `hold.txt` says it waits for more.
FINETUNE = """
import json, os, pathlib, sys, time, yaml
from pipeline.run import die_with_parent
die_with_parent()
prepared, out, training = map(pathlib.Path, sys.argv[1:])
rows, steps = (prepared / "rows.txt").read_text(), pathlib.Path(".evergreen/steps.txt")
steps.parent.mkdir(exist_ok=True)
done = steps.read_text() if steps.exists() else ""
hold = pathlib.Path(os.environ["EVERGREEN_REPO"], "hold.txt")
for step in range(len(done), 10):
    while step >= int(hold.read_text() or 0):
        time.sleep(0.1)
    with steps.open("a") as file:
        file.write("x")
settings = yaml.safe_load(open("params.yaml"))["finetune"]
out.mkdir(parents=True)
(out / "weights").write_text(rows + steps.read_text())
newest = rows.split()[-1][-10:]
card = {"fit_end": newest, "as_of": newest, "finetune": {"refresh_of": settings["refresh_of"]}}
card |= {"epochs": settings["epochs"], "features": ["popularity"]}
(out / "model.json").write_text(json.dumps(card))
training.mkdir(parents=True)
(training / "summary.json").write_text(json.dumps({"seconds": 30.0, "resumed_from": len(done)}))
steps.unlink()
"""
HINTS = "retries: 2, retry_delay_seconds: 1, timeout_minutes: 20"
SCHEDULES = {"detect_drift": "0 0 15 1 *", "finetune": "17 3 29 2 *"}  # not while tests run
NEW_EVENTS = 5
STEPS = Path(".evergreen", "steps.txt")  # of a training, in its worktree


def hold(project: Path, after: int) -> None:
    """Trainings wait after so many steps."""
    (project / "hold.txt").write_text(str(after))


def new_project(folder: Path) -> Path:
    """Its source lies outside of the checkout, as a company's does."""
    project = toy.new_cycle_project(folder / "project")
    shutil.copy(project / "source.csv", folder / "source.csv")
    toy.set_param(project, "interactions: source.csv", f"interactions: {folder / 'source.csv'}")
    text = (project / "dvc.yaml").read_text()
    for name in ("collect", "detect_drift", "finetune", "evaluate"):
        hints = HINTS + (f", schedule: '{SCHEDULES[name]}'" if name in SCHEDULES else "")
        hints += f", new_events: {NEW_EVENTS}" if name == "detect_drift" else ""
        text = text.replace(f"  {name}:\n", f"  {name}:\n    meta: {{airflow: {{{hints}}}}}\n")
    (project / "dvc.yaml").write_text(text)
    (project / "finetune.py").write_text(FINETUNE)
    (project / ".gitignore").write_text(toy.GIT_IGNORE + "hold.txt\n")
    hold(project, after=10)
    toy.git(project, "commit", "-q", "-a", "-m", "Read the shop's own table")
    return project


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[up.Airflow]:
    project = new_project(tmp_path_factory.mktemp("airflow"))
    settings = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "EVERGREEN_EVENTS": events(project),
    }
    with up.running(project, **settings) as running:
        yield running
    until(lambda: not up.processes_in(project), lambda: up.processes_in(project))


def events(project: Path) -> str:
    """Where a service beside it would keep them."""
    return f"sqlite:///{project.parent}/events.db"


def add_rows(airflow: up.Airflow, *dates: str) -> None:
    with (airflow.project.parent / "source.csv").open("a") as file:
        file.writelines(f"user,item,{date}\n" for date in dates)


def plant(airflow: up.Airflow, signals: str) -> None:
    (airflow.project / "drift.txt").write_text(signals)
    toy.git(airflow.project, "commit", "-q", "-a", "-m", f"Drift: {signals}")


def requested(airflow: up.Airflow, known: int) -> up.Run:
    """The next run that the asset starts."""
    runs = until(lambda: airflow.runs(TRAINING)[known:])
    assert runs[0].id.startswith("asset_triggered")
    return runs[0]


def told(airflow: up.Airflow, run: up.Run) -> str:
    """Where it failed, and what the task's last try said."""
    failed = {name: task for name, task in airflow.instances(run).items() if task["state"] == "failed"}
    logs = [airflow.log(run, name, task["try_number"])[-2000:] for name, task in failed.items()]
    return "\n".join([f"{name}: {task['note']}" for name, task in failed.items()] + logs)


def succeeded(airflow: up.Airflow, run: up.Run) -> dict[str, str | None]:
    """task -> state."""
    assert airflow.wait(run)["state"] == "success", told(airflow, run)
    until(lambda: airflow.tasks(run)["close"] == "success")
    return airflow.tasks(run)


def test_the_first_run_requests_a_training_which_promotes(airflow: up.Airflow) -> None:
    monitoring = airflow.trigger(MONITORING)
    states = succeeded(airflow, monitoring)
    assert (states["request_training"], states["recommend"]) == ("success", "skipped")
    training = requested(airflow, 0)
    assert set(succeeded(airflow, training).values()) == {"success"}
    assert airflow.history(training)["promoted"] == "v1.0.0"
    assert airflow.history(training)["reason"] == "there is no champion yet"
    assert airflow.history(training, "promotion.json")["promote"] is True
    assert airflow.history(monitoring, "drift.json")["outcome"] == "no_champion"
    assert not (airflow.project / "data" / "history" / training.slug / "drift.json").exists()  # not its own
    notes = {name: task["note"] for name, task in airflow.instances(training).items()}
    assert notes["promote"].startswith("v1.0.0 is the champion: nDCG@10 +0.0200")
    assert notes["decide_promotion"] == "may be promoted"
    note = until(lambda: airflow.state(training)["note"])
    assert note == "full training; promoted: v1.0.0 as of 1998-02-01"
    events = airflow.call("GET", f"/assets/events?source_dag_id={TRAINING}")["asset_events"]
    told = {event["name"]: event["extra"] for event in events if event["source_run_id"] == training.id}
    assert told["champion"]["version"] == "v1.0.0"
    assert told["recommendations"]["branch"] == f"runs/{training.slug}"
    pool = airflow.call("GET", "/pools/training")  # made by the plugin
    assert pool["slots"] == 1


def test_little_news_and_no_drift_train_nothing_and_say_why(airflow: up.Airflow) -> None:
    add_rows(airflow, "1998-03-01")
    before = len(airflow.runs(TRAINING))
    run = airflow.trigger(MONITORING)
    states = succeeded(airflow, run)
    assert (states["request_training"], states["recommend"], states["publish"]) == (
        "skipped",
        "success",
        "success",
    )
    reason = "none: no drift; 1 rows came since the last training, 12.5%"
    assert airflow.instances(run)["decide_retraining"]["note"].startswith(reason)
    assert reason in airflow.log(run, "choose")
    assert len(airflow.runs(TRAINING)) == before


def test_planted_drift_refreshes_and_equals_the_hand_made_run(airflow: up.Airflow, tmp_path: Path) -> None:
    plant(airflow, "new_items")
    add_rows(airflow, "1998-03-02")
    before = len(airflow.runs(TRAINING))
    monitoring = airflow.trigger(MONITORING)
    succeeded(airflow, monitoring)
    note = airflow.instances(monitoring)["request_training"]["note"]
    assert note.startswith("refresh: new_items drifted; 2 rows came since the last training")
    training = requested(airflow, before)
    succeeded(airflow, training)
    run = airflow.history(training)
    assert (run["mode"], run["champion"], run["promoted"]) == ("refresh", "v1.0.0", "v2.0.0")
    assert run["as_of"].startswith("1998-03-02")
    assert by_hand(airflow.project, run["commit"], tmp_path / "clone") == hashes(airflow.project, training)
    assert toy.git(airflow.project, "status", "--porcelain").strip() == ""


def hashes(project: Path, run: up.Run) -> dict[str, str]:
    from pipeline.registry.objects import locked

    lock = (project / "data" / "history" / run.slug / "dvc.lock").read_text()
    return {out["path"]: out["md5"] for out in locked(lock, "outs") if out["path"] in TRAINED}


TRAINED = ("data/raw/rows.txt", "data/prepared", "models/challenger", "reports/evaluation.json")


def by_hand(project: Path, commit: str, clone: Path) -> dict[str, str]:
    """`dvc repro` with the same revision, params and champion, in a clone that shares nothing."""
    from pipeline.registry.objects import locked

    toy.git(project.parent, "clone", "-q", str(project), str(clone))
    toy.git(clone, "checkout", "-q", commit)
    shutil.copytree(project / ".dvc" / "cache" / "files", clone / ".dvc" / "cache" / "files")
    toy.git(clone, "tag", "-d", "recommender#champion#2", "recommender@v2.0.0")
    assert toy.evergreen(clone, "champion").returncode == 0
    toy.set_param(clone, "refresh_of: null", 'refresh_of: "v1.0.0"')
    toy.set_param(clone, "as_of: null", 'as_of: "1998-03-02"')
    variables = toy.environment() | {"EVERGREEN_REPO": str(project)}
    command = [sys.executable, "-m", "dvc", "repro", "-q", "evaluate"]
    subprocess.run(command, cwd=clone, env=variables, check=True)
    outs = locked((clone / "dvc.lock").read_text(), "outs")
    return {out["path"]: out["md5"] for out in outs if out["path"] in TRAINED}


def clear(airflow: up.Airflow, run: up.Run, task: str) -> None:
    """With all that follows it."""
    asked = {"dag_run_id": run.id, "task_ids": [task], "include_downstream": True}
    asked |= {"dry_run": False, "only_failed": False, "reset_dag_runs": True}
    airflow.call("POST", f"/dags/{TRAINING}/clearTaskInstances", asked)


def test_a_cleared_task_of_an_old_run_goes_on_with_its_own_outputs_and_promotes_nothing(
    airflow: up.Airflow,
) -> None:
    run, newest = airflow.runs(TRAINING)[0], airflow.runs(TRAINING)[-1]
    champion = read_state(Git(airflow.project)).champion
    before, outputs = airflow.history(run), hashes(airflow.project, run)
    assert champion is not None
    assert champion.name == airflow.history(newest)["promoted"] != before["promoted"]
    assert outputs["models/challenger"] != hashes(airflow.project, newest)["models/challenger"]
    clear(airflow, run, "promote")
    states = succeeded(airflow, run)
    assert (states["promote"], states["recommend"]) == ("skipped", "success")
    after = airflow.history(run)
    assert "opened again, with what it had made itself" in airflow.instances(run)["open"]["note"]
    assert {key: after[key] for key in ("promoted", "challenger", "started")} == {
        key: before[key] for key in ("promoted", "challenger", "started")
    }
    assert hashes(airflow.project, run) == outputs
    assert read_state(Git(airflow.project)).champion == champion


def test_two_manual_runs_at_once_both_end(airflow: up.Airflow) -> None:
    ids = {3: None, 4: "manual__" + "x" * 242}  # the longest that Airflow takes
    runs = [
        airflow.trigger(TRAINING, ids[epochs], mode="full", epochs=epochs, reason="by hand") for epochs in ids
    ]
    for run in runs:
        succeeded(airflow, run)
    left = [airflow.history(run) for run in runs]
    assert [run["state"] for run in left] == ["success", "success"]
    assert [run["reason"] for run in left] == ["by hand", "by hand"]
    assert not list((airflow.project / ".evergreen" / "runs").glob("*"))


def test_without_a_training_a_run_waits_for_no_slot_of_its_pool(airflow: up.Airflow) -> None:
    pool = {"name": "training", "include_deferred": False}
    airflow.call("PATCH", "/pools/training", pool | {"slots": 0})
    try:
        runs = {mode: airflow.trigger(TRAINING, mode=mode) for mode in ("none", "judge")}
        states = {mode: succeeded(airflow, run) for mode, run in runs.items()}
    finally:
        airflow.call("PATCH", "/pools/training", pool | {"slots": 1})
    assert [states["none"][name] for name in ("finetune", "evaluate", "promote")] == ["skipped"] * 3
    assert (states["judge"]["finetune"], states["judge"]["decide_promotion"]) == ("skipped", "success")
    assert {found["recommend"] for found in states.values()} == {"success"}
    assert {airflow.history(run)["promoted"] for run in runs.values()} == {None}


@pytest.mark.parametrize("path", ["/auth/token", "/", "/api/v2/dags", "/execution/health", "/evergreen/"])
def test_a_stranger_s_name_for_this_machine_gets_nothing(airflow: up.Airflow, path: str) -> None:
    request = urllib.request.Request(airflow.address + path, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
    assert refused.value.code == 400


def test_a_stranger_s_page_starts_nothing(airflow: up.Airflow) -> None:
    """A browser sends this without asking, and Airflow takes it without a token, where login is off."""
    [asset] = [one for one in airflow.call("GET", "/assets")["assets"] if one["name"] == "champion"]
    address = f"{airflow.address}/api/v2/assets/{asset['id']}/materialize"
    known = airflow.runs(TRAINING)
    request = urllib.request.Request(address, b"", {"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
    assert refused.value.code == 403
    assert airflow.runs(TRAINING) == known


def test_the_calendar_is_that_of_dvc_yaml(airflow: up.Airflow) -> None:
    """Of the training beside the asset that it waits for too."""
    for dag, due in ((MONITORING, "-01-15T00:00"), (TRAINING, "-02-29T03:17")):
        assert airflow.call("GET", f"/dags/{dag}")["next_dagrun_run_after"][4:16] == due


def test_every_few_new_events_of_the_service_wake_the_monitoring(airflow: up.Airflow) -> None:
    known = airflow.runs(MONITORING)
    store = Store(events(airflow.project))

    def happen(numbers: range) -> None:
        row = Row("", "u", "i", "click", None, None, 1, None)
        store.append([[row._replace(event_id=str(number)) for number in numbers]])

    happen(range(NEW_EVENTS - 1))
    happen(range(NEW_EVENTS - 1, NEW_EVENTS + 2))
    woken = until(lambda: airflow.runs(MONITORING)[len(known) :])
    store.close()
    assert [run.id.partition("__")[0] for run in woken] == ["asset_triggered"]
    succeeded(airflow, woken[0])
    [told] = [one for one in airflow.call("GET", "/assets/events")["asset_events"] if one["name"] == "events"]
    assert told["extra"]["payload"] == {"events": NEW_EVENTS + 2, "newest": NEW_EVENTS + 2}
    assert len(airflow.runs(MONITORING)) == len(known) + 1


def test_params_out_of_range_are_refused(airflow: up.Airflow) -> None:
    for conf in ({"mode": "half"}, {"epochs": 0}, {"as_of": 1998}):
        with pytest.raises(OSError, match="400"):
            airflow.trigger(TRAINING, **conf)


@pytest.mark.parametrize(
    ("conf", "why"),
    [
        ({"as_of": "01/02/1998"}, "as_of: '01/02/1998' is no ISO 8601 time"),
        ({"as_of": " 1998-02-01 ", "encoder": "../old"}, "encoder: ../old: no such folder"),
    ],
    ids=["as_of", "encoder"],
)
def test_what_the_form_lets_through_is_refused_by_the_first_task(
    airflow: up.Airflow, conf: dict[str, str], why: str
) -> None:
    """The form itself shows no reason: "Bad Request"."""
    run = airflow.trigger(TRAINING, **conf)
    assert airflow.wait(run)["state"] == "failed"
    opened = airflow.instances(run)["open"]
    assert (why in opened["note"], opened["try_number"]) == (True, 1)


def test_changes_that_are_not_committed_stop_the_first_task(airflow: up.Airflow) -> None:
    text = (airflow.project / "gain.txt").read_text()
    (airflow.project / "gain.txt").write_text("0.02")
    try:
        run = airflow.trigger(TRAINING)
        assert airflow.wait(run)["state"] == "failed"
        assert "gain.txt: changed and not committed" in airflow.instances(run)["open"]["note"]
        assert airflow.instances(run)["open"]["try_number"] == 1
    finally:
        (airflow.project / "gain.txt").write_text(text)


def test_what_another_try_would_not_mend_is_tried_once(airflow: up.Airflow) -> None:
    source = airflow.project.parent / "source.csv"
    text = source.read_text()
    source.write_text("bad")
    try:
        run = airflow.trigger(MONITORING)
        assert airflow.wait(run)["state"] == "failed"
    finally:
        source.write_text(text)
    collect = airflow.instances(run)["collect"]
    assert (collect["state"], collect["try_number"]) == ("failed", 1)
    assert collect["note"] == "error: source.csv: row 3: bad; remove it"


@contextmanager
def replaying(airflow: up.Airflow) -> Iterator[None]:
    """As in the middle of `evergreen replay`."""
    mark = airflow.project / REPLAYING
    mark.write_text("key\n")
    try:
        yield
    finally:
        mark.unlink()


def first(airflow: up.Airflow, kind: str) -> up.Run:
    """The monitoring's first run of a kind, once there is one."""
    return until(lambda: [run for run in airflow.runs(MONITORING) if run.id.startswith(kind)])[0]


def stood_back(airflow: up.Airflow, run: up.Run) -> None:
    assert airflow.wait(run)["state"] == "success"
    assert set(airflow.tasks(run).values()) <= {"skipped", None}, airflow.tasks(run)
    assert "a replay is under way" in airflow.instances(run)["open"]["note"]


def test_a_backfilled_date_makes_its_reports_and_never_demotes(airflow: up.Airflow) -> None:
    champion = toy.git(airflow.project, "tag", "--list", "recommender#champion#*").split()
    dates = {"dag_id": MONITORING, "from_date": "1998-01-01T00:00:00Z", "to_date": "1998-01-31T00:00:00Z"}
    with replaying(airflow):
        airflow.call("POST", "/backfills", dates | {"max_active_runs": 1, "reprocess_behavior": "none"})
        run = first(airflow, "backfill")
        succeeded(airflow, run)
        # To Airflow the calendar has begun by that: its newest date is due at once.
        stood_back(airflow, first(airflow, "scheduled"))
        stood_back(airflow, airflow.trigger(TRAINING))
    assert airflow.state(run)["logical_date"].startswith("1998-01-15T00:00:00")
    assert airflow.history(run, "drift.json")["as_of"].startswith("1998-01-01")
    late = airflow.trigger(TRAINING, as_of="1998-01-15", mode="full")
    succeeded(airflow, late)
    assert airflow.history(late)["promoted"] is None
    assert "fit" in airflow.instances(late)["decide_promotion"]["note"]
    assert toy.git(airflow.project, "tag", "--list", "recommender#champion#*").split() == champion


def test_a_promotion_waits_for_a_person_and_no_answer_means_no(airflow: up.Airflow) -> None:
    project = airflow.project
    text = (project / "dvc.yaml").read_text()
    hours = "    meta: {airflow: {approval_hours: 0.02}}\n"
    (project / "dvc.yaml").write_text(text.replace("  decide_promotion:\n", f"  decide_promotion:\n{hours}"))
    toy.set_param(project, "approval: auto", "approval: human")
    toy.git(project, "commit", "-q", "-a", "-m", "Ask a person")
    try:
        until(lambda: "approve" in tasks_of(airflow))
        add_rows(airflow, "1998-03-20")
        run = asked(airflow)
        states = succeeded(airflow, run)
        assert (states["approve"], states["promote"], states["recommend"]) == (
            "success",
            "skipped",
            "success",
        )
        record = airflow.history(run)
        assert (record["promoted"], record["not_promoted"]) == (None, "nobody answered in time")
        run = asked(airflow, epochs=5)
        details = f"{run.path}/taskInstances/approve/-1/hitlDetails"
        question = airflow.call("GET", details)["body"]
        assert "| beats champion | passed |" in question
        assert f"/dags/{TRAINING}/runs/{quote(run.id, safe='')}/plugin/evergreen_run" in question
        airflow.call("PATCH", details, {"chosen_options": ["Reject"], "params_input": {}})
        succeeded(airflow, run)
        record = airflow.history(run)
        assert record["promoted"] is None
        assert record["not_promoted"].startswith("rejected by ")
        clear(airflow, run, "approve")
        wait_for_question(airflow, run, tries=2)
        airflow.call("PATCH", details, {"chosen_options": ["Approve"], "params_input": {}})
        succeeded(airflow, run)
        assert airflow.history(run)["not_promoted"] is None
        assert airflow.history(run)["promoted"] is not None
        person = airflow.history(run)["approved_by"]
        assert person
        [appointment] = read_state(Git(project)).appointments[-1:]
        assert appointment.record.approved_by == person
    finally:
        (project / "dvc.yaml").write_text(text)
        toy.set_param(project, "approval: human", "approval: auto")
        toy.git(project, "commit", "-q", "-a", "-m", "Ask nobody")
        until(lambda: "approve" not in tasks_of(airflow))


def asked(airflow: up.Airflow, **conf: Any) -> up.Run:
    """A training run whose question is put."""
    run = airflow.trigger(TRAINING, mode="full", **conf)
    wait_for_question(airflow, run)
    return run


def wait_for_question(airflow: up.Airflow, run: up.Run, tries: int = 1) -> None:
    """Until the scheduler knows that it is put.

    It learns a moment after the state is stored that the asking process has ended. An answer in
    between starts the task anew; the first process' end is then taken for the second's failure (3.3.2).
    """
    airflow.wait_for_task(run, "approve", "awaiting_input")
    event = "Received executor event with state success for task instance "
    event += f"TaskInstanceKey(dag_id='{TRAINING}', task_id='approve', run_id='{run.id}', try_number={tries}"
    log = airflow.project / ".evergreen" / "airflow" / "airflow.log"
    until(lambda: event in log.read_text(errors="replace"))


def tasks_of(airflow: up.Airflow) -> list[str]:
    return [task["task_id"] for task in airflow.call("GET", f"/dags/{TRAINING}/tasks")["tasks"]]


# Killed ----------------------------------------------------------------------------------------------------


def pids(folder: Path, word: str) -> list[int]:
    """Processes that work in a folder and whose command line has the word; shells left out."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
            if Path(os.readlink(process / "cwd")) == folder and word in words and "sh -c" not in words:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def training_under_way(airflow: up.Airflow, run: up.Run, done: int = 1) -> Path:
    """The worktree of a run whose training has done more than `done` of its steps."""
    root = airflow.project / ".evergreen" / "runs" / run.slug
    steps = root / STEPS
    until(lambda: steps.exists() and len(steps.read_text()) > done, lambda: str(airflow.tasks(run)))
    page = airflow.project / "data" / "history" / run.slug / "index.html"
    assert "running: finetune" in page.read_text()
    return root


def test_a_run_that_is_marked_as_failed_has_failed_for_everybody(airflow: up.Airflow) -> None:
    hold(airflow.project, after=3)
    try:
        add_rows(airflow, "1998-04-01")
        run = airflow.trigger(TRAINING, mode="full")
        training_under_way(airflow, run)
        airflow.call("PATCH", run.path, {"state": "failed"})
        until(lambda: airflow.tasks(run)["close"] == "failed", lambda: str(airflow.tasks(run)))
    finally:
        hold(airflow.project, after=10)
    assert airflow.wait(run)["state"] == "failed"
    assert airflow.history(run)["state"] == "failed"
    assert airflow.tasks(run)["publish"] == "skipped"


VICTIMS = {
    "stage": lambda root: pids(root, "finetune.py")[0],
    "dvc": lambda root: pids(root, "from dvc.cli")[0],
    "task": lambda root: parent(pids(root, "pipeline workspace stage")[0]),
    "supervisor": lambda root: parent(parent(pids(root, "pipeline workspace stage")[0])),
}


@pytest.mark.parametrize("victims", [("stage", "task"), ("dvc", "supervisor")], ids="-".join)
def test_whatever_is_killed_nothing_trains_on_and_the_retry_resumes(
    airflow: up.Airflow, victims: tuple[str, ...]
) -> None:
    """One after the other, each in another try."""
    date = f"1998-04-{10 + list(VICTIMS).index(victims[0])}"
    add_rows(airflow, date)
    run = airflow.trigger(TRAINING, mode="full")
    done = 1
    for victim in victims:
        hold(airflow.project, after=done + 2)
        root = training_under_way(airflow, run, done)
        stage = pids(root, "finetune.py")[0]
        os.kill(VICTIMS[victim](root), signal.SIGKILL)
        until(lambda stage=stage: not Path(f"/proc/{stage}").exists())
        done = len((root / STEPS).read_text())
    hold(airflow.project, after=10)
    check_resumed(airflow, run, date, len(victims))


def check_resumed(airflow: up.Airflow, run: up.Run, date: str, kills: int = 1) -> None:
    succeeded(airflow, run)
    assert airflow.instances(run)["finetune"]["try_number"] > kills
    assert airflow.history(run)["promoted"] is not None
    name = airflow.history(run)["promoted"]
    record = toy.git(airflow.project, "for-each-ref", f"refs/tags/recommender@{name}", "--format=%(contents)")
    training = json.loads(record.partition("\n\n")[2])["training"]
    assert training["resumed_from"] > 1
    toy.evergreen(airflow.project, "champion", "--to", str(airflow.project.parent / name))
    weights = (airflow.project.parent / name / "weights").read_text()
    assert weights.endswith(f"{date}{'x' * 10}")  # what an undisturbed training gives


@pytest.mark.parametrize("component", ["triggerer", "api_server", "scheduler"])
def test_a_component_that_ends_is_started_anew(airflow: up.Airflow, component: str) -> None:
    home = airflow.project / ".evergreen" / "airflow"
    title = f"airflow {component}"
    before = pids(home, title)

    def of_it() -> list[int]:
        return [pid for pid in pids(home, "airflow") if parent(pid) == min(before)]

    # A triggerer that has just begun has not started its child yet.
    children = of_it() if component == "api_server" else until(of_it)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: set(pids(home, title)) - set(before))
    until(lambda: start_airflow.missing(airflow.address, {}) == [])
    assert f"{component.replace('_', '-')}: ended" in (home / "airflow.log").read_text()
    until(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])


def test_all_of_airflow_killed_and_started_again(airflow: up.Airflow) -> None:
    """The last test: this Airflow is gone then. Its successor takes the run up where it was."""
    hold(airflow.project, after=3)
    add_rows(airflow, "1998-05-01")
    run = airflow.trigger(TRAINING, mode="full")
    root = training_under_way(airflow, run)
    stage = pids(root, "finetune.py")[0]
    airflow.process.kill()
    until(lambda: not Path(f"/proc/{stage}").exists())
    until(lambda: not up.processes_in(airflow.project), lambda: up.processes_in(airflow.project))
    hold(airflow.project, after=10)
    with up.running(airflow.project, AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="30") as again:
        check_resumed(again, run, "1998-05-01")
    assert again.process.returncode != -signal.SIGKILL  # it ended when it was asked to
