"""The loop's steps. `evergreen cycle` takes them one after the other; a scheduler one a task (workspace.py).

`root` is the checkout or worktree that dvc works in. What a step decides it says, with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift, Span
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Pending, Retraining
from pipeline.loop import repro
from pipeline.loop.history import DRIFT
from pipeline.loop.plans import LOOK, MEANING, TRAIN, Plan, Stale, causes, make_plan, news
from pipeline.models.artifacts import has_model
from pipeline.params import Params
from pipeline.registry.actions import CHAMPION, Refused, put_champion, record_training
from pipeline.registry.actions import promote as act
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL
from pipeline.registry.records import DECISION, MANIFEST, VERDICT
from pipeline.registry.versions import Version, read_state

STATE = Path(".evergreen")
PENDING = STATE / "training.json"


def say(what: str, decision: str) -> None:
    print(f"{what + ':':<16}{decision}", flush=True)


def run(root: Path, *arguments: str) -> None:
    """dvc deletes a stage's outputs before it runs: those of one that fails are put back as they were."""
    try:
        repro.repro(root, *arguments)
    except repro.StageFailed:
        restored = repro.restore(root)
        if restored:
            say("restored", f"the last outputs of {', '.join(restored)}: what reads them goes on working")
        raise


def stale_stages(root: Path) -> Stale:
    return news(repro.status(root))


def champion_name(root: Path) -> str | None:
    champion = read_state(Git(root)).champion
    return champion.name if champion else None


def make_champion_right(root: Path) -> None:
    champion, changed = put_champion(root)
    if champion is None:
        say("champion", "none yet")
    else:
        done = f"put into {CHAMPION}, verified" if changed else f"already in {CHAMPION}, verified"
        say("champion", f"{champion.name}, {done}")


# What is new -----------------------------------------------------------------------------------------------


def source_changed(root: Path, params: Params) -> bool:
    """Whether data/raw holds something else than the source now does, or nothing."""
    manifest = Manifest.find(root / MANIFEST)
    if manifest is None or manifest.fingerprint is None:
        say("source", f"{params.collect.source}, not collected yet")
        return True
    collected = manifest.fingerprint
    from pipeline.sources import fingerprint

    found = fingerprint(params.collect)
    if found == collected:
        say("source", f"{params.collect.source}, unchanged since it was collected")
    else:
        say(
            "source",
            f"{params.collect.source}, changed since it was collected ({collected[:10]} → {found[:10]})",
        )
    return found != collected


def collect(root: Path, stale: Stale, changed: bool) -> bool:
    """Collect if the source `changed`, or its settings or code; whether that was so."""
    if not (changed or "collect" in stale):
        return False
    known = "collect" in _done(root)
    if known and (meant := [cause for cause in stale.get("collect", []) if cause in MEANING]):
        note_pending(root, Plan("full", (f"{causes(meant)} changed",)))
    if known and not changed:
        say("source", f"collected anew: {causes(stale['collect'])} changed")
    run(root, "--force", "--single-item", "collect")
    return True


def looks(root: Path, stale: Stale) -> bool:
    """Whether the check for drift, or the decision, is out of date."""
    moved = any(path.startswith("data/") for stage in TRAIN for path in stale.get(stage, []))
    outdated = moved and _decided_for(root) != champion_name(root)  # rolled back
    return outdated or any(stage in stale for stage in LOOK)


def _decided_for(root: Path) -> str | None:
    decision = Retraining.find(root / DECISION)
    return decision.champion if decision else None


def say_drift(root: Path) -> None:
    say("drift", drift_sentence(Drift.find(root / DRIFT)))


def say_decision(root: Path) -> None:
    say("retraining", decision_sentence(Retraining.find(root / DECISION)))


def drift_sentence(drift: Drift | None) -> str:
    """drift.json in one line."""
    if drift is None:
        return f"{DRIFT} cannot be read: {Drift.remedy}"
    if drift.outcome == "no_champion":
        return "not checked: there is no champion yet"
    if drift.outcome != "ok":
        return f"{drift.outcome.replace('_', ' ')}: {drift.text}"
    texts = "; ".join(signal.text or name for name, signal in drift.signals.items() if signal.flag)
    if drift.drift:
        return texts or drift.text or "drift"
    none = drift.text or f"none in {len(drift.signals)} signals{_window(drift.current)}"
    return f"{none}; not confirmed: {texts}" if texts else none


def _window(current: Span | None) -> str:
    if current is None or current.start is None or current.end is None:
        return ""
    span = f"{current.start:%Y-%m-%d} to {current.end:%Y-%m-%d}"
    return f" ({span}, {current.rows} rows of {current.users} users)"


def decision_sentence(decision: Retraining | None) -> str:
    from pipeline.stages.decide_retraining import sentence

    return sentence(decision) if decision else f"none: {DECISION} cannot be read"


# What is to be done ----------------------------------------------------------------------------------------


def plan(root: Path, stale: Stale) -> Plan:
    decision, pending = Retraining.find(root / DECISION), Pending.find(root / PENDING)
    return make_plan(stale, decision, champion_name(root), _done(root), pending)


def note_pending(root: Path, planned: Plan) -> None:
    """So that a full training that fails or is killed is taken up, although what called for it is done."""
    Pending(mode=planned.mode, reasons=list(planned.reasons)).write(root / PENDING)


def record(root: Path) -> bool:
    """Note the training of models/challenger in the registry, with its cost; whether it is a new one."""
    training, new = record_training(root)
    if new:
        seconds = training.record.cost.seconds
        cost = "" if seconds is None else f", {seconds:,.0f} s"
        say("record", f"training {training.number}: {training.record.mode}{cost}")
    return new


def promote(
    root: Path, approved_by: str | None = None, judged: str | None = None
) -> tuple[Version | None, str]:
    """Make the challenger the champion, if that is allowed; the new champion, if there is one, and why.

    `judged`: hash of the model that it has to be.
    """
    version, why = None, "nothing to promote: no challenger was trained here"
    warnings: list[str] = []
    if has_model(root / MODEL) and (root / VERDICT).is_file():
        before = read_state(Git(root)).champion
        try:
            found = act(root, approved_by=approved_by, judged=judged)
        except Refused as refused:
            verdict = Promotion.find(root / VERDICT)
            why, warnings = str(refused), verdict.warnings if verdict else []
        else:
            version = found if found != before else None
            done = f"{found.name} is the champion: {found.record.reason}"
            why = done if version else f"nothing to do: the challenger is the champion, {found.name}"
    say("promotion", why)
    for warning in warnings:
        say("warning", warning)
    return version, why


def _done(root: Path) -> list[str]:
    """Stages that ran here once."""
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    return re.findall(r"^  (\w+):$", text, re.MULTILINE)
