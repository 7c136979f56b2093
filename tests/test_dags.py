"""The DAGs as Airflow sees them, parsed once in a fresh interpreter. No scheduler and no database."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import slowness

ROOT = Path(__file__).resolve().parents[1]
PARSE = """
import json, sys, time
sys.path[:0] = ["dags", "dags/plugins"]
import airflow.sdk
from airflow.providers.standard.hooks import subprocess as _
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG, AssetOrTimeSchedule, BaseOperator, CronTriggerTimetable, Param
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables import trigger
from airflow.timetables.base import TimeRestriction
from datetime import UTC, datetime
trigger.utcnow = lambda: datetime(2026, 12, 1, 0, 30, tzinfo=UTC)

def first_run(timetable):
    # Of a DAG that is new half an hour after its calendar's moment.
    anew = TimeRestriction(earliest=None, latest=None, catchup=False)
    info = coerce_to_core_timetable(timetable).next_dagrun_info(
        last_automated_data_interval=None, restriction=anew
    )
    return info.run_after.isoformat()

before = set(sys.modules)
started = time.process_time()
import evergreen_monitoring, evergreen_training
seconds = time.process_time() - started
dags = {}
for module in (evergreen_monitoring, evergreen_training):
    for dag in [value for value in vars(module).values() if isinstance(value, DAG)]:
        dags[dag.dag_id] = {
            "edges": {name: sorted(task.downstream_task_ids) for name, task in dag.task_dict.items()},
            "doc": {name: task.doc_md for name, task in dag.task_dict.items()},
            "retries": {name: task.retries for name, task in dag.task_dict.items()},
            "queue": {name: task.queue for name, task in dag.task_dict.items()},
            "params": {name: dag.params.get_param(name).serialize() for name in dag.params},
            "pool": {name: task.pool for name, task in dag.task_dict.items()},
            "owner": sorted({task.owner for task in dag.task_dict.values()}),
            "outlets": {name: [one.name for one in task.outlets] for name, task in dag.task_dict.items()},
            "tags": sorted(dag.tags),
            "about": dag.doc_md,
            "schedule": type(dag.timetable).__name__,
            "first": first_run(dag.timetable),
            "watched": [
                [asset.name, *(watcher.trigger.serialize() for watcher in asset.watchers)]
                for condition in [getattr(dag.timetable, "asset_condition", None)] if condition
                for asset in condition.objects
            ],
            "teardown": [name for name, task in dag.task_dict.items() if task.is_teardown],
        }

import run_tasks
from types import SimpleNamespace
dag, asked = evergreen_training.dag, {}
for conf in (None, {"epochs": 3}, {"epoch": 3, "as_of": "1998-03-01"}):
    run = SimpleNamespace(conf=conf, run_type="manual")
    context = {"dag": dag, "dag_run": run, "params": dag.params.dump() | (conf or {})}
    given = dag.get_task("open").arguments(context)
    asked[json.dumps(conf)] = [one for one in given if not one.startswith("--graph=")]

class Hook:
    # Of the subprocesses: keeps the command.
    def run_command(self, command, environment, cwd):
        self.command = command
        return SimpleNamespace(output='{"text": "", "promoted": "v1.0.0"}', exit_code=0)

def command(task, **answers):
    # What a task runs, where other tasks have answered so.
    hook = task.hook = Hook()
    ti = SimpleNamespace(xcom_pull=lambda task_ids: answers.get(task_ids))
    events = dict.fromkeys((run_tasks.CHAMPION, run_tasks.LISTS), SimpleNamespace())
    task.execute({"dag": dag, "run_id": "-rf", "ti": ti, "dag_run": run, "outlet_events": events})
    return hook.command[hook.command.index("workspace") + 1 :]

run_tasks.set_note = lambda context, text: None
promote = run_tasks.Promote(task_id="promote", ask=True)
yes, no = ({"chosen_options": [one], "responded_by_user": {"name": "vera"}} for one in ("Approve", "Reject"))
commands = {
    "stage": command(dag.get_task("finetune")),
    "yes": command(promote, approve=yes),
    "nobody": command(promote),
    "no": command(dag.get_task("publish"), approve=no),
    "late": command(dag.get_task("publish"), approve=no | {"responded_by_user": None}),
    "unasked": command(dag.get_task("publish")),
}

class Killed:
    def run_command(self, command, environment, cwd):
        return SimpleNamespace(output="what a library had warned of", exit_code=-9)

def failure():
    # What the note and the error of a killed step say; another try is made but after "AirflowFailException".
    notes, task = [], dag.get_task("evaluate")
    task.hook, run_tasks.set_note = Killed(), lambda context, text: notes.append(text)
    try:
        task.execute({"dag": dag, "run_id": "x", "ti": SimpleNamespace(xcom_pull=lambda task_ids: None)})
    except Exception as error:
        return [type(error).__name__, str(error), *notes]

killed = failure()

class Answered:
    # Of a task instance that goes on behind a question; what it keeps has to be kept before it skips.
    dag_id, kept = "evergreen_training", None
    def xcom_push(self, key, value):
        self.kept = value

def kept(**answer):
    # What the asking task keeps of it.
    ti, moment = Answered(), SimpleNamespace(isoformat=str)
    with DAG("asking"):
        task = evergreen_training.approve()
        task >> run_tasks.Promote(task_id="behind", ask=True)
    task.skip = lambda ti, tasks: sys.exit()  # Airflow's raises, too
    try:
        task.execute_complete({"task": task, "ti": ti}, answer | {"params_input": {}, "responded_at": moment})
    except SystemExit:
        pass
    return ti.kept

answers = {answer["chosen_options"][0]: kept(**answer) for answer in (yes, no)}
print(json.dumps({"dags": dags, "answers": answers, "asked": asked, "commands": commands, "seconds": seconds,
                  "killed": killed, "new": sorted(set(sys.modules) - before), "all": sorted(sys.modules)}))
"""
FORBIDDEN = {"pipeline", "torch", "pandas", "numpy", "dvc", "evidently", "transformers", "pytorch_lightning"}
MONITORING = {
    "open": ["close", "collect"],
    "collect": ["decide_retraining", "detect_drift", "preprocess"],
    "detect_drift": ["decide_retraining"],
    "decide_retraining": ["choose"],
    "choose": ["preprocess", "request_training"],
    "request_training": ["close"],
    "preprocess": ["recommend"],
    "recommend": ["publish"],
    "publish": ["close"],
    "close": [],
}
TRAINING = {
    "open": ["choose", "close", "collect"],
    "choose": ["evaluate", "finetune", "recommend"],
    "collect": ["evaluate", "preprocess"],
    "preprocess": ["evaluate", "finetune", "recommend"],
    "finetune": ["decide_promotion", "evaluate"],
    "evaluate": ["decide_promotion"],
    "decide_promotion": ["promote"],
    "promote": ["recommend"],
    "recommend": ["publish"],
    "publish": ["close", "notify"],
    "notify": [],
    "close": [],
}

pytestmark = pytest.mark.slow  # Airflow's own import takes seconds, and `make test` does without Airflow


def parse(repo: Path, **more: str) -> dict[str, Any]:
    home = {"AIRFLOW_HOME": str(repo / ".evergreen" / "airflow"), "EVERGREEN_REPO": str(repo)}
    command = [sys.executable, "-c", PARSE]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | home | more, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    return parse(ROOT)


def test_the_dags_are_these(parsed: dict[str, Any]) -> None:
    edges = {name: dag["edges"] for name, dag in parsed["dags"].items()}
    assert edges == {"evergreen_monitoring": MONITORING, "evergreen_training": TRAINING}
    assert [dag["teardown"] for dag in parsed["dags"].values()] == [["close"], ["close"]]


def test_together_they_have_every_stage_and_its_hints(parsed: dict[str, Any]) -> None:
    sys.path.insert(0, str(ROOT / "dags"))
    import dvc_graph

    stages = dvc_graph.read(ROOT / "dvc.yaml").stages
    tasks = {name for dag in parsed["dags"].values() for name in dag["edges"]}
    assert set(stages) <= tasks
    for dag in parsed["dags"].values():
        for name in set(stages) & set(dag["edges"]):
            assert dag["retries"][name] == stages[name].hints["retries"]
            assert dag["queue"][name] == stages[name].hints.get("queue", "default")


def test_what_others_schedule_on_and_how_trainings_take_turns(parsed: dict[str, Any]) -> None:
    outlets = {}
    for dag in parsed["dags"].values():
        outlets |= {name: found for name, found in dag["outlets"].items() if found}
        assert dag["owner"] == ["evergreen"]
        assert "recommender" in dag["tags"]
    assert outlets == {
        "promote": ["champion"],
        "publish": ["recommendations"],
        "request_training": ["retraining_requested"],
    }
    assert parsed["dags"]["evergreen_training"]["pool"]["finetune"] == "training"


def test_a_new_dag_waits_for_the_next_moment_of_its_calendar(parsed: dict[str, Any]) -> None:
    first = {name: dag["first"] for name, dag in parsed["dags"].items()}
    assert first["evergreen_monitoring"].startswith("2026-12-02T00:00:00")
    assert first["evergreen_training"].startswith("2027-01-01T00:00:00")


def test_the_monitoring_is_woken_by_events_where_a_store_is_named(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["evergreen_monitoring"]["watched"] == []
    woken = parse(ROOT, EVERGREEN_EVENTS="postgresql+psycopg://reader:secret@host/events")["dags"]
    [[name, trigger]] = woken["evergreen_monitoring"]["watched"]
    assert (name, trigger) == (
        "events",
        ["evergreen_events.NewEvents", {"every": 1000, "poke_interval": 10.0}],
    )
    assert woken["evergreen_monitoring"]["schedule"] == "AssetOrTimeSchedule"  # the calendar's runs go on
    assert woken["evergreen_training"]["watched"] == parsed["dags"]["evergreen_training"]["watched"]


def test_each_dag_has_its_modes_runbook_and_link_to_the_page(parsed: dict[str, Any]) -> None:
    about = {name: dag["about"] for name, dag in parsed["dags"].items()}
    for text in about.values():
        assert "/plugin/evergreen)" in text
        assert "When something fails" in text
    assert all(f"`{mode}`" in about["evergreen_training"] for mode in ("full", "refresh", "judge", "none"))


def test_every_task_is_tried_again(parsed: dict[str, Any]) -> None:
    assert all(min(dag["retries"].values()) > 0 for dag in parsed["dags"].values()), parsed["dags"]


def test_a_killed_step_says_so_not_what_it_had_said_last_and_is_tried_again(parsed: dict[str, Any]) -> None:
    kind, error, note = parsed["killed"]
    assert kind == "AirflowException"
    assert error == note
    assert "signal 9" in note
    assert "warned" not in note


def test_an_unknown_key_in_a_runs_conf_is_refused(parsed: dict[str, Any]) -> None:
    said = "epoch: unknown in this run's conf: use some of as_of, mode, encoder, epochs, reason"
    assert parsed["asked"] == {
        "null": ["--mode=full"],
        '{"epochs": 3}': ["--mode=full", "--epochs=3"],
        '{"epoch": 3, "as_of": "1998-03-01"}': [f"--refused={said}"],
    }


def test_a_step_takes_a_run_of_any_id_and_the_answer_of_a_person(parsed: dict[str, Any]) -> None:
    run = ["--", "evergreen_training", "-rf"]
    refused = "--refused=nobody has said yes in this run: clear `approve` to ask again"
    assert parsed["commands"] == {
        "stage": ["stage", *run, "finetune"],
        "yes": ["promote", "--approved-by=vera", *run],
        "nobody": ["promote", refused, *run],
        "no": ["publish", "--rejected=rejected by vera", *run],
        "late": ["publish", "--rejected=nobody answered in time", *run],
        "unasked": ["publish", *run],
    }


def test_an_answer_is_kept_whichever_it_is(parsed: dict[str, Any]) -> None:
    assert parsed["answers"] == {
        one: {"chosen_options": [one], "responded_by_user": {"name": "vera"}} for one in ("Approve", "Reject")
    }


def test_parsing_loads_nothing_heavy_and_is_fast(parsed: dict[str, Any]) -> None:
    assert {name.split(".")[0] for name in parsed["all"]} & FORBIDDEN == set()
    assert parsed["seconds"] < 0.5 * slowness(), parsed["new"]


def test_every_task_says_what_it_does_and_every_param_what_it_means(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        assert all(doc and len(doc) > 40 for doc in dag["doc"].values()), dag["doc"]
        assert all(param["schema"]["title"] for param in dag["params"].values())
        assert all(len(param["description"]) > 5 for param in dag["params"].values())
    names = {name: list(dag["params"]) for name, dag in parsed["dags"].items()}
    training = ["as_of", "mode", "encoder", "epochs", "reason"]
    assert names == {"evergreen_monitoring": ["as_of"], "evergreen_training": training}


@pytest.mark.parametrize("now", ["approval: human", "approval: {half-saved"])
def test_a_person_is_asked_where_params_say_so_or_nothing(tmp_path: Path, now: str) -> None:
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("approval: auto", now))
    training = parse(tmp_path)["dags"]["evergreen_training"]
    asking = {"decide_promotion": ["may_be_promoted"], "may_be_promoted": ["approve"], "approve": ["promote"]}
    assert training["edges"] == TRAINING | asking
    assert min(training["retries"].values()) > 0
