"""The gate's look at places left to chance: chances by hand, and wrong answers by simulation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.data.histories import Points, Prepared, load_prepared
from pipeline.data.impressions import impressions
from pipeline.evaluation import explored
from pipeline.evaluation.exploration import COLUMNS, FEATURES, PLACES, POOL, Draws, drawn, worths
from pipeline.evaluation.explored import Lists, compare
from pipeline.models.ranking import popularity_order
from pipeline.models.recommender import Recommender

ITEMS, USERS, K = 40, 120, 6
IDS = [f"i{item:02}" for item in range(ITEMS)]
PLAIN = Draws()


class Fixed:
    """Ranks by a score of each item, whoever asks."""

    def __init__(self, name: str, scores: np.ndarray) -> None:
        self.name, self.scores = name, scores.astype(np.float32)

    def candidates(self, points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for chunk in points.chunks(50):
            shape = len(chunk), ITEMS
            yield (
                np.broadcast_to(np.arange(ITEMS, dtype=np.int32), shape),
                np.broadcast_to(self.scores, shape),
            )

    def live_features(self, _: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        return np.zeros((*items.shape, len(names)), np.float32)


@pytest.fixture(scope="module")
def data() -> Prepared:
    return toy_log.prepared(IDS, [(f"u{user:03}", "i39", 0) for user in range(USERS)])


class Featured(Fixed):
    """With live features of its own for each item."""

    def live_features(self, _: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        own = np.random.default_rng(8).normal(size=(ITEMS, len(names))).astype(np.float32)
        return own[items]


def served(
    champion: Fixed, taste: np.ndarray, seed: int, lists: int = 300, day: float = 1, draws: Draws = PLAIN
) -> pd.DataFrame:
    """Lists that the champion made; `taste` (users, items): with which chance an item is taken."""
    generator = np.random.default_rng(seed)
    order = np.argsort(-champion.scores[:-1], kind="stable")  # everyone had the last item
    fixed, pool = np.split(order[: K - PLACES + POOL], [K - PLACES])
    features = champion.live_features(Any, pool, list(FEATURES))  # type: ignore[arg-type]
    worth, rows = draws.worths(champion.scores[pool], features), []
    for number in range(lists):
        user = int(generator.integers(USERS))
        places, chances = drawn(worth, generator)
        listed, propensity = np.r_[fixed, pool[places]], [1.0] * len(fixed) + chances
        for rank, (item, chance) in enumerate(zip(listed, propensity, strict=True), 1):
            taken = generator.random() < taste[user, item]
            rows.append((f"{number:04}", f"u{user:03}", rank, IDS[item], chance, taken))
    frame = pd.DataFrame(
        rows, columns=["impression_id", "user_id", "rank", "item_id", "propensity", "positive"]
    )
    moment = pd.Timestamp(toy_log.at(day), unit="us", tz="UTC")
    return frame.assign(timestamp=moment, version="v1", model=draws.model)


def told(
    shown: pd.DataFrame, data: Prepared, new: Fixed, old: Fixed, after: float = 0.5
) -> dict[str, object] | None:
    return compare(shown, data, new, old, "v1", toy_log.at(after), np.arange(ITEMS))


def models(seed: int, apart: float = 0.7) -> tuple[Fixed, Fixed]:
    generator = np.random.default_rng(seed)
    old = generator.normal(size=ITEMS)
    return Fixed("challenger", old + apart * generator.normal(size=ITEMS)), Fixed("champion", old)


def test_chances_are_those_of_the_service(data: Prepared) -> None:
    new, old = models(1)
    shown = served(old, np.full((USERS, ITEMS), 0.2), 1, lists=30)
    lists = Lists.of(shown, data, "v1", 0)
    assert lists is not None
    pool, scores = lists.pools(old, data, np.arange(ITEMS))
    np.testing.assert_allclose(lists.chances(pool, worths(scores)), lists.logged, rtol=1e-5)
    # Of the other model, by hand: the same items, by its scores.
    listed = shown[shown["impression_id"] == "0000"]["item_id"].str[1:].astype(int).tolist()
    above, (first, second) = listed[:-PLACES], listed[-PLACES:]
    drawn_from = [item for item in np.argsort(-old.scores) if item not in above and item != 39][:POOL]
    left = dict(zip(drawn_from, worths(new.scores[drawn_from]), strict=True))
    one = left[first] / sum(left.values())
    del left[first]
    found = lists.chances(pool, worths(lists.scores_of(new, pool)))
    np.testing.assert_allclose(found[:2], [one, left[second] / sum(left.values())], rtol=1e-5)


def test_what_a_model_does_not_name_stands_with_its_lowest(data: Prepared) -> None:
    new, old = models(1)
    lists = Lists.of(served(old, np.full((USERS, ITEMS), 0.2), 1, lists=5), data, "v1", 0)
    assert lists is not None
    pool, _ = lists.pools(old, data, np.arange(ITEMS))
    silent = Fixed("silent", np.where(np.isin(np.arange(ITEMS), pool[0, :3]), -np.inf, new.scores))
    worth = worths(lists.scores_of(silent, pool))[0]
    assert (worth[:3] == worth.min()).all()
    assert worth.max() > worth.min()
    nothing = worths(lists.scores_of(Fixed("nothing", np.full(ITEMS, -np.inf)), pool))
    assert (nothing == 1).all()


def test_only_places_of_chance_after_the_models_were_fitted_count(data: Prepared) -> None:
    new, old = models(1)
    shown = served(old, np.full((USERS, ITEMS), 0.2), 1)
    assert told(shown, data, new, old, after=2) is None
    assert told(shown.assign(propensity=1.0), data, new, old) is None
    assert told(shown.assign(model="interleaved:x"), data, new, old) is None
    assert told(shown.assign(version="v0"), data, new, old) is None
    found = told(shown, data, new, old)
    assert found is not None
    assert (found["places"], found["reproduced"]) == (600, 1.0)
    assert found["policy"]["lists"] == 300
    assert set(found["policy"]["weights"]) == set(COLUMNS)


def test_of_many_lists_the_newest_are_asked(data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explored, "MOST_LISTS", 20)
    new, old = models(1)
    early = served(old, np.full((USERS, ITEMS), 0.2), 1, lists=30)
    late = served(old, np.ones((USERS, ITEMS)), 2, lists=20, day=2)
    found = told(pd.concat([late.assign(impression_id="l" + late["impression_id"]), early]), data, new, old)
    assert found is not None
    assert (found["places"], found["taken"]) == (2 * 20, 1.0)


def test_a_better_and_a_worse_model_are_told_apart(data: Prepared) -> None:
    quality = np.random.default_rng(3).uniform(0.02, 0.6, ITEMS)
    good, bad = Fixed("good", quality), Fixed("bad", -quality)
    plain = Fixed("champion", np.random.default_rng(4).normal(size=ITEMS))
    shown = served(plain, np.tile(quality, (USERS, 1)), 5, lists=600)
    answers = {model.name: told(shown, data, model, plain) for model in (good, bad, plain)}
    assert {name: found and found["answer"] for name, found in answers.items()} == {
        "good": "better",
        "bad": "not better",
        "champion": "investigate",  # itself: no difference at all
    }


def test_lists_that_learned_weights_drew_are_asked_with_these_weights(data: Prepared) -> None:
    quality = np.random.default_rng(3).uniform(0.02, 0.6, ITEMS)
    plain = Featured("champion", np.random.default_rng(4).normal(size=ITEMS))
    weights = dict.fromkeys(COLUMNS, 0.8)
    draws = Draws.by(weights)
    assert draws is not None
    taste = np.tile(quality, (USERS, 1))
    both = [served(plain, taste, 5, lists=600, draws=draws), served(plain, taste, 6, lists=100)]
    shown = pd.concat([both[0], both[1].assign(impression_id="p" + both[1]["impression_id"])])
    good: Any = told(shown, data, Featured("good", quality), plain)
    assert (good["answer"], good["places"], good["reproduced"]) == ("better", 1_400, 1)
    itself: Any = told(shown, data, plain, plain)
    assert itself["difference"] == pytest.approx(0, abs=1e-9)  # both as they would draw plainly
    for wrong in (Draws().model, draws.model.replace("0.8", "0.1"), "explored:unknown"):
        found: Any = told(both[0].assign(model=wrong), data, Featured("good", quality), plain)
        assert found["reproduced"] < 0.9
        assert found["answer"] == found["policy"]["answer"] == "investigate"


def test_what_cannot_be_found_again_is_not_answered(data: Prepared) -> None:
    quality = np.random.default_rng(3).uniform(0.02, 0.6, ITEMS)
    plain = Fixed("champion", np.random.default_rng(4).normal(size=ITEMS))
    shown = served(plain, np.tile(quality, (USERS, 1)), 5, lists=600)
    other = Fixed("champion", np.random.default_rng(9).normal(size=ITEMS))  # not what made these lists
    found = told(shown, data, Fixed("good", quality), other)
    assert found is not None
    assert found["answer"] == "investigate"
    few = told(shown[shown["user_id"] < "u020"], data, Fixed("good", quality), plain)
    assert few is not None
    assert few["answer"] == "investigate"


@pytest.mark.parametrize("logs", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_models_that_earn_the_same_are_rarely_told_apart(data: Prepared, logs: int) -> None:
    """Whoever ranks them, a user takes all items alike: wrongly called better in at most 5 % of the logs."""
    answers: Counter[object] = Counter()
    covered = 0
    for seed in range(logs):
        new, old = models(1_000 + seed)
        taste = np.random.default_rng(seed).beta(1, 4, (USERS, 1)) * np.ones(ITEMS)
        found: Any = told(served(old, taste, seed, lists=200), data, new, old)
        answers[found["answer"]] += 1
        covered += found["low"] <= 0 <= found["high"]
    assert answers["better"] <= max(0.05 * logs, 2)
    assert answers["not better"] <= max(0.08 * logs, 3)
    assert covered >= 0.88 * logs


def test_the_evaluation_gives_the_chances_that_the_service_logged(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """A really trained champion: what it drew while it served, it would draw again from the tables."""
    pytest.importorskip("sqlalchemy")
    import served as service

    from pipeline.serve.engine import Engine
    from pipeline.serve.events import Row, Store
    from pipeline.serve.messages import Question

    project = service.exploring(tmp_path_factory, tmp_path)
    store = Store(f"sqlite:///{project}/events.db")
    engine = Engine(project, store)
    engine.load()
    engine.renew_challenger()
    lists = [engine.recommend(Question(user_id=f"u{user:02}", k=6))[1] for user in range(0, 40, 2)]
    store.show(lists)
    taken = [json.loads(each.items)[-1][0] for each in lists[:5]]
    rows = [
        Row(
            f"e{n}",
            str(lists[n].user_id),
            item,
            "click",
            None,
            None,
            engine.moment() + n,
            lists[n].impression_id,
        )
        for n, item in enumerate(taken)
    ]
    store.append([rows])
    shown = impressions(store.lists(), store.reactions())
    shown["positive"] = shown["event"].notna()
    prepared = load_prepared(project / "data/prepared")
    model = Recommender.load(project / "models/champion", prepared.catalogue.items, prepared.log, "champion")
    order = popularity_order(model.popularity, prepared.catalogue.ids)
    found: Any = compare(shown, prepared, model, model, str(model.version), 0, order)
    assert (found["places"], found["taken"]) == (2 * len(lists), len(taken) / (2 * len(lists)))
    assert found["reproduced"] == 1
    assert found["policy"] == {"answer": "investigate", "lists": len(lists), "users": len(lists)}
    points = prepared.test[:2]
    items = np.array([[0, 1, 2], [3, 4, -1]])
    columns = model.live_features(
        points, items, list(FEATURES)
    )  # as the service has them beside other candidates
    whole = model.parts.columns(
        next(iter(model.parts.ask(points))), np.arange(len(prepared.catalogue))[None].repeat(2, axis=0)
    )
    for place, name in enumerate(FEATURES):
        np.testing.assert_allclose(columns[0, :, place], whole[name][0, :3], rtol=1e-6)
    assert abs(found["difference"]) < 1e-3  # it is the same model
    store.close()
