"""The split and the points, by hand and once more by another way."""

from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_data import DAY, FILES, POINT_ROWS, START, catalogue, rows, ten_days

from pipeline.data import splitting, tables
from pipeline.data.histories import load_prepared
from pipeline.data.splitting import find_cuts
from pipeline.errors import DataError
from pipeline.models.preparation import successes
from pipeline.params import Positive


def cut(days: list[float], validation: float = 0.2, test: float = 0.2) -> tuple[int, int, int]:
    """Rows of the three windows."""
    moments = pd.Series([START + day * DAY for day in days], dtype=tables.MOMENT)
    by_time = moments.value_counts().rename_axis("timestamp").reset_index(name="rows")
    cuts = find_cuts(by_time, validation, test)
    assert {cuts.validation, cuts.test} <= set(moments)
    train, later = int((moments < cuts.validation).sum()), int((moments >= cuts.test).sum())
    return train, len(days) - train - later, later


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([0, 1, 2, 3, 4, 6, 6, 7, 8, 9], (5, 3, 2)),  # 6 wanted: 5 and 7 are as near, the earlier wins
        ([0, 1, 2, 5, 5, 5, 5, 7, 8, 9], (7, 1, 2)),  # 6 wanted: 7 is nearer than 3
        ([0, 1, 6, 6, 6, 6, 6, 6, 6, 9], (2, 7, 1)),  # the tie covers both cuts: no window is empty
        ([0, 6, 6, 6, 6, 6, 6, 6, 6, 9], (1, 8, 1)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], (8, 1, 1)),
        ([0, 1, 2, 2, 2, 2, 2, 2, 2, 2], (1, 1, 8)),
        ([n / 86_400_000_000 for n in range(10)], (6, 2, 2)),  # a microsecond is enough
    ],
)
def test_equal_timestamps_never_straddle_a_cut(days: list[float], expected: tuple[int, ...]) -> None:
    assert cut(days) == expected


@given(st.lists(st.integers(0, 30), min_size=3), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
@settings(max_examples=50)
def test_no_window_is_ever_empty(days: list[int], validation: float, test: float) -> None:
    assume(len(set(days)) > 2)
    assert min(cut(days, validation, test)) > 0


@pytest.mark.parametrize(
    ("days", "found"), [([3] * 9, "all timestamps are equal"), ([1, 2] * 5, "only 2 different")]
)
def test_too_few_timestamps(days: list[int], found: str) -> None:
    with pytest.raises(DataError, match=f"column timestamp: {found}.*at least 3 are needed: check that"):
        cut(days)


def test_ties_are_in_an_order_that_tells_nothing(prepare: Any) -> None:
    ids = [f"{n:03d}" for n in range(60)]
    tied = rows(*(("u", name, 0) for name in ids), *(("u", f"v{n}", 1 + n) for n in range(40)))
    order = prepare(tied)["train"]["item_id"].tolist()
    assert sorted(order) == ids
    assert order != ids
    assert abs(np.corrcoef([int(name) for name in order], range(60))[0, 1]) < 0.3  # decided by the salt


def test_fit_counts_the_rows_in_train_alone(prepare: Any) -> None:
    frame = rows(
        *(("often", str(n), n) for n in range(4)),
        *(("seldom", str(n), n) for n in range(2)),
        ("seldom", "7", 7), ("new", "7", 7), ("often", "9", 8), ("seldom", "9", 9),
    )  # fmt: skip
    prepared = prepare(frame, min_user_interactions=3)
    fit = pd.concat([prepared[name] for name in FILES]).groupby("user_id")["fit"].unique().map(list).to_dict()
    assert fit == {"often": [True], "seldom": [False], "new": [False]}
    train = prepared.summary["windows"]["train"]
    assert (train["users"], train["users_not_fit"], train["rows_not_fit"]) == (2, 1, 2)


def test_positive_by_event_and_value(prepare: Any) -> None:
    cells = [("view", None), ("buy", 3.0), ("buy", 5.0), ("buy", None), ("view", 5.0), ("buy", float("nan"))]
    frame = rows(
        *(("u", str(n), n, *cell) for n, cell in enumerate(cells)),
        ("u", "6", 6, "buy", 4.0), ("u", "7", 7, "view", 4.0),
        ("u", "8", 8, "buy", 9.0), ("u", "9", 9, "buy", 1.0),
    )  # fmt: skip
    prepared = prepare(frame, positive={"events": ["buy"], "min_value": 4})
    assert prepared["train"]["positive"].tolist() == [False, False, True, True, False, True]
    assert prepared["test_interactions"]["positive"].tolist() == [True, False]
    assert prepared.pairs("validation_points") == [("u", "6")]
    assert prepared.summary["windows"]["train"]["positive"] == 3


def test_points_are_new_successes(prepare: Any) -> None:
    prepared = prepare(POINT_ROWS)
    assert [len(prepared[name]) for name in FILES] == [12, 4, 5]
    assert prepared.pairs("validation_points") == [("u", "11")]
    assert sorted(prepared.pairs("test")) == [("u", "12"), ("w", "13")]
    validation, test = (prepared.summary["points"][name] for name in ("validation", "test"))
    assert {key: validation[key] for key in ("positive", "points", "repeats", "same_moment")} == {
        "positive": 3, "points": 1, "repeats": 1, "same_moment": 1,
    }  # fmt: skip
    assert {key: test[key] for key in ("positive", "points", "repeats", "same_moment")} == {
        "positive": 4, "points": 2, "repeats": 2, "same_moment": 0,
    }  # fmt: skip


def test_repeats_may_be_points_and_are_counted_either_way(prepare: Any) -> None:
    prepared = prepare(POINT_ROWS, repeats="include")
    assert sorted(prepared.pairs("validation_points")) == [("u", "11"), ("w", "0")]
    assert sorted(prepared.pairs("test")) == [("u", "10"), ("u", "12"), ("u", "12"), ("w", "13")]
    validation, test = (prepared.summary["points"][name] for name in ("validation", "test"))
    assert (validation["points"], validation["repeats"], validation["same_moment"]) == (2, 1, 1)
    assert (test["points"], test["repeats"], test["same_moment"]) == (4, 2, 0)
    assert load_prepared(prepared.folder).test.log.repeats
    assert not load_prepared(prepare(POINT_ROWS).folder).test.log.repeats


def test_points_follow_from_the_windows(prepare: Any) -> None:
    """The rule of the contract once more, in another way."""
    random = np.random.default_rng(4)
    cells = [
        (
            f"u{random.integers(12)}",
            str(random.integers(30)),
            int(random.integers(50)),
            "rating",
            float(value),
        )
        for value in random.integers(1, 6, 500)
    ]
    prepared = prepare(
        rows(*cells).drop_duplicates(["user_id", "item_id", "timestamp"]), max_points_per_user=500
    )
    everything = pd.concat([prepared[name] for name in FILES])
    train, validation, test = (prepared[name]["timestamp"] for name in FILES)
    assert train.max() < validation.min() <= validation.max() < test.min()
    assert everything["timestamp"].is_monotonic_increasing
    for window, name in (("validation", "validation_points"), ("test_interactions", "test")):
        expected = set()
        for row in prepared[window].itertuples():
            history = everything[
                (everything["user_id"] == row.user_id) & (everything["timestamp"] < row.timestamp)
            ]
            if row.value >= 4 and row.item_id not in set(history["item_id"]):
                expected.add((row.user_id, row.item_id, row.timestamp))
        points = prepared[name]
        assert set(points[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None)) == expected
        assert len(points) == len(expected) > 5
        assert points["point_id"].is_unique
        assert points["point_id"].str.fullmatch("[0-9a-f]{16}").all()
        assert points.equals(points.sort_values(["timestamp", "point_id"], ignore_index=True))


def test_points_per_user_are_capped_by_a_draw(prepare: Any) -> None:
    late = [("u", f"n{n}", 8 + n / 100) for n in range(30)] + [("w", "x", 9)]
    frame = rows(
        *(("u", str(n), n / 100) for n in range(60)), *(("u", f"v{n}", 5 + n) for n in (0, 1)), *late
    )
    shares = {"validation_share": 0.02, "test_share": 31 / 93}
    free = prepare(frame, **shares, max_points_per_user=50, seed=18)["test"]
    prepared = prepare(frame, **shares, max_points_per_user=10)
    points = prepared["test"]
    assert points["user_id"].value_counts().to_dict() == {"u": 10, "w": 1}
    assert prepared.summary["points"]["test"]["capped"] == prepared.summary["points_capped"] == 20
    assert points.merge(free).shape == points.shape  # the same, whatever cap and seed
    assert points["item_id"].iloc[:10].tolist() != [f"n{n}" for n in range(10)]  # a draw, not the first ten


def test_unavailable_items_make_no_point(prepare: Any) -> None:
    moments = pd.Series([START + day * DAY for day in range(11)], dtype=tables.MOMENT)
    never = pd.Series([pd.NaT] * 10, dtype=tables.MOMENT)
    available_from, available_until = never.copy(), never.copy()
    available_from[6], available_until[7] = moments[6], moments[8]  # both offered when taken
    available_from[8], available_until[9] = moments[9], moments[9]  # not yet; no more (the end is exclusive)
    items = catalogue(
        [str(n) for n in range(10)], available_from=available_from, available_until=available_until
    )
    frame = pd.concat([ten_days(), rows(("w", "5", 9))])
    prepared = prepare(frame, items, validation_share=2 / 11, test_share=3 / 11)
    assert prepared.pairs("validation_points") == [("u", "6"), ("u", "7")]
    assert prepared.pairs("test") == [("w", "5")]
    assert prepared.summary["points"]["test"]["unavailable"] == prepared.summary["points_unavailable"] == 2


def test_cold_shares(prepare: Any) -> None:
    frame = rows(
        *(("old", str(n), n) for n in range(6)), ("old", "20", 6), ("old", "21", 7),
        ("old", "22", 8), ("late", "0", 9),
    )  # fmt: skip
    test = prepare(frame).summary["points"]["test"]
    assert (test["points"], test["users"], test["users_with_history_at_start"]) == (2, 2, 1)
    assert (test["cold_items_share"], test["cold_users_share"], test["empty_history_share"]) == (
        0.5,
        0.5,
        0.5,
    )


@pytest.mark.parametrize("events", [None, ["view"], ["none"]])
@pytest.mark.parametrize("least", [None, 3.0, -1.0])
def test_the_drift_check_counts_the_same_rows_as_success(
    events: list[str] | None, least: float | None
) -> None:
    rows = pd.DataFrame({"event": ["view", "rating", None, "view"], "value": [3.0, 2.9, None, None]})
    positive = Positive(events=events, min_value=least)
    ours = splitting.is_success(ibis.memtable(rows), positive).name("success").execute()
    there = successes(rows, positive)
    assert np.broadcast_to(np.asarray(ours, dtype=bool), len(rows)).tolist() == there.tolist()


@pytest.mark.parametrize(
    ("counts", "window"),
    [
        ([1, 1, 970, 28], "train"),
        ([970, 1, 1, 28], "validation"),
        ([10, 970, 1, 19], "validation"),
        ([500, 250, 245, 5], "test"),
        ([81, 9, 10], "validation"),  # more than four fifths at once, whatever the windows hold
    ],
)
def test_where_time_leaves_a_window_nearly_empty_nothing_is_trained(counts: list[int], window: str) -> None:
    table = by_time(counts)
    cuts = find_cuts(table, 0.1, 0.1)
    with pytest.raises(DataError, match=rf"of the rows are of 2020-.*, so the {window} window would hold"):
        splitting.check_shares(table, cuts, 0.1, 0.1)


@pytest.mark.parametrize(("counts", "named"), [([60, 20, 10, 10], True), ([40, 40, 10, 10], False)])
def test_a_moment_with_most_rows_is_named(counts: list[int], named: bool) -> None:
    table = by_time(counts)
    warning = splitting.check_shares(table, find_cuts(table, 0.1, 0.1), 0.1, 0.1)
    assert (warning is not None) == named
    if warning:
        assert "60.0% of the rows" in warning
        assert "collect.files.columns.timestamp" in warning


def by_time(counts: list[int]) -> pd.DataFrame:
    times = pd.Series([START + day * DAY for day in range(len(counts))], dtype=tables.MOMENT)
    return pd.DataFrame({"timestamp": times, "rows": counts})
