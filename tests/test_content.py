import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import toy_log

from pipeline.models import baselines
from pipeline.models.content import Content, VectorScorer, category_matrix
from pipeline.models.modalities import Modality
from pipeline.models.text import Space

CATEGORIES = [["x", "y"], ["y"], ["y", "x", "x"], [], ["z"], ["y", "z"]]


def content(categories: list[list[str]]) -> Content:
    ids = [f"i{number}" for number in range(len(categories))]
    return Content.of(category_matrix(toy_log.catalogue(ids, categories=categories)))


def test_categories_count_once_and_in_any_order() -> None:
    matrix = category_matrix(toy_log.catalogue(list("abcdef"), categories=CATEGORIES))
    wanted = [[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert matrix.toarray().tolist() == wanted
    found = content(CATEGORIES)
    assert found.set_of[0] == found.set_of[2]
    assert found.set_of[3] == -1


def test_content_is_the_weighted_mean_of_jaccard_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sp.csr_matrix(np.array([[1, 0, 0, 1, 0.5, 0]], np.float32))  # {x, y}, none, {z}
    # To {x, y}: 1, 1/2, 1, -, 0, 1/3; to {z}: 0, 0, 0, -, 1, 1/2.
    wanted = [1 / 1.5, 0.5 / 1.5, 1 / 1.5, np.nan, 0.5 / 1.5, (1 / 3 + 1 / 4) / 1.5]
    np.testing.assert_allclose(content(CATEGORIES).score(weights)[0], wanted, rtol=1e-6)
    monkeypatch.setattr(baselines, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(content(CATEGORIES).score(weights)[0], wanted, rtol=1e-6)


def test_content_scores_nothing_without_categories_in_the_history() -> None:
    weights = sp.csr_matrix(np.array([[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], np.float32))
    assert np.isnan(content(CATEGORIES).score(weights)).all()


@pytest.mark.parametrize("categories", [[[], []], None], ids=["empty lists", "no column"])
def test_content_of_a_catalogue_without_categories_scores_nothing(categories: list[list[str]] | None) -> None:
    columns = {} if categories is None else {"categories": categories}
    found = Content.of(category_matrix(toy_log.catalogue(["a", "b"], **columns)))
    assert np.isnan(found.score(sp.csr_matrix(np.ones((1, 2), np.float32)))).all()


def test_vectors_are_centred_before_they_are_compared() -> None:
    # All texts share a large first coordinate; what tells them apart is the second.
    vectors = np.array([[9, 1], [9, 1.5], [9, -1], [0, 0], [9, -1.5]], np.float32)
    scorer = VectorScorer.of(vectors)
    scores = scorer.score(sp.csr_matrix(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]], np.float32)))
    np.testing.assert_allclose(scores[0], [1, 1, -1, np.nan, -1], atol=1e-6)
    assert np.isnan(scores[1]).all()


def test_vectors_of_a_catalogue_without_text_score_nothing() -> None:
    scorer = VectorScorer.of(np.zeros((3, 4), np.float32))
    assert np.isnan(scorer.score(sp.csr_matrix(np.ones((1, 3), np.float32)))).all()


@pytest.mark.parametrize("items", [3, 10, 240, 1000])
def test_vectors_that_are_all_alike_say_nothing(items: int) -> None:
    """Else the rounding of their mean would be a direction, in which each is just like every other."""
    vectors = np.random.default_rng(0).normal(size=384).astype(np.float32)[None].repeat(items, axis=0)
    assert not VectorScorer.of(vectors).vectors.any()
    assert Space.of(vectors) is None
    assert not Modality.of("flat", pd.Series(vectors.tolist())).vectors.any()
    vectors[1] *= 2  # one other is enough
    assert Space.of(vectors) is not None
