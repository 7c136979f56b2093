"""The champion bound to everything that is known: the tables of data/raw, and the event store on top of them.

Rows are prepared as the champion's card says (preprocess.positive, item_text). An event that `collect` has
joined to data/raw already counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables as t
from pipeline.data.histories import Log
from pipeline.documents.model import Card, Claim
from pipeline.errors import ArtifactError, DataError
from pipeline.models.artifacts import CARD, VERSION, folder_hash, has_model, pinned
from pipeline.models.living import Living
from pipeline.models.preparation import Preparation
from pipeline.models.ranking import popularity_order
from pipeline.models.recommender import Recommender
from pipeline.params import Positive
from pipeline.serve.events import Store, StoreError, with_changes
from pipeline.serve.single import single
from pipeline.serve.state import Present, PresentFolded

CHAMPION, RAW = Path("models/champion"), Path("data/raw")


@dataclass(frozen=True)
class World:
    """One champion and the state it answers from."""

    model: Recommender  # its live state is that of the present
    then: Recommender  # the same with the state of any moment up to `end`
    present: Present
    folded: PresentFolded
    preparation: Preparation
    order: np.ndarray  # (items,) place of each by popularity
    user_ids: np.ndarray  # (users,) object, of the log
    end: int  # microseconds just after the newest row of the log
    version: str
    fit_end: str | None
    seq: int  # of the newest event in it
    changed: int  # of the newest change in it
    claimed: str | None  # the version file it was read with
    reactions: dict[str, dict[str, Any] | None]  # events of a like and a dislike

    @property
    def log(self) -> Log:
        return self.present.log


def claim_in(root: Path) -> str | None:
    """What the champion's folder says of itself, to see when another was put there."""
    try:
        return (root / CHAMPION / VERSION).read_text(encoding="utf-8")
    except OSError:
        return None


def load(root: Path, store: Store) -> World:
    """Raises ArtifactError without a sound champion, DataError without its data.

    A store that does not answer leaves the world to data/raw alone.
    """
    if not has_model(root / CHAMPION):
        raise ArtifactError(
            f"{CHAMPION}: no champion here: `evergreen champion` gets it, `evergreen cycle` trains the first"
        )
    with pinned(root / CHAMPION) as folder:
        claimed = claim_in(root)
        claim = Claim.find(folder / VERSION)
        digest = folder_hash(folder)
        if claim and claim.artifact_hash and claim.artifact_hash != digest:
            raise ArtifactError(f"{CHAMPION}: not what version.json says it is: run `evergreen champion`")
        card = Card.read(folder / CARD)
        how = Preparation.of(card)
        if how is None:
            raise ArtifactError(
                f"{CHAMPION / CARD}: does not say how its data were prepared: train and promote anew"
            )
        rows, items, seq, changed = tables(root / RAW, store)
        table, log, users = how.apply(rows, items)
        then = Recommender.load(folder, table, log, "champion")
        version = claim.version if claim else f"sha256:{digest[:12]}"
        fit_end = None if card.fit_end is None else card.fit_end.isoformat()
        then = replace(then, folder=root / CHAMPION)  # of the encoder, which is read when it is needed
    living, factors = then.parts.living, then.parts.collaborative.ials
    present, folded = Present(living.live, users), PresentFolded(living.folded, factors)
    return World(
        model=with_living(then, present, folded),
        then=then,
        present=present,
        folded=folded,
        preparation=how,
        order=popularity_order(then.parts.collaborative.count, then.catalogue.ids),
        user_ids=users,
        end=int(log.time.max(initial=0)) + 1,
        version=version,
        fit_end=fit_end,
        seq=seq,
        changed=changed,
        claimed=claimed,
        reactions=reactions(rows, how.positive),
    )


def with_living(model: Recommender, present: Any, folded: Any) -> Recommender:
    """The same parts, for one point at a time, asking the present state instead of a log."""
    living = Living(present, folded, model.catalogue.available_from)
    return replace(model, parts=replace(single(model.parts), living=living))


def tables(raw: Path, store: Store) -> tuple[pd.DataFrame, pd.DataFrame, int, int]:
    """(interactions, items, newest event in them, newest change in them)."""
    columns = [t.USER, t.ITEM, t.TIME, t.EVENT, t.VALUE]
    if not (raw / "interactions").is_dir():
        raise DataError(f"{raw / 'interactions'}: no such table: run `dvc repro collect`, or `dvc pull`")
    rows = t.read_parquet(raw / "interactions", columns=columns)
    items = t.read_parquet(raw / "items.parquet", "items")
    try:
        seq, changes = store.newest(), store.changes_after(0)
        frames = [frame[columns] for frame in store.frames(seq)] if seq else []
    except StoreError:
        return rows, items, 0, 0
    if frames:
        rows = pd.concat([rows, *frames], ignore_index=True)
        first = ~rows.duplicated([t.USER, t.ITEM, t.TIME, t.EVENT])
        rows = rows[first]
    forgotten = {change.key for change in changes if change.kind == "user"}
    if forgotten:
        rows = rows[~rows[t.USER].isin(forgotten)]
    return rows, with_changes(items, changes), seq, max((change.seq for change in changes), default=0)


def reactions(rows: pd.DataFrame, positive: Positive) -> dict[str, dict[str, Any] | None]:
    """Events by which a person likes and dislikes, as the rows have them; None where these have no no."""
    mode = rows[t.EVENT].mode()
    event = (positive.events or [str(mode.iloc[0]) if len(mode) else "like"])[0]
    values = rows.loc[rows[t.EVENT] == event, t.VALUE].dropna()
    if positive.min_value is not None and len(values) and values.min() < positive.min_value:
        best, worst = float(values.max()), float(values.min())
        return {"like": {"event": event, "value": best}, "dislike": {"event": event, "value": worst}}
    return {"like": {"event": event}, "dislike": {"event": "dislike"} if positive.events else None}
