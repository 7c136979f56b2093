"""DVC's objects, in its cache and in every remote: which hold rows of forgotten people, made anew, erased.

An object is named by the md5 of its content, a folder by that of its listing (`HASH.dir`). What is still
needed gets an object without the rows beside the old one; the old ones go when nothing names them any more,
and with a model's old folder the matrices that nothing else names.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.documents.model import ReferenceSummary
from pipeline.errors import PipelineError, Unavailable
from pipeline.forget.contents import Contents
from pipeline.models.artifacts import PARTS
from pipeline.registry.objects import Objects

REFERENCE = ("reference/interactions.parquet", "reference/summary.json")
"""Of a model folder; the summary says how many rows the sample has."""


_BESIDE = ".forget-"


class Stays(PipelineError):
    """Why a model's matrices stay as they are."""


class New(NamedTuple):
    """What takes the place of an object."""

    md5: str
    size: int  # bytes, of a folder those of its files


@dataclass
class Storage:
    """One place of objects: the cache, or a remote."""

    name: str
    odb: Any
    holding: dict[str, int] = field(default_factory=dict)  # object -> rows
    folders: dict[str, dict[str, str]] = field(default_factory=dict)  # listing -> its files: path -> object

    def erase(self, replaced: Collection[str], made: Collection[str]) -> None:
        """What holds rows, the folders of such, and model folders that others have `replaced`. `made`:
        objects of new folders, which stay."""
        gone = {
            oid
            for oid, listed in self.folders.items()
            if oid in replaced or not self.holding.keys().isdisjoint(listed.values())
        }
        stay = {name for oid, listed in self.folders.items() if oid not in gone for name in listed.values()}
        matrices = {self.folders[oid][PARTS] for oid in gone if PARTS in self.folders[oid]} - stay - {*made}
        # A folder's listing says what of it there is: it goes behind its matrices, which nothing else finds,
        # and before its rows, which every look finds.
        for oid in [*sorted(matrices), *sorted(gone), *sorted(self.holding)]:
            self.delete(oid)

    def delete(self, oid: str) -> None:
        if self.odb.exists(oid):
            self.odb.delete(oid)


class Stored:
    """All places of a project. Raises Unavailable where one does not answer."""

    def __init__(self, root: Path, repo: Any, contents: Contents) -> None:
        self.objects, self.contents = Objects(root), contents
        self.repo = repo
        remotes = sorted(repo.config["remote"])
        self.cache = Storage("DVC's cache", repo.cache.local)
        self.remotes = [Storage(f"DVC remote {name!r}", repo.cloud.get_remote_odb(name)) for name in remotes]
        self._names = dict(zip([place.name for place in self.remotes], remotes, strict=True))
        self._rows: dict[str, int] = {}
        self._new: dict[str, New | None] = {}
        self._made: set[str] = set()  # files of new folders

    @property
    def unfinished(self) -> list[Path]:
        """What a try that was killed has left beside the objects."""
        return sorted(self.objects.cache.glob(f"{_BESIDE}*"))

    def look(self) -> None:
        """Read every object; which of them hold rows, and which folders these."""
        known = -1
        while known < len(self.contents.names):  # texts are searched for names that tables tell
            known, self._rows = len(self.contents.names), {}
            for place in (self.cache, *self.remotes):
                with _answering(place.name):
                    self._look(place)

    def _look(self, place: Storage) -> None:
        oids = list(place.odb.all())
        place.holding = {oid: rows for oid in oids if (rows := self._rows_of(place, oid))}
        place.folders = {oid: _members(_read(place, oid)) for oid in oids if oid.endswith(".dir")}

    def rows_in(self, md5: str | None, names: Collection[str]) -> int | None:
        """How many rows of these files of a folder are theirs, by the last look; None: one of them is nowhere
        to be had."""
        for place in (self.cache, *self.remotes):
            listed = place.folders.get(md5 or "", {})
            found = [self._rows.get(listed.get(name, "")) for name in names]
            if None not in found:
                return sum(rows for rows in found if rows is not None)
        return None

    def erase(self, place: Storage, replaced: Collection[str]) -> None:
        place.erase(replaced, self._made)

    @contextmanager
    def laid_out(self, md5: str) -> Iterator[Path]:
        """A folder of links to the objects, by their names. Raises Stays where they are not whole."""
        self._fetch(md5)
        listed = self.objects.files(md5)
        if listed is None:
            raise Stays(f"{md5} is not whole in DVC's cache")
        with self._beside() as folder:
            for name, path in listed.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(path)
            yield folder

    def _rows_of(self, place: Storage, oid: str) -> int:
        if oid.endswith(".dir"):
            return 0
        if oid not in self._rows:
            with place.odb.fs.open(place.odb.oid_to_path(oid), "rb") as file:
                self._rows[oid] = self.contents.rows(file)
        return self._rows[oid]

    def stands_for(self, old: str, new: str) -> None:
        """What was asked for by the one name is there by the other, if it is: of an earlier try."""
        if old not in self._new and (self._new.get(new) or self.objects.files(new) is not None):
            self._new[old] = self._new.get(new) or New(new, self._size(new))

    def lacks(self, md5: str) -> bool:
        """Whether a folder is neither whole in the cache nor in the default remote."""
        return self.objects.files(md5) is None and not self.objects.is_in_remote(md5)

    def rewritten(
        self, md5: str, hashes: Mapping[str, str], others: Mapping[str, Path] | None = None
    ) -> New | None:
        """Put a folder or file without the rows into the cache and wherever the old one is.

        `others`: files that take the place of a folder's of these names. None: nothing of it would change,
        or it is nowhere to be had.
        """
        if md5 not in self._new:
            self._fetch(md5)
            folder = md5.endswith(".dir")
            self._new[md5] = self._folder(md5, hashes, others or {}) if folder else self._file(md5, hashes)
            if new := self._new[md5]:
                self._push(md5, new.md5)
        return self._new[md5]

    def _file(self, md5: str, hashes: Mapping[str, str]) -> New | None:
        path = self._path(md5)
        if not path.is_file():
            return None
        with self._beside() as target:
            self.contents.clean(path, target, hashes)
            return self._keep(target) if target.exists() else None

    def _folder(self, md5: str, hashes: Mapping[str, str], others: Mapping[str, Path]) -> New | None:
        listed = self.objects.files(md5)
        if listed is None:
            return None
        old = {name: path.parent.name + path.name for name, path in listed.items()}
        new = {name: found.md5 for name, oid in old.items() if (found := self._file(oid, hashes))}
        new |= {name: oid for name, file in others.items() if (oid := self._keep(file).md5) != old[name]}
        if not new:
            return None
        rows, summary = REFERENCE
        if rows in new and summary in old:
            new[summary] = self._summary(self._path(old[summary]), self._path(new[rows]))
        entries = json.loads(self._path(md5).read_bytes())
        for entry in entries:
            entry["md5"] = new.get(entry["relpath"], entry["md5"])
        with self._beside() as target:
            target.write_text(json.dumps(entries, sort_keys=True), encoding="utf-8")
            listing = self._keep(target, ".dir").md5
        self._made.update(entry["md5"] for entry in entries)
        return New(listing, self._size(listing))

    def _size(self, md5: str) -> int:
        """Bytes of a folder's files."""
        members = _members(self._path(md5).read_bytes()).values()
        return sum(self._path(oid).stat().st_size for oid in members)

    def _summary(self, path: Path, rows: Path) -> str:
        with self._beside() as target:
            summary_without(path, rows, target)
            return self._keep(target).md5

    def _path(self, md5: str) -> Path:
        return self.objects.cache / "files" / "md5" / md5[:2] / md5[2:]

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        """A new name in the cache's file system, and nothing there."""
        self.objects.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.objects.cache, prefix=_BESIDE) as folder:
            yield Path(folder) / "object"

    def _keep(self, file: Path, suffix: str = "") -> New:
        with file.open("rb") as stream:
            md5 = hashlib.file_digest(stream, "md5").hexdigest() + suffix
        size, path = file.stat().st_size, self._path(md5)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        os.replace(file, path)
        return New(md5, size)

    def _fetch(self, md5: str) -> None:
        """From the default remote, what the cache lacks of it."""
        if self.objects.remote and not (self._path(md5).is_file() and self._whole(md5)):
            with _answering(self.objects.remote):
                if self.objects.is_in_remote(md5):
                    self.objects.fetch(md5)

    def _whole(self, md5: str) -> bool:
        return not md5.endswith(".dir") or self.objects.files(md5) is not None

    def _push(self, old: str, new: str) -> None:
        from dvc_data.hashfile.hash_info import HashInfo

        names = [new]
        if new.endswith(".dir"):
            names = [*_members(self._path(new).read_bytes()).values(), new]
        for place in self.remotes:
            with _answering(place.name):
                if place.odb.exists(old):
                    infos = [HashInfo("md5", name) for name in names]
                    failed = self.repo.cloud.push(infos, remote=self._names[place.name]).failed
                    if failed:
                        raise Unavailable(f"{len(failed)} of {len(names)} objects could not be pushed")


def summary_without(summary: Path, rows: Path, target: Path) -> None:
    """reference/summary.json of a sample that has fewer rows now."""
    import pyarrow.parquet as pq

    left = pq.ParquetFile(rows).metadata.num_rows
    ReferenceSummary.read(summary).but(rows_kept=left).write(target)


def _read(place: Storage, oid: str) -> bytes:
    with place.odb.fs.open(place.odb.oid_to_path(oid), "rb") as file:
        content: bytes = file.read()
    return content


def _members(listing: bytes) -> dict[str, str]:
    """Path -> object; {} of what is no listing."""
    try:
        return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(listing)}
    except (ValueError, TypeError, KeyError):
        return {}


@contextmanager
def _answering(name: str) -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        raise Unavailable(f"{name}: {error}: nothing is lost, run the same command again") from None
    except Exception as error:  # whatever the remote's library raises
        raise Unavailable(f"{name}: {error}: check it with `dvc remote list`, then run again") from error


@contextmanager
def opened(root: Path, contents: Contents) -> Iterator[Stored]:
    import logging

    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # one line says what is missing
    with Repo(str(root)) as repo:
        yield Stored(root, repo, contents)
