"""An item that is put into a large catalogue is listed at once, before the catalogue is bound anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import served

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("sqlalchemy")

from fastapi.testclient import TestClient
from waiting import until

from pipeline.serve import room
from pipeline.serve.app import create
from pipeline.serve.engine import Engine


@pytest.fixture
def client(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """As if its catalogue were large, and never bound anew until a test says so."""
    monkeypatch.setattr(room, "LARGE", 0)
    monkeypatch.setattr(room, "PLACES", 2)
    monkeypatch.setattr(Engine, "renew", lambda self: None)
    with TestClient(create(served.once(tmp_path_factory), f"sqlite:///{tmp_path}/events.db")) as found:
        until(lambda: found.get("/health").status_code == 200)
        yield found


def listed(client: TestClient, **question: object) -> dict[str, str | None]:
    """item -> title, best first."""
    answer = client.post("/recommend", json={"k": 30} | question)
    assert answer.status_code == 200, answer.text
    return {row["item_id"]: row["title"] for row in answer.json()["items"]}


def put(client: TestClient, item: str, **content: object) -> None:
    assert client.put(f"/items/{item}", json=content).status_code == 200


def test_a_new_item_is_on_the_next_lists(client: TestClient) -> None:
    assert len(listed(client, user_id="u20")) <= 24  # empty places are on none
    assert client.get("/items", params={"words": "fresh"}).json()["items"] == []
    put(client, "n1", title="red thing number 98", categories=["red", "fresh"])
    assert listed(client, user_id="u21")["n1"] == "red thing number 98"
    assert "n1" in listed(client, text="red thing number 98")
    assert listed(client, user_id="u21", categories=["fresh"]) == {"n1": "red thing number 98"}
    assert client.get("/items/n1/similar").status_code == 200
    sent = {"event_id": "r1", "user_id": "u21", "item_id": "n1", "event": "click"}
    assert client.post("/feedback", json=sent).json()["accepted"] == 1
    assert "n1" not in listed(client, user_id="u21")
    assert "n1" in listed(client, user_id="u20")
    assert client.delete("/items/n1").status_code == 200
    assert "n1" not in listed(client, user_id="u20")


def test_a_changed_item_is_called_otherwise_at_once(client: TestClient) -> None:
    put(client, "i23", title="blue thing number 7", categories=["blue"])
    assert listed(client, user_id="u20", categories=["blue"])["i23"] == "blue thing number 7"
    assert "i23" not in listed(client, user_id="u20", categories=["red"])


def test_without_room_it_is_there_when_the_catalogue_is_bound_anew(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put(client, f"n{number}", title="red thing number 97", categories=["fresh"])
    assert set(listed(client, text="red", categories=["fresh"])) == {"n0", "n1"}
    engine: Engine = client.app.state.service.engine  # type: ignore[attr-defined]
    engine.load()
    assert set(listed(client, text="red", categories=["fresh"])) == {"n0", "n1", "n2"}
    assert set(listed(client, user_id="u20")) >= {"n0", "n1", "n2"}
    assert len(engine.world.room) == 2  # there is room again
