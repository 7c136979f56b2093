"""Who is at work in a checkout: locks of files, which end with the process that holds them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pipeline.errors import PipelineError

FOLDER = Path(".evergreen")


@contextmanager
def held(path: Path, refusal: str, shared: bool = False) -> Iterator[None]:
    """Raises PipelineError with `refusal` where another process holds it, and (`shared`) not shared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(refusal) from None
        yield


def one_cycle(root: Path) -> AbstractContextManager[None]:
    """One cycle a checkout: dvc would fail as busy in the middle of it."""
    return held(
        root / FOLDER / "cycle.lock",
        "another `evergreen cycle` runs in this folder: wait for it to end",
    )


def reading(root: Path) -> AbstractContextManager[None]:
    """Around a command that keeps what it makes of everybody's rows: nobody is forgotten meanwhile."""
    return held(
        root / FOLDER / "readers.lock",
        "`evergreen forget` is at work in this folder: wait for it to end",
        shared=True,
    )


def no_readers(root: Path) -> AbstractContextManager[None]:
    """What they have read they would write again."""
    return held(
        root / FOLDER / "readers.lock",
        "`evergreen backtest`, `bench`, `simulate`, `tune` or `why` is at work in this folder: "
        "wait for it to end",
    )
