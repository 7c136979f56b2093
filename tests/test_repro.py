"""dvc as a process: what a killed one leaves behind stops nobody."""

import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy

from pipeline.loop.repro import _forget_killed, repro

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


@pytest.mark.slow
def test_a_record_that_another_dvc_is_writing_is_waited_for(tmp_path: Path) -> None:
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        toy.git(root, "init", "-q")
        toy.dvc(root, "init", "-q")
        toy.dvc(root, "cache", "dir", "--local", str(tmp_path / "cache"))
        (root / "given").write_text("rows")
        (root / "dvc.yaml").write_text("stages: {copy: {cmd: cp given made, deps: [given], outs: [made]}}")
    repro(tmp_path / "one", show=False)
    (record,) = (tmp_path / "cache" / "runs").rglob("?" * 64 + "/" + "?" * 64)
    half = record.with_name(".half.tmp")
    with ThreadPoolExecutor() as pool:
        folder = os.open(tmp_path / "cache" / "runs", os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            half.touch()
            waits = pool.submit(repro, tmp_path / "two", show=False)
            time.sleep(5)  # in which dvc would have come by and taken it away
            assert half.exists()
            half.write_text(record.read_text())
            half.replace(record)
        finally:
            os.close(folder)
        waits.result()
    assert (tmp_path / "two" / "made").read_text() == "rows"
