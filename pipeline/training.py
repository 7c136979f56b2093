"""Lightning: what all tasks share, and one way to fit them, with early stopping on validation nDCG@10.

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
from torch.utils.data import DataLoader, Sampler

from pipeline.histories import Points
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
    """Common to the tasks of pipeline/tasks.py: the optimiser, and validation nDCG@10 over live histories."""

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
