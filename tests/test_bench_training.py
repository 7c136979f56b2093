"""The benches of training and encoding on a tiny world; the figures themselves are in docs/log.md."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.bench import encode, evaluate, training
from pipeline.errors import ConfigError, DataError
from pipeline.params import Params
from pipeline.stages import preprocess


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.raw(folder / "raw")
    tiny.params(folder / "params.yaml", tiny.encoder(folder / "encoder"), encode_per_step=8)
    preprocess.main(folder / "raw", folder / "prepared", folder / "params.yaml")
    return folder


def test_every_way_is_measured_and_counts_what_it_encodes(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    for name, value in {"SEEDS": 1, "STEPS": 2, "EVERY": 1, "MEASURED": 1, "MEASURED_NAIVE": 1}.items():
        monkeypatch.setattr(training, name, value)
    found = training.run(world / "prepared")
    json.dumps(found, allow_nan=False)
    encoded = {name: row["encoded_per_step"] for name, row in found["figures"].items()}
    assert encoded["default"] == encoded["default_10x_catalogue"] == 8
    assert 8 < encoded["exact"] <= 24 < encoded["naive"]
    assert found["figures"]["naive"]["item_reuse"] == 1
    assert found["conditions"]["seeds"] == len(found["findings"]) == 1


def test_what_is_cached_trains_in_the_precision_of_the_pipeline(world: Path) -> None:
    settings = Params.load(world / "params.yaml").finetune.model_copy(update={"precision": "bf16-mixed"})
    found = {name: way.precision for name, way in training.ways(settings).items()}
    assert found == {
        "default": "bf16-mixed",
        "cached_all_layers": "bf16-mixed",
        "exact": "32-true",
        "naive": "32-true",
    }
    small = training.World.load(world / "prepared", settings, 1)
    row = training.speed(small, training.ways(settings)["default"])
    assert row["encoded_per_step"] == 8


def test_a_larger_catalogue_keeps_every_text_and_every_history(world: Path) -> None:
    params = Params.load(world / "params.yaml")
    small = training.World.load(world / "prepared", params.finetune, params.seed)
    large = small.larger(3, np.random.default_rng(0))
    items = len(small.tokens)
    assert len(large.tokens) == 3 * items
    np.testing.assert_array_equal(large.train.log.item % items, small.train.log.item)
    np.testing.assert_array_equal(large.train.target % items, small.train.target)
    assert len(np.unique(large.train.target)) > len(np.unique(small.train.target))
    last = large.tokens.ids[large.tokens.offsets[-2] :]
    np.testing.assert_array_equal(
        last, small.tokens.ids[small.tokens.offsets[items - 1] : small.tokens.offsets[items]]
    )


def test_without_its_peer_the_bench_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sentence-transformers is not installed: run"):
        encode.run(None)


def test_encoding_is_compared_with_its_peer_and_its_limit(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setattr(encode, "ROUNDS", 1)
    vectors = np.eye(3)
    monkeypatch.setattr(encode.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(
        encode, "peer", lambda settings, encoder, texts: encode.ways(encoder, texts)["float32"]
    )
    found = encode.run(world / "raw")
    json.dumps(found, allow_nan=False)
    assert found["figures"]["float32"]["cosine"] == pytest.approx(1)
    assert found["figures"]["limit"]["texts_per_second"] > 0
    assert encode.cosine(vectors, 2 * vectors).tolist() == [1, 1, 1]


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    settings = Params.load(Path("params.yaml")).finetune
    with pytest.raises(DataError, match="neither prepared nor raw data"):
        encode.some_texts(tmp_path, seed=1)
    with pytest.raises(DataError, match="neither prepared nor raw data"):
        training.World.load(tmp_path, settings, seed=1)
    with pytest.raises(DataError, match="neither prepared nor raw data"):
        evaluate.run(tmp_path)
