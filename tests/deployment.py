"""What docker/compose.yaml describes, as processes instead of containers: its commands, its environment.

Only what names a place is replaced: hosts by 127.0.0.1, ports by free ones, paths by folders here.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import composed
import toy
from ports import free_port
from postgres_up import postgres
from waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).resolve().parents[1]
PASSWORDS = dict.fromkeys(composed.SECRETS, "s3cret") | {
    "FERNET_KEY": "cmFuZG9tLWJ5dGVzLWZvci1hLXRlc3Qtb25seS0tLS0=",
    "JWT_SECRET": "j" * 64,
    "API_SECRET_KEY": "a" * 64,
}
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class Deployment:
    def __init__(self, project: Path, home: Path, executor: str, center: str | None = None) -> None:
        self.project, self.home, self.center = project, home, center
        self.port, self.postgres, self.redis = free_port(), 0, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        values = composed.EXAMPLE | PASSWORDS | {"AIRFLOW_EXECUTOR": executor}
        values |= {"AIRFLOW_BASE_URL": self.address, "WORKER_SLOTS": "2"}
        values["EVERGREEN_GIT_REMOTE"] = "origin" if center else ""
        self.services = composed.interpolated(values)["services"]
        self._tokens: dict[str, str] = {}

    def environment(self, service: str) -> dict[str, str]:
        places = {
            "@postgres/": f"@127.0.0.1:{self.postgres}/",
            "@redis:6379": f"@127.0.0.1:{self.redis}",
            "http://api-server:8080": self.address,
            "/evergreen/dags": str(ROOT / "dags"),
        }
        given = self.services[service]["environment"]
        found = {name: str(value or "") for name, value in given.items()}
        for name, value in found.items():
            for old, new in places.items():
                value = value.replace(old, new)
            found[name] = str(self.project) if value == "/evergreen" else value
        more = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "EVERGREEN_API_SERVER": self.address,
            # Ours alone, whatever else runs on this machine.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }
        return toy.environment() | found | more

    def command(self, service: str) -> list[str]:
        """`airflow X` by this interpreter, at our port."""
        words = shlex.split(self.services[service]["command"])
        assert words.pop(0) == "airflow"
        places = {"8080": str(self.port)} | ({} if self.center else {"0.0.0.0": "127.0.0.1"})
        words = [places.get(word, word) for word in words]
        return [sys.executable, "-m", "airflow", *words]

    def elsewhere(self, checkout: Path) -> dict[str, str]:
        """A worker's environment on another machine, where hosts have compose.yaml's names."""
        local = {
            f"@127.0.0.1:{self.postgres}/": f"@postgres:{self.postgres}/",
            f"@127.0.0.1:{self.redis}": f"@redis:{self.redis}",
            self.address: f"http://api-server:{self.port}",
            str(self.project): str(checkout),
        }
        found = self.environment("worker")
        for name, value in found.items():
            for old, new in local.items():
                value = value.replace(old, new)
            found[name] = value
        home = checkout.with_name("airflow-elsewhere")
        home.mkdir()
        return found | {"AIRFLOW_HOME": str(home)}

    def set_up(self) -> None:
        """What the service `init` does, line by line."""
        [_, _, script] = self.services["init"]["command"]
        python = f'airflow() {{ {shlex.quote(sys.executable)} -m airflow "$@"; }}\n'
        environment = self.environment("init")
        done = subprocess.run(
            ["bash", "-ec", python + script], env=environment, cwd=self.home, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def is_healthy(self, part: str) -> bool:
        """By the container's own health check."""
        check = [sys.executable, str(ROOT / "docker" / "healthy.py"), part]
        done = subprocess.run(check, env=self.environment("scheduler"), capture_output=True, check=False)
        return done.returncode == 0

    # Speaking to it -----------------------------------------------------------------------------------------

    def token(self, user: str) -> str:
        if user not in self._tokens:
            body = json.dumps({"username": user, "password": "s3cret"}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{self.address}/auth/token", body, headers)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                self._tokens[user] = json.loads(answer.read())["access_token"]
        return self._tokens[user]

    def ask(self, path: str, user: str | None = None, body: Any = None) -> tuple[int, str]:
        """Status and content."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def run(self, dag: str, **conf: Any) -> str:
        status, text = self.ask(f"/api/v2/dags/{dag}/dagRuns", "admin", {"logical_date": None, "conf": conf})
        assert status == 200, text
        return str(json.loads(text)["dag_run_id"])

    def state(self, dag: str, run_id: str) -> str:
        status, text = self.ask(f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}", "admin")
        assert status == 200, text
        return str(json.loads(text)["state"])

    def runs(self, dag: str) -> list[str]:
        """Oldest first."""
        _, text = self.ask(f"/api/v2/dags/{dag}/dagRuns?order_by=run_after", "admin")
        return [run["dag_run_id"] for run in json.loads(text)["dag_runs"]]

    def tasks(self, dag: str, run_id: str) -> dict[str, Any]:
        _, text = self.ask(f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances", "admin")
        return {task["task_id"]: task for task in json.loads(text)["task_instances"]}

    def add_user(self, name: str, role: str) -> None:
        body = {"username": name, "password": "s3cret", "first_name": name, "last_name": name}
        body |= {"email": f"{name}@localhost", "roles": [{"name": role}]}
        status, text = self.ask("/auth/fab/v1/users", "admin", body)
        assert status in (200, 201), text


@contextmanager
def running(
    project: Path, folder: Path, executor: str = "LocalExecutor", workers: int = 0, center: str | None = None
) -> Iterator[Deployment]:
    """All services, healthy; every process is gone afterwards. `center`: see postgres_up's `also_at`."""
    home = folder / "airflow"
    home.mkdir()
    found = Deployment(project, home, executor, center)
    with ExitStack() as stack:
        found.postgres = stack.enter_context(postgres(folder, "airflow", center))
        created = ["createdb", "-h", "127.0.0.1", "-p", str(found.postgres), "-U", "airflow", "airflow"]
        subprocess.run(created, check=True, capture_output=True)
        found.set_up()
        if workers:
            server = ["redis-server", "--port", str(found.redis), "--save", "", "--requirepass", "s3cret"]
            server += ["--bind", "127.0.0.1", *filter(None, [center])]
            stack.enter_context(process(found, "redis", server))
        for name in PARTS:
            stack.enter_context(process(found, name, found.command(name)))
        for place in range(workers):
            named = ["--celery-hostname", f"worker{place}@localhost"]
            stack.enter_context(
                process(found, "worker", [*found.command("worker"), *named], f"worker{place}")
            )
        for part in ("metadatabase", "scheduler", "dag_processor", "triggerer"):
            until(lambda part=part: found.is_healthy(part), lambda part=part: f"{part}: {tail(home)}")
        until(lambda: found.ask("/api/v2/dags/evergreen_training", "admin")[0] == 200, lambda: tail(home))
        yield found


@contextmanager
def process(
    found: Deployment,
    service: str,
    command: list[str],
    name: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    """In a group of its own, which is ended as a whole."""
    with (found.home / f"{name or service}.log").open("wb") as log:
        environment = environment or found.environment(service if service != "redis" else "worker")
        started = subprocess.Popen(
            command, env=environment, cwd=found.home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        for number, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            deadline = time.monotonic() + seconds
            _signal(started, number)
            while _signal(started, 0) and time.monotonic() < deadline:
                time.sleep(0.2)


def _signal(started: subprocess.Popen[bytes], number: int) -> bool:
    started.poll()
    try:
        os.killpg(started.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def tail(home: Path) -> str:
    return "\n".join(
        f"{path.name}: {path.read_text(errors='replace')[-800:]}" for path in sorted(home.glob("*.log"))
    )


def browser_cookie(address: str, name: str) -> str:
    """The cookie that a person has after FAB's login form."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with opener.open(f"{address}/auth/login/", timeout=PATIENCE_SECONDS) as answer:
        page = answer.read().decode()
    token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
    form = urlencode({"username": name, "password": "s3cret", "csrf_token": token}).encode()
    opener.open(f"{address}/auth/login/", form, timeout=PATIENCE_SECONDS).close()
    return next(cookie.value or "" for cookie in jar if cookie.name == "_token")
