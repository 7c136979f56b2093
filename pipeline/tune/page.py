"""What a search found, in words and as one self-contained HTML page.

In: the report of command.py. Out: sentences; the page as text (pipeline/pages.py keeps it harmless).
"""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from pipeline.charts import Series, bar_chart
from pipeline.pages import page

Json = dict[str, Any]


def render(report: Json) -> str:
    importance = report["importance"]
    chart = bar_chart(
        [key.partition(".")[2] for key in importance],
        [Series("share of the spread", list(importance.values()), kind="challenger")],
        label="How much of the trials' spread each key explains",
    )
    rows = sorted(report["trials"], key=lambda row: -(row["validation_ndcg@10"] or 0))
    return page(
        "tune.html",
        title="Search for settings",
        report=report,
        rows=rows,
        chart=chart,
        verdict=verdict(report),
        take=take(report),
        lead=f"{len(rows)} trials on {report['validation']['points']:,} validation points of "
        f"{report['validation']['users']:,} users; the test window was not looked at.",
    )


def verdict(report: Json) -> tuple[str, str, str]:
    """(class of style.css, label, sentence)."""
    best = report["best"]
    if not best["changed"]:
        return "note", "Stay", "No trial ranks validation better than params.yaml as it is."
    if best["gain"] is None:
        return "unsure", "Not compared", "params.yaml as it is was not measured: its trial failed."
    text = (
        f"The best trial has {best['validation_ndcg@10']:.4f} nDCG@10 on validation, {best['gain']:+.4f} "
        f"[{best['low']:+.4f}, {best['high']:+.4f}] against params.yaml as it is."
    )
    if best["low"] > 0:
        return "yes", "Better", f"{text} The best of many trials looks better than it is: the gate decides."
    return "unsure", "May be luck", f"{text} That is no more than chance may give."


def take(report: Json) -> list[str]:
    """How the best is taken: lines of a shell, nothing if params.yaml has it already."""
    best = report["best"]
    if not best["changed"]:
        return []
    changed = {key: value for key, value in best["params"].items() if value != report["as_is"][key]}
    settings = " ".join(f"-S {shlex.quote(f'{key}={_plain(value)}')}" for key, value in changed.items())
    return [f"dvc exp apply {best['experiment']} && evergreen cycle", f"evergreen cycle {settings}"]


def _plain(value: Any) -> str:
    """As YAML reads it: `{title}` alone would be an object."""
    spelled = "null" if value is None else str(value)
    try:
        same = yaml.safe_load(spelled) == value
    except yaml.YAMLError:
        same = False
    return spelled if same else json.dumps(value, ensure_ascii=False)
