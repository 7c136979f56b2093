"""A policy for places left to chance, lived: a log teaches it, two answers admit it, it serves."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import served
import tiny
import yaml
from gate_by_hand import SETTINGS, evaluation, spoilt

pytest.importorskip("sqlalchemy")

from pipeline.data.histories import Prepared, load_prepared
from pipeline.data.impressions import impressions
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.simulation import LongTerm
from pipeline.evaluation.exploration import FEATURES, PLACES, Draws
from pipeline.evaluation.explored import CLOSE, Lists, compare
from pipeline.evaluation.learned import Explored, earned
from pipeline.evaluation.off_policy import mean_of
from pipeline.models.artifacts import folder_hash
from pipeline.models.ranking import popularity_order
from pipeline.models.recommender import Recommender
from pipeline.serve.engine import Engine
from pipeline.serve.events import Row, Store
from pipeline.serve.messages import Question
from pipeline.simulation import command
from pipeline.simulation.world import Behaviour, build
from pipeline.stages.decide_promotion import decide_promotion, read_model

USERS, ITEMS, ROWS, K, TASTES = 200, 40, 10, 8, 4
CHALLENGER, CHAMPION = Path("models/challenger"), Path("models/champion")


def likes(user: str, item: str) -> float:
    """With which chance an item is taken that stands on a list: those of one's tastes are."""
    return 0.6 if (int(item[1:]) - int(user[1:])) % TASTES < TASTES // 2 else 0.03


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two models that differ in nothing but their hash."""
    monkeypatch.setattr(tiny, "USERS", USERS)
    monkeypatch.setattr(tiny, "ITEMS", ITEMS)
    root = served.project(tmp_path / "project", ROWS, TASTES)
    shutil.copytree(root / CHAMPION, root / CHALLENGER)
    (root / CHALLENGER / "version.json").unlink()
    card = json.loads((root / CHALLENGER / "model.json").read_text())
    (root / CHALLENGER / "model.json").write_text(json.dumps(card | {"seed": 2}))
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["serve"]["exploration"], params["recommend"]["k"] = 1, K
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def log_of(root: Path, name: str, rounds: int) -> pd.DataFrame:
    """What the service shows everybody so often, and what they take of it."""
    store, chance = Store(f"sqlite:///{root}/{name}.db"), np.random.default_rng(len(name))
    engine = Engine(root, store)
    engine.load()
    engine.renew_challenger()
    users = [f"u{user:02}" for user in range(USERS)] * rounds
    asked = enumerate(users)
    lists = [engine.recommend(Question(user_id=user, k=K), f"{n:032x}")[1] for n, user in asked]
    store.show(lists)
    shown = [(each, str(place[0])) for each in lists for place in json.loads(each.items)]
    taken = [(each, item) for each, item in shown if chance.random() < likes(str(each.user_id), item)]
    rows = [
        Row(f"e{n}", str(each.user_id), item, "click", None, None, engine.moment() + n, each.impression_id)
        for n, (each, item) in enumerate(taken)
    ]
    store.append([rows])
    found = impressions(store.lists(), store.reactions())
    store.close()
    return found.assign(positive=found["event"].notna())


def asked_again(shown: pd.DataFrame, prepared: Prepared, model: Recommender) -> tuple[Explored, np.ndarray]:
    """(the lists as an estimator has them, (lists, pool) with which chance each item is taken)."""
    lists = Lists.of(shown, prepared, str(model.version), 0)
    assert lists is not None
    pool, scores = lists.pools(model, prepared, popularity_order(model.popularity, prepared.catalogue.ids))
    features = model.live_features(lists.points, pool, list(FEATURES))
    same = np.abs(lists.chances(pool, lists.worths(scores, features)) - lists.logged) <= CLOSE
    assert same.all()
    log, ids = lists.drawn(pool, scores, features, same), prepared.catalogue.ids
    taste = [[likes(user, ids[i]) for i in row] for user, row in zip(log.user, pool, strict=True)]
    return log, np.array(taste)


@pytest.mark.slow
def test_what_a_log_taught_and_a_simulation_confirmed_is_served_and_its_log_tells_its_worth(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})  # loops in this process
    monkeypatch.setattr("pipeline.simulation.calibration.SPLITS", 2)
    keen = Behaviour(examination=0.3)  # people who take much of the last places, too
    monkeypatch.setattr(command, "build", partial(build, behaviour=keen))
    prepared = load_prepared(project / "data/prepared")
    models = {
        name: Recommender.load(project / name, prepared.catalogue.items, prepared.log, name.name)
        for name in (CHALLENGER, CHAMPION)
    }
    hashes = {name.name: folder_hash(project / name) for name in models}
    order = popularity_order(models[CHAMPION].popularity, prepared.catalogue.ids)

    # A log of plain draws teaches, and its other half judges.
    shown = log_of(project, "plain", 7)
    assert set(shown["model"]) == {"champion"}
    found: Any = compare(shown, prepared, models[CHALLENGER], models[CHAMPION], "v1.0.0", 0, order)
    assert found["policy"]["answer"] == "better", found
    told = spoilt(evaluation(), "comparison", "off_policy", to=found) | {"artifact_hash": hashes}
    (project / "reports").mkdir()
    Evaluation.of(told | {"fit_end": models[CHALLENGER].fit_end}).write(project / "reports/evaluation.json")

    # The simulation plays it, and both admit it.
    assert command.is_due(project)
    report = command.simulate(project, 4)
    assert report.exploration is not None
    assert report.exploration.answer == "better", report.exploration
    assert not command.is_due(project)
    assert "Places left to chance" in (project / "reports/simulation.html").read_text()
    verdict = decide_promotion(
        Evaluation.read(project / "reports/evaluation.json"),
        *(read_model(project / name) for name in (CHALLENGER, CHAMPION)),
        SETTINGS,
        LongTerm.read(project / "data/simulation.json"),
    )
    assert verdict.exploration is not None
    assert verdict.exploration.admitted
    draws = Draws.by(verdict.exploration.weights)
    assert draws is not None

    # It serves beside its version, and its own log tells what it is worth, and what plain draws would be.
    shutil.rmtree(project / CHAMPION)
    shutil.copytree(project / CHALLENGER, project / CHAMPION)
    claim = {"version": "v2.0.0", "artifact_hash": hashes["challenger"]}
    (project / CHAMPION / "version.json").write_text(json.dumps(claim))
    served.admit(project, draws)
    shown = log_of(project, "learned", 3)
    assert set(shown["model"]) == {draws.model}
    model = Recommender.load(project / CHAMPION, prepared.catalogue.items, prepared.log, "champion")
    log, taste = asked_again(shown, prepared, model)
    learned = draws.worths(np.where(log.plain > 0, log.columns[:, :, 0], -np.inf), log.columns[:, :, 1:])
    sure = Explored(
        log.columns,
        log.plain,
        log.place,
        log.logged,
        np.take_along_axis(taste, log.place, axis=1),
        log.user,
    )
    nothing, true = np.zeros(taste.shape), []
    for worth in (learned, log.plain):
        each, weight = earned(log, worth, nothing)
        estimate = mean_of(each / PLACES, weight, log.user)
        true.append(float(earned(sure, worth, taste)[0].mean() / PLACES))
        assert estimate.low <= true[-1] <= estimate.high
        assert estimate.effective > 100
    assert true[0] > true[1]
