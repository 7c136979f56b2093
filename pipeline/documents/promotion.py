"""reports/promotion.json: whether the challenger may become the champion, check by check."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.documents.base import IF_KNOWN, Document, Moment, Number, Part
from pipeline.documents.evaluation import Answer
from pipeline.documents.model import Privacy


class Check(Part):
    name: str
    passed: bool
    value: str | Number = None
    limit: str | Number = None
    text: str


class Identity(Part):
    """A model: what cannot be read of it is null."""

    version: str | None = None
    fit_end: Moment | None = None
    artifact_hash: str | None = None


class Model(Identity):
    """What the gate asks of a model folder; nothing of one that cannot be read."""

    features: list[str] | None = None
    mib: Number = None
    privacy: Privacy | None = None

    @property
    def identity(self) -> Identity:
        return Identity(version=self.version, fit_end=self.fit_end, artifact_hash=self.artifact_hash)


class Admission(Part):
    """Whether the challenger's lists, once it serves, draw their last places by what was learned for them."""

    admitted: bool
    estimate: Answer | None = None  # of the evaluation, from the log
    simulation: Answer | None = None  # None: not simulated with these weights
    weights: dict[str, Number] = Field(default_factory=dict)  # of pipeline.evaluation.exploration.COLUMNS
    text: str


class Promotion(Document):
    remedy: ClassVar[str] = "run `dvc repro --force decide_promotion`"

    promote: bool
    approval: Literal["auto", "human"] | None = None
    checks: list[Check]
    warnings: list[str] = Field(default_factory=list)
    challenger: Identity
    champion: Identity | None = None
    exploration: Admission | None = IF_KNOWN  # None: nothing was learned

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]
