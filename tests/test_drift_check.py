"""The drift check on worlds that stand still, that move, and on tables that are none."""

from __future__ import annotations

import json
from typing import Any

import drifting
import numpy as np
import pandas as pd
import pytest

from pipeline.drift import reference as drift_reference
from pipeline.drift import signals, windows
from pipeline.drift.check import daily


def compare(current: pd.DataFrame, items: pd.DataFrame | None = None, **more: Any) -> dict[str, Any]:
    items = drifting.items() if items is None else items
    return drifting.check(drifting.rows(1), current, items, drifting.settings(), 7, confirm=False, **more)


def flagged(result: dict[str, Any]) -> set[str]:
    return {name for name, signal in result["signals"].items() if signal["flag"]}


def test_a_world_that_stands_still_has_not_drifted() -> None:
    result = compare(drifting.rows(2, name="v"))
    assert (result["outcome"], result["drift"], flagged(result)) == ("ok", False, set())
    assert list(result["signals"]) == list(signals.NAMES)
    assert result["text"].startswith("No drift in the window 2024-01-")
    json.dumps(result, allow_nan=False)


def test_of_still_worlds_few_are_called_drifting() -> None:
    few = drifting.settings(permutations=199)
    found = [
        drifting.check(
            drifting.rows(2 * i), drifting.rows(2 * i + 1), drifting.items(), few, i, confirm=False
        )
        for i in range(20)
    ]
    assert sum(result["drift"] for result in found) <= 3  # 1 expected; 4 or more in 1.6 % of the cases


def new_catalogue(frame: pd.DataFrame) -> pd.DataFrame:
    taken = np.random.default_rng(3).random(len(frame)) < 0.3
    return frame.assign(item_id=frame["item_id"].where(~taken, "n" + frame["item_id"]))


def other_taste(frame: pd.DataFrame) -> pd.DataFrame:
    """A third of the users now like what nobody liked."""
    turned = "i" + (drifting.ITEMS - 1 - frame["item_id"].str[1:].astype(int)).astype(str).str.zfill(2)
    return frame.assign(item_id=frame["item_id"].where(~drifting.thirds(frame), turned).astype("str"))


def twice_as_many(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.assign(user_id="x" + frame["user_id"])], ignore_index=True)


@pytest.mark.parametrize(
    ("move", "named"),
    [
        (new_catalogue, {"new_items", "item_popularity", "missing"}),
        (other_taste, {"item_popularity"}),
        (twice_as_many, {"volume"}),
        (lambda frame: frame.assign(value=np.minimum(frame["value"] + 1, 5)), {"values"}),
        (lambda frame: frame.assign(value=frame["value"].mask(frame.index % 5 == 0)), {"missing"}),
        (lambda frame: frame.assign(event="buy"), {"events"}),
        (lambda frame: pd.concat([frame] * 3, ignore_index=True), {"user_activity", "volume"}),
        (lambda frame: frame.assign(item_id=frame["item_id"].str.replace("i0", "i3")), {"item_popularity"}),
    ],
    ids=["catalogue", "taste", "volume", "values", "missing", "events", "activity", "popularity"],
)
def test_a_move_is_found_and_named(move: Any, named: set[str]) -> None:
    result = compare(move(drifting.rows(2, name="v")))
    assert result["drift"]
    assert named <= flagged(result)
    for name in named:
        assert result["signals"][name]["p_value"] <= 0.05
        assert result["signals"][name]["text"].endswith(": drift")


def test_texts_in_another_language_are_found() -> None:
    english = drifting.items()
    german = english.assign(
        item_id="g" + english["item_id"],
        title=english["title"]
        .str.replace("red", "rotes")
        .str.replace("blue", "blaues")
        .str.replace("thing", "Ding"),
    )
    current = drifting.rows(2, name="v")
    taken = np.random.default_rng(3).random(len(current)) < 0.5
    current = current.assign(item_id=current["item_id"].where(~taken, "g" + current["item_id"]))
    assert "text" in flagged(compare(current, pd.concat([english, german], ignore_index=True)))


def test_the_rows_own_texts_are_compared_too() -> None:
    old, new = (drifting.rows(seed, name=name) for seed, name in ((1, "u"), (2, "v")))
    draw = np.random.default_rng(1)

    def written(frame: pd.DataFrame, words: list[str]) -> pd.DataFrame:
        return frame.assign(text=[" ".join(draw.choice(words, 4)) for _ in range(len(frame))])

    english, german = ["the", "film", "was", "good", "bad", "long"], ["der", "Film", "war", "gut", "schlecht"]
    old = written(old, english)
    same = drifting.check(old, written(new, english), None, drifting.settings(), 7, confirm=False)
    other = drifting.check(old, written(new, german), None, drifting.settings(), 7, confirm=False)
    assert "text" not in flagged(same)
    assert "text" in flagged(other)
    assert "the rows' texts" in other["signals"]["text"]["text"]


def test_one_heavy_user_decides_nothing() -> None:
    current = drifting.rows(2, name="v")
    heavy = current.head(1).assign(item_id="i39", event="buy", value=1.0)
    heavy = pd.concat([heavy] * len(current), ignore_index=True)
    result = compare(pd.concat([current, heavy], ignore_index=True))
    assert not flagged(result) & set(signals.SOFT) - {"volume"}


def test_same_input_same_result_and_order_of_rows_does_not_matter() -> None:
    current = drifting.rows(2, name="v")
    assert compare(current) == compare(current)
    shuffled = compare(current.sample(frac=1, random_state=3))
    values = {name: signal["value"] for name, signal in compare(current)["signals"].items()}
    for name, value in values.items():
        assert shuffled["signals"][name]["value"] == pytest.approx(value, abs=0.02), name


# Windows and confirmation


def stream(*parts: pd.DataFrame) -> tuple[drift_reference.Reference, pd.DataFrame]:
    """A reference of 20 days and what follows: each part begins 5 days after the one before."""
    rows = windows.with_since(pd.concat([drifting.rows(1), *parts], ignore_index=True))
    end = drifting.START + pd.Timedelta(days=20.1)
    rows = rows.sort_values("timestamp", ignore_index=True)
    return drift_reference.make(rows, end, drifting.settings()), rows[rows["timestamp"] > end]


def part(number: int, move: Any = lambda frame: frame) -> pd.DataFrame:
    seed = 10 + number
    return move(drifting.rows(seed, users=30, first_day=21 + 6 * number, days=5, name=f"p{number}u"))


def dear(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=5.0)


def one_a_part() -> Any:
    return drifting.settings(min_rows=260, min_users=25, window_days=5.9)


def streamed(*moves: Any, shown: int = 2, **settings: Any) -> dict[str, Any]:
    reference, current = stream(*(part(number, move) for number, move in enumerate(moves)))
    rule = one_a_part().model_copy(update=settings)
    return drifting.check(reference, current, drifting.items(), rule, 7, shown=shown)


def third_empty(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=frame["value"].mask(frame.index % 3 == 0))


def still(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def test_a_soft_flag_counts_in_two_windows_in_a_row() -> None:
    one = streamed(still, still, dear, still)["signals"]["values"]  # the last part closes the third window
    assert (one["flag"], one["previous"], one["confirmed"]) == (True, False, False)
    assert "not in the window before" in one["text"]
    both = streamed(still, dear, dear, still)
    assert both["drift"]
    two = both["signals"]["values"]
    assert (two["flag"], two["previous"], two["confirmed"], two["kind"]) == (True, True, True, "soft")
    assert "drift, confirmed by the window before (2024-01-28 to 2024-02" in two["text"]


def test_one_window_alone_confirms_nothing() -> None:
    one = streamed(dear, still)
    assert len(one["windows"]) == 1
    assert one["signals"]["values"]["flag"]
    assert (one["signals"]["values"]["previous"], one["drift"]) == (None, False)


def test_a_hard_flag_counts_at_once() -> None:
    result = streamed(still, third_empty, still)
    missing = result["signals"]["missing"]
    assert (missing["flag"], missing["confirmed"], missing["kind"]) == (True, True, "hard")
    assert result["drift"]
    assert missing["text"].startswith("Rows without value: 3")


def test_every_window_is_listed_and_the_newest_two_are_tested() -> None:
    result = streamed(still, still, still, still)
    assert [bool(window["signals"]) for window in result["windows"]] == [False, True, True]
    assert sum(window["rows"] for window in result["windows"]) < result["rows_since_fit_end"]
    assert result["rows_fitted"] == len(drifting.rows(1))
    assert set(result["windows"][-1]["signals"]["values"]) == {"value", "p_value", "flag"}


def test_older_windows_are_tested_where_that_is_asked_for_and_cheap() -> None:
    result = streamed(dear, still, still, still, shown=8)
    assert [window["signals"]["values"]["flag"] for window in result["windows"]] == [True, False, False]
    assert not result["signals"]["values"]["confirmed"]  # the verdict stays that of the newest two
    costly = streamed(still, still, still, still, shown=8, current_rows=300)
    assert [bool(window["signals"]) for window in costly["windows"]] == [False, True, True]


def test_new_users_and_items_are_those_not_met_before_the_window() -> None:
    result = streamed(still, still, still)
    assert "new users 100 %" in result["signals"]["new_users"]["text"]
    alone = compare(drifting.rows(2))  # two bare tables do not say when a user was first met
    assert alone["signals"]["new_users"]["text"].startswith("Not tested")


def test_no_closed_window_is_not_enough_data() -> None:
    result = streamed(still)
    assert (result["outcome"], result["drift"], result["signals"]) == ("not_enough_data", False, {})
    assert "Not enough new data for a window" in result["text"]
    assert result["rows_since_fit_end"] > 0


def test_too_small_tables_are_not_enough_data() -> None:
    few = compare(drifting.rows(2).head(150))
    assert (few["outcome"], few["drift"]) == ("not_enough_data", False)
    assert "150 rows" in few["text"]
    empty = drift_reference.make(drifting.rows(1), drifting.START - pd.Timedelta(days=9), drifting.settings())
    assert (
        drifting.check(empty, drifting.rows(2), None, drifting.settings(), 1)["outcome"] == "not_enough_data"
    )


# Malformed tables

MALFORMED: dict[str, tuple[Any, str]] = {
    "no column": (lambda frame: frame.drop(columns="item_id"), "current: no column item_id"),
    "no rows": (lambda frame: frame.head(0), "current: no rows"),
    "no table": (lambda frame: None, "current: no table"),
    "no times": (lambda frame: frame.assign(timestamp=pd.NaT), "column timestamp: empty cells"),
    "words for times": (lambda frame: frame.assign(timestamp="soon"), "current: "),
    "words for values": (lambda frame: frame.assign(value="much"), "current: "),
    "all values empty": (lambda frame: frame.assign(value=np.nan), "column value: every cell is empty"),
    "infinite values": (lambda frame: frame.assign(value=np.inf), "column value: infinite"),
    "empty ids": (lambda frame: frame.assign(user_id=""), "column user_id: empty id"),
    "no ids": (lambda frame: frame.assign(user_id=None), "column user_id: empty cells"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_table_is_an_outcome_of_its_own(name: str) -> None:
    spoil, said = MALFORMED[name]
    for result in (
        compare(spoil(drifting.rows(2, name="v"))),
        drifting.check(
            drifting.rows(1), spoil(drifting.rows(2)), drifting.items(), drifting.settings(), 7, confirm=True
        ),
    ):
        assert (result["outcome"], result["drift"], result["signals"]) == ("bad_input", False, {})
        assert said in result["text"]
        json.dumps(result, allow_nan=False)


def test_a_malformed_reference_or_items_table_too() -> None:
    for old in (None, drifting.rows(1).drop(columns="value"), drifting.rows(1).head(0)):
        assert (
            drifting.check(old, drifting.rows(2), None, drifting.settings(), 1, confirm=False)["outcome"]
            == "bad_input"
        )  # type: ignore[arg-type]
    assert compare(drifting.rows(2), pd.DataFrame({"sku": ["a"]}))["outcome"] == "bad_input"


def test_a_column_that_is_gone_or_changed_is_a_hard_flag() -> None:
    old, new = drifting.rows(1).assign(price=1.0, shop="a"), drifting.rows(2, name="v").assign(price="1 EUR")
    schema = drifting.check(old, new, None, drifting.settings(), 7, confirm=False)["signals"]["schema"]
    assert (schema["flag"], schema["p_value"], schema["value"]) == (True, None, 2)
    assert "column shop is gone" in schema["text"].lower()
    assert "column price holds texts (reference numbers)" in schema["text"]
    fine = drifting.check(
        old, new.assign(price=2, shop="b", more=1), None, drifting.settings(), 7, confirm=False
    )
    assert not fine["signals"]["schema"]["flag"]


def test_constant_columns_and_missing_items_are_not_tested() -> None:
    old, new = (drifting.rows(seed).assign(value=1.0) for seed in (1, 2))
    result = drifting.check(old, new, None, drifting.settings(), 7, confirm=False)
    for name in ("values", "categories", "text", "embedding", "quality", "scores", "coverage"):
        signal = result["signals"][name]
        assert (signal["value"], signal["p_value"], signal["flag"]) == (None, None, False)
        assert signal["text"].startswith("Not tested: ")


def test_values_that_never_were_may_stay_away() -> None:
    old, new = (drifting.rows(seed).assign(value=np.nan) for seed in (1, 2))
    result = drifting.check(old, new, None, drifting.settings(), 7, confirm=False)
    assert result["outcome"] == "ok"
    assert not result["signals"]["missing"]["flag"]


def test_daily_counts_are_of_whole_days_from_the_first_row() -> None:
    frame = drifting.rows(1)
    hours = [0, 1, 23.9, 24, 47, 71.7]  # the third day is nearly whole
    frame = frame.head(6).assign(timestamp=[drifting.START + pd.Timedelta(hours=hour) for hour in hours])
    frame = frame.assign(user_id=list("aabcda"))
    assert daily(frame).counts.tolist() == [[3, 2], [2, 2], [1, 1]]
    assert daily(frame.head(2)).counts.tolist() == []


def test_a_distance_below_chance_is_told_as_none() -> None:
    assert "-" not in signals.apart(-0.015) + signals.differs(-0.015)
    assert signals.apart(0.015) == "distributions 1.5 points further apart than random halves"
