"""The drift check's figures as one report of Evidently, with Evidently's own pictures of the columns.

In: the check's result (its signals), rows of the reference and of the newest window. Out: a `Snapshot` of
Evidently: a metric for each signal with the value that the check computed, a test for each with the check's
verdict, and a picture of each column. Same input, same bytes: no clock, and ids are counted.
Rule: Evidently judges nothing here. Columns and types are given to it (it takes ids for numbers and drops
columns in silence), pictures come without its tests, and rows are sampled: they are only to be looked at.
Importing this module costs some 9 CPU seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import (
    BoundTest,
    MetricTest,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context, Snapshot
from evidently.legacy.renderers.html_widgets import CounterData, WidgetSize, counter
from evidently.legacy.tests.base_test import TestStatus
from evidently.presets import ValueStats

from pipeline.data.tables import EVENT, ITEM, TEXT, TIME, VALUE
from pipeline.drift.verdicts import LABELS, Verdict, shown, verdict
from pipeline.pages import finite, number, plain

MOST_ROWS = 20_000  # a side; more dots change no histogram
MOST_LABELS = 12  # of a categorical column; the rest is "other"
STATUS = {
    Verdict.DRIFT: TestStatus.FAIL,
    Verdict.ONCE: TestStatus.WARNING,
    Verdict.NONE: TestStatus.SUCCESS,
}
RANK = "item's rank by popularity in the reference"
HOUR, DAY = "hour of the day (UTC)", "day of the week"
LENGTH = "characters of the row's text"
SUCCESS, NEW_USER, NEW_ITEM = "success", "user new in its window", "item new in its window"
NUMBERS = (VALUE, HOUR, RANK, LENGTH)
FLAGS = {"positive": SUCCESS, "new_user": NEW_USER, "new_item": NEW_ITEM}
LABELLED = (EVENT, DAY, *FLAGS.values())
# Every list of tests that ValueStats knows, empty. Its own switch for that breaks its rendering (0.7.23).
NO_TESTS: dict[str, Any] = {
    **{
        f"{name}_tests": []
        for name in ("row_count", "missing_values_count", "min", "max", "mean", "std", "q25", "q50", "q75")
    },
    "unique_values_count_tests": {},
}


class SignalTest(MetricTest):
    """The check's verdict on one signal, as it was reached: by p-value, floor and confirmation."""

    status: str
    text: str

    def to_test(self) -> Any:
        def told(
            context: Context, metric: SingleValueCalculation[Any], value: SingleValue
        ) -> MetricTestResult:
            return MetricTestResult(
                id="drift",
                name=f"{value.display_name}: {shown(self.status)}",
                description=self.text,
                metric_config=metric.to_metric_config(),
                test_config=self.dict(),
                status=STATUS[Verdict(self.status)],
            )

        return told


class Signal(SingleValueMetric):
    """One signal with its figures; nothing is computed from the data that Evidently holds."""

    name: str
    value: float
    p_value: float | None = None
    floor: float | None = None
    status: str
    text: str

    def _default_tests(self, context: Context) -> list[BoundTest]:
        return [SignalTest(status=self.status, text=self.text).bind_single(self.get_fingerprint())]

    def _default_tests_with_reference(self, context: Context) -> list[BoundTest]:
        return self._default_tests(context)


class SignalCalculation(SingleValueCalculation[Signal]):
    def display_name(self) -> str:
        return LABELS.get(self.metric.name, plain(self.metric.name, 60))

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        result: SingleValue = self.result(self.metric.value)
        told = CounterData(label=shown(self.metric.status), value=number(self.metric.value, 3))
        result.widget = [counter(title=self.display_name(), counters=[told], size=WidgetSize.HALF)]
        return result


def snapshot(result: Mapping[str, Any], reference: pd.DataFrame, newest: pd.DataFrame) -> Snapshot:
    """Run Evidently's report. Signals not measured are left to the page: Evidently wants a number.

    `reference` and `newest` have the interactions' columns; `positive`, `new_user`, `new_item` are shown
    where both have them. Raises ValueError if either has no row.
    """
    if not len(reference) or not len(newest):
        raise ValueError("no rows to show")
    signals = [
        Signal(
            name=str(name),
            value=math.nan if (value := finite(one.get("value"))) is None else value,
            p_value=finite(one.get("p_value")),
            floor=finite(one.get("floor")),
            status=verdict(one).value,
            text=harmless(one.get("text") or "", 600),
        )
        for name, one in (result.get("signals") or {}).items()
        if verdict(one) is not Verdict.UNMEASURED
    ]
    then, now = pictures(reference, newest)
    definition = DataDefinition(**types_of(now))
    drawn = [ValueStats(column=name, **NO_TESTS) for name in now]
    report = Report([*signals, *drawn], include_tests=True)
    run: Snapshot = report.run(
        Dataset.from_pandas(now, data_definition=definition),
        Dataset.from_pandas(then, data_definition=definition),
        timestamp=moment_of(result),
        metadata=described(result),
        tags=["drift"] if result.get("drift") else [],
        name=f"drift as of {plain(result.get('as_of'), 40)}",
    )
    for test in run.tests_results:
        test.bound_test = None  # names a class of this module: whoever loads the snapshot need not have it
    return run


def moment_of(result: Mapping[str, Any]) -> datetime:
    """`as_of`; the beginning of time where it says none. Evidently would take the clock."""
    moment = pd.to_datetime(result.get("as_of"), utc=True, errors="coerce")
    return datetime(1970, 1, 1, tzinfo=UTC) if pd.isna(moment) else moment.to_pydatetime()


def described(result: Mapping[str, Any]) -> dict[str, str]:
    """Champion and windows, as Evidently's metadata."""
    labels = {"model_id": plain(result.get("champion"), 60)}
    for side in ("reference", "current"):
        for key, value in (result.get(side) or {}).items():
            labels[f"{side} {plain(key, 40)}"] = plain(value, 60)
    return labels


def pictures(reference: pd.DataFrame, newest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns to be drawn, of at most MOST_ROWS rows a side."""
    return columns(sampled(reference), sampled(newest), _ranks(reference))


def columns(
    reference: pd.DataFrame, newest: pd.DataFrame, ranks: pd.Series | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns that Evidently can make something of: those that have something on both sides."""
    ranks = _ranks(reference) if ranks is None else ranks
    then, now = (_columns(side, ranks) for side in (reference, newest))
    both = [name for name in now if name in then and then[name].notna().any() and now[name].notna().any()]
    for name in [name for name in both if name in LABELLED]:
        then[name], now[name] = _labels(then[name], now[name])
    return then[both], now[both]


def types_of(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Arguments of DataDefinition that leave nothing to be guessed."""
    return {
        "numerical_columns": [name for name in frame if name in NUMBERS],
        "categorical_columns": [name for name in frame if name in LABELLED],
        **{f"{kind}_columns": [] for kind in ("text", "datetime", "unknown", "list")},
    }


def _ranks(reference: pd.DataFrame) -> pd.Series:
    """Item -> 1 for the one with most rows; ties in the order of the ids."""
    counts = reference[ITEM].value_counts().sort_index()
    return counts.rank(ascending=False, method="first")


def sampled(rows: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_ROWS rows, always the same ones, in their order."""
    if len(rows) <= MOST_ROWS:
        return rows
    places = np.random.default_rng(0).choice(len(rows), MOST_ROWS, replace=False)
    return rows.iloc[np.sort(places)]


def _columns(rows: pd.DataFrame, ranks: pd.Series) -> pd.DataFrame:
    times = rows[TIME].dt
    columns: dict[str, Any] = {
        VALUE: rows[VALUE].astype(float).where(np.isfinite(rows[VALUE].astype(float))),
        HOUR: times.hour.astype(float),
        RANK: rows[ITEM].map(ranks).astype(float),
        LENGTH: rows[TEXT].str.len().astype(float),
        EVENT: rows[EVENT],
        DAY: times.day_name(),
        **{
            shown_as: rows[name].map({True: "yes", False: "no"})
            for name, shown_as in FLAGS.items()
            if name in rows
        },
    }
    return pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})


def _labels(then: pd.Series, now: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Both with the same few harmless labels; the rest is "other", a cell without one "none"."""
    counts = pd.concat([then, now]).value_counts()
    kept = {label: harmless(label, 40) for label in counts.index[:MOST_LABELS]}
    other = dict.fromkeys(counts.index[MOST_LABELS:], "other")
    names = {**kept, **other}
    return tuple(side.map(names).astype(object).fillna("none") for side in (then, now))


def harmless(text: Any, limit: int) -> str:
    """One plain line without the two signs that could end Evidently's script or begin a tag in a picture."""
    return plain(text, limit).translate({ord("<"): "‹", ord(">"): "›"})


def as_json(run: Snapshot) -> str:
    """For `Snapshot.loads`; Evidently's random ids become counted ones."""
    return _counted(run.dumps())


def as_html(run: Snapshot) -> str:
    """A self-contained page (3.7 MB: Evidently's script comes along); ids counted."""
    return _counted(run.get_html_str(as_iframe=False))


def _counted(text: str) -> str:
    """Ids of widgets and pages (UUIDs of kind 7, `metric_` and one of kind 4) numbered as they appear."""
    seen: dict[str, str] = {}

    def count(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"evidently_{len(seen)}")

    uuid = r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b"
    return re.sub(rf"{uuid}|(?<![0-9a-z])metric_[0-9a-f]{{32}}\b", count, text)
