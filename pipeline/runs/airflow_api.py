"""Airflow's REST interface as far as a replay needs it: trigger a run, wait for it, find what it called for.

In: where it is (AIRFLOW_URL, or 127.0.0.1 and AIRFLOW_PORT as `make airflow` takes it) and who asks
(AIRFLOW_USER and AIRFLOW_PASSWORD; nobody where the login is off). Standard library alone.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from pipeline.errors import PipelineError

API = "/api/v2"
DONE = ("success", "failed")
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
"""How long Airflow may be silent: it restarts, the machine is busy."""
START_SECONDS = 600.0
"""How long an asset may take to start a run: a machine that trains reads the DAGs slowly."""

Json = dict[str, Any]


class NotThere(PipelineError):
    """404: no such DAG or run."""


class Airflow:
    def __init__(self, url: str | None = None) -> None:
        """Raises PipelineError if nobody answers or the login is refused."""
        port = os.environ.get("AIRFLOW_PORT") or "8080"
        self.url = (url or os.environ.get("AIRFLOW_URL") or f"http://127.0.0.1:{port}").rstrip("/")
        self._token: str | None = None
        try:
            self._token = self._log_in()
        except urllib.error.HTTPError as error:
            raise PipelineError(
                f"{self.url}: login refused ({error.code}): set AIRFLOW_USER and AIRFLOW_PASSWORD"
            ) from None
        except (OSError, ValueError, KeyError, TypeError):
            raise PipelineError(
                f"{self.url}: no Airflow answers there: start it with `make airflow` in another terminal "
                "(its port, if not 8080: AIRFLOW_PORT), or replay with --without-airflow"
            ) from None

    def dag(self, dag: str) -> Json:
        return self._ask("GET", f"/dags/{quote(dag)}")

    def run(self, dag: str, run_id: str) -> Json:
        """Raises NotThere."""
        return self._ask("GET", f"/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}")

    def trigger(self, dag: str, run_id: str, conf: Mapping[str, Any]) -> Json:
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        return self._ask("POST", f"/dags/{quote(dag)}/dagRuns", body)

    def wait(self, dag: str, run_id: str, tell: Callable[[str], None]) -> Json:
        """The run once it has ended; meanwhile `tell` hears which tasks are under way."""
        while True:
            run = self.run(dag, run_id)
            if run.get("state") in DONE:
                return run
            path = f"/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}/taskInstances?"
            tasks = self._ask("GET", path + urlencode({"state": "running"})).get("task_instances") or []
            tell(", ".join(str(task.get("task_id")) for task in tasks) or str(run.get("state")))
            time.sleep(POLL_SECONDS)

    def called_for(self, source: str, run_id: str, asset: str, dag: str) -> list[str]:
        """The runs of `dag` that this run of `source` has started by updating `asset`; [] if it did not.

        Raises PipelineError if it did and no run begins.
        """
        query = urlencode({"source_dag_id": source, "source_run_id": run_id})
        until = time.monotonic() + START_SECONDS
        while True:
            events = self._ask("GET", f"/assets/events?{query}").get("asset_events") or []
            events = [event for event in events if event.get("name") == asset]  # lists are an asset as well
            created = [run for event in events for run in event.get("created_dagruns") or []]
            runs = dict.fromkeys(str(run["run_id"]) for run in created if run["dag_id"] == dag)
            if runs or not events:
                return list(runs)
            paused = self.dag(dag).get("is_paused")
            if paused or time.monotonic() > until:
                why = "it is paused" if paused else f"none began in {START_SECONDS / 60:.0f} minutes"
                raise PipelineError(f"{source}, {run_id}: it asked for {dag}, and {why}. See {self.url}/dags")
            time.sleep(POLL_SECONDS)

    def link(self, dag: str, run_id: str) -> str:
        return f"{self.url}/dags/{quote(dag)}/runs/{quote(run_id, safe='')}"

    # The wire -----------------------------------------------------------------------------------------------

    def _log_in(self) -> str:
        name, password = os.environ.get("AIRFLOW_USER"), os.environ.get("AIRFLOW_PASSWORD")
        body = {"username": name, "password": password} if name else None
        return str(self._send("POST" if body else "GET", "/auth/token", body)["access_token"])

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._send(method, API + path, body)
            except urllib.error.HTTPError as error:
                if error.code == 401:  # the token has expired
                    self._token = self._log_in()
                elif error.code < 500:
                    kind = NotThere if error.code == 404 else PipelineError
                    raise kind(f"{self.url}{API}{path}: {error.code} {_detail(error)}") from None
                problem = f"{error.code}"
            except OSError as error:
                problem = str(getattr(error, "reason", error))
            if time.monotonic() > until:
                raise PipelineError(
                    f"{self.url}: Airflow does not answer any more ({problem}): "
                    "start it and run the same command again"
                )
            time.sleep(POLL_SECONDS)

    def _send(self, method: str, path: str, body: Json | None) -> Json:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        # No proxy of the environment: Airflow is here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            content = json.loads(answer.read())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        detail = json.loads(error.read()).get("detail")
    except (OSError, ValueError, AttributeError):
        return error.reason
    return " ".join(str(detail).split())[:300]
