"""Whole processes, measured: `python -m MODULE ...` and all that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.errors import DataError


def measured(module: str, *arguments: Path | str, folder: Path | None = None) -> dict[str, float]:
    """CPU and wall seconds, and most GiB of memory, of it and what it starts, until it ends in `folder`.

    Raises DataError with its last line if it fails.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=told, stderr=told, cwd=folder)
        beside, most = _watched(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            last = told.read().decode(errors="replace").strip().splitlines()[-1:]
            raise DataError(f"{module}: failed with {process.returncode}: {''.join(last)}")
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime + sum(beside.values()),
        "wall_seconds": time.perf_counter() - begin,
        "peak_gib": max(used.ru_maxrss * 2**10, most) / 2**30,
    }


def _watched(pid: int) -> tuple[dict[int, float], int]:
    """Until it ends: CPU seconds of each process that it leaves (Spark's Java; its own seconds hold those of
    others), and most bytes of all at once."""
    beside: dict[int, float] = {}
    most = 0
    with suppress(psutil.NoSuchProcess):
        whole = psutil.Process(pid)
        while True:
            memory, now = whole.memory_info().rss, {}
            for each in whole.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    memory += each.memory_info().rss
                    now[each.pid] = each.cpu_times().user + each.cpu_times().system
            if whole.status() == psutil.STATUS_ZOMBIE:
                break
            most, beside = max(most, memory), now
            time.sleep(0.5)
    return beside, most
