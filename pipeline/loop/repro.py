"""`dvc` as a process of its own: nothing of it is imported here, and nothing of it outlives us.

A killed dvc orphans the stage it runs, which later overwrites its successor's outputs. So dvc and its stages
get a process group of their own: interrupted, we interrupt, then kill, the whole group. Killed, we cannot: so
dvc's process holds the end of a pipe, which says when we are gone, and kills the group then, whatever shells
stand between it and the stage.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.errors import PipelineError
from pipeline.registry.objects import locked
from pipeline.run import ENVIRONMENT, ERROR_FILE, PERMANENT

log = logging.getLogger(__name__)
Status = TypeVar("Status")
GRACE_SECONDS = 10
NOT_CACHED = 254
# An output that could not be copied into the cache (a full disk) dvc logs, and takes the stage for done.
# Its record of runs (cache/runs), which worktrees share, is written beside the records that another dvc lists
# and deletes as damaged while they are half written: so one at a time, under a lock that ends with us.
_DVC = f"""
import fcntl, logging, os, signal, sys, threading

def end_with_parent(pipe):
    os.read(pipe, 1)  # nothing is ever written: it returns when the other end is closed
    os.killpg(0, signal.SIGKILL)

lost = []

def note(record):
    lost.extend([record.exc_info[1]] if record.levelno >= logging.ERROR and record.exc_info else [])
    return True

threading.Thread(target=end_with_parent, args=[int(sys.argv[1])], daemon=True).start()
logging.getLogger("dvc_data.hashfile.transfer").addFilter(note)
# Its hints would come after every call: to `git add` what the next call changes again, to push to no remote.
logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
from dvc.cli import main
from dvc.stage.cache import StageCache
from dvc.ui import ui

def alone(method):
    def locked(runs, *arguments):
        os.makedirs(runs.cache_dir, exist_ok=True)
        folder = os.open(runs.cache_dir, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            return method(runs, *arguments)
        finally:
            os.close(folder)
    return locked

StageCache._load, StageCache.save = alone(StageCache._load), alone(StageCache.save)
write = ui.write
ui.write = lambda *text, **how: None if "`dvc push`" in str(text[:1]) else write(*text, **how)
code = main(sys.argv[2:])
if not code and lost and sys.argv[2] == "repro":
    with open(os.environ["{ERROR_FILE}"], "w") as file:
        file.write(f"an output did not get into DVC's cache: {{lost[0]}}: mend that and run again")
    code = {NOT_CACHED}
sys.exit(code)
"""


class StageFailed(PipelineError):
    """A stage ended with an error; the message is the stage's own where it gave one."""


def repro(root: Path, *arguments: str, show: bool = True) -> None:
    """`dvc repro ARGUMENTS`; `show`: also its output. Raises StageFailed with the stage's own line.

    Also where an output did not get into the cache: dvc.lock is put back then, since a stage that it calls
    done is never taken up again.
    """
    lock = root / "dvc.lock"
    before = lock.read_bytes() if lock.is_file() else None
    with tempfile.TemporaryDirectory(prefix="evergreen-") as folder:
        error_file = Path(folder) / "error"
        code, _, _ = _run(root, ["repro", *arguments], {ERROR_FILE: str(error_file)}, show)
        if code == NOT_CACHED:
            lock.unlink()  # first: there may be no room for two
            if before is not None:
                lock.write_bytes(before)
        if code:
            said = error_file.read_text(encoding="utf-8") if error_file.is_file() else ""
            line = said.strip().removeprefix(PERMANENT).removeprefix("error: ")
            silent = "ended without a word, as if killed (out of memory?): the log says more"
            failed = StageFailed(line or f"`dvc repro {' '.join(arguments)}` {silent}")
            failed.permanent = said.startswith(PERMANENT)
            raise failed


def status(root: Path) -> dict[str, list[str]]:
    """What changed since each stage last ran, e.g. {"finetune": ["params.yaml: seed", "models/champion"]}."""
    return _status(root, _changes)


def restore(root: Path) -> list[str]:
    """Put the last outputs back of the stages that lack one; those whose outputs are all there again.

    What a failed stage left half written goes with it. A stage that never ran through has none to put back.
    """
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else None
    ever = {out["path"] for out in locked(text, "outs")}
    broken = {
        stage: paths
        for stage, paths in _status(root, _outputs).items()
        if "deleted" in paths.values() and not ever.isdisjoint(paths)
    }
    whole = []
    for stage, paths in broken.items():
        code, _, error = _run(root, ["checkout", "--force", "--quiet", *paths], {}, show=False)
        if code == 0 and all((root / path).exists() for path in paths):
            whole.append(stage)
        else:
            log.info("the last outputs of %s are not in the DVC cache %s", stage, error.strip())
    return whole


def check_out(root: Path) -> None:
    """Put in place what dvc.lock names and the cache holds; the rest is missing then."""
    code, _, error = _run(root, ["checkout", "--force", "--quiet", "--allow-missing"], {}, show=False)
    if code:
        log.info("not all of the last outputs are in the DVC cache %s", error.strip())


def transfer(root: Path, verb: Literal["push", "pull"], targets: Iterable[str] = ()) -> None:
    """Stages or outputs (default: all) to or from the remote. Raises PipelineError with dvc's own line."""
    code, _, error = _run(root, [verb, "--quiet", *targets], {}, show=False)
    if code:
        lines = [line for line in error.splitlines() if line.startswith("ERROR: ")] or [f"exit code {code}"]
        raise PipelineError(f"`dvc {verb}`: {lines[0].removeprefix('ERROR: ')}: see `dvc remote list`")


def _status(root: Path, read: Callable[[list[Any]], Status]) -> dict[str, Status]:
    code, output, error = _run(root, ["status", "--json"], {}, show=False)
    try:
        status = json.loads(output)
    except ValueError:
        lines = [line for line in error.splitlines() if line.startswith("ERROR: ")] or ["no output"]
        raise PipelineError(f"`dvc status` failed ({code}): {lines[0].removeprefix('ERROR: ')}") from None
    return {stage: read(entries) for stage, entries in status.items()}


def _outputs(entries: list[Any]) -> dict[str, str]:
    """path -> deleted, modified ... of one stage's outputs."""
    states: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, dict):
            states |= entry.get("changed outs", {})
    return states


def _changes(entries: list[Any]) -> list[str]:
    """The paths of one stage's entry in `dvc status --json`; params with their keys."""
    names: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            names.append(entry)  # "changed command", "always changed"
            continue
        for change in entry.values():
            for path, what in change.items():
                names += [f"{path}: {key}" for key in what] if isinstance(what, dict) else [path]
    return list(dict.fromkeys(names))


def _run(root: Path, arguments: list[str], environment: dict[str, str], show: bool) -> tuple[int, str, str]:
    """(exit code, standard output, standard error), the latter two if not shown."""
    _forget_killed(root)
    binaries = str(Path(sys.executable).parent)  # stages say `python`: ours
    path = f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _DVC, str(theirs), *arguments],
            cwd=root,
            env={**ENVIRONMENT, **os.environ, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=[theirs],
        )
        try:
            output, error = process.communicate()
        except BaseException:
            _stop(process)
            raise
    finally:
        os.close(theirs)
        os.close(ours)
    if process.returncode < 0:  # killed, by us or by somebody else
        _signal(process, signal.SIGKILL)
    return process.returncode, output or "", error or ""


def _forget_killed(root: Path) -> None:
    """Wait until a killed dvc of ours is gone, and remove what it had locked.

    DVC takes it for running as long as any process has its number: until its exit status is collected, which
    may take a while, or for good where another process got the number (a container that was started again).
    One that was started by hand is left to DVC.
    """
    file, deadline = root / ".dvc" / "tmp" / "rwlock", time.monotonic() + GRACE_SECONDS
    while holders := _holders(file):
        if not any(_is_ours(pid) for pid in holders):
            file.unlink(missing_ok=True)
        elif time.monotonic() > deadline:
            return
        else:
            time.sleep(0.05)


def _holders(file: Path) -> set[int]:
    """Processes that DVC's locks name, if all of them were started as `_run` does."""
    try:
        locks = json.loads(file.read_text(encoding="utf-8"))
        infos = [*locks["write"].values(), *(info for readers in locks["read"].values() for info in readers)]
        ours = all(info["cmd"].startswith("-c ") for info in infos)
        return {int(info["pid"]) for info in infos} if ours and Path("/proc/self").exists() else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _is_ours(pid: int) -> bool:
    """Whether it is a dvc of ours that still runs; one that has ended has no command line any more."""
    try:
        return b"end_with_parent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt the group, give it time to tidy up, then kill what is left of it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if _signal(process, number) and _ended(process):
                break
    finally:  # also when the user has no patience
        _signal(process, signal.SIGKILL)
        process.wait()


def _ended(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
