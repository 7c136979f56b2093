"""What Lightning calls during a training: curves, progress on a terminal or in a log, checkpoints."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

from pipeline.training.task import Run, Task

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 60.0
LINE_SECONDS = 20.0  # between lines of progress


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
