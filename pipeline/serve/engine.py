"""The service's mind: one champion with its live state, following the event store and the champion's folder.

Every question first takes in what the store has that the state lacks, so feedback that any worker has
acknowledged is in the next list of every worker. A champion that is put in place is loaded beside the one in
service, its hash and a smoke list are checked, and then it takes over; a broken one is refused.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.text import clean
from pipeline.documents.data import Manifest
from pipeline.errors import ArtifactError, PipelineError
from pipeline.models.encoder import TextEncoder, texts_to_vectors
from pipeline.serve.events import Change, Impression, Store, StoreError
from pipeline.serve.listing import Lister, Unknown
from pipeline.serve.messages import Answer, Listed, Question
from pipeline.serve.world import RAW, World, claim_in, load

log = logging.getLogger(__name__)
OLD_DATA = 30 * 86_400_000_000  # microseconds: data that ended longer ago are asked on a clock of their own
FOLLOW_SECONDS, CHAMPION_SECONDS = 0.1, 1.0
SMOKE_USERS = 3
SHOWN_USERS = 12  # on the page, of the usual number of rows


class NotReady(Exception):
    """No champion is loaded yet."""


class Engine:
    """Safe for several threads: one question at a time."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root, self.store = root, store
        self.problem: str | None = None  # why it is not all it should be
        self.store_problem: str | None = None
        self.swaps = self.refused = self.unknown_items = 0
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._world: World | None = None
        self._lister: Lister | None = None
        self._encoder: TextEncoder | None = None
        self._stale = False  # the catalogue has changed: to be bound anew
        self._refused_claim: str | None = None
        self._last_now = self._offset = self._seq = self._changed = 0
        self._stamp: int | None = None  # of the store when all of it was taken in
        self._followed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # Life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the champion, then follow in the background."""
        self.load()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def load(self) -> None:
        """Bind the champion anew. Raises PipelineError if it cannot be served; the old one stays then."""
        with self._loading:
            world = load(self.root, self.store)
            lister = Lister(world)
            self._smoke(world, lister)
            with self._lock:
                other = self._world is not None and self._world.version != world.version
                if other or self._world is None:
                    self._encoder = None
                self._world, self._lister = world, lister
                self._seq, self._changed, self._stale = world.seq, world.changed, False
                self._stamp = None
                if not self._last_now:
                    wall = time.time_ns() // 1000
                    newest = max(world.end, world.present.newest_time + 1)
                    self._offset = wall - newest if wall - newest > OLD_DATA else 0
                self.problem = None
                self.swaps += other
                self.follow()
        # The old one's arrays are in cycles, and would wait for a collection that comes late. What is there
        # now stays: no collection has to look at it again while lists wait.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading no longer needs goes back to the system

    def _smoke(self, world: World, lister: Lister) -> None:
        """A few lists, which have to have items and finite scores. Raises ArtifactError."""
        now = max(world.end, world.present.newest_time + 1, self._last_now)
        users = [*world.user_ids[: SMOKE_USERS - 1], "nobody, who has no row"]
        try:
            for user in users:
                question = Question(user_id=str(user), k=10)
                listed = lister.answer(question, *lister.rows(question, now), now, None, world.model)
                scores = [row.score for row in listed if row.score is not None]
                if not listed or not np.isfinite(scores).all():
                    raise ValueError("an empty list or a score that is no number")
        except (ValueError, KeyError, IndexError, RuntimeError) as error:
            raise ArtifactError(f"{world.version}: its smoke list failed ({error}): not served") from error

    def _run(self) -> None:
        looked = 0.0
        while not self._stop.wait(FOLLOW_SECONDS):
            try:
                with self._lock:
                    self.follow()
                _ = self.world.words  # made here, so that no text has to wait for them
                if self._stale or time.monotonic() - looked > CHAMPION_SECONDS:
                    looked = time.monotonic()
                    self.renew()
            except Exception:  # the thread must outlive whatever happens once
                log.exception("following failed")

    def renew(self) -> None:
        """Take over what lies in the champion's folder, or a changed catalogue, if it can be served."""
        claim = claim_in(self.root)
        # Not the world itself: what a name holds while the next one loads outlives it.
        changed = self._world is None or claim != self._world.claimed
        if not self._stale and (not changed or claim == self._refused_claim):
            return
        try:
            self.load()
            self._refused_claim = None
            if changed:
                log.info("champion %s serves", self.version)
        except Exception as error:  # whatever is wrong with it, the old one serves on
            if not isinstance(error, (PipelineError, OSError)):
                log.exception("loading failed")
            self._stale = False
            self._refused_claim = claim
            self.refused += 1
            self.problem = f"the champion in place is refused: {error}"
            log.error("%s", self.problem)

    # What is known ----------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        if self._world is None:
            raise NotReady
        return self._world

    @property
    def version(self) -> str | None:
        return None if self._world is None else self._world.version

    @property
    def lag_seconds(self) -> float | None:
        """Since the state last held all that the store has."""
        return None if self._world is None else round(time.monotonic() - self._followed, 3)

    def moment(self) -> int:
        """Now, in microseconds: later than all that is known, and never earlier than before.

        Where the data ended long ago (an example, a replay) the clock goes on from their end.
        """
        with self._lock:
            wall = time.time_ns() // 1000 - self._offset
            newest = self.world.present.newest_time + 1
            self._last_now = max(self._last_now, wall, newest)
            return self._last_now

    def follow(self) -> None:
        """Take in what the store has beyond the state. A store that is gone is noted, no more."""
        if self._world is None:
            return
        with self._lock:
            try:
                stamp = self.store.stamp()
                if stamp is not None and stamp == self._stamp and self.store_problem is None:
                    self._followed = time.monotonic()
                    return
                happened, changes = self.store.after(self._seq), self.store.changes_after(self._changed)
            except StoreError as error:
                self.store_problem = str(error)
                return
            self.store_problem, self._stamp = None, stamp
            for event in happened:
                self.unknown_items += not self.world.take(event)
                self._seq = event.seq
            for change in changes:
                self._change(change)
                self._changed = change.seq
            self._followed = time.monotonic()

    def _change(self, change: Change) -> None:
        if change.kind == "user":
            self.world.present.forget(change.key)
        elif change.content is None:
            item = self.world.place.get(change.key)
            if item is not None:  # at once; when it is bound anew the table says so, too
                until = self.world.model.catalogue.available_until
                until[item] = min(int(until[item]), change.timestamp)
        else:
            self._stale = True

    @property
    def _listing(self) -> Lister:
        if self._lister is None:
            raise NotReady
        return self._lister

    # Answers ----------------------------------------------------------------------------------------------

    def recommend(self, question: Question) -> tuple[Answer, Impression]:
        """Raises Unknown for what the question names and nobody has, NotReady at the start."""
        with self._lock:
            self.follow()
            now = self.moment()
            listed, fallback = self._listed(question, now)
            version = self.world.version
        answer = Answer(impression_id=uuid.uuid4().hex, version=version, fallback=fallback, items=listed)
        shown = json.dumps([[row.item_id, row.rank, row.score, row.propensity] for row in listed])
        impression = Impression(
            answer.impression_id, now, question.user_id, version, "champion", fallback, shown
        )
        return answer, impression

    def _listed(self, question: Question, now: int) -> tuple[list[Listed], str | None]:
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
        elif not len(rows):
            fallback = "unknown_user"
        try:
            return lister.answer(question, user, rows, now, text, model), fallback
        except (ValueError, IndexError, KeyError, RuntimeError):
            log.exception("the model failed: listed by live popularity")
            return lister.popular(question, now, model), "live_popularity"

    def similar(self, item_id: str, k: int) -> list[Listed]:
        with self._lock:
            self.follow()
            return self._listing.similar(item_id, k, self.moment())

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
                self._encoder = model.encoder()
            except (OSError, ValueError, PipelineError) as error:
                self.problem = f"no text can be read: {error}"
                return None
        if self._encoder is None:
            return None
        vector = texts_to_vectors(self._encoder, [clean(text, 10_000)])[0][0]
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
