"""A pretrained language model as an encoder of texts: tokenise once, encode in buckets of like length.

Any Hugging Face model with a stack of layers serves (BERT-like or decoder-only): the lowest layers can be
frozen and their activations computed once, since `encode` can start above them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.errors import ConfigError
from pipeline.models.erasure import ERASURE, Erasure
from pipeline.models.pretrained import Pretrained, load, write_pooling
from pipeline.models.tokens import TOKENS_A_BUCKET, Tokens, flat

log = logging.getLogger(__name__)

MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
UNKNOWN_SHARE_WARNING = 0.2
KEPT_TOKENS = 8 * TOKENS_A_BUCKET
"""Tokens of a step whose activations are kept for its gradients; those of further ones are computed again,
bucket by bucket (as in gradient caching, Gao et al. 2021), so that a step's memory is bounded."""
MAPPED_BYTES = 2**30
"""Activations of frozen layers that take more are kept in a file, in half precision."""
HALF_LIMIT = float(np.finfo(np.float16).max)


class TextEncoder(nn.Module):
    """Texts -> unit vectors (texts, width): the last layer's states, pooled and normalised."""

    def __init__(self, parts: Pretrained, max_length: int) -> None:
        super().__init__()
        self.model = parts.model.eval()
        self.tokenizer, self.pooling = parts.tokenizer, parts.pooling
        self.max_length = max_length
        self.width: int = self.model.config.hidden_size  # type: ignore[assignment,union-attr]
        self.pad = int(self.tokenizer.pad_token_id or 0)
        self.erasure: Erasure | None = None  # of what texts shall not tell; not part of a training
        self._adapted: list[Any] = []  # a list, so that it is no module of its own

    @classmethod
    def load(cls, spec: str, max_length: int) -> TextEncoder:
        """Load the model and its tokenizer. Raises ConfigError for an unknown or incomplete encoder."""
        parts = load(spec)
        limit = getattr(parts.model.config, "max_position_embeddings", max_length)
        encoder, erased = cls(parts, min(max_length, limit)), Path(spec) / ERASURE
        encoder.erasure = Erasure.of(load_file(erased)) if erased.is_file() else None
        return encoder

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
        return nn.functional.normalize(self._pool(states, mask).float(), dim=-1)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(texts, longest, width) states -> (texts, width)."""
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return states[torch.arange(len(states), device=states.device), mask.sum(1).clamp(min=1) - 1]
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1)

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
    def lower_activations(self, tokens: Tokens, layers: int, file: Path | None = None) -> np.ndarray:
        """(tokens, width): what enters the layer above the lowest `layers`, for every token.

        float32; more than MAPPED_BYTES of them float16, in `file` (.npy); one that is there already is taken.
        """
        shape = (len(tokens.ids), self.width)
        mapped = file is not None and shape[0] * shape[1] * 4 > MAPPED_BYTES
        if not mapped:
            return self._write_lower(tokens, layers, np.empty(shape, np.float32))
        assert file is not None
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(".partial")
            out = np.lib.format.open_memmap(beside, "w+", np.float16, shape)
            self._write_lower(tokens, layers, out)
            out.flush()
            beside.rename(file)
        return np.load(file, mmap_mode="r")

    def _write_lower(self, tokens: Tokens, layers: int, out: np.ndarray) -> np.ndarray:
        device = next(self.model.parameters()).device
        for bucket in tokens.buckets(np.arange(len(tokens))):
            ids, mask = tokens.padded(bucket, self.pad)
            states = self.lower(ids.to(device), mask.to(device), layers).cpu()
            of_tokens = states[mask.bool()].float()
            if out.dtype == np.float16:
                of_tokens = of_tokens.clamp(-HALF_LIMIT, HALF_LIMIT).half()
            out[flat(tokens.offsets[bucket], tokens.lengths[bucket])] = of_tokens.numpy()
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
        kept = 0
        for bucket in tokens.buckets(texts):
            ids, mask = tokens.padded(texts[bucket], self.pad)
            given = [ids.to(device), mask.to(device)]
            if hidden is not None:
                entering = torch.zeros(*ids.shape, self.width)
                rows = flat(tokens.offsets[texts[bucket]], tokens.lengths[texts[bucket]])
                entering[mask.bool()] = torch.from_numpy(hidden[rows]).float()
                given.append(entering.to(device))
            kept += ids.numel()
            if torch.is_grad_enabled() and kept > KEPT_TOKENS:
                parts.append(checkpoint(self, *given, above=above, use_reentrant=False))
            else:
                parts.append(self(*given, above=above))
            places.append(bucket)
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(places))).to(device)]

    def vectors(self, texts: list[str]) -> np.ndarray:
        """(texts, width) unit vectors, without what is erased; rows of empty texts are zero."""
        tokens = tokenize(self, texts)
        with torch.no_grad():
            vectors = self.encode(tokens).cpu().numpy()
        vectors[[not text for text in texts]] = 0
        return vectors if self.erasure is None else self.erasure(vectors)

    def train_from(self, layer: int, lora_rank: int | None = None) -> None:
        """Leave the lowest `layer` layers as they are and train those above; 0: the embeddings as well.

        With `lora_rank` only low-rank corrections of the linear layers are trained (Hu et al. 2022), by peft.
        """
        self.requires_grad_(False)
        if lora_rank is not None:
            self._adapt(layer, lora_rank)
        elif layer == 0:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_("pooler" not in name.split("."))  # its output is not used
        else:
            for one in self.layers[layer:]:
                one.requires_grad_(True)

    def _adapt(self, layer: int, rank: int) -> None:
        from peft import LoraConfig, get_peft_model

        names = {module: name for name, module in self.model.named_modules()}
        linear = [m for one in self.layers[layer:] for m in one.modules() if isinstance(m, nn.Linear)]
        settings = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=[names[m] for m in linear]
        )
        self._adapted = [get_peft_model(self.model, settings).eval()]  # changes the model in its place

    def settle(self) -> None:
        """Training is over: nothing is trained any more, and corrections become part of the weights."""
        if self._adapted:
            self.model = self._adapted.pop().merge_and_unload()
        self.requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the model (half precision: half the bytes to version) and its tokenizer."""
        state = {name: value.to(torch.float16) for name, value in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)
        write_pooling(folder, self.pooling, self.width)
        if self.erasure is not None:
            save_file(self.erasure.arrays(), folder / ERASURE)

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
