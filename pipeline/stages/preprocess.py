"""Raw tables -> windows, points, and the catalogue with texts.

In: data/raw: interactions/month=*/*.parquet, items.parquet, users.parquet (may be absent), manifest.json.
Out: data/prepared:
  train, validation, test_interactions.parquet   every row of the window and all its raw columns, `fit`,
                                                 `positive`; by time, ties by a fixed-salt digest
  test, validation_points.parquet                point_id, user_id, item_id, timestamp
  items.parquet                                  pipeline/data/items.py
  users.parquet                                  as it came, if it came: the evaluation's user groups
  withheld.parquet                               item_id and the columns of items that never_features names,
                                                 if there are any: for the evaluation alone
  summary.json                                   counts of all of it
The rules of split and points are in pipeline/data/splitting.py. A raw column named like one of ours (`fit`,
`positive`, `window`; of items `item_text`, `first_seen`) is kept with `_raw` behind its name.
Run: python -m pipeline.stages.preprocess data/raw data/prepared
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import ibis
import pandas as pd

from pipeline.data import counting, keywords, splitting, tables
from pipeline.data import items as catalogue
from pipeline.data.engine import named, open_engine, read_parquet, write_parquet
from pipeline.data.splitting import TEST, VALIDATION, WINDOWS
from pipeline.data.text import bare
from pipeline.documents.data import Manifest, PointCounts, Summary, Window
from pipeline.errors import ConfigError, DataError
from pipeline.files import replace_folder, temporary_beside
from pipeline.params import OURS, Params, Preprocess
from pipeline.run import run

log = logging.getLogger(__name__)

COLLECT = "run `dvc repro -f collect`"
FILES = {"train": "train", "validation": "validation", "test": "test_interactions"}
EVENTS_NAMED = 20
DELIVERED = frozenset(("gender", "age", "age_group", "occupation"))  # never_features in params.yaml


@dataclass(frozen=True)
class Prepared:
    """What `preprocess` makes: expressions still to be computed, one frame, and the counts."""

    tables: dict[str, ibis.Table]  # file name without suffix -> rows in the file's order
    items: pd.DataFrame
    summary: Summary


def preprocess(connection: ibis.BaseBackend, items: pd.DataFrame, settings: Preprocess) -> Prepared:
    """From the table `interactions` of `connection`, any Ibis backend; it gets named intermediate tables.
    What the manifest says is not in the summary yet.

    Raises DataError where a window, a success or a point is impossible, ConfigError for the template.
    """
    _check(settings)
    items = items.rename(columns=_raw_names(items.columns, _ours(settings)))
    never = settings.never_features
    template = catalogue.parse_template(settings.item_text, items.columns, never)
    rows = connection.table("interactions")
    taken = _raw_names(rows.columns, ("fit", "positive", "window"))
    rows = splitting.typed(rows.rename({new: old for old, new in taken.items()}))
    events = counting.count_events(rows, settings.positive)
    if warning := counting.mostly_excluded(events, settings.positive):
        log.warning(warning)
    by_time = splitting.rows_by_time(rows).to_pandas()
    shares = settings.validation_share, settings.test_share
    cuts = splitting.find_cuts(by_time, *shares)
    if warning := splitting.check_shares(by_time, cuts, *shares):
        log.warning(warning)
    rows = splitting.with_windows(rows, cuts, settings.positive)
    users = named(connection, "users_seen", splitting.seen(rows, tables.USER))
    seen = named(connection, "items_seen", splitting.seen(rows, tables.ITEM))
    windows = counting.count_windows(by_time, cuts, users, seen, settings.min_user_interactions)
    counting.check_windows(windows, events, settings.positive, settings.min_user_interactions)

    train_end = pd.Timestamp(windows["train"].last)
    table = catalogue.complete(items, seen.select(tables.ITEM, "first_seen").to_pandas(), never)
    table = catalogue.with_text(table, template, settings.max_text_characters, train_end, settings.keywords)
    offer = [tables.ITEM, tables.AVAILABLE_FROM, tables.AVAILABLE_UNTIL]
    offered = named(connection, "items_offered", ibis.memtable(table[offer]))
    repeats = settings.repeats == "include"
    successes = splitting.distinct_successes(rows, offered, settings.max_points_per_user, repeats)
    successes = named(connection, "successes", successes)
    points = counting.count_points(successes, users, seen, windows)
    counting.check_points(points)
    table_rows = catalogue.count_items(table, len(items), train_end)
    summary = _summary(settings, events, windows, points).but(items=table_rows)
    rows = splitting.with_fit(rows, users, settings.min_user_interactions)
    return Prepared(_tables(rows, successes), table, summary)


def _summary(
    settings: Preprocess, events: pd.DataFrame, windows: dict[str, Window], points: dict[str, PointCounts]
) -> Summary:
    """Without what the manifest and the items say."""
    kept = (
        "positive",
        "repeats",
        "max_points_per_user",
        "item_text",
        "max_text_characters",
        "keywords",
        "never_features",
    )
    rows = int(events["rows"].sum())
    most = events[[tables.EVENT, "rows"]].head(EVENTS_NAMED)
    return Summary(
        settings=settings.model_dump(include=set(kept)),  # what a model must know of how its data was made
        train_end=windows["train"].last,
        fit_end=windows["validation"].last,
        rows={"read": rows, "kept": sum(window.rows for window in windows.values()), "dropped": 0},
        windows=windows,
        points=points,
        repeats=points["test"].repeats,
        points_capped=points["test"].capped,
        points_unavailable=points["test"].unavailable,
        events={str(name): int(count) for name, count in most.to_numpy()},
    )


def _check(settings: Preprocess) -> None:
    if settings.validation_share + settings.test_share >= 1:
        raise ConfigError(
            f"preprocess.validation_share {settings.validation_share:g} and preprocess.test_share "
            f"{settings.test_share:g} leave nothing for train: their sum must be below 1"
        )


def check_text(settings: Preprocess, columns: Sequence[str]) -> None:
    """Raises ConfigError where `preprocess` would, of an items table with these columns: for the template
    and for keywords."""
    taken = _raw_names(columns, _ours(settings))
    named = [taken.get(name, name) for name in columns]
    catalogue.parse_template(settings.item_text, named, settings.never_features)
    if settings.keywords:
        keywords.extractor(settings.keywords)


def _ours(settings: Preprocess) -> tuple[str, ...]:
    """Columns that it adds to items."""
    return (catalogue.ITEM_TEXT, catalogue.FIRST_SEEN, *(tables.WORDS if settings.keywords else ()))


def _raw_names(columns: Iterable[str], ours: tuple[str, ...]) -> dict[str, str]:
    """Old -> new names of columns that would collide; engines do not tell Fit from fit."""
    return {name: f"{name}_raw" for name in columns if name.lower() in ours}


def _tables(rows: ibis.Table, successes: ibis.Table) -> dict[str, ibis.Table]:
    windows = {
        FILES[name]: splitting.in_order(rows.filter(rows.window == number).drop("window"))
        for number, name in enumerate(WINDOWS)
    }
    return windows | {
        "validation_points": splitting.points(successes, VALIDATION),
        "test": splitting.points(successes, TEST),
    }


def read_interactions(raw: Path, connection: ibis.BaseBackend) -> None:
    """The monthly files as the view `interactions`. Raises DataError if files or columns are missing."""
    folder = raw / "interactions"
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder}: no Parquet file: {COLLECT}")
    missing = set(tables.INTERACTIONS) - set(read_parquet(connection, files, "interactions").columns)
    if missing:
        raise DataError(f"{folder}: no column {', '.join(sorted(missing))}: {COLLECT}")


def write(prepared: Prepared, manifest: Manifest, folder: Path) -> None:
    """Every file of data/prepared into the empty `folder`."""
    for name, table in prepared.tables.items():
        write_parquet(table, folder / f"{name}.parquet")
    tables.write_parquet(prepared.items, folder / "items.parquet")
    summary = prepared.summary.but(
        as_of=manifest.as_of,
        credit=manifest.credit,
        data_hash=manifest.content_hash,
        collected=manifest.rows,
        rejected=manifest.rejected,
    )
    summary.write(folder / "summary.json")


def _withhold(items: pd.DataFrame, people: pd.DataFrame | None, never: list[str], folder: Path) -> None:
    """Write what models may not see of items, and tell of names that no table has."""
    of_items = [name for name in never if name in items]
    if of_items:
        tables.write_parquet(items[[tables.ITEM, *of_items]], folder / "withheld.parquet")
    known = {*items, *(() if people is None else people)}
    if tables.GRAPH_RELATIONS in items:
        known.update(items[tables.GRAPH_RELATIONS].explode().dropna())  # of an item without any: NaN
    if nowhere := _nowhere(never, known):
        log.warning(
            "preprocess.never_features: no column or relation is named %s: nothing is withheld by that",
            ", ".join(nowhere),
        )


def _nowhere(never: list[str], known: set[str]) -> list[str]:
    """Names without a column, each with the nearest one: a slip would let in what was to be withheld.

    Of the names as delivered only those that are there in another spelling: most data have no such column.
    """
    others = sorted(known - OURS - set(never))
    told = []
    for name in (name for name in never if name not in known):
        near = [other for other in others if bare(other) == bare(name)]
        if name not in DELIVERED:
            near = near or get_close_matches(name, others, 1)
        if near or name not in DELIVERED:
            told.append(f"{name} ({near[0]} is)" if near else name)
    return told


def main(raw: Path, prepared: Path, params: Path = Path("params.yaml")) -> None:
    settings = Params.load(params).preprocess
    manifest, items = (
        Manifest.read(raw / "manifest.json"),
        tables.read_parquet(raw / "items.parquet", "items"),
    )
    users = raw / "users.parquet"
    people = tables.read_parquet(users, "users") if users.exists() else None
    partial = temporary_beside(prepared)
    try:
        spill = partial / "spill"
        with open_engine(settings, spill) as connection:
            read_interactions(raw, connection)
            result = preprocess(connection, items, settings)
            write(result, manifest, partial)
        if people is not None:
            tables.write_parquet(people, partial / "users.parquet")
        _withhold(items, people, settings.never_features, partial)
        shutil.rmtree(spill, ignore_errors=True)
        replace_folder(partial, prepared)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    summary = result.summary
    rows, test = [summary.windows[name].rows for name in WINDOWS], summary.points["test"]
    log.info(
        f"prepared {' + '.join(map(str, rows))} interactions (train + validation + test, train ends "
        f"{summary.windows['train'].last.isoformat()}); {test.points} test points of {test.users} users; "
        f"{len(result.items)} items, {summary.items['without_text']} without text"
    )


if __name__ == "__main__":
    run(main)
