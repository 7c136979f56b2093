"""docker/: no engine is here, so the files are checked: specification, lint, secrets, and that they agree."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from composed import CENTER, COMPOSE, DOCKER, EXAMPLE, FILLED, SECRETS, VARIABLE, WORKER, interpolated
from ports import free_port
from waiting import PATIENCE_SECONDS

DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def services() -> dict[str, Any]:
    return dict(interpolated(FILLED)["services"])


@pytest.mark.parametrize("over", [(), (CENTER,), (WORKER,)])
def test_compose_follows_the_specification(over: tuple[str, ...]) -> None:
    spec = pytest.importorskip("compose_spec")
    content = {key: value for key, value in interpolated(FILLED, *over).items() if not key.startswith("x-")}
    found = spec.PyCompose.from_yaml(yaml.safe_dump(content))
    found.validate()
    assert {"postgres", "api-server", "scheduler", "dag-processor", "triggerer"} <= set(found.service_names())


def test_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not hadolint:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_example_has_every_variable_and_no_secret() -> None:
    asked = {match[1] for match in VARIABLE.finditer(COMPOSE + CENTER + WORKER)}
    assert asked - set(EXAMPLE) == {"EVIDENTLY_PORT"}
    assert all(
        EXAMPLE[name] == "" for name in EXAMPLE if "PASSWORD" in name or "KEY" in name or "SECRET" in name
    )


@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_starts_while_a_secret_is_empty(secret: str) -> None:
    with pytest.raises(ValueError, match=f"{secret}: empty in docker/.env"):
        interpolated(FILLED | {secret: ""})


def test_secrets_are_out_of_git() -> None:
    done = subprocess.run(["git", "check-ignore", "docker/.env"], capture_output=True, check=False)
    assert done.returncode == 0


def test_ports_are_open_to_this_machine_alone() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    opened = interpolated(FILLED | {"TLS_ADDRESS": "0.0.0.0"})["services"]
    ports = {name: service.get("ports", []) for name, service in opened.items()}
    assert [name for name in ports if any(port.startswith("0.0.0.0:") for port in ports[name])] == ["proxy"]


def test_the_proxy_speaks_tls_for_both(tmp_path: Path) -> None:
    caddy = shutil.which("caddy")
    if not caddy:
        pytest.skip("caddy is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), SayHello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    secure, plain = free_port(), free_port()
    upstream = f"127.0.0.1:{server.server_port}"
    names = {"AIRFLOW_HOST": f"airflow.localhost:{secure}", "SERVE_HOST": f"lists.localhost:{secure}"}
    environment = names | {"AIRFLOW_UPSTREAM": upstream, "SERVE_UPSTREAM": upstream}
    environment |= {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    given = (DOCKER / "Caddyfile").read_text()
    # Neither a port below 1024 nor a root in this machine's store, which are root's.
    own = given.replace("admin off", f"admin off\n\thttp_port {plain}\n\tskip_install_trust", 1)
    (tmp_path / "Caddyfile").write_text(own)
    command = [caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    with (tmp_path / "log").open("w") as log:
        proxy = subprocess.Popen(command, env=environment, stderr=log)
    try:
        root = tmp_path / "caddy/pki/authorities/local/root.crt"
        for name in ("airflow.localhost", "lists.localhost"):
            assert said_over_tls(name, secure, root, tmp_path / "log") == f"hello {name}:{secure}"
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE_SECONDS)
        server.shutdown()


class SayHello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.headers["X-Forwarded-Proto"] == "https"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello {self.headers['Host']}".encode())

    def log_message(self, *_: object) -> None:
        """Into nobody's output."""


def said_over_tls(name: str, port: int, root: Path, log: Path) -> str:
    """What it answers whose certificate for `name` is of the authority `root`, once it is up."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            context = ssl.create_default_context(cafile=str(root))
            with (
                socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                asked = f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
                secure.sendall(asked.encode())
                answer = HTTPResponse(secure)
                answer.begin()
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def test_workers_on_other_machines_find_all_that_they_are_told_of() -> None:
    """Every host that a worker's environment names is at CENTER_ADDRESS, which publishes its port."""
    worker = interpolated(FILLED, WORKER)["services"]["worker"]
    named = {"postgres": 5432}  # the port that is meant where none is named
    for value in worker["environment"].values():
        if found := re.match(r"\S+://(?:\S+@)?(postgres|redis|api-server)(?::(\d+))?/", str(value)):
            named[found[1]] = int(found[2] or named[found[1]])
    assert set(named) == {"postgres", "redis", "api-server"}
    assert sorted(worker["extra_hosts"]) == sorted(f"{name}:10.77.0.1" for name in named)
    center = interpolated(FILLED, CENTER)["services"]
    for name, port in named.items():
        assert f"10.77.0.1:{port}:{port}" in center[name]["ports"]
        assert all(one.startswith(("10.77.0.1:", "127.0.0.1:")) for one in center[name]["ports"])
    assert worker["hostname"] == "worker-b"  # where the API server asks for its logs
    assert "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT" not in worker["environment"]
    assert worker["ports"] == ["8793:8793"]


@pytest.mark.parametrize(("name", "text"), [("CENTER_ADDRESS", CENTER), ("WORKER_HOST", WORKER)])
def test_nothing_is_opened_where_no_address_is_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: empty in docker/.env"):
        interpolated(FILLED | {name: ""}, text)


def test_every_service_is_watched_and_unprivileged() -> None:
    for name, service in services().items():
        assert name == "init" or "healthcheck" in service, name
        if service["image"].startswith("evergreen:"):
            assert service["user"].endswith(":0")
            assert service["cap_drop"] == ["ALL"]
        else:
            assert re.search(r":(RELEASE\.)?\d+[.\d-]", service["image"]), name  # a version, not `latest`


def test_default_is_local_and_the_rest_is_behind_profiles() -> None:
    found = {name: service.get("profiles", []) for name, service in services().items()}
    assert {name for name, profiles in found.items() if not profiles} == {
        *("postgres", "init", "api-server", "scheduler", "dag-processor", "triggerer")
    }
    assert (found["worker"], found["gpu-worker"], found["redis"]) == (["celery"], ["gpu"], ["celery", "gpu"])
    assert services()["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


def test_a_worker_has_the_gpus_and_takes_their_queue_alone() -> None:
    worker = services()["gpu-worker"]
    [devices] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["driver"], devices["capabilities"]) == ("nvidia", ["gpu"])
    assert "--queues gpu " in worker["command"]
    assert "--queues default " in services()["worker"]["command"]


def test_spark_is_found_by_its_name_and_knows_no_secret() -> None:
    master, worker = (services()[name] for name in ("spark-master", "spark-worker"))
    assert master["profiles"] == worker["profiles"] == ["spark"]
    assert "--host spark-master --port 7077" in master["command"]
    assert worker["command"].split()[-1] == "spark://spark-master:7077"
    for service in (master, worker):
        assert service["volumes"] == services()["scheduler"]["volumes"]  # the same folder at the same path
        assert not service["environment"]
        assert "ports" not in service


def test_images_are_built_from_targets_and_files_that_exist() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    built = {service["build"]["target"] for service in services().values() if "build" in service}
    assert built == {"cpu", "cuda"}
    assert built <= targets
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    for copied in re.findall(r"^COPY --chown=\S+ (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for path in copied.split():
            assert Path(path).exists(), path
            assert f"!{path}" in ignored, path
    extras = re.findall(r"python setup_environment\.py (.+)$", DOCKERFILE, re.MULTILINE)
    assert len(extras) == 2
    assert set(extras) == {"airflow deploy serve sql ${EVERGREEN_SPARK:+spark}"}


def test_a_tag_has_one_builder_and_no_registry_is_asked_for_it() -> None:
    """Engines that build with Bake end with 'already exists' where two services build one tag."""
    ours = [service for service in services().values() if service["image"].startswith("evergreen:")]
    built = [service["image"] for service in ours if "build" in service]
    assert sorted(built) == ["evergreen:cpu", "evergreen:cuda"]
    assert all(service["pull_policy"] == "never" for service in ours if "build" not in service)


def test_services_run_as_no_root() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == "50000:0"
    assert "python:3.11.14-slim-bookworm" in DOCKERFILE


def test_whoever_runs_it_has_a_name() -> None:
    """Every command of Airflow asks for the user's name; ssh wants an account of EVERGREEN_UID."""
    assert 'useradd --uid "$EVERGREEN_UID"' in DOCKERFILE
    built = [service["build"]["args"] for service in services().values() if "build" in service]
    assert all(arguments == {"EVERGREEN_UID": 1000, "EVERGREEN_SPARK": None} for arguments in built)
    assert "LOGNAME=" in DOCKERFILE.partition("ENV ")[2].partition("\nFROM")[0]


def test_snapshots_of_runs_are_found(tmp_path: Path) -> None:
    sys.path.insert(0, "docker")
    try:
        from evidently_workspace import snapshots
    finally:
        sys.path.remove("docker")
    md5 = "0123456789abcdef0123456789abcdef"
    run = tmp_path / "data" / "history" / "a"
    run.mkdir(parents=True)
    out = "    - path: reports/drift_snapshot.json\n      hash: md5\n      md5: {}\n      size: 3\n"
    (run / "dvc.lock").write_text(
        "    - path: reports/drift.json\n      hash: md5\n      md5: " + 32 * "f" + "\n" + out.format(md5)
    )
    assert list(snapshots(tmp_path)) == []
    place = tmp_path / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    assert list(snapshots(tmp_path)) == [place]
