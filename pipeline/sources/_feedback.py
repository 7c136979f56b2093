"""collect.feedback: what a service's event store holds, joined to whatever the source brings.

Events are rows of `interactions`, items that were put or withdrawn are rows of `items`; what was shown is a
table of its own. An event that the
source has, too (same user, item, time and event), is a duplicate as any other. SQLAlchemy's address of the
store; ${NAME} is taken from the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pipeline.data.impressions import impressions
from pipeline.errors import ConfigError, DataError
from pipeline.serve.changes import with_changes
from pipeline.serve.events import Store, StoreError
from pipeline.sources import PLACE


def frames(url: str) -> Iterator[pd.DataFrame]:
    """Rows of `interactions`, in the order in which they were acknowledged."""
    with opened(url) as store:
        for frame in store.frames():
            place = "feedback:" + frame["seq"].astype("str")
            yield frame.drop(columns="seq").assign(**{PLACE: place})


def fingerprint(url: str) -> str:
    """Of how many events and changes there are, and of the newest: none is ever changed in place."""
    with opened(url) as store:
        return hashlib.sha256(repr(store.extent()).encode()).hexdigest()


def forgotten(url: str) -> set[str]:
    """The marks of people whom the service forgot (pipeline/data/forgotten.py)."""
    with opened(url) as store:
        return {change.key for change in store.changes_after(0) if change.kind == "user"}


def with_items(items: pd.DataFrame, url: str) -> pd.DataFrame:
    """`items` (as collect writes them) with those put in the place of theirs, and those withdrawn over."""
    with opened(url) as store:
        return with_changes(items, store.changes_after(0))


def shown(url: str) -> pd.DataFrame:
    """Every place of every list, with the last reaction to it."""
    with opened(url) as store:
        return impressions(store.lists(), store.reactions())


@contextmanager
def opened(url: str) -> Iterator[Store]:
    address = os.path.expandvars(url)
    if missing := re.search(r"\$\{?(\w+)\}?", address):
        raise ConfigError(f"collect.feedback: the environment has no {missing[1]}: export it")
    try:
        store = Store(address, create=False)
    except ConfigError as error:
        raise ConfigError(f"collect.feedback: {error}") from None
    try:
        database = store.engine.url.database
        if store.sqlite and not (database and Path(database).is_file()):
            raise DataError(
                f"collect.feedback: {database}: no such file: start `evergreen serve` once, or write null"
            )
        if not store.exists():
            raise DataError(
                "collect.feedback: a database without events: start `evergreen serve` with it once"
            )
        yield store
    except StoreError as error:
        raise DataError(f"collect.feedback: {error}: check that it can be reached") from None
    finally:
        store.close()
