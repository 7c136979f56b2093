"""The loop's steps: `evergreen cycle` takes all of them (cycle.py), a scheduler one a task (runs/workspace).

A step works in `root`, the checkout or worktree that dvc works in. What it decides it says, with the reason,
and notes in the run's account.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.documents.data import Manifest
from pipeline.documents.drift import Drift, Span
from pipeline.documents.model import Encoder
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Pending, Retraining
from pipeline.documents.simulation import LongTerm
from pipeline.errors import ConfigError, PipelineError
from pipeline.loop import repro
from pipeline.loop.history import DRIFT, JUDGED, LOOKED, SIMULATED, SIMULATION, Account
from pipeline.loop.plans import ENCODER, JUDGE, LOOK, MEANING, TRAIN, Plan, Stale, causes, make_plan, news
from pipeline.models.artifacts import CHAMPION, has_model
from pipeline.models.pretrained import identify
from pipeline.params import Collect, Params
from pipeline.registry.actions import Refused, put_champion, record_training
from pipeline.registry.actions import promote as act
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL
from pipeline.registry.records import DECISION, MANIFEST, VERDICT
from pipeline.registry.versions import Version, read_state

STATE = Path(".evergreen")
PENDING = STATE / "training.json"


def say(what: str, decision: str) -> None:
    print(f"{what + ':':<16}{decision}", flush=True)


def champion_name(root: Path) -> str | None:
    champion = read_state(Git(root)).champion
    return champion.name if champion else None


def make_inputs_right(root: Path) -> None:
    """What stages depend on and none of them makes: champion, data/registry.json and data/encoder.json."""
    note_encoder(root)
    champion, changed = put_champion(root)
    if champion is None:
        say("champion", "none yet")
    else:
        done = f"put into {CHAMPION}, verified" if changed else f"already in {CHAMPION}, verified"
        say("champion", f"{champion.name}, {done}")


def note_encoder(root: Path) -> None:
    """Write data/encoder.json if it would change; without the encoder it stays, and finetune says so."""
    try:
        encoder = identify(Params.load(root / "params.yaml").finetune.encoder, root)
    except ConfigError:
        return
    if Encoder.find(root / ENCODER) != encoder:
        encoder.write(root / ENCODER)
    Git(root).overlook(str(ENCODER))  # every time: `dvc exp run` undoes it


class Loop:
    """One run of the loop. A step that fails raises PipelineError with the stage's or action's own line."""

    def __init__(self, root: Path, account: Account) -> None:
        self.root, self.account = root, account
        self._stale: Stale | None = None

    @property
    def stale(self) -> Stale:
        """Stages that are out of date, and why; asked of dvc anew after each that was run."""
        if self._stale is None:
            self._stale = news(repro.status(self.root))
        return self._stale

    def run(self, *arguments: str) -> None:
        """These stages, one after the other, each if it is out of date (or with --force).

        dvc deletes a stage's outputs before it runs: those of one that fails are put back as they were.
        """
        self._stale = None
        try:
            repro.repro(self.root, "--single-item", *arguments)
        except repro.StageFailed:
            restored = repro.restore(self.root)
            if restored:
                names = ", ".join(restored)
                say("restored", f"the last outputs of {names}: what reads them goes on working")
            raise

    def collect(self) -> bool:
        """Where the source, its settings or its code changed; whether that was so.

        Forced: dvc would else restore from its run-cache what an earlier run with these settings had read.
        """
        changed = self._source_changed(Params.load(self.root / "params.yaml").collect)
        new, known = self.stale.get("collect", []), "collect" in self._done()
        if changed or new:
            if known and (meant := [cause for cause in new if cause in MEANING]):
                self.note_pending(f"{causes(meant)} changed")
            if known and not changed:
                say("source", f"collected anew: {causes(new)} changed")
            self.run("--force", "collect")
        self.account.note(as_of=Manifest.read(self.root / MANIFEST).as_of)
        return bool(changed or new)

    def look(self, *stages: str) -> bool:
        """Check for drift and decide, where one of both is out of date; whether it was."""
        changed = {path for stage in TRAIN for path in self.stale.get(stage, [])} - {str(ENCODER)}
        moved = any(path.startswith("data/") for path in changed)
        decision = Retraining.find(self.root / DECISION)
        rolled_back = (decision.champion if decision else None) != champion_name(self.root)
        looks = (moved and rolled_back) or any(stage in self.stale for stage in LOOK)
        if looks:
            self.run(*stages)
            if LOOK[0] in stages:
                say("drift", drift_sentence(Drift.find(self.root / DRIFT)))
            if LOOK[-1] in stages:
                say("retraining", decision_sentence(Retraining.find(self.root / DECISION)))
        self.account.note(looked=looks or bool(self.account.run.looked))
        return looks

    def plan(self) -> Plan:
        """What is to be made, by the decision and by what changed."""
        decision, pending = Retraining.find(self.root / DECISION), Pending.find(self.root / PENDING)
        planned = make_plan(self.stale, decision, champion_name(self.root), self._done(), pending)
        self.account.note(mode=planned.mode)
        for reason in planned.reasons:
            say("training", reason)
        return planned

    def make(self, *stages: str) -> bool:
        """Stages of a plan; behind the last, what was judged is recorded. Whether that is a new training."""
        if JUDGE[-1] in stages and self._may_simulate():
            if before := [stage for stage in stages if stage != JUDGE[-1]]:
                self.run(*before)
            self._simulate()
            stages = JUDGE[-1:]
        self.run(*stages)
        if JUDGE[-1] not in stages:
            return False
        training, new = record_training(self.root)
        if new:
            seconds = training.record.cost.seconds
            cost = "" if seconds is None else f", {seconds:,.0f} s"
            say("record", f"training {training.number}: {training.record.mode}{cost}")
        verdict = Promotion.read(self.root / VERDICT)
        challenger = verdict.challenger.artifact_hash
        if self.account.run.challenger not in (None, challenger):  # what became of another is not of this
            self.account.note(promoted=None, approved_by=None, not_promoted=None)
        self.account.note(challenger=challenger)
        simulated = [SIMULATED] if self._is_simulated(verdict) else []
        if not simulated:
            self.account.drop(SIMULATED)
        self.keep(*JUDGED, *simulated)
        return new

    def _is_simulated(self, verdict: Promotion) -> bool:
        """Whether what was simulated last is what the verdict is about."""
        found = LongTerm.find(self.root / SIMULATION)
        if found is None or found.challenger is None or verdict.champion is None:
            return False
        pair = verdict.challenger.artifact_hash, verdict.champion.artifact_hash
        return (found.challenger, found.champion) == pair

    def _may_simulate(self) -> bool:
        """Where the gate asks for it, or what the service left to chance may have taught a policy."""
        params = Params.load(self.root / "params.yaml")
        asks = params.decide_promotion.long_term_guard is not None or params.collect.feedback is not None
        return asks and has_model(self.root / CHAMPION)

    def _simulate(self) -> None:
        """What is due and was not done yet; the gate refuses, or does not admit, what cannot be simulated."""
        from pipeline.simulation import command

        try:
            if not command.is_due(self.root):
                return
            say("simulation", "challenger and champion, each in its own feedback loop: some minutes")
            command.simulate(self.root)
        except PipelineError as error:
            say("simulation", f"none: {error}")

    def promote(
        self, approved_by: str | None = None, judged: str | None = None
    ) -> tuple[Version | None, str]:
        """Make the challenger the champion, if that is allowed; the new champion, if there is one, and why.

        `judged`: hash of the model that it has to be.
        """
        version, why = None, "nothing to promote: no challenger was trained here"
        warnings: list[str] = []
        if has_model(self.root / MODEL) and (self.root / VERDICT).is_file():
            before = read_state(Git(self.root)).champion
            try:
                found = act(self.root, approved_by=approved_by, judged=judged)
            except Refused as refused:
                verdict = Promotion.find(self.root / VERDICT)
                why, warnings = str(refused), verdict.warnings if verdict else []
                own = self.account.run.challenger and not self.account.run.promoted
                if own and verdict and verdict.promote:
                    self.account.note(not_promoted=refused.why)
            else:
                version = found if found != before else None
                done = f"{found.name} is the champion: {found.record.reason}"
                why = done if version else f"nothing to do: the challenger is the champion, {found.name}"
        say("promotion", why)
        for warning in warnings:
            say("warning", warning)
        if version is not None:
            self.account.note(promoted=version.name, not_promoted=None)
            make_inputs_right(self.root)
        return version, why

    def keep(self, *judged: str) -> None:
        """Decisions of other data, or of an earlier look, which the run began with, are not its own."""
        decision, manifest = Retraining.find(self.root / DECISION), Manifest.find(self.root / MANIFEST)
        looked = self.account.run.looked and decision and manifest and decision.as_of == manifest.as_of
        self.account.keep(self.root, *(LOOKED if looked else ()), *judged)

    def note_pending(self, *reasons: str) -> None:
        """So that a full training that fails is taken up, although what called for it is done by then."""
        Pending(mode="full", reasons=list(reasons)).write(self.root / PENDING)

    def _source_changed(self, settings: Collect) -> bool:
        """Whether data/raw holds something else than the source now does, or nothing."""
        manifest = Manifest.find(self.root / MANIFEST)
        if manifest is None or manifest.fingerprint is None:
            say("source", f"{settings.source}, not collected yet")
            return True
        from pipeline.sources import fingerprint

        collected, found = manifest.fingerprint, fingerprint(settings)
        changed, fingers = found != collected, f" ({collected[:10]} → {found[:10]})"
        how = f"{'changed' if changed else 'unchanged'} since it was collected{fingers if changed else ''}"
        say("source", f"{settings.source}, {how}")
        return changed

    def _done(self) -> list[str]:
        """Stages that ran here once."""
        lock = self.root / "dvc.lock"
        text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
        return re.findall(r"^  (\w+):$", text, re.MULTILINE)


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
