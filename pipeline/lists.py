"""`evergreen recommend`: the champion's list for a user, for a history given in place, or for a text."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pipeline.data import pseudonyms, tables
from pipeline.documents.data import Summary
from pipeline.errors import ArtifactError, ConfigError
from pipeline.models.artifacts import CHAMPION, has_model, pinned, version_in

log = logging.getLogger(__name__)
PREPARED = Path("data/prepared")
_TRIES = 3  # a promotion may replace the folder while it is read


def listed(
    root: Path, *, user: str | None, items: list[str] | None, text: str | None, k: int
) -> list[dict[str, Any]]:
    """`{"rank", "item_id", "title", "score", "reasons", "version"}` per item, best first.

    Raises ConfigError unless exactly one question is asked, ArtifactError where there is no champion.
    """
    if sum(question is not None for question in (user, items, text)) != 1:
        raise ConfigError("recommend: give exactly one of --user, --items, --text")
    if k < 1:
        raise ConfigError(f"recommend: -k {k}: it must be at least 1")
    if items == [] or (text is not None and not text.strip()):
        raise ConfigError(f"recommend: {'--items' if text is None else '--text'} is empty")
    champion, data = root / CHAMPION, root / PREPARED
    if not has_model(champion):
        from pipeline.registry.records import VERDICT

        refused = f"{VERDICT} says why none was promoted" if (root / VERDICT).is_file() else None
        remedy = refused or "`evergreen cycle` trains the first"
        raise ArtifactError(f"{CHAMPION}: no champion here: `evergreen champion` gets it, {remedy}")
    if user is not None and (hidden := pseudonyms.of_data(root)) is not None:
        user = hidden.of(user)
    if user is not None and data.is_dir() and not is_known(data, user):
        log.info("user %s is not in the data: listed as for a new user", user)
    return _ask(champion, data, {"user": user, "items": items, "text": text, "k": k})


def _ask(champion: Path, data: Path, question: dict[str, Any]) -> list[dict[str, Any]]:
    from pipeline.models.questions import recommend

    for attempt in range(_TRIES):
        try:
            with pinned(champion) as folder:
                version = version_in(folder)
                return [{**row, "version": version} for row in recommend(folder, data, **question)]
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def credit(root: Path) -> str | None:
    """What has to be said where items of the data are shown."""
    summary = Summary.find(root / PREPARED / "summary.json")
    return None if summary is None else summary.credit


def is_known(data: Path, user: str) -> bool:
    """Whether the user has any row in data/prepared."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for name in ("train", "validation", "test_interactions"):
        path = data / f"{name}.parquet"
        if path.is_file():
            users = pq.read_table(path, columns=[tables.USER])[tables.USER]
            if pc.any(pc.equal(users, user)).as_py():
                return True
    return False
