"""The service and its OpenAPI agree: what may be sent is taken, what may not is a problem, never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import served

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("sqlalchemy")

from fastapi.testclient import TestClient
from waiting import until

from pipeline.data import tables
from pipeline.serve.app import create
from pipeline.serve.changes import with_changes
from pipeline.serve.events import Change


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db"
    with TestClient(create(served.once(tmp_path_factory), store)) as found:
        until(lambda: found.get("/health").status_code == 200)
        yield found


def test_every_call_says_its_problems(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    schemas = told["components"]["schemas"]
    assert {"type", "title", "status", "detail"} <= set(schemas["Problem"]["properties"])
    for path, item in told["paths"].items():
        for operation in item.values():
            answers = operation["responses"]
            assert {"200", "401", "429", "503"} <= set(answers), path
            assert path == "/health" or list(answers["503"]["content"]) == ["application/problem+json"]
    assert {"404", "422"} <= set(told["paths"]["/items/{item_id}"]["delete"]["responses"])
    for name in ("Question", "Event", "Item", "Answer", "Problem"):
        assert schemas[name]["examples"], name


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/items/i90", {"title": "x", "size": {}}, "size"),
        ("/items/i90", {"title": "x", "sizes": [{}]}, "sizes"),
        ("/items/i90", {"title": "x", "tags": 5}, "tags"),
        ("/items/i90", {"title": "x", "tag_times": ["2020-01-01"]}, "tag_times"),
        ("/items/i90", {"title": "x", "item_text": "y"}, "item_text"),
        ("/items/i90", {"title": "x", "": 1}, "a column's name"),
        ("/items/i90", {"title": "x", "relations": ["a"]}, "relations: relations come with the source"),
        ("/items/i90", {"title": "x", "cover_vector": "0.1|0.2"}, "cover_vector: a vector is a list"),
        (
            "/items/i90",
            {"title": "x", "cover_vector": [0.1, 0.2]},
            "cover_vector: no item in service has one",
        ),
        (
            "/feedback",
            {"event_id": "o1", "user_id": "u", "item_id": "i01", "event": "x", "value": True},
            "value",
        ),
        ("/recommend", {"user_id": "u20", "k": "5"}, "k"),
    ],
)
def test_what_would_be_misread_is_refused(
    client: TestClient, path: str, body: dict[str, object], field: str
) -> None:
    answer = client.request("PUT" if path.startswith("/items") else "POST", path, json=body)
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


def test_a_path_without_the_method_names_those_that_it_has(client: TestClient) -> None:
    answer = client.get("/items/i01")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, PUT")
    assert answer.headers["content-type"] == "application/problem+json"
    answer = client.put("/items/i01/similar", json={"title": "x"})  # no item of the id i01/similar
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_columns_of_several_kinds_can_be_kept(tmp_path: Path) -> None:
    """What one caller puts never keeps the table from being written, whatever others put."""
    month = pd.Timestamp("2020-01-01", tz="UTC")
    items = pd.DataFrame(
        {
            tables.ITEM: ["a", "b"],
            tables.TITLE: ["A", "B"],
            tables.TEXT: pd.Series([None] * 2, dtype="str"),
            tables.CATEGORIES: [["x"], []],
            tables.AVAILABLE_FROM: pd.Series([pd.NaT] * 2, dtype=tables.MOMENT),
            tables.AVAILABLE_UNTIL: pd.Series([pd.NaT] * 2, dtype=tables.MOMENT),
            tables.TAGS: [["old"], []],
            tables.TAG_TIMES: [[month], []],
            "year": [1973, 1974],
        }
    )
    put: list[dict[str, Any]] = [
        {"title": "C", "year": "soon", "tags": ["new", "odd"], "size": 1},
        {"title": "D", "year": True, "size": "big"},
    ]
    changes = [Change(n, "item", "cd"[n], content, 1_600_000_000_000_000) for n, content in enumerate(put)]
    tables.write_parquet(with_changes(items, changes), tmp_path / "items.parquet")
    found = tables.read_parquet(tmp_path / "items.parquet", "items").set_index(tables.ITEM)
    assert [len(times) for times in found[tables.TAG_TIMES]] == [1, 0, 2, 0]
    assert found.loc["a", "year"] == "1973"
    assert found.loc["d", "size"] == "big"
    # A new item is there from when it was put, one of the source from when the source says, if it does.
    given = found[tables.AVAILABLE_FROM]
    assert given.notna().tolist() == [False, False, True, True]
    assert given["c"].isoformat() == "2020-09-13T12:26:40+00:00"


@pytest.mark.slow
def test_schemathesis_finds_nothing(client: TestClient) -> None:
    """No 5xx and no answer off the schema: by examples, edges of every field, chance, and chains of calls."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.engine import from_schema

    async def calls(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"  # it is the client above that starts and ends the application
        await client.app(scope, receive, send)

    schema = schemathesis.openapi.from_asgi("/openapi.json", calls)
    settings = schema.config
    settings.generation.max_examples, settings.generation.deterministic = 10, True
    settings.generation.database = "none"
    # No schema can say that a moment lies in the past, or that the catalogue has an item.
    settings.checks.positive_data_acceptance.enabled = False
    # The page of an item that was withdrawn may ask what is like it.
    settings.checks.use_after_free.enabled = False
    settings.checks.negative_data_rejection.expected_statuses.append("413")
    found, calls_made = [], 0
    for event in from_schema(schema).execute():
        assert type(event).__name__ not in ("NonFatalError", "FatalError"), event
        if type(event).__name__ == "ScenarioFinished":
            calls_made += len(event.recorder.cases)
            found += [
                (
                    event.recorder.label,
                    node.name,
                    node.failure_info.failure.message,
                    node.failure_info.code_sample,
                )
                for nodes in event.recorder.checks.values()
                for node in nodes
                if node.failure_info
            ]
    assert not found, found[:3]
    assert calls_made > 300
    assert client.get("/health").json()["status"] == "ok"
