"""`evergreen drift` on files: formats, words, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import drifting
import pandas as pd
import pytest
from waiting import PATIENCE_SECONDS

from pipeline.drift.compare import compare
from pipeline.errors import ConfigError, DataError
from pipeline.file_settings import Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drifting.rows(1).to_parquet(tmp_path / "old.parquet")
    drifting.rows(2, name="v").to_parquet(tmp_path / "same.parquet")
    drifting.rows(2, name="v").assign(value=5.0).drop(columns="text").to_csv(
        tmp_path / "dear.csv", index=False
    )
    drifting.rows(1).drop(columns="text").to_csv(tmp_path / "old.csv.gz", index=False)
    items = drifting.items().assign(
        categories=[cell[0] + "|thing" for cell in drifting.items()["categories"]]
    )
    items.to_csv(tmp_path / "items.csv", index=False)
    return tmp_path


def judged(folder: Path, old: str, new: str, items: str | None = None) -> dict[str, Any]:
    return compare(folder / old, folder / new, items and folder / items, drifting.settings(), 7).to_dict()


def test_parquet_and_csv_are_compared(folder: Path) -> None:
    same = judged(folder, "old.parquet", "same.parquet", "items.csv")
    assert (same["outcome"], same["drift"]) == ("ok", False)
    assert same["signals"]["categories"]["value"] is not None
    dear = judged(folder, "old.csv.gz", "dear.csv")
    assert (dear["outcome"], dear["drift"], dear["signals"]["values"]["flag"]) == ("ok", True, True)
    parquet = judged(folder, "old.parquet", "same.parquet")["signals"]["values"]
    drifting.rows(2, name="v").to_csv(folder / "same.csv", index=False)
    assert judged(folder, "old.csv.gz", "same.csv")["outcome"] == "bad_input"  # text in one table alone
    drifting.rows(2, name="v").drop(columns="text").to_csv(folder / "same.csv", index=False)
    assert judged(folder, "old.csv.gz", "same.csv")["signals"]["values"]["value"] == parquet["value"]


def test_least_tables_need_no_event_no_value_and_no_text(folder: Path) -> None:
    for name in ("old", "same"):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        least = frame[["user_id", "item_id", "timestamp"]]
        least.to_json(folder / f"{name}.jsonl", orient="records", lines=True, date_format="iso")
    found = judged(folder, "old.jsonl", "same.jsonl")
    assert found["outcome"] == "ok"
    assert found["signals"]["values"]["text"] == "Not tested: no values on a side"


def test_foreign_names_are_read_as_collect_would(folder: Path) -> None:
    names = {"user_id": "customer", "item_id": "sku", "timestamp": "ordered at", "value": "quantity"}
    columns = names | {"title": "name", "event": {"constant": "rating"}, "items.item_id": "sku"}
    for name in ("old", "same"):
        frame = pd.read_parquet(folder / f"{name}.parquet").drop(columns=["event", "text"])
        frame.rename(columns=names).to_csv(folder / f"{name}.csv", index=False, sep=";", decimal=",")
    files = Files(interactions=None, items=None, users=None, columns=columns, decimal=",")
    items = pd.read_csv(folder / "items.csv").rename(columns={"item_id": "sku", "title": "name"})
    items.to_csv(folder / "products.csv", index=False)
    found = compare(
        folder / "old.csv", folder / "same.csv", folder / "products.csv", drifting.settings(), 7, files
    ).to_dict()
    assert (found["outcome"], found["drift"]) == ("ok", False), found["text"]
    assert found["signals"]["values"]["value"] is not None
    assert found["signals"]["categories"]["value"] is not None
    unmapped = compare(folder / "old.csv", folder / "same.csv", None, drifting.settings(), 7).to_dict()
    assert unmapped["outcome"] == "bad_input"
    assert "collect.files.columns" in unmapped["text"]


HEAD = "user_id,item_id,timestamp,event,value,text\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.csv", "a,b\n1,2\n", "no column user_id, item_id, timestamp"),
        ("other.csv", "user_id,item,timestamp\n1,2,3\n", "it has user_id, item, timestamp:"),
        ("bad.jsonl", '{"user_id": "a"}\n{oops\n', "1 of 2 lines cannot be read, the first bad.jsonl:2"),
        ("when.csv", HEAD + "1,2,soon,view,1,\n", "column timestamp: 1 of 1"),
        ("value.csv", HEAD + "1,2,2024-01-01,view,x,\n", "column value: 1 of 1"),
        ("user.csv", HEAD + ",2,2024-01-01,view,1,\n", "column user_id: 1 of 1"),
        ("empty.csv", HEAD, "no rows"),
    ],
)
def test_a_bad_table_is_an_outcome(folder: Path, name: str, content: str, said: str) -> None:
    (folder / name).write_text(content)
    found = judged(folder, "old.parquet", name)
    assert (found["outcome"], found["drift"]) == ("bad_input", False)
    assert said in found["text"]


def test_a_file_that_is_not_there_or_of_no_kind_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"--current .*none.csv: no such file"):
        judged(folder, "old.parquet", "none.csv")
    for name, answer in {"old.doc": "unknown kind of file", "old.xls": "workbook: save it as"}.items():
        (folder / name).write_text("")
        with pytest.raises(ConfigError, match=answer):
            judged(folder, name, "old.parquet")


def evergreen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "drift", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(folder: Path) -> None:
    """With the committed settings these tables are small: an outcome, and no error."""
    sides = ["--reference", str(folder / "old.parquet"), "--current", str(folder / "same.parquet")]
    printed = evergreen(*sides, "--json")
    assert (printed.returncode, json.loads(printed.stdout)["outcome"]) == (0, "not_enough_data")
    for name in ("old", "same"):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        pd.concat([frame] * 2, ignore_index=True).to_parquet(folder / f"{name}.parquet")
    table = evergreen(*sides)
    assert table.returncode == 0
    assert "ok: No drift in the window" in table.stdout
    assert "Not tested: no champion" in table.stdout


def test_a_bad_table_ends_with_one_line(folder: Path) -> None:
    (folder / "no.csv").write_text("a,b\n1,2\n")
    sides = ["--reference", str(folder / "old.parquet"), "--current", str(folder / "no.csv")]
    printed = evergreen(*sides, "--json")
    assert (printed.returncode, json.loads(printed.stdout)["outcome"]) == (1, "bad_input")
    assert printed.stderr.startswith("error: ")
    assert printed.stderr.count("\n") == 1


def test_times_are_read_as_the_params_say_or_the_pattern_is_named(folder: Path) -> None:
    for name in ("old", "same"):
        rows = pd.read_parquet(folder / f"{name}.parquet").drop(columns="text")
        when = rows.pop("timestamp").dt.strftime("%d/%m/%Y %H:%M:%S")
        rows.assign(when=when).to_csv(folder / f"{name}.csv", index=False)
    format_ = "%d/%m/%Y %H:%M:%S"
    for timestamp, outcome in (("when", "bad_input"), ({"column": "when", "format": format_}, "ok")):
        files = Files(interactions=None, items=None, users=None, columns={"timestamp": timestamp})
        found = compare(folder / "old.csv", folder / "same.csv", None, drifting.settings(), 7, files)
        assert found.outcome == outcome
        assert (outcome == "ok") or f'"{format_}"' in found.text
