"""What someone else reads is written beside, then renamed: its name holds the old content or the new."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

README = "README.md"
"""Of a folder that is replaced; it stays."""
WHOLE = ("model.json", "summary.json")
"""Files by which readers know that a folder holds something."""
NOT_WHOLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What numpy raises of a file that is not there, or was cut short by a crash of the machine."""
_PROCESS = re.compile(r"\.(\d+)(?:\.old)?\.partial$")


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` on success and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8, in one step; the folder is made."""
    with renamed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file is written; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def temporary_beside(final: Path) -> Path:
    """A new empty folder to fill, on the file system of `final`; left-overs of dead processes are removed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{final.name}.*.partial"):
        if is_left_over(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = final.parent / f".{final.name}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def replace_folder(temporary: Path, final: Path) -> None:
    """Put the finished folder `temporary` in the place of `final`, in one step; README.md of `final` stays.

    On Linux the kernel exchanges the two names, so at every moment `final` is the whole old or the whole new
    folder. Where that call does not exist, two renames leave an instant without the folder; where the folder
    cannot be renamed (it is a mount point), it holds nothing while it is refilled. Never a mixture.
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

    What says that it is whole goes first and comes last: meanwhile it is empty rather than a mixture.
    """
    for name in WHOLE:
        (final / name).unlink(missing_ok=True)
    for path in final.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != README:
            path.unlink()
    for path in sorted(temporary.iterdir(), key=lambda path: path.name in WHOLE):
        if path.name in WHOLE:
            with renamed(final / path.name) as beside:
                shutil.copy2(path, beside)
        elif path.name != README:
            shutil.move(path, final / path.name)


def is_left_over(path: Path) -> bool:
    """Whether the writer of this temporary file or folder has ended; also where its name tells none."""
    process = _PROCESS.search(path.name)
    return process is None or not is_alive(process[1])


def is_alive(process: str) -> bool:
    """Whether another process has this number."""
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
