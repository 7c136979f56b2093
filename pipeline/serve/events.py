"""The event store: what users did, what was shown to them, and items put or withdrawn, in any SQL database.

Every worker writes here and follows what others wrote. What is written has a number `seq`; numbers become
visible in ascending order, since writers take turns, so `seq > last` misses nothing. SQLite runs in WAL mode
and syncs at every commit: what was acknowledged survives a crash. Times are int microseconds UTC.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.data import tables
from pipeline.errors import ConfigError
from pipeline.serve.schema import OpenFile, event_tables, settle_sqlite

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Connection, Engine, Table

    from pipeline.data.forgotten import Forgotten

log = logging.getLogger(__name__)
ENVIRONMENT = "EVERGREEN_EVENTS"
DEFAULT = Path(".evergreen/events.db")
IDS_AT_ONCE = 500  # in one IN (...)
ROWS_AT_ONCE = 50_000  # read into memory
DELETED_AT_ONCE = 2_000  # in one transaction


class Row(NamedTuple):
    """An event as it is kept."""

    event_id: str
    user_id: str
    item_id: str
    event: str
    value: float | None
    text: str | None
    timestamp: int
    impression_id: str | None


class Happened(NamedTuple):
    """What the live state takes in of an event."""

    seq: int
    user_id: str
    item_id: str
    event: str
    value: float | None
    timestamp: int
    text: str | None = None


class Change(NamedTuple):
    """Of the catalogue or of people: an item put (content) or withdrawn (None), a user forgotten."""

    seq: int
    kind: str  # item | user
    key: str  # an item's id; of a user the mark (pipeline/data/forgotten.py)
    content: dict[str, Any] | None
    timestamp: int


class Impression(NamedTuple):
    impression_id: str
    timestamp: int
    user_id: str | None
    version: str
    model: str
    fallback: str | None
    items: str  # JSON: [[item_id, position, score, propensity], ...]


class StoreError(Exception):
    """The database cannot be reached, or refuses."""


def default_url(root: Path) -> str:
    """EVERGREEN_EVENTS, or SQLite in the project's own folder."""
    return os.environ.get(ENVIRONMENT) or f"sqlite:///{(root / DEFAULT).absolute()}"


class Store:
    """Raises ConfigError for an address that cannot be, StoreError whenever the database does not answer."""

    def __init__(self, url: str, create: bool = True) -> None:
        try:
            import sqlalchemy as sa
        except ImportError:
            raise ConfigError(
                "the event store needs SQLAlchemy: run `.venv/bin/python setup_environment.py serve`"
            ) from None
        try:
            address = sa.make_url(os.path.expandvars(url))
            lite = address.drivername.startswith("sqlite")
            options: dict[str, Any] = {} if lite else {"pool_pre_ping": True}
            self.engine: Engine = sa.create_engine(address, **options)
            # Without transactions, which would pin an old state.
            self._reader: Engine = sa.create_engine(address, isolation_level="AUTOCOMMIT", **options)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"event store: {error}: write it like sqlite:///events.db or "
                "postgresql+psycopg://evergreen:${PASSWORD}@host/events, and install that database's driver"
            ) from None
        self.forgotten: Forgotten | None = None  # of a project that records: refuses whom it has forgotten
        self.sqlite = self.engine.dialect.name == "sqlite"
        self._known = 0  # the newest change of whose marks `forgotten` knows
        self._watching: Connection | None = None
        self._file = OpenFile(self.engine.url.database if self.sqlite else None)
        self.replaced = self._watched = 0  # how often it was another file: numbers begin anew there
        if self.sqlite:
            settle_sqlite(self.engine, self._reader)
        self.metadata = sa.MetaData()
        self.events, self.changes, self.impressions = event_tables(self.metadata)
        columns = [self.events.c[name] for name in Happened._fields]
        self._after = sa.select(*columns).where(self.events.c.seq > sa.bindparam("last")).order_by("seq")
        self._changed = (
            sa.select(self.changes).where(self.changes.c.seq > sa.bindparam("last")).order_by("seq")
        )
        if create:
            self.create()

    def create(self) -> None:
        """The tables, where they are missing."""
        with _told():
            if self.sqlite and self.engine.url.database:
                Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            self.metadata.create_all(self.engine)

    def close(self) -> None:
        if self._watching is not None:
            self._watching.close()
        self.engine.dispose()
        self._reader.dispose()

    # Writing ----------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Sequence[Row]]) -> list[tuple[int, int] | None]:
        """(accepted, duplicates) of each batch; all are durable when this returns, none if it raises.

        None: somebody in the batch is forgotten, and nothing of it is kept.
        """
        import sqlalchemy as sa

        with self._writing() as connection:
            is_gone = self._gone(connection)
            refused = [any(is_gone(row.user_id) for row in rows) for rows in batches]
            batches = [() if no else rows for rows, no in zip(batches, refused, strict=True)]
            ids = [row.event_id for rows in batches for row in rows]
            known: set[str] = set()
            for begin in range(0, len(ids), IDS_AT_ONCE):
                wanted = self.events.c.event_id.in_(ids[begin : begin + IDS_AT_ONCE])
                known.update(connection.scalars(sa.select(self.events.c.event_id).where(wanted)))
            new: list[dict[str, Any]] = []
            counts = []
            for rows in batches:
                before = len(new)
                for row in rows:
                    if row.event_id not in known:
                        known.add(row.event_id)
                        new.append(row._asdict())
                counts.append((len(new) - before, len(rows) - len(new) + before))
            if new:
                connection.execute(sa.insert(self.events), new)
        return [None if no else count for count, no in zip(counts, refused, strict=True)]

    def _gone(self, connection: Connection) -> Callable[[str], bool]:
        """Whether a user is forgotten, by any worker until now."""
        import sqlalchemy as sa

        if self.forgotten is None:
            return lambda user_id: False
        people = sa.select(self.changes.c.key, self.changes.c.seq).where(self.changes.c.kind == "user")
        new = connection.execute(people.where(self.changes.c.seq > self._known)).all()
        self.forgotten.add(row.key for row in new)
        self._known = max((row.seq for row in new), default=self._known)
        return self.forgotten.has

    def show(self, impressions: Sequence[Impression]) -> None:
        import sqlalchemy as sa

        with self._writing() as connection:
            is_gone = self._gone(connection)
            kept = [each for each in impressions if each.user_id is None or not is_gone(each.user_id)]
            number, known = self.impressions.c.impression_id, set[str]()
            for begin in range(0, len(kept), IDS_AT_ONCE):  # of a commit whose answer did not arrive
                wanted = [each.impression_id for each in kept[begin : begin + IDS_AT_ONCE]]
                known.update(connection.scalars(sa.select(number).where(number.in_(wanted))))
            new = [each._asdict() for each in kept if each.impression_id not in known]
            if new:
                connection.execute(sa.insert(self.impressions), new)

    def put_item(self, item_id: str, content: dict[str, Any] | None, now: int) -> None:
        """`content`: further columns of `items`; None withdraws it from `now` (microseconds) on."""
        import sqlalchemy as sa

        text = None if content is None else json.dumps(content, ensure_ascii=False, allow_nan=False)
        row = {"kind": "item", "key": item_id, "content": text, tables.TIME: now}
        with self._writing() as connection:
            connection.execute(sa.insert(self.changes), row)

    def forget(self, user_id: str, mark: str, now: int) -> tuple[int, int]:
        """Delete a person's events and impressions, and let every worker know: (events, impressions).

        Their mark stays: what comes of them later is refused. Again, it does nothing more.
        """
        import sqlalchemy as sa

        row = {"kind": "user", "key": mark, "content": None, tables.TIME: now}
        known = sa.select(self.changes.c.seq).where(self.changes.c.kind == "user", self.changes.c.key == mark)
        with self._writing() as connection:
            gone = [
                connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount
                for table in (self.events, self.impressions)
            ]
            if connection.execute(known).first() is None:
                connection.execute(sa.insert(self.changes), row)
        if self.sqlite:  # the log of writes has them, until it is taken over
            with _told(), self._reader.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(gone[0]), int(gone[1])

    def rows_of(self, user_id: str) -> int:
        """How many events and impressions are theirs."""
        import sqlalchemy as sa

        with _told(), self._reader.connect() as connection:
            return sum(
                int(connection.scalar(sa.select(sa.func.count()).where(table.c.user_id == user_id)) or 0)
                for table in (self.events, self.impressions)
            )

    def people(self) -> list[str]:
        """Ids of users with an event or an impression."""
        import sqlalchemy as sa

        found: set[str] = set()
        with _told(), self._reader.connect() as connection:
            for table in (self.events, self.impressions):
                query = sa.select(table.c.user_id).distinct().where(table.c.user_id.is_not(None))
                found.update(connection.scalars(query))
        return sorted(found)

    def prune(self, before: int, events: bool) -> tuple[int, int]:
        """(events, if so asked, impressions) from before a moment (microseconds) that were deleted."""
        return self._prune(self.events, before) if events else 0, self._prune(self.impressions, before)

    def _prune(self, table: Table, before: int) -> int:
        import sqlalchemy as sa

        [key] = table.primary_key
        old = sa.select(key).where(table.c[tables.TIME] < before).limit(DELETED_AT_ONCE).scalar_subquery()
        gone, found = 0, DELETED_AT_ONCE  # a few at a time, so that no writer waits long
        while found == DELETED_AT_ONCE:
            with self._writing() as connection:
                found = connection.execute(sa.delete(table).where(key.in_(old))).rowcount
            gone += found
        return gone

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction, alone among writers."""
        import sqlalchemy as sa

        self._check_file()
        before = self.replaced
        with _told(), self.engine.begin() as connection:
            if not self.sqlite:  # SQLite's transactions begin immediate, see settle_sqlite
                connection.execute(sa.text("LOCK TABLE evergreen_events IN SHARE ROW EXCLUSIVE MODE"))
            yield connection
        self._check_file()
        if self.replaced != before:
            raise StoreError("event store: another file took its place meanwhile: send it again")

    def _check_file(self) -> None:
        """Open another file that was put there. Raises StoreError where it is gone."""
        with _told():
            if self._file.changed():
                self.engine.dispose()
                self._reader.dispose()
                self.replaced += 1

    # Reading ----------------------------------------------------------------------------------------------

    def after(self, last: int) -> list[Happened]:
        """Events with greater numbers, ascending."""
        with _told(), self._reader.connect() as connection:
            return [Happened(*row) for row in connection.execute(self._after, {"last": last})]

    def stamp(self) -> int | None:
        """A number that changes with every commit to the database, for far less than a query; None: unknown.

        For one caller at a time: it is that of a connection that stays open.
        """
        if not self.sqlite:
            return None
        self._check_file()
        with _told():
            if self._watching is not None and self._watched != self.replaced:
                self._watching.close()
                self._watching = None
            if self._watching is None:
                self._watching, self._watched = self._reader.connect(), self.replaced
            return int(self._watching.connection.cursor().execute("PRAGMA data_version").fetchone()[0])

    def changes_after(self, last: int) -> list[Change]:
        with _told(), self._reader.connect() as connection:
            rows = connection.execute(self._changed, {"last": last}).all()
        return [
            Change(
                row.seq, row.kind, row.key, json.loads(row.content) if row.content else None, row.timestamp
            )
            for row in rows
        ]

    def frames(self) -> Iterator[pd.DataFrame]:
        """Events as rows of `interactions`, with `seq`; none where there are none."""
        import pandas as pd
        import sqlalchemy as sa

        names = [tables.USER, tables.ITEM, tables.TIME, tables.EVENT, tables.VALUE, tables.TEXT]
        query = sa.select(*(self.events.c[name] for name in ("seq", *names))).order_by(self.events.c.seq)
        with _told(), self._reader.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
            for rows in connection.execute(query).partitions():
                frame = pd.DataFrame(rows, columns=["seq", *names])
                frame[tables.TIME] = pd.to_datetime(frame[tables.TIME], unit="us", utc=True).astype(
                    tables.MOMENT
                )
                frame[tables.VALUE] = frame[tables.VALUE].astype("float64")
                yield frame.astype(
                    {name: "str" for name in (tables.USER, tables.ITEM, tables.EVENT, tables.TEXT)}
                )

    def lists(self) -> pd.DataFrame:
        """Every impression, in order of time (microseconds); `items` is the store's JSON."""
        import sqlalchemy as sa

        return self._frame(sa.select(self.impressions).order_by(self.impressions.c[tables.TIME]))

    def reactions(self) -> pd.DataFrame:
        """Every event with the list on which it happened; times are microseconds."""
        import sqlalchemy as sa

        names = [tables.USER, tables.ITEM, tables.TIME, tables.EVENT, tables.VALUE, "impression_id"]
        frame = self._frame(sa.select(*(self.events.c[name] for name in names)).order_by(self.events.c.seq))
        return frame.astype({tables.VALUE: "float64"})

    def _frame(self, query: Any) -> pd.DataFrame:
        import pandas as pd

        with _told(), self._reader.connect() as connection:
            result = connection.execute(query)
            frame = pd.DataFrame(result.all(), columns=list(result.keys()))
        return frame.astype(
            {tables.TIME: "int64"}
            | {n: "str" for n in (tables.USER, tables.ITEM, tables.EVENT) if n in frame}
        )

    def exists(self) -> bool:
        """Whether a service has ever used this database."""
        import sqlalchemy as sa

        with _told():
            return bool(sa.inspect(self._reader).has_table("evergreen_events"))

    def extent(self) -> list[int]:
        """Of events and of changes, how many there are and the number of the newest."""
        import sqlalchemy as sa

        with _told(), self._reader.connect() as connection:
            found: list[int] = []
            for table in (self.events, self.changes):
                row = connection.execute(sa.select(sa.func.count(), sa.func.max(table.c.seq))).one()
                found += [int(row[0]), int(row[1] or 0)]
        return found


def reason(error: Exception) -> str:
    """The driver's own first line, without any password."""
    text = str(getattr(error, "orig", None) or error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"//[^/\s]*@", "//", line).rstrip(".:")


@contextmanager
def _told() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"event store: {reason(error)}") from error
