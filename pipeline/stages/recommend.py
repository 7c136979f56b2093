"""The champion's lists for every user of the data, ready to be looked up.

In: data/prepared (pipeline/data/histories.py) and models/champion. Out: recommendations/top_k.parquet, a row
for each user and rank: user_id, rank (from 1), item_id, score (null: listed by popularity), reasons (list of
sentences), version (of the champion). A user's history is all of the user's rows, and the live state counts
all rows; the moment is the data's as_of. Without a champion the table is empty. Lists keep
recommend.exposure_floors (pipeline/models/floors.py).

    python -m pipeline.stages.recommend data/prepared models/champion recommendations/top_k.parquet
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import tables
from pipeline.data.histories import Points, Prepared, load_prepared
from pipeline.files import renamed
from pipeline.models.artifacts import has_model, pinned
from pipeline.params import Params
from pipeline.run import run

if TYPE_CHECKING:
    from pipeline.models.floors import Floors
    from pipeline.models.recommender import Recommender

log = logging.getLogger(__name__)
SCHEMA = pa.schema(
    [
        (tables.USER, pa.string()),
        ("rank", pa.int32()),
        (tables.ITEM, pa.string()),
        ("score", pa.float32()),
        ("reasons", pa.list_(pa.string())),
        ("version", pa.string()),
    ]
)
USERS_AT_ONCE = 1000  # explained and written together; scoring makes its own, smaller chunks


def recommend(
    model: Recommender, prepared: Prepared, k: int, floors: Floors | None = None
) -> Iterator[pa.Table]:
    """Tables of SCHEMA, users in order of their ids; all rows are history."""
    from pipeline.data.item_groups import groupings
    from pipeline.models.baselines import popularity, train_rows
    from pipeline.models.floors import POOL, below, members, picked, reranked
    from pipeline.models.ranking import popularity_order, rank_points

    catalogue = prepared.catalogue
    order = popularity_order(model.popularity, catalogue.ids)
    owed = None
    short = 0
    if floors:  # of the same groups as in the evaluation's report
        counts = popularity(prepared.log, train_rows(prepared.log), len(catalogue))
        owed = members(floors, groupings(catalogue, counts, prepared.withheld))
    for points in moments(prepared).chunks(USERS_AT_ONCE):
        top, scores = rank_points(model, points, catalogue, order, max(k, POOL) if owed else k)
        if owed:
            places = reranked(top, *owed, k)
            top, scores = picked(top, places, -1), picked(scores, places, np.nan)
            short += below(top, *owed)
        users = prepared.user_ids[points.user]
        yield as_table(users, catalogue.ids, top, scores, model.reasons(points, top), model.version)
    if short:
        log.warning(
            "%d of %d lists stay below a floor of recommend.exposure_floors: of their %d best items too few "
            "are of the group",
            short,
            len(prepared.user_ids),
            POOL,
        )


def moments(prepared: Prepared) -> Points:
    """One point per user, now."""
    users = len(prepared.user_ids)
    now, nothing = np.full(users, prepared.now, np.int64), np.full(users, -1, np.int32)
    return prepared.log.points(np.arange(users, dtype=np.int32), nothing, now)


def as_table(
    users: np.ndarray,
    item_ids: np.ndarray,
    top: np.ndarray,
    scores: np.ndarray,
    reasons: list[list[list[str]]],
    version: str | None,
) -> pa.Table:
    """(users, k) item indices (-1: no item) and scores, with the listed items' reasons, as rows of SCHEMA."""
    row, place = np.nonzero(top >= 0)
    columns = {
        tables.USER: users[row],
        "rank": place + 1,
        tables.ITEM: item_ids[top[row, place]],
        "score": pa.array(scores[row, place], pa.float32(), from_pandas=True),
        "reasons": [sentences for of_user in reasons for sentences in of_user],
        "version": [version] * len(row),
    }
    return pa.table(columns, schema=SCHEMA)


def main(prepared: Path, champion: Path, top_k: Path, params: Path = Path("params.yaml")) -> None:
    settings = Params.load(params).recommend
    if not has_model(champion):
        write(top_k, [])
        log.info("no champion yet: no recommendations; `evergreen cycle` trains and promotes one")
        return
    from pipeline.models.recommender import Recommender

    data = load_prepared(prepared)
    with pinned(champion) as folder:
        model = Recommender.load(folder, data.catalogue.items, data.log, "champion")
        write(top_k, recommend(model, data, settings.k, settings.exposure_floors))
    users = len(data.user_ids)
    log.info("top %d of %d users by %s", settings.k, users, model.version or "an unnamed champion")


def write(path: Path, batches: Iterable[pa.Table]) -> None:
    """One Parquet file, put in place when it is complete."""
    with renamed(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for batch in batches:
            writer.write_table(batch)


if __name__ == "__main__":
    run(main)
