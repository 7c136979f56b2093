"""`evergreen bench serve` on a small world: every figure is there, nothing fails, feedback counts at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

for needed in ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy"):
    pytest.importorskip(needed)


@pytest.mark.slow
def test_it_measures_a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.bench import _peers, _served_peers, serve

    for name, value in (("ITEMS", 2_000), ("ROWS", 20_000), ("USERS", 500)):
        monkeypatch.setenv(f"EVERGREEN_BENCH_{name}", str(value))
    monkeypatch.setattr(serve, "SECONDS", 2)
    monkeypatch.setattr(serve, "ALONE", 30)
    monkeypatch.setattr(serve, "SWAPS", 2)
    monkeypatch.setattr(serve, "REQUESTS", 500)
    told = serve.run()
    figures = told["figures"]
    # Peers are asked where their environment is there.
    asked = ("service", *_served_peers.PEERS) if _peers.installed() else ()
    assert told["conditions"]["items"] == 2_000
    beside = {name: figures.pop(f"beside_{name}") for name in asked}
    assert {name: each["failed"] for name, each in figures.items() if "failed" in each} == {
        "lists_one_by_one": 0,
        "lists_at_100_a_second": 0,
        "texts_one_by_one": 0,
        "feedback_at_500_a_second": 0,
        "changed_list": 0,
        "soak": 0,
        "lists_during_2_swaps": 0,
    }
    assert figures["lists_during_2_swaps"]["swaps"] == 2
    assert figures["soak"]["answers"] == 500
    assert -0.2 < figures["soak"]["growth"] < 0.2
    ratios = {f"{name}_over_{peer}" for peer in set(beside) - {"service"} for name in _served_peers.RATIOS}
    assert set(told["ratios"]) == {f"{name}_target" for name in serve.TARGETS} | ratios
    for row in beside.values():
        assert (row["failed"], row["changed_unknown"]) == (0, 0)
        assert row["list_p50_ms"] <= row["list_p99_ms"]
        assert 0 < row["resident_gib"] <= row["peak_gib"]


@pytest.mark.parametrize("model", ["ials", "item_knn"])
def test_a_peers_list_knows_what_feedback_said(tmp_path: Path, model: str) -> None:
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender

    from pipeline.bench._served_peer import Lists, application

    pairs = [(user, item) for user in range(20) for item in range(12) if (user + item) % 2 == 0]
    user, item = np.array(pairs).T
    fitted = {
        "ials": AlternatingLeastSquares(factors=4, random_state=1, num_threads=1),
        "item_knn": CosineRecommender(K=5, num_threads=1),
    }[model]
    fitted.fit(sp.csr_matrix((np.ones(len(user)), (user, item))).tocsr(), show_progress=False)
    ids = np.array([f"i{number}" for number in range(12)])
    rows = pd.DataFrame({"user_id": [f"u{number}" for number in user], "item_id": ids[item]})
    live = {"recalculate_user": True} if model == "ials" else {}
    lists = Lists(fitted, ids, rows, {name: name.upper() for name in ids}, live)
    client = TestClient(application(lists, tmp_path / "events.jsonl"))

    def listed(k: int) -> list[str]:
        found = client.post("/recommend", json={"user_id": "new", "k": k}).json()["items"]
        assert [row["title"] for row in found] == [row["item_id"].upper() for row in found]
        return [str(row["item_id"]) for row in found]

    assert listed(3) == ["i0", "i1", "i2"]  # all are as popular
    event = {"event_id": "e", "user_id": "new", "item_id": "i1", "event": "rating", "value": 5}
    assert client.post("/feedback", json=event).status_code == 200
    assert set(listed(5)) == {"i3", "i5", "i7", "i9", "i11"}  # of its taste
    assert json.loads((tmp_path / "events.jsonl").read_text())["item_id"] == "i1"
