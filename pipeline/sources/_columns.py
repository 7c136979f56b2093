"""collect.files.columns: which column of which file is ours, and which of ours are constants.

`ours: theirs` names a column of the file; `theirs: ours` is understood where it can mean nothing else.
A moment in two columns is {date: X, time: Y}.
A constant is {constant: X}, "=X", a number, and for `event` one plain word that is like no column. A
qualified key (`items.text`) concerns one table; others concern the tables that own the column. An entry set
to null leaves the file's column of that name out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pandas as pd

from pipeline.data.tables import (
    AVAILABLE_FROM,
    AVAILABLE_UNTIL,
    CATEGORIES,
    COLUMNS,
    EVENT,
    INTERACTIONS,
    ITEM,
    ITEMS,
    RELATIONS,
    TEXT,
    TIME,
    TITLE,
    USER,
    VALUE,
    YEAR,
)
from pipeline.data.time_format import TimeFormat
from pipeline.data.unseen import tidy
from pipeline.data.values import as_lists, as_text
from pipeline.errors import ConfigError, DataError
from pipeline.file_settings import TABLES
from pipeline.sources import OF_ITEM, PLACE, RAW, REASON
from pipeline.sources._advice import likeliest, listed, no_header, without_field, yaml_name
from pipeline.sources._delimited import again

KEY = "collect.files.columns"
DESCRIPTION = "description"  # what people call the items' text
# Columns that describe an item wherever they stand.
ITEM_COLUMNS = (TITLE, DESCRIPTION, CATEGORIES, YEAR, AVAILABLE_FROM, AVAILABLE_UNTIL)
TIMES = (TIME, AVAILABLE_FROM, AVAILABLE_UNTIL)
OWNERS = {
    USER: ("interactions", "users"),
    ITEM: ("interactions", "items"),
    TEXT: ("interactions", "items"),
    **dict.fromkeys((TIME, EVENT, VALUE), ("interactions",)),
    **dict.fromkeys(ITEM_COLUMNS, ("items",)),
    **dict.fromkeys(RELATIONS, ("relations",)),
}
REQUIRED = {
    "interactions": (USER, ITEM, TIME),
    "items": (ITEM,),
    "users": (USER,),
    "relations": tuple(RELATIONS),
}
# A further column must not look like one of these to the readers of a folder of partitions.
_TAKEN = {name.lower() for name in (*INTERACTIONS, *ITEMS, "month", PLACE, RAW, REASON)}
# Words for a column of events, in no file's rows the event itself.
_NO_EVENTS = {"event", "events", "type", "kind", "action", "activity", "behavior", "behaviour", "interaction"}


@dataclass(frozen=True)
class Constant:
    value: Any


@dataclass(frozen=True)
class Joined:
    """A moment of which one column has the date, another the time of day."""

    date: str
    time: str

    def read(self, frame: pd.DataFrame) -> pd.Series:
        """2024-01-31 08:26; missing where either is. Workbooks give dates a time, and times of day a date."""
        date, time = (as_text(_cells(frame, name)).str.strip() for name in (self.date, self.time))
        date = date.str.replace(r"[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00:00)?$", "", regex=True)
        return date + " " + _clock(time.str.replace(r"^\d{4}-\d\d-\d\d[T ]", "", regex=True))


def _clock(time: pd.Series) -> pd.Series:
    """Times of day; of whole numbers like 9 and 14, 930 and 1412 or 93005, with the zeros they lost."""
    digits = int(time.str.len().max()) if time.notna().any() else 0
    parts = (digits + 1) // 2  # hours; minutes; seconds
    clock = (r"([01]\d|2[0-3])", r"[0-5]\d", r"[0-5]\d")[:parts]
    padded = time.str.zfill(2 * parts)
    if parts not in (1, 2, 3) or not padded.dropna().str.fullmatch("".join(clock)).all():
        return time  # minutes or seconds of the day, or written otherwise
    padded = padded.str.replace(r"(\d\d)(?=\d)", r"\1:", regex=True)
    return padded + ":00" if parts == 1 else padded


@dataclass(frozen=True)
class Entry:
    """One line of the mapping. `table` is None where the key was not qualified."""

    key: str
    table: str | None
    ours: str
    theirs: str | Constant | Joined | None

    def concerns(self, table: str) -> bool:
        if self.table:
            return table == self.table
        if isinstance(self.theirs, Constant):  # it would fit every table
            return table == OWNERS.get(self.ours, TABLES)[0]
        return table in OWNERS.get(self.ours, TABLES)


@dataclass
class Plan:
    """One file's columns: our name -> its name or a constant; `out` are left out."""

    chosen: dict[str, str | Constant | Joined] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)

    @property
    def used(self) -> set[str]:
        """The file's columns that become one of ours, or nothing."""
        return self.out.union(*map(_columns_of, self.chosen.values()))

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame under our names: ours first, then the rest, then `_place`, `_reason`, `_raw`."""
        result = {}
        for name in sorted(self.used):
            if name not in self.out and again(name) in frame:
                where = str(frame[PLACE].iloc[0]).rpartition(":")[0] if len(frame) else "the file"
                raise DataError(f"{where}: two columns are called {name!r}: rename one, or leave it out")
        for ours, theirs in self.chosen.items():
            if isinstance(theirs, Constant):
                result[ours] = pd.Series([theirs.value] * len(frame), frame.index)
            else:
                result[ours] = theirs.read(frame) if isinstance(theirs, Joined) else _cells(frame, theirs)
        used = self.used
        rows = {name: frame[name] for name in (PLACE, REASON, RAW) if name in frame}
        for name in frame.columns:
            if name not in used and name not in rows:
                result[free_name(name, result)] = frame[name]
        if OF_ITEM + CATEGORIES in result:  # one cell of text while it travels with an interaction
            lists = as_lists(result[OF_ITEM + CATEGORIES])
            result[OF_ITEM + CATEGORIES] = as_text(lists.str.join("|"))
        return pd.DataFrame({**result, **rows})


def _cells(frame: pd.DataFrame, name: str) -> pd.Series:
    if name in frame:
        return frame[name]
    return pd.Series(
        [None] * len(frame), frame.index, dtype=object
    )  # JSON lines: no row of this chunk has it


def _columns_of(theirs: str | Constant | Joined | None) -> set[str]:
    if isinstance(theirs, Joined):
        return {theirs.date, theirs.time}
    return {theirs} if isinstance(theirs, str) else set()


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or file_`name` where it would be taken for another column."""
    taken = {other.lower() for other in taken} | _TAKEN
    while name.lower() in taken:
        name = f"file_{name}"
    return name


def plans(
    columns: Mapping[str, Any], files: Mapping[str, Mapping[str, list[str]]], items_inside: bool
) -> dict[str, dict[str, Plan]]:
    """table -> file -> Plan, for `files`: table -> file -> its columns.

    `items_inside`: the items are described by columns of the interactions, which become `items.X`.
    Raises ConfigError for an entry that makes no sense, DataError for a column that is not there.
    """
    columns = {tidy(key): _tidied(value) for key, value in columns.items()}  # as headers are read
    everything = {name for table in files.values() for columns_of in table.values() for name in columns_of}
    for key, value in columns.items():
        _refuse_misspelt(key, value, everything, columns)
    entries = [_entry(key, value, everything) for key, value in columns.items()]
    entries.sort(key=lambda entry: entry.table is None)  # what is said of one table goes before the rest
    used: set[str] = set()
    result: dict[str, dict[str, Plan]] = {}
    for table, columns_of in files.items():
        result[table] = {}
        for file, names in columns_of.items():
            result[table][file] = _plan(entries, table, file, names, items_inside, used)
        _refuse_gaps(entries, result[table], columns_of)
    _refuse_unused(entries, used, files)
    return result


def time_formats(columns: Mapping[str, Any]) -> dict[str, TimeFormat]:
    """Our column of times -> how it is written, for `{column: X, format: F, zone: Z}`."""
    return {
        _qualified(key)[1]: TimeFormat(value.get("format"), value.get("zone")).check(f"{KEY}.{key}")
        for key, value in columns.items()
        if isinstance(value, dict) and {"format", "zone"} & set(value)
    }


def inner_names(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in the mapping that may be those of a field in an object, like `user.id`."""
    theirs = [
        name
        for value in columns.values()
        for name in (map(value.get, ("column", "date", "time")) if isinstance(value, dict) else [value])
    ]
    theirs += [key for key, value in columns.items() if str(value) in OWNERS and _qualified(key)[0] is None]
    names = [tidy(name) for name in theirs if isinstance(name, str)]
    return tuple(dict.fromkeys(name for name in names if "." in name[1:-1]))


def _tidied(value: Any) -> Any:
    """A name in the mapping without what nobody sees."""
    if isinstance(value, dict):
        return {key: one if key == "constant" else _tidied(one) for key, one in value.items()}
    return tidy(value) if isinstance(value, str) else value


def _refuse_misspelt(key: str, value: Any, everything: set[str], columns: Mapping[str, Any]) -> None:
    """Raises ConfigError for `titlle: name` and `item.title: name`, which would be further columns."""
    if key in everything or str(value) in OWNERS or str(value) not in everything:
        return
    table, ours = _qualified(key)
    head, dot, rest = key.partition(".")
    near = get_close_matches(head, TABLES, 1, 0.7) if dot and table is None else []
    meant = [f"{one}.{rest}" for one in near]
    if not dot and ours not in OWNERS:
        near = get_close_matches(ours, OWNERS, 1, 0.8)
        meant = [one for one in near if not re.fullmatch(rf"{one}[\d_].*", ours) and one not in columns]
    if meant:
        raise ConfigError(
            f"{KEY}.{key}: did you mean {meant[0]}? A further column needs a name less like one of ours"
        )


def _entry(key: str, value: Any, everything: set[str]) -> Entry:
    table, ours = _qualified(key)
    if isinstance(value, dict):
        if set(value) == {"constant"}:
            return Entry(key, table, ours, Constant(value["constant"]))
        further = set(value) - {"format", "zone"}
        if further not in (set(), {"column"}, {"date", "time"}) or ours not in TIMES:
            raise ConfigError(
                f"{KEY}.{key}: write the file's column or {{constant: value}}; "
                f"of {', '.join(TIMES)} also {{column: X, format: F, zone: Z}} or {{date: X, time: Y}}"
            )
        if "date" in further:
            return Entry(key, table, ours, Joined(str(value["date"]), str(value["time"])))
        return Entry(key, table, ours, str(value.get("column", ours)))
    if value is None:
        return Entry(key, table, ours, None)
    if not isinstance(value, str):
        return Entry(key, table, ours, str(value) if str(value) in everything else Constant(value))
    other_table, other = _qualified(value)
    if key in everything and other in OWNERS and (ours not in OWNERS or value not in everything):
        return Entry(key, other_table, other, key)
    if value in everything:
        return Entry(key, table, ours, value)
    if value.startswith("="):
        return Entry(key, table, ours, Constant(value[1:]))
    return Entry(key, table, ours, _plain_event(key, value, everything) if ours == EVENT else value)


def _plain_event(key: str, word: str, everything: set[str]) -> Constant:
    """A misspelt column would make every row the same event, so all but plain words must say `constant`."""
    lower = {name.lower(): name for name in everything}
    near = get_close_matches(word.lower(), lower, 1)
    if re.fullmatch(r"[A-Za-z]+", word) and not near and word.lower() not in _NO_EVENTS:
        return Constant(word)
    meant = f" (did you mean {lower[near[0]]}?)" if near else ""
    raise ConfigError(
        f"{KEY}.{key}: no file has a column {word!r}{meant}; columns there: {listed(sorted(everything))}; "
        f"name the column, or write {{constant: {word}}} if every row is that event"
    )


def _qualified(key: str) -> tuple[str | None, str]:
    table, dot, name = key.partition(".")
    return (table, name) if dot and table in TABLES and name else (None, key)


def _plan(
    entries: list[Entry], table: str, file: str, names: list[str], items_inside: bool, used: set[str]
) -> Plan:
    plan, said_of = Plan(), dict[str, str | None]()
    inside = items_inside and table == "interactions"
    for entry in entries:
        of_item = inside and (entry.table == "items" or (entry.table is None and entry.ours in ITEM_COLUMNS))
        if not entry.concerns(table) and not of_item:
            continue
        ours = _our_name(entry.ours, of_item or table == "items", of_item)
        if entry.theirs is None:
            used.add(entry.key)
            plan.out |= {entry.ours} & set(names)
        elif _columns_of(entry.theirs) <= set(names):
            used.add(entry.key)
            if ours not in plan.chosen:
                plan.chosen[ours], said_of[ours] = entry.theirs, entry.table
            elif said_of[ours] == entry.table:
                raise ConfigError(f"{KEY}.{entry.key}: {ours} is named twice: keep one")
    _add_natural(plan, table, names, inside)
    for ours in REQUIRED[table]:
        if ours not in plan.chosen:
            said = next((e.theirs for e in entries if e.ours == ours and e.concerns(table)), ours)
            taken = next((e.key for e in entries if e.theirs == ours and e.ours != ours), None)
            if said == ours in names and taken:
                raise DataError(
                    f"{file}: its column {ours!r} became {taken} by {KEY}.{taken}: correct that, or write "
                    f"{ours}: {ours}, too"
                )
            missing = sorted(_columns_of(said) - set(names))
            wanted = " and ".join(map(repr, missing)) or repr(ours)
            example = f"{ours}: {yaml_name(likeliest(ours, names, {*plan.used, *OWNERS}))}"
            raise DataError(
                f"{file}: no column {wanted} for {ours}; columns there: {listed(names)}; "
                f"name it in {KEY}, like {example}{without_field(missing, names)}{no_header(names, file)}"
            )
    return plan


def _add_natural(plan: Plan, table: str, names: list[str], inside: bool) -> None:
    """Columns of the file that already have our names."""
    taken = plan.used
    for name in names:
        if inside and name in ITEM_COLUMNS:
            ours = _our_name(name, True, True)
        elif table == "items" and name == DESCRIPTION and TEXT not in names:
            ours = TEXT
        elif name in COLUMNS[table]:
            ours = name
        else:
            continue
        if name not in taken and ours not in plan.chosen:
            plan.chosen[ours] = name


def _our_name(name: str, is_items: bool, of_item: bool) -> str:
    if is_items and name == DESCRIPTION:
        name = TEXT
    return OF_ITEM + name if of_item else name


def _refuse_gaps(entries: list[Entry], chosen: dict[str, Plan], files: Mapping[str, list[str]]) -> None:
    """A column that tells successes, or that is mapped, is in all files of a table or in none.

    In a file that calls it otherwise it would be empty, and rows without a value always count.
    """
    mapped = {entry.theirs for entry in entries if isinstance(entry.theirs, str)}
    for file, plan in chosen.items():
        for ours, theirs in plan.chosen.items():
            if ours not in (EVENT, VALUE) and theirs not in mapped:
                continue
            for other, names in files.items():
                if ours not in chosen[other].chosen:
                    near = get_close_matches(str(theirs), names, 1, cutoff=0.5)
                    name = (near or [name for name in names if name not in plan.chosen.values()] or ["X"])[0]
                    raise DataError(
                        f"{other}: no column {theirs!r} for {ours}, which {file} has; columns there: "
                        f"{listed(names)}; rename it there, or name it, too, in {KEY}, like {name}: {ours}"
                    )


def _refuse_unused(
    entries: list[Entry], used: set[str], files: Mapping[str, Mapping[str, list[str]]]
) -> None:
    for entry in entries:
        if entry.key not in used:
            tables = [table for table in TABLES if entry.concerns(table) and table in files] or [
                "interactions"
            ]
            file, names = next(iter(files[tables[0]].items()))
            wanted = entry.theirs if isinstance(entry.theirs, str) else entry.key
            raise DataError(
                f"{file}: no column {wanted!r} for {entry.ours}; columns there: {listed(names)}; "
                f"correct {KEY}.{entry.key}"
            )
