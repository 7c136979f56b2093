"""Model folders as values: their hash, their card, and replacing one so that nobody reads a mixture.

A model folder is self-describing and holds a model if and only if its card `model.json` is there. The hash
covers every file but README.md (committed beside the champion) and version.json (written when a version is
put there), so challenger and champion of the same training have the same hash wherever they lie.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, PipelineError

CARD, VERSION, README = "model.json", "version.json", "README.md"
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
    for name in sorted(set(files) - {README, VERSION}):
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


def temporary_beside(final: Path) -> Path:
    """A new empty folder to fill, on the file system of `final`; left-overs of dead processes are removed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{final.name}.*.partial"):
        if not _alive(leftover.name.split(".")[-2]):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = final.parent / f".{final.name}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def replace_folder(temporary: Path, final: Path) -> None:
    """Put the finished folder `temporary` in the place of `final`, in one step; README.md of `final` stays.

    On Linux the kernel exchanges the two names, so at every moment `final` is the whole old or the whole new
    folder. Where that call does not exist, two renames leave an instant without the folder; where the folder
    cannot be renamed (it is a mount point), it holds no model while it is refilled. Never a mixture.
    """
    if (final / README).is_file() and not (temporary / README).exists():
        shutil.copy2(final / README, temporary / README)
    if not final.exists():
        os.rename(temporary, final)
        return
    try:
        if not _exchange(temporary, final):
            _rename_twice(temporary, final)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EBUSY):
            raise
        _refill(temporary, final)
    shutil.rmtree(temporary, ignore_errors=True)


def _rename_twice(temporary: Path, final: Path) -> None:
    old = temporary.with_name(f"{temporary.name.removesuffix('.partial')}.old.partial")
    os.rename(final, old)
    try:
        os.rename(temporary, final)
    except OSError:
        os.rename(old, final)
        raise
    shutil.rmtree(old)


def _refill(temporary: Path, final: Path) -> None:
    """Of a mount point, or of a layer below a container's own: such a folder cannot be renamed.

    The card goes first and comes last, so that meanwhile the folder holds no model rather than a mixture.
    """
    (final / CARD).unlink(missing_ok=True)
    for path in final.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != README:
            path.unlink()
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == CARD):
        if path.name == CARD:
            shutil.copy2(path, final / f".{CARD}.partial")
            os.rename(final / f".{CARD}.partial", final / CARD)
        elif path.name != README:
            shutil.move(path, final / path.name)


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


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return int(process) != os.getpid()


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically (renameat2 with RENAME_EXCHANGE); False where the system cannot."""
    if sys.platform != "linux":
        return False
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _no_model(folder: Path) -> ArtifactError:
    return ArtifactError(f"{folder / CARD}: no such file, so no model there: {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return "run `evergreen champion`" if folder.name == "champion" else "run `dvc repro finetune`"
