"""A pretrained language model as an encoder of texts: load, tokenise once, encode in length-sorted buckets.

Any Hugging Face model with a stack of layers serves (BERT-like or decoder-only): the lowest layers can be
frozen and their activations computed once, since `encode` can start above them.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError

log = logging.getLogger(__name__)

MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
UNKNOWN_SHARE_WARNING = 0.2
TOKENS_A_BUCKET = 4096
"""Tokens that go through the model at once, padding included; bounds memory, not results."""


def locate(spec: str) -> str:
    """`finetune.encoder` -> a local folder or hub id. Raises ConfigError naming what is missing."""
    if spec.startswith("package:"):
        name, _, inside = spec.removeprefix("package:").partition("/")
        try:
            files = importlib.metadata.distribution(name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"params.yaml: finetune.encoder: package {name} is not installed: run `make setup`, "
                "or give a local folder or a hub id"
            ) from None
        folder = Path(str(files.locate_file(name))) / inside
        if not (folder / "config.json").exists():
            raise ConfigError(f"params.yaml: finetune.encoder: no model (config.json) in {name}/{inside}")
        return str(folder)
    folder = Path(spec)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"params.yaml: finetune.encoder: no config.json in {spec}: save a model with save_pretrained"
            )
        return spec
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise ConfigError(
            f"params.yaml: finetune.encoder: {spec}: no such folder; "
            "write package:NAME/SUBDIR, a local folder or a hub id (owner/model)"
        )
    return spec


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, end to end: text i is ids[offsets[i]:offsets[i + 1]]."""

    ids: np.ndarray  # (tokens,) int32
    offsets: np.ndarray  # (texts + 1,) int64
    unknown_share: float  # of the tokens that are no special ones

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def buckets(self, texts: np.ndarray, size: int = TOKENS_A_BUCKET) -> Iterator[np.ndarray]:
        """Positions in `texts`, in groups of like length that fit `size` tokens padded to their longest."""
        lengths = self.lengths[texts]
        order = np.argsort(lengths, kind="stable")
        begin = 0
        while begin < len(order):
            # Lengths ascend, so the group's cost is count x its last length.
            cost = np.arange(1, len(order) - begin + 1) * lengths[order[begin:]]
            count = max(1, int(np.searchsorted(cost, size, side="right")))
            yield order[begin : begin + count]
            begin += count

    def padded(self, texts: np.ndarray, pad: int = 0) -> tuple[Tensor, Tensor]:
        """(texts, longest) token ids and attention mask, both int64."""
        lengths = self.lengths[texts]
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        ids[mask] = self.ids[flat(self.offsets[texts], lengths)]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def flat(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, ... of every run, end to end."""
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + offset


class TextEncoder(nn.Module):
    """Texts -> unit vectors (texts, width): the mean over tokens of the last layer, normalised."""

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.width: int = model.config.hidden_size  # type: ignore[assignment,union-attr]
        self.pad = int(tokenizer.pad_token_id or 0)

    @classmethod
    def load(cls, spec: str, max_length: int) -> TextEncoder:
        """Load the model and its tokenizer. Raises ConfigError for an unknown or incomplete encoder."""
        path = locate(spec)
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as hf_logging

        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise ConfigError(
                f"params.yaml: finetune.encoder: {spec}: {_first_line(error)} (tokenizer)"
            ) from None
        if _is_bare(tokenizer):
            raise ConfigError(
                f"params.yaml: finetune.encoder: {spec} has no tokenizer: "
                "save one beside the model with tokenizer.save_pretrained"
            )
        try:
            # Weights in float32 whatever the file holds.
            model = AutoModel.from_pretrained(path, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ConfigError(f"params.yaml: finetune.encoder: {spec}: {_first_line(error)}") from None
        limit = getattr(model.config, "max_position_embeddings", max_length)
        return cls(model, tokenizer, min(max_length, limit))

    def train(self, mode: bool = True) -> TextEncoder:
        """Dropout stays off: training is short, and torch's dropout on a CPU costs half of a step."""
        return super().train(False)

    @property
    def layers(self) -> nn.ModuleList:
        """The stack of transformer layers."""
        stacks = [m for m in self.model.modules() if isinstance(m, nn.ModuleList)]
        if not stacks:
            raise ConfigError(
                "params.yaml: finetune.encoder: the model has no stack of layers; choose another"
            )
        return max(stacks, key=len)

    def tokenize(self, texts: list[str]) -> Tokens:
        """Token ids of all texts, cut at max_length."""
        if not texts:
            return Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64), 0.0)
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        ids = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded])
        special = np.isin(
            ids, [i for i in self.tokenizer.all_special_ids if i != self.tokenizer.unk_token_id]
        )
        unknown = ids == (-1 if self.tokenizer.unk_token_id is None else self.tokenizer.unk_token_id)
        share = float(unknown.sum() / max(1, (~special).sum()))
        return Tokens(ids, np.r_[0, np.cumsum(lengths)], share)

    def forward(self, ids: Tensor, mask: Tensor, hidden: Tensor | None = None, above: int = 0) -> Tensor:
        """(texts, longest) ids and mask -> (texts, width). With `hidden`, start above the lowest layers."""
        with self._above(above, hidden) if hidden is not None else _nothing():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled.float(), dim=-1)

    @torch.no_grad()
    def lower(self, ids: Tensor, mask: Tensor, layers: int) -> Tensor:
        """(texts, longest, width) activations that enter the first layer above the lowest `layers`."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _Stop

        handle = self.layers[layers].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self.model(input_ids=ids, attention_mask=mask)
        except _Stop:
            pass
        finally:
            handle.remove()
        return caught[0]

    @torch.no_grad()
    def lower_activations(self, tokens: Tokens, layers: int) -> np.ndarray:
        """(tokens, width) float32: what enters the layer above the lowest `layers`, for every token."""
        out = np.empty((len(tokens.ids), self.width), np.float32)
        device = next(self.model.parameters()).device
        for bucket in tokens.buckets(np.arange(len(tokens))):
            ids, mask = tokens.padded(bucket, self.pad)
            states = self.lower(ids.to(device), mask.to(device), layers).cpu()
            out[flat(tokens.offsets[bucket], tokens.lengths[bucket])] = states[mask.bool()].numpy()
        return out

    def encode(
        self,
        tokens: Tokens,
        texts: np.ndarray | None = None,
        hidden: np.ndarray | None = None,
        above: int = 0,
    ) -> Tensor:
        """(texts, width) unit vectors of these texts, of all by default; an empty text gets zeros.

        With `hidden` (lower_activations of the lowest `above` layers) only the layers above them run.
        """
        texts = np.arange(len(tokens)) if texts is None else texts
        device = next(self.model.parameters()).device
        parts, places = [torch.zeros(0, self.width, device=device)], [np.zeros(0, np.int64)]
        for bucket in tokens.buckets(texts):
            ids, mask = tokens.padded(texts[bucket], self.pad)
            if hidden is None:
                parts.append(self(ids.to(device), mask.to(device)))
            else:
                entering = torch.zeros(*ids.shape, self.width)
                rows = flat(tokens.offsets[texts[bucket]], tokens.lengths[texts[bucket]])
                entering[mask.bool()] = torch.from_numpy(hidden[rows])
                parts.append(self(ids.to(device), mask.to(device), entering.to(device), above))
            places.append(bucket)
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(places))).to(device)]

    def save(self, folder: Path) -> None:
        """Write the model (half precision: half the bytes to version) and its tokenizer."""
        state = {name: value.to(torch.float16) for name, value in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)

    @contextmanager
    def _above(self, layers: int, hidden: Tensor) -> Iterator[None]:
        """Run only the layers above the lowest `layers`, fed with `hidden` in their place."""
        stack = self.layers
        parent, name = _parent(self.model, stack)

        def feed(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return (hidden, *args[1:]), kwargs

        handle = stack[layers].register_forward_pre_hook(feed, with_kwargs=True)
        setattr(parent, name, stack[layers:])
        try:
            yield
        finally:
            setattr(parent, name, stack)
            handle.remove()


def texts_to_vectors(encoder: TextEncoder, texts: list[str]) -> tuple[np.ndarray, Tokens]:
    """Unit vectors of all texts; rows of empty texts are zero."""
    tokens = tokenize(encoder, texts)
    with torch.no_grad():
        vectors = encoder.encode(tokens).cpu().numpy()
    vectors[[not text for text in texts]] = 0
    return vectors, tokens


def tokenize(encoder: TextEncoder, texts: list[str]) -> Tokens:
    """Token ids of all texts; warns if many are unknown to the encoder."""
    tokens = encoder.tokenize(texts)
    if tokens.unknown_share > UNKNOWN_SHARE_WARNING:
        log.warning(
            "warning: %.0f %% of the tokens are unknown to this encoder: set finetune.encoder to a "
            "multilingual one, e.g. %s",
            100 * tokens.unknown_share,
            MULTILINGUAL,
        )
    return tokens


class _Stop(Exception):
    """Ends a forward pass early."""


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _parent(root: nn.Module, child: nn.Module) -> tuple[nn.Module, str]:
    for module in root.modules():
        for name, value in module.named_children():
            if value is child:
                return module, name
    raise ValueError("the layers are no part of the model")


def _is_bare(tokenizer: Any) -> bool:
    """transformers makes an empty tokenizer from a config alone instead of failing."""
    return len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens) + 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
