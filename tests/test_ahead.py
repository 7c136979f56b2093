"""The towers of ablations that a second process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from histories_by_hand import log_of
from waiting import until

from pipeline.data.histories import Log
from pipeline.params import Params
from pipeline.training import ahead
from pipeline.training.cost import Meter
from pipeline.training.fitting import DONE
from pipeline.training.sequence_task import fit_sequence
from pipeline.training.split import Cut, Split
from pipeline.training.task import Run

ITEMS = 30
TEXTS = {
    "frozen_text": np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32),
    "without_text": None,
}


def small() -> tuple[Log, Split]:
    generator = np.random.default_rng(0)
    rows = [(user, int(generator.integers(ITEMS)), time) for user in range(40) for time in range(12)]
    log = log_of(rows, ITEMS)
    inner = log.time < 8
    later = log.points(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
    return log, Split([Cut(inner, later)], np.ones(len(log), bool), later)


def context(folder: Path) -> Run:
    return Run(Params.load(Path("params.yaml")).finetune, 1, folder)


@pytest.mark.slow
def test_whoever_trains_a_tower_its_weights_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "FEWEST_ROWS", 0)
    monkeypatch.setattr(ahead, "processors", lambda: 2)
    log, rows = small()
    run, alone = context(tmp_path / "ahead"), context(tmp_path / "alone")
    meter = Meter(run.folder, run.phases)
    with ahead.trained_ahead(run, log, rows, ITEMS, TEXTS) as wait:
        for name, vectors in TEXTS.items():
            wait(name)
            found = expected = None
            for phase, mask in ahead.stretches(name, rows):
                assert (run.folder / phase / DONE).is_file()
                found = fit_sequence(run, log, mask, vectors, ITEMS, phase, found)
                expected = fit_sequence(alone, log, mask, vectors, ITEMS, phase, expected)
            assert found is not None
            assert expected is not None
            for key, weights in expected.weights.items():
                np.testing.assert_allclose(found.weights[key], weights, atol=1e-6)
    assert run.curves == alone.curves
    used = meter.stop()
    assert {phase for phase, _ in ahead.stretches("without_text", rows)} <= set(used["seconds_by_phase"])
    assert 0.1 < used["peak_gib"] - Meter(alone.folder, alone.phases).stop()["peak_gib"] < 4


def test_where_it_does_not_pay_nothing_is_started(tmp_path: Path) -> None:
    log, rows = small()
    with ahead.trained_ahead(context(tmp_path), log, rows, ITEMS, TEXTS) as wait:
        wait("frozen_text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_none_behind(tmp_path: Path) -> None:
    script = """if __name__ == "__main__":
        import sys, time, multiprocessing
        from pathlib import Path
        sys.path.insert(0, "tests")
        import test_ahead as own
        from pipeline.training import ahead
        ahead.FEWEST_ROWS, ahead.processors = 0, lambda: 2
        log, rows = own.small()
        with ahead.trained_ahead(own.context(Path(sys.argv[1])), log, rows, own.ITEMS, own.TEXTS):
            print(multiprocessing.active_children()[0].pid, flush=True)
            time.sleep(3000)
    """
    path = tmp_path / "script.py"
    path.write_text(script.replace("\n        ", "\n    "))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    first = subprocess.Popen(
        [sys.executable, path, tmp_path / "run"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert first.stdout is not None
    other = int(first.stdout.readline())
    os.kill(other, 0)
    first.kill()
    first.wait()
    try:
        until(lambda: not _lives(other))
    finally:
        if _lives(other):
            os.kill(other, signal.SIGKILL)


def _lives(process: int) -> bool:
    """A zombie that nobody waits for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
