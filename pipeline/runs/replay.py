"""`evergreen replay`: the data's own history, lived again with a simulated clock.

The first champion is trained on the first part of the interactions; then, a period a time, the loop goes
round as of that day: drift, decision, training, promotion. With Airflow up, real DAG runs do it, one after
the other; else `evergreen cycle` in a clone of the checkout. Results are read from data/history.

Resumable: the runs' names follow from the source and the options, so a replay that was interrupted finds what
is done, waits for what is under way, and tries again what has failed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from pipeline.documents.runs import RunRecord
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.params import Collect, Params
from pipeline.registry.git import Git
from pipeline.registry.versions import read_state
from pipeline.runs.airflow_api import Airflow, NotThere
from pipeline.runs.periods import Period, told
from pipeline.runs.worktrees import REPLAYING, link_sources

MONITORING, TRAINING, REQUEST = "evergreen_monitoring", "evergreen_training", "retraining_requested"
HISTORY = Path("data/history")
CLONE = Path(".evergreen/replay")
FIRST = "replay: the first champion"

Tell = Callable[[str], None]


class Player(Protocol):
    """Whoever makes the runs."""

    root: Path

    def play(self, as_of: datetime, first: bool, tell: Tell) -> list[Path]:
        """The history folders that the period's runs have left, oldest first."""

    def end(self) -> None:
        """All periods are over."""

    def where_to_look(self) -> str: ...


def replay(
    root: Path, start: str, every: str, without_airflow: bool, report: Callable[[Period], None]
) -> tuple[list[Period], str]:
    """The periods, each reported as soon as it is over, and where to look. Raises PipelineError."""
    settings = Params.load(root / "params.yaml").collect
    dates = moments(settings, share(start), span(every))
    key = _key(settings, dates)
    player: Player = Cycles(root, key) if without_airflow else DagRuns(root, key)
    periods = []
    with tqdm(total=len(dates), unit="period", disable=None, leave=False) as bar:
        for place, as_of in enumerate(dates):
            bar.set_description(f"{as_of:%Y-%m-%d}")
            folders = player.play(as_of, place == 0, bar.set_postfix_str)
            periods.append(told(as_of, folders, _champion(player.root)))
            bar.clear()
            report(periods[-1])
            bar.update()
    player.end()
    return periods, player.where_to_look()


# The clock -------------------------------------------------------------------------------------------------


def share(text: str) -> float:
    """`60%` or `0.6` -> 0.6. Raises ConfigError outside 0..1."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise ConfigError(f"--start: {text}: name a share of the interactions, e.g. 60%")
    return value


def span(text: str) -> timedelta:
    """`30d`, `2w`, `12h`."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", text)  # more digits are more than a timedelta holds
    if not match or not int(match[1]):
        raise ConfigError(f"--every: {text}: name a time, e.g. 30d, 2w or 12h")
    return int(match[1]) * {"h": timedelta(hours=1), "d": timedelta(1), "w": timedelta(7)}[match[2]]


def moments(settings: Collect, start: float, every: timedelta) -> list[datetime]:
    """When the runs look: once the share `start` of the interactions has happened, then every so often.

    Raises DataError if the history is over before the second look.
    """
    import numpy as np
    import pandas as pd

    from pipeline import sources
    from pipeline.data import tables
    from pipeline.data.moments import TimeColumn

    whole = settings.model_copy(update={"as_of": None})
    source = sources.read(whole)
    column = TimeColumn(tables.TIME, source.times.get(tables.TIME))
    every_row = (column.read(chunk[tables.TIME])[0].dropna() for chunk in source.interactions)
    read = [chunk[~column.outliers(chunk)] for chunk in every_row]
    times = np.sort(np.concatenate([np.empty(0, "M8[us]"), *(part.to_numpy("M8[us]") for part in read)]))
    if not len(times):
        raise DataError(f"{settings.source}: no interactions: there is no history to replay")
    first, last = times[min(int(start * len(times)), len(times) - 1)], times[-1]
    step = np.timedelta64(every)
    dates = np.arange(first, last + np.timedelta64(1, "us"), step)
    if len(dates) < 2:
        days = (last - first) / np.timedelta64(1, "D")
        raise DataError(
            f"{settings.source}: {days:.1f} days are left: take an earlier --start or a shorter --every"
        )
    return [pd.Timestamp(one, tz="UTC").floor("s").to_pydatetime() for one in dates]


def _key(settings: Collect, dates: list[datetime]) -> str:
    """The replay's name: same source, same days, same name."""
    from pipeline import sources

    text = json.dumps([sources.fingerprint(settings), *(date.isoformat() for date in dates)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# With Airflow ----------------------------------------------------------------------------------------------


class DagRuns:
    """Real runs of the two DAGs; which training a monitoring run called for, the asset's events tell."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key, self.airflow = root, key, Airflow()
        for dag in (MONITORING, TRAINING):
            try:
                paused = self.airflow.dag(dag).get("is_paused")
            except NotThere:
                raise PipelineError(
                    f"{self.airflow.url}: no DAG {dag} there: is it the Airflow of this checkout, and has it "
                    "read the DAGs yet?"
                ) from None
            if paused:
                raise PipelineError(f"{dag} is paused: switch it on at {self.airflow.url}/dags")

    def play(self, as_of: datetime, first: bool, tell: Tell) -> list[Path]:
        dag = TRAINING if first else MONITORING
        conf = {"as_of": as_of.isoformat()} | ({"mode": "full", "reason": FIRST} if first else {})
        runs = [(dag, self._run(dag, as_of, conf, tell))]
        if not first:
            for called in self.airflow.called_for(*runs[0], REQUEST, TRAINING):
                self._wait(TRAINING, called, tell)
                runs.append((TRAINING, called))
        return [self._left(dag, run_id) for dag, run_id in runs]

    def _run(self, dag: str, as_of: datetime, conf: dict[str, str], tell: Tell) -> str:
        """Go on with this period's run, or begin it; one that has failed before is tried again."""
        attempt = 1
        while True:
            run_id = f"replay__{self.key}__{as_of:%Y%m%dT%H%M%SZ}" + (f"__{attempt}" if attempt > 1 else "")
            try:
                if self.airflow.run(dag, run_id).get("state") != "failed":
                    break
                attempt += 1
            except NotThere:
                _refuse_the_future(self.root, as_of)
                self._keep_others_back()
                self.airflow.trigger(dag, run_id, conf)
                break
        self._wait(dag, run_id, tell)
        return run_id

    def _keep_others_back(self) -> None:
        """Scheduled runs would train on days that are still to come, and the replay could not go on. They
        stand back until the last period is over, also while one that was interrupted waits."""
        mark = self.root / REPLAYING
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(f"{self.key}\n", encoding="utf-8")

    def end(self) -> None:
        (self.root / REPLAYING).unlink(missing_ok=True)

    def _wait(self, dag: str, run_id: str, tell: Tell) -> None:
        if self.airflow.wait(dag, run_id, tell).get("state") == "failed":
            link = self.airflow.link(dag, run_id)
            raise PipelineError(f"{dag} failed: see {link}, mend it and run the same command again")

    def _left(self, dag: str, run_id: str) -> Path:
        for path in (self.root / HISTORY).glob("*/run.json"):
            run = RunRecord.find(path)
            if run and (run.run_id, run.dag) == (run_id, dag):
                if run.state == "failed":  # for Airflow a success, e.g. since it was marked so by hand
                    raise PipelineError(f"{dag}, {run_id} failed: clear its tasks, then run the same command")
                return path.parent
        raise PipelineError(
            f"{HISTORY}: nothing of the run {run_id}: {self.airflow.url} works on another checkout "
            f"than {self.root}"
        )

    def where_to_look(self) -> str:
        return f"{self.airflow.url}/plugin/evergreen has the whole story, {self.airflow.url}/dags the runs"


# Without Airflow -------------------------------------------------------------------------------------------


class Cycles:
    """`evergreen cycle --as-of` in a clone with a registry of its own and the checkout's DVC cache."""

    def __init__(self, root: Path, key: str) -> None:
        self.root = root / CLONE / key
        if not (self.root / "params.yaml").is_file():
            self._clone(root)
        shutil.copy2(root / "params.yaml", self.root)
        link_sources(root, self.root)

    def _clone(self, root: Path) -> None:
        """Beside, then renamed: a half clone is never taken for one."""
        partial = self.root.with_name(f".{self.root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        git = Git(root)
        git.run("clone", "--quiet", "--no-tags", str(root), str(partial))
        cache = subprocess.run(
            [sys.executable, "-m", "dvc", "cache", "dir"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        local = f"[cache]\n    dir = {(root / cache.stdout.strip()).resolve()}\n"
        (partial / ".dvc" / "config.local").write_text(local, encoding="utf-8")
        partial.rename(self.root)

    def play(self, as_of: datetime, first: bool, tell: Tell) -> list[Path]:
        done = self.root / ".evergreen" / "played"
        done.mkdir(parents=True, exist_ok=True)
        mark = done / f"{as_of:%Y%m%dT%H%M%SZ}"
        if not mark.exists():
            tell("evergreen cycle")
            command = [sys.executable, "-m", "pipeline", "cycle", "--as-of", as_of.isoformat()]
            log = self.root / ".evergreen" / "replay.log"
            with log.open("ab") as stream:
                ended = subprocess.run(command, cwd=self.root, stdout=stream, stderr=stream, check=False)
            if ended.returncode:
                raise PipelineError(f"evergreen cycle as of {as_of:%Y-%m-%d} failed: {log} tells why")
            mark.touch()
        return sorted((self.root / HISTORY).glob(f"{as_of:%Y%m%dT%H%M%SZ}-*"))

    def end(self) -> None: ...  # nobody else knows of the clone

    def where_to_look(self) -> str:
        return f"{self.root / HISTORY} has the whole story, {self.root / 'reports'} the last reports"


def _refuse_the_future(root: Path, as_of: datetime) -> None:
    """A champion that knows later days would make the replay a lie, and no challenger may replace it."""
    champion = read_state(Git(root)).champion
    knows = champion and (champion.record.as_of or champion.record.fit_end)
    if champion and knows and knows > as_of:
        raise PipelineError(
            f"{champion.name} has learned from data until {knows:%Y-%m-%d}, later than {as_of:%Y-%m-%d}, "
            "where the replay stands: use a fresh clone (`git clone --no-tags`), or --without-airflow"
        )


def _champion(root: Path) -> str | None:
    champion = read_state(Git(root)).champion
    return champion.name if champion else None
