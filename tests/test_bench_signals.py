"""What signals bring: shuffled copies keep all but the items; a planted signal is found, noise is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import toy_log

from pipeline.bench import signals as bench
from pipeline.data.histories import Prepared
from pipeline.evaluation.paid import paid
from pipeline.models.baselines import train_rows
from pipeline.training.recipe import light

GENERATOR = np.random.default_rng(7)


def described(**columns: list[object]) -> bench.Inputs:
    return bench.Inputs(toy_log.catalogue("abcd", **columns).items, np.eye(4, dtype=np.float32))


def test_the_signals_are_those_that_the_data_have() -> None:
    prepared = toy_log.prepared("abcd", [("u", "a", 0.0)])
    assert list(bench.signals(prepared, np.zeros((4, 2)))) == ["live_state"]
    full = described(categories=[["x"], [], [], []], graph_relations=[[]] * 4, graph_entities=[[]] * 4)
    full.items["look_vector"] = pd.Series([[1.0], None, None, None], dtype=object)
    known = replace(prepared, catalogue=replace(prepared.catalogue, items=full.items))
    found = bench.signals(known, np.ones((4, 2)))
    assert list(found) == ["text", "categories", "graph", "look", "live_state"]
    without = {name: signal.without(full, GENERATOR) for name, signal in found.items()}
    gone = {
        name: set(full.items) - set(inputs.items) for name, inputs in without.items() if len(inputs.items)
    }
    assert gone["categories"] == {"categories"}
    assert gone["graph"] == {"graph_relations", "graph_entities"}
    assert gone["look"] == {"look_vector"}
    assert without["text"].vectors is None
    assert without["live_state"].until == prepared.train_end + 1


def test_a_shuffled_graph_keeps_relations_and_how_often_each_entity_is_named() -> None:
    relations = [["by", "in"], ["by"], ["by", "in", "in"], []]
    entities = [["Ann", "x"], ["Bo"], ["Ann", "y", "z"], []]
    before = described(graph_relations=relations, graph_entities=entities)
    found = [bench._other_tails(before, np.random.default_rng(seed)).items for seed in range(5)]
    for items in found:
        assert items["graph_relations"].tolist() == relations
        pairs = zip(items["graph_relations"].sum(), items["graph_entities"].sum(), strict=True)
        wanted = {("by", "Ann"): 2, ("by", "Bo"): 1, ("in", "x"): 1, ("in", "y"): 1, ("in", "z"): 1}
        assert Counter(pairs) == wanted
    assert any(items["graph_entities"].tolist() != entities for items in found)


def test_shuffled_columns_and_texts_stay_with_those_that_have_any() -> None:
    cells = [["x"], [], ["y", "z"], ["x"]]
    before = described(categories=cells)
    after = bench._of_columns("categories").shuffled(before, np.random.default_rng(1))  # type: ignore[misc]
    dealt = after.items["categories"].tolist()
    assert dealt[1] == []
    assert sorted(dealt) == sorted(cells)
    some = before.but(vectors=np.diag([1.0, 0.0, 2.0, 3.0]).astype(np.float32))
    vectors = bench._other_texts(some, np.random.default_rng(3)).vectors
    assert vectors is not None
    assert not vectors[1].any()
    assert sorted(vectors.sum(axis=1)) == [0, 1, 2, 3]


def world(seed: int, users: int = 150, stock: int = 300, rows: int = 30) -> tuple[Prepared, np.ndarray]:
    """(rows of users who take what lies near their taste of what there is by then, item vectors)."""
    generator = np.random.default_rng(seed)
    vectors, taste = generator.normal(size=(stock, 16)), generator.normal(size=(users, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    begin = np.sort(generator.uniform(-20, 100, stock))
    taken, had = [], set[tuple[int, int]]()
    for day in np.sort(generator.uniform(0, 100, users * rows)):
        user = int(generator.integers(users))
        there = [
            item for item in np.flatnonzero((begin < day) & (begin > day - 40)) if (user, item) not in had
        ]
        chance = np.exp(8 * vectors[there] @ taste[user])
        item = int(generator.choice(there, p=chance / chance.sum()))
        had.add((user, item))
        taken.append((f"u{user:03}", f"i{item:03}", float(day)))
    cut = int(0.7 * len(taken))
    ids = [f"i{item:03}" for item in range(stock)]
    return toy_log.prepared(ids, taken[:cut], taken[cut : cut + 1], taken[cut + 1 :]), vectors


@pytest.mark.slow
def test_a_report_says_what_each_kind_of_column_adds() -> None:
    prepared, vectors = world(4, users=100, stock=150, rows=25)
    items = prepared.catalogue.items.assign(look_vector=[list(map(float, row)) for row in vectors])
    catalogue = replace(prepared.catalogue, items=items)
    model = light(prepared.log, train_rows(prepared.log), catalogue, None, 4)
    assert "vector_look_5" in model.card["features"]
    found = paid(model, prepared.test, 200, 4)
    assert {"look", "live state", "taken together"} <= set(found)
    assert "other" not in found
    assert found["look"]["low"] > 0
    values = [row["ndcg@10"] for row in found.values()]
    assert values == sorted(values, reverse=True)
    place = [name.startswith("vector_look") for name in model.card["features"]]
    model.scorer.weights["linear.weight"][:, place] = 0
    assert paid(model, prepared.test, 200, 4)["look"] == {"ndcg@10": 0, "low": 0, "high": 0}
    assert paid(model, prepared.test[:0], 200, 4) == {}


@pytest.mark.slow
def test_a_planted_modality_pays_and_noise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SEEDS", 1)
    prepared, vectors = world(3)
    noise = np.random.default_rng(4).normal(size=vectors.shape)
    columns = {"look_vector": vectors, "noise_vector": noise}
    lists = {name: [list(map(float, row)) for row in cells] for name, cells in columns.items()}
    catalogue = replace(prepared.catalogue, items=prepared.catalogue.items.assign(**lists))
    found = bench.of_world(replace(prepared, catalogue=catalogue), np.zeros((len(catalogue), 2)), 3)
    look, none = found["look"], found["noise"]
    assert look["low"] > 0.3 * look["ndcg@10"]
    assert look["over_shuffled_low"] > 0.3 * look["ndcg@10"]
    assert abs(none["gain"]) < 0.005 * none["ndcg@10"]
    assert found["live_state"]["over_shuffled"] is None
