"""A model in service: bound to all that is known, with its lists, following the event store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.models.content import category_names
from pipeline.serve.events import Change, Store
from pipeline.serve.listing import Lister
from pipeline.serve.messages import Question
from pipeline.serve.room import AT_ONCE, put
from pipeline.serve.world import World

SMOKE_USERS = 3


class Bound:
    """Not for several threads. Raises ArtifactError where its lists cannot be shown."""

    def __init__(
        self, world: World, now: int = 0, read: Callable[[str], np.ndarray | None] = lambda text: None
    ) -> None:
        """`now`: microseconds, of the service's clock; `read`: text -> its centred vector, None without."""
        self.read = read
        self.world, self.lister = world, Lister(world)
        self.stale = False  # the catalogue has changed: to be bound anew
        self.unknown_items = 0
        self._seq, self._changed, self._changed_at = world.seq, world.changed, world.changed_at
        self._smoke(max(world.end, self.newest + 1, now))

    @property
    def newest(self) -> int:
        """Microseconds: the latest moment that anything happened. Items put and withdrawn count, too: earlier
        than that, a list would lack the first and have the others."""
        return max(self.world.present.newest_time, self._changed_at)

    def _smoke(self, now: int) -> None:
        """A few lists, which have to have items and finite scores."""
        users = [*self.world.user_ids[: SMOKE_USERS - 1], "nobody, who has no row"]
        try:
            for user in users:
                question = Question(user_id=str(user), k=10)
                rows = self.lister.rows(question, now)
                listed = self.lister.answer(question, *rows, now, None, self.world.model)
                scores = [row.score for row in listed if row.score is not None]
                if not listed or not np.isfinite(scores).all():
                    raise ValueError("an empty list or a score that is no number")
        except (ValueError, KeyError, IndexError, RuntimeError) as error:
            raise ArtifactError(
                f"{self.world.version}: its smoke list failed ({error}): not served"
            ) from error

    def follow(self, store: Store) -> None:
        """Take in what the store has beyond the state. Raises StoreError."""
        happened, changes = store.after(self._seq), store.changes_after(self._changed)
        for event in happened:
            self.unknown_items += not self.world.take(event)
            self._seq = event.seq
        few = sum(change.kind == "item" for change in changes) <= AT_ONCE
        for change in changes:
            self._take(change, few)
            self._changed, self._changed_at = change.seq, max(self._changed_at, change.timestamp)

    @cached_property
    def categories(self) -> list[str]:
        """The columns of the model's matrix of categories."""
        return category_names(self.world.model.catalogue)

    def _take(self, change: Change, few: bool) -> None:
        if change.kind == "user":
            if self.world.forget(change.key):
                self.stale = True  # bound anew, counts are without their rows, too
        elif change.content is None:
            item = self.world.place.get(change.key)
            if item is not None:  # at once; when it is bound anew the table says so, too
                until = self.world.model.catalogue.available_until
                until[item] = min(int(until[item]), change.timestamp)
        else:
            self.stale = True
            if few:
                put(self, change)
