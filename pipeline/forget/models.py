"""What learned from a forgotten person, and when it is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.registry.versions import read_state

KEPT = (
    "weights, counts and matrices (EASE, item-kNN, rules, iALS, towers, encoder) are made of all users' rows "
    "together; they hold no row and no id, and are not corrected one by one, since what is served keeps no "
    "Gram matrix"
)


def sentences(root: Path, marks: Sequence[str]) -> list[str]:
    """Of each version whose training had rows of theirs."""
    state, settings = read_state(Git(root)), Params.load(root / "params.yaml").decide_retraining
    told = []
    for version in state.versions:
        people = [p for p in state.learned_from(version) if p.mark in marks and p.rows]
        if not people:
            continue
        if version != state.champion:
            told.append(
                f"{version.name} learned from them and serves nobody unless it is rolled back to: "
                f"`git tag --delete recommender@{version.name}` gives it up"
            )
            continue
        days, share = settings.max_forgotten_days, settings.max_forgotten_share
        begun = max((p.as_of for p in people if p.as_of), default=None)
        told.append(f"{version.name}, the champion, learned from them: {KEPT}; {_until(days, share, begun)}")
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
