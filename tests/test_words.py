"""Words shared by a typed text and items' texts."""

from __future__ import annotations

import numpy as np

from pipeline.models.words import Words

TEXTS = [f"the tale of number {n}" for n in range(20)] + ["the heist in Prague", "", "the Prague tale"]


def test_rare_words_bring_closer_than_common_ones() -> None:
    words = Words.of(TEXTS)
    closeness = words.closeness("the tale of a heist in Prague!")
    assert closeness.argmax() == 20
    assert closeness[22] > closeness[0] > 0
    assert closeness[21] == 0


def test_words_that_say_nothing_find_nothing() -> None:
    words = Words.of(["That Thing You Do!", "Get on the Bus", "Romance"])
    np.testing.assert_array_equal(words.closeness("that romance on a ship") > 0, [False, False, True])


def test_shared_words_are_the_rare_ones_strongest_first() -> None:
    words = Words.of(TEXTS)
    assert words.shared("the heist of Prague!", 20) == ["heist", "prague"]
    assert words.shared("the tale of a heist", 0) == []  # most texts are tales: no reason
    assert words.shared("nothing alike", 20) == []


def test_texts_without_words_are_far_from_everything() -> None:
    words = Words.of(["", "..."])
    np.testing.assert_array_equal(words.closeness("the heist"), [0, 0])
    assert words.shared("the heist", 0) == []
