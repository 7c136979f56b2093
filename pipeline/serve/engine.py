"""The service's mind: one champion with its live state, following the event store and the champion's folder.

Every question first takes in what the store has that the state lacks, so feedback that any worker has
acknowledged is in the next list of every worker. A champion that is put in place is loaded beside the one in
service, its hash and a smoke list are checked, and then it takes over; a broken one is refused. Beside it a
challenger may be shown to some of the users (canary.py), and the last places be left to chance (`serve` of
params.yaml).
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.text import clean
from pipeline.documents.data import Manifest
from pipeline.errors import ConfigError, PipelineError
from pipeline.evaluation.exploration import Draws
from pipeline.models.recommender import QuestionEncoder
from pipeline.serve.bound import Bound
from pipeline.serve.canary import Canary, Settings
from pipeline.serve.changes import misfit
from pipeline.serve.copywriter import Copywriter
from pipeline.serve.events import Impression, Store, StoreError
from pipeline.serve.listing import Lister, Unknown
from pipeline.serve.messages import COPY, Answer, Item, Listed, Question
from pipeline.serve.retention import prune
from pipeline.serve.world import RAW, World, claim_in, load

log = logging.getLogger(__name__)
OLD_DATA = 30 * 86_400_000_000  # microseconds: data that ended longer ago are asked on a clock of their own
FOLLOW_SECONDS, CHAMPION_SECONDS, PRUNE_SECONDS = 0.1, 1.0, 3600.0
SWITCH_SECONDS = 0.0005  # after which a list that is computed lets an event be acknowledged; Python's: 5 ms
SHOWN_USERS = 12  # on the page, of the usual number of rows


class NotReady(Exception):
    """No champion is loaded yet."""


class Engine:
    """Safe for several threads: one question at a time."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root, self.store = root, store
        self.problem: str | None = None  # why it is not all it should be
        self.store_problem: str | None = None
        self.swaps = self.refused = 0
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._clock = threading.Lock()  # feedback asks for the moment and waits for no list
        self._bound: Bound | None = None
        self._settings, self._canary = Settings(root), Canary(root, self._lock)
        self._copywriter = Copywriter()
        self._encoder: QuestionEncoder | None = None
        self._refused_claim: str | None = None
        self._last_now = self._offset = 0
        self._stamp: int | None = None  # of the store when all of it was taken in
        self._store_file = store.replaced  # the file of which it was
        self._followed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # Life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the champion, then follow in the background."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self.load()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def load(self) -> None:
        """Bind the champion anew. Raises PipelineError if it cannot be served; the old one stays then."""
        gc.disable()  # a collection in the midst of it would look at all that is new, and lists wait
        try:
            self._load()
        finally:
            gc.enable()
            _give_back_memory()

    def _load(self) -> None:
        with self._loading:
            bound = Bound(load(self.root, self.store), self._last_now, self._vector)
            with self._lock:
                world = bound.world
                other = self._bound is not None and self.version != world.version
                if other or self._bound is None:
                    self._encoder = None
                if not self._last_now:  # before anybody can ask for the moment
                    wall = time.time_ns() // 1000
                    newest = max(world.end, bound.newest + 1)
                    self._offset = wall - newest if wall - newest > OLD_DATA else 0
                self._bound, self._stamp = bound, None
                self.problem = None
                self.swaps += other
                self.follow()

    def _run(self) -> None:
        looked = pruned = 0.0
        while not self._stop.wait(FOLLOW_SECONDS):
            try:
                with self._lock:
                    self.follow()
                _ = self.world.words  # made here, so that no text has to wait for them
                if self._stale or time.monotonic() - looked > CHAMPION_SECONDS:
                    looked = time.monotonic()
                    self.renew()
                    self.renew_challenger()
                    self._copywriter.renew(self._settings.now.copy_model)
                if not pruned or time.monotonic() - pruned > PRUNE_SECONDS:
                    pruned = time.monotonic()
                    self.prune()
                    _collect()
            except Exception:  # the thread must outlive whatever happens once
                log.exception("following failed")

    def prune(self) -> None:
        """Let go of what serve.retention_days says is too old."""
        try:
            events, impressions = prune(self.root, self.store, self.moment())
        except (PipelineError, StoreError) as error:
            log.error("nothing old was deleted: %s", error)
        else:
            if events or impressions:
                log.info("deleted for their age: %d events, %d impressions", events, impressions)

    def renew(self) -> None:
        """Take over what lies in the champion's folder, or a changed catalogue, if it can be served."""
        claim = claim_in(self.root)
        # Not the world itself: what a name holds while the next one loads outlives it.
        changed = self._bound is None or claim != self.world.claimed
        if not (self._bound and self._bound.stale) and (not changed or claim == self._refused_claim):
            return
        try:
            self.load()
            self._refused_claim = None
            if changed:
                log.info("champion %s serves", self.version)
        except Exception as error:  # whatever is wrong with it, the old one serves on
            if not isinstance(error, (PipelineError, OSError)):
                log.exception("loading failed")
            if self._bound is not None:
                self._bound.stale = False
            self._refused_claim = claim
            self.refused += 1
            self.problem = f"the champion in place is refused: {error}"
            log.error("%s", self.problem)

    def renew_challenger(self) -> None:
        """Show what lies in the challenger's folder, or no longer, as params.yaml says."""
        self._settings.renew()
        if self._canary.renew(self._settings.now.challenger_share, self.world, self.store):
            with self._lock:
                self._stamp = None
                self.follow()
            _give_back_memory()

    # What is known ----------------------------------------------------------------------------------------

    @property
    def _ready(self) -> Bound:
        if self._bound is None:
            raise NotReady
        return self._bound

    @property
    def world(self) -> World:
        return self._ready.world

    @property
    def version(self) -> str | None:
        return None if self._bound is None else self._bound.world.version

    @property
    def challenger(self) -> str | None:
        """The version of the challenger that is shown to some."""
        return self._canary.version

    @property
    def whole_problem(self) -> str | None:
        """Of champion, store, challenger, settings, lines and places left to chance, the first there is."""
        drawn = None if self._bound is None else self._bound.world.draws_problem
        shown = self._canary.problem or self._settings.problem or self._copywriter.problem
        return self.problem or self.store_problem or shown or drawn

    @property
    def unknown_items(self) -> int:
        """Events of items that the catalogue lacks, since the champion was bound."""
        return 0 if self._bound is None else self._bound.unknown_items

    @property
    def _stale(self) -> bool:
        return any(bound is not None and bound.stale for bound in (self._bound, self._canary.bound))

    @property
    def lag_seconds(self) -> float | None:
        """Since the state last held all that the store has."""
        return None if self._bound is None else round(time.monotonic() - self._followed, 3)

    def moment(self) -> int:
        """Now, in microseconds: later than all that is known, and never earlier than before.

        Where the data ended long ago (an example, a replay) the clock goes on from their end.
        """
        with self._clock:
            wall = time.time_ns() // 1000 - self._offset
            self._last_now = max(self._last_now, wall, self._ready.newest + 1)
            return self._last_now

    def follow(self) -> None:
        """Take in what the store has beyond the state. A store that is gone is noted, no more."""
        if self._bound is None:
            return
        with self._lock:
            try:
                stamp = self.store.stamp()
                if self._store_file != self.store.replaced:  # numbers of events begin anew there
                    self._store_file, self._stamp = self.store.replaced, None
                    for bound in filter(None, (self._bound, self._canary.bound)):
                        bound.stale = True
                if stamp is not None and stamp == self._stamp and self.store_problem is None:
                    self._followed = time.monotonic()
                    return
                self._bound.follow(self.store)
                self._canary.follow(self.store)
            except (StoreError, ConfigError) as error:  # the latter: the key to a forgotten person's mark
                self.store_problem = str(error)
                return
            self.store_problem, self._stamp = None, stamp
            self._followed = time.monotonic()

    @property
    def _listing(self) -> Lister:
        return self._ready.lister

    # Answers ----------------------------------------------------------------------------------------------

    def recommend(self, question: Question, number: str | None = None) -> tuple[Answer, Impression]:
        """`number`: the impression's, from which all chance in the list comes (32 hexadecimal digits).

        Raises Unknown for what the question names and nobody has, NotReady at the start.
        """
        if (writes := question.explain == COPY) and self._settings.now.copy_model is None:
            raise Unknown(
                'explain: "copy" needs a language model: name one in serve.copy_model of params.yaml'
            )
        number = number or uuid.uuid4().hex
        chance = np.random.default_rng(int(number, 16))
        with self._lock:
            self.follow()
            now = self.moment()
            in_turns = self._canary.shows(question)
            explores = not in_turns and self._explores(question, chance)
            listed, fallback = self._listed(question, now, chance if explores else None)
            version, draws = self.world.version, self.world.draws if explores else Draws()
            drawn = None
            if in_turns and fallback in (None, "unknown_user"):
                drawn = self._canary.interleaved(question, listed, version, now, chance)
        if drawn is not None:
            listed = drawn.items
        if writes:  # without the lock: lists wait for no language model
            listed = self._copywriter.told(listed)
        answer = Answer(impression_id=number, version=version, fallback=fallback, items=listed)
        places: list[list[Any]] = [[row.item_id, row.rank, row.score, row.propensity] for row in listed]
        model = draws.model
        if drawn is not None:
            model = drawn.model
            places = [[*place, by] for place, by in zip(places, drawn.placed_by, strict=True)]
        impression = Impression(number, now, question.user_id, version, model, fallback, json.dumps(places))
        return answer, impression

    def _explores(self, question: Question, chance: np.random.Generator) -> bool:
        """Whether the last places are left to chance: of a share of the lists that a user_id alone asks for,
        so that another model can be asked the same later on."""
        share = self._settings.now.exploration
        asked = question.model_fields_set - {"user_id", "k", "explain"}
        return share > 0 and question.user_id is not None and not asked and chance.random() < share

    def _listed(
        self, question: Question, now: int, chance: np.random.Generator | None
    ) -> tuple[list[Listed], str | None]:
        lister, model = self._listing, self.world.model
        if question.as_of is not None:
            now = round(question.as_of.timestamp() * 1_000_000)
            if now > self.world.end:
                raise Unknown(
                    "as_of: later than the data that the champion was bound to: leave it out for now's list"
                )
            model = self.world.then
        user, rows = lister.rows(question, now)
        text, fallback = None, None
        if question.text is not None:
            text = self._vector(question.text)
            fallback = "text_not_read" if text is None else None
        elif not len(rows.before(now)):
            fallback = "unknown_user"
        try:
            return lister.answer(question, user, rows, now, text, model, chance), fallback
        except (ValueError, IndexError, KeyError, RuntimeError):
            log.exception("the model failed: listed by live popularity")
            return lister.popular(question, now, model), "live_popularity"

    def similar(self, item_id: str, k: int) -> list[Listed]:
        with self._lock:
            self.follow()
            return self._listing.similar(item_id, k, self.moment())

    def content(self, item: Item) -> dict[str, Any]:
        """Of an item that is put, as the store keeps it. Raises Unknown for a vector that fits no other's."""
        content: dict[str, Any] = item.model_dump(mode="json", exclude_none=True)
        if (wrong := misfit(self.world.model.catalogue.items, content)) is not None:
            raise Unknown(wrong)
        return content

    def knows_item(self, item_id: str) -> bool:
        with self._lock:
            self.follow()
            return item_id in self.world.place

    def _vector(self, text: str) -> np.ndarray | None:
        """(width,) float32 in the space of the items' texts; None where there is no encoder, or no word."""
        model = self.world.model
        if model.centre is None:
            return None
        if self._encoder is None:
            try:
                self._encoder = model.question_encoder()
            except (OSError, ValueError, PipelineError) as error:
                self.problem = f"no text can be read: {error}"
                return None
        if self._encoder is None:
            return None
        vector = self._encoder.vectors([clean(text, 10_000)])[0]
        if not vector.any():
            return None
        vector = vector - model.centre
        unit: np.ndarray = (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)
        return unit

    def for_page(self) -> dict[str, Any]:
        """How to like and dislike, and some users to try, with the newest of what they had."""
        with self._lock:
            world, lister = self.world, self._listing
            lengths = np.diff(world.log.indptr)
            chosen = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:SHOWN_USERS]
            users = []
            for user in chosen:
                newest = [int(item) for item in world.present.rows(int(user)).item[-3:][::-1] if item >= 0]
                titles = [lister.titles[item] or str(lister.ids[item]) for item in newest]
                users.append({"user_id": str(world.user_ids[user]), "titles": titles})
            credit = Manifest.find(self.root / RAW / "manifest.json")
            told = {"version": world.version, "users": users, **world.reactions}
            return told | {"credit": credit.credit if credit else None}

    def catalogue_rows(self, words: str, most: int) -> list[dict[str, Any]]:
        """Items whose title holds the words, the most popular first: for the page."""
        with self._lock:
            lister = self._listing
            wanted = words.casefold().split()
            found = []
            for item in lister.by_order:
                title = lister.titles[item]
                if title and all(word in title.casefold() for word in wanted):
                    found.append({"item_id": str(lister.ids[item]), "title": title})
                    if len(found) == most:
                        break
            return found


def _give_back_memory() -> None:
    """What another world no longer needs, which is gone already: worlds are in no cycle (a test).

    What is there now stays, and no collection looks at it: lists would wait for as long as it takes.
    """
    gc.freeze()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _collect() -> None:
    """The little that was in cycles when it was frozen."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
