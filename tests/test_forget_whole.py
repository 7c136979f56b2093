"""Forgetting among real stages, DVC's own cache and a remote: killed on the way, and what comes after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import erasing
import pandas as pd
import pytest
import toy
import yaml
from waiting import PATIENCE_SECONDS

pytest.importorskip("sqlalchemy")

from pipeline.models.artifacts import folder_hash
from pipeline.registry.actions import promote, put_champion, rollback

pytestmark = pytest.mark.slow

USERS, ROWS = 12, 30
FINETUNE = """
import json, pathlib, sys
import pandas as pd
from pipeline.drift import reference
from pipeline.params import Params
prepared, model = map(pathlib.Path, sys.argv[1:])
rows = pd.concat([pd.read_parquet(prepared / f"{name}.parquet") for name in ("train", "validation")])
end = rows["timestamp"].max()
rule = Params.load(pathlib.Path("params.yaml")).detect_drift
reference.write(model / "reference", rows, end, rule.model_copy(update={"min_users": 2, "min_rows": 10}))
(model / "weights").write_text(str(len(rows)) * 100)
(model / "model.json").write_text(json.dumps({"fit_end": end.isoformat(), "as_of": end.isoformat()}))
"""
RECOMMEND = """
import pathlib, sys
import pandas as pd
prepared, lists = map(pathlib.Path, sys.argv[1:])
users = pd.read_parquet(prepared / "train.parquet")["user_id"].unique()
lists.parent.mkdir(exist_ok=True)
pd.DataFrame({"user_id": users, "rank": 1, "item_id": "i1"}).to_parquet(lists)
"""


def graph() -> str:
    """The first stages are the project's own; a model and lists of a few lines stand for the rest."""
    stages = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]
    own = {name: stages[name] for name in ("collect", "preprocess")}
    for stage in own.values():
        stage["deps"] = [dep for dep in stage["deps"] if dep.startswith("data/")]
    own["finetune"] = {
        "cmd": "python finetune.py data/prepared models/challenger",
        "deps": ["data/prepared"],
        "outs": ["models/challenger"],
    }
    own["recommend"] = {
        "cmd": "python recommend.py data/prepared recommendations/top_k.parquet",
        "deps": ["data/prepared"],
        "outs": ["recommendations/top_k.parquet"],
    }
    return yaml.safe_dump({"stages": own})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two versions, of a source that had half of the rows at first."""
    for name, value in toy.environment().items():
        monkeypatch.setenv(name, value)
    files = {
        "finetune.py": FINETUNE,
        "recommend.py": RECOMMEND,
        "data/forgotten.json": '{\n  "people": []\n}\n',
    }
    root = toy.new_project(tmp_path / "project", graph(), **files)
    source = tmp_path / "rows.csv"
    toy.set_param(root, "source: movielens-100k", "source: files")
    toy.set_param(root, "interactions: null #", f"interactions: {source} #")
    toy.git(root, "commit", "-qam", "Bring own data")
    toy.dvc(root, "remote", "add", "-q", "-d", "store", str(tmp_path / "remote"))
    toy.git(root, "commit", "-qam", "Name a remote")
    before = None
    for days in (ROWS // 2, ROWS):
        bring(source, days)
        toy.dvc(root, "repro", "-q", "--force")
        toy.write_verdict(root, champion=before)
        promote(root, reason="for this test")
        put_champion(root)
        before = folder_hash(root / "models/champion")
    toy.dvc(root, "push", "-q")
    return root


def bring(source: Path, days: int) -> None:
    rows = []
    for day in range(days):
        date = f"2026-0{1 + day // 28}-{1 + day % 28:02}"
        rows += [
            f"member-{user:03},i{(7 * user + 5 * day) % 97},{date}T0{user % 9}:00" for user in range(USERS)
        ]
    source.write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))


def killed_at(root: Path, person: str, tag: str) -> None:
    """By SIGKILL, as soon as the tag is there."""
    command = [sys.executable, "-m", "pipeline", "forget", person]
    process = subprocess.Popen(command, cwd=root, env=toy.environment(), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + PATIENCE_SECONDS
    while tag not in toy.tags(root) and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_person_is_forgotten_whatever_kills_it_and_stays_so(project: Path, tmp_path: Path) -> None:
    person, remote = "member-003", tmp_path / "remote"
    assert erasing.everything(project).count(person) > ROWS
    for tag in ("forgotten/1", "rewritten/1"):
        killed_at(project, person, tag)
        assert toy.evergreen(project, "registry", "list").returncode == 0
    done = toy.evergreen(project, "forget", person, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]
    assert person not in erasing.everything(project, remote)
    # DVC finds what dvc.lock says, and nothing to do but to collect without them: the source still has them.
    status = json.loads(toy.dvc(project, "status", "--json"))
    assert status == {"collect": [{"changed deps": {"data/forgotten.json": "modified"}}]}
    toy.dvc(project, "repro", "-q", "--force", "--single-item", "collect")
    assert json.loads((project / "data/raw/manifest.json").read_text())["forgotten"]["rows"] == ROWS
    toy.dvc(project, "push", "-q")
    assert person not in erasing.everything(project, remote)
    # What every version needs is kept by garbage collection, and can be gone back to.
    toy.dvc(project, "gc", "-q", "--force", "--workspace", "--all-tags")
    assert rollback(project, to="v1").name == "v1.0.0"
    put_champion(project)
    sample = pd.read_parquet(project / "models/champion/reference/interactions.parquet")["user_id"]
    assert sample.nunique() == USERS - 1
