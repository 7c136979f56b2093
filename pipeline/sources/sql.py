"""The source `sql`: a query for each table, to any database that SQLAlchemy reaches, streamed in chunks.

In: collect.sql. A query names its columns like the contract's tables (`SELECT customer AS user_id, ...`); in
the query of interactions `:as_of` is collect.as_of, or the end of time where that is null. `${NAME}` in the
URL is taken from the environment, so that no password stands in params.yaml.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.data import tables
from pipeline.errors import ConfigError, DataError, Unavailable
from pipeline.file_settings import TABLES
from pipeline.params import Collect
from pipeline.sources import PLACE, Tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROWS = 50_000  # in memory at a time
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


def read(settings: Collect) -> Tables:
    return Tables(
        interactions=_interactions(settings),
        items=_table(settings, "items", tables.ITEM),
        users=_table(settings, "users", tables.USER),
        relations=_table(settings, "relations", *tables.RELATIONS),
    )


def fingerprint(settings: Collect) -> str:
    """Of how many rows each query finds, and of the interactions' newest timestamp.

    The contents would have to be read whole for more, so a row that is corrected in place goes unnoticed:
    `dvc repro --force --single-item collect` reads it.
    """
    total = hashlib.sha256()
    with _connection(settings) as connection:
        for table, query in _queries(settings).items():
            newest = f", MAX({tables.TIME})" if table == "interactions" else ""
            inner = f"SELECT COUNT(*){newest} FROM ({query}) AS evergreen"
            total.update(f"{table}\0{_execute(connection, inner, table, settings).one()}\0".encode())
    return total.hexdigest()


def _interactions(settings: Collect) -> Iterator[pd.DataFrame]:
    with _connection(settings) as connection:
        yield from _frames(connection, settings, "interactions", (tables.USER, tables.ITEM, tables.TIME))


def _table(settings: Collect, table: str, *needed: str) -> pd.DataFrame | None:
    if table not in _queries(settings):
        return None
    with _connection(settings) as connection:
        return pd.concat(_frames(connection, settings, table, needed), ignore_index=True)


def _frames(
    connection: Connection, settings: Collect, table: str, needed: tuple[str, ...]
) -> Iterator[pd.DataFrame]:
    """At least one, which may have no rows."""
    result = _execute(connection, _queries(settings)[table], table, settings)
    names = list(result.keys())
    for name in needed:
        if name not in names:
            raise DataError(
                f"collect.sql.{table}: the query gives no column {name} (it gives {', '.join(names)}): "
                f"name it so: SELECT ... AS {name}"
            )
    start = 0
    for rows in result.partitions(ROWS):
        frame = pd.DataFrame(rows, columns=names, dtype=object)
        yield frame.assign(**{PLACE: [f"{table}:{row}" for row in range(start + 1, start + 1 + len(frame))]})
        start += len(frame)
    if not start:
        yield pd.DataFrame(columns=names, dtype=object)


def _execute(connection: Connection, query: str, table: str, settings: Collect) -> Any:
    from sqlalchemy import bindparam, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.types import DateTime

    statement = text(query)
    if re.search(r"(?<!:):as_of\b", query):
        # SQLite keeps moments as text without a zone; the others compare moments as such.
        moment = (settings.as_of or END_OF_TIME).astimezone(UTC)
        aware = connection.dialect.name != "sqlite"
        value = moment if aware else moment.replace(tzinfo=None)
        statement = statement.bindparams(bindparam("as_of", value, DateTime(timezone=aware)))
    try:
        return connection.execute(statement)
    except SQLAlchemyError as error:
        if getattr(error, "connection_invalidated", False):  # the server went away in the midst
            raise _unreachable(error) from None
        raise DataError(f"collect.sql.{table}: {_reason(error)}: correct the query") from None


def _queries(settings: Collect) -> dict[str, str]:
    queries = {table: getattr(settings.sql, table) for table in TABLES}
    if not queries["interactions"]:
        raise ConfigError("collect.sql.interactions: null; give the query of the interactions")
    return {table: query.strip().rstrip(";") for table, query in queries.items() if query}


@contextmanager
def _connection(settings: Collect) -> Iterator[Connection]:
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
    except ImportError:
        raise ConfigError(
            'collect.source: sql needs SQLAlchemy: run `.venv/bin/pip install -c constraints.txt -e ".[sql]"`'
        ) from None
    try:
        engine = create_engine(_url(settings))
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"collect.sql.url: {_reason(error)}: write it like postgresql+psycopg://reader:${{PASSWORD}}@host/shop"
            " and install that database's driver"
        ) from None
    try:
        with engine.connect().execution_options(stream_results=True, yield_per=ROWS) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise _unreachable(error) from None
    finally:
        engine.dispose()


def _url(settings: Collect) -> str:
    if not settings.sql.url:
        raise ConfigError("collect.sql.url: null; give SQLAlchemy's address of the database")
    url = os.path.expandvars(settings.sql.url)
    if missing := re.search(r"\$\{?(\w+)\}?", url):
        raise ConfigError(f"collect.sql.url: the environment has no {missing[1]}: export it")
    return url


def _unreachable(error: Exception) -> Unavailable:
    return Unavailable(f"collect.sql.url: {_reason(error)}: check that the database can be reached")


def _reason(error: Exception) -> str:
    """The driver's own first line, without what SQLAlchemy adds (query, links) and without any password."""
    text = str(getattr(error, "orig", None) or error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"//[^/\s]*@", "//", line).rstrip(".:")
