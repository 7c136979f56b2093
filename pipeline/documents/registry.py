"""data/registry.json, the export that stages read, and the records that the registry's tags carry."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Count, Document, Moment, Number, Part
from pipeline.documents.data import Manifest
from pipeline.documents.promotion import Promotion
from pipeline.documents.retraining import Reason


class Person(Part):
    """Whoever is forgotten, by a keyed mark (pipeline/data/forgotten.py)."""

    mark: str
    number: Count
    """Of the tag forgotten/N."""
    when: Moment | None = None
    as_of: Moment | None = None  # of the data then
    rows: Count = 0  # of data/raw then


class TrainingCost(Part):
    seconds: Number = None
    peak_gib: Number = None


class ExportedVersion(Part):
    version: str
    commit: str | None = None
    status: Literal["champion", "retired", "registered"] | None = None
    artifact_hash: str | None = None
    fit_end: Moment | None = None
    as_of: Moment | None = None
    when: Moment | None = None
    parent: str | None = None
    reason: str | None = None
    metrics: dict[str, Number] | None = None


class ListedVersion(ExportedVersion):
    objects: Literal["cache", "remote", "missing", "unknown"]
    """Where the model lies; unknown: the remote does not answer."""


class ExportedTraining(Part):
    artifact_hash: str | None = None
    fit_end: Moment | None = None
    as_of: Moment | None = None
    when: Moment | None = None
    mode: Literal["refresh", "full"] = "full"
    rows: Count | None = None
    version: str | None = None
    promoted: bool = False
    forgotten: Count | None = IF_KNOWN  # people whose rows its data left out: those up to this number
    training: TrainingCost = TrainingCost()


class Registry(Document):
    """data/registry.json: nothing that changes without an action."""

    remedy: ClassVar[str] = "run `evergreen champion`"

    champion: str | None
    versions: list[ExportedVersion] = Field(default_factory=list)  # oldest first
    trainings: list[ExportedTraining]  # oldest first
    forgotten: list[Person] = Field(default_factory=list, exclude_if=lambda people: not people)
    """Of whom the champion has learned all the same: they were forgotten later."""


class Record(Document):
    """Of a tag. All is optional: tags that gto or a person made carry nothing."""

    remedy: ClassVar[str] = "see `evergreen registry list`"

    action: str | None = None
    who: str | None = None
    when: Moment | None = None
    reason: str | None = None
    artifact_hash: str | None = None


class AppointmentRecord(Record):
    version: str | None = None
    approved_by: str | None = None  # who said yes, where a person was asked
    replaces: str | None = Field(None, validation_alias="from", serialization_alias="from")


class FitRecord(Record):
    fit_end: Moment | None = None
    as_of: Moment | None = None
    mode: Literal["refresh", "full"] = "full"
    refresh_of: str | None = None
    rows: Count | None = None
    forgotten: Count | None = IF_KNOWN  # as in ExportedTraining
    training: dict[str, Any] | None = None  # its cost, and what the challenger's training says of itself

    @property
    def cost(self) -> TrainingCost:
        training = self.training or {}
        return TrainingCost(seconds=training.get("seconds"), peak_gib=training.get("peak_gib"))


class TrainingRecord(FitRecord):
    champion: str | None = None
    reasons: list[Reason] | None = None
    promote: bool | None = None


class Source(Part):
    source: str | None = None
    fingerprint: str | None = None
    as_of: Moment | None = None
    content_hash: str | None = None


class Objects(Part):
    """The model folder among DVC's objects."""

    path: str
    md5: str


class VersionRecord(FitRecord):
    version: str | None = None
    metrics: dict[str, Number] | None = None
    parent: str | None = None
    data: Source | None = None
    objects: Objects | None = None
    verdict: Promotion | None = None


class Step(Part):
    """Of the change between two versions: what was exchanged, and what that brought at equal test points."""

    what: str
    """data, params or code; several where they could not be exchanged one by one."""
    changes: list[str]
    gain: Number
    """nDCG@10 with the exchange minus without it, every user alike; null where they could not be compared."""
    low: Number
    high: Number
    unknown: str | None = IF_KNOWN
    """Why it is not known."""


class Why(Part):
    """The change of nDCG@10 between two versions, as their evaluations reported it, step by step."""

    first: str
    second: str
    before: Number
    after: Number
    change: Number
    steps: list[Step]
    rest: Number
    """What no step explains: the two were evaluated at other test points."""


class Lineage(Part):
    """Where a version comes from: commit -> params -> data manifest -> source fingerprint."""

    version: str
    commit: str
    based_on: str
    record: VersionRecord
    appointments: list[AppointmentRecord]
    params: str | None
    manifest: Manifest | None
    outputs: dict[str, str | None]  # path -> md5
