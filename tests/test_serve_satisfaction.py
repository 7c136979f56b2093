"""What people made of their lists: values by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sqlalchemy")

from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue
from pipeline.data.impressions import impressions
from pipeline.evaluation.satisfaction import satisfaction
from pipeline.serve.events import Impression, Row, Store

DAY = MICROSECONDS_A_DAY
ITEMS = pd.DataFrame({"item_id": [*"abcde"], "categories": [["x"], ["x"], ["y"], ["x", "y"], []]})


def shown(number: str, day: float, user: str | None, items: str, version: str = "v1") -> Impression:
    places = json.dumps([[item, rank, 0.5, 1.0] for rank, item in enumerate(items, 1)])
    return Impression(number, round(day * DAY), user, version, "champion", None, places)


def did(number: int, day: float, user: str, item: str, value: float, shown_on: str | None) -> Row:
    return Row(f"e{number}", user, item, "rating", value, None, round(day * DAY), shown_on)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(f"sqlite:///{tmp_path}/events.db")
    found.show(
        [
            shown("1", 100.1, "u", "ab"),
            shown("2", 100.2, "u", "ac"),
            shown("3", 101, "v", "c"),
            shown("4", 105, None, "adb", "v2"),
            shown("5", 109, "v", "ab", "v2"),
        ]
    )
    found.append(
        [
            [
                did(1, 100.3, "u", "a", 5, "1"),
                did(2, 100.4, "u", "b", 1, "1"),
                did(3, 100.5, "u", "a", 1, "2"),
                did(4, 100.6, "u", "a", 5, "2"),  # the last reaction counts
                did(5, 100.7, "u", "d", 5, "2"),  # not on that list
                did(6, 100.8, "u", "c", 5, None),  # on no list
                did(7, 107, "u", "c", 5, None),
                did(8, 109, "v", "b", 2, "5"),
            ]
        ]
    )
    return found


def figures(store: Store, days: int | None = None) -> dict[str, object]:
    events = store.reactions()
    shown = impressions(store.lists(), events)
    shown["positive"] = shown["value"] >= 4
    active = events.assign(timestamp=pd.to_datetime(events["timestamp"], unit="us", utc=True))
    return satisfaction(shown, active, Catalogue.of(ITEMS), days)


def test_figures_by_hand(store: Store) -> None:
    told = figures(store)
    assert (told["lists"], told["items_shown"]) == (5, 10)
    assert told["click_through"] == 0.4  # lists 1 and 2 of five
    assert told["likes"] == 0.5  # a of 1, a of 2; not b of 1, b of 5
    # Days 100 (u: again on 107) and 101 (v: again on 109, too late); 109 is too new to tell.
    assert told["returns_7_days"] == 0.5
    assert told["coverage"] == 0.8
    # ab 1, ac 0, adb (1 + 2 / sqrt 2) / 3, ab 1; list 3 has one item.
    assert told["diversity"] == pytest.approx(1 - (1 + 0 + (1 + 2**0.5) / 3 + 1) / 4, abs=1e-6)


def test_each_version_has_its_own_figures(store: Store) -> None:
    by_version = figures(store)["by_version"]
    assert isinstance(by_version, dict)
    assert [by_version[version]["lists"] for version in ("v1", "v2")] == [3, 2]
    assert by_version["v1"]["likes"] == pytest.approx(2 / 3, abs=1e-6)
    assert by_version["v2"] | {"diversity": None} == {
        "lists": 2,
        "items_shown": 5,
        "click_through": 0.0,
        "likes": 0.0,
        "returns_7_days": None,
        "coverage": 0.6,
        "diversity": None,
    }
    assert figures(store)["interleaved"] is None


def test_only_the_newest_days_count(store: Store) -> None:
    assert figures(store, days=5)["lists"] == 2


def test_nothing_shown_has_no_shares(tmp_path: Path) -> None:
    told = figures(Store(f"sqlite:///{tmp_path}/empty.db"))
    assert (told["lists"], told["click_through"], told["diversity"], told["by_version"]) == (
        0,
        None,
        None,
        {},
    )


def test_the_command_reads_the_projects_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from pipeline.cli import app
    from pipeline.data import tables

    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    tables.write_parquet(ITEMS, tmp_path / "data/raw/items.parquet")
    monkeypatch.setenv("EVERGREEN_EVENTS", f"sqlite:///{tmp_path}/events.db")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["feedback", "--json", "--days", "60"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert (told["lists"], told["likes"]) == (5, 0.5)
    assert "click through" in CliRunner().invoke(app, ["feedback"]).output
