"""What forgetting writes into git: tags forgotten/N and rewritten/N, and the locks of the last runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents.forgetting import ForgottenRecord, Replaced, RewrittenRecord
from pipeline.documents.registry import Person
from pipeline.forget.storage import New
from pipeline.registry.actions import LOCK
from pipeline.registry.git import Git
from pipeline.registry.records import now
from pipeline.registry.versions import State, Version, export, message, read_state
from pipeline.runs.worktrees import CHALLENGER, LATEST

_ENTRY = re.compile(r"(\bmd5: )([0-9a-f]{32}(?:\.dir)?)(\n\s+size: )(\d+)")


def note_forgotten(root: Path, people: Sequence[Person]) -> State:
    """A tag for each mark that has none yet, and the export."""
    git = Git(root)
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        known = {person.mark for person in state.forgotten}
        new = [person for person in people if person.mark not in known]
        number = max((person.number for person in state.forgotten), default=0)
        git.use_fallback_identity()
        messages = {}
        for place, person in enumerate(new, number + 1):
            record = ForgottenRecord(
                action="forget", who=git.identity(), when=person.when, person=person.but(number=place)
            )
            messages[f"forgotten/{place}"] = message(f"forgotten/{place}: {person.mark}", record)
        if messages:
            git.create_tags(git.head(), messages, after=state.newest, keep_open=descriptor)
            state = read_state(git)
        export(root, state)
    return state


@dataclass(frozen=True)
class Model:
    """A model folder that was made anew; `version`: None for a challenger that is none."""

    replaced: Replaced
    old: str
    new: New
    version: Version | None


def note_rewritten(root: Path, models: Sequence[Model]) -> State:
    """What versions and trainings say of the old hashes holds of the new ones from now on.

    A tag for each, on a commit whose dvc.lock names the new objects: `dvc gc --all-tags` keeps them.
    """
    git = Git(root)
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        git.use_fallback_identity()
        for model in models:
            if state.hashes.get(model.replaced.before) == model.replaced.after:
                continue
            name, commit = f"rewritten/{state.rewritten + 1}", git.head()
            if model.version is not None:
                lock = git.show(model.version.commit, "dvc.lock") or ""
                lock = with_new(f"{lock}\n", {model.old: model.new})
                commit = git.with_file(model.version.commit, "dvc.lock", lock, f"{name}: other objects")
            record = RewrittenRecord(
                action="rewrite", who=git.identity(), when=now(), models=[model.replaced]
            )
            whose = model.version.name if model.version else "a challenger"
            text = message(f"{name}: {whose} without rows of a forgotten person", record)
            git.create_tags(commit, {name: text}, after=state.newest, keep_open=descriptor)
            state = read_state(git)
        export(root, state)
    return state


def locks_of_runs(git: Git) -> dict[str, str]:
    """Ref -> the dvc.lock of the last run, and of the last challenger's, where a scheduler made such."""
    found = {}
    for ref in (LATEST, CHALLENGER):
        if (text := git.show(ref, "dvc.lock")) is not None:
            found[ref] = text + "\n"
    return found


def note_lock(git: Git, ref: str, text: str) -> None:
    with git.lock(LOCK):
        git.use_fallback_identity()
        git.run("update-ref", ref, git.with_file(ref, "dvc.lock", text, "Forget a person's rows"))


def with_new(lock: str, made: Mapping[str, New]) -> str:
    """The text of a dvc.lock that names other objects, as outputs and as dependencies."""

    def entry(match: re.Match[str]) -> str:
        new = made.get(match[2])
        return match[0] if new is None else f"{match[1]}{new.md5}{match[3]}{new.size}"

    return _ENTRY.sub(entry, lock)
