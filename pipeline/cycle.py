"""The loop once, without Airflow: look, train if there is something new, promote if allowed, recommend.

1. The champion's folder is made right (models/champion).
2. The source's fingerprint is compared with data/raw/manifest.json; plain `dvc repro` does not look at the
   source. If it differs, or collect is stale anyhow, collect is forced: dvc would else restore from its
   run-cache what an earlier run with the same parameters had read.
3. If source, params, code or an output changed: `dvc repro decide_promotion` runs what that makes stale. That
   the champion changed is nothing new by itself: evaluate and what follows it depend on the champion, and
   would otherwise run again after every promotion, to find that the challenger is the champion.
4. What reports/promotion.json allows is promoted, and the champion's folder made right again.
5. `recommend` runs if the champion, the data or its params changed.

Every decision is printed with its reason. What a run that was killed left undone, the next one does.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import repro
from pipeline.actions import CHAMPION, MANIFEST, Refused, promote, put_champion
from pipeline.errors import ConfigError, PipelineError
from pipeline.git import Git
from pipeline.params import Params
from pipeline.registry import read_state

STATE = Path(".evergreen")
BEFORE = STATE / "params-before-as-of.json"
LAST = "recommend"
"""The only stage behind the promotion."""


def cycle(root: Path, as_of: str | None = None) -> None:
    """Raises PipelineError with a stage's or an action's own line if one fails."""
    with _alone(root):
        _undo_as_of(root)
        if as_of is None:
            _cycle(root)
            return
        with read_as_of(root, as_of):
            say("as of", f"{as_of}: params.yaml says so during this run, and is put back afterwards")
            _cycle(root)


def say(what: str, decision: str) -> None:
    print(f"{what + ':':<16}{decision}", flush=True)


def _cycle(root: Path) -> None:
    params = Params.load(root / "params.yaml")
    _make_champion_right(root)
    source_changed = _source_changed(root, params)
    stale = repro.status(root)
    news = _news(stale)
    new = source_changed or bool(news)
    if new:
        _train(root, news, source_changed)
    else:
        say("training", "nothing new in source, params and code: no stage is run")
    promoted = _promote(root)
    if promoted:
        _make_champion_right(root)
    if promoted or new or LAST in stale:
        repro.repro(root, "--single-item", LAST)
        say(LAST, "recommendations/top_k.parquet is up to date")
    else:
        say(LAST, "nothing to do: same champion, same data")


def _train(root: Path, news: dict[str, list[str]], source_changed: bool) -> None:
    lock = root / "dvc.lock"
    done = re.findall(r"^  (\w+):$", lock.read_text(encoding="utf-8"), re.MULTILINE) if lock.is_file() else []
    if not done:
        say("training", "every stage runs, for the first time")
    for stage in (name for name in news if done):
        say(
            "training",
            f"{stage}: {_causes(news[stage])} changed" if stage in done else f"{stage}: has not run yet",
        )
    if source_changed or "collect" in news:
        repro.repro(root, "--force", "--single-item", "collect")
    repro.repro(root, "decide_promotion")


def _make_champion_right(root: Path) -> None:
    champion, changed = put_champion(root)
    if champion is None:
        say("champion", "none yet")
    else:
        done = f"put into {CHAMPION}, verified" if changed else f"already in {CHAMPION}, verified"
        say("champion", f"{champion.name}, {done}")


def _source_changed(root: Path, params: Params) -> bool:
    """Whether data/raw holds something else than the source now does, or nothing."""
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        collected = str(manifest["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        say("source", f"{params.collect.source}, not collected yet")
        return True
    from pipeline.sources import fingerprint

    found = fingerprint(params.collect)
    if found == collected:
        say("source", f"{params.collect.source}, unchanged since it was collected")
    else:
        say(
            "source",
            f"{params.collect.source}, changed since it was collected ({collected[:10]} → {found[:10]})",
        )
    return found != collected


def _news(stale: dict[str, list[str]]) -> dict[str, list[str]]:
    """The stale stages before the promotion and what changed for each, but for the champion."""
    champion = str(CHAMPION)
    left = {
        stage: [path for path in changes if path != champion]
        for stage, changes in stale.items()
        if stage != LAST
    }
    return {stage: changes for stage, changes in left.items() if changes}


def _promote(root: Path) -> bool:
    before = read_state(Git(root)).champion
    try:
        version = promote(root)
    except Refused as refused:
        say("promotion", str(refused))
        return False
    if version == before:
        say("promotion", f"nothing to do: the challenger is the champion, {version.name}")
        return False
    say("promotion", f"{version.name} is the champion: {version.record.get('reason')}")
    return True


def _causes(changes: list[str]) -> str:
    """What a person changed, if there is any such; else the outputs that changed or are missing."""
    outputs = ("data/", "models/", "reports/", "recommendations/")
    causes = [path for path in changes if not path.startswith(outputs)] or changes
    more = f" and {len(causes) - 3} more" if len(causes) > 3 else ""
    return ", ".join(causes[:3]) + more


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One cycle a checkout: dvc would fail as busy in the middle of it."""
    (root / STATE).mkdir(exist_ok=True)
    with (root / STATE / "cycle.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError("another `evergreen cycle` runs in this folder: wait for it to end") from None
        yield


# --as-of ---------------------------------------------------------------------------------------------------


@contextmanager
def read_as_of(root: Path, as_of: str) -> Iterator[None]:
    """collect.as_of of params.yaml is `as_of` inside, and what it was again afterwards.

    dvc reads parameters from that file alone, and a promotion inside snapshots it as it was used. Only the
    one line is changed, comments stay. What it was is noted down first: if this process is killed, the next
    cycle puts it back, unless the file was edited meanwhile.
    """
    path = root / "params.yaml"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    during = _with_as_of(before, as_of)
    _replace(root / BEFORE, json.dumps({"before": before, "during": during}))
    try:
        _replace(path, during)
        Params.load(path)
        yield
    finally:
        _undo_as_of(root)


def _undo_as_of(root: Path) -> None:
    note, path = root / BEFORE, root / "params.yaml"
    if not note.is_file():
        return
    noted: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    if path.read_text(encoding="utf-8") == noted["during"]:
        _replace(path, noted["before"])
    elif path.read_text(encoding="utf-8") != noted["before"]:
        say("params.yaml", "was edited during the run: check collect.as_of")
    note.unlink()


def _with_as_of(text: str, as_of: str) -> str:
    """params.yaml with another collect.as_of. Raises ConfigError if it has no such line."""
    section = re.search(r"^collect:[^\n]*\n(?:[ \t#][^\n]*\n|\n)*", text + "\n", re.MULTILINE)
    value = r"([ \t]*(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+))?"
    line = section and re.search(rf"^([ \t]+as_of:){value}", section[0], re.MULTILINE)
    if not section or not line:
        raise ConfigError(
            "params.yaml: collect.as_of: no such line: add `as_of: null` to the section collect"
        )
    start, end = section.start() + line.start(), section.start() + line.end()
    return f"{text[:start]}{line[1]} {json.dumps(as_of)}{text[end:]}"


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
