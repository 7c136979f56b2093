"""What the README tells a newcomer to do, done: in a clone, with an empty home and no git identity."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import slowness

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK_START = re.findall(
    r"```sh\n(.*?)```", README.split("## Quick start")[1].split("\n## ")[0], flags=re.DOTALL
)

pytestmark = pytest.mark.slow(minutes=13)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is committed, not what is edited."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    yield folder
    shutil.rmtree(folder)  # 2 GB


def run(clone: Path, lines: str) -> str:
    home = clone.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_", "VIRTUAL_"))
    }
    path = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if ".venv" not in part)
    environment = kept | {"HOME": str(home), "PATH": path, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["sh", "-e", "-c", lines], cwd=clone, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_quick_start_leads_to_a_champion_and_its_lists(clone: Path) -> None:
    make_run, look = QUICK_START
    assert make_run == "make run\n"
    shown = run(clone, make_run)
    models = json.loads((clone / "reports" / "evaluation.json").read_text(encoding="utf-8"))["models"]
    assert models["challenger"]["all"]["ndcg@10"] > models["popularity"]["all"]["ndcg@10"]
    assert json.loads((clone / "reports" / "promotion.json").read_text(encoding="utf-8"))["promote"]
    assert "nDCG@10" in shown
    assert (clone / "models" / "champion" / "model.json").is_file()
    assert "v1.0.0" in run(clone, look)


def test_a_second_time_nothing_runs(clone: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (clone / "reports").rglob("*")}
    started = time.monotonic()
    shown = run(clone, "make run")
    assert "no stage is run" in shown
    assert "environment:" not in shown
    assert {path: path.stat().st_mtime_ns for path in (clone / "reports").rglob("*")} == before
    assert time.monotonic() - started < 60 * slowness()  # 15 on a quick machine that does nothing else


def test_the_checkout_stays_as_it_was(clone: Path) -> None:
    assert run(clone, "git status --porcelain").split() == ["??", "dvc.lock"]
    assert run(clone, "git log --oneline -1 origin/HEAD") == run(clone, "git log --oneline -1")
    assert set(run(clone, ".venv/bin/dvc metrics show --json")) > set("{}")


def test_an_experiment_can_be_compared(clone: Path) -> None:
    """A parameter that only the last stages read, so that nothing is trained."""
    run(clone, ". .venv/bin/activate; dvc exp run -q -S recommend.k=3 recommend")
    assert "recommend.k" in run(clone, ". .venv/bin/activate; dvc exp show --csv")
