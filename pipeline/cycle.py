"""The loop once, without Airflow: look, decide, train if it is time, promote if allowed, recommend.

1. The champion's folder is made right (models/champion), and data/registry.json with it.
2. The source's fingerprint is compared with data/raw/manifest.json; plain `dvc repro` does not look at the
   source. If it differs, or collect is stale anyhow, collect is forced: dvc would else restore from its
   run-cache what an earlier run with the same parameters had read.
3. If there are new data (or new rules for it): detect_drift and decide_retraining.
4. Training runs if that decision says so and was not carried out yet, or if a person changed the params or
   the code of what is trained. A refresh keeps the champion's encoder (finetune.refresh_of, in this run).
   If data are new and nothing is trained, preprocess runs alone: the lists hear of it, the model does not.
5. The training is recorded; what reports/promotion.json allows is promoted, and the folder made right again.
6. `recommend` runs if the champion, the data or its params changed.

That the champion changed is nothing new by itself: what depends on it would otherwise run again after every
promotion, to find that the challenger is the champion. Every decision is printed with its reason, and kept in
data/history. What a run that was killed left undone, the next one does.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline import repro
from pipeline.actions import CHAMPION, Refused, promote, put_champion, record_training
from pipeline.artifacts import has_model
from pipeline.decisions import get, moment, read_json, string, write_json
from pipeline.errors import PipelineError
from pipeline.git import Git
from pipeline.objects import MODEL
from pipeline.overrides import AS_OF, REFRESH_OF, overridden, undo_all
from pipeline.params import Params
from pipeline.plans import JUDGE, LAST, LOOK, MEANING, TRAIN, Plan, Stale, causes, make_plan, news
from pipeline.records import DECISION, MANIFEST, VERDICT
from pipeline.registry import read_state

STATE, HISTORY, DRIFT = Path(".evergreen"), Path("data/history"), "reports/drift.json"
PENDING = STATE / "training.json"


def cycle(root: Path, as_of: str | None = None) -> None:
    """Raises PipelineError with a stage's or an action's own line if one fails."""
    with _alone(root):
        for key in undo_all(root):
            say("params.yaml", f"was edited during a run that was killed: check {key}")
        with ExitStack() as stack:
            if as_of is not None:
                stack.enter_context(overridden(root, AS_OF, as_of))
                say("as of", f"{as_of}: params.yaml says so during this run, and is put back afterwards")
            _cycle(root)


def say(what: str, decision: str) -> None:
    print(f"{what + ':':<16}{decision}", flush=True)


def _cycle(root: Path) -> None:
    params = Params.load(root / "params.yaml")
    _make_champion_right(root)
    source_changed = _source_changed(root, params)
    stale = news(repro.status(root))
    if meant := [cause for cause in stale.get("collect", []) if cause in MEANING and _done(root)]:
        _note_pending(root, Plan("full", (f"{causes(meant)} changed",)))
    if _look(root, stale, source_changed):
        stale = news(repro.status(root))
    plan = make_plan(
        stale, read_json(root / DECISION), _champion(root), _done(root), read_json(root / PENDING)
    )
    for reason in plan.reasons:
        say("training", reason)
    act = _go_without_training if plan.mode == "none" else _train
    promoted = act(root, plan)
    if promoted:
        _make_champion_right(root)
    if promoted or plan.mode != "none" or plan.prepare or LAST in stale:
        _repro(root, "--single-item", LAST)
        say(LAST, "recommendations/top_k.parquet is up to date")
    else:
        say(LAST, "nothing to do: same champion, same data")


# What is new -----------------------------------------------------------------------------------------------


def _look(root: Path, stale: Stale, source_changed: bool) -> bool:
    """Collect, check for drift and decide, where anything of it is out of date; whether any was."""
    collects = source_changed or "collect" in stale
    if "collect" in stale and not source_changed and "collect" in _done(root):
        say("source", f"collected anew: {causes(stale['collect'])} changed")
    if collects:
        _repro(root, "--force", "--single-item", "collect")
        stale = news(repro.status(root))
    decision = read_json(root / DECISION)
    moved = any(path.startswith("data/") for stage in TRAIN for path in stale.get(stage, []))
    outdated = moved and get(decision, "champion") != _champion(root)  # e.g. rolled back since
    looks = outdated or any(stage in stale for stage in LOOK)
    if looks:
        _repro(root, LOOK[-1])
        decision = read_json(root / DECISION)
        say("drift", drift_sentence(read_json(root / DRIFT)))
        say("retraining", _decision_sentence(decision))
        _keep(root, judged=False)
    return collects or looks


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


def _decision_sentence(decision: Any) -> str:
    from pipeline.stages.decide_retraining import sentence

    return sentence(decision) if isinstance(decision, dict) else f"none: {DECISION} cannot be read"


# What is to be done ----------------------------------------------------------------------------------------


def _train(root: Path, plan: Plan) -> bool:
    """Train as planned, record it, promote if allowed; whether there is a new champion.

    The version's snapshot then holds params.yaml as it was used.
    """
    _note_pending(root, plan)
    with overridden(root, REFRESH_OF, _champion(root) if plan.mode == "refresh" else None):
        _repro(root, JUDGE[-1])
        (root / PENDING).unlink()
        _record(root)
        return _promote(root)


def _go_without_training(root: Path, plan: Plan) -> bool:
    if plan.prepare:
        _repro(root, "--single-item", "preprocess")
        say("training", "none: the lists hear of the new histories, users and items, the model does not")
    elif not plan.reasons:
        say("training", "nothing new in source, params and code: no stage is run")
    for stage in JUDGE if JUDGE[0] in plan.judge else plan.judge:
        _repro(root, "--single-item", stage)
    (root / PENDING).unlink(missing_ok=True)
    if plan.judge:  # also of a training that was killed before it was recorded
        _record(root)
    return _promote(root)


def _note_pending(root: Path, plan: Plan) -> None:
    """So that a full training that fails or is killed is taken up, although what called for it is done."""
    write_json(root / PENDING, {"mode": plan.mode, "reasons": plan.reasons})


def _record(root: Path) -> None:
    training, new = record_training(root)
    if new:
        seconds = get(training.record, "training", "seconds")
        cost = "" if seconds is None else f", {seconds:,.0f} s"
        say("record", f"training {training.number}: {training.record['mode']}{cost}")
    _keep(root, judged=True)


def _promote(root: Path) -> bool:
    if not (has_model(root / MODEL) and (root / VERDICT).is_file()):
        say("promotion", "nothing to promote: no challenger was trained here")
        return False
    before = read_state(Git(root)).champion
    try:
        version = promote(root)
    except Refused as refused:
        say("promotion", str(refused))
        for warning in get(read_json(root / VERDICT), "warnings") or []:
            say("warning", str(warning))
        return False
    if version == before:
        say("promotion", f"nothing to do: the challenger is the champion, {version.name}")
        return False
    say("promotion", f"{version.name} is the champion: {version.record.get('reason')}")
    return True


def _champion(root: Path) -> str | None:
    champion = read_state(Git(root)).champion
    return champion.name if champion else None


def _done(root: Path) -> list[str]:
    """Stages that ran here once."""
    lock = root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    return re.findall(r"^  (\w+):$", text, re.MULTILINE)


def _repro(root: Path, *arguments: str) -> None:
    """dvc deletes a stage's outputs before it runs: those of one that fails are put back as they were."""
    try:
        repro.repro(root, *arguments)
    except repro.StageFailed:
        restored = repro.restore(root)
        if restored:
            say("restored", f"the last outputs of {', '.join(restored)}: what reads them goes on working")
        raise


def _keep(root: Path, judged: bool) -> None:
    """Copy the decisions into a folder of their own, by date and champion, to be compared and drawn."""
    decision = read_json(root / DECISION)
    as_of = moment(get(decision, "as_of"))
    if as_of is None:
        return
    folder = root / HISTORY / f"{as_of:%Y%m%dT%H%M%SZ}-{string(decision, 'champion') or 'none'}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (DRIFT, DECISION, VERDICT) if judged else (DRIFT, DECISION):
        if (root / path).is_file():
            shutil.copy2(root / path, folder)


# Beginning and end -----------------------------------------------------------------------------------------


def _make_champion_right(root: Path) -> None:
    champion, changed = put_champion(root)
    if champion is None:
        say("champion", "none yet")
    else:
        done = f"put into {CHAMPION}, verified" if changed else f"already in {CHAMPION}, verified"
        say("champion", f"{champion.name}, {done}")


def _source_changed(root: Path, params: Params) -> bool:
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


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One cycle a checkout: dvc would fail as busy in the middle of it."""
    (root / STATE).mkdir(exist_ok=True)
    with (root / STATE / "cycle.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError("another `evergreen cycle` runs in this folder: wait for it to end") from None
        yield
