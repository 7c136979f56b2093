"""What Evidently says with its defaults: the yardstick for the drift check, in bench and backtest.

In: rows of both sides (the interactions' columns; perhaps `positive`, `new_user`, `new_item`). Out: how many
columns it calls drifted, and whether its own rule (half of them) calls that drift.
Rule: the rule of its DataDriftPreset untouched (a test by size and kind of the column up to 1,000 reference
rows, then a distance with a fixed threshold), over columns that someone would give it: event, value, hour,
weekday, the item's rank by popularity, length of the text, and what else is there. Types are given, columns
with nothing on one side left out, or it would raise. Importing this module costs some 9 CPU seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import DriftedColumnsCount

from pipeline.drift.evidently_report import columns, types_of


@dataclass(frozen=True)
class Defaults:
    """How many columns were `tested`, and how many of them `drifted`."""

    tested: int
    drifted: int

    @property
    def drift(self) -> bool:
        """Evidently's rule for a data set: at least half of the columns."""
        return self.tested > 0 and 2 * self.drifted >= self.tested


def evidently_drift(reference: pd.DataFrame, current: pd.DataFrame) -> bool:
    """Whether Evidently, with its defaults, says that the data set drifted; False without rows."""
    return evidently_defaults(reference, current).drift


def evidently_defaults(reference: pd.DataFrame, current: pd.DataFrame) -> Defaults:
    """The same with its counts. All rows are used: what it tests with depends on their number."""
    if not len(reference) or not len(current):
        return Defaults(0, 0)
    then, now = columns(reference, current)
    definition = DataDefinition(**types_of(now))
    sides = (Dataset.from_pandas(side, data_definition=definition) for side in (now, then))
    value = Report([DriftedColumnsCount()]).run(*sides).dict()["metrics"][0]["value"]
    return Defaults(len(now.columns), int(value["count"]))
