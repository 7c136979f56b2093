"""What all tasks share: the run they are part of, their batches, the optimiser, validation nDCG@10.

Batches come from (seed, phase, epoch), a step's noise from these and its place, so a run that was killed and
goes on from its last checkpoint, also in the middle of an epoch, ends where an undisturbed one does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.data.histories import Points
from pipeline.params import Finetune
from pipeline.training.cost import Phases

NDCG = "validation_ndcg@10"


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
    """Common to all tasks: the optimiser, and validation nDCG@10 over live histories."""

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
