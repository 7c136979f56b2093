"""`evergreen registry ...`. Each command imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import JSON, PLAIN, command, print_json
from pipeline.errors import ArtifactError
from pipeline.run import project

group = typer.Typer(help="Versions: list, promote, roll back, trace.", **PLAIN)
Reason = Annotated[str | None, typer.Option(help="Why; kept in the registry's record.")]


@command(group, "list", "Versions, newest first.")
def list_versions(as_json: JSON = False) -> None:
    """Versions, newest first: dates, quality, commit, and whether the model can be had."""
    from pipeline.registry.versions import versions_table
    from pipeline.show import show_versions

    rows = versions_table(project())
    if as_json:
        print_json([row.to_dict() for row in rows])
    else:
        show_versions(rows)


@command(group, "promote", "Make the challenger the champion, if allowed.")
def promote(
    reason: Reason = None,
    approve: Annotated[bool, typer.Option("--approve", help="Give the approval of a person.")] = False,
) -> None:
    """Make models/challenger the champion, if reports/promotion.json allows it."""
    from pipeline.registry.actions import promote as act
    from pipeline.registry.git import Git
    from pipeline.registry.versions import read_state

    root = project()
    before = read_state(Git(root)).champion
    version = act(root, reason=reason, approved_by=Git(root).person() if approve else None)
    if version == before:
        print(f"{version.name} is this model and already the champion: nothing to do")
        return
    print(f"{version.name} is the champion: {version.record.reason}")
    _next_steps(root)


@command(group, "rollback", "Make an earlier version the champion again.")
def rollback(
    to: Annotated[
        str | None, typer.Option(help="A version; by default the one that the champion replaced.")
    ] = None,
    reason: Reason = None,
) -> None:
    """Make an earlier version the champion again. Works offline."""
    from pipeline.registry.actions import rollback as act

    root = project()
    version = act(root, to=to, reason=reason)
    print(f"{version.name} is the champion")
    _next_steps(root)


@command(group, "push", "Put every version's model into the DVC remote.")
def push() -> None:
    """Put every version's model into the DVC remote, where it lacks it: for a remote that was added later."""
    from pipeline.registry.actions import push_models

    pushed, missing = push_models(project())
    print(f"pushed: {', '.join(pushed)}" if pushed else "the remote has every model that is here")
    if missing:
        raise ArtifactError(
            f"{', '.join(missing)}: neither here nor in the remote: push them from where they were made"
        )


@command(group, "record", "Note the challenger's training, with its cost.")
def record() -> None:
    """Note that models/challenger was trained, promoted or not: decide_retraining counts from there.

    `evergreen cycle` does it by itself; this is for schedulers that run the stages one by one.
    """
    from pipeline.registry.actions import record_training

    training, new = record_training(project())
    seconds = training.record.cost.seconds
    cost = "" if seconds is None else f", {seconds:,.0f} s"
    done = "recorded" if new else "recorded already"
    print(f"training {training.number}: {training.record.mode}{cost}: {done}")


@command(group, "lineage", "Where a version comes from.")
def lineage(
    version: Annotated[str, typer.Argument(help="e.g. v2.0.0, or `champion`.")], as_json: JSON = False
) -> None:
    """Where a version comes from: commit, params, data manifest, fingerprint of the source."""
    from pipeline.registry.versions import lineage as find
    from pipeline.show import show_lineage

    origin = find(project(), version)
    if as_json:
        print_json(origin.to_dict())
    else:
        show_lineage(origin)


def _next_steps(root: Path) -> None:
    from pipeline.dashboard.write import write_pages

    write_pages(root)
    print("`evergreen champion` puts it into models/champion; `git push --tags` shares it")
