"""The check as one self-contained HTML page: what to mend first, then pictures of what was read.

In: `Check`. Out: the page as text (pipeline/pages.py says what keeps it harmless).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from markupsafe import Markup

from pipeline.charts import Series, bar_chart, line_chart
from pipeline.check.facts import percent
from pipeline.documents.check import Activity, Check, TextFigures
from pipeline.documents.finding import Finding
from pipeline.pages import moment, number, page

KINDS = {"train": "challenger", "validation": "champion", "test": "ablation"}  # classes of style.css
SEVERITY = {
    "error": ("no", "mend first"),
    "warning": ("unsure", "look at it"),
    "note": ("note", "to know"),
}
DAY = 86_400.0


def render(check: Check) -> str:
    return page(
        "check.html",
        title="Check of the data",
        check=check,
        credit=check.credit,
        lead=lead(check),
        verdict=verdict(check),
        findings=[_row(finding) for finding in check.findings],
        facts=_facts(check),
        time=_over_time(check),
        legend_of_windows={kind: name for name, kind in KINDS.items() if name in check.windows},
        activity=[
            (f"{what}s by their rows", _bars(rows_of, f"{what}s"), rows_of.biggest)
            for what, rows_of in (("User", check.users), ("Item", check.items))
            if rows_of
        ],
        empty={name: percent(share) for name, share in check.empty.items() if share},
        percent=percent,
    )


def lead(check: Check) -> str:
    if check.users is None or check.items is None or not check.first_timestamp or not check.last_timestamp:
        return f"The source {check.source} as params.yaml reads it."
    return (
        f"{check.rows.kept or 0:,} interactions of {check.users.count:,} users and {check.items.count:,} "
        f"items, {check.first_timestamp.date()} to {check.last_timestamp.date()}, from {check.source}."
    )


def verdict(check: Check) -> tuple[str, str, str]:
    """(class of style.css, label, sentence)."""
    errors = len(check.errors)
    warnings = sum(finding.severity == "warning" for finding in check.findings)
    if errors:
        things = "One finding makes" if errors == 1 else f"{errors} findings make"
        return "no", "Not ready for a training", f"{things} a training fail, or worthless: mend that first."
    if warnings:
        things = "one finding" if warnings == 1 else f"{warnings} findings"
        return (
            "unsure",
            "Look before you train",
            f"A training would run, but {things} may spoil what it learns.",
        )
    return "yes", "Ready for a training", "Nothing was found that would spoil a training."


def figure(finding: Finding) -> str:
    if finding.figure is None:
        return ""
    if finding.unit == "share":
        return percent(finding.figure)
    digits = 0 if float(finding.figure).is_integer() else 1
    return f"{number(finding.figure, digits)} {finding.unit or ''}".strip()


def _row(finding: Finding) -> dict[str, Any]:
    kind, label = SEVERITY[finding.severity]
    return {"kind": kind, "label": label, "figure": figure(finding), "finding": finding}


def _facts(check: Check) -> list[tuple[str, str]]:
    shares = {
        "Rows whose item is in the table of items": check.joined_share,
        "Successes that repeat an item": check.repeat_share,
    }
    facts = [("As of", moment(check.as_of))]
    facts += [(f"Rows {name.replace('_', ' ')}", f"{count or 0:,}") for name, count in check.rows]
    facts += [(name, percent(share)) for name, share in shares.items() if share is not None]
    return facts + (_facts_of_texts(check.texts) if check.texts else [])


def _facts_of_texts(texts: TextFigures) -> list[tuple[str, str]]:
    facts = [("Items without text", f"{texts.without_text:,} of {texts.items:,}")]
    if texts.median_characters is not None:
        facts.append(("Median text, characters", number(texts.median_characters, 0)))
    if texts.tokens_a_word is not None and texts.unknown_tokens is not None:
        facts.append(("Tokens a word", number(texts.tokens_a_word, 2)))
        facts.append(("Unknown tokens", percent(texts.unknown_tokens)))
    return facts


def _over_time(check: Check) -> Markup:
    """Rows a period, coloured by the window in which it begins; one line where there are no windows."""
    if not check.periods:
        return Markup("")
    first = check.periods[0].start
    x = [(period.start - first).total_seconds() / DAY for period in check.periods]
    rows = [float(period.rows) for period in check.periods]
    starts = [(name, _days(window.first, first)) for name, window in check.windows.items()] or [("rows", 0.0)]
    series = []
    for place, (name, begin) in enumerate(starts):
        end = starts[place + 1][1] if place + 1 < len(starts) else float("inf")
        # One period further, so that the lines of two windows meet.
        own = [n for n, day in enumerate(x) if begin <= day < end]
        own = [n for n in {max(0, own[0] - 1) if own else 0, *own} if own]
        own.sort()
        series.append(
            Series(name, [rows[n] for n in own], [x[n] for n in own], kind=KINDS.get(name, "baseline"))
        )
    span = f"days since {first.date()}"
    return line_chart(series, label="Rows over time", x_label=span, height=200)


def _days(moment: datetime, first: datetime) -> float:
    return (moment - first).total_seconds() / DAY


def _bars(rows_of: Activity, what: str) -> Markup:
    counts = [float(count) for count in rows_of.by_rows.values()]
    series = Series(what, counts, kind="challenger")
    return bar_chart(list(rows_of.by_rows), [series], label=f"{what} by how many rows they have", height=180)
