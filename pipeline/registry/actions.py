"""What changes the registry or the served folder: promote, roll back, record, put the champion in its place.

Actions on one repository, worktrees included, take turns: a lock that dies with its holder. Each reads the
state under the lock, checks, makes sure of the model's objects, then creates its tags in one git transaction.
Killed before, it leaves objects that nothing names; killed amid it, at most a version never appointed, which
the next promotion of the same model takes up. So at any moment there is the old champion or the new one.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pipeline.documents.model import Card, Claim, Exploration
from pipeline.documents.promotion import Promotion
from pipeline.documents.registry import AppointmentRecord
from pipeline.errors import ArtifactError, ConfigError, Unavailable
from pipeline.evaluation.exploration import Draws
from pipeline.files import replace_folder, temporary_beside
from pipeline.models.artifacts import (
    CARD,
    CHAMPION,
    DATA_SHEET,
    EXPLORATION,
    MODEL_CARD,
    README,
    VERSION,
    exploration_in,
    folder_hash,
    has_model,
)
from pipeline.params import Params
from pipeline.registry.git import Git
from pipeline.registry.objects import MODEL, Objects, locked_md5
from pipeline.registry.records import VERDICT, gains, new_version, now, one_line, training_record
from pipeline.registry.versions import (
    NAME,
    RECORDS,
    STAGE,
    State,
    Training,
    Version,
    export,
    message,
    read_state,
)

LOCK, FOLDER_LOCK = "evergreen", "evergreen-champion"


class Refused(ArtifactError):
    """A rule forbids the action; the registry is as it was."""

    @property
    def why(self) -> str:
        return str(self).removeprefix("not promoted: ")


def promote(
    root: Path, *, reason: str | None = None, approved_by: str | None = None, judged: str | None = None
) -> Version:
    """Make models/challenger the champion, as reports/promotion.json allows; returns its version.

    `approved_by`: the person who said yes, which the record names. `judged`: hash of the only model that may
    be promoted. Promoting the champion's own model again does nothing. Raises Refused where the verdict, the
    approval or the state of the registry forbids it.
    """
    git, objects = Git(root), Objects(root)
    before = read_state(git).champion
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        _refuse_if_overtaken(state, before)
        verdict, artifact_hash = Promotion.read(root / VERDICT), folder_hash(root / MODEL)
        if judged not in (None, artifact_hash):
            raise Refused(f"not promoted: {MODEL} is not what this run has judged: trigger a new run")
        _refuse_by_verdict(verdict, artifact_hash)
        if state.champion and state.champion.artifact_hash == artifact_hash:
            return state.champion
        _refuse_by_history(verdict, artifact_hash, state)
        if Params.load(root / "params.yaml").decide_promotion.approval == "human" and not approved_by:
            raise Refused("not promoted: it waits for approval: `evergreen registry promote --approve`")
        md5 = _checked_objects(root, objects, artifact_hash)
        git.use_fallback_identity()
        reason = one_line(reason or gains(verdict))
        version, messages = _unfinished(state, artifact_hash), {}
        if version is None:
            version = new_version(root, git, state, verdict, md5, reason)
            messages = {f"{NAME}@{version.name}": message(f"{NAME} {version.name}: {reason}", version.record)}
        person = one_line(approved_by) if approved_by else None
        _appoint(git, state, version, "promote", reason, messages, descriptor, approved_by=person)
        export(root, read_state(git))
    return version


def overtaken(root: Path, verdict: Promotion) -> str | None:
    """Why the registry, as it is now, refuses what the verdict allows; None where it does not."""
    state, challenger = read_state(Git(root)), verdict.challenger.artifact_hash
    if challenger is None or (state.champion and state.champion.artifact_hash == challenger):
        return None
    try:
        _refuse_by_history(verdict, challenger, state)
    except Refused as refused:
        return refused.why
    return None


def rollback(root: Path, *, to: str | None = None, reason: str | None = None) -> Version:
    """Make an earlier version the champion again: by default the one that the champion replaced.

    Raises Refused where there is none, ArtifactError where its model is nowhere to be had.
    """
    git, objects = Git(root), Objects(root)
    before = read_state(git).champion
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        _refuse_if_overtaken(state, before)
        version = state.find(to) if to else state.champion and state.predecessor(state.champion)
        if version is None:
            raise Refused(
                "not rolled back: there is no earlier champion; `evergreen registry list` shows all"
            )
        if version == state.champion:
            return version
        objects.require(version.md5, version.artifact_hash)
        git.use_fallback_identity()
        _appoint(git, state, version, "rollback", one_line(reason or "by hand"), {}, descriptor)
        export(root, read_state(git))
    return version


def push_models(root: Path) -> tuple[list[str], list[str]]:
    """Push every version's model that DVC's remote lacks: (names pushed, names of models not here either).

    For a remote that came after the versions: `dvc push --all-tags` reads each tag with the settings of its
    commit, which knew no remote, and pushes nothing. Raises ArtifactError without a remote, or if it fails.
    """
    objects, pushed, missing = Objects(root), [], []
    if not objects.remote:
        raise ArtifactError(".dvc/config: no default remote: `dvc remote add --default NAME URL`")
    for version in read_state(Git(root)).versions:
        if version.md5 and objects.files(version.md5):
            if not objects.is_in_remote(version.md5):
                objects.require(version.md5, version.artifact_hash)
                objects.push(version.md5)
                pushed.append(version.name)
        elif not (version.md5 and objects.is_in_remote(version.md5)):
            missing.append(version.name)
    return pushed, missing


def record_training(root: Path) -> tuple[Training, bool]:
    """Note the training of models/challenger, promoted or not, with its cost: (record, whether it is new).

    A tag `training/N` on the commit that is checked out. A model that was recorded is not recorded again.
    """
    git, challenger = Git(root), root / MODEL
    artifact_hash, card = folder_hash(challenger), Card.read(challenger / CARD)
    with git.lock(LOCK) as descriptor:
        state = read_state(git)
        known = (training for training in state.trainings if training.artifact_hash == artifact_hash)
        if existing := next(known, None):
            export(root, state)
            return existing, False
        git.use_fallback_identity()
        record = training_record(root, git, state, card, artifact_hash)
        training = Training(1 + max((one.number for one in state.trainings), default=0), record)
        name, seconds = f"training/{training.number}", record.cost.seconds
        subject = f"{name}: {record.mode}, {'?' if seconds is None else f'{seconds:.0f}'} s"
        git.create_tags(
            git.head(), {name: message(subject, record)}, after=state.newest, keep_open=descriptor
        )
        export(root, read_state(git))
    return training, True


def put_champion(root: Path, to: Path | None = None) -> tuple[Version | None, bool]:
    """Make `to` (models/champion) the champion's folder: (version, whether anything had to be done).

    Verified by hash before it replaces the old one in one step. Without a champion, no model stays there.
    """
    folder = to or root / CHAMPION
    if to:
        _check_target(root, to)
    git = Git(root)
    with git.lock(FOLDER_LOCK):
        state = read_state(git)
        if to is None:
            export(root, state)
        champion = state.champion
        if champion is None:
            return None, _empty(folder)
        if _is_right(folder, _claim(champion)):
            return champion, False
        put_version(root, champion, folder)
    return champion, True


def put_version(root: Path, version: Version, folder: Path) -> None:
    """Make `folder` this version's, with its cards, in one step. Raises ArtifactError if it is nowhere."""
    git = Git(root)
    told = {name: git.show(version.commit, f"{RECORDS}/{name}") for name in (MODEL_CARD, DATA_SHEET)}
    told[EXPLORATION] = _exploration(version)
    try:
        _put(Objects(root), version, folder, told)
    except OSError as error:
        raise ArtifactError(f"{folder}: {error.strerror}: name a folder that can be written") from None


def _claim(version: Version) -> Claim:
    text = _exploration(version)
    return Claim(
        version=version.name,
        commit=version.commit,
        artifact_hash=version.artifact_hash,
        exploration=None if text is None else hashlib.sha256(text.encode()).hexdigest(),
    )


def _exploration(version: Version) -> str | None:
    """What the verdict on this version admitted, as exploration.json; None: its lists draw plainly."""
    verdict = version.record.verdict
    admission = verdict.exploration if verdict else None
    if admission is None or not admission.admitted or Draws.by(admission.weights) is None:
        return None
    content = {"artifact_hash": version.artifact_hash, "weights": admission.weights}
    return Exploration.of(content).to_json()


def _put(objects: Objects, version: Version, folder: Path, told: dict[str, str | None]) -> None:
    temporary = temporary_beside(folder)
    try:
        objects.restore(version.md5, version.artifact_hash, temporary)
        if folder_hash(temporary) != version.artifact_hash:
            raise Unavailable(f"{temporary}: damaged while it was copied: run the command again")
        for name, text in told.items():
            if text is not None:  # a version of before cards were written has none
                (temporary / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        _claim(version).write(temporary / VERSION)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_right(folder: Path, claim: Claim) -> bool:
    there = Claim.find(folder / VERSION)
    try:
        exploration_in(folder)
    except ArtifactError:
        return False
    return there == claim and has_model(folder) and folder_hash(folder) == claim.artifact_hash


def _empty(folder: Path) -> bool:
    if not has_model(folder):
        return False
    replace_folder(temporary_beside(folder), folder)
    return True


def _check_target(root: Path, folder: Path) -> None:
    """Refuse to replace a folder that is not ours to replace."""
    if folder.resolve() == (root / MODEL).resolve():
        raise ConfigError(f"{folder}: what `finetune` writes: name another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder: name a new one")
    others = [path.name for path in folder.iterdir() if path.name not in (README, ".gitignore")]
    if others and not has_model(folder) and VERSION not in others:
        raise ConfigError(f"{folder}: holds {others[0]} and no model: name a new or empty folder")


def _refuse_if_overtaken(state: State, before: Version | None) -> None:
    if state.champion == before:
        return
    record = state.appointments[-1].record
    name = state.champion.name if state.champion else "no version"
    raise Refused(
        f"nothing done: meanwhile {name} became champion ({record.action} by {record.who},"
        f" {record.when}): look at `evergreen registry list` and decide anew"
    )


def _refuse_by_verdict(verdict: Promotion, artifact_hash: str) -> None:
    if verdict.challenger.artifact_hash != artifact_hash:
        raise Refused(
            f"not promoted: {MODEL} is not the model that was evaluated: run `dvc repro decide_promotion`"
        )
    failed = [check.text for check in verdict.failed]
    if not verdict.promote or failed:
        raise Refused(f"not promoted: {'; '.join(failed) or 'the verdict is no'}")
    if not verdict.checks:
        raise Refused(f"not promoted: {VERDICT} lists no check: {verdict.remedy}")


def _refuse_by_history(verdict: Promotion, artifact_hash: str, state: State) -> None:
    compared = verdict.champion.artifact_hash if verdict.champion else None
    current = state.champion.artifact_hash if state.champion else None
    for version in state.versions:
        if version.artifact_hash == artifact_hash and state.was_champion(version):
            raise Refused(
                f"not promoted: this model is {version.name}, which was replaced:"
                f" `evergreen registry rollback --to {version.name}` brings it back"
            )
    if compared != current:
        name = state.champion.name if state.champion else "none"
        raise Refused(
            f"not promoted: it was compared with another champion than the present one ({name}): compare"
            " anew: `evergreen champion` and `dvc repro decide_promotion`; in Airflow, clear `evaluate`"
        )


def _checked_objects(root: Path, objects: Objects, artifact_hash: str) -> str:
    """md5 of the model's objects: those that dvc.lock names, whole in the cache and in the remote if any."""
    lock = root / "dvc.lock"
    md5 = locked_md5(lock.read_text(encoding="utf-8") if lock.is_file() else None)
    if md5 is None or objects.files(md5) is None:
        raise ArtifactError(f"{MODEL}: not in the DVC cache: run `dvc commit --force finetune`")
    objects.require(md5, artifact_hash)
    if objects.remote:
        objects.push(md5)
    return md5


def _unfinished(state: State, artifact_hash: str) -> Version | None:
    """A version of this model that a killed promotion registered without appointing it."""
    versions = (v for v in state.versions if v.artifact_hash == artifact_hash and not state.was_champion(v))
    return next(versions, None)


def _appoint(
    git: Git,
    state: State,
    version: Version,
    action: str,
    reason: str,
    messages: dict[str, str],
    descriptor: int,
    approved_by: str | None = None,
) -> None:
    record = AppointmentRecord(
        action=action,
        version=version.name,
        replaces=state.champion.name if state.champion else None,
        who=git.identity(),
        approved_by=approved_by,
        when=now(),
        reason=reason,
        artifact_hash=version.artifact_hash,
    )
    subject = f"{NAME} {version.name} is {STAGE} ({action}): {reason}"
    # The version's tag comes first: an appointment never points to a version that is not there.
    tags = {**messages, f"{NAME}#{STAGE}#{state.next_counter}": message(subject, record)}
    git.create_tags(version.commit, tags, after=state.newest, keep_open=descriptor)
