import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import yaml
from waiting import PATIENCE_SECONDS, until

import start_airflow as start

ROOT = Path(__file__).resolve().parents[1]
LOG_FILE = "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE"


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", ""])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(start.StartError, match="not a port: use a number"):
        start.port_from(text)


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, str(ROOT / "start_airflow.py")],
            env=os.environ | {"AIRFLOW_PORT": port, "EVERGREEN_REPO": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: port {port}: Address already in use: AIRFLOW_PORT=8081 make airflow\n"


def test_a_second_one_on_the_same_database_is_refused(tmp_path: Path) -> None:
    with (
        start.only_one(tmp_path),
        pytest.raises(start.StartError, match="an Airflow runs on it already"),
    ):
        start.only_one(tmp_path)
    start.only_one(tmp_path).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "192.168.1.2", "shop.example"])
def test_no_host_but_this_machine_is_served(host: str) -> None:
    start.check_host("127.0.0.1")
    with pytest.raises(start.StartError, match=r"AIRFLOW__API__HOST.*docs/docker\.md"):
        start.check_host(host)


def test_the_folder_is_its_owners_alone_also_if_it_was_not(tmp_path: Path) -> None:
    for before in (None, 0o755):
        folder = tmp_path / str(before) / "airflow"
        if before:
            folder.mkdir(parents=True, mode=before)
        assert stat.S_IMODE(start.own(folder).stat().st_mode) == 0o700


def test_secrets_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    made = start.secret(tmp_path, "jwt_secret")
    assert len(made) >= 64
    assert stat.S_IMODE((tmp_path / "jwt_secret").stat().st_mode) == 0o600
    assert start.secret(tmp_path, "jwt_secret") == made != start.secret(tmp_path, "other")


def test_it_listens_on_loopback_and_gives_way_to_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "2")
    monkeypatch.setenv("AIRFLOW__API__PORT", "9999")  # AIRFLOW_PORT is the one that is asked for health
    found = start.environment(tmp_path, tmp_path, 8090)
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert found["AIRFLOW__API__PORT"] == "8090"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8090/execution/"
    assert found["AIRFLOW__CORE__PARALLELISM"] == "2"
    assert found["AIRFLOW_HOME"] == str(tmp_path)


def test_logs_of_runs_with_long_ids_have_names_that_file_systems_take(tmp_path: Path) -> None:
    render = jinja2.Template(start.environment(tmp_path, tmp_path, 8090)[LOG_FILE]).render

    def path(run_id: str, map_index: int = -1) -> str:
        ti = SimpleNamespace(dag_id="d", run_id=run_id, task_id="open", map_index=map_index, try_number=2)
        return render(ti=ti)

    assert path("manual__2026") == "dag_id=d/run_id=manual__2026/task_id=open/attempt=2.log"
    assert path("r", 3) == "dag_id=d/run_id=r/task_id=open/map_index=3/attempt=2.log"
    longest = ["r" * 250, "r" * 249 + "s"]
    assert all(len(part) < 250 for run_id in longest for part in path(run_id).split("/"))
    assert path(longest[0]) != path(longest[1])
    composed = yaml.safe_load(Path("docker/compose.yaml").read_text())["x-airflow"]["environment"][LOG_FILE]
    assert jinja2.Template(composed).render(
        ti=SimpleNamespace(dag_id="d", run_id=longest[1], task_id="open", map_index=3, try_number=2)
    ) == path(longest[1], 3)


def stubborn(folder: Path) -> "subprocess.Popen[bytes]":
    """A shell with a child, once it ignores being asked to end."""
    script = "trap '' TERM; sleep 3000 & touch up; wait; sleep 3000"
    process = subprocess.Popen(["sh", "-c", script], cwd=folder, start_new_session=True)
    until((folder / "up").exists)
    return process


def test_the_whole_group_is_stopped_also_what_ignores_being_asked(tmp_path: Path) -> None:
    process = stubborn(tmp_path)
    before, start.GRACE_SECONDS = start.GRACE_SECONDS, 1
    try:
        start.stop(process)
    finally:
        start.GRACE_SECONDS = before
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    until(lambda: not start.send(process, 0))  # init has buried the shell's child


def test_without_patience_it_is_killed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = stubborn(tmp_path)

    def again(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start.time, "sleep", again)
    with pytest.raises(KeyboardInterrupt):
        start.stop(process)
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("token", "by_command", "healthy"),
    [(201, False, True), (403, True, True), (405, True, True), (403, False, False), (500, True, False)],
)
def test_with_login_on_the_dags_are_listed_by_command(
    monkeypatch: pytest.MonkeyPatch, token: int, by_command: bool, healthy: bool
) -> None:
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    answers = {
        "/api/v2/monitor/health": (200, {part: {"status": "healthy"} for part in parts}),
        "/auth/token": (token, {"access_token": "t"} if token == 201 else None),
        "/api/v2/dags?limit=100": (200, {"dags": [{"dag_id": dag} for dag in start.DAGS]}),
    }
    refused = (401, None)

    def ask(address: str, path: str, given: str | None = None) -> tuple[int, object]:
        return refused if path.startswith("/api/v2/dags") and given is None else answers[path]

    monkeypatch.setattr(start, "ask", ask)
    monkeypatch.setattr(start, "dags_by_command", lambda variables: list(start.DAGS) * by_command)
    assert (start.missing("http://127.0.0.1:8080", {}) == []) is healthy


def hosts_plugin(monkeypatch: pytest.MonkeyPatch, login: str) -> Any:
    pytest.importorskip("airflow")
    import evergreen_hosts

    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", login)
    return evergreen_hosts.EvergreenHosts().fastapi_root_middlewares


def test_without_login_strange_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = hosts_plugin(monkeypatch, "True")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    app = Starlette()
    app.mount("/auth", lambda *_: pytest.fail("a stranger got through"))
    app.add_middleware(given["middleware"], **given["kwargs"])
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", ""):
        assert TestClient(app).get("/auth/token", headers={"Host": host}).status_code == 400, host
    assert TestClient(app).get("/", headers={"Host": "localhost:8080"}).status_code == 404


def test_without_login_no_other_page_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, given = hosts_plugin(monkeypatch, "True")
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.testclient import TestClient

    app = Starlette()
    app.mount("/", PlainTextResponse("done"))
    app.add_middleware(given["middleware"], **given["kwargs"])
    client = TestClient(app, base_url="http://localhost:8080")
    for origin in ("http://evil.example", "http://localhost:3000", "http://localhost", "null", ""):
        for act in (client.post, client.put, client.patch, client.delete):
            assert act("/api/v2/assets/1/materialize", headers={"Origin": origin}).status_code == 403, origin
        assert client.get("/", headers={"Origin": origin}).status_code == 200
    assert client.post("/", headers={"Origin": "http://localhost:8080"}).status_code == 200
    assert client.post("/").status_code == 200  # a program


def test_with_login_every_host_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hosts_plugin(monkeypatch, "False") == []


def test_with_login_on_tasks_write_notes_as_the_first_account_that_may(tmp_path: Path) -> None:
    login = {start.ALL_ADMINS: "False"}
    made = start.note_writer(tmp_path, login)
    path = tmp_path / start.PASSWORDS
    assert json.loads(path.read_text()) == {made["EVERGREEN_API_USER"]: made["EVERGREEN_API_PASSWORD"]}
    assert made["EVERGREEN_API_USER"] == "admin"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert start.note_writer(tmp_path, login) == made  # it stays
    several = login | {start.USERS: "vera:viewer, oskar:op,ada:admin"}
    assert start.note_writer(tmp_path, several)["EVERGREEN_API_USER"] == "oskar"
    assert set(json.loads(path.read_text())) == {"admin", "oskar"}
    for told in (
        {start.ALL_ADMINS: "True"},
        login | {"EVERGREEN_API_USER": "notes"},
        login | {start.USERS: "vera:viewer"},
        login | {start.MANAGER: "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"},
    ):
        assert start.note_writer(tmp_path / "other", told) == {}


@pytest.mark.slow
def test_with_login_on_it_starts_and_the_generated_password_is_taken(tmp_path: Path) -> None:
    import airflow_up
    import toy

    project = toy.new_cycle_project(tmp_path / "project")
    with airflow_up.running(project, AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="False") as airflow:
        [passwords] = (project / ".evergreen" / "airflow").glob("*passwords*.generated")
        [(name, password)] = json.loads(passwords.read_text()).items()
        body = json.dumps({"username": name, "password": password}).encode()
        request = urllib.request.Request(
            f"{airflow.address}/auth/token", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            airflow._token = json.loads(answer.read())["access_token"]
        assert set(start.DAGS) <= {dag["dag_id"] for dag in airflow.call("GET", "/dags")["dags"]}
        run = airflow.trigger("evergreen_training", as_of="soon")
        assert airflow.wait(run)["state"] == "failed"
        assert "'soon' is no ISO 8601 time" in airflow.instances(run)["open"]["note"]
