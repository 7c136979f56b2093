"""`evergreen workspace ...`: the loop's steps for a scheduler, each with DAG and run as its first arguments.

Not in `--help`: people say `evergreen cycle`. The last line on standard output is one JSON object; its `text`
is for people. Exit code 99: skipped; 98: failed, and another try would end the same. A step dies with the
scheduler's processes that started it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

SKIPPED, PERMANENT = 99, 98
SCHEDULERS = ("airflow", "celery")

Dag = Annotated[str, typer.Argument(help="e.g. evergreen_training.")]
Run = Annotated[str, typer.Argument(help="The run's id.")]


def open_(
    dag: Dag,
    run: Run,
    graph: Annotated[str | None, typer.Option(help="sha256 of the dvc.yaml that was compiled.")] = None,
    as_of: Annotated[str | None, typer.Option()] = None,
    mode: Annotated[str | None, typer.Option(help="none, judge, refresh or full.")] = None,
    encoder: Annotated[str | None, typer.Option()] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    reason: Annotated[str | None, typer.Option()] = None,
    after: Annotated[str | None, typer.Option(help="Branch of the run that asked for this one.")] = None,
    refused: Annotated[str | None, typer.Option(help="Why it cannot be run as asked for.")] = None,
) -> None:
    """Make the run's worktree."""
    from pipeline.runs.worktrees import Settings

    settings = Settings(as_of, mode, encoder, epochs, reason, after)
    _take(dag, run, "begin", graph, settings, refused)


def stage(dag: Dag, run: Run, name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")]) -> None:
    """Run one stage in it."""
    _take(dag, run, "stage", name)


def promote(
    dag: Dag,
    run: Run,
    approved_by: Annotated[str | None, typer.Option(help="The person who said yes.")] = None,
    refused: Annotated[str | None, typer.Option(help="Why it cannot be promoted.")] = None,
) -> None:
    """Promote its challenger, if that is allowed."""
    _take(dag, run, "promote", approved_by, refused)


def publish(
    dag: Dag, run: Run, rejected: Annotated[str | None, typer.Option(help="How a person said no.")] = None
) -> None:
    """Its dvc.lock on a branch; push what there are remotes for."""
    _take(dag, run, "publish", rejected)


def close(dag: Dag, run: Run, state: Annotated[str, typer.Argument(help="success or failed.")]) -> None:
    """Close its account, and remove the worktree if it succeeded."""
    _take(dag, run, "close", "success" if state == "success" else "failed")


COMMANDS: dict[str, Callable[..., None]] = {
    "open": open_,
    "stage": stage,
    "promote": promote,
    "publish": publish,
    "close": close,
}


def _take(dag: str, run: str, step: str, *arguments: Any) -> None:
    """The step of that name of workspace.py."""
    from pipeline.run import project
    from pipeline.runs import workspace
    from pipeline.runs.worktrees import Workspace

    die_with_scheduler()
    here, home = project(), os.environ.get("EVERGREEN_REPO")
    opened = Workspace(Path(home).resolve() if home else here, dag, run)
    try:
        print(json.dumps(getattr(workspace, step)(opened, *arguments)), flush=True)
    except workspace.Skipped as skipped:
        print(json.dumps({"text": f"skipped: {skipped}"}), flush=True)
        raise SystemExit(SKIPPED) from None


def die_with_scheduler() -> None:
    """Kill this process when one of the scheduler's above it dies (Linux); dvc and its stage follow.

    The task's own process is our parent, but its supervisor may be killed as well: nobody would hear of us
    again, and the retry would work beside us.
    """
    if sys.platform != "linux":
        return
    poll, watched = select.poll(), []
    for pid in _schedulers():
        try:
            watched.append(os.pidfd_open(pid))
            poll.register(watched[-1], select.POLLIN)
        except OSError:
            continue

    def wait() -> None:
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    if watched:
        threading.Thread(target=wait, daemon=True).start()


def _schedulers() -> list[int]:
    """Our ancestors as long as they are a scheduler's processes."""
    processes: list[int] = []
    pid = os.getppid()
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").split()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
        if not any(Path(word).name in SCHEDULERS for word in words[:3]):
            break
        processes.append(pid)
        pid = parent
    return processes
