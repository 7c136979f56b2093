"""Keywords and names of items' texts: found, compared, told, and nowhere unless they are asked for."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_data as small
import toy_log

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.data.keywords import entities
from pipeline.errors import ConfigError
from pipeline.models.asked import Asked
from pipeline.models.keywords import Keywords
from pipeline.models.kinds import Kinds

with_yake = pytest.mark.skipif(importlib.util.find_spec("yake") is None, reason="needs the extra keywords")
SEA = "An old submarine dives below the ice, and its captain Nemo Land hears a second submarine."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Walk with Emily Short. Ice melts. The Bank of Bern!", ["Emily Short", "The Bank of Bern"]),
        ("Anna runs. \"Bob\" sleeps, and Anna with Bob: Carl too", ["Anna", "Bob"]),
        ("nothing here", []),
    ],
)  # fmt: skip
def test_names_are_capitalised_words_that_do_not_begin_a_sentence(text: str, found: list[str]) -> None:
    assert entities(text) == found


def test_by_default_no_item_has_keywords(prepare: Any) -> None:
    items = prepare(small.ten_days(), small.catalogue([str(n) for n in range(10)], text=SEA))["items"]
    assert not set(tables.WORDS) & set(items)


@with_yake
def test_where_asked_for_each_text_has_its_own(prepare: Any) -> None:
    texts = [SEA, "A garden of roses. A garden without a gardener."] * 5
    given = small.catalogue([str(n) for n in range(10)], text=pd.Series(texts, dtype="str"))
    found = prepare(small.ten_days(), given.assign(keywords="mine"), keywords=8)["items"]
    assert "submarine" in found["keywords"][0]
    assert any("garden" in word for word in found["keywords"][1])
    assert max(map(len, found["keywords"])) <= 8
    assert list(found["entities"][0]) == ["Nemo Land"]
    assert set(found["keywords_raw"]) == {"mine"}


def test_without_the_library_the_remedy_is_told(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yake", None)
    with pytest.raises(ConfigError, match=r"preprocess.keywords: 3: .*set it to 0"):
        prepare(small.ten_days(), keywords=3)


def catalogue() -> Catalogue:
    words = [["submarine", "ice"], ["submarine", "rose"], ["rose"], []]
    names = [["Nemo"], [], ["Nemo"], []]
    return toy_log.catalogue("abcd", keywords=words, entities=names)


def test_a_word_is_no_item_that_has_it_for_its_id() -> None:
    words = Kinds.of(toy_log.catalogue(["a", "b", "rose"], keywords=[["ice"], ["rose"], ["ice"]])).keywords
    assert words is not None
    assert words.shared(np.array([1]), 2) is None  # `rose` is about ice
    assert words.shared(np.array([0]), 2) == ("about ice, like", 0)


def test_shared_words_bring_items_near_and_are_told() -> None:
    found = Kinds.of(catalogue())
    assert found.further == {"keywords": ("keywords_5", "keywords_30")}
    words = found.keywords
    assert words is not None
    points = toy_log.prepared(list("abcd"), [("u", "a", 0)], test=[("u", "b", 1)]).test
    columns = words.columns(Asked(points, 4), np.arange(4, dtype=np.int32)[None])
    assert set(columns) == {"keywords_5", "keywords_30"}
    assert columns["keywords_5"][0, 1] > 0
    assert columns["keywords_5"][0, 3] == 0
    assert words.shared(np.array([0]), 1) == ("about submarine, like", 0)
    assert words.shared(np.array([0, 1]), 2) in [("naming Nemo, like", 0), ("about rose, like", 1)]
    assert words.shared(np.array([0]), 3) is None
    assert found.only(()).keywords is None
    assert Kinds.of(catalogue(), ["ease_5"]).keywords is None  # a model that knows of none
    bare = toy_log.catalogue("abcd")
    assert isinstance(Kinds.of(bare, ["keywords_5", "keywords_30"]).keywords, Keywords)
    assert Kinds.of(bare).keywords is None
