import fcntl
import gc
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import toy
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pandas as pd


# Tables of some hundred rows: a second thread costs several times what it saves, more so on a busy machine.
# Read when torch and numpy are loaded, which none of the imports above does; what tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine takes seconds for what an idle one does in milliseconds; neither says anything of the code.
settings.register_profile(
    "patient", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# What runs in the background of a script is started with Ctrl-C ignored, and hands that on to its children.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules and tests are a million objects that stay: no collection has to look at them, neither while they are
# loaded nor later.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


DEFAULT_TESTS_SECONDS = 164  # of `make test`, on the machine whose minutes the marks say: docs/log.md


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What would not be done before CI has to end is not begun, and is told as skipped.

    `.ci/run` says when that is, and how long the default tests took: one machine needs six times as long as
    another.
    """
    slow = item.get_closest_marker("slow")
    if slow is None or "CI_ENDS" not in os.environ:
        return
    pace = max(1, float(os.environ["CI_TESTS_SECONDS"]) / DEFAULT_TESTS_SECONDS)
    minutes = pace * slow.kwargs.get("minutes", 1)
    left = (float(os.environ["CI_ENDS"]) - time.time()) / 60
    if minutes > left:
        pytest.skip(f"would take some {minutes:.0f} minutes on this machine, and CI ends in {left:.0f}")


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries complain of leaks at the end


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` that make(folder) makes, by one process for all of `pytest -n`."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one who failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project trained with the seeds 1, 2 and 3; what each left lies in .evergreen/seed-N."""

    def make(folder: Path) -> None:
        project = toy.new_project(folder / "project")
        before = 17
        for seed in (1, 2, 3):
            toy.set_param(project, f"seed: {before}", f"seed: {seed}")
            before = seed
            toy.dvc(project, "repro", "-q")
            kept = project / ".evergreen" / f"seed-{seed}"
            shutil.copytree(project / "models" / "challenger", kept / "challenger")
            shutil.copy(project / "dvc.lock", kept / "dvc.lock")

    return made_once(tmp_path_factory, "toy", make) / "project"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with git's identity and configuration out of reach, and no verdict yet."""
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(trained_once, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def cycled_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A toy project after its first `evergreen cycle`, and what that printed."""

    def make(folder: Path) -> None:
        done = toy.evergreen(toy.new_cycle_project(folder / "project"), "cycle")
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed").write_text(done.stdout)

    folder = made_once(tmp_path_factory, "cycle", make)
    return folder / "project", (folder / "printed").read_text()


@pytest.fixture
def cycled(cycled_once: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(cycled_once[0], tmp_path / "project", symlinks=True))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server like S3, which has the bucket `evergreen`."""
    pytest.importorskip("dvc_s3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    try:
        host, port = server.get_host_and_port()
        # moto keeps its buckets for the process, not for the server: an earlier test's objects would be here.
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/evergreen", method="PUT"))
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def prepare(tmp_path: Path) -> Any:
    """prepare(interactions, items=None, **settings) runs the stage preprocess in a folder of its own."""
    import small_data as small

    from pipeline.stages.preprocess import main

    def run(
        interactions: "pd.DataFrame", items: "pd.DataFrame | None" = None, **settings: Any
    ) -> small.Prepared:
        raw = small.write_raw(tmp_path / "raw", interactions, items)
        main(raw, tmp_path / "prepared", small.write_params(tmp_path / "params.yaml", **settings))
        return small.Prepared(tmp_path / "prepared")

    return run
