"""The page at / in a browser: pick a title, see the list with reasons, like and dislike, see it change."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import served
from chromium_up import chromium
from served_process import Served, running
from waiting import until

pytestmark = pytest.mark.slow
for needed in ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy", "selenium"):
    pytest.importorskip(needed)

SCREENS = Path(tempfile.gettempdir()) / "evergreen-screens"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("page") / "project"
    shutil.copytree(served.once(tmp_path_factory), project)
    with running(project) as found:
        yield found


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def listed(driver: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#list > li')].map(row => row.dataset.id)"
    return [str(item) for item in driver.execute_script(script)]


def text(driver: Any) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def resize(driver: Any, width: int, dark: bool) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def keep(driver: Any, name: str) -> None:
    SCREENS.mkdir(exist_ok=True)
    driver.save_screenshot(str(SCREENS / f"serve-{name}.png"))


def test_a_stranger_picks_reads_reasons_and_reacts(service: Served, driver: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    driver.get(service.address + "/")
    until(lambda: len(listed(driver)) == 10)
    assert "popular now" in text(driver)
    # By the keyboard alone: type, go down, take it.
    words = driver.find_element("id", "words")
    words.send_keys("thing number 1")
    until(lambda: driver.find_elements("css selector", "[role=option]"))
    assert words.get_attribute("aria-expanded") == "true"
    words.send_keys(Keys.ARROW_DOWN)
    picked = driver.find_element("css selector", "[aria-selected=true]").text
    words.send_keys(Keys.ENTER)
    until(lambda: picked in driver.find_element("id", "picked").text)
    until(lambda: "popular now" not in text(driver))
    before = until(lambda: listed(driver))
    assert driver.find_elements("css selector", ".why li")
    keep(driver, "picked")
    # A like takes the item off the list and moves the rest; the focus stays in the list.
    like = driver.find_element("css selector", "#list li button")
    like.send_keys(Keys.ENTER)
    until(lambda: listed(driver) and before[0] not in listed(driver))
    assert "Liked" in driver.find_element("id", "said").text
    assert driver.execute_script("return document.activeElement.closest('#list') !== null")
    status, told = service.ask("/metrics".replace("metrics", "health"))
    assert (status, told["status"]) == (200, "ok")
    second = listed(driver)[0]
    driver.find_elements("css selector", "#list li:first-child button")[1].click()
    until(lambda: second not in listed(driver))
    # It is remembered for this browser, and forgotten at a new start: then the list is a stranger's again.
    driver.refresh()
    until(lambda: listed(driver) and before[0] not in listed(driver))
    assert "popular now" not in text(driver)
    driver.find_element("id", "again").click()
    until(lambda: "popular now" in text(driver))


def test_words_and_known_users(service: Served, driver: Any) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    driver.get(service.address + "/")
    until(lambda: listed(driver))
    driver.find_element("id", "words").send_keys("red" + Keys.ESCAPE + Keys.ENTER)
    until(lambda: "“red”" in driver.find_element("id", "picked").text)
    until(lambda: "its text is near yours" in text(driver))
    driver.find_element("css selector", "#picked button").click()
    user = Select(driver.find_element("id", "user"))
    until(lambda: len(user.options) > 5)
    user.select_by_index(1)
    until(lambda: "popular now" not in text(driver))
    assert driver.find_elements("css selector", ".why li")


@pytest.mark.parametrize(("name", "width", "dark"), [("phone-dark", 390, True), ("wide-light", 1100, False)])
def test_it_fits(service: Served, driver: Any, name: str, width: int, dark: bool) -> None:
    resize(driver, width, dark)
    driver.get(service.address + "/")
    until(lambda: listed(driver))
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(17, 21, 19)") == dark
    small = driver.execute_script(
        "return [...document.querySelectorAll('#list button')].filter(b => b.offsetHeight < 36).length"
    )
    assert small == 0
    keep(driver, name)


def test_it_asks_nobody_else_and_complains_of_nothing(service: Served, driver: Any) -> None:
    driver.get(service.address + "/")
    until(lambda: listed(driver))
    names = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in names if not name.startswith((service.address, "data:"))] == []
    assert [one["message"] for one in driver.get_log("browser") if one["level"] == "SEVERE"] == []
