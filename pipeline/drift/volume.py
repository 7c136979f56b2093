"""Do more or fewer people come, or do they do more or less, a day?

In: rows and active users a day of both sides. Days are the blocks; of the two counts the one that stands out
more speaks, each measured by how much it varies from day to day. Days drawn at random vary less than days in
a row, and less than what a few busy users bring or take along: the observed ratio is deflated by whichever is
more.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.drift import statistics as s
from pipeline.drift.signals import Finding
from pipeline.drift.windows import Daily


def part(old: Daily, new: Daily) -> tuple[s.Part, np.ndarray]:
    """What to permute, and (days,) bool: of the new side. Both sides need a day."""
    counts = np.concatenate([old.counts, new.counts]).astype(float)
    side = np.arange(len(counts)) >= len(old.counts)
    days = np.ones(len(counts))
    spread = _spread(counts)

    def statistic(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
        return (_ratios(reference, current) / spread[:, None]).max(axis=0)

    columns = np.stack([counts[:, 0], days, counts[:, 1], days], axis=1)
    observed = (_log_ratios(old, new) / (spread * _deflation(old, new, spread))).max()
    return s.Part(columns, statistic, float(observed)), side


def judge(old: Daily, new: Daily) -> Finding:
    """The ratio of the count that stands out more, less 1; its effect is the same up as down."""
    spread = _spread(np.concatenate([old.counts, new.counts]).astype(float))
    most = int((_log_ratios(old, new) / (spread * _deflation(old, new, spread))).argmax())
    before, after = old.counts.mean(axis=0), new.counts.mean(axis=0)
    ratio = float((after[most] + 0.5 / len(new.counts)) / (before[most] + 0.5 / len(old.counts)))
    fact = (
        f"Rows a day {after[0]:,.1f} over {len(new.counts)} days (reference {before[0]:,.1f} over "
        f"{len(old.counts)}), active users a day {after[1]:,.1f} (reference {before[1]:,.1f})"
    )
    return Finding(ratio - 1, math.exp(abs(math.log(ratio))) - 1, fact)


def _ratios(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(2, draws) |log| of the ratio of the rates; columns: rows, days, users, days."""
    return np.stack([s.log_ratio(reference[:, i : i + 2], current[:, i : i + 2]) for i in (0, 2)])


def _log_ratios(old: Daily, new: Daily) -> np.ndarray:
    sides = []
    for each in (old, new):
        total, days = each.counts.sum(axis=0), len(each.counts)
        sides.append(np.array([[total[0], days, total[1], days]], dtype=float))
    return _ratios(*sides)[:, 0]


def _spread(counts: np.ndarray) -> np.ndarray:
    """(2,) coefficient of variation from day to day, of both sides together."""
    return np.maximum(counts.std(axis=0) / np.maximum(counts.mean(axis=0), 1e-12), 1e-12)


def _deflation(old: Daily, new: Daily, spread: np.ndarray) -> np.ndarray:
    """(2,) how much more the log ratio varies than that of days drawn at random; at least 1."""
    in_a_row = [s.inflation(old.counts[:, i].astype(float), len(new.counts)) for i in (0, 1)]
    of_days = spread**2 * (1 / len(old.counts) + 1 / len(new.counts))
    return np.sqrt(np.maximum(in_a_row, (old.variation + new.variation) / of_days))
