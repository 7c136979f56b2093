"""`evergreen check`: read the source as `collect` would, look at it, and say what to mend: nothing is kept.

In: params.yaml and the source. Out: `Check`, reports/check.json and check.html. The tables lie in a temporary
folder and are gone afterwards: data/raw, models and the registry stay as they are.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import ibis
import pandas as pd

from pipeline import sources
from pipeline.check import facts as gathered
from pipeline.check import rules, texts
from pipeline.data.engine import duckdb_connection
from pipeline.data.forgotten import Forgotten
from pipeline.data.joining import joined_share
from pipeline.data.rejected import advice
from pipeline.documents.check import Check, TextFigures, key_in
from pipeline.documents.data import Manifest
from pipeline.documents.finding import Finding
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.files import write_text
from pipeline.params import Params
from pipeline.stages.collect import collect
from pipeline.stages.preprocess import preprocess

REPORT, PAGE = "check.json", "check.html"


def check(params: Params) -> Check:
    """Raises ConfigError where params.yaml itself is wrong; what is wrong with the data is a finding."""
    lenient = params.collect.model_copy(update={"max_rejected_share": 1.0, "min_joined_share": 0.0})
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as temporary:
        raw = Path(temporary) / "raw"
        raw.mkdir()
        try:
            people = Forgotten.of_project(Path.cwd())
            manifest = collect(lambda: sources.read(lenient, people), lenient, raw)
        except DataError as error:
            return Check(source=lenient.source, findings=[_unreadable(error)])
        with duckdb_connection(raw / "spill") as connection:
            facts = gathered.gather(connection, raw, params)
            windows, mending = _windows(connection, facts.table, params), advice(raw / "rejected.parquet")
            facts = replace(facts, windows=windows, advice=mending)
        return of(facts, manifest)


def of(facts: gathered.Facts, manifest: Manifest) -> Check:
    figures, missing = _texts(facts)
    summary = facts.windows.summary if facts.windows else {}
    return Check.of(
        {
            "source": manifest.source,
            "credit": sources.credit(facts.params.collect),
            "as_of": manifest.as_of,
            "rows": manifest.rows,
            "rejected": manifest.rejected,
            "first_timestamp": manifest.first_timestamp,
            "last_timestamp": manifest.last_timestamp,
            "findings": missing + rules.found(facts, manifest, figures),
            "events": facts.events[:20],
            "users": gathered.activity(facts.users),
            "items": gathered.activity(facts.items),
            "joined_share": joined_share(facts.items, facts.table["item_id"]),
            "repeat_share": facts.repeats / facts.successes if facts.successes else None,
            "empty": facts.empty,
            "periods": gathered.periods(facts.by_time),
            "windows": summary.get("windows", {}),
            "points": summary.get("points", {}),
            "texts": figures,
        }
    )


def write(report: Check, reports: Path) -> None:
    from pipeline.check.page import render

    reports.mkdir(exist_ok=True)
    report.write(reports / REPORT)
    write_text(reports / PAGE, render(report))


def _windows(connection: ibis.BaseBackend, items: pd.DataFrame, params: Params) -> gathered.Windows:
    """Of the table `interactions`, as `preprocess` would cut them."""
    try:
        prepared = preprocess(connection, items, params.preprocess)
    except PipelineError as error:
        return gathered.Windows(problem=str(error))
    return gathered.Windows(prepared.summary.to_dict(), prepared.items)


def _texts(facts: gathered.Facts) -> tuple[TextFigures | None, list[Finding]]:
    if facts.windows is None or facts.windows.items is None:
        return None, []
    settings = facts.params.finetune
    try:
        return texts.figures(facts.windows.items, settings.encoder, settings.max_length), []
    except ConfigError as error:
        return None, [Finding(kind="no_encoder", severity="error", text=str(error), key="finetune.encoder")]


def _unreadable(error: DataError) -> Finding:
    """With the key that its line names, if any."""
    key = key_in(str(error), "collect.files")
    return Finding(kind="unreadable", severity="error", text=str(error), key=key)
