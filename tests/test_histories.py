from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from histories_by_hand import log_of

from pipeline.data.histories import Catalogue

# user 0 met 0, then 1 and 2 at one time, then 0 again; user 1 met 3
LOG = log_of([(0, 0, 10), (0, 1, 20), (0, 2, 20), (0, 0, 30), (1, 3, 5)], items=4)


def points(*moments: tuple[int, int]):
    user, time = (np.array(column) for column in zip(*moments, strict=True))
    return LOG.points(user.astype(np.int32), np.zeros(len(moments), np.int32), time)


def test_history_is_strictly_earlier_and_of_the_user_alone() -> None:
    p = points((0, 10), (0, 11), (0, 20), (0, 21), (0, 99), (1, 5), (1, 6), (-1, 99))
    assert p.lengths.tolist() == [0, 1, 1, 3, 4, 0, 1, 0]
    assert LOG.item[p[4:5].rows()[1]].tolist() == [0, 1, 2, 0]


def test_newest_rows_alone() -> None:
    assert LOG.item[points((0, 99)).newest(2).rows()[1]].tolist() == [2, 0]


def test_recency_weights_share_the_mean_place_of_a_tie() -> None:
    weights = points((0, 21)).weights(4, half_life=1).toarray()[0]
    # One row before two tied ones: the tied are 0.5 rows old on average, the first is 2 rows old.
    assert weights.tolist() == pytest.approx([2**-2, 2**-0.5, 2**-0.5, 0])


def test_item_met_twice_keeps_its_largest_weight() -> None:
    weights = points((0, 99)).weights(4, half_life=1).toarray()[0]
    assert weights.tolist() == pytest.approx([1, 2**-1.5, 2**-1.5, 0])


def test_row_weights_multiply() -> None:
    liking = np.array([0.5, 1, 0, 1, 1], np.float32)
    weights = points((0, 21)).weights(4, np.inf, liking).toarray()[0]
    assert weights.tolist() == pytest.approx([0.5, 1, 0, 0])


def test_successes_leave_out_repeats_and_failures() -> None:
    log = log_of([(0, 0, 1), (0, 1, 2), (0, 0, 3), (1, 1, 4)], items=2, positive=[True, False, True, True])
    found = log.successes(np.ones(4, bool))
    assert list(zip(found.user, found.target, found.time, strict=True)) == [(0, 0, 1), (1, 1, 4)]


def test_successes_and_lists_hold_repeats_where_they_count() -> None:
    log = log_of([(0, 0, 1), (0, 1, 2), (0, 0, 3), (1, 1, 4)], items=2, positive=[True, False, True, True])
    points = replace(log, repeats=True).successes(np.ones(4, bool))
    assert list(zip(points.user, points.target, points.time, strict=True)) == [
        (0, 0, 1),
        (0, 0, 3),
        (1, 1, 4),
    ]
    assert not len(points.excluded()[0])
    point, item = log.points(points.user, points.target, points.time).excluded()
    assert list(zip(point, item, strict=True)) == [(1, 0), (1, 1)]


def test_catalogue_sorts_by_id_and_knows_what_it_lacks() -> None:
    catalogue = Catalogue.of(pd.DataFrame({"item_id": ["b", "a", "10", "9"]}))
    assert catalogue.ids.tolist() == ["10", "9", "a", "b"]
    assert catalogue.index(np.array(["a", "zzz", "10"], dtype=object)).tolist() == [2, -1, 0]
