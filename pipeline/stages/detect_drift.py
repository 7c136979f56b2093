"""Have the data changed since the champion was trained? Evidence; decide_retraining draws the conclusion.

In: data/raw (interactions, items.parquet, manifest.json), models/champion with the reference that it keeps.
Out: reports/drift.json (pipeline/drift/check.py), drift.html for people and drift_snapshot.json, both with
Evidently's pictures (pipeline/drift/page.py).
Current rows are those after the champion's fit_end; "now" is the manifest's as_of. Outcomes: `ok`,
`no_champion`, `not_enough_data` (no window has closed yet), `bad_input` (a raw table is not what it must be):
only `ok` can say drift.
Run: python -m pipeline.stages.detect_drift data/raw models/champion reports
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.data import tables
from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift, Outcome
from pipeline.documents.model import Card
from pipeline.drift import champion as drift_champion
from pipeline.drift import reference as drift_reference
from pipeline.drift import windows
from pipeline.drift.check import check
from pipeline.errors import ArtifactError, DataError
from pipeline.models.artifacts import CARD, has_model, pinned, version_in
from pipeline.params import DetectDrift, Params
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
JSON, HTML, SNAPSHOT = "drift.json", "drift.html", "drift_snapshot.json"
SHOWN = 8  # windows with figures
NO_CHAMPION = "No champion yet, so there is nothing that new data could be compared with"


def detect_drift(
    reference: drift_reference.Reference,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    settings: DetectDrift,
    seed: int,
    champion: Callable[[], drift_champion.Champion | str],
    as_of: datetime | None = None,
) -> tuple[Drift, pd.DataFrame | None]:
    """The content of drift.json and the newest closed window's rows. `interactions`: all that are known.

    `champion` is called only if a window has closed: loading a model costs seconds.
    """
    rows = windows.with_since(interactions)
    current = rows[rows[tables.TIME] > reference.fit_end]
    if not len(current):
        text = f"No row after the champion's fit_end, {reference.fit_end.isoformat()}"
        fitted = reference.rows_fitted
        return _unjudged("not_enough_data", text, as_of=as_of, rows_since_fit_end=0, rows_fitted=fitted), None
    closed = windows.close(current, settings)
    model = champion() if closed else None
    result = check(reference, current, items, settings, seed, model, as_of=as_of, shown=SHOWN)
    return result, closed[-1].rows if closed else None


def read_reference(
    folder: Path, interactions: pd.DataFrame, settings: DetectDrift
) -> drift_reference.Reference:
    """What the champion keeps; of one without, made from the data that its fit_end left it."""
    if (folder / drift_reference.FOLDER).is_dir():
        return drift_reference.read(folder / drift_reference.FOLDER)
    fit_end = Card.read(folder / CARD).fit_end
    if fit_end is None:
        raise ArtifactError(f"{folder}: its card has no fit_end: run `evergreen champion`")
    log.warning("the champion keeps no reference: made from data/raw up to its fit_end")
    return drift_reference.make(interactions, fit_end, settings)


def read_raw(raw: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Interactions and items. Raises DataError if a table is missing or not what it must be."""
    interactions = tables.read_parquet(raw / "interactions", "interactions")
    return interactions, tables.read_parquet(raw / "items.parquet", "items")


def _judge(
    raw: Path, folder: Path, settings: DetectDrift, seed: int
) -> tuple[Drift, pd.DataFrame | None, pd.DataFrame | None]:
    """The result, and the rows of reference and newest window to be shown."""
    manifest = Manifest.find(raw / "manifest.json")
    if not has_model(folder):
        return _unjudged("no_champion", NO_CHAMPION, as_of=manifest.as_of if manifest else None), None, None
    version = version_in(folder)
    try:
        as_of = Manifest.read(raw / "manifest.json").as_of
        interactions, items = read_raw(raw)
    except (ArtifactError, DataError) as error:
        return _unjudged("bad_input", str(error), champion=version), None, None
    reference = read_reference(folder, interactions, settings)
    result, newest = detect_drift(
        reference,
        interactions,
        items,
        settings,
        seed,
        lambda: drift_champion.load(folder, interactions, items),
        as_of,
    )
    return result.but(champion=version), reference.rows, newest


def _unjudged(outcome: Outcome, text: str, **more: Any) -> Drift:
    """A result without a verdict: nothing is called drift, and `text` says why."""
    return Drift(outcome=outcome, drift=False, text=text, **more)


def main(raw: Path, champion: Path, reports: Path, params: Path = Path("params.yaml")) -> None:
    everything = Params.load(params)
    with pinned(champion) as folder:
        result, reference, newest = _judge(raw, folder, everything.detect_drift, everything.seed)
    result.write(reports / JSON)
    from pipeline.drift.page import report

    report(result.to_dict(), reference, newest, reports / HTML, reports / SNAPSHOT)
    log.info(f"{result.outcome}: {result.text}")


if __name__ == "__main__":
    run(main)
