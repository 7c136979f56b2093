"""Time and memory of a device, `cpu` or `cuda`."""

from __future__ import annotations

import resource
import time

import torch


def now(device: str) -> float:
    """CPU seconds of this process; of an accelerator those of the clock, when its work so far is done."""
    if device == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def peak_gib(device: str) -> float:
    """The most memory so far: of this process, or of its tensors on the accelerator."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.cuda.max_memory_allocated() / 2**30
