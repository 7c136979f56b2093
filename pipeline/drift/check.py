"""Have the data changed since the champion was trained? The content of drift.json.

In: the reference (rows that a model kept, or any table), the current rows, the items table, the settings of
detect_drift, the champion if there is one. Out: a `Drift` with
  outcome   ok, not_enough_data, or bad_input (a table that is not what it must be): only ok can be drift
  drift     a hard flag in the newest window, or a soft one in the newest two
  signals   of the newest window: value, p_value (adjusted for their number), floor, flag, kind, ..., text
  windows   every closed window; the newest two (or `shown`) with the same figures
Rule: a signal is flagged if its adjusted p-value is at most alpha and its effect at least its floor. `schema`
(a column that is gone or has another type) needs no p-value; the effect of `quality` is a loss, never a gain.
With confirm=False the current rows are one window and every flag counts at once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.documents.drift import Drift, Span
from pipeline.drift import champion as drift_champion
from pipeline.drift import outcomes, statistics, texts, tidy, volume, windows
from pipeline.drift import signals as drift_signals
from pipeline.drift.reference import Reference, sampled
from pipeline.errors import DataError
from pipeline.evaluation.metrics import holm
from pipeline.params import DetectDrift

OURS = {*tables.INTERACTIONS, "positive", "fit", "window", windows.NEW_USER, windows.NEW_ITEM, *windows.SINCE}
LEAST_DAY = 0.9  # of a day: the last row comes a little before the day is over
_SEEDS = {"users": 1, "days": 2, "points": 3, "texts": 4}


def check(
    reference: Reference | pd.DataFrame,
    current: pd.DataFrame,
    items: pd.DataFrame | None,
    settings: DetectDrift,
    seed: int,
    champion: drift_champion.Champion | str | None = None,
    confirm: bool = True,
    as_of: datetime | None = None,
    shown: int = 2,
) -> Drift:
    """See the module. `current`: rows after the champion's fit_end; `user_since`, `item_since` where known.
    `champion`: or the reason why it cannot be asked. `shown`: windows with figures, for curves over time; the
    verdict needs the newest two, older ones are tested while all together hold at most `current_rows` rows.

    Never raises for what is wrong with the tables: that is an outcome.
    """
    if not isinstance(reference, Reference):
        reference = Reference(reference, None)
    blank = Drift(
        outcome="not_enough_data",
        drift=False,
        as_of=as_of,
        champion=champion.version if isinstance(champion, drift_champion.Champion) else None,
        rows_fitted=reference.rows_fitted,
        rows_since_fit_end=len(current) if isinstance(current, pd.DataFrame) else None,
        alpha=settings.alpha,
    )
    if reference.summary and not len(reference.rows):
        text = "Not enough data before the champion's fit_end for a window to compare with"
        return blank.but(text=text)
    try:
        reference = replace(reference, rows=tidy.tidy(reference.rows, "reference"))
        current = tidy.tidy(current, "current")
        items = None if items is None else tidy.tidy_items(items)
        tidy.not_emptied(reference.rows, current)
    except DataError as error:
        return blank.but(outcome="bad_input", text=str(error))
    blank = blank.but(
        as_of=as_of or current[tables.TIME].max(), reference=_describe(reference), current=_span(current)
    )
    closed = windows.close(current, settings) if confirm else [windows.as_window(current)]
    if lacking := _lacking(reference, current, closed, settings):
        return blank.but(text=lacking)
    tester = Tester(reference, items, settings, seed, champion)
    tested = [tester.test(window) for window in closed[-_tested(closed, shown, settings) :]]
    return outcomes.as_result(blank, closed, tested, confirm)


def _tested(closed: list[windows.Window], shown: int, settings: DetectDrift) -> int:
    rows = np.cumsum([len(window.rows) for window in reversed(closed)])
    return max(2, min(shown, int((rows <= settings.current_rows).sum())))


def _lacking(
    reference: Reference, current: pd.DataFrame, closed: list[windows.Window], settings: DetectDrift
) -> str | None:
    needed = f"at least {settings.min_rows:,} rows of {settings.min_users} users are needed"
    if not closed:
        days = f" over {settings.window_days:g} days"
        return f"Not enough new data for a window: {outcomes.counts(current)}; {needed}{days}"
    for name, rows in (("reference", reference.rows), ("window", closed[-1].rows)):
        if len(rows) < settings.min_rows or rows[tables.USER].nunique() < settings.min_users:
            return f"Not enough data in the {name}: {outcomes.counts(rows)}; {needed}"
    return None


class Tester:
    """Compares windows with one reference."""

    def __init__(
        self,
        reference: Reference,
        items: pd.DataFrame | None,
        settings: DetectDrift,
        seed: int,
        champion: drift_champion.Champion | str | None,
    ) -> None:
        self.reference, self.items, self.settings, self.seed = reference, items, settings, seed
        self.champion = champion if isinstance(champion, drift_champion.Champion) else None
        self.no_champion = champion if isinstance(champion, str) else "no champion"
        self.behaviour = (
            drift_champion.Behaviour(self.champion, settings.quality_points) if self.champion else None
        )

    def test(self, window: windows.Window) -> dict[str, outcomes.Outcome]:
        """Every signal of a window, p-values adjusted."""
        rows = sampled(window.rows, self.settings.current_rows)
        sides = drift_signals.Sides(self.reference.rows, rows, self.settings.rows_per_user)
        raw = {
            "schema": self._schema(window.rows),
            **self._test("users", sides.block_current, self._of_rows(sides)),
            "volume": self._volume(window),
            **self._of_champion(window),
        }
        adjusted = holm({name: one.p_value for name, one in raw.items() if one.p_value is not None})
        return {name: self._judged(name, raw[name], adjusted.get(name)) for name in drift_signals.NAMES}

    def _of_rows(self, sides: drift_signals.Sides) -> dict[str, drift_signals.Signal | str]:
        vectors = self._vectors(sides)
        return {
            "missing": drift_signals.missing(sides, self.items),
            "events": drift_signals.events(sides),
            "values": drift_signals.values(sides),
            "user_activity": drift_signals.user_activity(sides, self.settings.rows_per_user),
            "new_users": drift_signals.new_users(sides),
            "new_items": drift_signals.new_items(sides),
            "item_popularity": drift_signals.item_popularity(sides),
            "categories": drift_signals.categories(sides, self.items),
            "text": drift_signals.text(sides, vectors, self.seed + _SEEDS["texts"]),
            "embedding": drift_signals.embedding(sides, vectors),
        }

    def _vectors(self, sides: drift_signals.Sides) -> np.ndarray | None:
        """Of the items of both sides: the champion's, else of their words."""
        if self.champion is not None:
            vectors = self.champion.vectors_of(sides.item_ids)
            if vectors is not None:
                return vectors
        if self.items is None:
            return None
        place = pd.Index(self.items[tables.ITEM]).get_indexer(pd.Index(sides.item_ids))
        written = np.array([*texts.item_texts(self.items), ""], dtype=object)[place].tolist()
        return texts.words_to_vectors(written, self.seed + _SEEDS["texts"]) if any(written) else None

    def _test(
        self, what: str, current: np.ndarray, signals: dict[str, drift_signals.Signal | str]
    ) -> dict[str, outcomes.Outcome]:
        parts = {name: each.part for name, each in signals.items() if isinstance(each, drift_signals.Signal)}
        seed = self.seed + _SEEDS[what]
        tested = (
            statistics.permutation_tests(current, parts, self.settings.permutations, seed) if parts else {}
        )
        results = {}
        for name, signal in signals.items():
            if isinstance(signal, str):
                results[name] = outcomes.not_tested(signal)
            else:
                finding = signal.judge(tested[name])
                results[name] = self._outcome(name, finding, tested[name].p_value)
        return results

    def _outcome(self, name: str, finding: drift_signals.Finding, p_value: float) -> outcomes.Outcome:
        return outcomes.Outcome(finding, p_value, getattr(self.settings.floors, name), False, finding.fact)

    def _judged(self, name: str, raw: outcomes.Outcome, p_value: float | None) -> outcomes.Outcome:
        """With the adjusted p-value and the flag; `schema` needs none."""
        if name == "schema" or raw.finding is None:
            return raw
        sure = p_value is not None and p_value <= self.settings.alpha
        large = raw.floor is not None and raw.finding.effect >= raw.floor
        return replace(raw, p_value=p_value, flag=sure and large)

    def _schema(self, current: pd.DataFrame) -> outcomes.Outcome:
        old = {name: tidy.kind(column) for name, column in self.reference.rows.items() if name not in OURS}
        # preprocess puts _raw behind a raw column's name that is one of ours.
        old = {name: what for name, what in old.items() if what and name.removesuffix("_raw") not in OURS}
        new = {name: tidy.kind(current[name]) for name in old if name in current}
        problems = [f"column {name} is gone" for name in old if name not in new]
        problems += [
            f"column {name} holds {new[name] or 'nothing'} (reference {old[name]})"
            for name in new
            if new[name] != old[name]
        ]
        fact = "; ".join(problems) or "Columns and types are those of the reference"
        finding = drift_signals.Finding(
            float(len(problems)), float(len(problems)), fact[0].upper() + fact[1:]
        )
        return outcomes.Outcome(finding, None, None, bool(problems), finding.fact)

    def _volume(self, window: windows.Window) -> outcomes.Outcome:
        old, new = self.reference.daily or daily(self.reference.rows), daily(window.rows)
        if not len(new.counts) or not len(old.counts):
            return outcomes.not_tested("no whole day on a side")
        part, side = volume.part(old, new)
        seed = self.seed + _SEEDS["days"]
        tested = statistics.permutation_tests(side, {"volume": part}, self.settings.permutations, seed)[
            "volume"
        ]
        return self._outcome("volume", volume.judge(old, new), tested.p_value)

    def _of_champion(self, window: windows.Window) -> dict[str, outcomes.Outcome]:
        names = (*drift_champion.NAMES, "quality")
        if self.behaviour is None:
            return dict.fromkeys(names, outcomes.not_tested(self.no_champion))
        lists = self.behaviour.window(window.start, window.end)
        if isinstance(lists, str):
            return dict.fromkeys(names, outcomes.not_tested(lists))
        blocks, signals = drift_champion.signals(self.behaviour, *lists)
        return self._test("points", blocks, signals) | {"quality": self._quality(*lists)}

    def _quality(self, reference: drift_champion.Lists, current: drift_champion.Lists) -> outcomes.Outcome:
        quality = drift_champion.quality(reference, current, self.seed + _SEEDS["points"])
        if quality.reference <= 0:
            return outcomes.not_tested("the champion found nothing at its promotion either")
        loss, floor = -quality.value / quality.reference, self.settings.floors.quality
        fact = (
            f"nDCG@{drift_champion.K} of the champion {quality.current:.3f} "
            f"(at promotion {quality.reference:.3f}): "
            f"{quality.value:+.3f} [{quality.low:+.3f}, {quality.high:+.3f}]"
        )
        finding = drift_signals.Finding(-loss, loss, fact)
        return outcomes.Outcome(finding, quality.p_value, floor, False, fact)


def daily(rows: pd.DataFrame) -> windows.Daily:
    """Of whole 24 hours from the first row on; a last one may fall a little short."""
    time = windows.microseconds(rows[tables.TIME])
    days = int((time.max() - time.min()) / windows.MICROSECONDS_A_DAY + 1 - LEAST_DAY)
    return windows.Daily.of((time - time.min()) // windows.MICROSECONDS_A_DAY, rows, days)


def _describe(reference: Reference) -> Span:
    """Of the reference's span, and of all rows that it is a sample of."""
    known = reference.summary
    return _span(reference.rows).but(**({"rows": known.rows, "users": known.users} if known else {}))


def _span(rows: pd.DataFrame) -> Span:
    return windows.as_window(rows).describe()
