"""The package as others install it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy (building writes beside the sources), unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_and_no_bench(installed: Path) -> None:
    inside = {path.relative_to(installed).as_posix() for path in (installed / "pipeline").rglob("*.*")}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.*")}
    wanted = {name for name in sources if "__pycache__" not in name and "pipeline/bench" not in name}
    assert inside == wanted


@pytest.mark.parametrize("arguments", [[], ["gate", "--json"], ["--data", "x"]])
def test_without_benches_the_command_says_where_they_are(installed: Path, arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "bench", *arguments],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: evergreen bench: not in the installed package")
    assert ran.stderr.count("\n") == 1
