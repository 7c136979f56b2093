"""The command from a project's folder to its reports, with the tiny encoder."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests import tiny

CONTRACT = (
    "never",
    "every_window",
    "every_2nd",
    "max_age",
    "drift_only",
    "quality_only",
    "evidently_defaults",
)


@pytest.mark.slow
def test_backtest_writes_the_contracts_json_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.raw(tmp_path / "data" / "raw")
    tiny.params(tmp_path / "params.yaml", tiny.encoder(tmp_path / "encoder"))
    shutil.copy("dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / "mine.yaml").write_text("third: {every: 3}\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["backtest", "--windows", "4", "--policies", "mine.yaml", "--choose", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((tmp_path / "reports" / "backtest.json").read_text())
    assert {*CONTRACT, "default", "third", "calendar"} <= set(found["policies"])
    assert len(found["windows"]) == 4
    for policy in found["policies"].values():
        assert len(policy["ndcg@10"]) == 4
        assert len(policy["decisions"]) == 3
        assert {"mean", "trainings", "kept_gain"} <= set(policy)
    assert found["chosen"]["tried"]
    assert "Log of third" in (tmp_path / "reports" / "backtest.html").read_text()
    assert list((tmp_path / ".evergreen" / "backtest").glob("vectors-*.npy"))
