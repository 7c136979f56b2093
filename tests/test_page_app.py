"""The page's routes and the plugin, with Airflow's own classes; a real server stands in test_page_live.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import page_history
import pytest

from pipeline.dashboard.runs import REPORTS
from pipeline.dashboard.write import write_overview, write_run

pytestmark = pytest.mark.slow  # Airflow is installed for these alone; importing it takes seconds
pytest.importorskip("airflow")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    return tmp_path


def client(root: Path, login: bool = True) -> Any:
    """As somebody who may read the DAG, or as a stranger."""
    from evergreen_site import create_app
    from fastapi.testclient import TestClient

    app = create_app(root)
    if not login:
        return TestClient(app)
    [access] = app.router.dependencies
    app.dependency_overrides[access.dependency] = lambda: None
    return TestClient(app, follow_redirects=False)


def test_strangers_get_401_whatever_they_ask_for(root: Path) -> None:
    [name] = page_history.write(root, runs=1)
    stranger = client(root, login=False)
    paths = [
        "/",
        "/index.html",
        f"/{name}/index.html",
        "/dag-run/evergreen_training/x",
        f"/{name}/drift.html",
    ]
    for path in [*paths, "/none/index.html", "/../../x/"]:
        answer = stranger.get(path)
        assert answer.status_code in ((401,) if ".." not in path else (401, 404)), path
        assert name not in answer.text
        assert stranger.post(path).status_code == 405 or ".." in path
    assert len(stranger.app.routes) == 4
    assert stranger.get("/docs").status_code == stranger.get("/openapi.json").status_code in (401, 404)


def test_pages_are_served_as_they_were_written(root: Path) -> None:
    [name] = page_history.write(root, runs=1)
    reader = client(root)
    assert "No run yet" in reader.get("/").text
    folder = root / "data" / "history" / name
    write_run(folder)
    write_overview(root)
    assert reader.get("/").content == (root / "data" / "history" / "index.html").read_bytes()
    page, report = reader.get(f"/{name}/index.html"), reader.get(f"/{name}/drift.html")
    assert page.content == (folder / "index.html").read_bytes()
    assert report.content == (folder / "drift.html").read_bytes()
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "script" not in page.headers["Content-Security-Policy"]
    assert report.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'")


@pytest.mark.parametrize("file", REPORTS.values())
def test_every_report_that_a_run_keeps_is_served_in_its_frame(root: Path, file: str) -> None:
    [name] = page_history.write(root, runs=1)
    (root / "data" / "history" / name / file).write_text("<!doctype html>")
    write_run(root / "data" / "history" / name)
    reader = client(root)
    assert reader.get(f"/{name}/{file}").headers["Content-Security-Policy"].startswith("sandbox ")
    assert f'src="{file}"' in reader.get(f"/{name}/{file.replace('.', '-report.')}").text


def test_a_dag_runs_tab_leads_to_its_page(root: Path) -> None:
    from urllib.parse import quote, urljoin

    [name] = page_history.write(root, runs=1)
    run_id = "manual__2026-11-22T06:00:00+00:00"
    reader = client(root)
    address = f"/dag-run/evergreen_training/{quote(run_id, safe='')}"
    answer = reader.get(address)
    assert answer.status_code == 307
    assert urljoin(f"http://x{address}", answer.headers["Location"]) == f"http://x/{name}/index.html"
    assert "no record yet" in reader.get("/dag-run/evergreen_monitoring/manual").text


@pytest.mark.parametrize("path", ["run.json", "dvc.lock", "other.html", "%2e%2e%2findex.html", ".lock"])
def test_nothing_but_pages_is_served(root: Path, path: str) -> None:
    [name] = page_history.write(root, runs=1)
    (root / "data" / "other.html").write_text("secret")
    assert client(root).get(f"/{name}/{path}").status_code == 404
    assert client(root).get(f"/..%2f..%2fdata/{path}").status_code == 404
    assert client(root).get(f"/%2e%2e/{path}").status_code == 404


def test_plugin_costs_a_task_next_to_nothing(root: Path) -> None:
    """Every task loads the plugins: neither FastAPI nor Airflow's web server may come along."""
    code = (
        "import sys, airflow.sdk, airflow.sdk.plugins_manager\n"
        "sys.path.insert(0, 'dags/plugins')\n"
        "before = set(sys.modules)\n"
        "import evergreen_page\n"
        "new = set(sys.modules) - before\n"
        "heavy = ('fastapi', 'jinja2', 'starlette', 'sqlalchemy', 'airflow.api_fastapi')\n"
        "sys.exit(', '.join(name for name in new if name.startswith(heavy)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
