"""Last places drawn by chance: what is logged is how often it happens."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.exploration import PLACES, POOL, Draws, drawn, worths


def test_logged_propensities_are_frequencies() -> None:
    scores, runs = np.array([3.0, 2.5, 2.5, 1.0, -1.0]), 8_000
    generator = np.random.default_rng(1)
    seen = [drawn(worths(scores), generator) for _ in range(runs)]
    told = {tuple(rows): tuple(chances) for rows, chances in seen}
    counts = Counter(tuple(rows) for rows, _ in seen)
    assert len(told) == 5 * 4  # every ordered pair, each with one pair of propensities
    assert {(tuple(rows), tuple(chances)) for rows, chances in seen} == set(told.items())
    assert sum(np.prod(chances) for chances in told.values()) == pytest.approx(1)
    for rows, chances in told.items():
        chance = float(np.prod(chances))
        assert counts[rows] / runs == pytest.approx(chance, abs=4 * np.sqrt(chance / runs))
    firsts = Counter(rows[0] for rows in counts.elements())
    for row in range(5):
        first = next(chances[0] for rows, chances in told.items() if rows[0] == row)
        assert firsts[row] / runs == pytest.approx(first, abs=4 * np.sqrt(first / runs))


def test_chances_do_not_depend_on_the_scale_of_the_scores() -> None:
    scores = np.array([3.0, 2.5, 1.0, -1.0])
    np.testing.assert_allclose(worths(scores * 100 + 7), worths(scores))
    by_hand = np.exp((scores - scores.mean()) / scores.std() / 2)
    np.testing.assert_allclose(worths(scores), by_hand)
    np.testing.assert_allclose(worths(np.r_[scores, -np.inf]), np.r_[by_hand, 0])
    assert worths(np.full(3, 5.0)).tolist() == [1, 1, 1]


def test_no_more_than_there_is() -> None:
    generator = np.random.default_rng(1)
    assert drawn(np.array([2.0]), generator) == ([0], [1.0])
    assert drawn(np.zeros(0), generator) == ([], [])


def test_lists_of_the_service_explore_as_params_say(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    import served
    import yaml

    from pipeline.serve.engine import Engine
    from pipeline.serve.events import Store
    from pipeline.serve.messages import Question

    project = Path(shutil.copytree(served.once(tmp_path_factory), tmp_path / "project"))
    engine = Engine(project, Store(f"sqlite:///{project}/events.db"))
    engine.load()
    asked = Question(user_id="u20", k=6)
    best = [item.item_id for item in engine.recommend(asked)[0].items]
    params = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(
        yaml.safe_dump(params | {"serve": params["serve"] | {"exploration": 0.5}})
    )
    engine.renew_challenger()
    seen = [engine.recommend(asked, f"{number:032x}") for number in range(30)]
    explored = [answer.items for answer, _ in seen if answer.items[-1].propensity < 1]
    assert 5 < len(explored) < 25
    assert all([row.item_id for row in items[:-PLACES]] == best[:-PLACES] for items in explored)
    assert all([row.propensity for row in items[:-PLACES]] == [1.0] * 4 for items in explored)
    assert all(len({row.item_id for row in items}) == 6 for items in explored)
    assert len({row.item_id for items in explored for row in items[-PLACES:]}) > PLACES
    for answer, shown in seen:
        assert [place[3] for place in json.loads(shown.items)] == [row.propensity for row in answer.items]
    again = engine.recommend(asked, f"{7:032x}")[0]
    assert [row.item_id for row in again.items] == [row.item_id for row in seen[7][0].items]
    for other in (Question(user_id="u20", k=6, exclude=["i01"]), Question(user_id="u20", k=3)):
        for number in range(5):
            listed = engine.recommend(other, f"{number:032x}")[0].items
            assert {row.propensity for row in listed} == {1.0}
    assert POOL > PLACES
    engine.store.close()


def test_lists_are_drawn_by_what_the_version_brought_and_plainly_where_it_is_broken(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    import served

    from pipeline.serve.engine import Engine
    from pipeline.serve.events import Store
    from pipeline.serve.messages import Question

    project = served.exploring(tmp_path_factory, tmp_path)
    draws = Draws.by({"score": -1.0, "live_count": 1.0, "live_trend": -0.5, "live_age": 0.25})
    assert draws is not None
    served.admit(project, draws)
    engine = Engine(project, Store(f"sqlite:///{project}/events.db"))
    engine.load()
    engine.renew_challenger()
    assert engine.whole_problem is None
    asked = Question(user_id="u20", k=6)
    seen = [engine.recommend(asked, f"{number:032x}") for number in range(300)]
    assert {shown.model for _, shown in seen} == {draws.model}
    counts = Counter(answer.items[-PLACES].item_id for answer, _ in seen)
    told = {answer.items[-PLACES].item_id: answer.items[-PLACES].propensity for answer, _ in seen}
    for item, chance in told.items():
        assert counts[item] / 300 == pytest.approx(chance, abs=4 * np.sqrt(chance / 300))
    assert engine.recommend(Question(user_id="u20", k=6, exclude=["i01"]))[1].model == "champion"

    path = project / "models" / "champion" / "exploration.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    engine.renew()
    assert engine.world.draws == Draws()
    assert "models/champion/exploration.json" in str(engine.whole_problem)
    assert engine.recommend(asked)[1].model == "champion"

    served.admit(project, draws, of="another")
    engine.renew()
    assert engine.world.draws == Draws()
    assert "another model" in str(engine.whole_problem)
    served.admit(project, draws)
    engine.renew()
    assert engine.world.draws == draws
    assert engine.whole_problem is None
    engine.store.close()
