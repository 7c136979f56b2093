"""`evergreen bench diversity` on a tiny champion: the more of it, the less alike a list."""

from __future__ import annotations

from pathlib import Path

import pytest
import served

pytest.importorskip("sqlalchemy")

from pipeline.bench import diversity
from pipeline.errors import DataError


def test_it_tells_what_a_diverse_list_costs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = served.once(tmp_path_factory)
    monkeypatch.chdir(project)
    monkeypatch.setenv("EVERGREEN_BENCH_POINTS", "20")
    before = sorted(path for path in project.rglob("*") if path.is_file() and ".evergreen" not in path.parts)
    told = diversity.run()
    rows = told["figures"]
    assert list(rows) == [f"{each:g}" for each in diversity.DIVERSITIES]
    assert told["conditions"]["points"] == 20
    assert rows["0"]["ndcg"] > 0
    assert (rows["0"]["ndcg_minus"], rows["0"]["pair_low"], rows["0"]["pair_high"]) == (0, 0, 0)
    for row in rows.values():
        assert row["ndcg_minus"] == pytest.approx(row["ndcg"] - rows["0"]["ndcg"])
        assert row["pair_low"] <= row["ndcg_minus"] <= row["pair_high"]
    assert rows["1"]["categories"] >= rows["0"]["categories"]
    assert rows["1"]["text"] > rows["0"]["text"]
    after = sorted(path for path in project.rglob("*") if path.is_file() and ".evergreen" not in path.parts)
    assert after == before  # nobody was shown anything


def test_it_asks_the_champion_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="leave it out"):
        diversity.run(tmp_path)
    with pytest.raises(DataError, match="evergreen cycle"):
        diversity.run()
