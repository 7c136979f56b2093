"""A project that knows anna and bert: two versions, their data in DVC's cache and remote, an event store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import toy

from pipeline.data import tables
from pipeline.drift import reference
from pipeline.models.artifacts import folder_hash
from pipeline.params import Params
from pipeline.registry.actions import promote, put_champion
from pipeline.registry.git import Git
from pipeline.runs.worktrees import LATEST
from pipeline.serve.events import Impression, Row, Store

PAGE = """<!doctype html><table><tr><td>{people}</td></tr></table>
{articles}
<p>the end</p>
"""
OUTS = (
    "data/raw/interactions",
    "data/raw/users.parquet",
    "data/raw/rejected.parquet",
    "data/prepared",
    "models/challenger",
    "reports/evaluation.html",
    "reports/evaluation.json",
    "reports/promotion.json",
    "recommendations/top_k.parquet",
)


def rows(*users: str, days: int = 20) -> pd.DataFrame:
    start = pd.Timestamp("2026-01-01", tz="UTC")
    table = pd.DataFrame(
        [(user, f"i{day % 5}", start + pd.Timedelta(days=day)) for day in range(days) for user in users],
        columns=[tables.USER, tables.ITEM, tables.TIME],
    )
    table[tables.TIME] = table[tables.TIME].astype(tables.MOMENT)
    return table.assign(event="click", value=1.0, text="fine")


def project(root: Path, anna: str = "anna-7", bert: str = "bert-8") -> Path:
    toy.new_project(root)
    remote = f"['remote \"store\"']\n    url = {root.parent / 'remote'}\n"
    (root / ".dvc/config").write_text(f"[core]\n    analytics = false\n    remote = store\n{remote}")
    toy.git(root, "commit", "-qam", "Name a remote")
    for seed, users in ((1, (anna, bert)), (2, (anna, bert, "cleo-9"))):
        version(root, seed, users)
    git = Git(root)
    git.use_fallback_identity()
    lock = (root / "dvc.lock").read_text()
    git.run("update-ref", LATEST, git.with_file("HEAD", "dvc.lock", lock, "Run"))
    history = root / "data/history/20260120-v1"
    history.mkdir(parents=True)
    for name in ("evaluation.html", "promotion.json"):
        shutil.copy(root / "reports" / name, history / name)
    store = Store(f"sqlite:///{root}/.evergreen/events.db")
    for user in (anna, bert):
        store.append([[Row(f"e-{user}", user, "i1", "click", None, "hello", 1, "shown")]])
        store.show([Impression(f"s-{user}", 1, user, "v2.0.0", "champion", None, "[]")])
    store.close()
    kept = root / ".evergreen/prepared/abc"
    kept.mkdir(parents=True)
    pd.DataFrame({"user_id": [anna, bert]}).to_parquet(kept / "users.parquet")
    leave(root, anna)
    return root


def leave(root: Path, person: str) -> None:
    """What killed stages, `evergreen check` and `evergreen replay` leave, beside what dvc.yaml names."""
    table = pd.DataFrame({"user_id": [person]})
    for path in (
        "data/.prepared.4194305.partial/train.parquet",
        "data/raw/.partial/new/users.parquet",
        "models/.challenger.4194305.old.partial/reference/interactions.parquet",
        "recommendations/.top_k.parquet.4194305.partial",
        ".dvc/cache/.forget-0/object",
        ".dvc/cache/files/md5/ab/.abcdef.tmp",
        ".evergreen/replay/abcd/data/raw/users.parquet",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(root / path)
    (root / ".evergreen/replay/abcd/params.yaml").touch()
    (root / "reports/check.json").write_text(json.dumps({"examples": [f"{person!r}: 20 rows"]}))


def version(root: Path, seed: int, users: tuple[str, ...]) -> None:
    """Data, a challenger that is trained on them, and its promotion."""
    before = folder_hash(root / "models/champion") if seed > 1 else None
    table = rows(*users)
    for folder in ("data/raw", "data/prepared", "models/challenger", "recommendations"):
        shutil.rmtree(root / folder, ignore_errors=True)
    tables.write_parquet(table, root / "data/raw/interactions/month=2026-01/part-0.parquet")
    tables.write_parquet(pd.DataFrame({"user_id": [*users, "dora-0"]}), root / "data/raw/users.parquet")
    bad = {"table": "interactions", "reason": "too_many_cells", "place": "a:1", "user_id": None}
    raw = [f"{user},i1,2026,{seed}" for user in users]
    tables.write_parquet(
        pd.DataFrame([bad | {"raw": text} for text in raw]), root / "data/raw/rejected.parquet"
    )
    manifest = {"as_of": "2026-01-20T00:00:00+00:00", "rows": {"kept": len(table)}}
    (root / "data/raw/manifest.json").write_text(json.dumps(manifest))
    tables.write_parquet(table, root / "data/prepared/train.parquet")
    (root / "data/prepared/summary.json").write_text("{}")
    listed = table[[tables.USER, tables.ITEM]].drop_duplicates().assign(rank=1)
    tables.write_parquet(listed, root / "recommendations/top_k.parquet")
    model = root / "models/challenger"
    settings = Params.load(root / "params.yaml").detect_drift.model_copy(
        update={"min_users": 2, "min_rows": 10}
    )
    reference.write(model / "reference", table, f"2026-01-{10 + seed}", settings)
    card = {"fit_end": f"2026-01-{10 + seed}T00:00:00+00:00", "seed": seed, "as_of": manifest["as_of"]}
    (model / "model.json").write_text(json.dumps(card))
    (model / "weights").write_text(str(seed) * 100)
    reports(root, users, before)
    stages = [f"    - path: {path}\n      hash: md5\n{kept(root, root / path)}" for path in OUTS]
    lock = "schema: '2.0'\nstages:\n  all:\n    cmd: make\n    outs:\n"
    (root / "dvc.lock").write_text(lock + "".join(stages))
    promote(root, reason="for this test")
    put_champion(root)


def reports(root: Path, users: tuple[str, ...], before: str | None) -> None:
    article = '<article class="person">\n<h3>User <bdi>{}</bdi></h3>\n<p>took i1</p>\n</article>\n'
    people = "".join(f"<div><bdi>{user}</bdi>: <bdi>i1</bdi></div>" for user in users)
    page = PAGE.format(people=people, articles="".join(map(article.format, users)))
    toy.write_verdict(root, champion=before)
    (root / "reports/evaluation.html").write_text(page)
    told = {"artifact_hash": {"challenger": folder_hash(root / "models/challenger")}}
    (root / "reports/evaluation.json").write_text(json.dumps(told))


def kept(root: Path, path: Path) -> str:
    """Put a file or folder among DVC's objects, here and in the remote; its lines of dvc.lock."""
    if path.is_file():
        md5, size = stored(root, path.read_bytes()), path.stat().st_size
        return f"      md5: {md5}\n      size: {size}\n"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = [
        {"md5": stored(root, file.read_bytes()), "relpath": file.relative_to(path).as_posix()}
        for file in files
    ]
    md5 = stored(root, json.dumps(listing, sort_keys=True).encode(), ".dir")
    size = sum(file.stat().st_size for file in files)
    return f"      md5: {md5}\n      size: {size}\n      nfiles: {len(files)}\n"


def stored(root: Path, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content).hexdigest() + suffix
    for place in (root / ".dvc/cache/files/md5", root.parent / "remote/files/md5"):
        path = place / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
    return md5


def everything(*folders: Path) -> str:
    """Every cell of every table, every other file as it is, every blob and tag of git, and all names."""
    texts = []
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if content.startswith(b"PAR1"):
                texts.append(pd.read_parquet(path).to_csv())
            texts.append(f"{path}\n" + content.decode(errors="replace"))
        if (folder / ".git").is_dir():
            command = ["git", "cat-file", "--batch-all-objects", "--batch"]
            texts.append(subprocess.check_output(command, cwd=folder).decode(errors="replace"))
    return "\n".join(texts)


def snapshot(root: Path) -> dict[str, str]:
    """Relative path -> hash of all files, but for git's own and locks."""
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.parts and "tmp" not in path.parts and path.suffix != ".lock"
    }


def identity() -> dict[str, str]:
    return {key: value for key, value in toy.environment().items() if os.environ.get(key) != value}
