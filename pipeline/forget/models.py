"""Models that learned from a forgotten person: which there are, on which rows, and when they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.forget.records import locks_of_runs
from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, locked_md5, locked_stages
from pipeline.registry.versions import State, Version, read_state

PREPARED = "data/prepared"
WINDOWS = ("train.parquet", "validation.parquet", "test_interactions.parquet")
"""Of data/prepared: each row stands in one of them."""
CLOSED_FORM = "EASE, item-kNN, rules, iALS, counts and means of items, and what texts let expect of them"
STEP_BY_STEP = (
    "the text encoder, the sequence tower, the scorer, and what all rows together chose (settings, "
    "half-lives, what users' words say)"
)


@dataclass(frozen=True)
class Known:
    """A model folder among DVC's objects that something names."""

    name: str
    md5: str
    data: str | None  # md5 of the data/prepared that it was fitted on; None: the lock does not say
    version: Version | None  # None: a challenger that is none
    fitted_without: int  # as in Version


def known_models(root: Path, git: Git, state: State, lacks: Callable[[str], bool]) -> list[Known]:
    """Every version's, oldest first, and what dvc.lock and the locks of the last runs name beside them.

    `lacks`: whether a folder is nowhere to be had.
    """
    found = {}
    for version in state.versions:
        if version.md5:
            data = trained_on(git.show(version.lock_commit, "dvc.lock"))
            found[version.md5] = Known(version.name, version.md5, data, version, version.fitted_without)
    for text in locks(root, git):
        if old := locked_md5(text):
            md5 = state.moved.get(old, old)  # a try that was cut short has not come to this lock
            if md5 != old and lacks(md5):  # made in another clone, which shares tags and no remote
                md5 = old
            name = f"the challenger {md5[:8]}"
            found.setdefault(md5, Known(name, md5, trained_on(text), None, state.fitted.get(md5, 0)))
    return list(found.values())


def locks(root: Path, git: Git) -> list[str]:
    """The dvc.lock here, if there is one, and those of the last runs."""
    path = root / "dvc.lock"
    here = [path.read_text(encoding="utf-8")] if path.is_file() else []
    return [*locks_of_runs(git).values(), *here]


def trained_on(lock: str | None) -> str | None:
    """md5 of the data/prepared that the model in a dvc.lock was fitted on."""
    for stage in locked_stages(lock).values():
        if any(out["path"] == MODEL for out in stage["outs"]):
            return next((dep.get("md5") for dep in stage["deps"] if dep["path"] == PREPARED), None)
    return None


def sentences(root: Path, marks: Sequence[str]) -> list[str]:
    """Of each version whose training had rows of theirs."""
    state, settings = read_state(Git(root)), Params.load(root / "params.yaml").decide_retraining
    told = []
    for version in state.versions:
        people = [p for p in state.learned_from(version) if p.mark in marks and p.rows]
        if not people:
            continue
        left = all(person.number <= version.fitted_without for person in people)
        parts = (
            f"{CLOSED_FORM} are without them now, as if fitted on the rows that are left; {STEP_BY_STEP} stay"
            if left
            else f"{CLOSED_FORM} stay as they are, made of all users' rows together; so do {STEP_BY_STEP}"
        )
        if version != state.champion:
            told.append(
                f"{version.name} learned from them and serves nobody unless it is rolled back to: {parts}; "
                f"`git tag --delete recommender@{version.name}` gives it up"
            )
            continue
        days, share = settings.max_forgotten_days, settings.max_forgotten_share
        begun = max((p.as_of for p in people if p.as_of), default=None)
        told.append(f"{version.name}, the champion, learned from them: {parts}: {_until(days, share, begun)}")
    return told


def _until(days: float | None, share: float | None, begun: datetime | None) -> str:
    """When the full training without them is called for."""
    when = []
    if days is not None and begun is not None:
        when.append(f"as soon as the data reach {begun + timedelta(days=days):%Y-%m-%d}")
    if share is not None:
        when.append(f"once forgotten rows are {share:.2%} of those that it had")
    if not when:
        return "params.yaml calls for no training because of it (decide_retraining.max_forgotten_days)"
    called = ", or sooner, ".join(when)
    return f"a full training without them is called for {called}, and promoted if the gate lets it"
