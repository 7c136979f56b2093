"""What is old goes from the event store as params.yaml says, and nothing that the next collect reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import served
import yaml

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("sqlalchemy")

from fastapi.testclient import TestClient
from waiting import until

from pipeline.data.histories import MICROSECONDS_A_DAY as DAY
from pipeline.errors import ConfigError
from pipeline.serve import events
from pipeline.serve.app import create
from pipeline.serve.events import Impression, Row, Store
from pipeline.serve.retention import prune


def write_params(root: Path, days: float | None, feedback: str | None = None) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["serve"]["retention_days"] = days
    content["collect"]["feedback"] = feedback
    (root / "params.yaml").write_text(yaml.safe_dump(content))


def filled(root: Path, days: int = 10) -> Store:
    """An event and an impression of each day, 0 to `days` - 1."""
    store = Store(f"sqlite:///{root}/events.db")
    store.append([[Row(f"e{day}", "u", "i01", "click", None, None, day * DAY, None) for day in range(days)]])
    store.show([Impression(f"l{day}", day * DAY, "u", "v1", "champion", None, "[]") for day in range(days)])
    return store


def left(store: Store) -> tuple[int, int]:
    return len(store.after(0)), len(store.lists())


@pytest.mark.parametrize(
    ("days", "feedback", "expected"),
    [
        (3, None, (3, 3)),
        (3, "sqlite:////srv/events.db", (10, 3)),  # every collect reads all of these events
        (None, None, (10, 10)),
    ],
)
def test_what_is_older_goes(
    tmp_path: Path, days: float | None, feedback: str | None, expected: tuple[int, int]
) -> None:
    write_params(tmp_path, days, feedback)
    store = filled(tmp_path)
    gone = prune(tmp_path, store, 10 * DAY)
    assert left(store) == expected
    assert gone == (10 - expected[0], 10 - expected[1])
    assert prune(tmp_path, store, 10 * DAY) == (0, 0)
    store.append([[Row("new", "u", "i01", "click", None, None, 10 * DAY, None)]])
    assert store.after(0)[-1].seq == 11  # numbers are not used again: followers miss nothing
    store.close()


def test_many_go_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "DELETED_AT_ONCE", 4)
    store = filled(tmp_path, 12)
    assert store.prune(8 * DAY, events=True) == (8, 8)
    store.close()


def test_no_days_at_all_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path, 0)
    store = filled(tmp_path)
    with pytest.raises(ConfigError, match=r"serve\.retention_days"):
        prune(tmp_path, store, 10 * DAY)
    assert left(store) == (10, 10)
    store.close()


def test_the_service_does_it(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    project = Path(shutil.copytree(served.once(tmp_path_factory), tmp_path / "project"))
    params: Any = yaml.safe_load((project / "params.yaml").read_text())
    params["serve"]["retention_days"] = 30
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    store = filled(tmp_path)
    with TestClient(create(project, f"sqlite:///{tmp_path}/events.db")):
        until(lambda: left(store) == (0, 0))  # they are of 1970
    store.close()
