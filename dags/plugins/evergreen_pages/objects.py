"""A run's reports among DVC's objects: found by the md5 in that run's dvc.lock, in the checkout's cache.

Rule: a report is served only if its bytes have the hash that the run recorded, so nobody is shown the report
of another run, and nothing but a run's own outputs can be asked for.
"""

from __future__ import annotations

import configparser
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evergreen_pages.untrusted import get

REPORTS = {"drift": "reports/drift.html", "evaluation": "reports/evaluation.html"}
LARGEST = 100_000_000  # bytes
MD5 = re.compile(r"[0-9a-f]{32}")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Found:
    """A report's bytes, or why they cannot be shown."""

    content: bytes | None
    problem: str | None = None


def hashes(folder: Path) -> dict[str, str]:
    """Name of a report -> md5, from the run's dvc.lock; {} where there is none."""
    try:
        text = (folder / "dvc.lock").read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    outputs: dict[str, str] = {}
    stages = get(content, "stages")
    for stage in stages.values() if isinstance(stages, dict) else ():
        listed = get(stage, "outs")
        for out in listed if isinstance(listed, list) else ():
            path, md5 = get(out, "path"), get(out, "md5")
            if isinstance(path, str) and isinstance(md5, str) and MD5.fullmatch(md5):
                outputs[path] = md5
    return {name: outputs[path] for name, path in REPORTS.items() if path in outputs}


def find(root: Path, folder: Path, report: str) -> Found:
    """Raises KeyError for a report that no run makes."""
    path = REPORTS[report]
    md5 = hashes(folder).get(report)
    if md5 is None:
        return Found(None, f"this run left no {path} (its dvc.lock names none)")
    gone = (
        f"{path} of this run (md5 {md5}) is not in DVC's cache here: `dvc gc` took it, or the run was on "
        "another machine. `dvc pull` with this run's dvc.lock fetches it where a remote holds it."
    )
    try:
        place = cache(root) / md5[:2] / md5[2:]
        if place.stat().st_size > LARGEST:
            return Found(None, f"{path} of this run is too large to be shown here")
        content = place.read_bytes()
    except OSError:
        return Found(None, gone)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        return Found(None, f"{path} of this run (md5 {md5}) was changed in DVC's cache: it is not shown")
    return Found(content)


def cache(root: Path) -> Path:
    """The folder of DVC's objects; `cache.dir` of config.local goes before that of config."""
    folder = root / ".dvc" / "cache"
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(
                "\n".join(map(str.strip, (root / ".dvc" / name).read_text("utf-8").splitlines()))
            )
        except (OSError, ValueError, configparser.Error):
            continue
        if told := parser.get("cache", "dir", fallback=None):
            folder = root / ".dvc" / told
    return folder / "files" / "md5"
