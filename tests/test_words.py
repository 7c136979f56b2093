"""Words shared by a typed text and items' texts."""

from __future__ import annotations

import numpy as np

from pipeline.models.words import Words

TEXTS = [f"the tale of number {n}" for n in range(20)] + ["the heist in Prague", "", "the Prague tale"]


def test_rare_words_bring_closer_than_common_ones() -> None:
    words = Words.of(TEXTS)
    closeness = words.typed("the tale of a heist in Prague!").closeness()
    assert closeness.argmax() == 20
    assert closeness[22] > closeness[0] > 0
    assert closeness[21] == 0


def test_closeness_is_the_library_s_bm25_as_a_share() -> None:
    words = Words.of(TEXTS)
    assert words.index is not None
    closeness = words.typed("a heist, the tale of a heist").closeness()
    known = [words.index.vocab_dict[word] for word in ("heist", "tale", "heist")]
    expected = words.index.get_scores(known)
    np.testing.assert_allclose(closeness / closeness.max(), expected / expected.max(), rtol=1e-5)
    assert closeness.max() < 1


def test_words_that_say_nothing_find_nothing() -> None:
    words = Words.of(["That Thing You Do!", "Get on the Bus", "Romance"])
    np.testing.assert_array_equal(words.typed("that romance on a ship").closeness() > 0, [False, False, True])


def test_shared_words_are_the_rare_ones_strongest_first() -> None:
    words = Words.of(TEXTS)
    assert words.typed("the heist of Prague!").shared(20) == ["heist", "prague"]
    assert words.typed("the tale of a heist").shared(0) == []  # most texts are tales: no reason
    assert words.typed("nothing alike").shared(20) == []


def test_texts_without_words_are_far_from_everything() -> None:
    words = Words.of(["", "..."])
    np.testing.assert_array_equal(words.typed("the heist").closeness(), [0, 0])
    assert words.typed("the heist").shared(0) == []


def test_what_a_hyphen_joins_is_one_word_however_it_is_typed() -> None:
    words = Words.of(["Sunset Blvd. Film-Noir", "Space Jam. Sci-Fi", "a film about a choice", "Choice-based"])

    def found(text: str) -> list[bool]:
        return (words.typed(text).closeness() > 0).tolist()

    assert found("a film") == [False, False, True, False]
    assert found("Film-Noir") == [True, False, False, False]
    assert found("film noir") == [True, False, True, False]
    assert found("sci-fi") == found("some sci fi") == [False, True, False, False]
    assert found("choice-less") == [False, False, True, False]  # no text has it, one has a part of it
