"""The event store, its writer, and keys: SQLite here; PostgreSQL in the slow tests."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from pipeline.errors import ConfigError
from pipeline.serve import access
from pipeline.serve.events import Impression, Row, Store, StoreError
from pipeline.serve.writing import Writer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path}/sub/events.db")
    yield found
    found.close()


def row(event_id: str, user: str = "u", time: int = 10**15) -> Row:
    return Row(event_id, user, "007", "view", None, "words", time, None)


def test_an_event_counts_once_whoever_sends_it_again(store: Store) -> None:
    assert store.append([[row("a"), row("b"), row("a")], [row("b"), row("c")]]) == [(2, 1), (1, 1)]
    assert store.append([[row("a")], [row("d")]]) == [(0, 1), (1, 0)]
    assert [each.user_id for each in store.after(0)] == ["u"] * 4
    assert [each.seq for each in store.after(2)] == [3, 4]


def test_rows_come_back_as_they_were(store: Store) -> None:
    store.append([[Row("a", "007", "item 1", "rating", 4.5, "good", 1_000_000_000_000_001, "shown")]])
    [frame] = store.frames()
    assert frame["user_id"].tolist() == ["007"]
    assert frame["value"].tolist() == [4.5]
    assert frame["timestamp"][0].isoformat() == "2001-09-09T01:46:40.000001+00:00"


def test_changes_have_an_order(store: Store) -> None:
    store.put_item("a", {"title": "A"}, 1)
    store.put_item("a", None, 2)
    store.append([[row("x", "gone"), row("y", "stays")]])
    assert store.forget("gone", "the mark", 3) == (1, 0)
    assert store.forget("gone", "the mark", 4) == (0, 0)
    assert [(each.kind, each.key, each.content) for each in store.changes_after(0)] == [
        ("item", "a", {"title": "A"}),
        ("item", "a", None),
        ("user", "the mark", None),
    ]
    assert [each.user_id for each in store.after(0)] == ["stays"]


def test_what_is_acknowledged_is_durable_at_every_commit(store: Store, tmp_path: Path) -> None:
    with store._reader.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.skipif(find_spec("sqlcipher3") is None, reason="no sqlcipher3")
def test_sqlcipher_keeps_the_store_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_KEY", "as docs/privacy.md says")
    url = f"sqlite+pysqlcipher://:${{EVENTS_KEY}}@/{tmp_path}/events.db"
    store = Store(url)
    assert store.append([[row("a", "anna-7")]]) == [(1, 0)]
    assert [each.user_id for each in Store(url).after(0)] == ["anna-7"]
    assert not [path for path in tmp_path.glob("events.db*") if b"anna-7" in path.read_bytes()]
    monkeypatch.setenv("EVENTS_KEY", "another")
    with pytest.raises(StoreError, match="not a database"):
        Store(url)


def test_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    stores = [Store(f"sqlite:///{tmp_path}/events.db") for _ in range(3)]
    writers = [Writer(each) for each in stores]
    told = [0, 0]
    lock = threading.Lock()

    def send(writer: Writer, first: int) -> None:
        for number in range(first, first + 50):
            accepted, duplicates = writer.append([row(f"e{number}"), row(f"f{number}")]).result(60)
            with lock:
                told[0] += accepted
                told[1] += duplicates

    threads = [
        threading.Thread(target=send, args=(writer, 25 * place))
        for place, writer in enumerate(writers)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [200, 400]  # numbers 0 to 99, two events each; the rest are repetitions
    seqs = [each.seq for each in stores[0].after(0)]
    assert len(seqs) == 200
    assert seqs == sorted(set(seqs))
    for writer in writers:
        writer.close()
    for each in stores:
        each.close()


def test_impressions_are_kept(store: Store, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.show(Impression("i1", 5, "u", "v1", "champion", None, '[["a", 1, 0.5, 1.0]]'))
    writer.append([row("a")]).result(60)
    writer.close()
    with sqlite3.connect(tmp_path / "sub" / "events.db") as found:
        assert found.execute(
            "SELECT impression_id, user_id, version, items FROM evergreen_impressions"
        ).fetchall() == [("i1", "u", "v1", '[["a", 1, 0.5, 1.0]]')]


def test_a_store_that_cannot_be_written_acknowledges_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_text("no database, but a text that is long enough to be read as one" * 9)
    store = Store(f"sqlite:///{tmp_path}/events.db", create=False)
    writer = Writer(store)
    with pytest.raises(StoreError, match="not a database"):
        writer.append([row("a")]).result(60)
    writer.close()


def test_impressions_shown_again_count_once_and_stop_no_writer(store: Store, tmp_path: Path) -> None:
    shown = Impression("i1", 1, None, "v1", "champion", None, "[]")
    store.show([shown])
    store.show([shown, shown._replace(impression_id="i2")])
    assert sorted(store.lists()["impression_id"]) == ["i1", "i2"]
    writer = Writer(store)
    writer.show(shown._replace(impression_id=object()))  # type: ignore[arg-type]
    assert [writer.append([row(name)]).result(30) for name in "ab"] == [(1, 0), (1, 0)]
    writer._unshown.clear()
    writer.close()


@pytest.mark.parametrize("rate", ["nan", "-1", "inf", "much"])
def test_a_rate_that_is_none(rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_RATE", rate)
    with pytest.raises(ConfigError, match="EVERGREEN_RATE"):
        access.Rate.from_environment()


@pytest.mark.parametrize("url", ["nonsense", "oracle9000://x/y"])
def test_an_address_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError, match="event store"):
        Store(url)


# Keys


def test_a_key_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key, other = access.new_key(path, "shop"), access.new_key(path, "app")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    keys = access.Keys.read(path)
    assert keys.name_of(f"Bearer {key}") == "shop"
    assert keys.name_of(f"bearer {other}") == "app"
    for wrong in (None, "", key, f"Basic {key}", f"Bearer {key}x", "Bearer "):
        assert keys.name_of(wrong) is None


def test_a_file_of_keys_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ConfigError, match="No such file"):
        access.Keys.read(path)
    path.write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match="no key in it"):
        access.Keys.read(path)
    path.write_text("shop plain-text-key\n")
    with pytest.raises(ConfigError, match="line 1"):
        access.Keys.read(path)
    with pytest.raises(ConfigError, match="letters"):
        access.new_key(path, "two words")


def test_strangers_are_refused(tmp_path: Path) -> None:
    ask = access.problem_with
    assert ask(None, "127.0.0.1:8000", {}, "/recommend", "127.0.0.1") == "127.0.0.1"
    assert ask(None, "localhost:8000", {}, "/recommend", "::1") == "::1"
    assert ask(None, "evil.example", {}, "/recommend", "127.0.0.1")[0] == 403  # a page elsewhere, by DNS
    assert ask(None, "127.0.0.1", {}, "/recommend", "10.0.0.7")[0] == 403
    key = access.new_key(tmp_path / "keys", "shop")
    keys = access.Keys.read(tmp_path / "keys")
    assert ask(keys, "any", {}, "/recommend", "127.0.0.1")[0] == 401
    assert ask(keys, "any", {"authorization": f"Bearer {key}"}, "/recommend", "10.0.0.7") == "shop"
    assert ask(keys, "any", {}, "/health", "10.0.0.7") == "10.0.0.7"


def test_rates_are_of_each_caller() -> None:
    rate = access.Rate(3)
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]
    assert rate.allows("b")
    slow = access.Rate(0.5)  # one in two seconds
    assert [slow.allows("a") for _ in range(2)] == [True, False]
    assert all(access.Rate(0).allows("a") for _ in range(100))
