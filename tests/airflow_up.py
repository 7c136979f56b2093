"""A real Airflow for slow tests: started once by `make airflow`'s own script, spoken to by its REST API.

    with running(project) as airflow:
        run = airflow.trigger("evergreen_training", mode="full")
        assert airflow.wait(run)["state"] == "success"

`project` is a checkout with dvc.yaml, such as toy.new_cycle_project makes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import toy
from ports import free_port
from waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).resolve().parents[1]
ENDED = ("success", "failed")


@dataclass(frozen=True)
class Run:
    dag: str
    id: str

    @property
    def path(self) -> str:
        return f"/dags/{self.dag}/dagRuns/{quote(self.id, safe='')}"

    @property
    def slug(self) -> str:
        """Its folder in data/history and .evergreen/runs; its branch is runs/SLUG."""
        from pipeline.runs.worktrees import Workspace

        return Workspace(Path(), self.dag, self.id).slug


class Airflow:
    def __init__(self, address: str, project: Path, process: subprocess.Popen[str], seconds: float) -> None:
        self.address, self.project, self.process = address, project, process
        self.start_seconds = seconds
        self._token: str | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A path below /api/v2; raises urllib's HTTPError."""
        if self._token is None:
            with urllib.request.urlopen(f"{self.address}/auth/token", timeout=PATIENCE_SECONDS) as answer:
                self._token = json.loads(answer.read())["access_token"]
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/api/v2{path}", data, headers, method=method)
        for tries_left in reversed(range(5)):
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS / 5) as answer:
                    text = answer.read()
                break
            except TimeoutError:  # a server that has just started, on a busy machine
                if not tries_left or method != "GET":
                    raise
            except urllib.error.HTTPError as error:
                # SQLite was locked when Airflow wrote who asks, before it did anything.
                if not tries_left or error.code != 500:
                    raise
            time.sleep(1)
        return json.loads(text) if text else None

    def trigger(self, dag: str, run_id: str | None = None, **conf: Any) -> Run:
        asked = {"logical_date": None, "conf": conf} | ({"dag_run_id": run_id} if run_id else {})
        found = self.call("POST", f"/dags/{dag}/dagRuns", asked)
        return Run(dag, found["dag_run_id"])

    def runs(self, dag: str) -> list[Run]:
        """Oldest first."""
        found = self.call("GET", f"/dags/{dag}/dagRuns?limit=100&order_by=run_after")["dag_runs"]
        return [Run(dag, run["dag_run_id"]) for run in found]

    def state(self, run: Run) -> dict[str, Any]:
        return dict(self.call("GET", run.path))

    def wait(self, run: Run, states: tuple[str, ...] = ENDED) -> dict[str, Any]:
        """The run, once it is in one of these states."""
        return dict(until(lambda: one_of(self.state(run), states), lambda: str(self.tasks(run))))

    def tasks(self, run: Run) -> dict[str, str | None]:
        """Task -> state."""
        return {name: task["state"] for name, task in self.instances(run).items()}

    def instances(self, run: Run) -> dict[str, dict[str, Any]]:
        found = self.call("GET", f"{run.path}/taskInstances?limit=100")["task_instances"]
        return {task["task_id"]: task for task in found}

    def wait_for_task(self, run: Run, task: str, state: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            return one_of(self.instances(run).get(task) or {}, (state,))

        return dict(until(look, lambda: str(self.tasks(run))))

    def log(self, run: Run, task: str, attempt: int = 1) -> str:
        found = self.call("GET", f"{run.path}/taskInstances/{task}/logs/{attempt}?full_content=true")
        return "\n".join(str(entry.get("event", entry)) for entry in found["content"])

    def history(self, run: Run, name: str = "run.json") -> Any:
        """A file of what the run left in data/history."""
        return json.loads((self.project / "data" / "history" / run.slug / name).read_text())


def one_of(found: dict[str, Any], states: tuple[str, ...]) -> dict[str, Any] | None:
    return found if found.get("state") in states else None


@contextmanager
def running(project: Path, **variables: str) -> Iterator[Airflow]:
    """Airflow for this project, healthy; stopped at the end by what Ctrl-C sends."""
    port, started = free_port(), time.monotonic()
    environment = toy.environment() | {"PYTHONPATH": str(ROOT), "AIRFLOW_PORT": str(port)}
    environment |= {"EVERGREEN_REPO": str(project), "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "start_airflow.py")],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        while not any("healthy" in line for line in lines):
            line = process.stdout.readline()
            assert line, f"{lines}: {tail(project)}"
            lines.append(line)
        yield Airflow(f"http://127.0.0.1:{port}", project, process, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def tail(project: Path) -> str:
    log = project / ".evergreen" / "airflow" / "airflow.log"
    return log.read_text(errors="replace")[-4000:] if log.is_file() else ""


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder, or below."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = Path(os.readlink(process / "cwd"))
            if here == folder or folder in here.parents:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
