"""The pandas steps make the stage's tables, so the bench compares like with like."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.bench import _pandas_steps
from pipeline.bench import preprocess as bench
from pipeline.params import Params
from pipeline.stages import preprocess

TABLES = ("train", "validation", "test_interactions", "validation_points", "test")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEW": 3000, "MANY": 6000, "USERS": 60, "ITEMS": 200, "MONTHS": 3}.items():
        monkeypatch.setattr(bench, name, value)


def test_pandas_makes_the_same_tables(tmp_path: Path, small: None) -> None:
    raw = bench.synthetic(tmp_path / "raw", bench.FEW)
    preprocess.main(raw, tmp_path / "prepared", Path("params.yaml"))
    found = _pandas_steps.steps(raw, Params.load(Path("params.yaml")).preprocess)
    for name in TABLES:
        wanted = pd.read_parquet(tmp_path / "prepared" / f"{name}.parquet")
        assert len(wanted) > 20
        told = found[name].reset_index(drop=True)
        pd.testing.assert_frame_equal(told[wanted.columns.tolist()], wanted, check_dtype=False)


@pytest.mark.slow
def test_it_measures_whole_processes(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)  # Spark takes half a minute to start
    found = json.loads(json.dumps(bench.run()))
    assert found["ratios"]["pandas_cpu_over_stage"] > 0
    assert all(figure["peak_gib"] > 0.05 for figure in found["figures"].values())


@pytest.mark.slow
def test_spark_is_measured_beside_the_delivered_engine(small: None) -> None:
    pytest.importorskip("pyspark")
    found = bench.run()
    assert found["figures"]["spark"]["wall_seconds"] > 0
    assert found["ratios"]["spark_wall_over_stage"] > 1  # a few rows: nothing but Spark's start
