"""The drift bench: cases differ by chance alone, shifts by what they say; figures are worked out by hand."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.bench import drift
from pipeline.bench._cases import WEEK, World, later
from pipeline.bench._shifts import SHIFTS, TURNED
from pipeline.data import tables
from pipeline.drift import windows
from pipeline.errors import DataError
from pipeline.params import Params

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
USERS, ITEMS, DAYS = 240, 60, 60
SHIFT = {shift.name: shift for shift in SHIFTS}


def interactions(**columns: Any) -> pd.DataFrame:
    """20 rows of each user within three days; users come one after another over DAYS days."""
    generator = np.random.default_rng(3)
    user = np.repeat(np.arange(USERS), 20)
    minute = (user * DAYS * 1440 // USERS) + generator.integers(0, 3 * 1440, len(user))
    start = pd.Timestamp("2024-01-01", tz="UTC").as_unit("us")
    frame = pd.DataFrame(
        {
            tables.USER: pd.Series([f"u{one}" for one in user], dtype="str"),
            tables.ITEM: pd.Series(
                [f"i{one}" for one in generator.zipf(1.5, len(user)) % ITEMS], dtype="str"
            ),
            tables.TIME: (start + pd.to_timedelta(minute, unit="min")).astype(tables.MOMENT),
            tables.EVENT: pd.Series(["rating"] * len(user), dtype="str"),
            tables.VALUE: generator.integers(1, 6, len(user)).astype(float),
            tables.TEXT: pd.Series([None] * len(user), dtype="str"),
        }
    )
    return frame.assign(**columns)


def catalogue(**columns: Any) -> pd.DataFrame:
    names = [f"i{one}" for one in range(ITEMS)]
    frame = pd.DataFrame(
        {
            tables.ITEM: pd.Series(names, dtype="str"),
            tables.TITLE: pd.Series(
                [f"A tale of {chr(97 + one % 26)}{one}" for one in range(ITEMS)], dtype="str"
            ),
            tables.TEXT: pd.Series([None] * ITEMS, dtype="str"),
            tables.CATEGORIES: [["drama"] if one % 2 else ["war"] for one in range(ITEMS)],
            tables.AVAILABLE_FROM: pd.Series([None] * ITEMS, dtype=tables.MOMENT),
            tables.AVAILABLE_UNTIL: pd.Series([None] * ITEMS, dtype=tables.MOMENT),
        }
    )
    return frame.assign(**columns)


def make_world(rows: pd.DataFrame | None = None, items: pd.DataFrame | None = None, **settings: Any) -> World:
    params = Params.load(PARAMS)
    small = {"min_rows": 100, "min_users": 10, **settings}
    params = params.model_copy(update={"detect_drift": params.detect_drift.model_copy(update=small)})
    return World.of(interactions() if rows is None else rows, catalogue() if items is None else items, params)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture
def quiet_evidently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidently says no drift, of one column at least; and is not imported."""
    told = SimpleNamespace(drift=False, drifted=1)
    stub = SimpleNamespace(evidently_defaults=lambda *_: told)
    monkeypatch.setitem(sys.modules, "pipeline.drift.defaults", stub)


# Cases


@pytest.mark.parametrize("number", range(4))
def test_exactly_two_windows_close_and_they_are_the_two_groups(world: World, number: int) -> None:
    case = world.case(number)
    closed = windows.close(case.current, case.settings)
    assert len(closed) == 2
    for window, group in zip(closed, case.windows, strict=True):
        assert len(window.rows) == len(group)
        assert set(window.rows[tables.USER]) == set(group[tables.USER])


def test_users_are_on_one_side_each(world: World) -> None:
    case = world.case(1)
    sides = [set(rows[tables.USER]) for rows in (case.reference.rows, *case.windows)]
    assert not sides[0] & sides[1]
    assert not sides[1] & sides[2]
    assert not sides[0] & sides[2]
    assert max(map(len, sides)) - min(map(len, sides)) <= 1
    assert min(map(len, sides)) >= 10


def test_rows_are_those_of_the_data_moved_by_whole_weeks(world: World) -> None:
    case = world.case(2)
    first = case.windows[0]
    both = first.merge(world.rows, on=[tables.USER, tables.ITEM, tables.VALUE])
    steps = (both[f"{tables.TIME}_x"] - both[f"{tables.TIME}_y"]).value_counts()
    assert steps.iloc[0] >= len(first)  # every row of the window is a row of the data, as much earlier
    assert steps.index[0] > WEEK
    assert steps.index[0] % WEEK == pd.Timedelta(0)


def test_the_champion_knows_nothing_of_the_case(world: World) -> None:
    case = world.case(3)
    assert case.champion is not None
    assert case.champion.fit_end < case.reference.rows[tables.TIME].min()
    assert case.champion.promoted_as_of == case.reference.rows[tables.TIME].max()
    assert case.windows[0][tables.TIME].min() > case.champion.promoted_as_of


def test_the_same_number_is_the_same_case(world: World) -> None:
    pd.testing.assert_frame_equal(world.case(1).current, world.case(1).current)
    assert set(world.case(1).windows[0][tables.USER]) != set(world.case(5).windows[0][tables.USER])


def test_moving_rows_moves_since_when_users_are_known_unless_it_was_before() -> None:
    day = pd.Timestamp("2024-05-01", tz="UTC")
    times = [day, day + WEEK]
    since = {windows.USER_SINCE: [day - WEEK, day], windows.ITEM_SINCE: [day, day + WEEK]}
    rows = pd.DataFrame({tables.TIME: times, **since, windows.USER_BEFORE: [day - WEEK, pd.NaT]})
    moved = later(rows, 2 * WEEK, day - pd.Timedelta(days=1))
    assert moved[tables.TIME].tolist() == [day + 2 * WEEK, day + 3 * WEEK]
    assert moved[windows.USER_SINCE].tolist() == [day - WEEK, day + 2 * WEEK]
    assert moved[windows.ITEM_SINCE].tolist() == [day + 2 * WEEK, day + 3 * WEEK]
    assert moved[windows.USER_BEFORE].tolist() == [day + WEEK, pd.NaT]  # as long ago as it was


def test_too_small_data_are_refused() -> None:
    with pytest.raises(DataError, match="not 3 groups of 100 users and 100 rows: take larger data"):
        make_world(min_users=100).case(0)


# Shifts


def test_new_catalogue_replaces_some_items_by_described_new_ones(world: World) -> None:
    case = world.case(0, SHIFT["new_catalogue"])
    rows = pd.concat(case.windows)
    new = rows[rows[tables.ITEM].str.startswith("new-")]
    assert 0.1 < new[tables.ITEM].nunique() / rows[tables.ITEM].nunique() < 0.5
    known = case.items.set_index(tables.ITEM)
    assert known.loc[new[tables.ITEM].unique(), tables.TITLE].notna().all()
    assert (new[windows.ITEM_SINCE] >= case.windows[0][tables.TIME].min()).all()
    assert not case.reference.rows[tables.ITEM].str.startswith("new-").any()
    assert case.champion is None


def test_taste_change_lets_a_third_of_the_users_take_one_category(world: World) -> None:
    case, plain = world.case(0, SHIFT["taste_change"]), world.case(0)
    rows, before = pd.concat(case.windows), pd.concat(plain.windows)
    categories = catalogue().set_index(tables.ITEM)[tables.CATEGORIES].str[0]
    kinds = rows[tables.ITEM].map(categories).groupby(rows[tables.USER]).nunique()
    mixed = before[tables.ITEM].map(categories).groupby(before[tables.USER]).nunique()
    one_kind = (kinds == 1) & (mixed.reindex(kinds.index) > 1)
    assert abs(one_kind.mean() - 1 / 3) < 0.12


def test_doubled_volume_has_twice_as_many_users_a_window(world: World) -> None:
    case = world.case(0, SHIFT["doubled_volume"])
    users = [rows[tables.USER].nunique() for rows in (case.reference.rows, *case.windows)]
    assert users[1] / users[0] == pytest.approx(2, rel=0.1)
    assert users[2] / users[0] == pytest.approx(2, rel=0.1)


def test_half_of_the_users_write_another_language(world: World) -> None:
    case = world.case(0, SHIFT["other_language"])
    titles = catalogue().set_index(tables.ITEM)[tables.TITLE].str.lower()
    reference, rows = case.reference.rows, pd.concat(case.windows)
    assert (reference[tables.TEXT] == reference[tables.ITEM].map(titles)).all()
    plain = rows[tables.ITEM].map(titles)
    turned = rows[tables.TEXT] == plain.str.translate(TURNED)
    assert ((rows[tables.TEXT] == plain) ^ turned).all()
    assert turned.groupby(rows[tables.USER]).first().mean() == pytest.approx(0.5, abs=0.03)
    assert (turned.groupby(rows[tables.USER]).nunique() == 1).all()


def test_grades_rise_by_one_step_and_never_above_the_highest(world: World) -> None:
    plain = pd.concat(world.case(0).windows)[tables.VALUE].to_numpy()
    risen = pd.concat(world.case(0, SHIFT["value_inflation"]).windows)[tables.VALUE].to_numpy()
    assert set(risen - plain) == {0, 1}
    assert risen.max() == 5
    assert (risen > plain)[plain < 5].mean() == pytest.approx(0.5, abs=0.06)


def test_amounts_rise_by_half() -> None:
    rows = interactions()
    amounts = rows.assign(value=np.random.default_rng(0).lognormal(size=len(rows)))
    world = make_world(amounts)
    plain = pd.concat(world.case(0).windows)[tables.VALUE].to_numpy()
    risen = pd.concat(world.case(0, SHIFT["value_inflation"]).windows)[tables.VALUE].to_numpy()
    assert set(np.round(risen / plain, 6)) == {1, 1.5}


def test_a_fifth_of_the_values_is_lost(world: World) -> None:
    case = world.case(0, SHIFT["missing_values"])
    assert pd.concat(case.windows)[tables.VALUE].isna().mean() == pytest.approx(0.2, abs=0.04)
    assert case.reference.rows[tables.VALUE].notna().all()


def test_shifts_without_their_column_are_not_possible(world: World) -> None:
    bare = make_world(interactions(value=np.nan), catalogue(title=pd.Series([None] * ITEMS, dtype="str")))
    impossible = {"value_inflation", "missing_values", "other_language"}
    assert {name for name, shift in SHIFT.items() if not drift.possible(bare, shift)} == impossible
    assert all(drift.possible(world, shift) for shift in SHIFTS)


# Figures


def test_the_check_is_asked_and_finds_what_was_planted(world: World, quiet_evidently: None) -> None:
    same, lost = drift.judge(world.case(0)), drift.judge(world.case(0, SHIFT["missing_values"]))
    assert (same.drift, same.evidently, same.evidently_any) == (False, False, True)
    assert lost.drift
    assert "missing" in lost.signals


def judged(drift_: bool, evidently: bool = False, *signals: str) -> drift.Judged:
    return drift.Judged(drift_, signals, evidently, True, 0.5)


def test_ratios_by_hand() -> None:
    found = {
        drift.SAME: [judged(False), judged(False, True), judged(True, False, "values"), judged(False)],
        "missing_values": [judged(True, True, "missing"), judged(True, False, "missing", "values")],
        "taste_change": [judged(True, False, "text"), judged(False)],
    }
    result = drift.as_result(found, {})
    assert result["ratios"] == {
        "false_alarms": 0.25,
        "shifts_found": 0.75,
        "least_found_shift": 0.5,
        "evidently_false_alarms": 0.25,
        "evidently_shifts_found": 0.25,
        "evidently_any_column_false_alarms": 1.0,
        "evidently_any_column_shifts_found": 1.0,
    }
    assert result["figures"]["missing_values"]["by"] == {"missing": 2, "values": 1}
    assert result["findings"][0] == ("same distribution: 1 of 4 cases called drift; Evidently's defaults 1")


def test_run_is_one_object_for_json(
    world: World, quiet_evidently: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setattr(drift.World, "load", lambda *_: world)
    monkeypatch.setattr(drift, "SHIFTS", [SHIFT["missing_values"]])
    result = drift.run(splits=2, repeats=1)
    assert json.loads(json.dumps(result))["name"] == "drift"
    assert result["figures"][drift.SAME]["cases"] == 2
    assert set(result["figures"]) == {drift.SAME, "missing_values"}
    assert result["conditions"]["users"] == USERS
