"""A version's model folder among DVC's objects: is it there, is it whole, get it out, push and fetch it.

DVC stores a folder as objects named by their md5: `HASH.dir`, a JSON list of paths and md5s, and one a file.
What lies in the local cache is read directly, which takes milliseconds and works while another `dvc` command
holds its lock; dvc itself is imported only to talk to a remote.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import ArtifactError, Unavailable
from pipeline.models.artifacts import files_hash
from pipeline.params import YamlLoader

MODEL = "models/challenger"
"""The stage output that becomes a version."""
START_ANEW = "git tag --delete $(git tag --list 'recommender[@#]*' 'training/*')"
"""For a clone of a project whose models are out of reach: without its tags there is no version."""


def locked_stages(lock: str | None) -> dict[str, dict[str, Any]]:
    """Stage -> its `cmd`, `params` (key -> value), `deps` and `outs` of a dvc.lock; {} if it is none."""
    try:
        stages = (yaml.load(lock or "", Loader=YamlLoader) or {}).get("stages", {})
        return {
            name: {
                "cmd": stage.get("cmd"),
                "params": (stage.get("params") or {}).get("params.yaml") or {},
                "deps": [one for one in stage.get("deps", []) if one.get("path")],
                "outs": [one for one in stage.get("outs", []) if one.get("path")],
            }
            for name, stage in stages.items()
        }
    except (yaml.YAMLError, AttributeError, TypeError):
        return {}


def locked(lock: str | None, kind: Literal["deps", "outs"]) -> list[dict[str, Any]]:
    """Dependencies or outputs of all stages in the text of a dvc.lock; [] if it is none."""
    return [entry for stage in locked_stages(lock).values() for entry in stage[kind]]


def behind(lock: str | None) -> dict[str, list[str]]:
    """Stage -> what it read of other stages' outputs that is not what these last made, by dvc.lock.

    Without asking DVC, which would call every output changed that another machine holds.
    """
    made = {out["path"]: out.get("md5") for out in locked(lock, "outs")}
    read = {
        name: [
            dep["path"] for dep in stage["deps"] if made.get(dep["path"], dep.get("md5")) != dep.get("md5")
        ]
        for name, stage in locked_stages(lock).items()
    }
    return {name: paths for name, paths in read.items() if paths}


def locked_md5(lock: str | None, output: str = MODEL) -> str | None:
    """The md5 (`....dir`) of a stage's output; None if it is not there."""
    return next((entry.get("md5") for entry in locked(lock, "outs") if entry["path"] == output), None)


class Objects:
    """The DVC cache and default remote of the project at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _config(self) -> dict[str, Any]:
        from dvc.config import Config
        from dvc.exceptions import DvcException

        if not (self.root / ".dvc").is_dir():
            raise ArtifactError(f"{self.root / '.dvc'}: no such folder: run `dvc init`")
        try:
            return Config(str(self.root / ".dvc"))
        except DvcException as error:
            raise ArtifactError(f".dvc/config: {error}: correct it (`dvc config --list`)") from None

    @cached_property
    def cache(self) -> Path:
        folder = self._config.get("cache", {}).get("dir")
        return (self.root / ".dvc" / os.fspath(folder) if folder else self.root / ".dvc" / "cache").resolve()

    @property
    def remote(self) -> str | None:
        """Name of the default remote."""
        return self._config.get("core", {}).get("remote")

    def files(self, md5: str | None) -> dict[str, Path] | None:
        """Relative path -> object of every file of the folder; None if any of them is not in the cache."""
        if not md5:
            return None
        try:
            files_there = {path: self._object(name) for path, name in self._listing(md5).items()}
        except FileNotFoundError:
            return None
        return files_there if all(path.is_file() for path in files_there.values()) else None

    def is_in_remote(self, md5: str) -> bool:
        """Asks the remote; the listing is pushed last, so where it is the files are."""
        return bool(self.remote) and bool(self._with_dvc("ask", lambda r: _odb(r).exists(md5)))

    def restore(self, md5: str | None, expected: str, into: Path) -> None:
        """Copy the folder into the empty folder `into`, after fetching what the cache lacks.

        Raises ArtifactError if it is nowhere to be had, or is not the one with the folder_hash `expected`.
        """
        self.require(md5, expected)
        for name, path in (self.files(md5) or {}).items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into / name)

    def require(self, md5: str | None, expected: str) -> None:
        """Make sure that the cache holds the folder, whole and with the folder_hash `expected`."""
        files = self.files(md5)
        if files is None and md5 and self.remote:
            self.fetch(md5)
            files = self.files(md5)
        if files is None:
            raise ArtifactError(f"{md5}: not whole in DVC's {self._how_to_get_it()}")
        if files_hash(files) != expected:
            for path in files.values():
                if _md5(path) != path.parent.name + path.name:
                    raise ArtifactError(
                        f"{path}: damaged: remove it and run again; a remote has it, if anything"
                    )
            raise ArtifactError(
                f"{md5}: whole, but not the model with hash {expected[:10]}: name another version"
            )

    def _how_to_get_it(self) -> str:
        if self.remote:
            return f"cache and remote '{self.remote}': run `evergreen registry push` where it was made"
        return (
            "cache, and there is no remote: a clone knows the versions and lacks their models. Where they "
            "were made, run `dvc remote add -d NAME URL`, commit .dvc/config, `evergreen registry push`; or "
            f"start anew here without the old versions: `{START_ANEW}`"
        )

    def push(self, md5: str) -> None:
        """Push the folder to the default remote. Raises ArtifactError if that did not work."""
        self._transfer("push", [*self._listing(md5).values(), md5])

    def fetch(self, md5: str) -> None:
        """Get from the remote what it has of the folder."""
        self._transfer("fetch", [md5])
        if self._object(md5).is_file():
            self._transfer("fetch", list(self._listing(md5).values()))

    def _listing(self, md5: str) -> dict[str, str]:
        """Relative path -> md5 of the folder's files. Raises FileNotFoundError if it is not in the cache."""
        try:
            listing = json.loads(self._object(md5).read_text(encoding="utf-8"))
            return {entry["relpath"]: entry["md5"] for entry in listing}
        except (ValueError, TypeError, KeyError):
            raise ArtifactError(f"{self._object(md5)}: damaged: remove it and run again") from None

    def _object(self, md5: str) -> Path:
        return self.cache / "files" / "md5" / md5[:2] / md5[2:]

    def _transfer(self, verb: str, names: list[str]) -> None:
        def transfer(repo: Any) -> Any:
            from dvc_data.hashfile.hash_info import HashInfo

            move = repo.cloud.push if verb == "push" else repo.cloud.pull
            return move([HashInfo("md5", name) for name in names])

        failed = self._with_dvc(verb, transfer).failed
        if failed:
            raise self._unreachable(verb, f"{len(failed)} of {len(names)} objects failed")

    def _with_dvc(self, verb: str, act: Callable[[Any], Any]) -> Any:
        """act(repo), with every failure of remote or network as one line."""
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.CRITICAL)  # one line below says what is missing
        try:
            with Repo(str(self.root)) as repo:
                return act(repo)
        except Exception as error:  # whatever the remote's library raises
            raise self._unreachable(verb, error) from error

    def _unreachable(self, verb: str, reason: object) -> Unavailable:
        return Unavailable(
            f"dvc {verb}: remote '{self.remote}': {str(reason) or type(reason).__name__}: check it with "
            "`dvc remote list` and `dvc status --cloud`, then run again"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _odb(repo: Any) -> Any:
    return repo.cloud.get_remote_odb()
