"""Do more or fewer people come, or do they do more or less, a day?

In: of both sides, rows, active users, arrivals (users new or back after a week) and new users a day; the last
two only where it is known who came before. Out: one signal. Days are the blocks; of the counts the one that
stands out most speaks, each measured by how much it varies from day to day. Days drawn at random vary less
than days in a row, and less than what a few busy users bring or take along: the observed ratio is deflated by
whichever is more. Rows tell of a change first where all users are alike; where a few bring most of the rows,
arrivals and new users do, since in these everybody counts once.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.drift import statistics
from pipeline.drift.signals import Finding
from pipeline.drift.windows import COUNTED, Daily

LEAST_COUNT = 20  # of both sides together, to be compared at all


def part(old: Daily, new: Daily) -> tuple[statistics.Part, np.ndarray]:
    """What to permute, and (days,) bool: of the new side. Both sides need a day."""
    old, new = _comparable(old, new)
    counts = np.concatenate([old.counts, new.counts]).astype(float)
    side = np.arange(len(counts)) >= len(old.counts)
    spread = _spread(counts)

    def statistic(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
        return np.asarray((_log_ratios(reference, current) / spread).max(axis=1))

    columns = np.column_stack([counts, np.ones(len(counts))])
    return statistics.Part(columns, statistic, float(_standing_out(old, new).max())), side


def judge(old: Daily, new: Daily) -> Finding:
    """The ratio of the count that stands out most, less 1; its effect is the same up as down."""
    old, new = _comparable(old, new)
    most = int(_standing_out(old, new).argmax())
    before, after = old.counts.mean(axis=0), new.counts.mean(axis=0)
    ratio = float((after[most] + 0.5 / len(new.counts)) / (before[most] + 0.5 / len(old.counts)))
    listed = [f"{COUNTED[i]} {after[i]:,.1f} ({before[i]:,.1f})" for i in range(len(before))]
    fact = (
        f"A day over {len(new.counts)} days (reference, over {len(old.counts)}): {', '.join(listed)}; "
        f"most: {COUNTED[most]}"
    )
    return Finding(ratio - 1, math.exp(abs(math.log(ratio))) - 1, fact)


def _comparable(old: Daily, new: Daily) -> tuple[Daily, Daily]:
    """Without the counts that a side does not know or that are too few; those of rows stay."""
    known = min(old.counts.shape[1], new.counts.shape[1])
    enough = old.counts[:, :known].sum(axis=0) + new.counts[:, :known].sum(axis=0) >= LEAST_COUNT
    kept = int(enough.cumprod().sum()) or 1
    return old.first(kept), new.first(kept)


def _log_ratios(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(draws, counts + 1) sums, the last of days -> (draws, counts) |log| of the ratios of the rates."""
    pairs = ((reference[:, [i, -1]], current[:, [i, -1]]) for i in range(reference.shape[1] - 1))
    return np.stack([statistics.log_ratio(*pair) for pair in pairs], axis=1)


def _standing_out(old: Daily, new: Daily) -> np.ndarray:
    """(counts,) log ratio in units of what varies from day to day, deflated."""
    sides = [np.r_[each.counts.sum(axis=0), len(each.counts)][None, :] for each in (old, new)]
    spread = _spread(np.concatenate([old.counts, new.counts]).astype(float))
    return np.asarray(_log_ratios(*sides)[0] / (spread * _deflation(old, new, spread)))


def _spread(counts: np.ndarray) -> np.ndarray:
    """(counts,) coefficient of variation from day to day, of both sides together."""
    return np.maximum(counts.std(axis=0) / np.maximum(counts.mean(axis=0), 1e-12), 1e-12)


def _deflation(old: Daily, new: Daily, spread: np.ndarray) -> np.ndarray:
    """(counts,) how much more the log ratio varies than that of days drawn at random; at least 1."""
    series = old.counts.T.astype(float)
    in_a_row = np.array([statistics.inflation(each, len(new.counts)) for each in series])
    of_days = spread**2 * (1 / len(old.counts) + 1 / len(new.counts))
    return np.sqrt(np.maximum(in_a_row, (old.variation + new.variation) / of_days))
