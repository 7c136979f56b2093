"""The topology of docker/compose.yaml without containers: PostgreSQL, FAB accounts, LocalExecutor, the DAGs,
the page, a browser. One Airflow for all of it: starting it takes most of the time.
"""

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import deployment
import pytest
import toy
from chromium_up import chromium
from deployment import Deployment
from waiting import until

from pipeline.registry.git import Git
from pipeline.registry.versions import read_state
from pipeline.runs.periods import Period, told
from pipeline.runs.replay import DagRuns

pytestmark = pytest.mark.slow
for needed in ("airflow.providers.fab", "selenium"):
    pytest.importorskip(needed)

DATES = [datetime(1998, *day, tzinfo=UTC) for day in ((1, 1), (2, 1), (2, 2))]
SCREENS = Path(tempfile.gettempdir()) / "evergreen-screens"
REPORT = "<!doctype html><h1>Evaluation report</h1><script>document.body.append('ran')</script>"


def with_reports(project: Path) -> None:
    """The toy's stages write reports too; that of the drift check is a real one, with Evidently's scripts."""
    from test_drift_page import result, rows

    from pipeline.drift.page import report

    report(result(), rows(500), rows(300, 1), project / "drift.html", project / "snapshot.json")
    (project / "evaluation.html").write_text(REPORT)
    text = (project / "dvc.yaml").read_text()
    for name, script in (("drift", "detect_drift.py"), ("evaluation", "evaluate.py")):
        text = text.replace(f"reports/{name}.json]", f"reports/{name}.json, reports/{name}.html]")
        text = text.replace(f"deps: [{script}", f"deps: [{script}, {name}.html")
        with (project / script).open("a") as file:
            file.write(f'\nimport shutil\nshutil.copy("{name}.html", "reports/{name}.html")\n')
    (project / "dvc.yaml").write_text(text)
    toy.git(project, "add", ".")
    toy.git(project, "commit", "-q", "-m", "Write reports")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("live")
    project = toy.new_cycle_project(folder / "project")
    (project / "source.csv").write_text("".join(f"user,item,1998-0{month}-01\n" * 8 for month in (1, 2)))
    with_reports(project)
    with deployment.running(project, folder) as found:
        found.add_user("vera", "Viewer")
        yield found


@pytest.fixture(scope="module")
def replayed(airflow: Deployment) -> list[Period]:
    """Three periods: the first champion; a month later the monitoring, and the training that it asks for; a
    day later, without a new row, the monitoring alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_URL", airflow.address)
        patch.setenv("AIRFLOW_USER", "admin")
        patch.setenv("AIRFLOW_PASSWORD", "s3cret")
        player = DagRuns(airflow.project, "live")
        periods = []
        for place, date in enumerate(DATES):
            folders = player.play(date, place == 0, print)
            periods.append(told(date, folders, champion(airflow.project)))
    return periods


def champion(project: Path) -> str | None:
    state = read_state(Git(project))
    return state.champion.name if state.champion else None


def test_strangers_see_nothing(airflow: Deployment) -> None:
    for path in ("/evergreen/", "/evergreen/x/index.html", "/api/v2/dags"):
        assert airflow.ask(path)[0] == 401


def test_viewers_read_and_start_nothing(airflow: Deployment) -> None:
    assert airflow.ask("/evergreen/", "vera")[0] == 200
    assert airflow.ask("/api/v2/plugins", "vera")[0] == 200  # the navigation's entry comes from there
    status, _ = airflow.ask("/api/v2/dags/evergreen_training/dagRuns", "vera", {"logical_date": None})
    assert status == 403


def test_replay_goes_through_the_dags(airflow: Deployment, replayed: list[Period]) -> None:
    first, second, third = replayed
    assert first.promotion == "v1.0.0 promoted"
    assert first.training.startswith("full in ")
    assert second.decision.startswith("refresh: 8 rows came since the last training")
    assert second.promotion == "v2.0.0 promoted"
    assert (third.decision, third.training, third.champion) == ("none", "–", "v2.0.0")
    status, page = airflow.ask("/evergreen/", "vera")
    assert status == 200
    assert "In service: <strong>v2.0.0</strong>" in page
    assert "promoted: v1.0.0" in page
    looked, idle = airflow.runs("evergreen_monitoring")
    assert airflow.tasks("evergreen_monitoring", idle)["publish"]["state"] == "success"
    note = airflow.tasks("evergreen_monitoring", looked)["decide_retraining"]["note"]
    assert "8 rows came since the last training" in note  # the account `tasks` may write it
    _, runs = airflow.ask("/api/v2/dags/evergreen_training/dagRuns", "admin")
    assert {run["note"] for run in json.loads(runs)["dag_runs"]} == {
        "full training; promoted: v1.0.0 as of 1998-01-01",
        "refresh training; promoted: v2.0.0 as of 1998-02-01",
    }


class Browser:
    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *texts: str) -> None:
        """Waits until the page, its frames included, shows the texts."""
        self.driver.get(url)
        self.sees(*texts)

    def sees(self, *texts: str) -> None:
        until(lambda: all(text in self.text() for text in texts), lambda: f"{texts}: {self.text()[:2000]}")

    def text(self) -> str:
        """Of the page and of every frame in it."""
        self.driver.switch_to.default_content()
        return self._text()

    def _text(self) -> str:
        from selenium.common.exceptions import WebDriverException

        try:
            # Not the driver's own `text`: that asks of every element whether it is seen, for minutes.
            found = str(self.driver.execute_script("return document.body.innerText"))
            for frame in self.driver.find_elements("tag name", "iframe"):
                self.driver.switch_to.frame(frame)
                found += "\n" + self._text()
                self.driver.switch_to.parent_frame()
        except WebDriverException:  # it is being replaced
            return ""
        return found

    def graph(self) -> set[str]:
        """The tasks of the graph, which it opens."""
        button, task = '[aria-label^="Show Graph"]', ".react-flow__node"
        until(lambda: self.driver.find_elements("css selector", button))[0].click()
        found = until(lambda: self.driver.find_elements("css selector", task))
        return {node.get_attribute("data-id") for node in found}

    def click(self, text: str, frames: int = 1) -> None:
        """A link in the page's first frame."""
        self.driver.switch_to.default_content()
        for _ in range(frames):
            self.driver.switch_to.frame(self.driver.find_element("tag name", "iframe"))
        self.driver.find_element("partial link text", text).click()

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def keep(self, name: str) -> None:
        """For people to look at."""
        SCREENS.mkdir(exist_ok=True)
        self.driver.save_screenshot(str(SCREENS / f"{name}.png"))

    def errors(self) -> list[str]:
        return [str(one["message"]) for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser(airflow: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        found.get(f"{airflow.address}/auth/login/")
        cookie = deployment.browser_cookie(airflow.address, "vera")
        found.add_cookie({"name": "_token", "value": cookie, "path": "/"})
        found.get_log("browser")
        yield Browser(found)


def test_a_person_sees_graph_run_page_and_both_reports(
    airflow: Deployment, replayed: list[Period], browser: Browser
) -> None:
    trained = airflow.runs("evergreen_training")[-1]
    assert trained.startswith("asset_triggered__")  # an id with ":" and "+"
    trained = quote(trained, safe="")
    at = f"{airflow.address}/dags/evergreen_training"
    browser.open(at, "evergreen_training", "decide_promotion")
    assert browser.graph() >= {"open", "finetune", "decide_promotion", "promote", "recommend"}
    browser.keep("dag")
    browser.open(f"{at}/runs/{trained}", "decide_promotion", "promote")
    browser.keep("run")
    browser.open(f"{airflow.address}/plugin/evergreen", "In service: v2.0.0", "Last runs", "promoted: v2.0.0")
    browser.keep("page")
    browser.open(f"{at}/runs/{trained}/plugin/evergreen_run", "Data as of", "May it be promoted?")
    browser.keep("page-of-run")
    browser.click("Evaluation report")
    browser.sees("Evaluation report", "ran")  # its script runs, in a sandbox
    browser.keep("evaluation")
    assert browser.errors() == []
    history = next((airflow.project / "data" / "history").glob("*monitoring*"))
    browser.open(
        f"{airflow.address}/evergreen/{history.name}/drift-report.html", "Has anything drifted?", "Evidently"
    )
    browser.keep("drift")
    assert browser.errors() == []
    for name, width, dark in (("phone", 390, False), ("phone-dark", 390, True), ("dark", 1200, True)):
        browser.resize(width, 900, dark)
        browser.open(f"{airflow.address}/evergreen/", "In service: v2.0.0")
        wide = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        browser.keep(name)
    assert browser.errors() == []
