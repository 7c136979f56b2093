"""`evergreen bench serve` on a small world: every figure is there, nothing fails, feedback counts at once."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
for needed in ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy"):
    pytest.importorskip(needed)


def test_it_measures_a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.bench import serve

    for name, value in (("ITEMS", 2_000), ("ROWS", 20_000), ("USERS", 500)):
        monkeypatch.setenv(f"EVERGREEN_BENCH_{name}", str(value))
    monkeypatch.setattr(serve, "SECONDS", 2)
    monkeypatch.setattr(serve, "SWAPS", 2)
    told = serve.run()
    figures = told["figures"]
    assert told["conditions"]["items"] == 2_000
    assert {name: each["failed"] for name, each in figures.items() if "failed" in each} == {
        "lists_one_by_one": 0,
        "lists_at_100_a_second": 0,
        "texts_one_by_one": 0,
        "feedback_at_500_a_second": 0,
        "changed_list": 0,
        "lists_during_2_swaps": 0,
    }
    assert figures["lists_during_2_swaps"]["swaps"] == 2
    assert set(told["ratios"]) == {f"{name}_target" for name in serve.TARGETS}
