"""Writes data/history/index.html and, in data/history/RUN, index.html and a frame around each kept report.

Each is one self-contained file without scripts, to be opened from disk or served by Airflow's plugin. A page
is written beside and renamed. Pages only tell: one that cannot be written is a warning and stops no run.
"""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path

from pipeline.dashboard import runs, views
from pipeline.errors import PipelineError
from pipeline.files import write_text
from pipeline.pages import page
from pipeline.registry.git import Git
from pipeline.registry.versions import State, read_state

log = logging.getLogger(__name__)
HISTORY, INDEX = Path("data/history"), "index.html"


def write_pages(home: Path, folder: Path | None = None) -> None:
    """The overview of the checkout `home`, and the page of the run whose record lies in `folder`."""
    try:
        if folder is not None:
            write_run(folder)
        write_overview(home)
    except Exception as error:
        log.warning("the pages of data/history were not written: %s: %s", type(error).__name__, error)


def write_run(folder: Path) -> None:
    run = runs.read_one(folder)
    for report in run.reports:
        write_text(folder / f"{report}-report.html", page("report.html", **views.frame(run, report)))
    write_text(folder / INDEX, page("run.html", **views.one_run(run)))


def write_overview(home: Path) -> None:
    """One at a time, reading included, so that the last to write has read what all have recorded."""
    history = home / HISTORY
    history.mkdir(parents=True, exist_ok=True)
    with (history / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        registry, problem = _registry(home)
        values = views.overview(runs.read(history), registry, problem)
        write_text(history / INDEX, page("overview.html", **values))


def _registry(home: Path) -> tuple[State, str | None]:
    try:
        return read_state(Git(home)), None
    except PipelineError as error:
        return State([], [], [], 1, 0), str(error)
