"""What the champion makes of new data, with a champion that only knows what was popular."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import drifting
import numpy as np
import pandas as pd
import pytest

from pipeline.data.histories import Catalogue, Points, make_log
from pipeline.drift import champion, windows
from pipeline.drift import reference as drift_reference
from pipeline.models.preparation import successes
from pipeline.params import Positive

FIT_END, PROMOTED = drifting.START + pd.Timedelta(days=20.1), drifting.START + pd.Timedelta(days=40.1)


class Popular:
    """Scores an item by its rows before fit_end."""

    name = "champion"

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self.asked = 0

    def score(self, points: Points) -> np.ndarray:
        self.asked += len(points)
        return np.tile(self.counts.astype(np.float32), (len(points), 1))


def turned(frame: pd.DataFrame) -> pd.DataFrame:
    """What was popular is rare."""
    item = "i" + (drifting.ITEMS - 1 - frame["item_id"].str[1:].astype(int)).astype(str).str.zfill(2)
    return frame.assign(item_id=item.astype("str"))


def world(newest: pd.DataFrame) -> tuple[champion.Champion, pd.DataFrame]:
    """20 days to fit, 20 days of the champion's own test, then `newest`."""
    old, test = drifting.rows(1, name="u"), drifting.rows(2, first_day=20.2, days=19, name="v")
    rows = pd.concat([old, test, newest], ignore_index=True).sort_values("timestamp", ignore_index=True)
    rows = rows.assign(positive=True, fit=True)
    catalogue = Catalogue.of(drifting.items())
    log = make_log([rows], catalogue, np.unique(rows["user_id"].to_numpy(dtype=object)))
    counts = np.bincount(log.item[log.time <= FIT_END.value // 1000], minlength=len(catalogue))
    model = champion.Champion(Popular(counts), catalogue, log, None, FIT_END, PROMOTED, "v1.0.0")
    return model, windows.with_since(rows)


def judged(newest: pd.DataFrame) -> dict[str, Any]:
    """Of the newest rows alone: one window after the champion's test window."""
    model, rows = world(newest)
    current = rows[rows["timestamp"] > PROMOTED]
    reference = drift_reference.make(rows, FIT_END, drifting.settings())
    return drifting.check(reference, current, drifting.items(), drifting.settings(), 7, model, confirm=False)


def test_a_champion_that_finds_less_has_lost_quality() -> None:
    result = judged(turned(drifting.rows(3, first_day=41, name="w")))
    quality = result["signals"]["quality"]
    assert (quality["flag"], quality["kind"], quality["confirmed"]) == (True, "hard", True)
    assert -1 <= quality["value"] < -0.3
    assert quality["p_value"] < 0.05
    assert quality["text"].startswith("nDCG@10 of the champion 0.")
    assert result["champion"] == "v1.0.0"


def test_a_champion_that_finds_as_much_has_not() -> None:
    result = judged(drifting.rows(3, first_day=41, name="w"))
    assert not any(result["signals"][name]["flag"] for name in ("quality", *champion.NAMES))
    assert result["signals"]["quality"]["p_value"] is not None


def test_quality_is_the_difference_of_means_over_users() -> None:
    model, _ = world(drifting.rows(3, first_day=41, name="w"))
    behaviour = champion.Behaviour(model, 10_000)
    old, new = behaviour.window(PROMOTED, PROMOTED + pd.Timedelta(days=30))
    means = [pd.Series(lists.ndcg).groupby(lists.user).mean().mean() for lists in (old, new)]
    found = champion.quality(old, new, 1)
    assert (found.reference, found.current) == pytest.approx(tuple(means))


def test_what_was_known_at_promotion_says_nothing_new() -> None:
    model, _ = world(drifting.rows(3, first_day=41, name="w"))
    behaviour = champion.Behaviour(model, 300)
    assert "was evaluated on these rows" in behaviour.window(FIT_END, PROMOTED)
    _, new = behaviour.window(
        FIT_END, PROMOTED + pd.Timedelta(days=30)
    )  # begins before: the later part counts
    after = {int(user) for user in np.unique(model.log.user[model.log.time > PROMOTED.value // 1000])}
    assert set(new.user) <= after
    assert "only 0 points" in behaviour.window(PROMOTED, PROMOTED + pd.Timedelta(seconds=1))


def test_points_are_few_a_user_few_in_all_and_the_same_again() -> None:
    model, _ = world(drifting.rows(3, first_day=41, name="w"))
    for most in (60, 10_000):
        chosen = champion.Behaviour(model, most)._points(FIT_END.value // 1000, PROMOTED.value // 1000)
        again = champion.Behaviour(model, most)._points(FIT_END.value // 1000, PROMOTED.value // 1000)
        assert np.array_equal(chosen.time, again.time)
        assert len(chosen) <= most
        assert np.bincount(chosen.user).max() <= 20
    met = model.log.successes(model.log.time > 0)
    pairs = set(zip(met.user.tolist(), met.target.tolist(), met.time.tolist(), strict=True))
    assert set(zip(chosen.user.tolist(), chosen.target.tolist(), chosen.time.tolist(), strict=True)) <= pairs


def test_items_that_are_not_offered_are_no_points() -> None:
    model, _ = world(drifting.rows(3, first_day=41, name="w"))
    table = drifting.items().assign(available_until=drifting.START)
    closed = champion.Champion(model.model, Catalogue.of(table), model.log, None, FIT_END, PROMOTED)
    assert len(champion.Behaviour(closed, 300).reference.user) == 0


def lists(user: list[int], listed: list[list[int]], score: list[float]) -> champion.Lists:
    return champion.Lists(np.array(user), np.array(listed), np.array(score), np.zeros(len(user)))


def test_scores_coverage_and_popularity_by_hand() -> None:
    behaviour: Any = SimpleNamespace(popularity=np.array([9, 5, 1, 0]))
    old = lists([0, 1], [[0, 1], [0, 1]], [1.0, 1.0])
    new = lists([2, 3], [[0, 2], [1, 3]], [2.0, np.nan])
    blocks, found = champion.signals(behaviour, old, new)
    assert blocks.tolist() == [False, False, True, True]

    def sides(name: str) -> tuple[np.ndarray, np.ndarray]:
        sums = found[name].part.sums  # type: ignore[union-attr]
        sums = sums.toarray() if hasattr(sums, "toarray") else sums
        return sums[~blocks].sum(axis=0, keepdims=True), sums[blocks].sum(axis=0, keepdims=True)

    def statistic(name: str) -> float:
        return float(found[name].part.statistic(*sides(name))[0])  # type: ignore[union-attr]

    assert statistic("scores") == 1  # all 1 against all 2; what was not scored is left out
    assert statistic("coverage") == pytest.approx((4 - 2) / 4)  # of 4 items, 2 lists of 2 show 2 and 4
    # Percentiles .875 .625 .375 .125: lists (.75, .75) against (.625, .375).
    assert statistic("list_popularity") == pytest.approx(0.75 - 0.5)


def test_success_is_the_event_and_of_rows_with_a_value_enough() -> None:
    frame = pd.DataFrame({"event": ["buy", "buy", "view", "buy"], "value": [4.0, 3.0, 5.0, np.nan]})
    assert successes(frame, Positive(events=None, min_value=4)).tolist() == [True, False, True, True]
    assert successes(frame, Positive(events=["buy"], min_value=4)).tolist() == [
        True,
        False,
        False,
        True,
    ]
    assert successes(frame, Positive(events=None, min_value=None)).all()
