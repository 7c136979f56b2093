from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.models.bert import Bert
from pipeline.models.encoder import TextEncoder
from pipeline.models.erasure import Erasure
from pipeline.models.recommender import question_encoder
from pipeline.params import Params

TEXTS = ["red thing number 1", "", "Blue", "red " * 40, "thing, number-7!  unheard of 電", "a"]


def saved(encoder: TextEncoder, folder: Path) -> TextEncoder:
    """Read again, so that both have the weights of the disk."""
    encoder.save(folder)
    return TextEncoder.load(str(folder), encoder.max_length)


def assert_same(folder: Path, encoder: TextEncoder) -> None:
    bert = Bert.load(folder, encoder.max_length)
    assert bert is not None
    np.testing.assert_allclose(bert.vectors(TEXTS), encoder.vectors(TEXTS), atol=2e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_the_encoder(tmp_path: Path, pooling: str) -> None:
    encoder = TextEncoder.load(str(tiny.encoder(tmp_path / "tiny")), 16)
    encoder.pooling = pooling
    assert_same(tmp_path / "saved", saved(encoder, tmp_path / "saved"))


def test_so_are_those_of_the_delivered_encoder(tmp_path: Path) -> None:
    settings = Params.load(Path("params.yaml")).finetune
    encoder = saved(TextEncoder.load(settings.encoder, settings.max_length), tmp_path)
    assert_same(tmp_path, encoder)
    bert = Bert.load(tmp_path, settings.max_length)
    assert bert is not None
    many = [f"{text} {number}" for number in range(20) for text in TEXTS]  # more than are read at once
    np.testing.assert_allclose(bert.vectors(many), encoder.vectors(many), atol=2e-6)


def test_what_is_erased_is_not_in_them(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(tiny.encoder(tmp_path / "tiny")), 16)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, encoder.width))
    encoder.erasure = Erasure.fit(x, (x[:, :1] > 0).astype(float))
    assert_same(tmp_path / "saved", saved(encoder, tmp_path / "saved"))


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json", "model.safetensors"])
def test_another_model_or_a_damaged_one_is_left_to_torch(tmp_path: Path, broken: str) -> None:
    TextEncoder.load(str(tiny.encoder(tmp_path / "tiny")), 16).save(tmp_path / "encoder")
    assert isinstance(question_encoder(tmp_path, {"max_length": 16}), Bert)
    config = tmp_path / "encoder/config.json"
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    assert isinstance(question_encoder(tmp_path, {"max_length": 16}), TextEncoder)
    (tmp_path / "encoder" / broken).write_text("{")
    assert Bert.load(tmp_path / "encoder", 16) is None
