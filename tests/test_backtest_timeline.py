"""Windows, what is known at each, and the points that are asked."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backtest import timeline as tl
from pipeline.errors import DataError
from pipeline.params import Positive, Preprocess
from tests.small_data import DAY, START, catalogue, rows

SETTINGS = Preprocess(
    min_user_interactions=1,
    validation_share=0.1,
    test_share=0.25,
    positive=Positive(events=None, min_value=4),
    repeats="exclude",
    max_points_per_user=20,
    item_text="{title}",
    max_text_characters=100,
)


def table(count: int = 40, users: int = 4) -> pd.DataFrame:
    """A row a day; users take turns, item n first appears on day n of the first 20, later they repeat."""
    cells = [(f"u{day % users}", f"i{(day * 7) % 25:02d}", day) for day in range(count)]
    return rows(*cells).assign(positive=True)


def make(frame: pd.DataFrame, windows: int = 3, start: float = 0.4) -> tl.Timeline:
    items = catalogue(sorted(set(frame["item_id"])))
    return tl.make(frame, items, SETTINGS, windows, start)


def day(microseconds: int) -> float:
    return (tl.moment(microseconds) - pd.Timestamp(START)) / DAY


def test_windows_are_of_equal_rows_and_follow_each_other() -> None:
    timeline = make(table())
    assert [day(window.start) for window in timeline.windows] == [16, 24, 32]
    assert [window.rows for window in timeline.windows] == [8, 8, 8]
    assert [window.stop for window in timeline.windows[:-1]] == [w.start for w in timeline.windows[1:]]
    assert timeline.windows[0].users == 4


def test_a_model_is_fitted_on_all_but_the_newest_share_of_what_is_known() -> None:
    timeline = make(table())
    assert [day(window.fit_stop) for window in timeline.windows] == [12, 18, 24]  # 16, 24, 32 rows less 1/4
    assert timeline.fit_rows(0).sum() == 12
    assert timeline.fit_end(0) == pd.Timestamp(START) + 11 * DAY
    assert timeline.as_of(0) == pd.Timestamp(START) + 15 * DAY


def test_users_with_too_few_rows_are_not_fitted_on() -> None:
    frame = table()
    settings = SETTINGS.model_copy(update={"min_user_interactions": 5})
    timeline = tl.make(frame, catalogue(sorted(set(frame["item_id"]))), settings, 3, 0.4)
    assert not timeline.fit_rows(0).any()  # three rows each
    assert timeline.fit_rows(2).sum() == 24


def test_held_points_lie_between_fit_end_and_decision_and_served_ones_after_it() -> None:
    timeline = make(table())
    for window in timeline.windows:
        held, served = timeline.held(window.number), timeline.served(window.number)
        assert not (held & served).any()
        assert (timeline.points.time[held] < window.start).all()
        assert (timeline.points.time[served] >= window.start).all()
        assert served.any()


def test_a_timestamp_is_never_split() -> None:
    frame = table()
    frame.loc[14:20, "timestamp"] = frame.loc[14, "timestamp"]
    timeline = make(frame)
    assert [day(window.start) for window in timeline.windows] == [21, 24, 32]
    assert day(timeline.windows[0].fit_stop) == 14  # of 21 rows, 7 of one moment


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 6), st.floats(0.05, 0.9))
def test_cuts_ascend_and_begin_new_timestamps(times: list[int], windows: int, start: float) -> None:
    time = np.sort(np.array(times, dtype=np.int64))
    try:
        starts = tl.cut(time, windows, start)
    except DataError:
        return
    assert starts == sorted(set(starts))
    assert len(starts) == windows
    assert starts[0] > time[0]
    assert set(starts) <= set(time)


def test_items_are_hidden_until_the_window_in_which_they_appear() -> None:
    frame = table()
    frame.loc[30, "item_id"] = "new"  # in the second window, which begins on day 24
    timeline = make(frame)
    place = timeline.catalogue.index(np.array(["new"], dtype=object))[0]
    assert day(timeline.catalogue.available_from[place]) == 24
    old = timeline.catalogue.index(np.array(["i00"], dtype=object))[0]
    assert timeline.catalogue.available_from[old] == np.iinfo(np.int64).min


def test_what_the_table_says_of_availability_still_holds() -> None:
    frame = table()
    items = catalogue(sorted(set(frame["item_id"])))
    items.loc[0, "available_from"] = pd.Timestamp(START) + 30 * DAY
    timeline = tl.make(frame, items, SETTINGS, 3, 0.4)
    assert day(timeline.catalogue.available_from[0]) == 30
    points = timeline.points
    assert (points.time[points.target == 0] >= timeline.catalogue.available_from[0]).all()


def test_points_are_successes_that_are_new_to_the_user() -> None:
    frame = table()
    frame.loc[20, "positive"] = False
    frame.loc[36, ["user_id", "item_id"]] = frame.loc[32, ["user_id", "item_id"]].to_numpy()
    asked = {round(day(time)) for time in make(frame).points.time}
    assert 19 in asked
    assert 20 not in asked
    assert 32 in asked
    assert 36 not in asked


def test_points_are_capped_by_user_and_window_alike_for_every_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tl, "MOST_POINTS", 12)
    timeline = make(table())
    for window in timeline.windows:
        chosen = timeline.served(window.number)
        assert chosen.sum() == 4
        assert len(np.unique(timeline.points.user[chosen])) == 4


def test_too_few_rows_for_the_windows_are_one_line() -> None:
    with pytest.raises(DataError, match=r"3 rows of 3 different timestamps do not make 6 windows.*--windows"):
        make(table(3), windows=6)
    with pytest.raises(DataError, match="cannot be split into rows to fit on"):
        make(table(12), windows=2, start=0.01)
