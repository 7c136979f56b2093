"""Model folders as values: their hash, their card, and replacing one so that nobody reads a mixture.

A model folder is self-describing and holds a model if and only if its card `model.json` is there. The hash
covers every file but README.md (committed beside the champion) and what is written when a version is put
there (version.json, MODEL_CARD.md, DATA_SHEET.md, exploration.json), so challenger and champion of the same
training have the same hash wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.documents.model import Claim, Exploration
from pipeline.errors import ArtifactError, PipelineError

CHAMPION = Path("models/champion")
CARD, VERSION, README = "model.json", "version.json", "README.md"
PARTS = "parts.safetensors"  # what the parts keep
MODEL_CARD, DATA_SHEET = "MODEL_CARD.md", "DATA_SHEET.md"  # for people (pipeline/registry/cards.py)
EXPLORATION = "exploration.json"  # what the promotion admitted for the places left to chance, if anything
_BLOCK = 1 << 20  # bytes read at a time


def has_model(folder: Path) -> bool:
    return (folder / CARD).is_file()


def folder_hash(path: Path) -> str:
    """sha256 (hex) over the sorted relative paths and contents. Raises ArtifactError if there is no model.

    Every file enters as `path NUL digest-of-contents NEWLINE`, so that no two different folders run together.
    """
    if not has_model(path):
        raise _no_model(path)
    return files_hash({name: path / name for name in _files(path)})


def files_hash(files: Mapping[str, Path]) -> str:
    """folder_hash of a folder that would hold these files: relative path -> where its content lies."""
    total = hashlib.sha256()
    for name in sorted(set(files) - {README, VERSION, MODEL_CARD, DATA_SHEET, EXPLORATION}):
        total.update(name.encode() + b"\0" + _file_hash(files[name]) + b"\n")
    return total.hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """model.json, NaN read as null. Raises ArtifactError if it is missing or damaged."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_model(folder) from None
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}): {_remedy(folder)}") from None
    if not isinstance(card, dict):
        raise ArtifactError(f"{path}: not a JSON object: {_remedy(folder)}")
    return card


def named(artifact_hash: str) -> str:
    """What a service calls a model without a version."""
    return f"sha256:{artifact_hash[:12]}"


def version_in(folder: Path) -> str | None:
    """The version that was put there; None for a challenger, or where it does not say."""
    claim = Claim.find(folder / VERSION)
    return claim.version if claim else None


def exploration_in(folder: Path) -> Exploration | None:
    """What the version put there was admitted to draw by; None: nothing.

    Raises ArtifactError for a file that is not the one that version.json names.
    """
    claim, path = Claim.find(folder / VERSION), folder / EXPLORATION
    named_hash = claim.exploration if claim else None
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if found != named_hash:
        raise ArtifactError(f"{path}: not what {VERSION} says it is: {Exploration.remedy}")
    return None if found is None else Exploration.read(path)


@contextmanager
def pinned(folder: Path) -> Iterator[Path]:
    """A path that keeps meaning the folder as it is now, even if another is put in its place meanwhile.

    A reader that opens several files by name could otherwise take some from the old folder and some from the
    new one. The replaced folder is deleted: a reader caught by that gets FileNotFoundError and starts again.
    """
    if sys.platform != "linux" or not folder.is_dir():
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    path = f"/proc/self/fd/{descriptor}"
    try:
        yield Path(path)
    except PipelineError as error:
        raise type(error)(str(error).replace(path, str(folder))) from None
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _file_hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def _no_model(folder: Path) -> ArtifactError:
    return ArtifactError(f"{folder / CARD}: no such file, so no model there: {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    champion = folder.resolve().name == "champion"  # a pinned folder is a link to it
    return "run `evergreen champion`" if champion else "run `dvc repro finetune`"
