"""The HTTP interface over a really trained tiny champion: names and answers as the contract has them."""

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

from pipeline.serve import access
from pipeline.serve.app import create
from pipeline.serve.changes import misfit


@pytest.fixture(scope="module")
def client(project_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(create(project_once, f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db")) as found:
        ready(found)
        yield found


@pytest.fixture(scope="module")
def project_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.once(tmp_path_factory)


def ready(client: TestClient) -> dict[str, Any]:
    def health() -> dict[str, Any] | None:
        answer = client.get("/health")
        assert answer.status_code == 200 or answer.json()["status"] == "starting"
        return answer.json() if answer.status_code == 200 else None

    return dict(until(health))


def event(number: object, **further: object) -> dict[str, object]:
    return {"event_id": f"e{number}", "user_id": "u20", "item_id": "i03", "event": "click"} | further


def test_health_names_what_serves(client: TestClient) -> None:
    told = client.get("/health").json()
    assert (told["status"], told["version"]) == ("ok", "v1.0.0")
    assert told["fit_end"].startswith("2020-01-")
    assert told["state_lag_seconds"] < 10


def test_a_list_as_the_contract_has_it(client: TestClient) -> None:
    answer = client.post("/recommend", json={"user_id": "u20", "k": 3})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]
    told = answer.json()
    assert set(told) == {"impression_id", "version", "fallback", "items"}
    assert told["version"] == "v1.0.0"
    assert [item["rank"] for item in told["items"]] == [1, 2, 3]
    for item in told["items"]:
        assert {"item_id", "rank", "score", "propensity", "title", "reasons"} <= set(item)
        for reason in item["reasons"]:
            assert {"kind", "text", "weight"} <= set(reason)


def test_feedback_changes_the_next_list(client: TestClient) -> None:
    asked = {"user_id": "newcomer", "k": 24}
    before = client.post("/recommend", json=asked).json()
    assert before["fallback"] == "unknown_user"
    first = before["items"][0]["item_id"]
    sent = event("n1", user_id="newcomer", item_id=first, impression_id=before["impression_id"])
    assert client.post("/feedback", json=sent).json() == {"accepted": 1, "duplicates": 0, "version": "v1.0.0"}
    after = client.post("/recommend", json=asked).json()
    assert after["fallback"] is None
    assert first not in {item["item_id"] for item in after["items"]}
    again = client.post("/feedback", json=[sent, event("n2", user_id="newcomer")]).json()
    assert (again["accepted"], again["duplicates"]) == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"item_id": 7}, "0.item_id"),
        ({"event_id": ""}, "0.event_id"),
        ({"value": "much"}, "0.value"),
        ({"timestamp": "yesterday"}, "0.timestamp"),
        ({"timestamp": 1_700_000_000}, "0.timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "0.timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-14:00"}, "0.timestamp"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "0.timestamp"),
        ({"usr": "x"}, "0.usr"),
        ({"user_id": "NaN"}, "0.user_id"),
        ({"item_id": '{"$oid": "5f"}'}, "0.item_id"),
        ({"event": "\u200b"}, "0.event"),
    ],
)
def test_a_malformed_event_is_refused_by_field(
    client: TestClient, wrong: dict[str, object], field: str
) -> None:
    answer = client.post("/feedback", json=event("w", **wrong))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["title"], told["status"]) == ("Unprocessable Content", 422) or told["status"] == 422
    assert told["errors"][0]["field"] == field
    assert told["detail"].startswith(field)


def test_a_batch_is_all_or_nothing(client: TestClient) -> None:
    answer = client.post("/feedback", json=[event("b1"), event("b2", value="much")])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "1.value"
    assert client.post("/feedback", json=event("b1")).json()["accepted"] == 1


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"k": 5},
        {"user_id": "u20", "k": 0},
        {"user_id": "u20", "diversity": 2},
        {"user": "u20"},
        {"text": ""},
    ],
)
def test_a_question_that_cannot_be_is_a_problem(client: TestClient, question: dict[str, object]) -> None:
    answer = client.post("/recommend", json=question)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_other_problems_have_the_same_shape(client: TestClient) -> None:
    for answer, status in (
        (client.post("/recommend", json={"history": [{"item_id": "x"}]}), 422),
        (client.get("/items/x/similar"), 404),
        (client.delete("/items/x"), 404),
        (client.get("/nothing"), 404),
        (client.post("/recommend", content=b"{", headers={"content-type": "application/json"}), 422),
        (client.post("/recommend", content=b"x", headers={"content-length": str(1 << 30)}), 413),
        (client.get("/health", headers={"host": "evil.example"}), 403),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json())


def test_items_and_people_come_and_go(client: TestClient) -> None:
    assert client.get("/items/i01/similar", params={"k": 3}).json()["items"][0]["item_id"] != "i01"
    assert client.delete("/items/i05").json()["version"] == "v1.0.0"
    listed = client.post("/recommend", json={"user_id": "u20", "k": 24}).json()["items"]
    assert "i05" not in {item["item_id"] for item in listed}
    new = {"title": "red thing number 98", "categories": ["red"]}
    assert client.put("/items/i98", json=new).status_code == 200
    assert (
        client.put("/items/i05", json={"title": "red thing number 5", "categories": ["red"]}).status_code
        == 200
    )

    def listed() -> set[str]:
        answer = client.post("/recommend", json={"text": "red", "k": 24}).json()
        return {item["item_id"] for item in answer["items"]}

    until(lambda: "i98" in listed())
    client.post(
        "/feedback", json=[event("p1", user_id="person"), event("p2", user_id="person", item_id="i07")]
    )
    assert client.post("/recommend", json={"user_id": "person"}).json()["fallback"] is None
    assert client.delete("/users/person").json()["events"] == 2
    assert client.post("/recommend", json={"user_id": "person"}).json()["fallback"] == "unknown_user"


@pytest.mark.slow
def test_a_forgotten_person_stays_forgotten(client: TestClient, project_once: Path) -> None:
    """By every worker, whatever comes of them later; their id is nowhere in the store."""
    url = client.app.state.service.store.engine.url  # type: ignore[attr-defined]
    with TestClient(create(project_once, str(url))) as other:
        ready(other)
        stranger = other.post("/recommend", json={"user_id": "nobody yet"}).json()
        assert client.post("/feedback", json=event("f1", user_id="u22")).json()["accepted"] == 1
        assert other.post("/recommend", json={"user_id": "u22"}).json()["fallback"] is None
        assert [client.delete("/users/u22").json()["events"] for _ in range(2)] == [1, 0]
        for worker in (client, other):
            again = worker.post("/recommend", json={"user_id": "u22"}).json()
            assert again["fallback"] == "unknown_user"
            assert len(again["items"]) == len(stranger["items"])
            refused = worker.post("/feedback", json=[event("f2", user_id="u22"), event("f3", user_id="u21")])
            assert (refused.status_code, refused.headers["content-type"]) == (410, "application/problem+json")
        engine = other.app.state.service.engine  # type: ignore[attr-defined]
        # Bound anew, the counts of items are without their rows, as if they had never been there.
        until(lambda: "u22" not in engine.world.user_ids)
    store = Path(url.database)
    assert not [path for path in store.parent.glob(f"{store.name}*") if b"u22" in path.read_bytes()]


def test_ids_may_have_slashes(client: TestClient) -> None:
    assert client.put("/items/a%2Fb%2Fc", json={"title": "red thing"}).json()["item_id"] == "a/b/c"
    assert client.post("/feedback", json=event("s1", user_id="per/son")).status_code == 200
    assert client.delete("/users/per%2Fson").json()["events"] == 1
    until(lambda: client.get("/items/a%2Fb%2Fc/similar").status_code == 200)
    assert client.delete("/items/a%2Fb%2Fc").status_code == 200
    assert 'route="/items/{item_id}/similar"' in client.get("/metrics").text


def test_an_item_does_not_change_what_its_columns_are(client: TestClient) -> None:
    assert client.put("/items/i97", json={"title": "red thing", "text": "words"}).status_code == 200
    assert client.put("/items/i97", json={"text": "words"}).status_code == 200
    items = pd.DataFrame({"item_id": ["a"], "title": ["x"], "year": [1990], "tags": [["old"]]})
    items = items.astype({"title": "str"})
    assert misfit(items, {"title": "y", "year": 1991, "tags": ["new"], "further": 1}) is None
    for wrong in ({"year": "1991"}, {"year": True}, {"year": [1991]}, {"title": 5}):
        assert next(iter(wrong)) in str(misfit(items, wrong))


def test_metrics_count(client: TestClient) -> None:
    client.post("/recommend", json={"user_id": "u20"})
    text = client.get("/metrics").text
    assert 'evergreen_request_seconds_count{route="/recommend",status="200"}' in text
    assert 'evergreen_events_total{outcome="accepted"}' in text
    assert "evergreen_up 1.0" in text
    assert "u20" not in text


def test_impressions_are_in_the_store(client: TestClient) -> None:
    import sqlalchemy as sa

    answer = client.post("/recommend", json={"user_id": "u20", "k": 2}).json()
    service = client.app.state.service  # type: ignore[attr-defined]
    table = service.store.impressions
    query = sa.select(table).where(table.c.impression_id == answer["impression_id"])

    def kept() -> Any:
        with service.store.engine.connect() as connection:
            return connection.execute(query).first()

    row = until(kept)
    assert (row.user_id, row.version, row.model) == ("u20", "v1.0.0", "champion")
    assert answer["items"][0]["item_id"] in row.items


def test_openapi_has_examples(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) >= {
        "/recommend",
        "/feedback",
        "/health",
        "/metrics",
        "/items/{item_id}",
        "/users/{user_id}",
    }
    question = told["components"]["schemas"]["Question"]
    assert question["examples"]


def test_with_keys_strangers_get_401(
    project_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = access.new_key(tmp_path / "keys", "shop")
    monkeypatch.setenv("EVERGREEN_API_KEYS", str(tmp_path / "keys"))
    with TestClient(create(project_once, f"sqlite:///{tmp_path}/events.db")) as client:
        ready(client)
        refused = client.post("/recommend", json={"user_id": "u20"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        answer = client.post(
            "/recommend", json={"user_id": "u20"}, headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 200


def test_keys_come_and_go_while_it_runs(
    project_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    old = access.new_key(path, "shop")
    monkeypatch.setenv(access.ENVIRONMENT, str(path))
    with TestClient(create(tmp_path, f"sqlite:///{tmp_path}/events.db")) as client:

        def status(key: str) -> int:
            return client.get("/items", headers={"Authorization": f"Bearer {key}"}).status_code

        assert status(old) == 503  # let in; without a champion
        new = access.new_key(path, "app")
        assert (status(new), status(old)) == (503, 503)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        assert (status(new), status(old)) == (503, 401)
        path.write_text("broken")
        assert (status(new), status(old)) == (503, 401)


def test_without_a_champion_it_waits_and_says_why(tmp_path: Path) -> None:
    with TestClient(create(tmp_path, f"sqlite:///{tmp_path}/events.db")) as client:
        until(lambda: "no champion" in str(client.get("/health").json()["problem"]))
        assert client.get("/health").status_code == 503
        refused = client.post("/recommend", json={"user_id": "u"})
        assert refused.status_code == 503
        assert "no champion" in refused.json()["detail"]
        assert client.post("/feedback", json=event(1)).status_code == 503


def test_too_many_calls(project_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_RATE", "2")
    with TestClient(create(tmp_path, f"sqlite:///{tmp_path}/events.db")) as client:
        codes = [client.get("/health").status_code for _ in range(5)]
    assert codes[:2] == [503, 503]
    assert 429 in codes
