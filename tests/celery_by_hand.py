"""Redis, CeleryExecutor and two workers: `PYTHONPATH=. python tests/celery_by_hand.py`.

Needs redis-server and PostgreSQL.

The topology of docker/compose.yaml with the profile celery, as processes: two monitoring runs at once, and
the training that the first one asks for, with tasks on both workers.
"""

import sys
import tempfile
from pathlib import Path

import deployment
import toy
from deployment import until

DAGS = ("evergreen_monitoring", "evergreen_training")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = toy.new_cycle_project(folder / "project")
        with deployment.running(project, folder, "CeleryExecutor", workers=2) as airflow:
            runs = [(DAGS[0], airflow.run(DAGS[0])) for _ in range(2)]
            until(lambda: airflow.runs(DAGS[1]), lambda: deployment.tail(airflow.home))
            runs += [(DAGS[1], run) for run in airflow.runs(DAGS[1])]
            hosts = set()
            for dag, run in runs:
                until(lambda dag=dag, run=run: airflow.state(dag, run) in ("success", "failed"), seconds=600)
                tasks = airflow.tasks(dag, run)
                hosts |= {task["hostname"] for task in tasks.values() if task["hostname"]}
                print(dag, run, airflow.state(dag, run), {one: task["state"] for one, task in tasks.items()})
                assert airflow.state(dag, run) == "success", deployment.tail(airflow.home)
            done = {
                log.stem: log.read_text(errors="replace").count("succeeded in")
                for log in airflow.home.glob("worker*.log")
            }
            print("tasks done by each worker:", done)
            assert len(done) == 2
            assert all(done.values())
            assert "In service: <strong>v1.0.0</strong>" in airflow.ask("/evergreen/", "admin")[1]


if __name__ == "__main__":
    sys.exit(main())
