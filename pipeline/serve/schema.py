"""The event store's tables, and how SQLite is to keep them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from pipeline.data import tables

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table


def event_tables(metadata: Any) -> tuple[Table, Table, Table]:
    import sqlalchemy as sa

    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

    def numbered(name: str, *columns: Any) -> Table:
        key = sa.Column("seq", number, primary_key=True, autoincrement=True)
        return sa.Table(name, metadata, key, *columns, sqlite_autoincrement=True)

    def text(name: str, null: bool = False, **options: Any) -> Any:
        return sa.Column(name, sa.Text, nullable=null, **options)

    events = numbered(
        "evergreen_events",
        text("event_id", unique=True),
        text(tables.USER, index=True),
        text(tables.ITEM),
        text(tables.EVENT),
        sa.Column(tables.VALUE, sa.Double),
        text(tables.TEXT, null=True),
        sa.Column(tables.TIME, sa.BigInteger, nullable=False),
        text("impression_id", null=True),
    )
    changes = numbered(
        "evergreen_changes",
        text("kind"),
        text("key"),
        text("content", null=True),
        sa.Column(tables.TIME, sa.BigInteger, nullable=False),
    )
    impressions = sa.Table(
        "evergreen_impressions",
        metadata,
        text("impression_id", primary_key=True),
        sa.Column(tables.TIME, sa.BigInteger, nullable=False),
        text(tables.USER, null=True, index=True),
        *(text(name) for name in ("version", "model")),
        text("fallback", null=True),
        text("items"),
    )
    return events, changes, impressions


class OpenFile:
    """The file that connections of SQLite have open: removed or moved, they would go on writing to it, and
    what they acknowledge be lost."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._known: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def changed(self) -> bool:
        """Whether another file lies there than at the last call. Raises FileNotFoundError if it is gone."""
        if not self.path:
            return False
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            if self._known is None:  # not made yet, or no plain path
                return False
            raise FileNotFoundError(
                f"{self.path} is gone: put it back, or start the service again to begin a new one"
            ) from None
        with self._lock:
            before, self._known = self._known, (found.st_dev, found.st_ino)
            return before is not None and before != self._known


def settle_sqlite(writer: Engine, reader: Engine) -> None:
    from sqlalchemy import event

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where `begun` says, not where Python guesses
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # durable at every commit, in WAL mode too
        cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        cursor.close()

    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(writer, "connect", connected)
    event.listen(reader, "connect", connected)
    event.listen(writer, "begin", begun)
