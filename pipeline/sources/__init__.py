"""Where data comes from: one module per kind of source, chosen by `collect.source` (with - for _).

A source module has two functions (docs/sources.md shows a whole one):

    read(settings: Collect) -> Tables
    fingerprint(settings: Collect) -> str    # sha256 (hex) over the contents it would read, without parsing

A constant CREDIT is shown at the foot of reports that show its items. Modules whose name starts with an
underscore help them and are no sources.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.data.forgotten import Forgotten
    from pipeline.data.time_format import TimeFormat
    from pipeline.params import Collect

# Columns that a chunk may have beside the contract's, for the list of rejected rows.
REASON, PLACE, RAW = "_reason", "_place", "_raw"
# Prefix of columns of interactions that describe the item; they move to items, first in time wins.
OF_ITEM = "items."


@dataclass(frozen=True)
class Tables:
    """What a source found, as it stands there: `collect` checks, converts and sorts it.

    Frames have the contract's column names; times, numbers and ids in any notation that pipeline.data.values
    reads; any further columns. Optional in each row: `_place` (file and line, to find it again) and, for a
    row that could not be read at all, `_reason` (words_like_this) with `_raw` (its text).
    """

    interactions: Iterable[pd.DataFrame]
    """Chunks small enough for memory; an interaction column `items.title` gives the item's title."""
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    relations: pd.DataFrame | None = None
    """head, relation, tail: a knowledge graph whose heads or tails may be item ids."""
    times: Mapping[str, TimeFormat] = field(default_factory=dict)
    """Our column -> how it writes times, where the source knows."""
    decimal: str | None = None
    """Sign before the decimals of numbers in text; None: a point, and no thousands."""
    feedback: Iterable[pd.DataFrame] = ()
    """What collect.feedback adds to the interactions."""


def known() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def load(name: str) -> ModuleType:
    """The source's module. Raises ConfigError listing the known names."""
    if name not in known():
        raise ConfigError(f"collect.source: no source {name!r}; there are {', '.join(known())}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def read(settings: Collect, forgotten: Forgotten | None = None) -> Tables:
    """Without the rows of whom is `forgotten`. Raises ConfigError and DataError for what a user can mend."""
    tables: Tables = load(settings.source).read(settings)
    if settings.feedback is not None:
        from pipeline.sources import _feedback

        tables = replace(tables, feedback=_feedback.frames(settings.feedback))
        if forgotten is not None:
            forgotten.add(_feedback.forgotten(settings.feedback))
    if forgotten is not None:
        tables = forgotten.without(tables)
    if settings.pseudonyms:  # here, so that nothing that reads a source ever sees an id
        from pipeline.data.pseudonyms import Pseudonyms

        tables = Pseudonyms.from_environment().hide(tables)
    return tables


def with_put(items: pd.DataFrame, settings: Collect) -> pd.DataFrame:
    """`items`, as collect writes them, with those that were put or withdrawn through collect.feedback."""
    if settings.feedback is None:
        return items
    from pipeline.sources import _feedback

    return _feedback.with_items(items, settings.feedback)


def impressions(settings: Collect) -> pd.DataFrame:
    """What the service of collect.feedback showed (pipeline/data/impressions.py); no row without one."""
    from pipeline.data.impressions import none

    if settings.feedback is None:
        return none()
    from pipeline.sources import _feedback

    table = _feedback.shown(settings.feedback)
    if settings.pseudonyms:  # those that a service kept before
        from pipeline.data.pseudonyms import Pseudonyms

        hidden = Pseudonyms.from_environment()
        table["user_id"] = table["user_id"].map(hidden.of, na_action="ignore").astype("str")
    return table


def credit(settings: Collect) -> str | None:
    """What has to be said wherever the source's items are shown: its constant CREDIT, if it has one."""
    return getattr(load(settings.source), "CREDIT", None)


def fingerprint(settings: Collect) -> str:
    """Changes if and only if the contents of the source, or of its feedback, do (or others are named)."""
    digest: str = load(settings.source).fingerprint(settings)
    if settings.feedback is not None:
        from pipeline.sources import _feedback

        digest = f"{digest}\0{_feedback.fingerprint(settings.feedback)}"
    if settings.pseudonyms:
        from pipeline.data.pseudonyms import Pseudonyms

        digest = f"{digest}\0{Pseudonyms.from_environment().number}"
    return hashlib.sha256(f"{settings.source}\0{digest}".encode()).hexdigest()


def existing(settings: Collect) -> Path:
    """collect.path. Raises ConfigError if it is null, DataError if nothing is there."""
    if not settings.path:
        raise ConfigError("collect.path: null; name the data to read")
    path = Path(settings.path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder: correct collect.path")
    return path


def digest_of(files: Iterable[Path]) -> str:
    """sha256 (hex) over the files' contents, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
