"""Stages of dvc.yaml as Airflow tasks, and the tasks around them: each runs one step of a run's own worktree.

A step is `python -m pipeline workspace ...`: Airflow and the pipeline share commands and files, no imports.
The last line that a step prints is JSON; it becomes the task's result, and its `text` the task's note.
Environment: EVERGREEN_REPO (the checkout; default: the parent of this folder), EVERGREEN_PYTHON (the
pipeline's interpreter; default: Airflow's own).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator, Context, CronTriggerTimetable, Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from dvc_graph import Graph, Stage, read
from notices import page_of, set_note, set_run_note, tell

REPO = Path(os.environ.get("EVERGREEN_REPO") or Path(__file__).resolve().parents[1]).resolve()
PYTHON = os.environ.get("EVERGREEN_PYTHON") or sys.executable
REQUEST = Asset(name="retraining_requested", uri="evergreen://retraining-requested")
CHAMPION = Asset(name="champion", uri="evergreen://champion")
LISTS = Asset(name="recommendations", uri="evergreen://recommendations")
"""What others may schedule on; what an event says: docs/airflow.md."""
SKIPPED, PERMANENT = 99, 98
"""Exit codes of a step (pipeline/runs/scheduling.py); after the latter no other try is made."""
AGAIN = {"retries": 2, "retry_delay": timedelta(seconds=10)}
"""Of tasks that dvc.yaml says nothing of: each can be taken twice."""
AS_OF = Param(
    None,
    type=["null", "string"],
    maxLength=100,  # no pattern: of what does not match Airflow's form says "Bad Request", `open` says why
    title="As of",
    description="Read the data as if it were this moment, e.g. `1998-03-01`. Empty: as params.yaml says; in a"
    " backfill, the run's own date.",
)


_BASE = str(conf.get("api", "base_url", fallback="")).rstrip("/")
LINK = (
    _BASE
    + "/dags/{{ dag_run.dag_id | urlencode }}/runs/{{ dag_run.run_id | urlencode }}/plugin/evergreen_run"
)
"""A template of the address of a run's page."""


def documentation(dag: str) -> str:
    """dags/NAME.md, with the address of the page "Evergreen"."""
    text = Path(__file__).with_name(f"{dag}.md").read_text(encoding="utf-8")
    return text.replace("(PAGE)", f"({_BASE}/plugin/evergreen)")


def calendar(cron: str) -> CronTriggerTimetable:
    """Begins with the next moment, never with the last one: by default Airflow (3.3) runs a new DAG at once
    where less than a tenth of the interval has passed, of a month its first three days."""
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))


def graph() -> Graph:
    """Raises GraphError or OSError: Airflow shows it as the DAG's import error."""
    return read(REPO / "dvc.yaml")


class Step(BaseOperator):
    """`pipeline workspace VERB DAG RUN ...`, in the run's worktree or, without one, in the checkout."""

    ui_color = "#e4efe7"

    def __init__(self, *, verb: str, more: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.verb, self.more = verb, list(more)

    @cached_property
    def hook(self) -> Any:
        return SubprocessHook()

    def arguments(self, context: Context) -> list[str]:
        """Options as `--name=value`, and what follows the run's id."""
        return self.more

    def execute(self, context: Context) -> Any:
        run, given = [context["dag"].dag_id, context["run_id"]], self.arguments(context)
        options = [one for one in given if one.startswith("--")]
        words = [one for one in given if one not in options]
        # A run's id may begin with a dash.
        command = [PYTHON, "-m", "pipeline", "workspace", self.verb, *options, "--", *run, *words]
        environment = os.environ | {"EVERGREEN_REPO": str(REPO), "PYTHONUNBUFFERED": "1"}
        done = self.hook.run_command(command, environment, cwd=str(self.folder(context)))
        result = _result(done.output)
        text = str(result.get("text") or done.output)
        if done.exit_code < 0:  # its last line is whatever it had said before
            text = f"killed by signal {-done.exit_code} (9: by hand, or out of memory): the log says more"
        set_note(context, text)
        if done.exit_code == SKIPPED:
            raise AirflowSkipException(text)
        if done.exit_code == PERMANENT:
            raise AirflowFailException(text)
        if done.exit_code != 0:
            raise AirflowException(text or f"exit code {done.exit_code}: the log says more")
        self.after(context, result)
        return result

    def folder(self, context: Context) -> Path:
        """The worktree's own code runs, so that nobody's editing of the checkout gets into a run."""
        if self.verb in ("open", "close"):
            return REPO
        opened = context["ti"].xcom_pull(task_ids="open") or {}
        worktree = REPO / str(opened.get("folder"))
        return worktree if (worktree / "dvc.yaml").is_file() else REPO

    def after(self, context: Context, result: dict[str, Any]) -> None:
        """For subclasses: what is to be done with the result."""

    def on_kill(self) -> None:
        self.hook.send_sigterm()


class OpenRun(Step):
    """What the run is asked for: by the asset's newest event, by Params, or by a backfill's date."""

    def __init__(self, *, fingerprint: str, **options: Any) -> None:
        super().__init__(verb="open", more=[f"--graph={fingerprint}"], **options)

    def arguments(self, context: Context) -> list[str]:
        if refused := unknown_keys(context):
            return [f"--refused={refused}"]
        params = {key: _stripped(value) for key, value in dict(context["params"]).items()}
        request = requested(context)
        if request:
            asked = {key: request.get(key) for key in ("as_of", "mode", "reason")}
            params |= {key: value for key, value in asked.items() if value} | {"after": request.get("branch")}
        elif not params.get("as_of") and is_backfill(context):
            params["as_of"] = context["logical_date"].isoformat()
        names = ("as_of", "mode", "encoder", "epochs", "reason", "after")
        given = {name: params[name] for name in names if params.get(name) not in (None, "")}
        return [*self.more, *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


def _stripped(value: Any) -> Any:
    """Blanks that came with what was pasted into the form."""
    return value.strip() if isinstance(value, str) else value


class RequestTraining(Step):
    """Publishes what the request rests on, and says so to whoever waits for the asset."""

    def __init__(self, **options: Any) -> None:
        super().__init__(verb="publish", outlets=[REQUEST], **options)

    def after(self, context: Context, result: dict[str, Any]) -> None:
        decision = context["ti"].xcom_pull(task_ids="decide_retraining")
        kept = {key: decision[key] for key in ("as_of", "mode", "reasons", "branch")}
        why = decision["text"].removeprefix(f"{decision['mode']}: ")
        context["outlet_events"][REQUEST].extra = kept | {"reason": why}
        set_note(context, decision["text"])


class Promote(Step):
    """Skipped where nothing is promoted, so that the asset `champion` hears of new champions alone."""

    def __init__(self, *, ask: bool, **options: Any) -> None:
        super().__init__(verb="promote", outlets=[CHAMPION], **options)
        self.ask = ask

    def arguments(self, context: Context) -> list[str]:
        if not self.ask:
            return []
        answer = context["ti"].xcom_pull(task_ids="approve") or {}
        if answer.get("chosen_options") != ["Approve"]:
            return ["--refused=nobody has said yes in this run: clear `approve` to ask again"]
        return [f"--approved-by={name_of(answer.get('responded_by_user')) or 'somebody without a login'}"]

    def after(self, context: Context, result: dict[str, Any]) -> None:
        if not result.get("promoted"):
            raise AirflowSkipException(result.get("text"))
        fields = {"version": result["promoted"], "reason": result["text"], "run_id": context["run_id"]}
        context["outlet_events"][CHAMPION].extra = fields


class Publish(Step):
    def __init__(self, **options: Any) -> None:
        super().__init__(verb="publish", outlets=[LISTS], **options)

    def arguments(self, context: Context) -> list[str]:
        answer = context["ti"].xcom_pull(task_ids="approve") or {}
        if answer.get("chosen_options") != ["Reject"]:
            return []
        person = name_of(answer.get("responded_by_user"))
        return [f"--rejected=rejected by {person}" if person else "--rejected=nobody answered in time"]

    def after(self, context: Context, result: dict[str, Any]) -> None:
        fields = {key: result.get(key) for key in ("champion", "as_of", "branch")}
        context["outlet_events"][LISTS].extra = fields


class CloseRun(Step):
    """Fails where the run has failed: its state is the run's, whatever was skipped (see `close_run`)."""

    def __init__(self, *, ends: Sequence[str], **options: Any) -> None:
        super().__init__(verb="close", **options)
        self.ends = list(ends)

    def arguments(self, context: Context) -> list[str]:
        dag_id, run_id = context["dag"].dag_id, context["run_id"]
        states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
        failed = any(state in ("failed", "upstream_failed") for state in states.values())
        # A run that was marked as failed between two tasks has skipped ones alone.
        ended = any(states.get(task) == "success" for task in self.ends)
        return ["success" if ended and not failed else "failed"]

    def after(self, context: Context, result: dict[str, Any]) -> None:
        """The run's own note says what became of it."""
        set_run_note(context, str(result.get("text")))
        if result.get("state") != "success":
            raise AirflowFailException(result.get("text"))


def unknown_keys(context: Context) -> str:
    """Airflow takes any key in a run's conf; a misspelt one would start a run that nobody asked for."""
    known = list(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    said = f"{', '.join(unknown)}: unknown in this run's conf: use some of {', '.join(known)}"
    return said if unknown else ""


def name_of(user: dict[str, Any] | None) -> str:
    """Of who answered a question; "" where nobody did."""
    return str((user or {}).get("name") or (user or {}).get("id") or "")


def is_backfill(context: Context) -> bool:
    kind = context["dag_run"].run_type
    return str(getattr(kind, "value", kind)) == "backfill"


def requested(context: Context) -> dict[str, Any] | None:
    """What the newest event of the asset says; None where the run has another cause."""
    events = [event for group in (context.get("triggering_asset_events") or {}).values() for event in group]
    return dict(max(events, key=lambda event: event.timestamp).extra) if events else None


def stage_task(stage: Stage, **options: Any) -> Step:
    hints = stage.hints
    limits = {
        "pool": hints.get("pool"),
        "queue": hints.get("queue"),
    }
    return Step(
        task_id=stage.name,
        verb="stage",
        more=[stage.name],
        doc_md=f"{stage.desc}. Runs `dvc repro` of this stage in the run's own worktree, if anything it"
        f" depends"
        " on changed.",
        retries=hints.get("retries", AGAIN["retries"]),
        retry_delay=timedelta(seconds=hints.get("retry_delay_seconds", 10)),
        execution_timeout=timedelta(minutes=hints["timeout_minutes"]) if "timeout_minutes" in hints else None,
        **{key: value for key, value in limits.items() if value is not None},
        **options,
    )


def stage_tasks(graph: Graph, names: Iterable[str], **options: dict[str, Any]) -> dict[str, Step]:
    """The tasks of these stages, with the edges that dvc.yaml has between them; options by stage."""
    tasks = {name: stage_task(graph.stages[name], **options.get(name, {})) for name in names}
    for name, task in tasks.items():
        task.set_upstream([tasks[other] for other in graph.stages[name].upstream if other in tasks])
    return tasks


def open_run(graph: Graph) -> OpenRun:
    return OpenRun(
        task_id="open",
        fingerprint=graph.fingerprint,
        doc_md="Makes a git worktree for this run, at the committed revision, with DVC's cache shared and the"
        " champion in its place. Stops if tracked files have changes that are not committed.",
    )


def close_run(opened: OpenRun, ends: Sequence[Any]) -> None:
    """Behind `ends`, one of which has to succeed; whatever became of them, the run's state is this task's.

    Of a run that is marked as failed by hand, Airflow skips what is pending, but for teardowns, and takes a
    run whose last tasks were skipped for a success.
    """
    closed = CloseRun(
        task_id="close",
        ends=[end.task_id for end in ends],
        on_failure_callback=None,  # the task that failed has told
        doc_md="Closes the run's account in `data/history`, and removes its worktree. The worktrees of the"
        " last"
        " failed runs are kept for inspection.",
    )
    closed.set_upstream(list(ends))
    closed.as_teardown(setups=opened, on_failure_fail_dagrun=True)


def publish_run(**options: Any) -> Publish:
    return Publish(
        task_id="publish",
        doc_md="Commits `dvc.lock` to the branch `runs/...`, which makes every output of this run available"
        " for good, and updates the asset `recommendations`. Pushes to the DVC remote and to"
        " EVERGREEN_GIT_REMOTE, if there are any.",
        **options,
    )


def failed(context: Context) -> None:
    """On the last failure of a task."""
    ti = context["ti"]
    reason = context.get("exception") or "killed"
    set_run_note(context, f"{ti.task_id} failed: {reason}")
    text = f"Run {ti.run_id}: {ti.task_id} failed: {reason}\n{page_of(ti.dag_id, ti.run_id)}"
    tell(f"{ti.dag_id}: {ti.task_id} failed", text)


DEFAULTS: dict[str, Any] = AGAIN | {"on_failure_callback": failed, "owner": "evergreen"}


def _result(line: str) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}
