"""One way to fit every task with Lightning: early stopping on validation nDCG@10, resumed after a kill."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from pipeline.errors import ConfigError
from pipeline.params import Finetune
from pipeline.training.progress import Bar, Curves, Lines, Saved
from pipeline.training.task import Batches, Run, Task

log = logging.getLogger(__name__)
DONE = "done.pt"  # of a task that is trained
CPUINFO = Path("/proc/cpuinfo")  # names who made the processor


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
    del trainer
    give_back()
    return epoch


def give_back() -> None:
    """Memory that nothing uses: a Trainer's cycles hold the arrays of its task, glibc what was freed."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another system's library
        ctypes.CDLL(None).malloc_trim(0)


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
    """auto: bf16 where a GPU has units for it, or the processor is quicker in it."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if _quicker_in_bfloat16() else "32-true"


def _quicker_in_bfloat16() -> bool:
    """By tiles (AMX) it is, without instructions for it (emulated) a hundred times slower. By AVX512's own it
    depends on who made the processor (docs/log.md): text training takes 1.4 times as long as in float32 on
    Intel's, a third of the time on AMD's, where MKL multiplies float32 at half of what the processor can."""
    if torch.cpu._is_amx_tile_supported():
        return True
    with suppress(OSError):  # another system
        return torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in CPUINFO.read_text()
    return False


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
