"""The encoder learns that a user's text mean is near what the user takes next; a step encodes a text once.

What a step costs: each distinct item of its histories and targets goes through the encoder once, however
often it occurs (SpeedyFeed, Xiao et al. 2022). With `finetune.cache_steps` only `finetune.encode_per_step`
of them are trained in a step; of the others a cache holds vectors that are at most so many steps old. Without
(0) all are trained, and loss and gradients are those of encoding every item of every sample anew.

Of several processes each encodes its own share of a step's items; the vectors are gathered, so a softmax is
over all items of the step, and the gradients are those that one process would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.histories import Points
from pipeline.models.encoder import TextEncoder
from pipeline.models.ranking import target_ndcg
from pipeline.models.tokens import Tokens
from pipeline.params import Finetune
from pipeline.training.fitting import is_out_of_memory
from pipeline.training.networks import TextSpace
from pipeline.training.task import Run, Task


def frozen_layers(encoder: TextEncoder, settings: Finetune) -> int:
    """How many of the lowest layers stay as they came; with none the embeddings are trained as well."""
    return max(0, len(encoder.layers) - settings.trainable_layers)


@dataclass(frozen=True)
class Texts:
    """What the encoder reads: tokens of every item, and what its frozen layers make of them."""

    tokens: Tokens
    hidden: np.ndarray | None  # (tokens, width), see TextEncoder.lower_activations; None: no layer is frozen
    vectors: np.ndarray  # (items, width) as the encoder makes them before it is trained


def look(points: Points, items: int, most: int, rows: int, generator: np.random.Generator) -> Look:
    """What validation looks at: every point over every item, or what takes no more than `most` texts.

    Then points in a random order, as long as their targets and the newest `rows` of their histories are half
    of `most`; random items make up the rest.
    """
    if items <= most:
        return Look(points, np.arange(items))
    order = generator.permutation(len(points))
    shuffled = points[order]
    point, row = shuffled.newest(rows).rows()
    point = np.concatenate([point, np.arange(len(shuffled))])
    item = np.concatenate([shuffled.log.item[row], shuffled.target])
    by_point = np.argsort(point, kind="stable")
    first = np.sort(np.unique(item[by_point], return_index=True)[1])  # where an item comes up first
    half = most // 2
    enough = len(points) if len(first) <= half else int(point[by_point][first[half]])
    needed = np.unique(item[point < enough])
    others = generator.permutation(np.setdiff1d(np.arange(items), needed))[: most - len(needed)]
    return Look(points[np.sort(order[:enough])], np.sort(np.concatenate([needed, others])))


@dataclass(frozen=True)
class Look:
    points: Points
    items: np.ndarray  # ascending


class TextTask(Task):
    """Softmax cross-entropy over items of train, given the mean of a history's vectors.

    The log-popularity is added to the logits, so that what is learned is affinity beyond popularity. Classes
    are the items of the step and, of the cache, a random choice of further ones that are not too old.
    """

    phase = "text"
    weight_decay = 0.01
    MOST_CLASSES = 4096
    HISTORY = 20
    LOOK_ITEMS = 3_000  # texts that are encoded to validate an epoch
    LOOK_HISTORY = 10  # newest rows of a history then
    cache: Tensor
    written: Tensor
    counts: Tensor
    centre: Tensor

    def __init__(
        self,
        run: Run,
        encoder: TextEncoder,
        texts: Texts,
        train: Points,
        validation: Points,
        half_life: float,
    ) -> None:
        looked = look(
            validation, len(texts.tokens), self.LOOK_ITEMS, self.LOOK_HISTORY, run.generator("look", 0)
        )
        super().__init__(run, looked.points)
        self.looked = looked.items
        self.encoder, self.space, self.texts = encoder, TextSpace(), texts
        self.train_points, self.half_life = train, half_life
        self.learning_rate = run.settings.learning_rate
        self.frozen_layers = frozen_layers(encoder, run.settings)
        encoder.train_from(self.frozen_layers, run.settings.lora_rank)
        counts = np.bincount(train.target, minlength=len(texts.tokens)).astype(np.float32)
        self.log_popularity = torch.from_numpy(np.log(counts + 1))
        self.candidates = np.flatnonzero(counts)
        self.vectors = torch.from_numpy(texts.vectors)
        self.register_buffer("cache", self.vectors.clone())
        self.register_buffer("written", torch.zeros(len(self.vectors), dtype=torch.int64))  # at which step
        # Steps; texts of histories and targets; texts that went through the encoder.
        self.register_buffer("counts", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("centre", self.vectors.mean(0))
        # Every process has the same ones already.
        self._ddp_params_and_buffers_to_ignore = ["cache", "written", "counts", "centre"]

    @property
    def item_reuse(self) -> float:
        """How many texts of histories and targets each text stood for that went through the encoder."""
        return float(self.counts[1]) / max(1.0, float(self.counts[2]))

    def told(self) -> dict[str, str]:
        return {"item reuse": f"{self.item_reuse:.0f}"}

    def encode(self, items: np.ndarray | None = None) -> Tensor:
        """(items, width) vectors of the present weights; of all items by default."""
        return self.encoder.encode(self.texts.tokens, items, self.texts.hidden, self.frozen_layers)

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        generator = self.run_.generator(f"classes {index}", self.current_epoch)
        return self.record(self.step(batch, generator), len(batch))

    def step(self, batch: np.ndarray, generator: np.random.Generator) -> Tensor:
        """Loss of these points, with everything that it needs encoded or taken from the cache."""
        points = self.train_points[batch].newest(self.HISTORY)
        weights = points.weights(len(self.texts.tokens), self.half_life)
        present = np.unique(np.concatenate([weights.indices, points.target]))
        self.counts += torch.tensor([1, weights.nnz + len(points), 0], device=self.device)
        trained, stale = self.to_encode(present, generator)
        fresh = gather(self.encode, trained)
        with torch.no_grad():
            self.keep(stale, gather(self.encode, stale) if len(stale) else None)
        classes = np.union1d(present, self.further(present, generator))
        vectors = self.cache[torch.from_numpy(classes).to(self.device)].clone()
        vectors[torch.from_numpy(np.searchsorted(classes, trained)).to(self.device)] = fresh.to(vectors.dtype)
        self.keep(trained, fresh.detach())
        return self.loss(points, weights, classes, vectors)

    def can_step(self, size: int) -> bool:
        """Whether a step of this many points, gradients included, fits into memory; its weights stay."""
        self.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            batch = np.arange(min(size, len(self.train_points)))
            self.step(batch, self.run_.generator("size", size)).backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.zero_grad()
        return True

    def to_encode(self, present: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Items of a step that are trained, and those of the rest whose vectors in the cache are too old."""
        settings = self.run_.settings
        if settings.cache_steps == 0:
            return present, present[:0]
        trained = np.sort(generator.permutation(present)[: settings.encode_per_step])
        rest = np.setdiff1d(present, trained, assume_unique=True)
        return trained, rest[self.age(rest) > settings.cache_steps]

    def further(self, present: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Classes beside those of the step: they cost no encoding, so only a cache has them."""
        if self.run_.settings.cache_steps == 0:
            return present[:0]
        young = self.candidates[self.age(self.candidates) <= self.run_.settings.cache_steps]
        return generator.permutation(young)[: max(0, self.MOST_CLASSES - len(present))]

    def age(self, items: np.ndarray) -> np.ndarray:
        """Steps since these vectors of the cache were made."""
        return (self.counts[0] - self.written[torch.from_numpy(items).to(self.device)]).cpu().numpy()

    def keep(self, items: np.ndarray, vectors: Tensor | None) -> None:
        if vectors is None:
            return
        index = torch.from_numpy(items).to(self.device)
        self.cache[index] = vectors.to(self.cache.dtype)
        self.written[index] = self.counts[0]
        self.counts[2] += len(items)

    def loss(self, points: Points, weights: Any, classes: np.ndarray, vectors: Tensor) -> Tensor:
        """Mean over the points of the whole step; a process adds up its own ones.

        With several processes gradients are averaged between them, so a process' sum is multiplied by their
        number.
        """
        rank, world = place()
        mine = np.arange(rank, len(points), world)
        history = torch.from_numpy(weights[mine][:, classes].toarray()).to(self.device)
        logits = self.space(history, vectors, self.centre)
        logits = logits + self.log_popularity[torch.from_numpy(classes)].to(self.device)
        logits = logits.masked_fill(history > 0, -torch.inf)
        target = torch.from_numpy(np.searchsorted(classes, points.target[mine])).to(self.device)
        return F.cross_entropy(logits, target, reduction="sum") * (world / len(points))

    def on_validation_epoch_start(self) -> None:
        with torch.no_grad():
            self.vectors = gather(self.encode, self.looked)
            self.keep(self.looked, self.vectors)
            self.counts[2] -= len(self.looked)  # to validate, not to train
        self.centre.copy_(self.vectors.mean(0))

    @torch.no_grad()
    def gains(self, rows: np.ndarray) -> np.ndarray:
        assert self.points is not None
        points, items = self.points[rows], len(self.texts.tokens)
        newest = points if len(self.looked) == items else points.newest(self.LOOK_HISTORY)
        weights = newest.weights(items, self.half_life)[:, self.looked]
        history = torch.from_numpy(weights.toarray()).to(self.device)
        scores = np.full((len(rows), items), -np.inf, np.float32)
        scores[:, self.looked] = self.space(history, self.vectors, self.centre).float().cpu().numpy()
        return target_ndcg(scores, points, 10)


class _Gather(torch.autograd.Function):
    """Equal shares of all processes, end to end; each gets the sum of all gradients of its own share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, share.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def place() -> tuple[int, int]:
    """This process' number, and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(encode: Callable[[np.ndarray], Tensor], items: np.ndarray) -> Tensor:
    """(items, width): `encode` of these items, each by one process."""
    rank, world = place()
    if world == 1:
        return encode(items)
    # Neighbours in a list of items are dealt out in turn; shares are filled up to equal length.
    padded = np.resize(items, -(-len(items) // world) * world)
    vectors = _Gather.apply(encode(padded[rank::world]))  # type: ignore[no-untyped-call]
    order = np.arange(len(padded)).reshape(-1, world).T.ravel()  # where each gathered row belongs
    return vectors[torch.from_numpy(np.argsort(order)[: len(items)]).to(vectors.device)]
