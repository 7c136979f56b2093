"""What a training cost over all its tries: seconds and peak memory, noted every few seconds.

A try that is killed leaves its last note in the folder of the checkpoints, so the one that goes on counts it.
"""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path

from pipeline.files import write_text

SECONDS = 5.0  # between notes: what a kill can lose


class Meter:
    """Runs from when it is made until `stop`, in the first process of a training; others note nothing."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of the training's checkpoints; made where it is absent."""
        self.begin, self.notes = time.monotonic(), folder / "tries"
        self.earlier = [json.loads(path.read_text(encoding="utf-8")) for path in self.notes.glob("*.json")]
        self.path = self.notes / f"{len(self.earlier)}.json"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._note, daemon=True)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            self._thread.start()

    def _note(self) -> None:
        self.notes.mkdir(parents=True, exist_ok=True)
        while True:
            write_text(self.path, json.dumps({"seconds": self._seconds(), "peak_gib": _peak_gib()}))
            if self._stopped.wait(SECONDS):
                return

    def _seconds(self) -> float:
        return time.monotonic() - self.begin

    def stop(self) -> tuple[float, float]:
        """(seconds of all tries, GiB at most in any)."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()  # nothing is written into the folder any more
        seconds = self._seconds() + sum(note["seconds"] for note in self.earlier)
        return seconds, max([_peak_gib(), *(note["peak_gib"] for note in self.earlier)])


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
