"""`python -m pipeline`, the dvc that it starts, and `dvc` itself, out of a process that has loaded both.

Forked, which saves half a second of CPU time each.

What is asked for is a line of JSON on standard input, the answer a line with exit code and CPU seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, Literal

# All that a cycle, a run's step, and `dvc repro`, `status` and `checkout` import on their way.
LOADED = ["pipeline.cli", "pipeline.loop.cycle", "pipeline.runs.workspace", "dvc.cli", "dvc.dependency.param"]
LOADED += ["dvc.repo.checkout", "dvc.repo.reproduce", "dvc.repo.status", "dvc.stage.cache", "dvc.stage.run"]


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
        self, module: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with tempfile.TemporaryDirectory() as told:
            out, err = Path(told) / "out", Path(told) / "err"
            asked = [module, arguments, str(folder.absolute()), environment, str(out), str(err)]
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
    module: Literal["pipeline", "dvc"], arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """`python -m module`. One at a time; what another thread asks for meanwhile is a process of its own."""
    server = _server()
    if server.busy.acquire(blocking=False):
        try:
            return server.run(module, arguments, folder, environment)
        finally:
            server.busy.release()
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _serve() -> None:
    sys.path[0] = ""  # the folder that a command runs in, as for `python -m`
    for name in LOADED:
        importlib.import_module(name)
    importlib.import_module("dvc.cli.parser").get_main_parser()  # imports every command
    fork_exec = subprocess._fork_exec  # type: ignore[attr-defined]
    subprocess._fork_exec = functools.partial(_fork_dvc, fork_exec)  # type: ignore[attr-defined]
    answers = os.fdopen(os.dup(1), "w")
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_call(*json.loads(line)))
        _, status, used = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, file=answers, flush=True)


def _fork_dvc(fork_exec: Any, arguments: list[bytes], *others: Any) -> int:
    """Instead of a new interpreter where repro.py starts dvc; its parent sees no difference.

    `others`: as `subprocess.Popen` hands them on.
    """
    from pipeline.loop import repro

    words = [os.fsdecode(word) for word in arguments]
    if words[1:3] != ["-c", repro._DVC]:
        return int(fork_exec(arguments, *others))
    if child := os.fork():
        return child
    code = 1
    try:
        _enter(*others)
        sys.argv = ["-c", *words[3:]]
        exec(compile(repro._DVC, "<dvc>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):  # nobody may read it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _enter(*others: Any) -> None:
    """What the kernel and the interpreter do for a process that is started."""
    _, _, kept, folder, variables, stdin, _, _, stdout, _, stderr, _, success, *_ = others
    os.setsid()
    for number, file in enumerate((stdin, stdout, stderr)):
        if file != -1:
            os.dup2(file, number)
    for file in map(int, os.listdir("/proc/self/fd")):
        if file > 2 and file not in set(kept) - {success}:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    for variable in variables:
        name, _, value = os.fsdecode(variable).partition("=")
        os.environ[name] = value
    logging.root.handlers.clear()
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).setLevel(logging.INFO)  # as importing dvc leaves it


def _call(
    module: str, arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str
) -> int:
    import dvc.cli

    import pipeline.cli

    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["evergreen" if module == "pipeline" else "dvc", *arguments]
    code = 1
    try:
        if module == "dvc":
            code = dvc.cli.main(arguments)
        else:
            pipeline.cli.main()  # which ends the process itself
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
