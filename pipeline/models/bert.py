"""A saved BERT-like encoder with NumPy: for the few texts of a question, where importing PyTorch and
transformers takes a hundred times as long as reading them.

pipeline/models/encoder.py trains such an encoder and encodes catalogues; an encoder of another architecture
answers questions with it as well (`Recommender.question_encoder`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf, softmax

from pipeline.models.binding import Arrays
from pipeline.models.erasure import ERASURE, Erasure
from pipeline.models.pretrained import told_pooling
from pipeline.models.tower import normed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXTS = 32  # that are read at once
PLAIN = {"hidden_act": "gelu", "is_decoder": False, "position_embedding_type": "absolute"}  # as of a BERT


@dataclass(frozen=True)
class Bert:
    """Texts -> unit vectors, the same as TextEncoder's but for rounding (Devlin et al. 2019)."""

    weights: Arrays
    tokenizer: Tokenizer  # cuts at max_length
    layers: int
    heads: int
    epsilon: float
    pooling: str  # mean | cls
    erasure: Erasure | None

    @classmethod
    def load(cls, folder: Path, max_length: int) -> Bert | None:
        """None where it is no plain BERT, or damaged, which TextEncoder tells in words.

        `folder`: as TextEncoder.save leaves it.
        """
        from tokenizers import Tokenizer

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            pooling = told_pooling(str(folder), folder)
            if config.get("model_type") != "bert" or pooling not in ("mean", "cls"):
                return None
            if any(config.get(key, value) != value for key, value in PLAIN.items()):
                return None
            weights = load_file(folder / "model.safetensors")
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # tokenizers raises nothing narrower
            return None
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(max_length, config["max_position_embeddings"]))
        erased = folder / ERASURE
        return cls(
            weights,
            tokenizer,
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
            pooling,
            Erasure.of(load_file(erased)) if erased.is_file() else None,
        )

    def vectors(self, texts: list[str]) -> np.ndarray:
        """(texts, width) unit vectors, without what is erased; rows of empty texts are zero."""
        ids = [np.array(each.ids) for each in self.tokenizer.encode_batch(texts)]
        order = np.argsort([len(each) for each in ids], kind="stable")  # of like length: little padding
        out = np.zeros((len(texts), self._of("embeddings.LayerNorm.weight").shape[0]), np.float32)
        for begin in range(0, len(order), TEXTS):
            some = order[begin : begin + TEXTS]
            out[some] = self._read([ids[place] for place in some])
        out[[not text for text in texts]] = 0
        return out if self.erasure is None else self.erasure(out)

    def _of(self, name: str) -> np.ndarray:
        """Half precision on the disk (TextEncoder.save), single here."""
        value = self.weights[name]
        if value.dtype != np.float32:
            value = self.weights[name] = value.astype(np.float32)
        return value

    def _layer(self, prefix: str, x: np.ndarray) -> np.ndarray:
        return x @ self._of(f"{prefix}.weight").T + self._of(f"{prefix}.bias")

    def _normed(self, prefix: str, x: np.ndarray) -> np.ndarray:
        return normed(self._of(f"{prefix}.weight"), self._of(f"{prefix}.bias"), x, self.epsilon)

    def _read(self, texts: list[np.ndarray]) -> np.ndarray:
        """Token ids of some texts -> (texts, width)."""
        length = np.array([len(each) for each in texts])
        there = np.arange(length.max()) < length[:, None]
        ids = np.zeros(there.shape, np.intp)
        ids[there] = np.concatenate(texts)
        x = self.weights["embeddings.word_embeddings.weight"][ids].astype(np.float32)
        x += self._of("embeddings.position_embeddings.weight")[: there.shape[1]]
        x = self._normed("embeddings.LayerNorm", x + self._of("embeddings.token_type_embeddings.weight")[0])
        unseen = np.where(there, 0, -np.inf).astype(np.float32)[:, None, None]
        for number in range(self.layers):
            own = f"encoder.layer.{number}"
            met = self._attention(f"{own}.attention.self", x, unseen)
            x = self._normed(
                f"{own}.attention.output.LayerNorm", x + self._layer(f"{own}.attention.output.dense", met)
            )
            hidden = self._layer(f"{own}.intermediate.dense", x)
            hidden *= 0.5 * (1 + erf(hidden * np.float32(0.5**0.5)))
            x = self._normed(f"{own}.output.LayerNorm", x + self._layer(f"{own}.output.dense", hidden))
        pooled = x[:, 0] if self.pooling == "cls" else (x * there[..., None]).sum(1) / length[:, None]
        unit: np.ndarray = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return unit

    def _attention(self, prefix: str, x: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        texts, longest, width = x.shape
        query, key, value = (
            self._layer(f"{prefix}.{name}", x).reshape(texts, longest, self.heads, -1).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        share = softmax(query @ key.swapaxes(2, 3) * (width // self.heads) ** -0.5 + unseen, axis=-1)
        met: np.ndarray = (share @ value).swapaxes(1, 2).reshape(texts, longest, width)
        return met
