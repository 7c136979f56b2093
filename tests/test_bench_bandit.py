"""`evergreen bench bandit`: each of two policies told from the other's log; made-up logs and real ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.bench import bandit as bench
from pipeline.errors import ConfigError

ITEMS, ROWS = 10, 6_000
QUALITY = np.linspace(0.02, 0.2, ITEMS)


def write_logs(folder: Path) -> Path:
    """As the wheel has them; Thompson sampling prefers the items that people click."""
    generator, alpha = np.random.default_rng(1), 40 * QUALITY
    prior = {"alpha": alpha.tolist(), "beta": (40 - alpha).tolist()}
    (folder / bench.PRIORS).parent.mkdir(parents=True)
    (folder / bench.PRIORS).write_text(yaml.safe_dump(dict.fromkeys(bench.CAMPAIGNS, prior)))
    sampled = bench.thompson(alpha, 40 - alpha)
    for policy, chance in (("random", np.full_like(sampled, 1 / ITEMS)), ("bts", sampled)):
        place = generator.integers(bench.PLACES, size=ROWS)
        item = (generator.random((ROWS, 1)) > chance.cumsum(axis=0).T[place]).sum(axis=1).clip(max=ITEMS - 1)
        columns = {
            "item_id": item,
            "position": place + 1,
            "click": (generator.random(ROWS) < QUALITY[item]).astype(int),
            "propensity_score": chance[item, place],
        }
        for campaign in bench.CAMPAIGNS:
            path = folder / bench.LOGS / policy / campaign / f"{campaign}.csv"
            path.parent.mkdir(parents=True)
            pd.DataFrame(columns).to_csv(path)
    return folder


def holds(row: dict[str, Any], value: float) -> bool:
    return bool(row["low"] <= value <= row["high"])


def test_each_policy_is_told_from_the_others_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "DRAWS", 40_000)
    result = bench.run(write_logs(tmp_path / "obp"))
    figures = {name.removeprefix("men_"): row for name, row in result["figures"].items() if "men_" in name}
    sampled = bench.thompson(40 * QUALITY, 40 - 40 * QUALITY)
    truth = {"random": QUALITY.mean(), "thompson": (sampled * QUALITY[:, None]).sum(axis=0).mean()}
    for name, value in truth.items():
        for kind in ("clicks", "ips", "snips", "doubly_robust"):
            assert holds(figures[f"{name}_{kind}"], value), (name, kind)
    for kind in ("difference", "difference_without_random", "difference_without_thompson"):
        assert holds(figures[kind], truth["thompson"] - truth["random"])
    assert figures["difference_without_thompson"]["answer"] == "better"
    assert 0 < figures["thompson_snips"]["effective"] < ROWS
    assert result["ratios"]["men_thompson_snips"] == pytest.approx(1, abs=0.2)


def test_without_the_files_it_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"obp==0\.4\.1"):
        bench.run(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("obp") is None, reason="Open Bandit's logs lie in the wheel obp")
def test_real_logs_give_the_answers_that_are_known() -> None:
    result = bench.run()
    figures = result["figures"]
    clicks = {"all": (0.0038, 0.0042), "men": (0.0046, 0.0069), "women": (0.0046, 0.0046)}
    for campaign, known in clicks.items():
        told = tuple(figures[f"{campaign}_{name}_clicks"]["value"] for name in bench.POLICIES)
        assert told == pytest.approx(known)
    # The rest is chance: of twelve estimates one may lie further than two errors from what was earned.
    assert sorted(row.get("apart", 0) for row in figures.values())[-2] < 2
    assert result["ratios"]["ips_over_published"] == pytest.approx(1, abs=0.02)
    assert result["ratios"]["doubly_robust_over_published"] == pytest.approx(1, abs=0.05)
