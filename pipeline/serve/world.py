"""A model bound to everything that is known: the tables of data/raw, and the event store on top of them.

Rows are prepared as the model's card says (preprocess.positive, item_text). Events of the store come on
top one by one; one that `collect` has joined to data/raw already counts once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.forgotten import Forgotten
from pipeline.data.histories import Log
from pipeline.documents.model import Card, Claim
from pipeline.errors import ArtifactError
from pipeline.evaluation.exploration import Draws
from pipeline.models.artifacts import (
    CARD,
    CHAMPION,
    EXPLORATION,
    VERSION,
    exploration_in,
    folder_hash,
    has_model,
    named,
    pinned,
)
from pipeline.models.living import Living
from pipeline.models.nearest import kept_in
from pipeline.models.preparation import Preparation
from pipeline.models.ranking import popularity_order
from pipeline.models.recommender import Recommender
from pipeline.models.sentiment import Sentiment
from pipeline.models.words import Words
from pipeline.serve.events import Change, Happened, Store, StoreError
from pipeline.serve.living import OneLiving
from pipeline.serve.prepared import FOLDER, KEY, Prepared, prepared, raw_tables, row_hash
from pipeline.serve.room import empty_places, with_room
from pipeline.serve.single import single
from pipeline.serve.state import Present, PresentFolded
from pipeline.serve.written import Reader

log = logging.getLogger(__name__)
RAW = Path("data/raw")
SEARCHES = ".searches"  # beside the prepared tables, which change more often
ONE_BY_ONE = 20_000  # further events; of more, a log is made anew


@dataclass(frozen=True)
class World:
    """One model and the state it answers from."""

    model: Recommender  # its live state is that of the present
    half_lives: tuple[float, ...]  # days, of the live state
    delay_seconds: float
    present: Present
    folded: PresentFolded
    preparation: Preparation
    order: np.ndarray  # (items,) place of each by popularity
    place: dict[str, int]  # of each item by its id
    user_ids: np.ndarray  # (users,) object, of the log
    version: str
    digest: str  # sha256 of the model's folder
    fit_end: str | None
    seq: int  # of the newest event in it
    changed: int  # of the newest change in it
    changed_at: int  # latest moment of these changes, microseconds; 0: there is none
    claimed: str | None  # the version file it was read with
    reactions: dict[str, dict[str, Any] | None]  # events of a like and a dislike
    room: list[int]  # empty places of the catalogue
    forgotten: Forgotten
    reader: Reader | None  # of what users write; None: the model does not ask it
    draws: Draws  # of the places left to chance
    draws_problem: str | None  # why they are plain although the version brought others
    rows: np.ndarray  # (rows,) uint64 ascending: `row_hash` of each row of the log
    taken: set[int] = field(default_factory=set)  # hashes of the events taken in since

    @property
    def log(self) -> Log:
        return self.present.log

    @property
    def end(self) -> int:
        """Microseconds just after the newest row of the log: how far `then` knows."""
        return int(self.log.time.max(initial=0)) + 1

    @cached_property
    def then(self) -> Recommender:
        """The model with the state of any moment up to `end`: made when it is asked for, since few do."""
        factors, catalogue = self.model.parts.collaborative.ials, self.model.catalogue
        living = Living.of(self.log, catalogue, self.half_lives, factors, self.delay_seconds)
        return replace(self.model, parts=replace(self.model.parts, living=living))

    def forget(self, mark: str) -> bool:
        """Whoever has this mark is nobody from now on; whether they had any row."""
        self.forgotten.add([mark])
        gone = [user for user in self.present.number if self.forgotten.has(user)]
        for user in gone:
            self.present.forget(user)
        return bool(gone)

    @cached_property
    def words(self) -> Words:
        """Of the items' texts."""
        return Words.of(self.model.catalogue.items["item_text"].fillna("").tolist())

    def take(self, event: Happened) -> bool:
        """Take in an event; False for an item that the catalogue lacks."""
        item = self.place.get(event.item_id)
        if item is None:
            return False
        if self._has(event, item):
            return True
        present = self.present
        if not self.folded.factors.known[item]:
            self.folded.add(item, present.rows(present.user(event.user_id)).before(event.timestamp))
        success = self.preparation.is_success(event.event, event.value)
        value = np.nan if event.value is None else event.value
        liked = success if self.reader is None else self.reader.liked(event, success)
        present.append(event.user_id, item, event.timestamp, success, value, liked)
        return True

    def _has(self, event: Happened, item: int) -> bool:
        """Whether the row is there already, under another event_id or from data/raw. Notes it."""
        key = hash((event.user_id, event.item_id, event.timestamp, event.event))
        if key in self.taken:
            return True
        self.taken.add(key)
        had = self.present.rows(self.present.user(event.user_id))
        if not ((had.time == event.timestamp) & (had.item == item)).any():
            return False  # as a rule; hashing as the log does takes a millisecond
        return bool(np.isin(row_hash(as_rows([event])), self.rows)[0])


def claim_in(root: Path, model: Path = CHAMPION) -> str | None:
    """What the champion's folder says of itself, to see when another was put there."""
    told = [_text(root / model / name) for name in (VERSION, EXPLORATION)]
    return None if told[0] is None else "".join(text or "" for text in told)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def load(root: Path, store: Store, where: Path = CHAMPION, kept: Path = FOLDER) -> World:
    """`where`: the model's folder; `kept`: where its prepared tables are kept for the next start.

    Raises ArtifactError without a sound model, DataError without its data. A store that does not answer
    leaves the world to data/raw alone.
    """
    if not has_model(root / where):
        raise ArtifactError(
            f"{where}: no {where.name} here: `evergreen champion` gets it, `evergreen cycle` trains the first"
        )
    with pinned(root / where) as folder:
        claimed = claim_in(root, where)
        claim, digest, card, how = _whole(folder, where)
        draws, draws_problem = _draws(folder, where, digest)
        changes, happened = _of_store(store)
        forgotten = Forgotten.of_project(root)
        forgotten.add(change.key for change in changes if change.kind == "user")
        texts = Sentiment.is_in(folder)
        base = prepared(root, how, changes, forgotten, kept, texts)
        further = _further(happened, base)
        if len(further) > ONE_BY_ONE:
            rows, items = raw_tables(root / RAW, changes, forgotten, texts)
            rows = pd.concat([rows, as_rows(further)], ignore_index=True)
            base, further = Prepared.of(rows, items, how), []
        loaded = Recommender.load(folder, with_room(base.items), base.log, where.name)
    model, present, folded = _living(replace(loaded, folder=root / where), base.user_ids)
    kept_in(root / kept / SEARCHES, model.parts.searches)
    reader = None if loaded.sentiment is None else Reader(loaded.sentiment, model.question_encoder)
    ids = loaded.catalogue.ids
    room = empty_places(ids)
    empty = set(room)
    world = World(
        model=model,
        half_lives=loaded.parts.living.live.half_lives,
        delay_seconds=loaded.parts.living.live.delay / 1_000_000,
        present=present,
        folded=folded,
        preparation=how,
        order=popularity_order(loaded.parts.collaborative.count, ids),
        place={str(item): place for place, item in enumerate(ids) if place not in empty},
        user_ids=base.user_ids,
        version=claim.version if claim else named(digest),
        digest=digest,
        fit_end=card.fit_end.isoformat() if card.fit_end else None,
        seq=happened[-1].seq if happened else 0,
        changed=max((change.seq for change in changes), default=0),
        changed_at=max((change.timestamp for change in changes), default=0),
        claimed=claimed,
        reactions=base.reactions,
        room=room,
        forgotten=forgotten,
        reader=reader,
        draws=draws,
        draws_problem=draws_problem,
        rows=base.rows,
    )
    if reader is not None:
        reader.know(further)
    for event in further:
        world.take(event)
    return world


def _living(loaded: Recommender, user_ids: np.ndarray) -> tuple[Recommender, Present, PresentFolded]:
    """The model for one point at a time, over a state that follows events. The encoder is read from the
    model's folder, when it is needed."""
    live = loaded.parts.living.live
    if loaded.parts.felt is not None:  # its rows are liked as they read; the words are needed no more
        live = replace(live, log=replace(loaded.parts.felt.log, text=None))
    folded = PresentFolded(loaded.parts.living.folded, loaded.parts.collaborative.ials)
    loaded = replace(loaded, parts=replace(single(loaded.parts), felt=None))
    present = Present(live, user_ids)
    return with_living(loaded, present, folded), present, folded


def _whole(folder: Path, where: Path) -> tuple[Claim | None, str, Card, Preparation]:
    """(claim, hash, card, how its data were prepared) of the model in `folder`, which errors call `where`."""
    claim, digest = Claim.find(folder / VERSION), folder_hash(folder)
    if claim and claim.artifact_hash and claim.artifact_hash != digest:
        raise ArtifactError(f"{where}: not what version.json says it is: run `evergreen champion`")
    card = Card.read(folder / CARD)
    how = Preparation.of(card)
    if how is None:
        raise ArtifactError(
            f"{where / CARD}: does not say how its data were prepared: train and promote anew"
        )
    return claim, digest, card, how


def _draws(folder: Path, where: Path, digest: str) -> tuple[Draws, str | None]:
    """What places left to chance are drawn by; where the version's own are broken or of another, plainly."""
    path, draws = folder / EXPLORATION, None
    try:
        if (found := exploration_in(folder)) is None:
            return Draws(), None
        problem = f"{path}: of another model, or no weights of today's columns: {found.remedy}"
        draws = Draws.by(found.weights) if found.artifact_hash == digest else None
    except ArtifactError as error:
        problem = str(error)
    if draws is not None:
        return draws, None
    problem = f"places left to chance are drawn plainly: {problem.replace(str(folder), str(where))}"
    log.error("%s", problem)
    return Draws(), problem


def with_living(model: Recommender, present: Present, folded: PresentFolded) -> Recommender:
    """The same parts asking the present state instead of a log."""
    living = OneLiving(present, folded, model.catalogue.available_from)
    return replace(model, parts=replace(model.parts, living=living))


def _of_store(store: Store) -> tuple[list[Change], list[Happened]]:
    """(changes, events) of the store; none where it does not answer."""
    try:
        return store.changes_after(0), store.after(0)
    except StoreError:
        return [], []


def _further(happened: list[Happened], base: Prepared) -> list[Happened]:
    """Those of the events that are no rows of data/raw yet, each once."""
    if not happened:
        return []
    rows = as_rows(happened)
    there = np.isin(row_hash(rows), base.rows, kind="sort") | rows.duplicated(KEY).to_numpy()
    return [event for event, known in zip(happened, there, strict=True) if not known]


def as_rows(happened: list[Happened]) -> pd.DataFrame:
    """Events as rows of `interactions`."""
    frame = pd.DataFrame(happened, columns=Happened._fields)
    frame[tables.TIME] = pd.to_datetime(frame[tables.TIME], unit="us", utc=True).astype(tables.MOMENT)
    frame[tables.VALUE] = frame[tables.VALUE].astype("float64")
    names = (tables.USER, tables.ITEM, tables.EVENT, tables.TEXT)
    return frame.astype(dict.fromkeys(names, "str"))[[*KEY, tables.VALUE, tables.TEXT]]
