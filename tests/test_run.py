import signal
import subprocess
import sys

import pytest

from pipeline.errors import DataError
from pipeline.run import ERROR_FILE, guarded

STAGE = """
import sys, time
from pipeline.run import run
def main() -> None:
    print("ready", flush=True)
    time.sleep(60)
run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_stage_says_one_line(number):
    command = [sys.executable, "-c", STAGE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.startswith("error: interrupted: run it again to go on")
    assert error.count("\n") == 1


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


def test_error_line_goes_to_the_file_that_is_asked_for(tmp_path, monkeypatch, capsys):
    def fail() -> None:
        raise DataError("ratings.csv: row 3:\n no user_id")

    monkeypatch.setenv(ERROR_FILE, str(tmp_path / "error"))
    with pytest.raises(SystemExit) as ended:
        guarded(fail)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: ratings.csv: row 3: no user_id\n"
    assert (tmp_path / "error").read_text() == "error: ratings.csv: row 3: no user_id"


def test_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
