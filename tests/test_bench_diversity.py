"""`evergreen bench diversity` on a tiny champion: the more of it, the less alike a list."""

from __future__ import annotations

from pathlib import Path

import pytest
import served

pytest.importorskip("sqlalchemy")

from pipeline.bench import diversity
from pipeline.bench._asked import number_of
from pipeline.errors import ConfigError, DataError


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


@pytest.mark.parametrize("given", ["abc", "0", "-3", "2.5", "²"])
def test_a_size_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """-3 would be all points but three."""
    monkeypatch.setenv("EVERGREEN_BENCH_POINTS", given)
    with pytest.raises(ConfigError, match="EVERGREEN_BENCH_POINTS"):
        number_of("POINTS", 7)


def test_a_size_that_nobody_names_is_the_benchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_BENCH_POINTS", "")
    assert number_of("POINTS", 7) == 7
    monkeypatch.setenv("EVERGREEN_BENCH_POINTS", "20")
    assert number_of("POINTS", 7) == 20
