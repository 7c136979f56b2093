"""Texts a second: the encoder as it is used here, sentence-transformers, and the processor's matrix products.

In: a folder like data/prepared or data/raw. Out: texts a CPU second, in the order in which they come.
Rule: the same texts, model, cut and single thread; float32 and, where the processor computes in bfloat16,
that too; the best of several rounds. The limit is the rate of float32 products of the layers' own shapes,
over the operations that the tokens need without any padding. sentence-transformers is of the extra `bench`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.bench._device import now
from pipeline.errors import ConfigError, DataError
from pipeline.models.encoder import TextEncoder, tokenize
from pipeline.models.pretrained import locate
from pipeline.params import Finetune, Params
from pipeline.training.fitting import precision
from pipeline.training.networks import one_thread

OWN = Path("data/prepared")
TEXTS, ROUNDS = 1000, 3
TOKENS = 1024  # rows of the products that are measured


def run(data: Path | None = None) -> dict[str, Any]:
    """Raises ConfigError if sentence-transformers is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(
            "sentence-transformers is not installed: run `pip install -c constraints.txt -e '.[bench]'`"
        )
    params = Params.load(Path("params.yaml"))
    texts = some_texts(data or OWN, params.seed)
    with one_thread():
        return measure(texts, params.finetune)


def some_texts(folder: Path, seed: int) -> list[str]:
    """At most TEXTS, in random order. Raises DataError if there is none, or the folder holds no data."""
    from pipeline.bench.gate import load  # not at the top: tests/test_gpu.py has no Parquet

    items = load(folder)[0].catalogue.items
    texts = [text for text in items["item_text"].dropna() if text]
    if not texts:
        raise DataError(f"{folder}: no item has a text: name a folder whose items have titles")
    return [texts[place] for place in np.random.default_rng(seed).permutation(len(texts))[:TEXTS]]


def measure(texts: list[str], settings: Finetune) -> dict[str, Any]:
    encoder = TextEncoder.load(settings.encoder, settings.max_length)
    ours = ways(encoder, texts)
    theirs = peer(settings, encoder, texts)
    found = {name: best(way) for name, way in {"sentence_transformers": theirs, **ours}.items()}
    reference = found["sentence_transformers"][0]
    figures: dict[str, dict[str, float | None]] = {
        name: {"texts_per_second": len(texts) / seconds, "cosine": float(cosine(vectors, reference).mean())}
        for name, (vectors, seconds) in found.items()
    }
    operations, rate = work(encoder, texts)
    figures["limit"] = {"texts_per_second": rate * len(texts) / operations, "cosine": None}
    rates = {name: row["texts_per_second"] or 0.0 for name, row in figures.items()}
    base = rates["sentence_transformers"]
    return {
        "name": "encode",
        "conditions": {
            "texts": len(texts),
            "encoder": settings.encoder,
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "bfloat16_units": precision("auto") == "bf16-mixed",
            "gflop_per_second_of_products": rate / 1e9,
        },
        "figures": figures,
        "ratios": {f"{name}_over_sentence_transformers": rates[name] / base for name in (*ours, "limit")},
    }


def ways(encoder: TextEncoder, texts: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    """Tokenising is part of it."""

    def plain() -> np.ndarray:
        with torch.inference_mode():
            return encoder.encode(tokenize(encoder, texts)).cpu().numpy()

    def half() -> np.ndarray:
        with torch.autocast(next(encoder.parameters()).device.type, torch.bfloat16):
            return plain()

    return {"float32": plain} | ({"bfloat16": half} if precision("auto") == "bf16-mixed" else {})


def peer(
    settings: Finetune, encoder: TextEncoder, texts: list[str], device: str = "cpu"
) -> Callable[[], np.ndarray]:
    """sentence-transformers with its defaults, cut at the same length."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(locate(settings.encoder), device=device)
    model.max_seq_length = encoder.max_length
    return lambda: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def best(way: Callable[[], np.ndarray], device: str = "cpu") -> tuple[np.ndarray, float]:
    """(vectors, least seconds of several rounds); a first one is not counted."""
    vectors, seconds = way(), []
    for _ in range(ROUNDS):
        begin = now(device)
        vectors = way()
        seconds.append(now(device) - begin)
    return vectors, min(seconds)


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("tw,tw->t", one, other) / np.maximum(norms, 1e-12)


def work(encoder: TextEncoder, texts: list[str]) -> tuple[float, float]:
    """(operations of the linear layers for these texts, operations a CPU second of such products)."""
    linear = [module for module in encoder.layers.modules() if isinstance(module, nn.Linear)]
    tokens = len(tokenize(encoder, texts).ids)
    operations = sum(2.0 * tokens * module.weight.numel() for module in linear)
    of_a_round = sum(2.0 * TOKENS * module.weight.numel() for module in linear)
    rows = {width: torch.randn(TOKENS, width) for width in {module.in_features for module in linear}}

    def products() -> np.ndarray:
        with torch.inference_mode():
            for module in linear:
                rows[module.in_features] @ module.weight.T
        return np.zeros(0)

    return operations, of_a_round / best(products)[1]
