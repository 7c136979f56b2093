"""dvc as a process: what a killed one leaves behind stops nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.loop.repro import _forget_killed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def rwlock(root: Path, pid: int, cmd: str) -> Path:
    file = root / ".dvc" / "tmp" / "rwlock"
    file.parent.mkdir(parents=True)
    held = {"pid": pid, "cmd": cmd}
    file.write_text(json.dumps({"write": {"reports/training": held}, "read": {"data/prepared": [held]}}))
    return file


def test_locks_of_a_killed_dvc_are_removed_though_another_process_has_its_number(tmp_path: Path) -> None:
    file = rwlock(tmp_path, os.getpid(), "-c 4 repro --single-item finetune")
    _forget_killed(tmp_path)
    assert not file.exists()


def test_locks_of_one_started_by_hand_are_left_to_dvc(tmp_path: Path) -> None:
    file = rwlock(tmp_path, os.getpid(), "/usr/bin/dvc repro")
    _forget_killed(tmp_path)
    assert file.exists()


def test_one_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    code = "import time; end_with_parent = time.sleep(1)"
    process = subprocess.Popen([sys.executable, "-c", code])
    file = rwlock(tmp_path, process.pid, "-c 4 repro")
    _forget_killed(tmp_path)  # it is a zombie then: nobody has collected its status
    assert not file.exists()
    assert process.wait() == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"write": {"a": 3}, "read": {}}'])
def test_a_damaged_lock_is_left_to_dvc(tmp_path: Path, content: str) -> None:
    file = rwlock(tmp_path, 1, "-c 4 repro")
    file.write_text(content)
    _forget_killed(tmp_path)
    assert file.read_text() == content
