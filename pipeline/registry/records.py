"""What a promotion or a training leaves in the registry: a record of what lies in the project at that moment.

In: reports/promotion.json, metrics.json, retraining.json, training/summary.json, data/raw/manifest.json and
the challenger's card; what of it is missing is null. Out: dictionaries for tag messages, and a version's
snapshot: a commit with tracked files as they are, dvc.lock, the files that stages read, and the reports.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.decisions import get
from pipeline.models.artifacts import read_card
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, locked
from pipeline.registry.versions import COST, EXPORT, NAME, RECORDS, State, Version

VERDICT, METRICS, MANIFEST = "reports/promotion.json", "reports/metrics.json", "data/raw/manifest.json"
DECISION = "reports/retraining.json"
TRAINING = "reports/training/summary.json"  # with the cost: seconds, memory
_SNAPSHOT = (VERDICT, METRICS, "reports/evaluation.json", DECISION, "reports/drift.json", MANIFEST)
_LARGEST_UNTRACKED = (
    1_000_000  # bytes of a dependency that a snapshot takes in although git does not track it
)


def training_record(
    root: Path, git: Git, state: State, card: dict[str, Any], artifact_hash: str
) -> dict[str, Any]:
    """Of models/challenger, whose card and hash are given."""
    manifest, decision, verdict = (json_of(root / path) for path in (MANIFEST, DECISION, VERDICT))
    kept, cost = refresh_of(card), json_of(root / TRAINING)
    same_data = manifest.get("as_of") == card.get("as_of")  # else it was collected anew since
    judged = get(verdict, "challenger", "artifact_hash") == artifact_hash
    return {
        "action": "train",
        "mode": "refresh" if kept else "full",
        "refresh_of": kept,
        "who": git.identity(),
        "when": now(),
        "artifact_hash": artifact_hash,
        "fit_end": card.get("fit_end"),
        "as_of": card.get("as_of"),
        "rows": get(manifest, "rows", "kept") if same_data else None,
        "champion": state.champion.name if state.champion else None,
        "training": {key: cost.get(key) for key in COST},
        "reasons": decision.get("reasons") if decision.get("as_of") == card.get("as_of") else None,
        "promote": verdict.get("promote") if judged else None,
    }


def refresh_of(card: dict[str, Any]) -> str | None:
    """The version whose encoder the model keeps; None after a full training."""
    settings = card.get("finetune")
    return settings.get("refresh_of") if isinstance(settings, dict) else None


def new_version(
    root: Path, git: Git, state: State, verdict: dict[str, Any], md5: str, reason: str
) -> Version:
    """The version that models/challenger becomes, with the commit of its snapshot; tagged by the caller."""
    card, name = read_card(root / MODEL), f"v{state.next_number}.0.0"
    manifest = json_of(root / MANIFEST)
    record = {
        "action": "register",
        "version": name,
        "who": git.identity(),
        "when": now(),
        "reason": reason,
        "artifact_hash": verdict["challenger"]["artifact_hash"],
        "fit_end": card.get("fit_end"),
        "as_of": card.get("as_of"),
        "metrics": json_of(root / METRICS),
        "parent": state.champion.name if state.champion else None,
        "mode": "refresh" if refresh_of(card) else "full",
        "refresh_of": refresh_of(card),
        "rows": get(manifest, "rows", "kept"),
        "training": json_of(root / TRAINING) or card.get("training"),
        "data": {key: manifest.get(key) for key in ("source", "fingerprint", "as_of", "content_hash")},
        "objects": {"path": MODEL, "md5": md5},
        "verdict": verdict,
    }
    return Version(name, state.next_number, _snapshot(root, git, f"{NAME} {name}: {reason}"), record)


def _snapshot(root: Path, git: Git, subject: str) -> str:
    """Commit the project as it is: tracked files, dvc.lock, the files that stages read, the reports."""
    lock = (root / "dvc.lock").read_text(encoding="utf-8")
    small = [
        str(entry["path"])
        for entry in locked(lock, "deps")
        if entry.get("size", 0) <= _LARGEST_UNTRACKED and _is_inside(str(entry["path"]))
    ]
    files = ["dvc.yaml", "dvc.lock", "params.yaml", *git.untracked(small)]
    reports = [root / path for path in _SNAPSHOT if (root / path).is_file()]
    records = {f"{RECORDS}/{path.name}": path.read_text(encoding="utf-8") for path in reports}
    return git.snapshot(subject, records, files, leave=[str(EXPORT)])


def _is_inside(path: str) -> bool:
    return not path.startswith(("/", "..")) and "://" not in path


def gains(verdict: dict[str, Any]) -> str:
    """Why a version is promoted, where nobody says: what it was compared with."""
    beats = [check for check in verdict["checks"] if str(check.get("name")).startswith("beats_")]
    checks = [check for check in beats if check.get("value") is not None]
    return "; ".join(str(check.get("text")) for check in checks) or "allowed by decide_promotion"


def one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def json_of(path: Path) -> dict[str, Any]:
    """{} where there is none; NaN is null."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
