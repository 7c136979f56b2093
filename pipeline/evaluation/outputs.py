"""What an evaluation leaves: four files in reports/, and a table in the terminal.

In: figures as pipeline/stages/evaluate.py makes them, with NaN where nothing was measured; all lists.
Out: evaluation.json (NaN as null), metrics.json, ranked_lists.parquet, evaluation.html, each put in place
when it is complete; evaluation.json, which decides, comes last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.histories import Prepared
from pipeline.documents.data import Summary
from pipeline.documents.evaluation import Evaluation, Metrics
from pipeline.documents.model import Card, Cost
from pipeline.evaluation.examples import examples, moment, single_items
from pipeline.evaluation.figures import CHALLENGER, HEADLINE
from pipeline.evaluation.findings import ABLATIONS, difference, ranked
from pipeline.evaluation.ranked import Lists
from pipeline.evaluation.report import render
from pipeline.evaluation.tuning import Fitted
from pipeline.files import renamed, write_text
from pipeline.models.artifacts import CARD
from pipeline.models.ranking import Model

log = logging.getLogger(__name__)

VALIDATION, TEST = "validation", "test"
COLUMNS = ("recall@10", "mrr@10", "coverage@10")  # of the closing table
NAMES = ["model", "point_id", "item_id"]
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("point_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
    ]
)

Json = dict[str, Any]


def facts(data: Path, challenger: Path, training: Path, prepared: Prepared) -> Json:
    """What only files know: dates, windows, how the challenger was trained."""
    summary, card = Summary.read(data / "summary.json"), Card.read(challenger / CARD)
    windows = {name: window.to_dict() for name, window in summary.windows.items()}
    points = {VALIDATION: prepared.validation, TEST: prepared.test}
    for name, asked in points.items():
        windows[name] = windows.get(name, {}) | {"points": len(asked)}
    counted = {
        key: getattr(summary, key) for key in ("repeats", "points_capped", "points_unavailable", "credit")
    }
    cost, fit_end = Cost.find(training / "summary.json"), card.fit_end or summary.fit_end
    return {
        "as_of": summary.as_of.isoformat() if summary.as_of else moment(prepared.log.time.max()),
        "train_end": moment(prepared.train_end),
        "fit_end": fit_end.isoformat() if fit_end else None,
        "data_hash": summary.data_hash,
        "split": windows | {key: value for key, value in counted.items() if value is not None},
        "training": cost.to_dict() if cost else card.training,
    }


def chosen(fitted: Mapping[str, Fitted], training: Json) -> Json:
    """The settings that validation chose, and the figures it chose by."""
    validation = {name: {HEADLINE: found.validation} for name, found in fitted.items()}
    for name in (CHALLENGER, *ABLATIONS):
        if (value := training.get(f"{name}_validation_{HEADLINE}")) is not None:
            validation[name] = {HEADLINE: value}
    return {
        "settings_chosen_on": VALIDATION,
        "tuned": {name: found.settings for name, found in fitted.items() if found.settings},
        "validation": validation,
    }


def write(
    figures: Json,
    lists: Lists,
    prepared: Prepared,
    challenger: Model,
    vectors: np.ndarray | None,
    reports: Path,
) -> None:
    """The four files, each put in place when it is complete; evaluation.json, which decides, comes last."""
    reports.mkdir(parents=True, exist_ok=True)
    curves = reports / "training" / "curves.csv"
    page = render(
        as_json(figures),
        examples(prepared, lists[CHALLENGER][0], challenger),
        pd.read_csv(curves) if curves.is_file() else None,
        single_items(prepared, lists[CHALLENGER][0], challenger, vectors),
    )
    with renamed(reports / "ranked_lists.parquet") as temporary:
        write_lists(lists, prepared, temporary)
    write_text(reports / "evaluation.html", page)
    Metrics.of(headline(figures)).write(reports / "metrics.json")
    Evaluation.of(as_json(figures)).write(reports / "evaluation.json")


def write_lists(lists: Lists, prepared: Prepared, path: Path) -> None:
    """One row group a model; the same lists give the same bytes."""
    ids = pa.array(prepared.catalogue.ids, pa.string())
    points = pa.array(prepared.test_point_ids, pa.string())
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=NAMES) as writer:
        for name, (listed, scores) in lists.items():
            point, place = np.nonzero(listed >= 0)
            score = scores[point, place]
            columns = [
                pa.repeat(name, len(point)).cast(pa.string()),
                points.take(pa.array(point)),
                pa.array(place + 1, pa.int32()),
                ids.take(pa.array(listed[point, place])),
                pa.array(score, pa.float32(), mask=np.isnan(score)),
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=max(len(point), 1))


def as_json(value: Any) -> Any:
    """NaN as null, infinity as text, numpy's numbers as numbers."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinite"
    return value


def headline(figures: Json) -> Json:
    """Ten flat figures of the challenger: DVC's metrics file. Six digits, so that differences can be read."""
    by, best = figures["models"].get(CHALLENGER, {}), figures["best_baseline"]
    everywhere = by.get("all", {})
    pair = figures["paired"].get(best, {})
    found = {key: everywhere.get(key) for key in (HEADLINE, "recall@10", "mrr@10", "coverage@10")}
    found |= {
        f"{HEADLINE}_{name}": by.get(name, {}).get(HEADLINE) for name in ("warm", "cold_items", "cold_users")
    }
    found |= {"gain_over_best_baseline": pair.get(HEADLINE), "gain_over_best_baseline_low": pair.get("low")}
    rounded = {key: None if value is None else round(float(value), 6) for key, value in found.items()}
    return rounded | {"users": everywhere.get("users")}


def verdict(figures: Json) -> str:
    """One line: does the challenger beat the best baseline?"""
    best = figures["best_baseline"]
    pair = difference(figures, best or "")
    if pair.value is None or pair.low is None or pair.high is None:
        return "the challenger was not compared with a baseline"
    said = {
        "yes": f"challenger beats the best baseline ({best}) by",
        "no": f"challenger does not beat the best baseline ({best}), it is worse:",
        "unsure": f"challenger does not surely beat the best baseline ({best}):",
    }[pair.answer]
    return f"{said} {pair.value:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}] nDCG@10"


def show(figures: Json) -> None:
    """The closing table on stderr, best first, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for column in (HEADLINE, "95 % interval", *COLUMNS):
        table.add_column(column, justify="right", no_wrap=True)
    for name, by in ranked(figures["models"]).items():
        row = by["all"]
        ends = f"{row[f'{HEADLINE}_low']:.4f} to {row[f'{HEADLINE}_high']:.4f}"
        table.add_row(name, f"{row[HEADLINE]:.4f}", ends, *(f"{row[column]:.4f}" for column in COLUMNS))
    Console(stderr=True).print(table)
    log.info("%s", verdict(figures))
