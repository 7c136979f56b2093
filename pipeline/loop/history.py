"""What every run leaves in data/history/NAME/, to see afterwards what was decided on which evidence.

run.json (pipeline/documents/runs.py), beside it the decisions of the run with their reports, the page of the
run (pipeline/dashboard), and dvc.lock, which tells where in DVC's cache every output of the run lies.
Deleting it changes no decision.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.documents.runs import RunRecord
from pipeline.errors import PipelineError
from pipeline.files import renamed
from pipeline.registry.records import DECISION, METRICS, VERDICT, now

HISTORY, RUN, LOCK = Path("data/history"), "run.json", "dvc.lock"
DRIFT, EVALUATION = "reports/drift.json", "reports/evaluation.json"
LOOKED = (DRIFT, "reports/drift.html", DECISION)
JUDGED = (VERDICT, METRICS, EVALUATION, "reports/evaluation.html")
SIMULATION, SIMULATED = Path("data/simulation.json"), "reports/simulation.html"


class Account:
    """The account of one run. Nothing is written before it has a folder; see `open`."""

    def __init__(self, run: RunRecord, folder: Path | None = None) -> None:
        self.run, self.folder = run, folder

    @classmethod
    def begin(cls, run_id: str, dag: str, folder: Path | None = None, **facts: Any) -> Account:
        """Of a run that begins now; `facts` are further fields of its record."""
        account = cls(RunRecord(run_id=run_id, dag=dag, state="running", started=now(), **facts))
        if folder is not None:
            account.open(folder)
        return account

    def open(self, folder: Path) -> None:
        """From now on it is kept in `folder`. A run begun there before goes on with what it had noted."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.note()

    @classmethod
    def found(cls, folder: Path) -> Account | None:
        """The account that was begun in `folder`."""
        run = RunRecord.find(folder / RUN)
        return cls(run, folder) if run else None

    def note(self, **facts: Any) -> None:
        self.run = self.run.but(**facts)
        if self.folder is not None:
            self.run.write(self.folder / RUN)
            self._show()

    def _show(self) -> None:
        """The page of the run, and the overview, are of what is recorded."""
        from pipeline.dashboard.write import write_pages

        assert self.folder is not None
        write_pages(self.folder.parents[len(HISTORY.parts)], self.folder)

    def keep(self, root: Path, *paths: str) -> None:
        """Copy dvc.lock and these files as they are in `root` now, each in one step."""
        if self.folder is None:
            return
        for path in (*paths, LOCK):
            if (root / path).is_file():
                with renamed(self.folder / Path(path).name) as temporary:
                    shutil.copy2(root / path, temporary)
        self._show()

    def drop(self, path: str) -> None:
        """What an earlier judgement of this run had kept, and this one has not."""
        if self.folder is not None:
            (self.folder / Path(path).name).unlink(missing_ok=True)

    def close(self, state: str) -> None:
        self.note(state=state, finished=now(), **({"error": None} if state == "success" else {}))

    def fail(self, error: BaseException) -> None:
        self.note(state="failed", finished=now(), error=one_line(error))

    def __enter__(self) -> Account:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("success") if error is None else self.fail(error)


def one_line(error: BaseException) -> str:
    """What a run failed with; of a bug its kind as well."""
    text = " ".join(str(error).split()).removeprefix("error: ")
    return text if isinstance(error, PipelineError) else f"{type(error).__name__}: {text}".rstrip(": ")
