"""Redis, CeleryExecutor and workers on two machines: `PYTHONPATH=. python tests/celery_by_hand.py`, as root.

Needs redis-server, PostgreSQL and iproute2. The topology of docker/compose.yaml with center.yaml and
worker.yaml, as processes: one worker here, one in a network namespace of its own, which has the hosts of
worker.yaml, a checkout of its own, and shares git's and DVC's remote alone. Two monitoring runs at once, and
the training that the first one asks for, with tasks on both workers.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import composed
import deployment
import toy
from waiting import until

DAGS = ("evergreen_monitoring", "evergreen_training")
NAMESPACE, CENTER, ELSEWHERE = f"evergreen-{os.getpid()}", "10.77.0.1", "10.77.0.2"
WORKER = composed.interpolated(composed.FILLED, composed.WORKER)["services"]["worker"]


@contextmanager
def another_machine() -> Iterator[list[str]]:
    """What runs a command there."""
    near, far = f"ev{os.getpid()}a"[:15], f"ev{os.getpid()}b"[:15]
    there, hosts = ["ip", "netns", "exec", NAMESPACE], Path("/etc/netns", NAMESPACE, "hosts")
    names = [host.partition(":")[::2] for host in WORKER["extra_hosts"]]
    lines = [f"{address} {name}" for name, address in (*names, (WORKER["hostname"], ELSEWHERE))]
    hosts.parent.mkdir(parents=True)
    hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    try:
        for command in (
            ["ip", "netns", "add", NAMESPACE],
            ["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", NAMESPACE],
            ["ip", "addr", "add", f"{CENTER}/24", "dev", near],
            ["ip", "link", "set", near, "up"],
            [*there, "ip", "addr", "add", f"{ELSEWHERE}/24", "dev", far],
            [*there, "ip", "link", "set", far, "up"],
            [*there, "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(command, check=True)
        name = f'hostname {WORKER["hostname"]} && exec "$@"'
        yield [*there, "unshare", "--uts", "sh", "-c", name, "sh"]
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)
        shutil.rmtree(hosts.parent)


def shared(folder: Path) -> tuple[Path, Path]:
    """Two checkouts, of which each has the other's work by remotes alone."""
    project = toy.new_cycle_project(folder / "project")
    toy.dvc(project, "remote", "add", "-d", "store", str(folder / "store"))
    toy.git(project, "commit", "-q", "-a", "-m", "Name the remote")
    toy.git(folder, "clone", "-q", "--bare", str(project), str(folder / "bare"))
    toy.git(project, "remote", "add", "origin", str(folder / "bare"))
    toy.git(folder, "clone", "-q", str(folder / "bare"), str(folder / "elsewhere"))
    return project, folder / "elsewhere"


def play(airflow: deployment.Deployment) -> set[str]:
    """Two runs and the training that comes of them; the hosts that worked for it."""
    runs = [(DAGS[0], airflow.run(DAGS[0])) for _ in range(2)]
    until(lambda: airflow.runs(DAGS[1]), lambda: deployment.tail(airflow.home))
    runs += [(DAGS[1], run) for run in airflow.runs(DAGS[1])]
    hosts = set()
    for dag, run in runs:
        until(lambda dag=dag, run=run: airflow.state(dag, run) in ("success", "failed"))
        tasks = airflow.tasks(dag, run)
        hosts |= {task["hostname"] for task in tasks.values() if task["hostname"]}
        print(dag, run, airflow.state(dag, run), {one: task["state"] for one, task in tasks.items()})
        assert airflow.state(dag, run) == "success", deployment.tail(airflow.home)
    return hosts


def main() -> None:
    with tempfile.TemporaryDirectory() as name, another_machine() as there:
        folder = Path(name)
        project, checkout = shared(folder)
        with deployment.running(project, folder, "CeleryExecutor", workers=1, center=CENTER) as airflow:
            command = [*there, *airflow.command("worker")]
            with deployment.process(airflow, "worker", command, "elsewhere", airflow.elsewhere(checkout)):
                until(lambda: " ready." in (airflow.home / "elsewhere.log").read_text(errors="replace"))
                hosts = play(airflow)
            done = {
                log.stem: log.read_text(errors="replace").count("succeeded in")
                for log in (airflow.home / "worker0.log", airflow.home / "elsewhere.log")
            }
            print("tasks done by each worker:", done, "on", hosts)
            assert all(done.values())
            assert WORKER["hostname"] in hosts
            assert "In service: <strong>v1.0.0</strong>" in airflow.ask("/evergreen/", "admin")[1]


if __name__ == "__main__":
    sys.exit(main())
