"""Any encoder by its name alone: how its vectors are read, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from pipeline.errors import ConfigError, PipelineError, Unavailable
from pipeline.models import pretrained
from pipeline.models.encoder import TextEncoder

TEXTS = ["red thing number 1", "blue", "red red blue thing number 7 8 9", "thing"]


def decoder(folder: Path) -> Path:
    """A Llama of two layers with the tiny encoder's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny.encoder(folder / "bert"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    return folder / "llama"


def pooled(folder: Path, **config: object) -> Path:
    """The tiny encoder as a folder of sentence-transformers."""
    tiny.encoder(folder)
    pretrained.write_pooling(folder, "mean", 16)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


def test_a_decoder_is_read_at_its_last_token_however_it_is_padded(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(decoder(tmp_path)), 16)
    assert encoder.pooling == "last"
    assert len(encoder.layers) == 2
    together, tokens = encoder.vectors(TEXTS), encoder.tokenize(TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.vectors([text])[0], together[row], atol=1e-5)
    hidden = encoder.lower_activations(tokens, 1)
    with torch.no_grad():
        above = encoder.encode(tokens, None, hidden, 1).numpy()
    np.testing.assert_allclose(above, together, atol=1e-5)


def test_an_encoder_is_read_at_all_tokens(tmp_path: Path) -> None:
    assert TextEncoder.load(str(tiny.encoder(tmp_path / "bert")), 16).pooling == "mean"


def test_a_decoder_is_trained_by_low_rank_corrections(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(decoder(tmp_path)), 16)
    encoder.train_from(1, lora_rank=2)
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert names
    assert all("lora" in name and "layers.1." in name for name in names)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_a_folder_of_sentence_transformers_says_how_to_pool(
    tmp_path: Path, config: dict[str, object], pooling: str
) -> None:
    encoder = TextEncoder.load(str(pooled(tmp_path / "st", **config)), 16)
    assert encoder.pooling == pooling
    encoder.save(tmp_path / "saved")
    assert TextEncoder.load(str(tmp_path / "saved"), 16).pooling == pooling


@pytest.mark.parametrize(
    "config",
    [{"pooling_mode_max_tokens": True}, {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}],
)
def test_another_pooling_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"finetune.encoder: .* pools by .*max_tokens: choose"):
        TextEncoder.load(str(pooled(tmp_path / "st", **config)), 16)


def test_a_further_module_is_refused(tmp_path: Path) -> None:
    folder = pooled(tmp_path / "st", pooling_mode_mean_tokens=True)
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ConfigError, match="has a Dense module"):
        TextEncoder.load(str(folder), 16)


@pytest.mark.parametrize("inside", ["", "/", "/model"])
def test_a_model_is_found_in_a_package_or_a_folder_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    folder = tmp_path / "some_weights" / inside.strip("/")
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    told = tmp_path / "some_weights-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Path(pretrained.locate(f"package:some_weights{inside}")) == folder


def test_a_gguf_file_needs_its_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"GGUF file: run `pip install .* gguf accelerate`"):
        TextEncoder.load(str(tmp_path), 16)


def test_an_encoder_is_known_by_what_is_read_of_it(tmp_path: Path) -> None:
    folder = tiny.encoder(tmp_path / "encoder")
    before = pretrained.identify("encoder", tmp_path)
    assert before.spec == "encoder"
    (folder / "README.md").write_text("A model card")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_text("the same for another library")
    assert pretrained.identify("encoder", tmp_path) == before
    pooling = folder / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text("{}")
    pooled = pretrained.identify("encoder", tmp_path)
    (folder / "model.safetensors").write_bytes(b"other")
    assert len({each.sha256 for each in (before, pooled, pretrained.identify("encoder", tmp_path))}) == 3
    assert pretrained.identify("owner/model", tmp_path).sha256 is None
    with pytest.raises(ConfigError, match="no such folder"):
        pretrained.identify("./nowhere", tmp_path)


@pytest.mark.parametrize(("offline", "kind"), [(False, Unavailable), (True, ConfigError)])
def test_a_hub_that_does_not_answer_may_be_asked_again(
    offline: bool, kind: type[PipelineError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own library tries for a minute before it raises this."""
    import transformers
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    def ask(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub") from LocalEntryNotFoundError("no answer")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", ask)
    with pytest.raises(kind, match=r"finetune.encoder: owner/model: We couldn't connect") as told:
        pretrained.load("owner/model")
    assert told.value.permanent is offline
