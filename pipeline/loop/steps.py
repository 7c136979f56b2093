"""The loop's steps. `evergreen cycle` takes them one after the other; a scheduler one a task (workspace.py).

`root` is the checkout or worktree that dvc works in. What a step decides it says, with the reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.decisions import get, read_json, string, write_json
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
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        collected = str(manifest["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        say("source", f"{params.collect.source}, not collected yet")
        return True
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
    outdated = moved and get(read_json(root / DECISION), "champion") != champion_name(root)  # rolled back
    return outdated or any(stage in stale for stage in LOOK)


def say_drift(root: Path) -> None:
    say("drift", drift_sentence(read_json(root / DRIFT)))


def say_decision(root: Path) -> None:
    say("retraining", decision_sentence(read_json(root / DECISION)))


def drift_sentence(drift: Any) -> str:
    """drift.json in one line."""
    outcome, signals = string(drift, "outcome"), get(drift, "signals")
    signals = signals if isinstance(signals, dict) else {}
    if outcome == "no_champion":
        return "not checked: there is no champion yet"
    if outcome != "ok":
        return f"{(outcome or 'drift.json cannot be read').replace('_', ' ')}: {string(drift, 'text') or ''}"
    flagged = {name: signal for name, signal in signals.items() if get(signal, "flag") is True}
    texts = "; ".join(string(signal, "text") or name for name, signal in flagged.items())
    if drift.get("drift") is True:
        return texts or string(drift, "text") or "drift"
    none = string(drift, "text") or f"none in {len(signals)} signals ({_window(get(drift, 'current'))})"
    return f"{none}; not confirmed: {texts}" if flagged else none


def _window(current: Any) -> str:
    start, end = (str(get(current, key))[:10] for key in ("from", "to"))
    rows, users = get(current, "rows"), get(current, "users")
    return f"{start} to {end}, {rows} rows of {users} users"


def decision_sentence(decision: Any) -> str:
    from pipeline.stages.decide_retraining import sentence

    return sentence(decision) if isinstance(decision, dict) else f"none: {DECISION} cannot be read"


# What is to be done ----------------------------------------------------------------------------------------


def plan(root: Path, stale: Stale) -> Plan:
    decision, pending = read_json(root / DECISION), read_json(root / PENDING)
    return make_plan(stale, decision, champion_name(root), _done(root), pending)


def note_pending(root: Path, planned: Plan) -> None:
    """So that a full training that fails or is killed is taken up, although what called for it is done."""
    write_json(root / PENDING, {"mode": planned.mode, "reasons": planned.reasons})


def record(root: Path) -> None:
    """Note the training of models/challenger in the registry, with its cost."""
    training, new = record_training(root)
    if new:
        seconds = get(training.record, "training", "seconds")
        cost = "" if seconds is None else f", {seconds:,.0f} s"
        say("record", f"training {training.number}: {training.record['mode']}{cost}")


def promote(root: Path, approved_by: str | None = None) -> tuple[Version | None, str]:
    """Make the challenger the champion, if that is allowed; the new champion, if there is one, and why."""
    version, why = None, "nothing to promote: no challenger was trained here"
    warnings: list[Any] = []
    if has_model(root / MODEL) and (root / VERDICT).is_file():
        before = read_state(Git(root)).champion
        try:
            found = act(root, approved_by=approved_by)
        except Refused as refused:
            why, warnings = str(refused), get(read_json(root / VERDICT), "warnings") or []
        else:
            version = found if found != before else None
            done = f"{found.name} is the champion: {found.record.get('reason')}"
            why = done if version else f"nothing to do: the challenger is the champion, {found.name}"
    say("promotion", why)
    for warning in warnings:
        say("warning", str(warning))
    return version, why


def _done(root: Path) -> list[str]:
    """Stages that ran here once."""
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    return re.findall(r"^  (\w+):$", text, re.MULTILINE)
