"""`python -m pipeline` out of a process that has loaded it already: forked, which saves half a second each.

What is asked for is a line of JSON on standard input, the answer a line with exit code and CPU seconds.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any


class Server:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.busy, self.seconds = threading.Lock(), 0.0
        atexit.register(self.end)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(
        self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with tempfile.TemporaryDirectory() as told:
            out, err = Path(told) / "out", Path(told) / "err"
            asked = [arguments, str(folder.absolute()), environment, str(out), str(err)]
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            code, seconds = self.process.stdout.readline().split()
            self.seconds += float(seconds)
            return subprocess.CompletedProcess(arguments, int(code), out.read_text(), err.read_text())


@functools.cache
def _server() -> Server:
    return Server()


def seconds() -> float:
    """CPU seconds of all that ran so far."""
    return _server().seconds


def run(
    arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """One at a time; what another thread asks for meanwhile is a process of its own."""
    server = _server()
    if server.busy.acquire(blocking=False):
        try:
            return server.run(arguments, folder, environment)
        finally:
            server.busy.release()
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _serve() -> None:
    sys.path[0] = ""  # the folder that a command runs in, as for `python -m`
    import pipeline.cli
    import pipeline.loop.cycle
    import pipeline.runs.workspace

    answers = os.fdopen(os.dup(1), "w")
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_call(pipeline.cli.main, *json.loads(line)))
        _, status, used = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, file=answers, flush=True)


def _call(
    main: Any, arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str
) -> int:
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["evergreen", *arguments]
    code = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
