"""The drift check for people: reports/drift.html, and Evidently's snapshot beside it.

In: the check's result (drift.json), rows of the reference and of the newest window. Out: one self-contained
page (verdict, signals with a sentence each, curves over the windows, Evidently's report) and the snapshot
that `evidently.core.report.Snapshot.load` reads; both are written beside and renamed.
Rule: whatever the outcome, there is a page that says so. Without two sides to show, Evidently (9 CPU seconds)
is not even loaded. Its page stands in a frame, texts of the data reach it without the signs that could make
script or markup of them, and the page's policy lets nothing load from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.charts import Series, line_chart
from pipeline.drift.verdicts import LABELS, MEANINGS, Verdict, shown, verdict
from pipeline.files import write_text
from pipeline.pages import finite, moment, number, page, plain, words

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"hard": "hard", "soft": "soft"}
UP_OR_DOWN = ("volume", "new_users", "new_items", "coverage", "list_popularity")  # a fall counts as well
OUTCOMES = {
    "no_champion": ("No champion", "There is no champion yet, so there is nothing to compare new data with."),
    "not_enough_data": (
        "Not enough data",
        "No window after the champion's training holds enough rows, users and days yet: nothing was judged.",
    ),
    "bad_input": (
        "Data not usable",
        "The new data cannot be judged. That is no sign that nothing has drifted.",
    ),
}
# The report shall remember nothing in the browser.
NO_STORAGE = """<head>
<script>
for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, {value: {getItem: () => null, setItem() {}, removeItem() {}}});
</script>"""
# Tells the page around the frame how high the report is.
TELL_HEIGHT = """<script>
new ResizeObserver(() => parent.postMessage(document.body.scrollHeight + 20, "*")).observe(document.body);
</script>
</body>"""


def report(
    result: Mapping[str, Any],
    reference_rows: pd.DataFrame | None,
    newest_rows: pd.DataFrame | None,
    html: Path,
    snapshot: Path,
) -> None:
    """Write both files. Rows are interactions (perhaps with `positive`, `new_user`, `new_item`), or None."""
    text, kept = None, empty_snapshot(result)
    both = [rows for rows in (reference_rows, newest_rows) if rows is not None and len(rows)]
    if result.get("outcome") == "ok" and len(both) == 2:
        from pipeline.drift import evidently_report as evidently

        run = evidently.snapshot(result, *both)
        text, kept = evidently.as_html(run), evidently.as_json(run)
    for path, content in ((html, render(result, text)), (snapshot, kept)):
        write_text(path, content)


def render(result: Mapping[str, Any], evidently: str | None = None) -> str:
    """The page; `evidently` is Evidently's page, to be shown in a frame."""
    signals = [_signal(name, one) for name, one in mapping(result.get("signals")).items()]
    windows = [mapping(one) for one in result.get("windows") or ()]
    kind, label, sentence = _verdict(result, signals)
    return page(
        "drift.html",
        title="Drift report",
        lead=_lead(result, windows),
        kind=kind,
        label=label,
        sentence=sentence,
        reasons=[row["text"] for row in signals if row["verdict"] in (Verdict.DRIFT, Verdict.ONCE)],
        facts=_facts(result, windows),
        sides={name: side for name, side in _sides(result, windows).items() if side},
        signals=sorted(signals, key=lambda row: list(Verdict).index(row["verdict"])),
        windows=[_window(one) for one in windows],
        curves=_curves(signals, windows),
        meanings=[(LABELS[name], f"What is compared: {text}.") for name, text in MEANINGS.items()],
        evidently=_framed(evidently) if evidently else None,
        most=20_000,
    )


def empty_snapshot(result: Mapping[str, Any]) -> str:
    """A snapshot of Evidently without any metric: it says that nothing was measured, and why."""
    content = {
        "report": {"items": []},
        "name": f"drift as of {plain(result.get('as_of'), 40)}: {plain(result.get('outcome'), 40)}",
        "timestamp": plain(result.get("as_of") or "1970-01-01T00:00:00+00:00", 40),
        "metadata": {"outcome": plain(result.get("outcome"), 40)},
        "tags": [plain(result.get("outcome"), 40)],
        "metric_results": {},
        "top_level_metrics": [],
        "widgets": [],
        "tests_widgets": [],
    }
    return json.dumps(content)


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _verdict(result: Mapping[str, Any], signals: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Colour, word and sentence of the answer."""
    outcome = result.get("outcome")
    if outcome != "ok":
        label, sentence = OUTCOMES.get(str(outcome), ("No verdict", f"Outcome: {plain(outcome, 80)}."))
        said = plain(result.get("text"), 600) if result.get("text") else ""
        return "unsure", label, f"{sentence} {said}".strip()
    flagged = [row["label"] for row in signals if row["verdict"] == Verdict.DRIFT]
    once = [row["label"] for row in signals if row["verdict"] == Verdict.ONCE]
    measured = sum(row["verdict"] != Verdict.UNMEASURED for row in signals)
    waiting = f" Only in the newest window: {', '.join(once)}." if once else ""
    if result.get("drift"):
        return "no", "Drift", f"Flagged: {', '.join(flagged) or 'see the signals'}.{waiting}"
    if once:
        return "unsure", "Not confirmed", f"No signal is flagged in two windows in a row.{waiting}"
    return "yes", "No drift", f"None of the {measured} signals that could be measured is flagged."


def _sides(result: Mapping[str, Any], windows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {
        "reference": mapping(result.get("reference")),
        "newest window": windows[-1] if windows else {},
        "everything since the champion's training": mapping(result.get("current")),
    }


def _lead(result: Mapping[str, Any], windows: Sequence[Mapping[str, Any]]) -> str:
    if not windows:
        return f"As of {moment(result.get('as_of'))}."
    newest = windows[-1]
    span = f"{moment(newest.get('from'))} to {moment(newest.get('to'))}"
    size = f"{number(newest.get('rows'), 0)} rows of {number(newest.get('users'), 0)} users"
    return f"The newest window, {span}, {size}, against what the champion learned from."


def _facts(result: Mapping[str, Any], windows: Sequence[Any]) -> list[tuple[str, str]]:
    facts = {
        "Data as of": moment(result.get("as_of")),
        "Champion": plain(result.get("champion") or "none", 60),
    }
    if windows:
        facts["Windows since its training"] = number(len(windows), 0)
    if finite(result.get("rows_fitted")) is not None:
        facts["Rows it was fitted on"] = number(result["rows_fitted"], 0)
    return list(facts.items())


def _signal(name: str, one: Any) -> dict[str, Any]:
    signal = mapping(one)
    judged = verdict(signal)
    return {
        "name": str(name),
        "label": LABELS.get(str(name), words(name)),
        "kind": KINDS.get(str(signal.get("kind")), ""),
        "verdict": judged,
        "said": shown(judged),
        "text": signal.get("text") or "",
        **{key: signal.get(key) for key in ("value", "floor", "p_value")},
    }


def _window(window: Mapping[str, Any]) -> dict[str, Any]:
    signals = mapping(window.get("signals"))
    flagged = [
        LABELS.get(str(name), words(name)) for name, one in signals.items() if mapping(one).get("flag")
    ]
    return {
        **{key: window.get(key) for key in ("from", "to", "rows", "users")},
        "flagged": ", ".join(flagged) or "nothing",
    }


def _curves(
    signals: Sequence[Mapping[str, Any]], windows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One small chart a signal that has at least two values and a floor to reach."""
    charts = []
    for row in signals:
        points = [mapping(mapping(window.get("signals")).get(row["name"])) for window in windows]
        values = [finite(one.get("value")) for one in points]
        known = [place for place, value in enumerate(values) if value is not None]
        floor = finite(row["floor"])
        if len(known) < 2 or floor is None:
            continue
        x = [float(place + 1) for place in range(len(values))]
        flagged = [value if one.get("flag") else None for value, one in zip(values, points, strict=True)]
        series = [Series(row["label"], values, x)]
        ends = [x[known[0]], x[known[-1]]]
        for level in _floors(row["name"], floor):
            series.append(Series("floor", [level, level], ends, kind="floor"))
        series.append(Series("flagged", flagged, x, kind="flagged"))
        caption = f"{row['label']} by window: from {number(values[known[0]])} to {number(values[known[-1]])}"
        charts.append(
            {"label": row["label"], "chart": line_chart(series, label=caption, height=130, x_label="window")}
        )
    return charts


def _floors(name: str, floor: float) -> tuple[float, ...]:
    if name == "quality":
        return (-floor,)
    return (floor, -floor) if name in UP_OR_DOWN else (floor,)


def _framed(evidently: str) -> Any:
    """As the value of `srcdoc`: escaped once, whole (the pages' own gate would cut it)."""
    from markupsafe import escape

    before, _, after = evidently.replace("<head>", NO_STORAGE, 1).rpartition("</body>")
    return escape(before + TELL_HEIGHT + after)
