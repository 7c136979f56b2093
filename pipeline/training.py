"""Lightning around pipeline/model.py: three tasks, one way to fit them, early stopping on validation nDCG@10.

Every epoch draws its batches and its noise from (seed, phase, epoch), so a run that was killed and goes on
from its last checkpoint ends where an undisturbed one does.
"""

from __future__ import annotations

import logging
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from pipeline.encoder import TextEncoder, Tokens, flat
from pipeline.histories import Log, Points
from pipeline.model import FusionScorer, SequenceTower, TextSpace
from pipeline.params import Finetune

log = logging.getLogger(__name__)
NDCG = "validation_ndcg@10"


@dataclass(frozen=True)
class Run:
    """What all phases of one training share."""

    settings: Finetune
    seed: int
    folder: Path
    """Checkpoints and curves; survives a kill, removed after success."""
    curves: list[dict[str, Any]] = field(default_factory=list)

    def generator(self, phase: str, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(phase.encode()), epoch])


class EpochSampler(Sampler[int]):
    """A new order each epoch, from (seed, phase, epoch); each process takes its own share of it."""

    def __init__(self, run: Run, phase: str, size: int, most: int | None = None) -> None:
        self.run, self.phase, self.size = run, phase, size
        self.taken = min(size, most or size)
        self.rank, self.world, self.epoch = 0, 1, 0

    def share(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self.run.generator(self.phase, self.epoch).permutation(self.size)[: self.taken]
        equal = len(order) // self.world * self.world or len(order)
        return iter(order[:equal][self.rank :: self.world].tolist())

    def __len__(self) -> int:
        return max(1, self.taken // self.world)


class Data(pl.LightningDataModule):
    """Batches are arrays of positions; a task turns them into tensors itself, without a loop over rows."""

    def __init__(self, sampler: EpochSampler, batch_size: int, validation: int) -> None:
        super().__init__()
        self.sampler, self.batch_size, self.validation = sampler, batch_size, validation

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        self.sampler.share(self.trainer.global_rank, self.trainer.world_size)
        size = max(1, self.batch_size // self.trainer.world_size)
        return DataLoader(range(self.sampler.size), size, sampler=self.sampler, collate_fn=np.asarray)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        # One empty batch: the task ranks its own share of the validation points (see Task).
        return DataLoader(range(1), 1, collate_fn=np.asarray)  # type: ignore[arg-type]


class Task(pl.LightningModule):
    """Common to the three: the optimiser, and validation nDCG@10 over live histories."""

    phase: str
    learning_rate: float
    weight_decay = 0.0
    total_steps: int

    def __init__(self, run: Run, validation: Points) -> None:
        super().__init__()
        self.run_, self.points = run, validation

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(int(self.run_.generator(self.phase, self.current_epoch).integers(2**31)))

    def validation_step(self, batch: np.ndarray, index: int) -> None:
        mine = np.arange(self.global_rank, len(self.points), self.trainer.world_size)
        users = int(self.points.user.max(initial=-1)) + 1
        # Sums per user travel between the processes, so nothing is counted twice or padded.
        sums = torch.zeros(2, users, dtype=torch.float64)
        for begin in range(0, len(mine), 64):
            rows = mine[begin : begin + 64]
            user = self.points.user[rows]
            sums[0] += torch.from_numpy(np.bincount(user, self.gains(rows), minlength=users))
            sums[1] += torch.from_numpy(np.bincount(user, minlength=users))
        if self.trainer.world_size > 1:
            sums = self.all_gather(sums.to(self.device)).sum(0).cpu()
        there = sums[1] > 0
        value = float((sums[0][there] / sums[1][there]).mean()) if bool(there.any()) else 0.0
        self.log(NDCG, value, prog_bar=True, batch_size=1, rank_zero_only=True)

    def gains(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) nDCG@10 of these validation points; of a task that validates."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.learning_rate, total_steps=max(2, self.total_steps), pct_start=0.1
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TextTask(Task):
    """The encoder's topmost layers learn that a user's text mean is near what the user takes next.

    Softmax cross-entropy over items of train with the log-popularity added to the logits, so that what is
    learned is affinity beyond popularity. In a step every distinct item goes through the encoder at most
    once; `encode_per_step` of them with gradients, the rest come from a cache of their newest vectors.
    """

    phase = "text"
    weight_decay = 0.01
    MOST_CLASSES = 4096
    ENCODE_PER_STEP = 128
    HISTORY = 20

    def __init__(
        self,
        run: Run,
        encoder: TextEncoder,
        tokens: Tokens,
        train: Points,
        validation: Points,
        half_life: float,
    ) -> None:
        super().__init__(run, validation)
        self.encoder, self.space = encoder, TextSpace()
        self.tokens, self.train_points, self.half_life = tokens, train, half_life
        self.learning_rate = run.settings.learning_rate
        layers = encoder.layers
        self.frozen_layers = max(0, len(layers) - run.settings.trainable_layers)
        encoder.requires_grad_(False)
        for layer in layers[self.frozen_layers :]:
            layer.requires_grad_(True)
        self.hidden = _lower_activations(encoder, tokens, self.frozen_layers)
        counts = np.bincount(train.target, minlength=len(tokens)).astype(np.float32)
        self.log_popularity = torch.from_numpy(np.log(counts + 1))
        self.candidates = np.flatnonzero(counts)
        vectors = self.encode(np.arange(len(tokens)))
        self.register_buffer("cache", vectors)
        self.register_buffer("centre", vectors.mean(0))

    def encode(self, items: np.ndarray, gradients: bool = False) -> Tensor:
        """(items, width) unit vectors; the frozen layers' activations are looked up."""
        device = next(self.encoder.parameters()).device
        parts, places = [], []
        with torch.set_grad_enabled(gradients):
            for bucket in self.tokens.buckets(items):
                ids, mask = self.tokens.padded(items[bucket], self.encoder.pad)
                hidden = torch.zeros(*ids.shape, self.encoder.width)
                rows = flat(self.tokens.offsets[items[bucket]], self.tokens.lengths[items[bucket]])
                hidden[mask.bool()] = torch.from_numpy(self.hidden[rows])
                inputs = (ids.to(device), mask.to(device), hidden.to(device))
                parts.append(self.encoder(*inputs, above=self.frozen_layers))
                places.append(bucket)
        order = np.argsort(np.concatenate(places)) if places else np.zeros(0, np.int64)
        return torch.cat(parts)[torch.from_numpy(order).to(device)]

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        points = self.train_points[batch].newest(self.HISTORY)
        weights = points.weights(len(self.tokens), self.half_life)
        generator = self.run_.generator(f"classes {index}", self.current_epoch)
        present = np.unique(np.concatenate([weights.indices, points.target]))
        extra = generator.permutation(self.candidates)[: max(0, self.MOST_CLASSES - len(present))]
        classes = np.union1d(present, extra)
        encoded = np.sort(generator.permutation(present)[: self.ENCODE_PER_STEP])
        fresh = self.encode(encoded, gradients=True)
        vectors = self.cache[torch.from_numpy(classes).to(self.device)].clone()
        vectors[torch.from_numpy(np.searchsorted(classes, encoded)).to(self.device)] = fresh
        self.cache[torch.from_numpy(encoded).to(self.device)] = fresh.detach()
        history = torch.from_numpy(weights[:, classes].toarray()).to(self.device)
        logits = self.space(history, vectors, self.centre)
        logits = logits + self.log_popularity[torch.from_numpy(classes)].to(self.device)
        logits = logits.masked_fill(history > 0, -torch.inf)
        target = torch.from_numpy(np.searchsorted(classes, points.target)).to(self.device)
        loss = F.cross_entropy(logits, target)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.vectors = self.encode(np.arange(len(self.tokens)))
        self.cache.copy_(self.vectors)
        self.centre.copy_(self.vectors.mean(0))

    @torch.no_grad()
    def gains(self, rows: np.ndarray) -> np.ndarray:
        points = self.points[rows]
        history = torch.from_numpy(points.weights(len(self.tokens), self.half_life).toarray()).to(self.device)
        scores = self.space(history, self.vectors, self.centre).float().cpu().numpy()
        return target_ndcg(scores, points, 10)


def _lower_activations(encoder: TextEncoder, tokens: Tokens, layers: int) -> np.ndarray:
    """(tokens, width) float32: what enters the first trained layer, for every token of every item."""
    out = np.empty((len(tokens.ids), encoder.width), np.float32)
    everything = np.arange(len(tokens))
    device = next(encoder.parameters()).device
    for bucket in tokens.buckets(everything):
        ids, mask = tokens.padded(bucket, encoder.pad)
        states = encoder.lower(ids.to(device), mask.to(device), layers).cpu()
        out[flat(tokens.offsets[bucket], tokens.lengths[bucket])] = states[mask.bool()].numpy()
    return out


class SequenceTask(Task):
    """The tower learns which success comes next; the softmax is over items of its own rows only.

    A target is predicted from the rows strictly before its timestamp, as at a point of evaluation, so rows of
    one timestamp never explain each other.
    """

    MOST_CLASSES = 1024  # of the softmax: a new random choice each step, and the batch's targets

    def __init__(
        self, run: Run, phase: str, tower: SequenceTower, data: Log, rows: np.ndarray, validation: Points
    ) -> None:
        super().__init__(run, validation)
        self.phase, self.learning_rate = phase, 8e-3
        self.tower, self.data = tower, data
        self.segments = _segments(data, rows, tower.MOST_ROWS)
        self.classes = np.unique(data.item[rows])
        new = np.r_[True, (np.diff(data.time) != 0) | (np.diff(data.user) != 0)]
        self.group_start = np.maximum.accumulate(np.where(new, np.arange(len(data)), 0))

    def training_step(self, batch: np.ndarray, index: int) -> Tensor | None:
        start, stop = self.segments[batch].T
        rows = start[:, None] + np.arange(int((stop - start).max()))
        inside = rows < stop[:, None]
        rows = np.where(inside, rows, 0)
        before = self.group_start[rows] - start[:, None]  # rows of the segment strictly earlier
        sequence, place = np.nonzero(inside & self.data.positive[rows] & (before > 0))
        if not len(sequence):
            return None
        target = self.data.item[rows[sequence, place]]
        classes = self.classes
        if len(classes) > self.MOST_CLASSES:
            generator = self.run_.generator(f"{self.phase} {index}", self.current_epoch)
            classes = np.union1d(generator.choice(classes, self.MOST_CLASSES, replace=False), target)
        vectors = self.tower.items()
        item = torch.from_numpy(np.where(inside, self.data.item[rows], self.tower.padding)).long()
        liked = torch.from_numpy((self.data.positive[rows] & inside).astype(np.int64))
        states = self.tower(item.to(self.device), liked.to(self.device), vectors)
        index_of = torch.from_numpy(classes).long().to(self.device)
        chosen = states[torch.from_numpy(sequence), torch.from_numpy(before[sequence, place])]
        logits = chosen @ vectors[index_of].T + self.tower.bias[index_of]
        goal = torch.from_numpy(np.searchsorted(classes, target)).to(self.device)
        loss = F.cross_entropy(logits, goal)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss


def _segments(data: Log, rows: np.ndarray, length: int) -> np.ndarray:
    """(segments, 2) row spans [start, stop) of at most `length` rows of one user, among the mask's rows."""
    chosen = np.flatnonzero(rows)
    if not len(chosen):
        return np.zeros((0, 2), np.int64)
    new = np.r_[True, (np.diff(data.user[chosen]) != 0) | (np.diff(chosen) != 1)]
    start = np.flatnonzero(new)
    place = np.arange(len(chosen)) - np.repeat(start, np.diff(np.r_[start, len(chosen)]))
    begin = np.flatnonzero(place % length == 0)
    return np.stack([chosen[begin], chosen[np.r_[begin[1:], len(chosen)] - 1] + 1], axis=1)


@dataclass(frozen=True)
class Candidates:
    """Sampled candidates of many points: what the scorer is fitted on."""

    features: np.ndarray  # (points, candidates, features) float16
    log_weight: np.ndarray  # (points, candidates) float32: log of how many items a candidate stands for
    target: np.ndarray  # (points,) int64 position of the item taken
    weight: np.ndarray  # (points,) float32, mean 1


class ScorerTask(Task):
    """Listwise softmax over a point's candidates, each standing for the items that it was drawn from."""

    weight_decay = 1e-3

    def __init__(
        self,
        run: Run,
        phase: str,
        scorer: FusionScorer,
        sample: Candidates,
        validation: Points,
        validation_sample: Candidates,
    ) -> None:
        super().__init__(run, validation)
        self.validation_sample = validation_sample
        self.phase, self.learning_rate = phase, 2e-3
        self.scorer, self.sample = scorer, sample

    @torch.no_grad()
    def gains(self, rows: np.ndarray) -> np.ndarray:
        """Among the hardest candidates alone: what stands above the target is nearly always one of them."""
        sample = self.validation_sample
        features = torch.from_numpy(sample.features[rows].astype(np.float32)).to(self.device)
        scores = self.scorer(features).cpu().numpy()
        scores[sample.log_weight[rows] < -1e8] = -np.inf
        rank = (scores >= scores[np.arange(len(rows)), sample.target[rows]][:, None]).sum(axis=1)
        return np.where(rank <= 10, 1 / np.log2(1 + rank), 0)

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        features = torch.from_numpy(self.sample.features[batch].astype(np.float32)).to(self.device)
        logits = self.scorer(features) + torch.from_numpy(self.sample.log_weight[batch]).to(self.device)
        target = torch.from_numpy(self.sample.target[batch]).to(self.device)
        weight = torch.from_numpy(self.sample.weight[batch]).to(self.device)
        loss = (F.cross_entropy(logits, target, reduction="none") * weight).mean()
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss


class Curves(Callback):
    """Loss and validation nDCG@10 of every epoch, for the report."""

    def __init__(self, run: Run, task: Task) -> None:
        self.run, self.task = run, task

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for metric in ("loss", NDCG):
            if metric in figures:
                row = {"phase": self.task.phase, "step": trainer.global_step, "metric": metric}
                self.run.curves.append({**row, "value": figures[metric]})
        if trainer.is_global_zero:
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            log.info("%s: epoch %d: %s", self.task.phase, trainer.current_epoch + 1, text)

    def state_dict(self) -> dict[str, Any]:
        return {"curves": [row for row in self.run.curves if row["phase"] == self.task.phase]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.run.curves.extend(state["curves"])


def fit(
    run: Run, task: Task, sampler: EpochSampler, batch_size: int, epochs: int, validate: bool = True
) -> int:
    """Fit a task, or take up its last checkpoint; leaves the best weights in it. Returns its epoch (1..).

    Without `validate` all epochs are run and the last weights stay.
    """
    folder = run.folder / task.phase
    done, last = folder / "done.pt", folder / "last.ckpt"
    if done.exists():
        state = torch.load(done, weights_only=True)
        task.load_state_dict(state["weights"], strict=False)
        run.curves.extend(state["curves"])
        log.info("%s: resumed: already trained", task.phase)
        return int(state["epoch"])
    s = run.settings
    task.total_steps = -(-sampler.taken // batch_size) * epochs // s.accumulate + 1
    # The best is saved before the newest, whose state tells of it: a kill in between loses neither.
    best = ModelCheckpoint(
        folder, "best", monitor=NDCG, mode="max", save_weights_only=True, save_on_train_epoch_end=False
    )
    newest = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks: list[Callback] = [Curves(run, task), newest]
    if validate:
        callbacks += [best, EarlyStopping(NDCG, mode="max", patience=3)]
    trainer = pl.Trainer(
        accelerator="auto",
        devices=s.devices,
        num_nodes=s.num_nodes,
        strategy=s.strategy,
        precision=precision(s.precision),
        accumulate_grad_batches=s.accumulate,
        max_epochs=epochs,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        logger=False,
        limit_val_batches=1 if validate else 0,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    if last.exists():
        log.info("%s: resumed from epoch %d", task.phase, _epoch(last))
    trainer.fit(task, Data(sampler, batch_size, 1), ckpt_path=str(last) if last.exists() else None)
    epoch = trainer.current_epoch
    if validate and best.best_model_path:
        state = torch.load(best.best_model_path, weights_only=False)
        task.load_state_dict(state["state_dict"], strict=False)
        epoch = int(state["epoch"]) + 1
    if trainer.is_global_zero:
        curves = [row for row in run.curves if row["phase"] == task.phase]
        _save(done, {"weights": task.state_dict(), "epoch": epoch, "curves": curves})
    return epoch


def precision(wanted: str) -> str:
    """auto: bf16 where the processor computes in it; on others it is emulated, a hundred times slower."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if has else "32-true"


def target_ndcg(scores: np.ndarray, points: Points, k: int) -> np.ndarray:
    """(points,) nDCG@k of one target each, among items not in the history; ties count against."""
    scores = np.nan_to_num(scores, nan=-np.inf)  # a copy
    point, row = points.rows()
    scores[point, points.log.item[row]] = -np.inf
    target = scores[np.arange(len(points)), points.target]
    rank = (scores >= target[:, None]).sum(axis=1)
    return np.where((rank <= k) & (target > -np.inf), 1 / np.log2(1 + np.maximum(rank, 1)), 0)


def _epoch(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=False, map_location="cpu")["epoch"]) + 1


def _save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    torch.save(content, beside)
    beside.rename(path)
