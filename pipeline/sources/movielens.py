"""The source `movielens`: a folder or zip in any layout that GroupLens has published.

100K (`u.data`, `u.item`, `u.user`, `u.genre`; latin-1), 1M and 10M (`.dat`, fields between `::`), latest,
20M, 25M and 32M (`.csv`, UTF-8, with tags and links). In: collect.path, or collect.url with collect.sha256.
Tags are no interactions: items get `tags` and, of the same length, `tag_times`, because a tag given later
tells of the future. Of links come `imdb_id` and `tmdb_id`.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data import tables
from pipeline.data.ids import as_ids
from pipeline.data.moments import as_moments
from pipeline.data.time_format import TimeFormat
from pipeline.errors import DataError
from pipeline.params import Collect
from pipeline.sources import PLACE, RAW, REASON, Tables, _movies, digest_of, existing
from pipeline.sources._delimited import Dialect
from pipeline.sources._delimited import read as read_delimited
from pipeline.sources._download import download

# Layout: the files that tell it, and all that are read.
SECONDS = TimeFormat("s")
LAYOUTS = {
    "csv": (("ratings.csv", "movies.csv"), ("tags.csv", "links.csv")),
    "dat": (("ratings.dat", "movies.dat"), ("users.dat", "tags.dat")),
    "100k": (("u.data", "u.item"), ("u.user", "u.genre")),
}
DELIMITERS = {".csv": ",", ".dat": "::", ".data": "\t", ".item": "|", ".user": "|", ".genre": "|"}
COLUMNS = {
    "ratings.dat": (tables.USER, tables.ITEM, tables.VALUE, tables.TIME),
    "movies.dat": (tables.ITEM, tables.TITLE, tables.CATEGORIES),
    "users.dat": (tables.USER, "gender", "age", "occupation", "zip"),
    "tags.dat": (tables.USER, tables.ITEM, "tag", tables.TIME),
    "u.data": (tables.USER, tables.ITEM, tables.VALUE, tables.TIME),
    "u.user": (tables.USER, "age", "gender", "occupation", "zip"),
    "u.genre": ("genre", "number"),
}
NAMES = {"userId": tables.USER, "movieId": tables.ITEM, "rating": tables.VALUE, "genres": tables.CATEGORIES}
GENRES_100K = """unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy
Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"""
log = logging.getLogger(__name__)
Files = dict[str, Callable[[], Any]]  # name -> opens it for reading bytes


def read(settings: Collect) -> Tables:
    path = _path(settings)
    files, layout = _layout(path)
    interactions = (chunk.assign(event="rating") for chunk in _frames(files, LAYOUTS[layout][0][0]))
    items = _items_100k(files) if layout == "100k" else _items(files, layout)
    users = {"100k": "u.user", "dat": "users.dat"}.get(layout)
    people = _users(_table(files, users)) if users in files else None
    return Tables(interactions, items, people, times={tables.TIME: SECONDS})


def fingerprint(settings: Collect) -> str:
    """Of the archive's bytes, or of the files read. With a checksum in the params nothing is downloaded."""
    if not settings.path and settings.url and settings.sha256:
        return settings.sha256.lower()
    path = _path(settings)
    if path.is_file():
        return digest_of([path])
    files, layout = _layout(path)
    folder = _folder(path)
    return digest_of(folder / name for name in sorted(files) if name in sum(LAYOUTS[layout], ()))


def _path(settings: Collect) -> Path:
    if settings.url and not settings.path:
        return download(settings.url, settings.sha256)
    return existing(settings)


def _layout(path: Path) -> tuple[Files, str]:
    """(name -> how to open it, layout). Raises DataError listing what is there if it is none of them."""
    files = _in_folder(_folder(path)) if path.is_dir() else _in_archive(path)
    for layout, (needed, _) in LAYOUTS.items():
        if all(name in files for name in needed):
            return files, layout
    wanted = ", or ".join(" and ".join(needed) for needed, _ in LAYOUTS.values())
    there = ", ".join(sorted(files)[:10]) or "nothing"
    raise DataError(f"{path}: no MovieLens layout: wanted {wanted}; found {there}; correct collect.path")


def _folder(path: Path) -> Path:
    """`path`, or the one folder in it that holds the files (an unpacked archive)."""
    inner = [child for child in path.iterdir() if child.is_dir() and child.name != "__MACOSX"]
    unpacked_here = any((path / needed[0]).exists() for needed, _ in LAYOUTS.values())
    return inner[0] if len(inner) == 1 and not unpacked_here else path


def _in_folder(folder: Path) -> Files:
    return {child.name: partial(child.open, "rb") for child in folder.iterdir() if child.is_file()}


def _in_archive(path: Path) -> Files:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise DataError(f"{path}: neither a folder nor a zip archive: correct collect.path") from None
    members = [name for name in archive.namelist() if not name.startswith("__MACOSX/") and name[-1] != "/"]
    return {name.rpartition("/")[2]: partial(archive.open, name) for name in members}


def _frames(files: Files, name: str) -> Iterator[pd.DataFrame]:
    """Chunks of a file under our names."""
    suffix = name[name.rfind(".") :]
    names, quoting, encoding = COLUMNS.get(name), suffix == ".csv", "utf-8"
    if name == "u.item":
        names = _columns_100k(files)
    if name in ("u.item", "movies.dat", "tags.dat"):
        encoding = _encoding(files[name])
    dialect = Dialect(DELIMITERS[suffix], names=names, quoting=quoting, encoding=encoding)
    try:
        with files[name]() as stream:
            for chunk in read_delimited(stream, name, dialect):
                yield chunk.rename(columns=NAMES)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{name}: the archive is damaged ({error}): fetch it again") from None


def _table(files: Files, name: str) -> pd.DataFrame:
    return pd.concat(list(_frames(files, name)), ignore_index=True)


def _encoding(opened: Callable[[], Any]) -> str:
    """100K and 1M are published in latin-1, 10M in UTF-8; accents in latin-1 are no UTF-8."""
    with opened() as stream:
        try:
            stream.read().decode("utf-8")
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def _genres_100k(files: Files) -> list[str]:
    if "u.genre" not in files:
        return GENRES_100K.split()
    table = _table(files, "u.genre")
    return table["genre"].iloc[pd.to_numeric(table["number"]).argsort()].tolist()


def _columns_100k(files: Files) -> tuple[str, ...]:
    genres = [f"genre {name}" for name in _genres_100k(files)]
    return (tables.ITEM, tables.TITLE, "released", "video", "imdb", *genres)


def _items_100k(files: Files) -> pd.DataFrame:
    table = _table(files, "u.item")
    flags = table.filter(like="genre ").eq("1")
    names = [name.removeprefix("genre ") for name in flags.columns]
    rows = flags.to_numpy()
    table[tables.CATEGORIES] = [
        "|".join(name for name, has in zip(names, row, strict=True) if has) for row in rows
    ]
    return _described(table)


def _items(files: Files, layout: str) -> pd.DataFrame:
    items = _described(_table(files, LAYOUTS[layout][0][1]))
    tags = f"tags.{layout}"
    if tags in files:
        items = items.join(_tags(_table(files, tags)), on=tables.ITEM)
    if "links.csv" in files:
        links = _table(files, "links.csv").rename(columns={"imdbId": "imdb_id", "tmdbId": "tmdb_id"})
        links[tables.ITEM] = as_ids(links[tables.ITEM])
        links = links.drop_duplicates(tables.ITEM).set_index(tables.ITEM)[["imdb_id", "tmdb_id"]]
        items = items.join(links.mask(links == ""), on=tables.ITEM)
    return items


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """item_id, title, year, categories (and what tells of broken rows) of the published columns."""
    rows = {name: table[name] for name in (PLACE, REASON, RAW) if name in table}
    split = _movies.titles_and_years(table[tables.TITLE])
    categories = _movies.genres(table[tables.CATEGORIES], "|")
    return pd.DataFrame(
        {tables.ITEM: as_ids(table[tables.ITEM]), **split, tables.CATEGORIES: categories, **rows}
    )


def _tags(table: pd.DataFrame) -> pd.DataFrame:
    """item_id -> tags and tag_times, lists in order of time, then of text."""
    times, _ = as_moments(table[tables.TIME], said=SECONDS)
    table = pd.DataFrame(
        {
            tables.ITEM: as_ids(table[tables.ITEM]),
            tables.TAGS: table["tag"].str.strip(),
            tables.TAG_TIMES: times,
        }
    )
    usable = (
        (table[tables.TAGS] != "") & table[tables.TAGS].notna() & times.notna() & table[tables.ITEM].notna()
    )
    if not usable.all():
        log.warning("%d tags without text, movie or time are left out", (~usable).sum())
    table = table[usable]
    groups = table.sort_values([tables.TAG_TIMES, tables.TAGS]).groupby(tables.ITEM)
    return pd.DataFrame({name: groups[name].agg(list) for name in (tables.TAGS, tables.TAG_TIMES)})


def _users(table: pd.DataFrame) -> pd.DataFrame:
    """Of 100K ages in years, of 1M the codes of groups of ages and occupations in words."""
    rows = {name: table[name] for name in (PLACE, REASON, RAW) if name in table}
    occupations = {str(code): name for code, name in enumerate(_movies.OCCUPATIONS)}
    coded = table["occupation"].isin(occupations).all()
    columns = {
        tables.USER: table[tables.USER],
        **({} if coded else {"age": _movies.ages(table["age"])}),
        "age_group": _movies.age_groups(table["age"]),
        "gender": table["gender"],
        "occupation": table["occupation"].map(lambda code: occupations.get(code, code), na_action="ignore"),
    }
    return pd.DataFrame({**columns, **rows})
