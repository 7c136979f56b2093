"""Lists asked for by a history given in place."""

from __future__ import annotations

import pytest
import toy_log

from pipeline.errors import DataError
from pipeline.models.questions import history_in_place
from pipeline.models.state import Live


def test_who_asks_is_no_user_of_the_log() -> None:
    """Else the rows of the first user would not count as what others took."""
    prepared = toy_log.prepared("abc", [("u0", "a", 1), ("u0", "b", 2), ("u1", "c", 3)])
    now = toy_log.at(9)
    points = history_in_place(prepared, ["a"], now)
    assert points.lengths.tolist() == [1]
    live = Live.of(prepared.log, 3, (1.0, 2.0, 4.0, 8.0, 16.0))
    assert live.neighbours(points, 3).toarray()[0].argmax() == 1  # b, which u0 took after a


def test_an_item_that_is_not_there_is_named() -> None:
    prepared = toy_log.prepared("abc", [("u0", "a", 1), ("u1", "b", 2)])
    with pytest.raises(DataError, match="--items: z: no such item_id"):
        history_in_place(prepared, ["a", "z"], 1)
