"""How commands and stages run: in the project's folder, with errors of one line; `run(main)` is a stage's."""

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import ConfigError, PipelineError

ERROR_FILE = "EVERGREEN_ERROR_FILE"
"""Environment variable: a file that gets a stage's error line, for whoever runs the stage through dvc."""
PERMANENT = "permanent "
"""Begins that line where another try would end the same."""

# Before any heavy import: no telemetry, no hub look-ups behind the user's back.
ENVIRONMENT = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "TOKENIZERS_PARALLELISM": "false"}


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux).

    DVC killed while a stage runs leaves the stage as an orphan that later overwrites its successor's outputs.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def end_with_parent() -> None:
    """Of a process that multiprocessing started: end it when its parent has ended, however it did.

    A parent that is killed cannot end what it started. A worker of a pool would wait for its next task for
    good, and whoever reads the parent's output would wait for the worker, which holds it too.
    """
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def explain(error: BaseException) -> str | None:
    """The one line of a user error; None for a bug."""
    if isinstance(error, PipelineError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.errno is not None:
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"error: {error.filename or 'disk'}: no space left on the disk: free some and run again"
        if error.errno in (errno.EACCES, errno.EROFS):
            return f"error: {error.filename}: not writable: change its permissions and run again"
    if _is_interruption(error):
        return "error: interrupted: run it again to go on; `dvc checkout` restores the last outputs"
    return None


def guarded(function: Callable[[], Any], permanent: int = 1) -> Any:
    """Call `function`; end with exit code 1 (130 if interrupted) and one line for a user's error.

    `permanent`: the exit code where another try would end the same.
    """
    try:
        return function()
    except BaseException as error:
        line, path = explain(error), os.environ.get(ERROR_FILE)
        if line is None:
            if path and isinstance(error, Exception):  # whoever runs the stage has no eye on its traceback
                bug = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                Path(path).write_text(f"{bug} (a bug: the traceback is in the log)", encoding="utf-8")
            raise
        line, hopeless = " ".join(line.split()), isinstance(error, PipelineError) and error.permanent
        if path:  # whoever runs the stage says it, once and last
            Path(path).write_text((PERMANENT if hopeless else "") + line, encoding="utf-8")
        else:
            print(line, file=sys.stderr, flush=True)
        raise SystemExit(130 if _is_interruption(error) else permanent if hopeless else 1) from None


def _is_interruption(error: BaseException) -> bool:
    """Also where Lightning made an exit of it."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, KeyboardInterrupt)
    return isinstance(error, KeyboardInterrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Signal handler: end like Ctrl-C does, tidying up on the way."""
    raise KeyboardInterrupt


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def project() -> Path:
    """The folder with params.yaml, here or above; made the working directory."""
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("dvc", "dvc_data", "dvc_objects", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, interrupt)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            return folder
    raise ConfigError(
        f"{here}: neither here nor above are params.yaml and dvc.yaml: go to the project's folder"
    )


def run(main: Callable[..., None]) -> None:
    """Run a stage's `main` with command-line arguments made from its signature."""
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    die_with_parent()
    # Lightning's own handler ends the process with exit code 0, as if the stage had done its work.
    signal.signal(signal.SIGTERM, interrupt)

    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    @functools.wraps(main)
    def command(*arguments: Any, **options: Any) -> None:
        # Inside of typer, which would end an interrupted command without a word.
        guarded(lambda: main(*arguments, **options))

    app(standalone_mode=True)
