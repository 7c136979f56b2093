"""Lightning: what all tasks share, and one way to fit them, with early stopping on validation nDCG@10.

Batches come from (seed, phase, epoch), a step's noise from these and its place, so a run that was killed and
goes on from its last checkpoint, also in the middle of an epoch, ends where an undisturbed one does.
"""

from __future__ import annotations

import logging
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.data.histories import Points
from pipeline.errors import ConfigError
from pipeline.params import Finetune
from pipeline.training.cost import Phases

log = logging.getLogger(__name__)
NDCG = "validation_ndcg@10"
CHECKPOINT_SECONDS = 60.0
DONE = "done.pt"  # of a task that is trained
LINE_SECONDS = 20.0  # between lines of progress


@dataclass(frozen=True)
class Run:
    """What all phases of one training share."""

    settings: Finetune
    seed: int
    folder: Path
    """Checkpoints and curves; survives a kill, removed after success."""
    curves: list[dict[str, Any]] = field(default_factory=list)
    phases: Phases = field(default_factory=Phases)

    def generator(self, phase: str, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(phase.encode()), epoch])


class Batches:
    """Positions of points, batch by batch, in a new order each epoch that comes from (seed, phase, epoch).

    Every process gets the whole batch and takes its own part of the work. Lightning keeps the state with its
    checkpoints, so that a run goes on in the middle of an epoch.
    """

    def __init__(self, run: Run, phase: str, size: int, batch_size: int, most: int | None = None) -> None:
        self.run, self.phase, self.size, self.batch_size = run, phase, size, batch_size
        self.taken = min(size, most or size)
        self.epoch = self.position = 0
        self.sampler = self  # which is what Lightning tells the epoch

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        order = self.run.generator(self.phase, self.epoch).permutation(self.size)[: self.taken]
        while self.position < len(self):
            begin = self.position * self.batch_size
            self.position += 1
            yield order[begin : begin + self.batch_size]

    def __len__(self) -> int:
        return -(-self.taken // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class Task(pl.LightningModule):
    """Common to all tasks (models/tasks.py): the optimiser, and validation nDCG@10 over live histories."""

    phase: str
    learning_rate: float
    weight_decay = 0.0
    metric = NDCG  # what validation is measured by: more is better
    total_steps: int

    def __init__(self, run: Run, validation: Points | None = None) -> None:
        super().__init__()
        self.run_, self.points = run, validation
        self.losses: tuple[int, Any, int] = (-1, 0.0, 0)  # epoch; sum over its samples so far; how many

    def on_train_batch_start(self, batch: np.ndarray, index: int) -> None:
        # A step's noise depends on nothing but its place: a run that goes on draws what it would have drawn.
        generator = self.run_.generator(f"{self.phase} {index}", self.current_epoch)
        seed = int(generator.integers(2**31))
        if self.device.type == "cpu":
            # torch.manual_seed notes the stack for each kind of device that is not there: a tenth of a step.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def record(self, loss: Tensor, samples: int) -> Tensor:
        """The loss, noted for the epoch's mean; Lightning's log would do so at the cost of a small step."""
        epoch, total, count = self.losses
        if epoch != self.current_epoch:
            total, count = 0.0, 0
        self.losses = (self.current_epoch, total + samples * loss.detach(), count + samples)
        return loss

    def mean_loss(self) -> float | None:
        """Of the epoch so far; each process knows its own part."""
        _, total, count = self.losses
        if not count:
            return None
        mean = total / count
        return float(self.all_gather(mean).mean() if self.trainer.world_size > 1 else mean)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses = checkpoint["losses"]

    def validation_step(self, batch: np.ndarray, index: int) -> None:
        self.log(self.metric, self.quality(), prog_bar=True, batch_size=1)  # the same in every process

    def quality(self) -> float:
        """Mean over users of nDCG@10 at the validation points; each process ranks its own share of them."""
        assert self.points is not None
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
        return float((sums[0][there] / sums[1][there]).mean()) if bool(there.any()) else 0.0

    def told(self) -> dict[str, str]:
        """What else the progress bar shows."""
        return {}

    def gains(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) nDCG@10 of these validation points; of a task that validates."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        # One pass over the weights instead of a dozen; scaled float16 gradients it cannot clip.
        wanted = self.trainer.precision
        optimiser = torch.optim.AdamW(
            trained, self.learning_rate, weight_decay=self.weight_decay, fused=wanted != "16-mixed"
        )
        if wanted == "bf16-mixed":
            # Nothing is scaled here, yet Lightning does not clip where the optimiser could unscale.
            optimiser._step_supports_amp_scaling = False
        # Of ten steps the tenth to warm up is a single one, over whose length OneCycleLR divides: zero.
        steps = 11 if self.total_steps == 10 else max(2, self.total_steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.learning_rate, total_steps=steps, pct_start=0.1
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Curves(Callback):
    """Loss and validation nDCG@10 of every epoch, for the report."""

    def __init__(self, run: Run, task: Task) -> None:
        self.run, self.task = run, task

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if (loss := self.task.mean_loss()) is not None:
            figures["loss"] = loss
        for metric in ("loss", self.task.metric):
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


class Bar(TQDMProgressBar):
    """The bar on a terminal, with what the task tells of itself, and the time left of all epochs."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.begin, self.first = time.monotonic(), trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"  # counted as in the log
        if isinstance(pl_module, Task):
            self.train_progress_bar.set_description(f"{pl_module.phase}: {epoch}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        told: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        steps, spent = trainer.global_step - self.first, time.monotonic() - self.begin
        if steps and isinstance(pl_module, Task):
            samples = steps * trainer.accumulate_grad_batches * trainer.train_dataloader.batch_size
            left = max(0, pl_module.total_steps - 1 - trainer.global_step) * spent / steps
            told |= {"samples/s": f"{samples / spent:.0f}", **pl_module.told(), "left": f"{left:.0f} s"}
        return told


class Lines(Callback):
    """Where nobody watches a bar, as in a scheduler's log: a line of progress every few seconds."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begin = self.last = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, steps = time.monotonic(), trainer.global_step - self.first
        if now - self.last < LINE_SECONDS or not steps or not isinstance(pl_module, Task):
            return
        self.last = now
        total = pl_module.total_steps - 1
        left = max(0, total - trainer.global_step) * (now - self.begin) / steps
        if trainer.is_global_zero:
            place = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            log.info(
                "%s: %s, step %d of %d, about %.0f s left",
                pl_module.phase,
                place,
                trainer.global_step,
                total,
                left,
            )


class Saved(Callback):
    """Saves everything every few seconds, between two steps of the optimiser."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = torch.tensor(float(time.monotonic() - self.last >= CHECKPOINT_SECONDS))
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not whole or batch_idx + 1 == trainer.num_training_batches:  # the epoch's end has its own
            return
        if bool(trainer.strategy.broadcast(due)):  # all processes save, or none
            trainer.save_checkpoint(self.path)
            self.last = time.monotonic()


def fit(
    run: Run, task: Task, batches: Batches, epochs: int, validate: bool = True, processes: bool = False
) -> int:
    """Fit a task, or take up its last checkpoint; leaves the best weights in it. Returns its epoch (1..).

    Without `validate` all epochs are run and the last weights stay. With `processes` on all devices that the
    settings name; their processes end here, all but the first.
    """
    done = run.folder / task.phase / DONE
    if done.exists():
        state = torch.load(done, weights_only=True)
        task.load_state_dict(state["weights"], strict=False)
        run.curves.extend(state["curves"])
        log.info("%s: resumed: already trained", task.phase)
        return int(state["epoch"])
    with run.phases.of(task.phase):
        trainer, epoch = _fitted(run, task, batches, epochs, validate, processes)
    if trainer.world_size > 1:
        _end_others(trainer)
    return epoch


def _fitted(
    run: Run, task: Task, batches: Batches, epochs: int, validate: bool, processes: bool
) -> tuple[pl.Trainer, int]:
    folder = run.folder / task.phase
    last = folder / "last.ckpt"
    # The best is saved before the newest, whose state tells of it: a kill in between loses neither.
    best = ModelCheckpoint(
        folder, "best", monitor=task.metric, mode="max", save_weights_only=True, save_on_train_epoch_end=False
    )
    newest = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks: list[Callback] = [Curves(run, task), Saved(last), newest]
    if validate:
        callbacks += [best, EarlyStopping(task.metric, mode="max", patience=3)]
    settings = run.settings if processes else run.settings.model_copy(update=ALONE)
    # The last batches of an epoch make a step, however few they are.
    task.total_steps = -(-len(batches) // settings.accumulate) * epochs + 1
    trainer = _trainer(settings, epochs, callbacks, int(validate))
    if last.exists():
        state = torch.load(last, weights_only=False, map_location="cpu")
        log.info("%s: resumed from epoch %d, step %d", task.phase, state["epoch"] + 1, state["global_step"])
    # One empty batch to validate: the task ranks its own share of the points itself.
    once: DataLoader[Any] = DataLoader(range(1), 1, collate_fn=np.asarray)  # type: ignore[arg-type]
    trainer.fit(task, batches, once, ckpt_path=str(last) if last.exists() else None)
    epoch = trainer.current_epoch
    if validate and best.best_model_path:
        state = torch.load(best.best_model_path, weights_only=False)
        task.load_state_dict(state["state_dict"], strict=False)
        epoch = int(state["epoch"]) + 1
    if trainer.is_global_zero:
        curves = [row for row in run.curves if row["phase"] == task.phase]
        _save(folder / DONE, {"weights": task.state_dict(), "epoch": epoch, "curves": curves})
    return trainer, epoch


ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate": 1, "precision": "32-true"}
"""Of what is small, whose batches have sizes of their own and whose scores need every digit."""


def check(settings: Finetune) -> None:
    """Raises ConfigError for devices or a strategy that Lightning refuses, before anything is done."""
    try:
        _trainer(settings, 0, [], 0)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        keys = ("devices", "num_nodes", "strategy", "precision")
        given = ", ".join(f"{key}: {getattr(settings, key)}" for key in keys)
        raise ConfigError(f"params.yaml: finetune ({given}): {error}") from None


def _trainer(s: Finetune, epochs: int, callbacks: list[Callback], validations: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator="auto",
        devices=s.devices,
        num_nodes=s.num_nodes,
        strategy=s.strategy,
        precision=precision(s.precision),
        accumulate_grad_batches=s.accumulate,
        max_epochs=epochs,
        gradient_clip_val=1.0,
        callbacks=[*callbacks, Bar() if sys.stderr.isatty() else Lines()],
        logger=False,
        limit_val_batches=validations,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )


def _end_others(trainer: pl.Trainer) -> None:
    """What follows is small: the first process does it, the others end."""
    first = trainer.is_global_zero
    trainer.strategy.barrier()
    torch.distributed.destroy_process_group()
    if not first:
        sys.exit(0)


def precision(wanted: str) -> str:
    """auto: bf16 where the processor computes in it; on others it is emulated, a hundred times slower."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if has else "32-true"


def target_ndcg(scores: np.ndarray, points: Points, k: int) -> np.ndarray:
    """(points,) nDCG@k of one target each, among items that may be listed; ties count against."""
    scores = np.nan_to_num(scores, nan=-np.inf)  # a copy
    scores[points.excluded()] = -np.inf
    target = scores[np.arange(len(points)), points.target]
    rank = (scores >= target[:, None]).sum(axis=1)
    return np.where((rank <= k) & (target > -np.inf), 1 / np.log2(1 + np.maximum(rank, 1)), 0)


OUT_OF_MEMORY = ("out of memory", "can't allocate", "bad_alloc", "could not create a primitive")
"""What GPUs, torch, C++ and oneDNN say of it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of processor and GPU alike."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def _save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    torch.save(content, beside)
    beside.rename(path)
