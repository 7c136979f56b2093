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

from pipeline.data import items as catalogue
from pipeline.data import tables as t
from pipeline.data.histories import Log, make_log
from pipeline.documents.model import Card, Claim
from pipeline.drift.champion import successes
from pipeline.errors import ArtifactError, DataError
from pipeline.models.artifacts import CARD, VERSION, folder_hash, has_model, pinned
from pipeline.models.ranking import popularity_order
from pipeline.params import Positive
from pipeline.parts.living import Living
from pipeline.parts.recommender import Recommender
from pipeline.serve.events import Store, StoreError, with_changes
from pipeline.serve.state import Present, PresentFolded

CHAMPION, RAW = Path("models/champion"), Path("data/raw")


@dataclass(frozen=True)
class Shape:
    """How the champion's card wants rows to be read."""

    positive: Positive
    template: str
    max_text_characters: int
    train_end: pd.Timestamp
    repeats: bool

    @classmethod
    def of(cls, card: Card) -> Shape:
        settings = card.preprocess
        if not settings or card.train_end is None:
            raise ArtifactError(
                f"{CHAMPION / CARD}: does not say how its data were prepared: train and promote anew"
            )
        return cls(
            Positive.model_validate(settings["positive"]),
            settings["item_text"],
            settings["max_text_characters"],
            pd.Timestamp(card.train_end),
            settings.get("repeats") == "include",
        )

    def is_success(self, event: str, value: float | None) -> bool:
        events, least = self.positive.events, self.positive.min_value
        if events is not None and event not in events:
            return False
        return value is None or least is None or not value < least

    def reactions(self, rows: pd.DataFrame) -> dict[str, dict[str, Any] | None]:
        """Events by which a person likes and dislikes, as the rows have them; None where these have no no."""
        mode = rows[t.EVENT].mode()
        event = (self.positive.events or [str(mode.iloc[0]) if len(mode) else "like"])[0]
        values = rows.loc[rows[t.EVENT] == event, t.VALUE].dropna()
        if self.positive.min_value is not None and len(values) and values.min() < self.positive.min_value:
            best, worst = float(values.max()), float(values.min())
            return {"like": {"event": event, "value": best}, "dislike": {"event": event, "value": worst}}
        return {"like": {"event": event}, "dislike": {"event": "dislike"} if self.positive.events else None}

    def items(self, table: pd.DataFrame) -> pd.DataFrame:
        """`table` as `complete` gives it, with item_text."""
        template = catalogue.parse_template(self.template, table.columns)
        return catalogue.with_text(table, template, self.max_text_characters, self.train_end)


@dataclass(frozen=True)
class World:
    """One champion and the state it answers from."""

    model: Recommender  # its live state is that of the present
    then: Recommender  # the same with the state of any moment up to `end`
    present: Present
    folded: PresentFolded
    shape: Shape
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
        shape = Shape.of(card)
        rows, items, seq, changed = tables(root / RAW, store)
        table, log, users = prepared(rows, items, shape)
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
        shape=shape,
        order=popularity_order(then.parts.collaborative.count, then.catalogue.ids),
        user_ids=users,
        end=int(log.time.max(initial=0)) + 1,
        version=version,
        fit_end=fit_end,
        seq=seq,
        changed=changed,
        claimed=claimed,
        reactions=shape.reactions(rows),
    )


def with_living(model: Recommender, present: Any, folded: Any) -> Recommender:
    """The same parts asking the present state instead of a log."""
    living = Living(present, folded, model.catalogue.available_from)
    return replace(model, parts=replace(model.parts, living=living))


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


def prepared(rows: pd.DataFrame, items: pd.DataFrame, shape: Shape) -> tuple[pd.DataFrame, Log, np.ndarray]:
    """(items with item_text, log over them, user ids): as preprocess makes them."""
    rows = rows.sort_values(t.TIME, kind="stable", ignore_index=True)
    rows = rows.assign(positive=successes(rows, shape.positive), fit=True)
    first = rows.drop_duplicates(t.ITEM)[[t.ITEM, t.TIME]].rename(columns={t.TIME: catalogue.FIRST_SEEN})
    table = shape.items(catalogue.complete(items, first))
    from pipeline.data.histories import Catalogue

    users = np.sort(rows[t.USER].unique().astype(object))
    return table, make_log([rows], Catalogue.of(table), users, shape.repeats), users
