"""The registry, read: versions, appointments, lineage. The state is git tags, the models are DVC objects.

Tags follow GTO (`gto show` reads them): `recommender@vN.0.0` is version N, on a commit that snapshots the
tracked files and dvc.lock; `recommender#champion#M` is the M-th appointment: the newest says which version is
the champion. `training/K` is the K-th training, promoted or not, on the commit that was checked out.
`forgotten/N` has the mark of the N-th person to be forgotten. `rewritten/N` says which models lost what they
had of somebody, and so have another hash: tags never change, and what older ones say of the old hash holds of
the new one; the dvc.lock of its commit names the version's objects as they are now. Each message carries a
JSON record. Nothing else is the truth; data/registry.json and data/forgotten.json are exports for stages,
whose first content is committed, so that they can depend on them
in a fresh clone. pipeline/registry/actions.py writes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeVar

from pipeline.documents.data import Manifest
from pipeline.documents.forgetting import ForgottenPeople, ForgottenRecord, Replaced, RewrittenRecord
from pipeline.documents.registry import (
    AppointmentRecord,
    ExportedTraining,
    ExportedVersion,
    FitRecord,
    Lineage,
    ListedVersion,
    Person,
    Record,
    Registry,
    TrainingRecord,
    VersionRecord,
)
from pipeline.errors import ArtifactError
from pipeline.files import write_text
from pipeline.registry.git import Git, Tag
from pipeline.registry.objects import Objects, locked

log = logging.getLogger(__name__)
NAME: Final = "recommender"
STAGE: Final = "champion"
EXPORT, FORGOTTEN = Path("data/registry.json"), Path("data/forgotten.json")
EXPORTS = (EXPORT, FORGOTTEN)
RECORDS = "registry"
"""Folder of a version's commit that holds the reports and the manifest as they were."""

Place = Literal["cache", "remote", "missing", "unknown"]
Status = Literal["champion", "retired", "registered"]
AnyRecord = TypeVar("AnyRecord", bound=Record)
_VERSION = re.compile(rf"{NAME}@(v(\d+)\.\d+\.\d+)")
_APPOINTMENT = re.compile(rf"{NAME}#{STAGE}(!?)#(\d+)")
_COUNTER = re.compile(rf"{NAME}[@#].*#(\d+)")
_TRAINING = re.compile(r"training/(\d+)")
_FORGOTTEN, _REWRITTEN = re.compile(r"forgotten/(\d+)"), re.compile(r"rewritten/(\d+)")


@dataclass(frozen=True)
class Version:
    name: str
    number: int
    commit: str
    record: VersionRecord = field(compare=False)
    rewritten_in: str | None = field(default=None, compare=False)  # the newest such commit; None: none
    fitted_without: int = field(default=0, compare=False)
    """Number of the newest person forgotten whose rows, and earlier ones', its matrices are without."""

    @property
    def artifact_hash(self) -> str:
        return str(self.record.artifact_hash)

    @property
    def lock_commit(self) -> str:
        """Whose dvc.lock names its objects as they are now."""
        return self.rewritten_in or self.commit

    @property
    def md5(self) -> str | None:
        """Of the model folder among DVC's objects."""
        return self.record.objects.md5 if self.record.objects else None


@dataclass(frozen=True)
class Appointment:
    """A version became champion, by promotion or rollback; None: it was withdrawn (`gto unassign`)."""

    number: int
    version: Version | None
    record: AppointmentRecord = field(compare=False)


@dataclass(frozen=True)
class Training:
    """A challenger was trained, whatever became of it."""

    number: int
    record: TrainingRecord = field(compare=False)

    @property
    def artifact_hash(self) -> str:
        return str(self.record.artifact_hash)


@dataclass(frozen=True)
class State:
    versions: list[Version]  # by number
    appointments: list[Appointment]  # by number
    trainings: list[Training]  # by number
    next_counter: int
    newest: int  # time of the newest tag, seconds since 1970
    forgotten: list[Person] = field(default_factory=list)  # by number
    rewritten: int = 0  # number of the newest tag rewritten/N
    models: dict[str, Replaced] = field(default_factory=dict)  # hash of a model folder -> what it is now
    moved: dict[str, str] = field(default_factory=dict)  # md5 of a model folder -> what it is now
    fitted: dict[str, int] = field(default_factory=dict)  # md5 of a model folder -> `fitted_without`

    @property
    def hashes(self) -> dict[str, str]:
        """Of model folders -> what they are now."""
        return {before: one.after for before, one in self.models.items()}

    @property
    def erased(self) -> set[str]:
        """md5s of model folders that others have taken the place of."""
        return {old for old, now in self.moved.items() if old != now} - set(self.moved.values())

    @property
    def champion(self) -> Version | None:
        return self.appointments[-1].version if self.appointments else None

    @property
    def next_number(self) -> int:
        return 1 + max((version.number for version in self.versions), default=0)

    def learned_from(self, version: Version) -> list[Person]:
        """The forgotten whose rows some part of it has seen: a refresh keeps an older version's encoder."""
        full, names = version.record, {one.name: one.record for one in self.versions}
        for _ in self.versions:
            if full.refresh_of in names:
                full = names[full.refresh_of]
        return [person for person in self.forgotten if person.number > (full.forgotten or 0)]

    def was_champion(self, version: Version) -> bool:
        return any(appointment.version == version for appointment in self.appointments)

    def predecessor(self, version: Version) -> Version | None:
        """The champion that this version replaced when it was last promoted."""
        before = previous = None
        for appointment in self.appointments:
            if appointment.version == version and appointment.record.action != "rollback":
                before = previous
            previous = appointment.version
        return before

    def find(self, wanted: str) -> Version:
        """By `v2.0.0`, `v2`, `2` or `champion`. Raises ArtifactError naming what there is."""
        if wanted == STAGE and self.champion:
            return self.champion
        for version in self.versions:
            if wanted in (version.name, f"v{version.number}", str(version.number)):
                return version
        known = ", ".join(version.name for version in self.versions) or "there is none yet"
        raise ArtifactError(f"{wanted}: no such version; name one of: {known}")


def read_state(git: Git) -> State:
    tags, others = git.tags(NAME), git.tags("training/", "forgotten/", "rewritten/")
    now = _Rewritten.of(
        [(int(m[1]), tag.commit, _record(tag, RewrittenRecord)) for tag, m in _matching(_REWRITTEN, others)]
    )
    versions = [
        now.version(Version(match[1], int(match[2]), tag.commit, _record(tag, VersionRecord)))
        for tag, match in _matching(_VERSION, tags)
    ]
    by_commit = {version.commit: version for version in versions}
    appointments = [
        Appointment(
            int(match[2]),
            None if match[1] else by_commit[tag.commit],
            now.record(_record(tag, AppointmentRecord)),
        )
        for tag, match in _matching(_APPOINTMENT, tags)
        if match[1] or tag.commit in by_commit
    ]
    return State(
        versions=sorted(versions, key=lambda version: version.number),
        appointments=sorted(appointments, key=lambda appointment: appointment.number),
        trainings=sorted(
            (
                Training(int(match[1]), now.record(_record(tag, TrainingRecord)))
                for tag, match in _matching(_TRAINING, others)
            ),
            key=lambda training: training.number,
        ),
        next_counter=1 + max((int(match[1]) for _, match in _matching(_COUNTER, tags)), default=0),
        newest=max((tag.time for tag in [*tags, *others]), default=0),
        forgotten=sorted(_forgotten(others), key=lambda person: person.number),
        rewritten=now.newest,
        models=now.models,
        moved=now.moved,
        fitted=now.fitted,
    )


def _forgotten(tags: list[Tag]) -> Iterator[Person]:
    for tag, match in _matching(_FORGOTTEN, tags):
        if person := _record(tag, ForgottenRecord).person:
            yield person.but(number=int(match[1]))


@dataclass(frozen=True)
class _Rewritten:
    """What model folders are now."""

    newest: int
    models: dict[str, Replaced] = field(default_factory=dict)  # by their hash
    moved: dict[str, str] = field(default_factory=dict)  # by their md5
    commits: dict[str, str] = field(default_factory=dict)  # md5 as it is now -> commit of its tag
    fitted: dict[str, int] = field(default_factory=dict)  # md5 as it is now -> `fitted_without`

    @classmethod
    def of(cls, records: list[tuple[int, str, RewrittenRecord]]) -> _Rewritten:
        """(number, commit, record) of each tag: a model may have been rewritten for several people."""
        now = cls(max((number for number, _, _ in records), default=0))
        for _, commit, record in sorted(records, key=lambda one: one[0]):
            for one in record.models:
                now.add(one, commit)
        return now

    def add(self, one: Replaced, commit: str) -> None:
        """The next one, in order."""
        for before, then in self.models.items():
            if then.after == one.before:
                self.models[before] = one
        self.models[one.before] = one
        self.commits[one.md5] = commit
        self.fitted[one.md5] = max(one.fitted_without or 0, self.fitted.get(one.old or "", 0))
        if one.old is not None:
            for old, then_md5 in self.moved.items():
                if then_md5 == one.old:
                    self.moved[old] = one.md5
            self.moved[one.old] = one.md5

    def record(self, record: AnyRecord) -> AnyRecord:
        found = self.models.get(str(record.artifact_hash))
        return record.but(artifact_hash=found.after) if found else record

    def version(self, version: Version) -> Version:
        record, commit = version.record, None
        found = self.models.get(str(record.artifact_hash))
        if found is not None and record.objects is not None:
            record = record.but(artifact_hash=found.after, objects=record.objects.but(md5=found.md5))
            commit = self.commits[found.md5]
        fitted = self.fitted.get(record.objects.md5, 0) if record.objects else 0
        return replace(version, record=record, rewritten_in=commit, fitted_without=fitted)


def message(subject: str, record: Record) -> str:
    """A tag's message: a line for people, then the record."""
    return f"{subject}\n\n{record.to_json()}"


def _record(tag: Tag, kind: type[AnyRecord]) -> AnyRecord:
    """The JSON behind the first paragraph; one without content in a tag that gto or a person made."""
    return kind.find_in(tag.message.partition("\n\n")[2]) or kind()


def _matching(pattern: re.Pattern[str], tags: list[Tag]) -> Iterator[tuple[Tag, re.Match[str]]]:
    for tag in tags:
        if match := pattern.fullmatch(tag.name):
            yield tag, match


def lineage(root: Path, wanted: str) -> Lineage:
    """Read from git, so that it tells the same of every version on every machine."""
    git = Git(root)
    state = read_state(git)
    version = state.find(wanted)
    manifest = git.show(version.commit, f"{RECORDS}/manifest.json")
    lock = git.show(version.commit, "dvc.lock")
    return Lineage(
        version=version.name,
        commit=version.commit,
        based_on=git.run("log", "-1", "--format=%P", version.commit),
        record=version.record,
        appointments=[a.record for a in state.appointments if a.version == version],
        params=git.show(version.commit, "params.yaml"),
        manifest=Manifest.find_in(manifest),
        outputs={out["path"]: out.get("md5") for out in locked(lock, "outs")},
    )


def versions_table(root: Path) -> list[ListedVersion]:
    """The export's versions, newest first, and where the model of each lies."""
    state, objects = read_state(Git(root)), Objects(root)
    reachable, table = True, []
    for row, version in zip(exported(state).versions, state.versions, strict=True):
        place: Place = "missing"
        if objects.files(version.md5):
            place = "cache"
        elif version.md5 and objects.remote:
            try:
                there = reachable and objects.is_in_remote(version.md5)
                place = "remote" if there else place if reachable else "unknown"
            except ArtifactError as error:
                log.warning("%s", error)
                reachable, place = False, "unknown"
        table.append(ListedVersion(**dict(row), objects=place))
    return table[::-1]


def exported(state: State) -> Registry:
    """What data/registry.json holds."""
    return Registry(
        champion=state.champion.name if state.champion else None,
        versions=[_exported_version(state, version) for version in state.versions],
        trainings=_exported_trainings(state),
        forgotten=state.learned_from(state.champion) if state.champion else [],
    )


def _exported_version(state: State, version: Version) -> ExportedVersion:
    keys = ("artifact_hash", "fit_end", "as_of", "when", "parent", "reason", "metrics")
    return ExportedVersion(
        version=version.name,
        commit=version.commit,
        status=_status(state, version),
        **{key: getattr(version.record, key) for key in keys},
    )


def _exported_trainings(state: State) -> list[ExportedTraining]:
    """Of a version whose training nobody recorded, what its own record says."""
    versions = {version.artifact_hash: version for version in reversed(state.versions)}
    recorded = {training.artifact_hash for training in state.trainings}
    records: list[FitRecord] = [training.record for training in state.trainings]
    records += [version.record for version in state.versions if version.artifact_hash not in recorded]
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(
        (_exported_training(record, versions, state) for record in records),
        key=lambda training: training.when or never,
    )


def _exported_training(record: FitRecord, versions: dict[str, Version], state: State) -> ExportedTraining:
    version = versions.get(str(record.artifact_hash))
    return ExportedTraining(
        artifact_hash=record.artifact_hash,
        fit_end=record.fit_end,
        as_of=record.as_of,
        when=record.when,
        mode=record.mode,
        rows=record.rows,
        version=version.name if version else None,
        promoted=version is not None and state.was_champion(version),
        forgotten=record.forgotten,
        training=record.cost,
    )


def _status(state: State, version: Version) -> Status:
    if version == state.champion:
        return STAGE
    return "retired" if state.was_champion(version) else "registered"


def export(root: Path, state: State) -> None:
    """Write data/registry.json and data/forgotten.json if they would change: stages may depend on them."""
    git, people = Git(root), ForgottenPeople(people=state.forgotten)
    for path, content in ((EXPORT, exported(state)), (FORGOTTEN, people)):
        git.overlook(str(path))  # every time: `dvc exp run` undoes it
        text, there = content.to_json(), (root / path).is_file()
        if there and (root / path).read_text(encoding="utf-8") == text:
            continue
        if there or content != ForgottenPeople():
            write_text(root / path, text)
