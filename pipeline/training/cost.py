"""What a training cost over all its tries: seconds of clock and processor, peak memory, energy (an estimate).

Noted every few seconds.

A try that is killed leaves its last note in the folder of the checkpoints, so the one that goes on counts it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.training.energy import Energy, estimated

BESIDE = "beside.json"  # what a process that trains beside the first used in this try
SECONDS = 5.0  # between notes: what a kill can lose


class Phases:
    """Seconds of the clock by phase, in this try; of one under way those so far. One at a time."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._now: tuple[str, float] | None = None  # the phase under way, when it began

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        begin = time.monotonic()
        self._now = phase, begin
        try:
            yield
        finally:
            self._now = None
            self._ended[phase] += time.monotonic() - begin  # type: ignore[assignment]

    def seconds(self) -> Counter[str]:
        now = self._now  # another thread asks: read once
        return self._ended + Counter({now[0]: time.monotonic() - now[1]} if now else {})


class Meter:
    """Runs from when it is made until `stop`, in the first process of a training; others note nothing."""

    def __init__(self, folder: Path, phases: Phases) -> None:
        """`folder`: of the training's checkpoints; made where it is absent."""
        self.begin, self.folder, self.phases = time.monotonic(), folder, phases
        self.notes = folder / "tries"
        self.cpu_begin, self.energy = _cpu_seconds(), Energy()
        self.earlier = [json.loads(path.read_text(encoding="utf-8")) for path in self.notes.glob("*.json")]
        self.path = self.notes / f"{len(self.earlier)}.json"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._note, daemon=True)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            (folder / BESIDE).unlink(missing_ok=True)  # that of the try before is in its note
            self._thread.start()

    def _note(self) -> None:
        self.notes.mkdir(parents=True, exist_ok=True)
        while True:
            write_text(self.path, json.dumps(self._try()))
            if self._stopped.wait(SECONDS):
                return

    def _try(self) -> dict[str, Any]:
        seconds, phases = time.monotonic() - self.begin, self.phases.seconds()
        cpu = _cpu_seconds() - self.cpu_begin
        more, beside = _beside(self.folder)
        return {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "peak_gib": _peak_gib() + more,
            "seconds_by_phase": phases + beside,
        }

    def stop(self) -> dict[str, Any]:
        """Of all tries: seconds, cpu_seconds, energy, seconds_by_phase; peak_gib: the most of any."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()  # nothing is written into the folder any more
        last = self._try()
        tries, used = [*self.earlier, last], ("cpu_seconds", "seconds", "peak_gib")
        energy, by = self.energy.stop(*(last[name] for name in used))
        energy += sum(estimated(*(note[name] for name in used)) for note in self.earlier)
        phases: Counter[str] = sum((Counter(note["seconds_by_phase"]) for note in tries), Counter())
        return {
            "seconds": round(sum(note["seconds"] for note in tries), 1),
            "cpu_seconds": round(sum(note["cpu_seconds"] for note in tries), 1),
            "energy_wh_estimate": round(energy, 3),
            "energy_estimated_by": by,
            "peak_gib": round(max(note["peak_gib"] for note in tries), 2),
            "seconds_by_phase": {phase: round(seconds, 1) for phase, seconds in phases.items()},
        }


def _cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def note_beside(folder: Path, phases: Phases) -> None:
    """Of a process that trains beside the first: its phases, and its peak memory where the system tells it.

    getrusage would give the memory of the process that started it, if that was larger.
    """
    status = Path("/proc/self/status")
    [kib] = re.findall(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else [0]
    told = {"peak_gib": int(kib) / 2**20, "seconds_by_phase": phases.seconds()}
    write_text(folder / BESIDE, json.dumps(told))


def _beside(folder: Path) -> tuple[float, Counter[str]]:
    """(peak GiB, seconds by phase) of that process."""
    noted = folder / BESIDE
    told = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}
    return told.get("peak_gib", 0.0), Counter(told.get("seconds_by_phase", {}))
