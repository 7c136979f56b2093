"""Popularity as it is counted live: by hand, and nothing of a point's own moment or later."""

from __future__ import annotations

import numpy as np
import pytest
from histories_by_hand import log_of

from pipeline.data.histories import MICROSECONDS_A_DAY, Log
from pipeline.models.popular import LivePopularity

DAY = MICROSECONDS_A_DAY


def scores(log: Log, days: list[float], half_life: float, delay_days: float = 0) -> np.ndarray:
    """(moments, items) decayed counts, NaN for an item that nobody took yet."""
    nobody = np.full(len(days), -1, np.int32)
    points = log.points(nobody, nobody, (np.array(days) * DAY).astype(np.int64))
    model = LivePopularity.of("recent_popularity", log, 3, half_life, delay_days * 86_400)
    return np.exp2(model.score(points))


LOG = log_of([(0, 0, 0 * DAY), (0, 1, 2 * DAY), (1, 0, 1 * DAY), (1, 1, 2 * DAY)], items=3)


def test_counts_fade_by_half_in_a_half_life() -> None:
    found = scores(LOG, [1.5, 3], half_life=1)
    np.testing.assert_allclose(found[0], [2**-1.5 + 2**-0.5, np.nan, np.nan], rtol=1e-5)
    np.testing.assert_allclose(found[1], [2**-3 + 2**-2, 2 * 2**-1, np.nan], rtol=1e-5)


def test_without_a_half_life_every_success_counts_alike() -> None:
    np.testing.assert_allclose(scores(LOG, [9], half_life=np.inf), [[2, 2, np.nan]], rtol=1e-5)


def test_a_points_own_moment_is_not_known() -> None:
    np.testing.assert_allclose(scores(LOG, [2], half_life=np.inf), [[2, np.nan, np.nan]])
    np.testing.assert_allclose(scores(LOG, [0], half_life=np.inf), [[np.nan] * 3])


@pytest.mark.parametrize(("day", "known"), [(3.0, np.nan), (3.1, 2)])
def test_a_row_is_known_after_the_delay(day: float, known: float) -> None:
    np.testing.assert_allclose(scores(LOG, [day], half_life=np.inf, delay_days=1)[0, 1], known, rtol=1e-5)


def test_what_comes_later_changes_nothing() -> None:
    later = log_of([(0, 0, 0), (0, 1, 2 * DAY), (0, 2, 4 * DAY), (1, 0, DAY), (1, 1, 2 * DAY)], items=3)
    np.testing.assert_array_equal(scores(LOG, [4, 1], half_life=3), scores(later, [4, 1], half_life=3))
