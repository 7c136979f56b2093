"""The challenger beside the champion: for a share of the users both place items in turns (interleaving.py).

It is what lies in models/challenger, where `dvc repro` and `evergreen cycle` leave the model that they have
trained: once reports/promotion.json has judged it and found no sure loss, and unless it is the champion
itself, older, or was a champion before. It is loaded in the background,
follows the event store as the champion does, and goes as it came: whatever it fails at, the champion's list
is the answer.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.documents.model import Card
from pipeline.documents.promotion import Promotion
from pipeline.documents.registry import Registry
from pipeline.errors import ConfigError, PipelineError
from pipeline.evaluation.interleaved import INTERLEAVED
from pipeline.files import stamp
from pipeline.models.artifacts import CARD, folder_hash, has_model
from pipeline.params import Params, Serve
from pipeline.serve.bound import Bound
from pipeline.serve.events import Store
from pipeline.serve.interleaving import team_draft
from pipeline.serve.messages import Listed, Question
from pipeline.serve.world import World, load

log = logging.getLogger(__name__)
CHALLENGER, VERDICT = Path("models/challenger"), Path("reports/promotion.json")
REGISTRY, PARAMS = Path("data/registry.json"), Path("params.yaml")
PREPARED = Path(".evergreen/prepared-challenger")
OFF = Serve(challenger_share=0, exploration=0, retention_days=None, copy_model=None)


def in_share(user_id: str, share: float) -> bool:
    """Whether the user is one of the share: always the same ones; a larger share holds a smaller one's."""
    digest = hashlib.sha256(f"evergreen-canary|{user_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class Settings:
    """`serve` of params.yaml, read again when the file changes; without the file all is off."""

    def __init__(self, root: Path) -> None:
        self.path = root / PARAMS
        self.now = OFF
        self.problem: str | None = None
        self._seen: tuple[int, int] | None = None

    def renew(self) -> None:
        """What cannot be read leaves them as they are, and is a problem."""
        seen = stamp(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.now = OFF if seen is None else Params.load(self.path).serve
            self.problem = None
        except ConfigError as error:
            self.problem = f"{error}: the service goes on as before"
            log.error("%s", self.problem)


class Drawn(NamedTuple):
    """An interleaved list."""

    items: list[Listed]
    placed_by: list[str]  # the version of the model that placed each
    model: str  # as the impression names both


class Canary:
    def __init__(self, root: Path, lock: AbstractContextManager[Any]) -> None:
        """`lock`: of whoever asks for lists; held only while another challenger takes its place."""
        self.root, self._lock = root, lock
        self.bound: Bound | None = None
        self.problem: str | None = None
        self._share = 0.0
        self._seen: object = None  # of challenger and champion when they were last looked at

    @property
    def version(self) -> str | None:
        return None if self.bound is None else self.bound.world.version

    def renew(self, share: float, champion: World, store: Store) -> bool:
        """Take in what lies in the folder now; whether that changed what is shown. For one thread."""
        self._share = share
        written = stamp(self.root / CHALLENGER / CARD) if share > 0 else None
        seen = None if written is None else (written, stamp(self.root / VERDICT), champion.digest)
        if seen == self._seen and not (self.bound is not None and self.bound.stale):
            return False
        changed = self.bound is not None
        with self._lock:  # gone before the next is loaded: two are enough to hold
            self.bound = self.problem = None
        self._seen, problem, bound = seen, None, None
        if written is not None:
            try:
                bound = self._loaded(champion, store)
            except Exception as error:  # whatever is wrong with it, the champion serves on
                if not isinstance(error, (PipelineError, OSError)):
                    log.exception("loading failed")
                problem = f"{CHALLENGER}: not shown to anybody: {error}"
                log.error("%s", problem)
        with self._lock:
            self.bound, self.problem = bound, problem
        return changed or bound is not None

    def _loaded(self, champion: World, store: Store) -> Bound | None:
        folder = self.root / CHALLENGER
        if not has_model(folder) or not self._awaits(folder, champion):
            return None
        bound = Bound(load(self.root, store, CHALLENGER, PREPARED))
        log.info("challenger %s is shown beside champion %s", bound.world.version, champion.version)
        return bound

    def _awaits(self, folder: Path, champion: World) -> bool:
        """Whether it is a candidate: judged, not the champion, nor older, nor one that was replaced."""
        digest, fit_end = folder_hash(folder), Card.read(folder / CARD).fit_end
        known = Registry.find(self.root / REGISTRY)
        before = {version.artifact_hash for version in known.versions} if known else set()
        if fit_end is None or digest == champion.digest or digest in before or not self._passes(digest):
            return False
        return champion.fit_end is None or fit_end >= datetime.fromisoformat(champion.fit_end)

    def _passes(self, digest: str) -> bool:
        """Whether the gate has compared it with a champion, and the difference is not surely a loss."""
        verdict = Promotion.find(self.root / VERDICT)
        if verdict is None or verdict.challenger.artifact_hash != digest:
            return False
        return any(check.name == "headline" and check.passed for check in verdict.checks)

    def follow(self, store: Store) -> None:
        """Raises StoreError."""
        if self.bound is not None:
            self.bound.follow(store)

    def shows(self, question: Question) -> bool:
        """Not to most users, nor for words (one encoder is held) or a past moment."""
        if self.bound is None or question.text is not None or question.as_of is not None:
            return False
        return question.user_id is not None and in_share(question.user_id, self._share)

    def interleaved(
        self, question: Question, listed: list[Listed], version: str, now: int, chance: np.random.Generator
    ) -> Drawn | None:
        """`listed`: the list of the champion of this `version`; None if the challenger fails."""
        if (bound := self.bound) is None:
            return None
        try:
            user_rows = bound.lister.rows(question, now)
            other = bound.lister.answer(question, *user_rows, now, None, bound.world.model)
        except Exception as error:  # whatever it is, the champion's list is there
            log.exception("the challenger failed: it is shown no longer")
            self.bound, self.problem = None, f"{CHALLENGER}: not shown any longer: {error}"
            return None
        lists, versions = (listed, other), (version, bound.world.version)
        ids = [row.item_id for row in listed], [row.item_id for row in other]
        placed = team_draft(*ids, question.k, chance)
        items = [
            lists[team][place].model_copy(update={"rank": rank, "propensity": propensity})
            for rank, (team, place, propensity) in enumerate(placed, 1)
        ]
        return Drawn(items, [versions[team] for team, _, _ in placed], INTERLEAVED + versions[1])
