"""`make airflow`: Airflow on this machine alone, with the DAGs of this project; Ctrl-C stops all of it.

Everything it keeps (database, logs, secrets) lies in .evergreen/airflow. It listens on 127.0.0.1 only, where
login is off and requests to other names than 127.0.0.1 and localhost are refused (evergreen_hosts.py);
tasks' logs are read from disk, so their servers, which would listen everywhere, stay off.
Environment: AIRFLOW_PORT (8080), EVERGREEN_REPO (the checkout to work for; default: this one), and any
AIRFLOW__SECTION__KEY, which goes before what is set here, but for host and port of the server.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import IO, Any

ROOT = Path(__file__).resolve().parent
DAGS = ("evergreen_monitoring", "evergreen_training")
START_SECONDS, GRACE_SECONDS = 900, 20
HOST = "127.0.0.1"
QUICK_SECONDS, QUICK_ENDS = 60, 5
ORPHAN_SECONDS = 30
ALL_ADMINS, USERS, MANAGER = (
    f"AIRFLOW__CORE__{key}"
    for key in ("SIMPLE_AUTH_MANAGER_ALL_ADMINS", "SIMPLE_AUTH_MANAGER_USERS", "AUTH_MANAGER")
)
PASSWORDS = "simple_auth_manager_passwords.json.generated"
# In a session of its own. When the pipe's other end is closed, however we ended, the whole group is killed.
# A component that ends is started anew: else three of four would go on for ever, and no run with them. One
# that ends again and again within a minute of its start (a port in use, a broken install) ends all of it.
# What one that was killed leaves (a scheduler's idle workers, 50 MB each) is ended after it, but not at once:
# a worker may still have to say how its task ended.
STANDALONE = """
import os, signal, sys, threading, time

def end_with_parent(pipe):
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with_parent, args=[int(sys.argv[1])], daemon=True).start()
from airflow.cli.commands import standalone_command

class SubCommand(standalone_command.SubCommand):
    def __init__(self, parent, name, command, env):
        serves_logs = name in ("scheduler", "triggerer")
        super().__init__(parent, name, [*command, "--skip-serve-logs"] if serves_logs else command, env)

    def run(self):
        seconds, most, quick = int(sys.argv[2]), int(sys.argv[3]), 0
        while quick < most:
            started, self.process = time.monotonic(), None
            reader = threading.Thread(target=super().run, daemon=True)
            reader.start()
            # Its end, not that of its output: a child that outlives it holds the pipe.
            children = []
            while reader.is_alive() and (self.process is None or self.process.poll() is None):
                children = children_of(self.process) or children
                time.sleep(0.2)
            orphans = threading.Timer(int(sys.argv[4]), end_orphans, [children])
            orphans.daemon = True
            orphans.start()
            code = self.process and self.process.wait()
            quick = quick + 1 if time.monotonic() - started < seconds else 0
            print(f"{self.name}: ended (exit code {code}): starting it anew", flush=True)
            time.sleep(1)
        print(f"{self.name}: ended {most} times, each within {seconds} s: giving up", flush=True)
        os._exit(1)

def children_of(process):
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except (AttributeError, OSError):
        return []  # not started yet, ended, or not Linux

def end_orphans(pids):
    for pid in pids:
        try:
            if os.getpgid(pid) == os.getpid():  # another's of that number is not of our group
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

standalone_command.SubCommand = SubCommand
standalone_command.StandaloneCommand.entrypoint(None)
"""


class StartError(Exception):
    """What is wrong and what to do, in one line."""


def port_from(text: str) -> int:
    """Raises StartError if it is no port, or taken."""
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StartError(f"AIRFLOW_PORT: {text}: not a port: use a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            raise StartError(f"port {text}: {error.strerror}: AIRFLOW_PORT=8081 make airflow") from None
    return int(text)


def only_one(home: Path) -> IO[str]:
    """A lock that is held until it is closed: two schedulers on one database start tasks twice."""
    file = (home / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StartError(f"{home}: an Airflow runs on it already: use that one, or stop it first") from None
    return file


def check_host(host: str) -> None:
    """Raises StartError for any but the one that is asked whether it is healthy."""
    if host != HOST:
        raise StartError(
            f"AIRFLOW__API__HOST: {host}: `make airflow` serves this machine alone, at {HOST}: unset it, or "
            "see docs/docker.md for others to get in"
        )


def own(folder: Path) -> Path:
    """The folder, made if need be; nobody but its owner gets in."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def secret(folder: Path, name: str) -> str:
    """64 random bytes, made once, readable by the owner alone."""
    path = folder / name
    if not path.is_file():
        write_secret(path, secrets.token_urlsafe(64))
    return path.read_text(encoding="utf-8")


def write_secret(path: Path, text: str) -> None:
    """Whole or not at all, and for the owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


LOG_FILE = (
    "dag_id={{ ti.dag_id }}/run_id={{ ti.run_id[:200] }}"
    '{{ "/" ~ ti.run_id[200:] if ti.run_id[200:] else "" }}'
    '/task_id={{ ti.task_id }}/{{ "map_index=" ~ ti.map_index ~ "/" if ti.map_index >= 0 else "" }}'
    "attempt={{ try_number|default(ti.try_number) }}.log"
)
"""Airflow's own, but for long ids of runs: a folder's name has 255 bytes, `run_id=` and an id up to 257."""


def environment(home: Path, repo: Path, port: int) -> dict[str, str]:
    """Of Airflow and of every `airflow` command that is to talk to it."""
    address = f"http://{HOST}:{port}"
    settings = {
        "CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__PARALLELISM": "4",
        "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "API__BASE_URL": address,
        "API__WORKERS": "1",
        "API__SECRET_KEY": secret(home, "secret_key"),
        "API_AUTH__JWT_SECRET": secret(home, "jwt_secret"),
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "WORKERS__EXECUTION_API_RETRIES": "10",  # after a restart tasks may go on before the server answers
        "WORKERS__EXECUTION_API_TIMEOUT": "60",  # 5 s are not enough for the first call on a busy machine
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",  # until a killed task is noticed
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",  # after a crash; by default up to 5 minutes
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        "LOGGING__LOG_FILENAME_TEMPLATE": LOG_FILE,
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    own = {"AIRFLOW_HOME": str(home), "EVERGREEN_REPO": str(repo), "PATH": path, "DO_NOT_TRACK": "1"}
    own |= {"AIRFLOW__API__HOST": HOST, "AIRFLOW__API__PORT": str(port)}
    return {f"AIRFLOW__{key}": value for key, value in settings.items()} | os.environ | own


def note_writer(home: Path, variables: dict[str, str]) -> dict[str, str]:
    """As whom tasks write their notes where Airflow's own simple login is on, unless they are told.

    The first account that may: its password, which Airflow would make on its first start, is made here.
    """
    off = variables[ALL_ADMINS].lower() in ("true", "t", "1")
    if off or "EVERGREEN_API_USER" in variables or "Simple" not in variables.get(MANAGER, "Simple"):
        return {}
    pairs = [user.strip().split(":") for user in variables.get(USERS, "admin:admin").split(",")]
    name = next((pair[0] for pair in pairs if pair[1:2] in (["admin"], ["op"])), None)
    if name is None:
        return {}
    path = home / PASSWORDS
    passwords = json.loads(path.read_text(encoding="utf-8") or "{}") if path.is_file() else {}
    if name not in passwords:
        passwords[name] = secrets.token_urlsafe(12)
        write_secret(path, json.dumps(passwords) + "\n")
    return {"EVERGREEN_API_USER": name, "EVERGREEN_API_PASSWORD": passwords[name]}


def ask(address: str, path: str, token: str | None = None, host: str | None = None) -> tuple[int, Any]:
    """Status and JSON of what it answers; 0 and None as long as nobody does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address + path, headers=headers | ({"Host": host} if host else {}))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, HTTPException, ValueError):
        return 0, None


def missing(address: str, variables: dict[str, str]) -> list[str]:
    """What is not there yet: components that are not healthy, then DAGs."""
    status, health = ask(address, "/api/v2/monitor/health")
    if not health:
        return [f"api-server (status {status})" if status else "api-server"]
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    sick = [part for part in parts if (health.get(part) or {}).get("status") != "healthy"]
    if sick:
        return sick
    status, given = ask(address, "/auth/token")
    if 400 <= status < 500:  # login is on: the API tells strangers nothing of DAGs
        return sorted(set(DAGS) - set(dags_by_command(variables)))
    found = ask(address, "/api/v2/dags?limit=100", (given or {}).get("access_token"))[1] or {}
    return sorted(set(DAGS) - {dag["dag_id"] for dag in found.get("dags", [])})


def dags_by_command(variables: dict[str, str]) -> list[str]:
    """As `airflow dags list` names them: some seconds, and no login."""
    command = [sys.executable, "-m", "airflow", "dags", "list", "--output", "json", "--columns", "dag_id"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    return [dag["dag_id"] for dag in json.loads(lines[-1])] if lines else []


def wait_until_healthy(
    process: subprocess.Popen[bytes], address: str, variables: dict[str, str], log: Path
) -> None:
    """Raises StartError if that takes too long, or if strangers would get in."""
    deadline = time.monotonic() + START_SECONDS
    while lacks := missing(address, variables):
        if process.poll() is not None:
            raise StartError(f"Airflow ended (exit code {process.returncode}): {log} says why")
        if time.monotonic() > deadline:
            raise StartError(f"without {', '.join(lacks)} after {START_SECONDS} s: {log} says why")
        time.sleep(0.5)
    if ask(address, "/auth/token", host="evergreen.invalid")[0] in (200, 201):
        raise StartError(
            "Airflow gives a token to requests for any host: AIRFLOW__CORE__PLUGINS_FOLDER must hold what is "
            f"in {ROOT / 'dags' / 'plugins'}"
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """The whole group: asked first, killed after a while, or at once where somebody has no patience."""
    try:
        deadline = time.monotonic() + GRACE_SECONDS
        send(process, signal.SIGTERM)
        while send(process, 0) and time.monotonic() < deadline:
            process.poll()  # else it stays as a zombie, which is still of the group
            time.sleep(0.2)
    finally:
        send(process, signal.SIGKILL)
        process.wait()


def send(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether there was anyone in the group to get the signal; 0 only asks."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def run(home: Path, repo: Path, port: int) -> None:
    address, log = f"http://{HOST}:{port}", home / "airflow.log"
    variables = environment(home, repo, port)
    variables |= note_writer(home, variables)
    print(f"airflow: starting, about a minute; its log is {log}", flush=True)
    theirs, ours = os.pipe()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-u",
                "-c",
                STANDALONE,
                str(theirs),
                *map(str, (QUICK_SECONDS, QUICK_ENDS, ORPHAN_SECONDS)),
            ],
            cwd=home,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=[theirs],
        )
    os.close(theirs)
    try:
        started = time.monotonic()
        wait_until_healthy(process, address, variables, log)
        took = time.monotonic() - started
        print(f"airflow: healthy after {took:.0f} s: {address} (Ctrl-C stops it)", flush=True)
        passwords = home / PASSWORDS
        if ask(address, "/auth/token")[0] >= 400 and passwords.is_file():
            print(f"airflow: login is on: passwords are in {passwords}", flush=True)
        process.wait()
        raise StartError(f"Airflow ended (exit code {process.returncode}): {log} says why")
    finally:
        stop(process)
        os.close(ours)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    repo = Path(os.environ.get("EVERGREEN_REPO") or ROOT).resolve()
    home = repo / ".evergreen" / "airflow"
    try:
        own(home)
        check_host(os.environ.get("AIRFLOW__API__HOST", HOST))
        with only_one(home):
            run(home, repo, port_from(os.environ.get("AIRFLOW_PORT") or "8080"))
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("airflow: stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
