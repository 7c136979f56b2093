"""The page's routes and the plugin, with Airflow's own classes; a real server stands in test_page_live.py."""

import subprocess
import sys
from pathlib import Path

import page_history
import pytest

pytestmark = pytest.mark.slow  # Airflow is installed for these alone; importing it takes seconds
pytest.importorskip("airflow")


@pytest.fixture
def airflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    return tmp_path


def test_strangers_get_401_whatever_they_ask_for(airflow_home: Path) -> None:
    from fastapi.testclient import TestClient

    sys.path.insert(0, "dags/plugins")
    from evergreen_pages.app import create_app

    [name] = page_history.write(airflow_home, runs=1)
    app = create_app(airflow_home)
    client = TestClient(app)
    paths = ["/", f"/runs/{name}/", "/dag-run/evergreen_training/x", f"/runs/{name}/drift/"]
    paths += [f"/runs/{name}/drift/content", "/runs/none/", "/runs/../../x/"]
    routes = [route.path for route in app.routes]
    assert len(routes) == 5
    for path in paths:
        answer = client.get(path)
        assert answer.status_code in ((401,) if ".." not in path else (401, 404)), path
        assert name not in answer.text
        assert client.post(path).status_code == 405 or ".." in path
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_plugin_costs_a_task_next_to_nothing(airflow_home: Path) -> None:
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
