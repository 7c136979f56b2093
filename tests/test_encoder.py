from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from pipeline.models.encoder import TextEncoder, tokenize
from pipeline.models.tokens import Tokens, flat


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(str(tiny.encoder(tmp_path_factory.mktemp("encoder") / "bert")), 16)


TEXTS = ["red thing number 1", "blue", "red red red blue thing number 7 8 9", "thing", "blue thing"]


def test_flat_runs_are_laid_end_to_end() -> None:
    assert flat(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


def test_buckets_hold_every_text_once_and_fit_their_size() -> None:
    lengths = np.array([3, 9, 1, 4, 4, 2, 8])
    tokens = Tokens(np.zeros(lengths.sum(), np.int32), np.r_[0, np.cumsum(lengths)], 0.0)
    buckets = list(tokens.buckets(np.arange(7), size=10))
    assert sorted(np.concatenate(buckets).tolist()) == list(range(7))
    assert all(len(b) * lengths[b].max() <= 10 for b in buckets)


def test_vectors_depend_neither_on_padding_nor_on_neighbours(encoder: TextEncoder) -> None:
    together = encoder.vectors(TEXTS)
    alone = np.concatenate([encoder.vectors([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_empty_text_has_a_zero_vector(encoder: TextEncoder) -> None:
    vectors = encoder.vectors(["", "red"])
    assert not vectors[0].any()
    assert vectors[1].any()


def test_no_texts_at_all(encoder: TextEncoder) -> None:
    assert encoder.vectors([]).shape == (0, 16)


@pytest.mark.parametrize("layers", [0, 1])
def test_starting_above_frozen_layers_equals_the_whole_pass(encoder: TextEncoder, layers: int) -> None:
    ids, mask = encoder.tokenize(TEXTS).padded(np.arange(len(TEXTS)), encoder.pad)
    hidden = encoder.lower(ids, mask, layers)
    with torch.no_grad():
        torch.testing.assert_close(encoder(ids, mask, hidden, layers), encoder(ids, mask))
    assert len(encoder.layers) == 2  # put back


def test_unknown_tokens_are_counted_and_warned_of(
    encoder: TextEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokenize(encoder, ["red 電 影", "blue thing"])
    assert tokens.unknown_share == pytest.approx(2 / 5)
    assert "multilingual" in caplog.text


def test_long_texts_are_cut(encoder: TextEncoder) -> None:
    assert encoder.tokenize(["red " * 1000]).lengths.tolist() == [16]


def test_saved_encoder_loads_to_the_same_vectors(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "saved")
    again = TextEncoder.load(str(tmp_path / "saved"), 16)
    before, after = (e.vectors(TEXTS) for e in (encoder, again))
    np.testing.assert_allclose(before, after, atol=2e-3)  # half precision on disk
