"""drift.html and Evidently's snapshot: what they carry, for every outcome, and that no text can harm.

Evidently is imported once for all tests of this file (some 9 CPU seconds).
"""

import html
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.drift.page import empty_snapshot, render, report
from pipeline.drift.verdicts import LABELS, MEANINGS, Verdict, verdict

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def signal(value: float | None = 0.2, **more: Any) -> dict[str, Any]:
    given = {"value": value, "p_value": 0.004, "floor": 0.1, "flag": False, "kind": "soft"}
    return {**given, "previous": None, "confirmed": False, "text": "A sentence.", **more}


def result(**more: Any) -> dict[str, Any]:
    """Two windows: values confirmed, volume flagged once, coverage not measured, schema with no p-value."""
    side = {"rows": 3000, "users": 60, "from": "1998-01-01T00:00:00+00:00", "to": "1998-02-01T00:00:00+00:00"}
    newest = {
        "rows": 2104,
        "users": 61,
        "from": "1998-03-01T10:00:00+00:00",
        "to": "1998-03-09T00:00:00+00:00",
    }
    signals = {
        "schema": signal(0, p_value=None, floor=None, kind="hard"),
        "values": signal(0.31, flag=True, confirmed=True, text="Mean value 4.1 (reference 3.5): drift"),
        "volume": signal(0.7, flag=True, text="Rows a day: changed, not confirmed"),
        "coverage": signal(None, p_value=None, text="Not tested: no champion"),
    }
    short = {
        name: {"value": one["value"], "p_value": 0.5, "flag": one["flag"]} for name, one in signals.items()
    }
    base = {
        "outcome": "ok",
        "text": "Drift: values",
        "as_of": "1998-04-01T00:00:00+00:00",
        "reference": side,
        "current": {**side, "rows": 5555},
        "drift": True,
        "signals": signals,
        "windows": [
            {**side, "rows": 1001, "signals": {}},
            {**side, "signals": short},
            {**newest, "signals": short},
        ],
        "champion": "v3.0.0",
        "rows_fitted": 80000,
    }
    return base | more


def rows(count: int, seed: int = 0, **columns: Any) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "user_id": pd.Series(generator.integers(0, 50, count).astype(str), dtype="str"),
            "item_id": pd.Series(generator.integers(0, 30, count).astype(str), dtype="str"),
            "timestamp": pd.date_range("1998-03-01", periods=count, freq="37min", tz="UTC", unit="us"),
            "event": pd.Series(["rating"] * count, dtype="str"),
            "value": generator.integers(1, 6, count).astype(float),
            "text": pd.Series([None] * count, dtype="str"),
        }
    )
    return frame.assign(**columns)


@pytest.fixture(scope="module")
def evidently() -> Any:
    """Imported when the first test that needs it runs."""
    from evidently.core.report import Snapshot

    from pipeline.drift import defaults, evidently_report

    return SimpleNamespace(load=Snapshot.load, loads=Snapshot.loads, own=evidently_report, defaults=defaults)


@pytest.fixture(scope="module")
def written(evidently: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of `result()`, hostile texts in rows and sentences, twice: (folder, folder)."""
    told = result()
    told["signals"]["values"]["text"] = f"Mean value {HOSTILE}"
    events = pd.Series([HOSTILE, "view"] * 150, dtype="str")
    folders = [tmp_path_factory.mktemp("drift") for _ in range(2)]
    for folder in folders:
        report(told, rows(500), rows(300, 1, event=events), folder / "drift.html", folder / "snapshot.json")
    return folders


# Verdicts


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"flag": True, "kind": "hard"}, Verdict.DRIFT),
        ({"flag": True, "kind": "soft", "confirmed": False}, Verdict.ONCE),
        ({"flag": True, "kind": "soft", "confirmed": True}, Verdict.DRIFT),
        ({"flag": False, "value": 0.0}, Verdict.NONE),
        ({"flag": False, "value": None}, Verdict.UNMEASURED),
        ({}, Verdict.UNMEASURED),
    ],
)
def test_verdict_of_a_signal(given: dict[str, Any], expected: Verdict) -> None:
    assert verdict(given) is expected


def test_every_signal_of_the_check_has_a_name_and_a_meaning() -> None:
    from pipeline.drift.signals import NAMES

    assert set(LABELS) == set(MEANINGS) == set(NAMES)


# The page


def test_the_page_says_what_drifted_since_when_and_of_how_many() -> None:
    page = render(result())
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "Flagged: Values. Only in the newest window: Volume." in text
    assert "1998-03-01 10:00 to 1998-03-09 00:00, 2,104 rows of 61 users" in text
    assert "Mean value 4.1 (reference 3.5): drift" in text
    assert "v3.0.0" in text
    verdicts = re.findall(r'<td class="said (\w+)">', page)
    assert verdicts == ["drift", "once", "none", "unmeasured"]  # the gravest first


def test_curves_need_two_windows_with_a_value() -> None:
    page = render(result())
    assert page.count("<figure>") == 2  # coverage was never measured, schema has no floor
    assert page.count('class="flagged"') > 0
    assert "<figure>" not in render(result(windows=result()["windows"][:2]))


@pytest.mark.parametrize(
    ("outcome", "text", "label"),
    [
        ("no_champion", "No champion yet", "No champion"),
        ("not_enough_data", "Not enough new data for a window: 40 rows of 3 users", "Not enough data"),
        ("bad_input", "current: no column value", "Data not usable"),
        ("unheard of", "", "No verdict"),
    ],
)
def test_without_a_verdict_the_page_says_so_and_never_that_nothing_drifted(
    tmp_path: Path, outcome: str, text: str, label: str
) -> None:
    told = {"outcome": outcome, "text": text, "as_of": None, "drift": False, "signals": {}, "windows": []}
    report(told, None, None, tmp_path / "drift.html", tmp_path / "snapshot.json")
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert f"<b>{label}</b>" in page
    assert html.escape(text) in page
    assert "No drift" not in page
    assert "<script" not in page
    assert json.loads((tmp_path / "snapshot.json").read_text(encoding="utf-8"))["metric_results"] == {}


def test_without_two_sides_evidently_is_not_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.drift.page import report\n"
        f"report({{'outcome': 'no_champion'}}, None, None, Path({str(tmp_path / 'a')!r}), "
        f"Path({str(tmp_path / 'b')!r}))\n"
        "print('evidently' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_ok_result_without_rows_still_gets_its_page(tmp_path: Path) -> None:
    report(result(), rows(5), rows(5).head(0), tmp_path / "drift.html", tmp_path / "snapshot.json")
    assert "Flagged: Values" in (tmp_path / "drift.html").read_text(encoding="utf-8")


def test_no_drift_is_said_with_the_number_of_signals() -> None:
    calm = {"values": signal(0.01), "volume": signal(None)}
    page = render(result(drift=False, signals=calm))
    assert "None of the 1 signals that could be measured is flagged." in page


# Evidently


@pytest.mark.slow
def test_metrics_carry_the_values_and_tests_the_verdicts(evidently: Any, written: list[Path]) -> None:
    found = evidently.load(written[0] / "snapshot.json")
    tests = {test.metric_config.params["name"]: test for test in found.tests_results}
    assert {name: test.status.value for name, test in tests.items()} == {
        "schema": "SUCCESS",
        "values": "FAIL",
        "volume": "WARNING",
    }
    values = {one["config"].get("name"): one["value"] for one in found.dict()["metrics"]}
    assert (values["values"], values["volume"]) == (0.31, 0.7)
    assert tests["volume"].description.endswith("Rows a day: changed, not confirmed")


@pytest.mark.slow
def test_evidently_adds_no_test_of_its_own(evidently: Any, written: list[Path]) -> None:
    found = evidently.load(written[0] / "snapshot.json")
    assert len(found.tests_results) == 3
    assert {test.metric_config.params["type"].split(":")[-1] for test in found.tests_results} == {"Signal"}


@pytest.mark.slow
def test_the_snapshot_says_when_and_of_what(evidently: Any, written: list[Path]) -> None:
    found = evidently.load(written[0] / "snapshot.json")
    assert found._timestamp == datetime(1998, 4, 1, tzinfo=UTC)
    assert found._metadata["model_id"] == "v3.0.0"
    assert found._tags == ["drift"]


@pytest.mark.slow
def test_the_snapshot_loads_where_this_project_is_not(written: list[Path]) -> None:
    """Its tests would otherwise name a class that only this project has."""
    text = (written[0] / "snapshot.json").read_text(encoding="utf-8")
    assert '"bound_test": {' not in text
    types = set(re.findall(r'"type": "(evidently:bound_test:\w+|pipeline[^"]*)"', text))
    assert types == set()


@pytest.mark.slow
def test_empty_snapshots_load_too(evidently: Any) -> None:
    found = evidently.loads(empty_snapshot({"outcome": "no_champion", "as_of": "1998-04-01T00:00:00+00:00"}))
    assert (found.tests_results, found._tags) == ([], ["no_champion"])
    assert evidently.loads(empty_snapshot({}))._timestamp.year == 1970


@pytest.mark.slow
def test_same_input_same_bytes(written: list[Path]) -> None:
    for name in ("drift.html", "snapshot.json"):
        assert (written[0] / name).read_bytes() == (written[1] / name).read_bytes()


@pytest.mark.slow
def test_hostile_texts_become_neither_script_nor_markup(written: list[Path]) -> None:
    page = (written[0] / "drift.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    framed = html.unescape(re.search(r'srcdoc="([^"]*)"', page)[1])  # type: ignore[index]
    assert "alert(1)" in framed  # it is shown
    assert "<script>alert" not in framed
    assert "<img src=x" not in framed
    opened, closed = (len(re.findall(tag, framed)) for tag in ("<script[ >]", "</script>"))
    assert closed <= opened


@pytest.mark.slow
def test_the_page_may_load_nothing(written: list[Path]) -> None:
    page = (written[0] / "drift.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]  # type: ignore[index]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="?https?:', html.unescape(page))


@pytest.mark.slow
def test_only_columns_with_something_on_both_sides_are_drawn(evidently: Any) -> None:
    then, now = evidently.own.pictures(
        rows(40, positive=True, new_user=False), rows(30, value=np.nan, positive=False)
    )
    assert list(then) == list(now)
    assert set(now) == {"hour of the day (UTC)", "item's rank by popularity in the reference"} | {
        "event",
        "day of the week",
        "success",
    }


@pytest.mark.slow
def test_infinite_values_and_many_labels_do_no_harm(evidently: Any) -> None:
    events = pd.Series([f"event {place % 40}" for place in range(400)], dtype="str")
    values = np.where(np.arange(400) % 2, np.inf, 3.0)
    _, now = evidently.own.pictures(rows(400), rows(400, event=events, value=values))
    assert now["value"].dropna().unique().tolist() == [3.0]
    assert now["event"].nunique() == evidently.own.MOST_LABELS  # eleven kinds are kept, the rest is "other"
    assert "other" in set(now["event"])


@pytest.mark.slow
def test_rank_is_by_rows_of_the_reference(evidently: Any) -> None:
    items = pd.Series(["b", "a", "b", "c", "b", "a"], dtype="str")
    then, now = evidently.own.pictures(
        rows(6, item_id=items), rows(3, item_id=pd.Series(list("abz"), dtype="str"))
    )
    rank = "item's rank by popularity in the reference"
    assert then[rank].tolist() == [1, 2, 1, 3, 1, 2]
    assert now[rank].tolist()[:2] == [2, 1]
    assert np.isnan(now[rank].iloc[2])  # not in the reference: shown as missing


@pytest.mark.slow
def test_pictures_are_of_a_sample_that_stays_the_same(evidently: Any) -> None:
    many = rows(evidently.own.MOST_ROWS + 5000)
    once, again = evidently.own.sampled(many), evidently.own.sampled(many)
    assert len(once) == evidently.own.MOST_ROWS
    pd.testing.assert_frame_equal(once, again)
    assert once.index.is_monotonic_increasing


# Evidently's defaults


@pytest.mark.slow
def test_defaults_call_another_world_drift_and_the_same_rows_not(evidently: Any) -> None:
    base = rows(3000)
    shifted = rows(
        3000, 1, value=5.0, timestamp=pd.date_range("1998-03-01", periods=3000, freq="D", tz="UTC")
    )
    assert not evidently.defaults.evidently_drift(base, base)
    found = evidently.defaults.evidently_defaults(base, shifted)
    assert (found.tested, found.drift) == (5, True)


@pytest.mark.slow
def test_defaults_rule_is_half_of_the_columns(evidently: Any) -> None:
    Defaults = evidently.defaults.Defaults
    assert [Defaults(5, 2).drift, Defaults(4, 2).drift, Defaults(0, 0).drift] == [False, True, False]


@pytest.mark.slow
def test_defaults_without_rows_say_nothing(evidently: Any) -> None:
    assert not evidently.defaults.evidently_drift(rows(10), rows(10).head(0))
