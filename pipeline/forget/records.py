"""What forgetting writes into git: tags forgotten/N and rewritten/N, and the locks of the last runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


def note_rewritten(root: Path, one: Replaced, made: Mapping[str, New], version: Version | None) -> State:
    """What a version and a training say of the old hash holds of the new one from now on.

    A tag on a commit whose dvc.lock names the objects that were `made` in the place of others: `dvc gc
    --all-tags` keeps them. `version`: None for a challenger that is none.
    """
    git = Git(root)
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        if one.after != one.before and state.hashes.get(one.before) == one.after:
            return state  # another clone has noted it
        git.use_fallback_identity()
        name, commit = f"rewritten/{state.rewritten + 1}", git.head()
        if version is not None:
            lock = git.show(version.lock_commit, "dvc.lock") or ""
            commit = git.with_file(
                version.commit, "dvc.lock", with_new(f"{lock}\n", made), f"{name}: other objects"
            )
        record = RewrittenRecord(action="rewrite", who=git.identity(), when=now(), models=[one])
        whose = version.name if version else "a challenger"
        text = message(f"{name}: {whose} without a forgotten person", record)
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
