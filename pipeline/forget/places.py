"""Files of a checkout, and the event store: what of them is of forgotten people, and without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.documents.forgetting import Replaced
from pipeline.files import is_left_over, renamed, replace_folder, temporary_beside
from pipeline.forget.contents import Contents
from pipeline.forget.storage import REFERENCE, summary_without
from pipeline.models.artifacts import folder_hash, has_model
from pipeline.params import Params
from pipeline.registry.objects import Objects
from pipeline.serve.events import Store, default_url

FOLDERS = (
    "data/raw",
    "data/prepared",
    "recommendations",
    "reports",
    "data/history",
    ".evergreen/tune",
    ".dvc/tmp",
)
MODELS = ("models/challenger", "models/ablations")
# All of it is made again from what stands above; a service that runs holds what it needs in memory.
CACHES = (
    "backtest",
    "bench",
    "checkpoints",
    "peers",
    "prepared",
    "prepared-challenger",
    "ranking",
    "replay",
    "simulation",
    "why",
)
CHECK = ("reports/check.json", "reports/check.html")
"""Ids stand among its examples as the source has them; `evergreen check` makes it again."""


def files(root: Path, folder: str) -> Iterator[Path]:
    for path in sorted((root / folder).rglob("*")):
        if path.is_file() and not path.name.endswith(".partial"):
            yield path


def rows(root: Path, folder: str, contents: Contents) -> int:
    found = 0
    for path in files(root, folder):
        with path.open("rb") as file:
            found += contents.rows(file)
    return found


def clean(root: Path, folder: str, contents: Contents, hashes: Mapping[str, str]) -> int:
    """Each file in one step; how many rows went."""
    found = 0
    for path in files(root, folder):
        with Beside(path) as target:
            found += contents.clean(path, target, hashes)
            if target.exists():
                os.replace(target, path)
    return found


class Beside:
    """A name beside a file, with nothing there at the end."""

    def __init__(self, path: Path) -> None:
        self.target = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        return self.target

    def __exit__(self, *_: object) -> None:
        self.target.unlink(missing_ok=True)


def clean_model(root: Path, folder: str, contents: Contents) -> int:
    """The whole folder in one step: whoever reads it takes the old one or the new one."""
    final = root / folder
    if not has_model(final) or not rows(root, folder, contents):
        return 0
    temporary = temporary_beside(final)
    try:
        shutil.copytree(final, temporary, dirs_exist_ok=True)
        found = clean(temporary.parent, temporary.name, contents, {})
        sample, summary = (temporary / name for name in REFERENCE)
        if summary.is_file():
            with renamed(summary) as target:
                summary_without(summary, sample, target)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def put_model(objects: Objects, now: Replaced, final: Path) -> None:
    """What a model folder is now, in one step; nothing where it is that already."""
    if folder_hash(final) == now.after:
        return
    temporary = temporary_beside(final)
    try:
        objects.restore(now.md5, now.after, temporary)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def caches(root: Path) -> list[Path]:
    """What is removed whatever it holds: all of it is made again when it is asked for."""
    found = [root / ".evergreen" / name for name in CACHES] + [root / name for name in CHECK]
    return [path for path in found if path.exists()]


def unfinished(root: Path) -> list[Path]:
    """What killed processes were writing: whole tables, under other names."""
    found = [
        path
        for folder in ("data", "models", "recommendations", "reports")
        for path in sorted((root / folder).rglob(".*partial"))
        if path.name.endswith(".partial") and is_left_over(path)
    ]
    within = set(found)
    return [path for path in found if within.isdisjoint(path.parents)]


def removed(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def event_store(root: Path) -> Store | None:
    """The one that collect.feedback or EVERGREEN_EVENTS names; None where none was ever used."""
    url = Params.load(root / "params.yaml").collect.feedback or default_url(root)
    store = Store(os.path.expandvars(url), create=False)
    database = store.engine.url.database
    if (store.sqlite and not (database and Path(database).is_file())) or not store.exists():
        store.close()
        return None
    return store
