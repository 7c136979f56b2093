"""Re-ranking with exposure floors: kept exactly, at the lowest places, and priced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import test_fairness as fair
from constant import ConstantScorer

from pipeline.data.item_groups import groupings
from pipeline.documents.fairness import Floor
from pipeline.errors import ConfigError
from pipeline.evaluation.floor_prices import prices
from pipeline.models.floors import below, members, picked, reranked

ATTENTION = 1 / np.log2(2 + np.arange(10))
RARE = np.r_[np.zeros(20), np.ones(10), 0][:, None]  # items 20 to 29; the last row is no item


def relisted(floor: float, pool: np.ndarray | None = None) -> np.ndarray:
    pool = np.arange(30)[None] if pool is None else pool
    return picked(pool, reranked(pool, RARE, np.array([floor]), 10), -1)[0]


@pytest.mark.parametrize("floor", [0.01, 0.1, 0.2, 0.5, 1.0])
def test_a_list_gives_a_group_its_floor_and_hardly_more(floor: float) -> None:
    listed = relisted(floor)
    share = ATTENTION[listed >= 20].sum() / ATTENTION.sum()
    assert floor - 1e-9 <= share <= floor + ATTENTION[0] / ATTENTION.sum()
    assert len(set(listed)) == 10
    others = listed[listed < 20]
    assert others.tolist() == sorted(others)  # else best first
    assert floor > 0.5 or listed[:3].tolist() == [0, 1, 2]  # it costs the lowest places first


def test_a_list_that_has_its_share_stays_as_it_is() -> None:
    pool = np.r_[20, np.arange(20), np.arange(21, 30)][None]
    assert relisted(0.2, pool).tolist() == pool[0, :10].tolist()


def test_a_pool_without_enough_of_the_group_gives_what_it_has() -> None:
    assert sorted(relisted(0.5, np.arange(21)[None]).tolist()) == [*range(9), 20]
    assert relisted(0.5, np.array([[3, 1, -1, -1]])).tolist() == [3, 1, *[-1] * 8]
    lists = np.stack([relisted(0.5), relisted(0.5, np.arange(21)[None]), relisted(0.5, np.arange(3)[None])])
    assert below(lists, RARE, np.array([0.5])) == 2


def test_two_floors_are_kept_at_once() -> None:
    shares = np.zeros((31, 2))
    shares[20:25, 0], shares[25:30, 1] = 1, 1
    pool = np.arange(30)[None]
    listed = picked(pool, reranked(pool, shares, np.array([0.1, 0.2]), 10), -1)[0]
    for group, floor in enumerate((0.1, 0.2)):
        assert ATTENTION[shares[listed, group] > 0].sum() / ATTENTION.sum() >= floor


def test_groups_that_are_not_there_are_named() -> None:
    found = groupings(fair.catalogue(), np.ones(8))
    with pytest.raises(ConfigError, match=r"floors\.colour: no such group of items: popularity, cat"):
        members({"colour": {"red": 0.1}}, found)
    with pytest.raises(ConfigError, match=r"exposure_floors\.categories\.z: no such group of items: x, y"):
        members({"categories": {"z": 0.1}}, found)
    with pytest.raises(ConfigError, match=r"together 1\.1 of a list"):
        members({"categories": {"x": 0.6, "y": 0.5}}, found)


def test_the_price_is_what_the_lists_lose() -> None:
    asked = replace(fair.question(), groups={})
    model = ConstantScorer("fixed", np.array([8, 7, 6, 0, 1, 2, 5, 4], np.float32))  # a b c g h f e d
    rows = {row["floor"]: Floor.of(row) for row in prices(asked, model, {"categories": {"y": 0.9}})}
    told = rows["categories: y (as set)"]
    assert told.least == 0.9
    assert told.after is not None
    assert told.before is not None
    assert told.after > told.before
    assert told.ndcg is not None
    assert told.low <= told.ndcg <= told.high  # type: ignore[operator]
    assert "categories: y" in rows or "popularity: cold" in rows  # what is shown less than it is taken
