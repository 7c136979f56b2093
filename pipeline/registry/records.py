"""What a promotion or a training leaves in the registry: a record of what lies in the project at that moment.

In: the reports, the manifest and the challenger's card; what of it is missing is null. Out: records for tag
messages, and a version's snapshot: a commit with tracked files as they are, dvc.lock, the files that stages
read, and the reports.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pipeline.documents.data import Manifest, Summary
from pipeline.documents.evaluation import Evaluation, Metrics
from pipeline.documents.model import Card, Cost
from pipeline.documents.promotion import Promotion
from pipeline.documents.registry import Objects, Source, TrainingRecord, VersionRecord
from pipeline.documents.retraining import Retraining
from pipeline.models.artifacts import CARD
from pipeline.registry.cards import Known, cards
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, locked
from pipeline.registry.versions import EXPORTS, NAME, RECORDS, State, Version

VERDICT, METRICS, MANIFEST = "reports/promotion.json", "reports/metrics.json", "data/raw/manifest.json"
DECISION = "reports/retraining.json"
TRAINING = "reports/training/summary.json"  # with the cost: seconds, memory
EVALUATION, PREPARED = "reports/evaluation.json", "data/prepared/summary.json"
_SNAPSHOT = (VERDICT, METRICS, EVALUATION, DECISION, "reports/drift.json", MANIFEST)
_LARGEST_UNTRACKED = (
    1_000_000  # bytes of a dependency that a snapshot takes in although git does not track it
)


def training_record(root: Path, git: Git, state: State, card: Card, artifact_hash: str) -> TrainingRecord:
    """Of models/challenger, whose card and hash are given."""
    manifest, decision = Manifest.find(root / MANIFEST), Retraining.find(root / DECISION)
    verdict, cost = Promotion.find(root / VERDICT), Cost.find(root / TRAINING) or Cost()
    same_data = manifest is not None and manifest.as_of == card.as_of  # else it was collected anew since
    decided = decision is not None and decision.as_of == card.as_of
    judged = verdict is not None and verdict.challenger.artifact_hash == artifact_hash
    return TrainingRecord(
        action="train",
        mode="refresh" if card.refresh_of else "full",
        refresh_of=card.refresh_of,
        who=git.identity(),
        when=now(),
        artifact_hash=artifact_hash,
        fit_end=card.fit_end,
        as_of=card.as_of,
        rows=manifest.rows.kept if manifest and same_data else None,
        forgotten=manifest.forgotten.known if manifest and same_data and manifest.forgotten else None,
        champion=state.champion.name if state.champion else None,
        training={"seconds": cost.seconds, "peak_gib": cost.peak_gib},
        reasons=decision.reasons if decision and decided else None,
        promote=verdict.promote if verdict and judged else None,
    )


def new_version(root: Path, git: Git, state: State, verdict: Promotion, md5: str, reason: str) -> Version:
    """The version that models/challenger becomes, with the commit of its snapshot; tagged by the caller."""
    card, name = Card.read(root / MODEL / CARD), f"v{state.next_number}.0.0"
    manifest, cost = Manifest.find(root / MANIFEST), Cost.find(root / TRAINING)
    metrics = Metrics.find(root / METRICS)
    record = VersionRecord(
        action="register",
        version=name,
        who=git.identity(),
        when=now(),
        reason=reason,
        artifact_hash=verdict.challenger.artifact_hash,
        fit_end=card.fit_end,
        as_of=card.as_of,
        metrics=metrics.to_dict() if metrics else None,
        parent=state.champion.name if state.champion else None,
        mode="refresh" if card.refresh_of else "full",
        refresh_of=card.refresh_of,
        rows=manifest.rows.kept if manifest else None,
        forgotten=manifest.forgotten.known if manifest and manifest.forgotten else None,
        training=cost.to_dict() if cost else card.training,
        data=Source.of({key: getattr(manifest, key) for key in Source.model_fields}) if manifest else None,
        objects=Objects(path=MODEL, md5=md5),
        verdict=verdict,
    )
    told = cards(_known(root, name, card, verdict))
    commit = _snapshot(root, git, f"{NAME} {name}: {reason}", told)
    return Version(name, state.next_number, commit, record)


def _known(root: Path, name: str, card: Card, verdict: Promotion) -> Known:
    """What a version's cards are written from; an evaluation of another model is none."""
    evaluation, judged = Evaluation.find(root / EVALUATION), verdict.challenger.artifact_hash
    if evaluation is not None and evaluation.artifact_hash.get("challenger") != judged:
        evaluation = None
    manifest, summary = Manifest.find(root / MANIFEST), Summary.find(root / PREPARED)
    return Known(name, card, manifest, summary, evaluation, verdict)


def _snapshot(root: Path, git: Git, subject: str, told: dict[str, str]) -> str:
    """Commit the project as it is: tracked files, dvc.lock, the files that stages read, the reports, and
    what is `told` of the version (file name -> text)."""
    lock = (root / "dvc.lock").read_text(encoding="utf-8")
    small = [
        str(entry["path"])
        for entry in locked(lock, "deps")
        if entry.get("size", 0) <= _LARGEST_UNTRACKED and _is_inside(str(entry["path"]))
    ]
    files = ["dvc.yaml", "dvc.lock", "params.yaml", *git.untracked(small)]
    reports = [root / path for path in _SNAPSHOT if (root / path).is_file()]
    records = {f"{RECORDS}/{path.name}": path.read_text(encoding="utf-8") for path in reports}
    records |= {f"{RECORDS}/{name}": text for name, text in told.items()}
    return git.snapshot(subject, records, files, leave=map(str, EXPORTS))


def _is_inside(path: str) -> bool:
    return not path.startswith(("/", "..")) and "://" not in path


def gains(verdict: Promotion) -> str:
    """Why a version is promoted, where nobody says: what it was compared with."""
    beats = [check for check in verdict.checks if check.name.startswith("beats_")]
    return (
        "; ".join(check.text for check in beats if check.value is not None) or "allowed by decide_promotion"
    )


def one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def now() -> datetime:
    """UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
