"""`evergreen bench text`: what is held back is asked for, and nothing of it is left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import toy_log

from pipeline.bench import text as bench
from pipeline.data.histories import Prepared
from pipeline.errors import DataError
from pipeline.params import Params

NAMES = ("anchor", "beacon", "cellar", "dragon")


def prepared() -> Prepared:
    texts = [
        f"Here is the {name} of one. It has more of it than others, says the {name}! Is it {name}?"
        for name in NAMES
    ]
    columns = {"title": [None] * 4, "text": texts, "item_text": texts, "year": [None] * 4}
    items = toy_log.catalogue("abcd", **columns, categories=[[]] * 4)
    return toy_log.prepared(items, [("u", "a", 1)], test=[("u", "b", 2)])


@pytest.mark.parametrize("half", [True, False])
def test_sentences_are_either_typed_or_left(half: bool) -> None:
    world = prepared()
    for case in bench.cases(world, 4, half):
        parts = bench.sentences(world.catalogue.items["text"][case.place])
        typed, left = bench.sentences(case.typed), bench.sentences(case.left)
        assert sorted(typed + left) == sorted(parts)
        assert len(typed) == 1
        if not half:
            assert len(case.typed.split()) >= bench.LEAST_WORDS


def test_too_few_descriptions_are_refused() -> None:
    with pytest.raises(DataError, match="4 descriptions of 3 sentences, 5 wanted"):
        bench.cases(prepared(), 5, False)


def test_a_work_is_found_by_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(texts: list[str]) -> np.ndarray:
        return np.array([[name in text for name in NAMES] for text in texts], np.float32) + 0.1

    monkeypatch.setattr(bench, "K", 1)
    world, params = prepared(), Params.load(bench.Path("params.yaml"))
    items = world.catalogue.items
    encoder, asked = SimpleNamespace(vectors=vectors), bench.cases(world, 4, False)
    told = bench.found(world, vectors(items["item_text"]), asked, encoder, params)  # type: ignore[arg-type]
    assert told["both"] == told["words"] == told["meaning"] == 1
    assert 0.3 < told["low"] < told["high"] == 1
