"""A shop's database through the source `sql`: SQLite here; PostgreSQL where its programs are installed."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import postgres_up
import pytest
import sqlalchemy
from collecting import interactions, items, run, settings

from pipeline.errors import ConfigError, DataError
from pipeline.params import Collect
from pipeline.sources import fingerprint

ORDERS = "SELECT customer AS user_id, sku AS item_id, ordered_at AS timestamp, amount AS value FROM orders"
PRODUCTS = "SELECT sku AS item_id, name AS title FROM products;"
ROWS = [
    ("007", "mug", datetime(2024, 1, 5, 10, 12), 1.5),
    ("007", "cup", datetime(2024, 2, 1, 9), None),
    ("8", "mug", datetime(2024, 3, 1), 2.0),
]


def fill(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        moment = "TIMESTAMP"
        connection.execute(
            sqlalchemy.text(
                f"CREATE TABLE orders (customer TEXT, sku TEXT, ordered_at {moment}, amount NUMERIC)"
            )
        )
        connection.execute(sqlalchemy.text("CREATE TABLE products (sku TEXT, name TEXT)"))
        for row in ROWS:
            connection.execute(
                sqlalchemy.text("INSERT INTO orders VALUES (:c, :s, :t, :a)").bindparams(
                    sqlalchemy.bindparam("t", row[2], sqlalchemy.DateTime())
                ),
                {"c": row[0], "s": row[1], "a": row[3]},
            )
        connection.execute(sqlalchemy.text("INSERT INTO products VALUES ('mug', 'Mug, blue'), ('cup', NULL)"))
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    fill(url)
    return url


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("psycopg")
    with postgres_up.postgres(tmp_path, "evergreen") as port:
        url = f"postgresql+psycopg://evergreen:secret@127.0.0.1:{port}/postgres"
        fill(url)
        yield url


def of(url: str | None, **changes: Any) -> Collect:
    sql = {"url": url, "interactions": ORDERS, "items": PRODUCTS, "users": None}
    outer = {key: changes.pop(key) for key in ("as_of",) if key in changes}
    return settings(source="sql", sql=sql | changes, **outer)


def check(url: str, tmp_path: Path) -> None:
    raw = run(tmp_path / "all", of(url))
    rows = interactions(raw)
    assert rows["user_id"].tolist() == ["007", "007", "8"]
    assert rows["timestamp"].tolist() == [pd.Timestamp(row[2], tz="UTC") for row in ROWS]
    assert rows["value"].fillna(-1).tolist() == [1.5, -1, 2.0]
    assert items(raw)["title"].fillna("").to_dict() == {"mug": "Mug, blue", "cup": ""}
    until = of(url, interactions=f"{ORDERS} WHERE ordered_at <= :as_of", as_of="2024-02-01T09:00:00")
    raw = run(tmp_path / "until", until)
    assert len(interactions(raw)) == 2
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["rows"]["read"] == 2  # the database left the third one out, not we


def test_queries_are_collected(sqlite: str, tmp_path: Path) -> None:
    check(sqlite, tmp_path)


@pytest.mark.slow
def test_queries_are_collected_from_postgresql(postgres: str, tmp_path: Path) -> None:
    check(postgres, tmp_path)
    before = fingerprint(of(postgres))
    assert fingerprint(of(postgres)) == before


def test_fingerprint_changes_with_a_new_row(sqlite: str) -> None:
    before = fingerprint(of(sqlite))
    engine = sqlalchemy.create_engine(sqlite)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("INSERT INTO orders VALUES ('9', 'cup', '2024-04-01 00:00:00', 1)")
        )
    engine.dispose()
    assert fingerprint(of(sqlite)) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interactions": None}, "collect.sql.interactions: null"),
        (
            {"interactions": "SELECT customer AS user_id, sku AS item_id FROM orders"},
            "collect.sql.interactions: no such column: timestamp",
        ),
        (
            {"interactions": "SELECT x AS user_id FROM nowhere"},
            "collect.sql.interactions: no such table: nowhere",
        ),
        ({"items": "SELECT FROM"}, "collect.sql.items: near"),
        ({"url": "no-database"}, "collect.sql.url: "),
        ({"url": None}, "collect.sql.url: null"),
        ({"url": "sqlite:///${NO_SUCH_NAME}/x"}, "the environment has no NO_SUCH_NAME"),
        ({"url": "sqlite:////no/such/folder/x.db"}, "collect.sql.url: unable to open"),
    ],
)
def test_what_is_wrong_is_one_line(sqlite: str, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as raised:
        run(tmp_path, of(**({"url": sqlite} | changes)))
    assert raised.value.permanent == ("unable to open" not in message)  # a database may come back


def test_password_is_never_shown(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError) as raised:
        run(tmp_path, of("postgresql+psycopg://me:secret@127.0.0.1:1/shop"))
    assert "secret" not in str(raised.value)
