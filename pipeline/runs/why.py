"""`evergreen why V1 V2`: what the change of nDCG@10 between two versions came from: data, params or code.

In: the versions' commits and DVC's objects. Out: one step each for the newer version's data, params and code,
exchanged in that order, as far as they differ. Each step is a model beside the one before it, ranked on the
same test points, with its paired interval; the rest is that the two versions were evaluated at other points.
Rule: what lies between is made in a git worktree of the older commit, as `dvc repro` would, with
today's packages; what DVC's run-cache holds is taken from there, so that asking again costs seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.documents.data import Manifest
from pipeline.documents.evaluation import Evaluation
from pipeline.documents.registry import Step, Why
from pipeline.errors import ArtifactError, PipelineError
from pipeline.evaluation.figures import CHAMPION as BEFORE  # the evaluation calls it so
from pipeline.evaluation.figures import HEADLINE
from pipeline.files import replace_folder, temporary_beside
from pipeline.loop import repro
from pipeline.loop.plans import ENCODER, OUTPUTS, TRAIN
from pipeline.models.artifacts import CHAMPION
from pipeline.params import YamlLoader
from pipeline.registry.actions import put_version
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, locked_stages
from pipeline.registry.versions import RECORDS, State, Version, read_state
from pipeline.runs.worktrees import remove, share_cache

FOLDER, LOCK = Path(".evergreen/why"), "evergreen-why"
STAGES = (*TRAIN, "evaluate")
DATA, PARAMS, CODE = "data", "params", "code"
EVALUATION = Path("reports/evaluation.json")
MOST_CHANGES = 6  # named in a step

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Corner:
    """Whose data, params and code a model is made of."""

    data: Version
    params: Version
    code: Version


def why(root: Path, first: str, second: str, say: Say, show: bool = True) -> Why:
    """`show`: whether the output of stages is shown. Raises ArtifactError where a version is gone."""
    git = Git(root)
    state = read_state(git)
    old, new = state.find(first), state.find(second)
    changes = {what: found for what, found in _changes(git, old, new).items() if found}
    figures = [_figure(version) for version in (old, new)]
    if not changes:
        return summary(old, new, figures, [])
    with git.lock(LOCK), _emptied(git, root / FOLDER) as folder:
        chain = _Chain(root, git, state, folder, say, show)
        return summary(old, new, figures, chain.steps(old, new, changes))


def summary(old: Version, new: Version, figures: list[float | None], steps: list[Step]) -> Why:
    before, after = figures
    change = None if before is None or after is None else after - before
    gains = [step.gain for step in steps]
    known = [gain for gain in gains if gain is not None]
    rest = None if change is None or len(known) < len(gains) else change - sum(known)
    return Why(
        first=old.name, second=new.name, before=before, after=after, change=change, steps=steps, rest=rest
    )


def _figure(version: Version) -> float | None:
    return (version.record.metrics or {}).get(HEADLINE)


# What differs ----------------------------------------------------------------------------------------------


def _changes(git: Git, old: Version, new: Version) -> dict[str, list[str]]:
    """By the dvc.lock of both: what the stages of training and evaluation read."""
    before, after = (_read(git, version) for version in (old, new))
    found = {
        what: [
            # Of a file its hash would say nothing.
            f"{key}: {before[what].get(key)} -> {after[what].get(key)}"
            if what == PARAMS and key != str(ENCODER)
            else key
            for key in sorted(before[what].keys() | after[what].keys())
            if before[what].get(key) != after[what].get(key)
        ]
        for what in (DATA, PARAMS, CODE)
    }
    found[CODE] = [_files(git, old, new, key) for key in found[CODE]]
    if found[DATA]:
        found[DATA].insert(0, " -> ".join(_rows(git, version) for version in (old, new)))
    return found


def _files(git: Git, old: Version, new: Version, path: str) -> str:
    """A folder with the files in it that differ between the commits; anything else as it is."""
    told = git.run("diff", "--name-only", "--relative", old.commit, new.commit, "--", path).splitlines()
    names = [name.removeprefix(f"{path}/") for name in told if name != path]
    if not names:
        return path
    more = f" and {len(names) - MOST_CHANGES} more" if len(names) > MOST_CHANGES else ""
    return f"{path}: {', '.join(names[:MOST_CHANGES])}{more}"


def _rows(git: Git, version: Version) -> str:
    manifest = Manifest.find_in(git.show(version.commit, f"{RECORDS}/manifest.json"))
    return f"{manifest.rows.kept:,} rows as of {manifest.as_of:%Y-%m-%d}" if manifest else "unknown rows"


def _read(git: Git, version: Version) -> dict[str, dict[str, Any]]:
    """data, params, code -> name -> content or its hash."""
    stages = locked_stages(git.show(version.commit, "dvc.lock"))
    if missing := [name for name in STAGES if name not in stages]:
        raise ArtifactError(f"{version.name}: its dvc.lock has no stage {missing[0]}: name another version")
    found: dict[str, dict[str, Any]] = {DATA: {}, PARAMS: {}, CODE: {}}
    made = {out["path"] for name in STAGES for out in stages[name]["outs"]}
    for name in STAGES:
        found[CODE][f"command of {name}"] = stages[name]["cmd"]
        found[PARAMS] |= stages[name]["params"]
        for dependency in stages[name]["deps"]:
            path = dependency["path"]
            if path in made or path == str(CHAMPION):
                continue
            kind = PARAMS if path == str(ENCODER) else DATA if path.startswith(OUTPUTS) else CODE
            found[kind][path] = dependency.get("md5")
    return found


# The steps between -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chain:
    root: Path
    git: Git
    state: State
    folder: Path
    say: Say
    show: bool

    def steps(self, old: Version, new: Version, changes: dict[str, list[str]]) -> list[Step]:
        model = self.folder / "model"
        put_version(self.root, old, model)
        corner = Corner(old, old, old)
        steps: list[Step] = []
        waiting: list[str] = []
        for what in changes:
            waiting.append(what)
            corner = replace(corner, **{what: new})
            told = [change for one in waiting for change in changes[one]]
            name = " and ".join(waiting)
            self.say(name, f"{new.name}'s beside {old.name}'s: {'; '.join(told[:MOST_CHANGES])}")
            try:
                evaluation, model = self._model(corner, model, f"{len(steps)}-{what}")
            except PipelineError as error:
                if what == list(changes)[-1]:
                    raise
                # E.g. params that the older code does not know.
                self.say(name, f"not by itself: {error}")
                continue
            pair = evaluation.paired.get(BEFORE)
            steps.append(
                Step(
                    what=name,
                    changes=told,
                    gain=pair.ndcg if pair else None,
                    low=pair.low if pair else None,
                    high=pair.high if pair else None,
                    unknown=None if pair else evaluation.not_comparable or "no point is new to both",
                )
            )
            waiting = []
        return steps

    def _model(self, corner: Corner, before: Path, name: str) -> tuple[Evaluation, Path]:
        """The model of a corner, and how it ranks beside the one before it, on the corner's test points."""
        tree = self.folder / name
        self.git.run("worktree", "add", "--quiet", "--detach", str(tree), corner.code.commit)
        project = tree / self.git.run("rev-parse", "--show-prefix")
        share_cache(self.root, project)
        texts = {
            "params.yaml": self.git.show(corner.params.commit, "params.yaml"),
            str(ENCODER): self.git.show(corner.params.commit, str(ENCODER)),  # of finetune.encoder
            "dvc.lock": self.git.show(corner.data.commit, "dvc.lock"),
        }
        for path, text in texts.items():
            if text is not None:
                (project / path).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        repro.check_out(project)
        settings = (yaml.load(texts["params.yaml"] or "", Loader=YamlLoader) or {}).get("finetune", {})
        _link_encoder(self.root, project, settings.get("encoder"))
        if kept := settings.get("refresh_of"):
            put_version(self.root, self.state.find(kept), project / CHAMPION)
        repro.repro(project, "--single-item", *TRAIN, show=self.show)
        folder = temporary_beside(project / CHAMPION)
        shutil.copytree(before, folder, dirs_exist_ok=True)
        replace_folder(folder, project / CHAMPION)
        repro.repro(project, "--single-item", "evaluate", show=self.show)
        return Evaluation.read(project / EVALUATION), project / MODEL


def _link_encoder(home: Path, project: Path, encoder: Any) -> None:
    """An encoder that lies in the checkout, where git does not hold it."""
    if not isinstance(encoder, str) or Path(encoder).is_absolute():
        return
    if (home / encoder).is_dir() and not (project / encoder).exists():
        (project / encoder).parent.mkdir(parents=True, exist_ok=True)
        (project / encoder).symlink_to((home / encoder).resolve())


@contextmanager
def _emptied(git: Git, folder: Path) -> Iterator[Path]:
    """Without what a killed one left, and gone afterwards."""
    remove(git, folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(git, folder)
