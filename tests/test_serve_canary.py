"""A challenger shown beside the champion: interleaved lists, and whose items people take."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import served
import yaml

pytest.importorskip("sqlalchemy")

from safetensors.numpy import load_file, save_file

from pipeline.data.impressions import impressions
from pipeline.evaluation import interleaved
from pipeline.evaluation.interleaved import INTERLEAVED, outcome
from pipeline.models.artifacts import folder_hash
from pipeline.serve.canary import in_share
from pipeline.serve.engine import Engine
from pipeline.serve.events import Impression, Row, Store
from pipeline.serve.interleaving import team_draft
from pipeline.serve.messages import Question

ONE, OTHER = [*"abcdefg"], [*"bacgfhe"]


def draft(seed: int, k: int = 6, one: list[str] = ONE, other: list[str] = OTHER) -> tuple[str, float]:
    """(the list, its probability as the propensities say)."""
    placed = team_draft(one, other, k, np.random.default_rng(seed))
    items = "".join((one, other)[team][place] for team, place, _ in placed)
    return items, float(np.prod([propensity for *_, propensity in placed]))


@pytest.mark.parametrize(("one", "other", "k"), [(ONE, OTHER, 6), (ONE, ONE, 7), ([*"ab"], [*"bcdea"], 5)])
def test_propensities_of_an_interleaved_list_are_its_frequencies(
    one: list[str], other: list[str], k: int
) -> None:
    runs = 4_000
    seen = [draft(seed, k, one, other) for seed in range(runs)]
    assert all(len(set(items)) == len(items) == k for items, _ in seen)
    counts, told = Counter(items for items, _ in seen), dict(seen)
    assert len(set(seen)) == len(told)  # one probability a list
    assert sum(told.values()) == pytest.approx(1)
    for items, chance in told.items():
        assert counts[items] / runs == pytest.approx(chance, abs=4 * np.sqrt(chance / runs))


def test_both_models_place_equally_many() -> None:
    for seed in range(50):
        teams = [team for team, *_ in team_draft(ONE, OTHER, 6, np.random.default_rng(seed))]
        assert sorted(teams) == [0, 0, 0, 1, 1, 1]
        assert all(set(teams[begin : begin + 2]) == {0, 1} for begin in (0, 2, 4))


def test_the_share_is_of_the_same_users() -> None:
    users = [f"u{number}" for number in range(4_000)]
    tenth, third = ({user for user in users if in_share(user, share)} for share in (0.1, 0.3))
    assert tenth < third
    assert len(tenth) / len(users) == pytest.approx(0.1, abs=0.02)
    assert not any(in_share(user, 0) for user in users)
    assert all(in_share(user, 1) for user in users)


def log_of(taste: float, seed: int, users: int = 60) -> pd.DataFrame:
    """Three lists a user, who takes an item of the champion with a chance of .15, of the other `taste`."""
    generator = np.random.default_rng(seed)
    lists, events = [], []
    for user in range(users):
        for number in range(3):
            placed = team_draft(ONE, OTHER, 6, generator)
            places = [
                [(ONE, OTHER)[team][place], rank, 0.5, chance, ("v1", "x")[team]]
                for rank, (team, place, chance) in enumerate(placed, 1)
            ]
            name = f"{user}-{number}"
            lists.append(Impression(name, 1, f"u{user}", "v1", f"{INTERLEAVED}x", None, json.dumps(places)))
            taken = [place for place in places if generator.random() < (0.15, taste)[place[4] == "x"]]
            events += [(name, place[0], 2, "click", None) for place in taken]
    reactions = pd.DataFrame(events, columns=["impression_id", "item_id", "timestamp", "event", "value"])
    shown = impressions(pd.DataFrame(lists), reactions)
    return shown.assign(positive=shown["event"].notna())


def test_whose_items_people_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "SAMPLES", 300)
    found = outcome(log_of(0.35, 1))
    assert found is not None
    assert (found["champion"], found["challenger"], found["lists"], found["users"]) == ("v1", "x", 180, 60)
    assert found["taken"]["challenger"] > found["taken"]["champion"] > 0
    assert found["difference"] == pytest.approx(
        (found["taken"]["challenger"] - found["taken"]["champion"]) / 180
    )
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["answer"] == "better"
    worse, few = outcome(log_of(0.02, 1)), outcome(log_of(0.35, 1, users=10))
    assert worse is not None
    assert worse["answer"] == "not better"
    assert few is not None
    assert few["answer"] == "investigate"


@pytest.mark.parametrize("logs", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_equal_models_are_rarely_called_better(logs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "SAMPLES", 300)
    answers = Counter((outcome(log_of(0.15, seed)) or {})["answer"] for seed in range(logs))
    assert answers["better"] <= max(0.05 * logs, 2)
    assert answers["investigate"] >= 0.88 * logs


def test_lists_of_an_earlier_pair_do_not_count() -> None:
    shown = log_of(0.35, 1)
    older = shown.assign(
        impression_id="old-" + shown["impression_id"],
        model=f"{INTERLEAVED}older",
        timestamp=shown["timestamp"].min(),
    )
    found = outcome(pd.concat([older, shown], ignore_index=True))
    assert found is not None
    assert found["lists"] == shown["impression_id"].nunique()
    assert outcome(shown.assign(model="champion")) is None


# In the service


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """With a challenger that ranks the other way round, shown to everyone."""
    root = Path(shutil.copytree(served.once(tmp_path_factory), tmp_path / "project"))
    folder = Path(shutil.copytree(root / "models/champion", root / "models/challenger"))
    (folder / "version.json").unlink()
    arrays = load_file(folder / "parts.safetensors")
    both = {f"scorer.{name}.weight" for name in ("linear", "mlp.4")}
    turned = {name: -array if name in both else array for name, array in arrays.items()}
    save_file(turned, folder / "parts.safetensors")
    judged(root)
    share(root, 1)
    return root


def judged(root: Path, passed: bool = True, digest: str | None = None) -> None:
    """By the gate, which refuses it, but not for a sure loss if it `passed`."""
    checks = [
        {"name": "headline", "passed": passed, "text": ""},
        {"name": "users", "passed": False, "text": "few"},
    ]
    challenger = {"artifact_hash": digest or folder_hash(root / "models/challenger")}
    (root / "reports").mkdir(exist_ok=True)
    verdict = {"promote": False, "checks": checks, "challenger": challenger}
    (root / "reports/promotion.json").write_text(json.dumps(verdict))


def share(root: Path, value: float) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(
        yaml.safe_dump(params | {"serve": params["serve"] | {"challenger_share": value}})
    )


@pytest.fixture
def engine(project: Path) -> Iterator[Engine]:
    found = Engine(project, Store(f"sqlite:///{project}/events.db"))
    found.load()
    yield found
    found.close()
    found.store.close()


def test_a_list_of_both_says_who_placed_what(engine: Engine) -> None:
    alone = [item.item_id for item in engine.recommend(Question(user_id="u20", k=24))[0].items]
    engine.renew_challenger()
    assert engine.challenger is not None
    answer, shown = engine.recommend(Question(user_id="u20", k=6), number="5" * 32)
    again, same = engine.recommend(Question(user_id="u20", k=6), number="5" * 32)
    assert [item.item_id for item in again.items] == [item.item_id for item in answer.items]
    assert [place[3:] for place in json.loads(same.items)] == [place[3:] for place in json.loads(shown.items)]
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5, 6]
    assert (shown.version, shown.model) == ("v1.0.0", INTERLEAVED + engine.challenger)
    places = json.loads(shown.items)
    assert Counter(place[4] for place in places) == {"v1.0.0": 3, engine.challenger: 3}
    assert [place[3] for place in places] == [item.propensity for item in answer.items]
    of_champion = [place[0] for place in places if place[4] == "v1.0.0"]
    assert of_champion == sorted(of_champion, key=alone.index)
    assert {place[0] for place in places} != set(alone[:6])


def test_a_setting_that_cannot_be_is_a_problem_by_its_name(engine: Engine, project: Path) -> None:
    share(project, 2)
    engine.renew_challenger()
    assert "serve.challenger_share" in str(engine.whole_problem)
    share(project, 0)
    engine.renew_challenger()
    assert engine.whole_problem is None


def test_who_is_not_of_the_share_gets_the_champions_list(engine: Engine, project: Path) -> None:
    engine.renew_challenger()
    for question in (Question(text="red thing"), Question(history=[{"item_id": "i01"}])):  # type: ignore[list-item]
        assert engine.recommend(question)[1].model == "champion"
    share(project, 0.5)
    engine.renew_challenger()
    models = {
        user: engine.recommend(Question(user_id=user))[1].model for user in ("u20", "u21", "u22", "u23")
    }
    assert {user for user, model in models.items() if model != "champion"} == {
        user for user in models if in_share(user, 0.5)
    }
    share(project, 0)
    engine.renew_challenger()
    assert engine.challenger is None
    assert engine.recommend(Question(user_id="u20"))[1].model == "champion"


def test_feedback_is_in_the_next_interleaved_list(engine: Engine) -> None:
    engine.renew_challenger()
    first = [item.item_id for item in engine.recommend(Question(user_id="u20", k=24))[0].items]
    now = engine.moment()
    engine.store.append(
        [[Row(f"e{item}", "u20", item, "click", None, None, now, None) for item in first[:3]]]
    )
    second = [item.item_id for item in engine.recommend(Question(user_id="u20", k=24))[0].items]
    assert not set(first[:3]) & set(second)
    engine.store.put_item(second[0], None, engine.moment())
    assert second[0] not in [
        item.item_id for item in engine.recommend(Question(user_id="u20", k=24))[0].items
    ]
    engine.store.put_item("new", {"title": "red thing number 99", "categories": ["red"]}, engine.moment())
    engine.follow()
    engine.renew()
    engine.renew_challenger()
    assert engine.challenger is not None
    assert "new" in [item.item_id for item in engine.recommend(Question(user_id="u20", k=24))[0].items]


def test_a_challenger_that_cannot_be_shown_fails_no_request(engine: Engine, project: Path) -> None:
    file = project / "models/challenger/parts.safetensors"
    whole = file.read_bytes()
    file.write_bytes(b"half a file")
    judged(project)
    engine.renew_challenger()
    assert engine.challenger is None
    assert "not shown" in str(engine.whole_problem)
    assert engine.recommend(Question(user_id="u20"))[1].model == "champion"
    file.write_bytes(whole)
    judged(project)
    engine.renew_challenger()
    assert engine.recommend(Question(user_id="u20"))[1].model != "champion"
    bound = engine._canary.bound
    assert bound is not None
    bound.lister = None  # type: ignore[assignment]
    assert engine.recommend(Question(user_id="u20"))[1].model == "champion"
    assert engine.challenger is None
    shutil.rmtree(project / "models/challenger")
    engine.renew_challenger()
    assert engine.recommend(Question(user_id="u20"))[1].model == "champion"
    assert engine.whole_problem is None  # none is there during a training, which is as it should be


@pytest.mark.parametrize(
    "what", ["the champion", "replaced", "older", "not judged", "another was judged", "surely worse"]
)
def test_what_awaits_no_promotion_is_not_shown(engine: Engine, project: Path, what: str) -> None:
    folder = project / "models/challenger"
    if what == "the champion":
        shutil.copy(project / "models/champion/parts.safetensors", folder)
    elif what == "replaced":
        known = {"version": "v2.0.0", "status": "retired", "artifact_hash": folder_hash(folder)}
        told = {"champion": "v1.0.0", "versions": [known], "trainings": []}
        (project / "data/registry.json").write_text(json.dumps(told))
    elif what == "older":
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(card | {"fit_end": "2019-01-01T00:00:00+00:00"}))
    if what == "not judged":
        (project / "reports/promotion.json").unlink()
    else:
        judged(project, what != "surely worse", "0" * 64 if what == "another was judged" else None)
    engine.renew_challenger()
    assert engine.challenger is None
    assert engine.whole_problem is None
