"""The knowledge graph: from triples to the items' lists, columns and reasons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_log
from collecting import items, of_files, rejected, run, written

from pipeline.data.histories import Catalogue
from pipeline.errors import DataError
from pipeline.models.asked import Asked
from pipeline.models.graph import Graph
from pipeline.models.kinds import Kinds
from pipeline.serve.single import One, OneKinds

TRIPLES = (
    "a,directed_by,Ann",
    "b,directed_by,Ann",
    "Bo,acted in,b",
    "c,x:made_by,Bo",
    "d,sequel,a",
    "d,genre,g",
)


def collected(tmp_path: Path, *triples: str, header: str = "head,relation,tail", **changes: object) -> Path:
    rows = written(
        tmp_path / "x.csv",
        "user_id,item_id,timestamp",
        *(f"u,{i},158047200{n}" for n, i in enumerate("abcde")),
    )
    graph = written(tmp_path / "graph.csv", header, *triples)
    things = written(tmp_path / "items.csv", "item_id,title", *(f"{i},Item {i}" for i in "abcd"))
    return run(tmp_path, of_files(rows, items=things, relations=graph, **changes))


def test_triples_stand_with_the_items_that_they_are_of(tmp_path: Path) -> None:
    raw = collected(tmp_path, *TRIPLES, "e,directed_by,Ann", "a,directed_by,Ann", "Ann,born in,Rome")
    found = items(raw)
    assert found.loc["b", "graph_entities"] == ["Bo", "Ann"]
    assert found.loc["b", "graph_relations"] == ["acted in", "directed_by"]
    assert found.loc["a", "graph_entities"] == ["Ann", "d"]  # in either direction
    assert found.loc["e", "graph_entities"] == ["Ann"]  # which the table of items lacks
    assert found["title"].isna().tolist() == [False] * 4 + [True]
    counts = json.loads((raw / "manifest.json").read_text())["relation_rows"]
    assert counts == {"kept": 8, "duplicates": 1, "without_item": 1}
    [finding] = json.loads((raw / "manifest.json").read_text())["findings"]
    assert (finding["kind"], finding["figure"]) == ("relations_not_joined", 7 / 8)
    assert "'Ann' 'born in' 'Rome'" in finding["examples"]
    joined = json.loads((collected(tmp_path / "joined", *TRIPLES) / "manifest.json").read_text())
    assert (joined["findings"], joined["relation_rows"]["without_item"]) == ([], 0)


@pytest.mark.parametrize("described", [True, False])
def test_triples_of_which_none_names_an_item_stop_the_stage(tmp_path: Path, described: bool) -> None:
    """Ids in two notations: without a word the graph would say nothing."""
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", "u,007,1580472000", "u,012,1580472001")
    things = written(tmp_path / "items.csv", "item_id,title", "007,Seven", "012,Twelve")
    graph = written(tmp_path / "graph.csv", "head,relation,tail", "Ann,wrote,7", "Bo,wrote,12")
    with pytest.raises(DataError, match=r"relations: none of 2 triples .* 'Ann' and '7'.* leading zeros 100"):
        run(tmp_path, of_files(rows, items=things if described else None, relations=graph))


def test_without_a_table_of_relations_items_have_no_column_of_it(tmp_path: Path) -> None:
    rows = written(tmp_path / "x.csv", "user_id,item_id,timestamp", "u,a,1580472000")
    raw = run(tmp_path, of_files(rows))
    assert not [name for name in items(raw) if name.startswith("graph")]
    assert "relation_rows" not in json.loads((raw / "manifest.json").read_text())


def test_bad_triples_are_set_apart_and_too_many_stop_the_stage(tmp_path: Path) -> None:
    raw = collected(tmp_path, *TRIPLES, "a,,Ann", max_rejected_share=0.2)
    assert rejected(raw)[["table", "reason", "raw"]].to_numpy().tolist() == [
        ["relations", "no_relation", "a, , Ann"]
    ]
    with pytest.raises(
        DataError, match=r"relations: 1 of 2 rows are bad .* no tail 1; for example graph.csv:2"
    ):
        collected(tmp_path, "a,b,", "a,b,c", max_rejected_share=0.2)


def test_columns_are_mapped_like_those_of_other_tables(tmp_path: Path) -> None:
    names = {"head": "subject", "relation": "predicate", "tail": "object"}
    raw = collected(tmp_path, *TRIPLES, header="subject,predicate,object", columns=names)
    assert items(raw).loc["c", "graph_entities"] == ["Bo"]
    with pytest.raises(DataError, match=r"graph.csv: no column 'tail' for tail"):
        collected(tmp_path, "a,b", header="head,relation")


def asked(history: str, ids: str) -> tuple[Asked, np.ndarray]:
    prepared = toy_log.prepared(
        list(ids), [("u", item, day) for day, item in enumerate(history)], test=[("u", ids[0], 9)]
    )
    return Asked(prepared.test, len(ids)), np.arange(len(ids), dtype=np.int32)[None]


def catalogue(*triples: str) -> Catalogue:
    lists: dict[str, tuple[list[str], list[str]]] = {item: ([], []) for item in "abcde"}
    for head, relation, tail in (triple.split(",") for triple in triples):
        for item, entity in ((head, tail), (tail, head)):
            if item in lists:
                lists[item][0].append(relation)
                lists[item][1].append(entity)
    cells = zip(*lists.values(), strict=True)
    return toy_log.catalogue(
        "abcde", **dict(zip(("graph_relations", "graph_entities"), map(list, cells), strict=True))
    )


def test_a_pair_scores_by_the_rare_neighbours_that_it_shares() -> None:
    common = [f"{item},genre,drama" for item in "abcde"]
    graph = Graph.of(catalogue(*common, "a,by,Ann", "b,by,Ann", "d,sequel,c"))
    assert graph is not None
    question, every = asked("a", "abcde")
    close = dict(zip("abcde", graph.columns(question, every)["graph_5"][0], strict=True))
    assert close["a"] == pytest.approx(1, abs=1e-6)
    assert close["b"] > 2 * max(close["c"], close["d"], close["e"])
    question, every = asked("c", "abcde")
    close = dict(zip("abcde", graph.columns(question, every)["graph_30"][0], strict=True))
    assert close["d"] > 2 * close["b"]  # a link from item to item
    assert graph.columns(question, np.array([[3, -1]], np.int32))["graph_30"][0, 1] == 0


def test_columns_are_the_cosines_of_matrices() -> None:
    generator = np.random.default_rng(3)
    triples = {f"{'abcde'[a]},r{r},{e}" for a, r, e in generator.integers(0, (5, 2, 6), (30, 3))}
    graph = Graph.of(catalogue(*sorted(triples)))
    assert graph is not None
    question, every = asked("ace", "abcde")
    profile = (question.weights[5] @ graph.neighbours).toarray()[0]
    wanted = graph.neighbours @ (profile / np.linalg.norm(profile))
    np.testing.assert_allclose(graph.columns(question, every)["graph_5"][0], wanted, rtol=1e-5)


def test_the_reason_names_the_rarest_shared_neighbour() -> None:
    common = [f"{item},genre,drama" for item in "abcde"]
    graph = Graph.of(
        catalogue(*common, "a,film.film.directed_by,Ann", "b,film.film.directed_by,Ann", "d,sequel,c")
    )
    assert graph is not None
    assert graph.shared(np.array([0, 4]), 1) == ("directed by the same as", 0)
    assert graph.shared(np.array([2]), 3) == ("linked with", 2)
    assert graph.shared(np.array([3]), 2) == ("linked with", 3)
    assert graph.shared(np.array([4]), 1) == ("same genre as", 4)


def test_without_shared_neighbours_there_are_no_columns() -> None:
    plain = toy_log.catalogue("abcde")
    question, every = asked("a", "abcde")
    assert Graph.of(plain) is None
    assert Graph.of(catalogue("a,by,Ann", "b,by,Bo")) is None
    assert not [name for name in Kinds.of(plain).columns(question, every) if name.startswith("graph")]
    # A model that knows a graph reads zeros where the items have none; one that knows none leaves it out.
    of_model = Kinds.of(plain, ["graph_5", "ease_5"]).columns(question, every)
    assert not of_model["graph_5"].any()
    with_graph = catalogue("a,by,Ann", "b,by,Ann")
    assert not [
        name for name in Kinds.of(with_graph, ["ease_5"]).columns(question, every) if name.startswith("graph")
    ]


def test_lists_that_do_not_pair_are_refused() -> None:
    wrong = toy_log.catalogue("ab", graph_relations=[["r"], []], graph_entities=[["x"], ["y"]])
    with pytest.raises(DataError, match="item 'b' has lists of different lengths"):
        Graph.of(wrong)


def test_a_service_reads_the_same_columns_of_one_point() -> None:
    graph = catalogue("a,by,Ann", "b,by,Ann", "c,by,Ann", "d,sequel,c")
    vectors = [[1.0, 0.0], [0.5, 1.0], None, [0.0, 1.0], [1.0, 1.0]]
    items = Catalogue.of(graph.items.assign(look_vector=pd.Series(vectors, dtype=object)))
    kinds, (question, every) = Kinds.of(items), asked("abcd", "abcde")
    alone = One(question.points, 5)
    mine, theirs = OneKinds.one(kinds), [kinds.columns(question, every)]
    theirs += [each.columns(question, every, np.zeros(every.shape)) for each in kinds.modalities]
    found = [mine.columns(alone, every)]
    found += [each.columns(alone, every, np.zeros(every.shape)) for each in mine.modalities]
    assert [name for columns in found for name in columns if name.startswith(("graph", "vector"))] == [
        "graph_5",
        "graph_30",
        "vector_look_5",
        "vector_look_30",
        "vector_look_max",
    ]
    for one, other in zip(found, theirs, strict=True):
        for name, column in one.items():
            np.testing.assert_allclose(column, other[name], rtol=1e-5, atol=1e-6, err_msg=name)
