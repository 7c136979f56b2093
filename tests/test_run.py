import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE_SECONDS

from pipeline.errors import DataError, PipelineError, Unavailable
from pipeline.run import ERROR_FILE, PERMANENT, guarded

STAGE = """
import sys, time
from pipeline.run import run
def main() -> None:
    print("ready", flush=True)
    time.sleep(3000)
run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_stage_says_one_line(number):
    command = [sys.executable, "-c", STAGE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert error.startswith("error: interrupted: run it again to go on")
    assert error.count("\n") == 1


STAGES = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_ctrl_c_in_a_stage_is_one_line_and_leaves_its_outputs(name, tmp_path):
    """It comes while the stage reads its parameters, which are a pipe here: surely inside of its main."""
    outputs = [next(iter(out)) if isinstance(out, dict) else out for out in STAGES[name].get("outs", [])]
    for out in outputs:
        (tmp_path / out).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / out).write_text("the last good one")
    os.mkfifo(tmp_path / "params.yaml")
    process = subprocess.Popen(
        [sys.executable, *STAGES[name]["cmd"].split()[1:]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        assert process.poll() is None, "the stage ended before it read its parameters"
        try:
            pipe = os.open(tmp_path / "params.yaml", os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(pipe)
    assert process.returncode == 130
    assert error.startswith("error: interrupted")
    assert error.count("\n") == 1
    assert [(tmp_path / out).read_text() for out in outputs] == ["the last good one"] * len(outputs)


def test_interruption_that_became_an_exit_is_one_all_the_same(capsys):
    def end_like_lightning() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as ended:
        guarded(end_like_lightning)
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("error: interrupted")


def test_error_line_goes_to_the_file_that_is_asked_for_and_nowhere_else(tmp_path, monkeypatch, capsys):
    def fail() -> None:
        raise DataError("ratings.csv: row 3:\n no user_id")

    monkeypatch.setenv(ERROR_FILE, str(tmp_path / "error"))
    with pytest.raises(SystemExit) as ended:
        guarded(fail)
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""
    assert (tmp_path / "error").read_text() == f"{PERMANENT}error: ratings.csv: row 3: no user_id"


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("no such file"), 98), (Unavailable("no answer"), 1), (PipelineError("busy"), 1)],
)
def test_a_scheduler_learns_whether_another_try_would_end_the_same(error, code):
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        guarded(fail, permanent=98)
    assert ended.value.code == code


def test_bug_keeps_its_traceback_and_is_named_to_whoever_runs_the_stage(tmp_path, monkeypatch):
    monkeypatch.setenv(ERROR_FILE, str(tmp_path / "error"))
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
    assert (tmp_path / "error").read_text().startswith("ZeroDivisionError: division by zero (a bug")
